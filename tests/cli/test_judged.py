"""``localgd train --holdout`` and ``--leave-one-node-out``: how well the model does is read beside how well it fits."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from cli.test_torchrun import torchrun
from command import localgd, patients
from localgd import InProcess, Model, Regularised, auto, evaluate, from_arrays, hold_out, load, prepare, train
from localgd.cli.judging import Judged
from localgd.evaluation.left_out import leave_one_node_out
from localgd.report import text
from localgd.report.figure import figure_of


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_rows_set_aside_judge_the_model_beside_the_most_frequent_class(tmp_path):
    done = localgd("train", "heart", "--C", "1", "--holdout", "0.2", "--seed", "3", "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "rows of 4 nodes set aside, to judge the model by; they take no part" in done.stderr
    found = metrics(tmp_path / "RUN")
    _, held_out = hold_out(InProcess(load("heart")), 0.2, seed=3)
    expected = evaluate(Model.load(tmp_path / "RUN"), held_out).to_dict()
    assert {**found, "of": None} == {"of": None, **json.loads(json.dumps(expected))}
    share, most = (text.percent(share) for share in (found["decisions"][0]["accuracy"][0], found["majority"]))
    assert f"rows set aside: accuracy {share} (always '1': {most}), AUC" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "VA Long Beach" in line)
    assert f"{found['nodes']['VA Long Beach']['auc']['1']:.4f}" in line
    assert (tmp_path / "RUN" / "metrics.png").stat().st_size > 10_000
    again = ("train", "heart", "--C", "1", "--holdout", "0.2", "--seed", "3", "--force", "--json")
    assert json.loads(localgd(*again, "--out", tmp_path / "RUN").stdout)["metrics"] == found


def test_the_figure_says_which_rows_it_is_of_and_why_a_node_has_no_area():
    rng = np.random.default_rng(0)
    X, y, groups = rng.normal(size=(90, 2)), rng.integers(2, size=90), np.repeat(["a", "b", "c"], 30)
    tables = from_arrays(X, np.where(groups == "b", 1, y), groups)
    rows, recipe = prepare(InProcess(tables))
    model = train(rows, auto(), problem=Regularised(C=1.0, intercept=True), n_rounds=20).model(recipe)
    aside = Judged("rows set aside", evaluate(model, InProcess(tables))).panels()
    left = Judged("nodes left out", leave_one_node_out(InProcess(tables), lambda _: model)).panels()
    assert {panel.title.rpartition(", ")[2] for panel in aside} == {"rows set aside"}
    assert {panel.title.rpartition(", ")[2] for panel in left} == {"nodes left out"}
    for panels in (aside, left):
        by_node = {panel.title.partition(",")[0]: list(panel.categories) for panel in panels if panel.categories}
        assert by_node == {"Accuracy by node": ["a", "b", "c"], "AUC by node": ["a", "b (one class)", "c"]}
        figure_of(panels)


def test_a_share_of_all_rows_or_of_none_is_refused_in_words(tmp_path):
    patients().write_csv(tmp_path / "rows.csv")
    for command, *more in (("train", "--C", "1"), ("tune", "--Cs", "0.1,1")):
        words = (command, tmp_path / "rows.csv", "--label", "outcome", "--node", "site", *more, "--holdout")
        much, little = localgd(*words, "0.999"), localgd(*words, "0.0001")
        assert (much.returncode, little.returncode) == (2, 2)
        assert "error: --holdout 0.999 leaves no node a row to train on; give a smaller share\n" in much.stderr
        assert "error: --holdout 0.0001 sets no row of any node aside; give a larger share, or leave" in little.stderr
    some = localgd("train", "heart", "--C", "1", "--holdout", "0.999", "--n-rounds", "5")
    assert "no row is set aside at 3 nodes, as none would be left to train on: 'Cleveland', " in some.stderr


def test_who_sets_nothing_aside_is_named_and_rows_of_one_class_have_no_area(tmp_path):
    done = localgd("train", "heart", "--C", "1", "--holdout", "0.2", "--min-group", "5")
    assert done.returncode == 0, done.stderr
    assert "rows of 3 nodes set aside" in done.stderr
    assert (
        "no row is set aside at 1 node, as they are too few, or fewer than 5 of a class: 'Switzerland'" in done.stderr
    )
    assert " to " in done.stdout.partition("rows set aside: accuracy ")[2].partition(" (always")[0]
    rows = pl.DataFrame({"x": np.arange(40.0) % 7, "y": ["no", "no", "yes", "no"] * 10, "site": ["a", "b"] * 20})
    rows.write_csv(tmp_path / "rows.csv")
    words = ("--label", "y", "--node", "site", "--C", "1", "--leave-one-node-out", "--out", tmp_path / "RUN")
    done = localgd("train", tmp_path / "rows.csv", *words)
    assert done.returncode == 0, done.stderr
    assert "nothing is told of 'a': label: all 20 rows of all nodes are 'no'; two classes are needed" in done.stdout
    assert "% (always 'no': 100 %), AUC – (one class only), log loss" in done.stdout
    assert (tmp_path / "RUN" / "metrics.png").is_file()


def test_a_run_that_goes_on_sets_the_same_rows_aside(sites, tmp_path):
    words = ["train", sites, "--label", "outcome", "--method", "local-gd", "--C", "1", "--holdout", "0.3"]
    assert localgd(*words, "--n-rounds", "12", "--out", tmp_path / "WHOLE").returncode == 0
    assert localgd(*words, "--n-rounds", "5", "--out", tmp_path / "RUN").returncode == 0
    assert metrics(tmp_path / "RUN") != metrics(tmp_path / "WHOLE")
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "12").returncode == 0
    assert metrics(tmp_path / "RUN") == metrics(tmp_path / "WHOLE")


@pytest.mark.processes
@pytest.mark.parametrize("words", [("--holdout", "0.3"), ("--leave-one-node-out",)])
def test_several_processes_judge_as_one_does(words, sites, tmp_path):
    words = ["train", sites, "--label", "outcome", "--C", "1", *words]
    assert localgd(*words, "--out", tmp_path / "ONE").returncode == 0
    done = torchrun(3, *words, "--out", tmp_path / "THREE")
    assert done.returncode == 0, done.stderr
    one, three = metrics(tmp_path / "ONE"), metrics(tmp_path / "THREE")
    assert one["nodes"].keys() == three["nodes"].keys()
    assert one["majority"] == three["majority"]
    np.testing.assert_allclose([one["log_loss"], *one["auc"]], [three["log_loss"], *three["auc"]], rtol=1e-7)


def test_every_node_is_judged_by_the_model_of_the_others(tmp_path):
    done = localgd("train", "heart", "--C", "1", "--leave-one-node-out", "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "training once without each of 4 nodes" in done.stderr
    for words in (
        "Each node, by the model of all others",
        "│ VA Long Beach │  200 │",
        "accuracy 76.30 % (always '1': 55.3",
    ):
        assert words in done.stdout
    found = metrics(tmp_path / "RUN")
    assert [round(one["auc"][0], 3) for one in found["nodes"].values()] == [0.847, 0.897, 0.752, 0.739]
    assert (tmp_path / "RUN" / "metrics.png").is_file()
    assert localgd("train", "heart", "--C", "1", "--out", tmp_path / "RUN", "--force").returncode == 0
    assert not (tmp_path / "RUN" / "metrics.json").exists()


def test_a_method_with_a_memory_leaves_nodes_out_and_a_node_of_its_own_class_is_named(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.standard_normal(60), "z": rng.standard_normal(60), "site": ["n", "s", "w"] * 20})
    frame = frame.with_columns(y=pl.when(pl.col("x") > 0).then(1).otherwise(0))
    frame = frame.with_columns(y=pl.when(pl.int_range(60) == 2).then(2).otherwise(pl.col("y")))
    frame.write_csv(tmp_path / "rows.csv")
    words = ["train", tmp_path / "rows.csv", "--label", "y", "--node", "site", "--leave-one-node-out"]
    done = localgd(*words, "--method", "consensus", "--n-rounds", "5")
    assert done.returncode == 0, done.stderr
    assert "nothing is told of 'w': " in done.stdout
    assert "label 2 is none of the classes (0, 1)" in done.stdout
    assert "no log loss: scores are no log-odds" in done.stdout


def test_numbers_are_judged_by_their_errors(sites, tmp_path):
    words = ["train", sites, "--label", "age", "--task", "regression"]
    done = localgd(*words, "--holdout", "0.3", "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert f"rows set aside: R² {metrics(tmp_path / 'RUN')['r2']:.4f}, RMSE" in done.stdout
    done = localgd(*words, "--leave-one-node-out", "--out", tmp_path / "OUT")
    assert "nodes left out, each judged by the model of all others: RMSE" in done.stdout
    assert metrics(tmp_path / "OUT")["nodes"].keys() == {"north", "south", "west"}


def test_what_has_no_meaning_is_refused_before_anything_is_trained(sites, tmp_path):
    def refused(*words):
        done = localgd("train", sites, "--label", "outcome", "--out", tmp_path / "RUN", *words)
        assert done.returncode == 2
        assert not (tmp_path / "RUN.partial").exists()
        return done.stderr

    assert "--holdout must be a share of the rows, above 0 and below 1, got 0.0" in refused("--holdout", "0")
    assert "choose one of them" in refused("--holdout", "0.2", "--leave-one-node-out")
    assert "leave --fraction out" in refused("--leave-one-node-out", "--fraction", "0.5", "--method", "local-gd")
    frame = pl.read_csv(sites / "north.csv", infer_schema=False)
    with_odd = frame.with_columns(
        outcome=pl.when(pl.int_range(len(frame)) == 0).then(pl.lit("odd")).otherwise("outcome")
    )
    with_odd.write_csv(sites / "north.csv")
    said = refused("--C", "1", "--holdout", "0.9")
    assert "among the rows set aside by --holdout, node 'north'" in said
    assert "label 'odd' is none of the classes ('ill', 'well')" in said
    assert "another --seed sets other rows aside" in said
