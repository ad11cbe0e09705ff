"""A hospital that took no part calls classes and categories otherwise; what it says of them counts."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from command import found_in, localgd, patients

READ = ("--label", "outcome", "--node", "site", "--drop", "day")
KNOWN = {"ill": 0, "well": 1}


def rows() -> pl.DataFrame:
    frame = patients(n=300).with_columns(day=pl.lit("2020-01-02"), outcome=pl.col("outcome").replace_strict(KNOWN))
    flipped = pl.Series(np.arange(len(frame)) % 17 == 0)
    return frame.with_columns(outcome=pl.when(flipped).then(1 - pl.col("outcome")).otherwise(pl.col("outcome")))


def other(labels: dict[int, object], wards: dict[str, str]) -> pl.DataFrame:
    """Return the same rows in other words."""
    return rows().with_columns(pl.col("outcome").replace_strict(labels), pl.col("smoker").replace(wards))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rows().write_csv(folder / "rows.csv")
    assert localgd("train", folder / "rows.csv", *READ, "--C", "1", "--out", folder / "RUN").returncode == 0
    return folder


@pytest.mark.parametrize(
    ("labels", "label_map"),
    [
        ({0: "no", 1: "yes"}, "no=0,yes=1"),
        ({0: "NO", 1: "Yes"}, "no=0,yes=1"),
        ({0: 1, 1: 2}, "1=0,2=1"),  # 1 is a class itself, of other rows
        ({0: 1, 1: 0}, "1=0,0=1"),
    ],
)
def test_rows_in_other_words_give_what_the_same_rows_give(made, tmp_path, labels, label_map):
    path = tmp_path / "other.csv"
    other(labels, {"yes": "ja", "former": "früher"}).write_csv(path)
    maps = ("--label-map", label_map, "--category-map", "smoker:Ja=yes,früher=former")
    for name in ("evaluate", "certify"):
        expected, found = (
            localgd(name, made / "RUN", *words, "--json") for words in ((made / "rows.csv",), (path, *maps))
        )
        assert found_in(found) == found_in(expected)
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for out, words in zip(outs, ((made / "rows.csv",), (path, *maps)), strict=True):
        assert localgd("calibrate", made / "RUN", *words, "--out", out).returncode == 0
    assert outs[0].read_text() == outs[1].read_text()


def test_a_column_of_codes_is_mapped_as_it_is_written(tmp_path):
    frame = rows().with_columns(ward=pl.Series(["01", "02", "03"] * 100)[: len(rows())])
    frame.write_csv(tmp_path / "rows.csv")
    frame.with_columns(pl.col("ward").replace({"01": "1", "02": "2", "03": "3"})).write_csv(tmp_path / "other.csv")
    read = (*READ, "--categorical", "ward", "--C", "1")
    assert localgd("train", tmp_path / "rows.csv", *read, "--out", tmp_path / "RUN").returncode == 0
    words = ("--category-map", "ward:1=01,2=02,3=03", "--json")
    expected, found = (
        localgd("evaluate", tmp_path / "RUN", tmp_path / name, *more)
        for name, more in (("rows.csv", ("--json",)), ("other.csv", words))
    )
    assert found_in(found) == found_in(expected)


def test_without_a_map_the_error_says_that_there_is_one(made, tmp_path):
    other({0: "no", 1: "yes"}, {}).write_csv(tmp_path / "other.csv")
    done = localgd("evaluate", made / "RUN", tmp_path / "other.csv")
    assert done.returncode == 2
    assert re.search(r"label '(no|yes)' is none of the classes \(0, 1\); .*\(--label-map \1=…\)", done.stderr)


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "certify"])
def test_what_cannot_count_is_refused_in_words(made, tmp_path, name):
    def refused(*words):
        out = ("--out", tmp_path / "out.json") if name == "calibrate" else ()
        done = localgd(name, made / "RUN", made / "rows.csv", *words, *out)
        assert done.returncode == 2, done.stdout
        return done.stderr

    for words in (("--n-classes", "2"), ("--scale", "none"), ("--text", "smoker")):
        assert f"brings its own preparation; leave {words[0]} out" in refused(*words)
    assert "--label-map maps 'no' to 2, which is none of the model's classes (0, 1)" in refused("--label-map", "no=2")
    assert "--label-map is VALUE=MEANING" in refused("--label-map", "no")
    assert "maps 'ja' to 'si', which is none of the model's categories" in refused("--category-map", "smoker:ja=si")
    assert "--category-map 'age' is not a column of categories of the model" in refused("--category-map", "age:1=2")
    assert "takes it as a column of numbers; leave that out" in refused("--categorical", "age")
    assert "takes it as a column of categories; leave that out" in refused("--dates", "smoker")
    assert "--dates 'day' is not a column of" in refused("--dates", "day")


def test_a_model_of_numbers_has_no_classes_to_map(made, tmp_path):
    read = ("--label", "age", "--node", "site", "--drop", "day", "--task", "regression")
    assert localgd("train", made / "rows.csv", *read, "--out", tmp_path / "RUN").returncode == 0
    done = localgd("evaluate", tmp_path / "RUN", made / "rows.csv", "--label-map", "no=0")
    assert "--label-map is for classes, and the model predicts numbers; leave it out" in done.stderr


def test_dates_of_other_rows_are_days_of_a_model_that_knows_them_as_numbers(tmp_path):
    days = pl.Series(np.arange(len(rows())) % 50)
    frame = rows().drop("day").with_columns(seen=18000 + days)
    frame.write_csv(tmp_path / "rows.csv")
    frame.with_columns(seen=pl.col("seen").cast(pl.Int32).cast(pl.Date)).write_csv(tmp_path / "dated.csv")
    read = (*READ[:4], "--C", "1")
    assert localgd("train", tmp_path / "rows.csv", *read, "--out", tmp_path / "RUN").returncode == 0
    plain, dated = (
        localgd("evaluate", tmp_path / "RUN", tmp_path / name, *more, "--json")
        for name, more in (("rows.csv", ()), ("dated.csv", ("--dates", "seen")))
    )
    assert found_in(dated) == found_in(plain)
