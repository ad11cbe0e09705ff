"""What a command says in words its JSON says, too."""

from __future__ import annotations

import json

import polars as pl
import pytest

from command import localgd, patients, write_sites
from localgd.evaluation.measures import NumberMetrics

READ = ("--label", "outcome", "--node", "site")
UNMET = "read as none: of 'ward' in "


def told(*words, code=0):
    """What a command prints as JSON."""
    done = localgd(*words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def spoken(*words):
    """What it says otherwise, on both streams."""
    done = localgd(*words)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Rows of which one only is of ward z, at one site alone."""
    place = tmp_path_factory.mktemp("rows") / "patients.csv"
    frame = patients(n=300).sort("site")
    wards = ["z" if row == 0 else "abc"[row % 3] for row in range(len(frame))]
    frame.with_columns(ward=pl.Series(wards), of=pl.Series([1.0 + row % 3 for row in range(len(frame))])).write_csv(
        place
    )
    return place


@pytest.fixture(scope="module")
def run(table):
    rest = table.with_name("rest.csv")
    pl.read_csv(table).filter(pl.col("ward") != "z").write_csv(rest)
    assert localgd("train", rest, *READ, "--C", "1", "--out", table.parent / "RUN").returncode == 0
    return table.parent / "RUN"


def test_notes_of_a_training_are_those_that_it_prints(table):
    words = ("train", table, *READ, "--C", "1", "--leave-one-node-out", "--weight", "of")
    found, said = told(*words), spoken(*words)
    assert found["weighted"]
    assert found["metrics"]["unmet"] == {"north": {"ward": 1}}
    assert any("3 nodes" in line and "with weights" in line for line in found["notes"])
    assert all(line in said for line in found["notes"])


def test_categories_that_rows_set_aside_alone_have_are_in_the_notes(table):
    for seed in range(40):
        words = ("train", table, *READ, "--C", "1", "--holdout", "0.3", "--seed", seed)
        found = told(*words)
        if any(UNMET in line for line in found["notes"]):
            break
    assert [line for line in spoken(*words).splitlines() if UNMET in line] == [
        line for line in found["notes"] if UNMET in line
    ]
    assert any("set aside, to judge the model by" in line for line in found["notes"])


def test_what_to_do_about_a_run_is_in_its_notes(tmp_path):
    folder = write_sites(tmp_path / "sites")
    short = ("train", folder, "--label", "outcome", "--method", "local-gd", "--n-rounds", "1")
    found, said = told(*short, "--leave-one-node-out"), spoken(*short, "--leave-one-node-out")
    assert found["unfinished"]
    assert "a loose bound; to tighten it: --method auto, or more --n-rounds" in found["notes"]
    assert all(line in said for line in found["notes"])
    flat = told("train", "heart", "--n-rounds", "0", code=1)
    assert "the model is 0 in every entry: there is nothing to predict with" in flat["notes"]


def test_a_choice_of_c_says_what_was_set_aside_and_how_to_judge_by_it(table):
    words = ("tune", table, *READ, "--Cs", "0.1,1", "--cv", "leave-one-node-out", "--holdout", "0.2", "--seed", "1")
    found, said = told(*words), spoken(*words)
    assert f"to judge by the rows set aside: {found['judge']}\n" in said
    assert all(line in said for line in found["notes"])
    assert any("set aside, to judge" in line for line in found["notes"])
    all_rows = told("tune", table, *READ, "--Cs", "0.1,1", "--cv", "leave-one-node-out")
    assert all_rows["unmet"] == {"north": {"ward": 1}}
    assert any(UNMET in line for line in all_rows["notes"])
    assert all_rows["judge"] is None


@pytest.mark.parametrize("command", [("evaluate",), ("certify",), ("certify", "--angle-tol-deg", "20")])
def test_notes_on_rows_are_those_on_standard_error(run, table, command):
    name, *more = command
    lenient = table.with_name("zeros.json")
    lenient.write_text((run / "model.json").read_text().replace('"unseen": "error"', '"unseen": "zeros"'))
    words = (name, lenient, table, *READ, *more)
    done = localgd(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert done.stderr.splitlines() == found["notes"]
    assert any(UNMET in line for line in found["notes"])
    if name == "certify":
        assert found["n_rows"] == pl.read_csv(table).height
        assert found["goal_met"] is (True if more else None)


def test_what_a_model_is_compared_with_is_said(run, table):
    found = told("certify", run, table.with_name("rest.csv"))
    assert found["compared_with"] == "minimiser of the logistic loss with C=1"
    assert "compared with the pooled minimiser of the logistic loss with C=1" in found["notes"]
    assert any(line.startswith("read as for the run: --label outcome") for line in found["notes"])


def test_a_list_of_labels_has_its_notes_on_standard_error(run, table):
    done = localgd("predict", run, table, "--unseen", "zeros", "--json")
    assert len(json.loads(done.stdout)) == pl.read_csv(table).height
    assert UNMET in done.stderr


def test_a_comparison_has_true_angles_and_why_nothing_is_proved():
    done = localgd("compare", "heart", "--methods", "local-gd", "--n-rounds", "2", "--json")
    rows = json.loads(done.stdout)
    assert {row["status"] for row in rows} == {rows[0]["status"]}
    assert rows[0]["status"] in localgd("compare", "heart", "--methods", "local-gd", "--n-rounds", "2").stdout
    assert rows[0]["final_true_deg"] is None
    assert "columns of" in done.stderr, "what columns are is no part of the list"
    pooled = ("compare", "mushroom", "--methods", "consensus", "--n-rounds", "5", "--pooled", "--json")
    assert 0 < json.loads(localgd(*pooled).stdout)[0]["final_true_deg"] < 90


def test_numbers_without_nodes_keep_how_many_rows_they_are_of():
    entries = NumberMetrics.of(10.0, 1.0, 1.0, 2.0, n_rows=10, n_rounds=3).to_dict()
    assert (entries["n_rows"], entries["n_rounds"], entries["nodes"]) == (10, 3, {})
    assert "n_rows" not in NumberMetrics.of(10.0, 1.0, 1.0, 2.0).to_dict()
