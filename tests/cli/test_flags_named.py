"""What a command advises can be done with that command: it names flags of its own, or the command that has them."""

from __future__ import annotations

import re

import polars as pl
import pytest
import typer

from command import localgd, patients
from localgd.cli.app import app

READ = ("--label", "outcome", "--node", "site")
FLAGS = {
    name: {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    for name, command in typer.main.get_command(app).commands.items()
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    frame = patients(n=300).with_columns(ward=pl.int_range(pl.len()) % 3, seen=pl.lit("2020-02-01"))
    frame.write_csv(folder / "rows.csv")
    how = ("--categorical", "ward", "--dates", "seen")
    assert localgd("train", folder / "rows.csv", *READ, *how, "--out", folder / "RUN").returncode in {0, 3}
    assert localgd("train", folder / "rows.csv", *READ, *how, "--C", "1", "--out", folder / "RUN2").returncode == 0
    return folder


FAULTS = {
    "unseen category": {"smoker": "pipe"},
    "blank category": {"smoker": None},
    "text among numbers": {"marker": "k.A."},
    "comma": {"marker": "0,5"},
    "no date": {"seen": "tomorrow"},
    "label of no class": {"outcome": "dead"},
    "no label": {"outcome": None},
    "no node": {"site": None},
}


def foreign(name, done):
    """Return the flags that a command names and does not have; those of a command that is named count for that one."""
    text = re.sub(r"`localgd [^`]*`", "", done.stdout + done.stderr)
    return sorted(set(re.findall(r"(?<![-\w])--[a-z][\w-]*|--C\b", text)) - FLAGS[name])


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_advised_of_rows_with_a_fault_are_flags_of_the_command(made, tmp_path, fault):
    frame = pl.read_csv(made / "rows.csv", infer_schema=False)
    wrong = [pl.lit(value, pl.String).alias(column) for column, value in FAULTS[fault].items()]
    pl.concat([frame[:-1], frame[-1:].with_columns(wrong)]).write_csv(tmp_path / "odd.csv")
    refused = []
    for name, words in {
        "evaluate": ("--json",),
        "certify": (),
        "calibrate": ("--out", tmp_path / "calibrated.json"),
        "predict": ("--proba",),
    }.items():
        done = localgd(name, made / "RUN2", tmp_path / "odd.csv", *words)
        assert foreign(name, done) == [], (name, done.stderr)
        refused += [name] if done.returncode == 2 else []
    assert refused


@pytest.mark.parametrize("column", ["smoker", "marker", "seen", "outcome"])
def test_what_is_advised_of_a_column_that_is_not_there_are_flags_of_the_command(made, tmp_path, column):
    pl.read_csv(made / "rows.csv", infer_schema=False).drop(column).write_csv(tmp_path / "odd.csv")
    for name in ("evaluate", "certify", "predict"):
        done = localgd(name, made / "RUN2", tmp_path / "odd.csv")
        assert done.returncode == (0 if (name, column) == ("predict", "outcome") else 2)
        assert foreign(name, done) == [], (name, done.stderr)


def test_scores_that_are_no_log_odds_name_the_commands_that_make_some(made):
    done = localgd("evaluate", made / "RUN", made / "rows.csv")
    assert "no log-odds (`localgd train --C 1` or `localgd calibrate`)" in done.stdout
    assert foreign("evaluate", done) == []
    assert foreign("predict", localgd("predict", made / "RUN", made / "rows.csv", "--proba")) == []


def test_certify_takes_a_category_that_training_never_met_as_none_where_that_is_said(made, tmp_path):
    frame = pl.read_csv(made / "rows.csv", infer_schema=False)
    odd = pl.concat([frame[:-1], frame[-1:].with_columns(smoker=pl.lit("pipe"))])
    odd.write_csv(tmp_path / "odd.csv")
    assert "(--unseen zeros)" in localgd("certify", made / "RUN2", tmp_path / "odd.csv").stderr
    done = localgd("certify", made / "RUN2", tmp_path / "odd.csv", "--unseen", "zeros")
    assert done.returncode == 0
    assert "what training never met is read as none: of 'smoker' in 1 row" in done.stderr


def test_certify_counts_the_missing_values_of_the_rows_that_it_is_given(tmp_path):
    frame = patients(n=300).with_columns(pl.col("smoker").replace({"former": None}))
    frame.with_columns(age=pl.when(pl.int_range(pl.len()) % 5 > 0).then(pl.col("age"))).write_csv(tmp_path / "all.csv")
    assert localgd("train", tmp_path / "all.csv", *READ, "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    for n_rows in (40, len(frame)):
        rows = pl.read_csv(tmp_path / "all.csv")[:n_rows]
        rows.write_csv(tmp_path / "part.csv")
        n_missing = rows["age"].null_count() + rows["smoker"].null_count()
        done = localgd("certify", tmp_path / "RUN", tmp_path / "part.csv")
        assert f"; {n_missing} missing values filled" in done.stderr
    full = rows.drop_nulls()
    full.write_csv(tmp_path / "full.csv")
    assert "missing values" not in localgd("certify", tmp_path / "RUN", tmp_path / "full.csv").stderr
