"""``--missing-values`` of a run holds for every command on it, and more may be said of other rows."""

from __future__ import annotations

import json

import polars as pl
import pytest

from command import found_in, localgd, patients

READ = ("--label", "outcome", "--node", "site", "--C", "1")
SAID = ("--missing-values", "k.A.,--", "--missing-values", "smoker:former")


def rows(*, blank: bool, word: str = "k.A.") -> pl.DataFrame:
    every = pl.int_range(pl.len())
    return patients(n=300).with_columns(
        age=pl.when(every % 11 == 3).then(None if blank else pl.lit(word)).otherwise(pl.col("age").cast(pl.String)),
        smoker=pl.when((pl.col("smoker") == "former") & blank).then(None).otherwise("smoker"),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for blank, said in ((True, ()), (False, SAID)):
        place = folder / ("blank" if blank else "words")
        place.mkdir()
        rows(blank=blank).write_csv(place / "rows.csv")
        done = localgd("train", place / "rows.csv", *READ, *said, "--out", place / "RUN")
        assert done.returncode == 0, done.stderr
    return folder


def told(done):
    """Return what a command found: of JSON all but the notes, which name the run's flags and the files it knows."""
    assert done.returncode == 0, done.stderr
    return found_in(done) if done.stdout.startswith("{") else done.stdout


def test_every_command_gives_what_blank_cells_give(made):
    for words in (("evaluate", "--json"), ("certify", "--json"), ("predict",)):
        found, expected = (
            localgd(words[0], made / place / "RUN", made / place / "rows.csv", *words[1:])
            for place in ("words", "blank")
        )
        assert told(found) == told(expected)
    model, other = (json.loads((made / place / "RUN" / "model.json").read_text()) for place in ("words", "blank"))
    assert (model["coef"], model["intercept"]) == (other["coef"], other["intercept"])
    flat = localgd("evaluate", made / "words" / "RUN" / "model.json", made / "words" / "rows.csv", *READ[:4], "--json")
    assert told(flat) == told(localgd("evaluate", made / "blank" / "RUN", made / "blank" / "rows.csv", "--json"))


def test_rows_of_others_may_have_words_of_their_own(made):
    path = made / "other.csv"
    rows(blank=False, word="n. b.").write_csv(path)
    for words in (("evaluate", "--json"), ("predict",)):
        refused = localgd(words[0], made / "words" / "RUN", path, *words[1:])
        assert refused.returncode == 2
        assert "--missing-values 'n. b.'" in refused.stderr
        done = localgd(words[0], made / "words" / "RUN", path, *words[1:], "--missing-values", "n. b.")
        expected = localgd(words[0], made / "words" / "RUN", made / "words" / "rows.csv", *words[1:])
        assert told(done) == told(expected)


def test_an_export_says_what_it_does_not_know(made):
    done = localgd("export", made / "words" / "RUN", "--to", "csv", "--out", made / "coefficients.csv")
    assert "values that stand for missing ones ('--', 'k.a.', 'former') are no missing ones there" in done.stderr


def test_a_column_that_is_not_there_is_named(made):
    done = localgd("train", made / "words" / "rows.csv", *READ, "--missing-values", "smokr:former")
    assert done.returncode == 2
    assert "--missing-values 'smokr' is not a column" in done.stderr
    assert "did you mean 'smoker'?" in done.stderr
