"""Commands on a run remember how its rows were read, and what it was certified against."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from command import found_in, localgd, patients
from localgd import InProcess, LeastSquares, Model, Regularised, auto, from_arrays, lbfgs, load, prepare, train
from localgd.losses import Logistic

READ = ("--label", "outcome", "--node", "site", "--drop", "note")


@dataclass(frozen=True)
class Steeper(Logistic):
    """A loss that nobody else knows."""

    def value(self, margin):
        return super().value(2 * margin)

    def slope(self, margin):
        return 2 * super().slope(2 * margin)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "patients.csv"
    frame = patients(n=300)
    flipped = pl.Series(np.arange(len(frame)) % 17 == 0)  # no plane separates these
    outcome = pl.when(flipped).then(pl.lit("ill")).otherwise(pl.col("outcome")).alias("outcome")
    frame.with_columns(outcome, note=pl.Series([f"n{row}" for row in range(len(frame))])).write_csv(path)
    return path


@pytest.fixture(scope="module")
def run(table):
    assert localgd("train", table, *READ, "--out", table.parent / "RUN").returncode == 0
    return table.parent / "RUN"


def test_certify_compares_with_what_the_run_ended_certified_against(run, table):
    done = localgd("certify", run, table)
    assert done.returncode == 0, done.stderr
    assert "compared with the pooled minimiser of the logistic loss without a penalty" in done.stderr
    assert "read as for the run: --label outcome --node site --drop note" in done.stderr
    assert "certified: within" in done.stdout
    other = localgd("certify", run / "model.json", table, "--C", "1")
    assert "with C=1, in place of the run's minimiser of the logistic loss without a penalty" in other.stderr
    angle = localgd("certify", run, table, "--angle-tol-deg", "5")
    assert "compared with the pooled max-margin model, in place of" in angle.stderr
    assert "not separable" in angle.stdout


def test_an_angle_asked_of_a_run_with_a_penalty_is_one_to_its_minimiser(table, tmp_path):
    assert localgd("train", table, *READ, "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    done = localgd("certify", tmp_path / "RUN", table, "--angle-tol-deg", "0.01")
    assert done.returncode == 0, done.stdout
    assert "compared with the pooled minimiser of the logistic loss with C=1\n" in done.stderr
    assert "certified: within" in done.stdout
    entries = json.loads((tmp_path / "RUN" / "model.json").read_text())
    entries["coef"][0] += 1.0
    (tmp_path / "RUN" / "model.json").write_text(json.dumps(entries))
    moved = localgd("certify", tmp_path / "RUN", table, "--angle-tol-deg", "0.01")
    assert moved.returncode == 3
    assert "not proved, as asked: within 0.01° of the pooled model" in moved.stdout
    other = localgd("certify", tmp_path / "RUN", table, "--angle-tol-deg", "0.01", "--C", "2")
    assert "with C=2, in place of the run's minimiser of the logistic loss with C=1" in other.stderr
    (tmp_path / "copy.json").write_text((tmp_path / "RUN" / "model.json").read_text())
    copy = localgd("certify", tmp_path / "copy.json", table, *READ, "--angle-tol-deg", "5")
    assert "not separable" in copy.stdout


def test_evaluate_and_calibrate_read_the_rows_likewise(run, table, tmp_path):
    done = localgd("evaluate", run, table)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("north", "south", "west"))
    assert localgd("calibrate", run, table, "--out", tmp_path / "calibrated.json").returncode == 0


def test_what_is_said_overrides_and_a_blank_takes_back(run, table, tmp_path):
    frame = pl.read_csv(table).rename({"outcome": "result"}).drop("site", "note")
    frame.write_csv(tmp_path / "new.csv")
    short = localgd("evaluate", run, tmp_path / "new.csv", "--label", "result")
    assert short.returncode == 2
    assert "read as for the run: --node site --drop note; give another value, or '' for none" in short.stderr
    done = localgd("evaluate", run, tmp_path / "new.csv", "--label", "result", "--node", "", "--drop", "")
    assert done.returncode == 0, done.stderr
    assert "--label result, in place of the run's --label outcome" in done.stderr


def test_what_the_run_was_told_of_columns_that_other_rows_lack_is_passed_over(run, table, tmp_path):
    """A column to drop that is not there is dropped; one that is said now has to be there."""
    east = tmp_path / "east.csv"
    pl.read_csv(table).drop("note").write_csv(east)
    pl.read_csv(table).write_csv(tmp_path / "whole.csv")
    whole, part = (localgd("evaluate", run, path, "--json") for path in (tmp_path / "whole.csv", east))
    assert found_in(part) == found_in(whole)
    assert localgd("certify", run, east).returncode == 0
    assert localgd("calibrate", run, east, "--out", tmp_path / "calibrated.json").returncode == 0
    assert localgd("predict", run, east).returncode == 0
    typed = localgd("evaluate", run, east, "--drop", "note")
    assert typed.returncode == 2
    assert "--drop 'note' is not a column of" in typed.stderr


def test_columns_of_categories_and_dates_that_other_rows_lack_are_filled_or_missed_by_the_model(tmp_path):
    frame = patients(n=200).with_columns(ward=pl.int_range(pl.len()) % 3, seen=pl.lit("2020-02-01"))
    frame.write_csv(tmp_path / "all.csv")
    frame.drop("ward", "seen").write_csv(tmp_path / "east.csv")
    read = ("--label", "outcome", "--node", "site", "--categorical", "ward", "--dates", "seen")
    assert localgd("train", tmp_path / "all.csv", *read, "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    short = localgd("evaluate", tmp_path / "RUN", tmp_path / "east.csv")
    assert short.returncode == 2
    assert "columns 'ward', 'seen' were used in training but not found among the features" in short.stderr
    words = ("--fill-missing-columns", "--unseen", "zeros")
    done = localgd("evaluate", tmp_path / "RUN", tmp_path / "east.csv", *words)
    assert done.returncode == 0, done.stderr


def test_predict_reads_a_file_as_that_of_its_name_was_read_for_the_run(tmp_path):
    """With a comma, 1.234 is a thousand and more: read with a point, the same rows are predicted otherwise."""
    frame = patients(n=300).with_columns(pl.col("age") * 100)
    (tmp_path / "sites").mkdir()
    for (name,), part in frame.partition_by("site", as_dict=True, include_key=False).items():
        part.write_csv(tmp_path / "sites" / f"{name}.csv")
    south = tmp_path / "sites" / "south.csv"
    rows = pl.read_csv(south)
    german = rows.drop("smoker").with_columns(pl.col("age").round().cast(pl.Int64), ort=pl.lit("Köln"))
    points = pl.col("age").cast(pl.String).str.replace(r"(\d)(\d{3})$", "$1.$2")
    commas = pl.col("marker").cast(pl.String).str.replace(".", ",", literal=True)
    german.with_columns(points, commas).write_csv(south, separator=";")
    south.write_bytes(south.read_text().encode("cp1252"))
    how = ("--decimal", "south=,", "--encoding", "south=cp1252", "--fill-missing-columns", "--drop", "ort")
    run = tmp_path / "RUN"
    assert localgd("train", south.parent, "--label", "outcome", *how, "--C", "1", "--out", run).returncode == 0
    found = localgd("predict", run, south, "--proba")
    assert found.returncode == 0, found.stderr
    line = "read as for the run: --decimal south=, --encoding south=cp1252 --fill-missing-columns"
    assert line in found.stderr
    said = ("--decimal", ",", "--encoding", "south=cp1252", "--fill-missing-columns")
    again = localgd("predict", run, south, "--proba", *said)
    assert "read as for the run" not in again.stderr
    german.write_csv(tmp_path / "plain.csv")
    plain = localgd("predict", run, tmp_path / "plain.csv", "--proba")
    assert "read as for the run: --fill-missing-columns\n" in plain.stderr
    assert found.stdout == again.stdout == plain.stdout
    accuracy = json.loads(localgd("evaluate", run, south.parent, "--json").stdout)["nodes"]["south"]["decisions"][0]
    labels = pl.read_csv(found.stdout.encode())["prediction"]
    assert (labels == rows["outcome"]).mean() == pytest.approx(accuracy["accuracy"][0], rel=1e-12)
    wrong = localgd("predict", run, tmp_path / "plain.csv", "--encoding", "south=cp1252")
    assert wrong.returncode == 2
    assert "'south' is not a node of" in wrong.stderr


def test_a_model_of_a_run_that_was_cut_short_names_what_there_is(table, tmp_path):
    (tmp_path / "my RUN.partial").mkdir()
    for name in ("predict", "evaluate"):
        done = localgd(name, tmp_path / "my RUN", table)
        assert done.returncode == 2
        assert f"{tmp_path / 'my RUN.partial'} is what there is of it" in done.stderr
        assert f"`localgd resume '{tmp_path / 'my RUN'}'` goes on" in done.stderr
    assert "cut short" not in localgd("predict", tmp_path / "OTHER", table).stderr


def test_a_partition_belongs_to_its_rows(tmp_path):
    split = ("--partition", "by_label", "--n-nodes", "5")
    assert localgd("train", "golub", *split, "--n-rounds", "3", "--out", tmp_path / "RUN").returncode == 0
    assert "--partition by_label --n-nodes 5" in localgd("certify", tmp_path / "RUN", "golub").stderr
    assert localgd("certify", tmp_path / "RUN", "golub", "--partition", "iid", "--n-nodes", "2").returncode == 0


def test_a_run_of_python_is_saved_and_taken_by_every_command(tmp_path):
    tables = load("heart")
    engine, recipe = prepare(InProcess(tables), scale="standard")
    out = train(engine, auto(), problem=Regularised(C=0.5, intercept=True))
    out.save(tmp_path / "RUN", recipe)
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == {
        *("config.json", "history.csv", "model.json", "coefficients.csv", "certificate.json")
    }
    done = localgd("certify", tmp_path / "RUN", "heart")
    assert "compared with the pooled minimiser of the logistic loss with C=0.5" in done.stderr
    assert "certified: within" in done.stdout
    assert localgd("evaluate", tmp_path / "RUN", "heart").returncode == 0
    tables[0].features.write_csv(tmp_path / "new.csv")
    labels = json.loads(localgd("predict", tmp_path / "RUN", tmp_path / "new.csv", "--json").stdout)
    assert labels == Model.load(tmp_path / "RUN").predict(tables[0])
    assert "nothing to resume" in localgd("resume", tmp_path / "RUN").stderr
    with pytest.raises(FileExistsError, match=r"exists already.*force \(--force\)"):
        out.save(tmp_path / "RUN", recipe)
    out.save(str(tmp_path / "RUN"), recipe, force=True)
    with pytest.raises(ValueError, match="recipe is not that of the run"):
        out.save(tmp_path / "OTHER", prepare(InProcess(load("heart")), intercept=False)[1])
    assert not (tmp_path / "OTHER").exists()


def test_what_the_run_noted_of_its_rows_is_not_said_of_others(table, tmp_path):
    sites, whole = tmp_path / "sites", pl.read_csv(table)
    sites.mkdir()
    for (name,), part in whole.partition_by("site", as_dict=True, include_key=False).items():
        (part.with_row_index("") if name == whole["site"][0] else part).write_csv(sites / f"{name}.csv")
    done = localgd("train", sites, "--label", "outcome", "--drop", "note", "--C", "1", "--out", tmp_path / "RUN")
    note = "the first column is left out"
    assert note in done.stderr
    done = localgd("certify", tmp_path / "RUN", table, "--node", "site")
    assert done.returncode == 0, done.stderr
    assert note not in done.stderr


def test_a_run_whose_rows_have_changed_is_not_to_go_on(table, tmp_path):
    frame = pl.read_csv(table)
    assert localgd("train", table, *READ, "--n-rounds", "3", "--method", "local-gd", "--out", tmp_path / "RUN").stdout
    frame.with_columns(frame["age"] + 1.0).write_csv(table)
    done = localgd("resume", tmp_path / "RUN", "--n-rounds", "100")
    assert done.returncode == 2
    assert "start afresh, or bring the old rows back" in done.stderr
    assert "go on with" not in done.stderr


def test_a_run_of_numbers_remembers_its_alpha(tmp_path):
    tables = from_arrays(np.arange(20.0).reshape(10, 2) ** 2, np.arange(10.0), np.arange(10) % 2)
    engine, recipe = prepare(InProcess(tables), classes=False)
    train(engine, auto(), problem=LeastSquares(3.0, intercept=True)).save(tmp_path / "RUN", recipe)
    frame = pl.DataFrame(tables[0].features, schema=["x0", "x1"]).with_columns(y=pl.Series(tables[0].labels))
    frame.write_csv(tmp_path / "rows.csv")
    said = localgd("certify", tmp_path / "RUN", tmp_path / "rows.csv", "--label", "y").stderr
    assert "compared with the pooled ridge solution with alpha=3" in said


def test_a_run_of_a_loss_of_its_own_is_not_compared_with_another_one_in_silence(tmp_path):
    engine, recipe = prepare(InProcess(load("heart")), scale="standard")
    out = train(engine, lbfgs(), problem=Regularised(Steeper(), C=0.5, intercept=True), n_rounds=3)
    assert "no certificate, as the loss is steeper" in out.certificate.status
    assert out.probabilities is None
    out.save(tmp_path / "RUN", recipe)
    done = localgd("certify", tmp_path / "RUN", "heart")
    assert done.returncode == 0, done.stderr
    assert "compared with" not in done.stderr
    assert "minimiser" not in done.stdout
