"""``localgd tune`` as its user runs it."""

from __future__ import annotations

import json
import shlex

import numpy as np
import polars as pl
import pytest

from cli.test_torchrun import torchrun
from command import FILES, instead, localgd
from localgd import load
from localgd.data.holdout import set_aside


def test_it_prints_scores_chooses_a_penalty_and_leaves_a_run(tmp_path):
    words = ["tune", "heart", "--Cs", "0.01,0.1,1", "--cv", "3"]
    done = localgd(*words, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "4 nodes, 3 folds, 3 values of C; method auto" in done.stderr
    scores = pl.read_csv(tmp_path / "RUN" / "scores.csv")
    assert scores.columns == ["C", "mean", "sd", "score_1", "score_2", "score_3"]
    best = scores.sort("mean", descending=True, maintain_order=True).row(0, named=True)
    assert f"C = {best['C']:.4g}: accuracy {best['mean']:.4f} (always the most frequent class: 0.5533)" in done.stdout
    assert done.stdout.count("← chosen") == 1
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES | {"scores.csv", "scores.png"}
    assert localgd("train", "heart", "--C", best["C"], "--out", tmp_path / "ONE").returncode == 0
    models = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("RUN", "ONE")]
    np.testing.assert_allclose(models[0]["coef"], models[1]["coef"], atol=1e-7)
    assert json.loads((tmp_path / "RUN" / "config.json").read_text())["flags"]["C"] == best["C"]
    assert "certified: within" in localgd("certify", tmp_path / "RUN", "heart").stdout
    found = json.loads(localgd(*words, "--json", "--out", tmp_path / "RUN", "--force").stdout)
    assert (found["C"], found["scores"]["mean"]) == (best["C"], scores["mean"].to_list())


def test_each_node_may_be_a_fold(tmp_path):
    words = ["--cv", "leave-one-node-out", "--scoring", "roc_auc", "--Cs", "2", "--no-fit-intercept"]
    done = localgd("tune", "heart", *words, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "by the node that was left out: Cleveland 0." in done.stdout
    assert pl.read_csv(tmp_path / "RUN" / "scores.csv").columns[-1] == "score_VA Long Beach"
    assert "C that was tried; the best may lie beyond" in done.stdout


def test_a_node_that_lacks_a_class_is_a_fold_without_a_score(sites):
    frame = pl.read_csv(sites / "west.csv")
    frame.filter(outcome="ill").write_csv(sites / "west.csv")
    words = ["tune", sites, "--label", "outcome", "--cv", "leave-one-node-out", "--scoring", "roc_auc", "--Cs", "2"]
    done = localgd(*words)
    assert done.returncode == 0, done.stderr
    assert ", west –" in done.stdout
    assert "1 fold without a score, as the rows held out lack a class there" in done.stdout
    assert json.loads(localgd(*words, "--json").stdout)["scores"]["score_west"] == [None, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--Cs", "1"), "--Cs must be a number of values, at least 2, or values above 0 with commas, one of them with"),
        (("--Cs", "0,1"), "with commas, one of them with its point: 1.0, got '0,1'"),
        (("--Cs", "few"), "got 'few'"),
        (("--holdout", "1"), "--holdout must be a share of the rows, above 0 and below 1, got 1.0"),
        (("--cv", "1"), "error: --cv must be a number of folds, at least 2, or 'leave-one-node-out', got 1"),
        (("--cv", "400"), "holds out no row; take fewer folds"),
        (("--scoring", "f2"), "'f2' is not one of"),
        (("--method", "modified-local-gd"), "projections look for the max-margin model; take newton"),
        (("--force",), "--force is about the run folder"),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(table, words, said):
    done = localgd("tune", table, "--label", "outcome", "--node", "site", *words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("apart", [(), ("--holdout", "0.3", "--seed", "2")])
def test_several_processes_choose_as_one_does(apart, sites, tmp_path):
    words = ["tune", sites, "--label", "outcome", "--Cs", "0.1,1", "--cv", "2", "--scoring", "roc_auc", *apart]
    assert localgd(*words, "--out", tmp_path / "ONE").returncode == 0
    done = torchrun(3, *words, "--out", tmp_path / "THREE")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    assert done.stderr.count("set aside") == bool(apart)
    one, three = (pl.read_csv(tmp_path / name / "scores.csv").to_numpy() for name in ("ONE", "THREE"))
    np.testing.assert_allclose(one, three, atol=1e-8)


def test_rows_set_aside_take_no_part_in_the_choice_and_train_judges_by_just_them(sites, tmp_path):
    words = ["--label", "outcome", "--drop", "smoker", "--holdout", "0.3", "--seed", "5", "--min-group", "2"]
    choice = [*words, "--Cs", "0.1,1", "--cv", "2", "--scoring", "roc_auc", "--no-fit-intercept"]
    done = localgd("tune", sites, *choice, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "rows of 3 nodes set aside, to judge the model by; they take no part" in done.stderr
    judging = next(line for line in done.stdout.splitlines() if line.startswith("to judge by the rows set aside: "))
    command = shlex.split(judging.partition(": localgd ")[2])
    told = localgd(*command, "--out", tmp_path / "JUDGED")
    assert told.returncode == 0, told.stderr
    models = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("RUN", "JUDGED")]
    np.testing.assert_allclose(models[0]["coef"], models[1]["coef"], atol=1e-7)
    assert (models[0]["intercept"], models[1]["intercept"]) == (0.0, 0.0)
    assert "`localgd train --holdout` tells" in localgd("evaluate", tmp_path / "RUN", sites).stderr
    tables = load(sites, label="outcome", drop=["smoker"])
    n_aside = 0
    for table in tables:  # other values in the rows set aside change nothing
        aside = pl.Series(set_aside(table, 0.3, seed=5, min_group=2))
        path, n_aside = sites / f"{table.node_id}.csv", n_aside + int(aside.sum())
        other = pl.when(aside).then(pl.lit(-7.5))
        frame = pl.read_csv(path, infer_schema=False)
        frame.with_columns(other.otherwise(pl.col(name)).alias(name) for name in ("age", "marker")).write_csv(path)
    assert f"{n_aside} rows of 3 nodes set aside" in done.stderr
    again = localgd("tune", sites, *choice, "--out", tmp_path / "AGAIN")
    assert again.stdout.replace("AGAIN", "RUN") == done.stdout
    assert (tmp_path / "AGAIN" / "model.json").read_text() == (tmp_path / "RUN" / "model.json").read_text()
    judged, other = (json.loads(localgd(*instead(command, seed=seed), "--json").stdout) for seed in (5, 6))
    assert judged["metrics"]["log_loss"] != other["metrics"]["log_loss"]
