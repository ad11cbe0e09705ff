"""``localgd evaluate`` as its user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import accuracy_score, roc_auc_score

from command import localgd
from localgd import Model, load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heart")
    assert localgd("train", "heart", "--C", "1", "--out", folder / "RUN").returncode == 0
    return folder / "RUN"


def test_it_prints_tables_and_writes_all_of_it_as_json(run):
    done = localgd("evaluate", run, "heart", "--threshold", "0.2", "--threshold", "0.5", "--out", run / "metrics.json")
    assert done.returncode == 0, done.stderr
    for words in ("920 rows at 4 nodes", "sensitivity", "majority", "AUC: 0.9000", "log loss 0.3954", "VA Long Beach"):
        assert words in done.stdout
    found = json.loads((run / "metrics.json").read_text())
    model, tables = Model.load(run), load("heart")
    scores, y = (np.concatenate([of(table) for table in tables]) for of in (model.scores, lambda table: table.labels))
    assert found["decisions"][1]["accuracy"] == [pytest.approx(accuracy_score(y, scores > 0))] * 2
    low, high = found["auc"]
    assert low <= roc_auc_score(y, scores) <= high
    assert len(found["curve"]["score"]) > 50
    assert json.loads(localgd("evaluate", run, "heart", "--json").stdout)["auc"] == found["auc"]


def test_a_run_whose_folder_holds_metrics_can_be_replaced(run):
    assert localgd("evaluate", run, "heart", "--out", run / "metrics.json", "--force").returncode == 0
    assert localgd("train", "heart", "--C", "1", "--out", run, "--force").returncode == 0


def test_with_few_rows_in_a_cell_it_says_why_there_are_bounds(run):
    done = localgd("evaluate", run, "heart", "--min-group", "8")
    assert done.returncode == 0
    assert "nodes tell no cell of fewer than 8 rows" in done.stdout
    assert "stand in a bin with those of its neighbour" in done.stdout
    done = localgd("evaluate", run, "heart", "--min-group", "9")
    assert done.returncode == 2
    assert "node 'Switzerland': it has fewer than --min-group 9 rows of a class" in done.stderr


def test_models_from_elsewhere_and_of_many_classes_and_of_numbers(tmp_path):
    wine = load_wine(as_frame=True)
    frame = pl.DataFrame(wine.frame.to_dict("list")).with_columns(region=pl.Series(np.arange(178) % 3))
    frame.write_csv(tmp_path / "wine.csv")
    where = ("--node", "region", "--label")
    for label, more, words in (
        ("target", ("--C", "1"), ("Rows by class", "macro F1", "Each class against the rest", "log loss")),
        ("target", (), ("no log loss, Brier score or calibration", "localgd calibrate")),
        ("alcohol", ("--task", "regression"), ("RMSE", "R²")),
    ):
        out = tmp_path / f"{label}{len(more)}"
        assert localgd("train", tmp_path / "wine.csv", *where, label, *more, "--out", out).returncode == 0
        done = localgd("evaluate", out, tmp_path / "wine.csv", *where, label)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words)
    (tmp_path / "other.json").write_text(json.dumps({"coef": [[0.1] * 13] * 3, "intercept": [0.0, 1.0, 0.5]}))
    done = localgd("evaluate", tmp_path / "other.json", tmp_path / "wine.csv", *where, "target")
    assert done.returncode == 0, done.stderr
    assert "178 rows at 3 nodes" in done.stdout


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_calibrated_model_from_elsewhere_says_its_classes_and_predicts(tmp_path, n_classes):
    rng = np.random.default_rng(0)
    y = np.arange(90) % n_classes
    x = np.column_stack([y + rng.standard_normal(90), rng.standard_normal(90)])
    pl.DataFrame({"b": x[:, 0], "a": x[:, 1], "y": y}).write_csv(tmp_path / "num.csv")
    each = np.array([[0.0, -1.0, 0.5], [0.0, 0.5, 0.2], [0.0, 2.0, -1.7]])[:n_classes]
    found = []
    for kind, order in (("none", range(n_classes)), ("sorted", range(n_classes)), ("odd", range(n_classes)[::-1])):
        rows = each[list(order)]
        rows = rows if n_classes > 2 else rows[1] - rows[0]  # two classes: of the second, less the first
        model = {"coef": rows[..., :2].tolist(), "intercept": rows[..., 2].tolist(), "feature_names": ["a", "b"]}
        model |= {} if kind == "none" else {"classes": list(order)}
        (tmp_path / f"{kind}.json").write_text(json.dumps(model))
        out = tmp_path / f"{kind}_calibrated.json"
        done = localgd("calibrate", tmp_path / f"{kind}.json", tmp_path / "num.csv", "--label", "y", "--out", out)
        assert done.returncode == 0, done.stderr
        assert json.loads(out.read_text())["classes"] == list(range(n_classes))
        done = localgd("predict", out, tmp_path / "num.csv", "--proba", "--json")
        assert done.returncode == 0, done.stderr
        found.append([[row[f"probability_{one}"] for one in range(n_classes)] for row in json.loads(done.stdout)])
    assert np.allclose(found[1:], found[0], rtol=0, atol=1e-9)
    assert np.mean(found[0], axis=0) == pytest.approx(np.full(n_classes, 1 / n_classes), abs=0.02)
    assert roc_auc_score(y == n_classes - 1, np.array(found[0])[:, -1]) > 0.7


def test_what_has_no_meaning_is_refused_in_words(run):
    def refused(*words):
        done = localgd("evaluate", run, "heart", *words)
        assert done.returncode == 2
        return done.stderr

    assert "is a file, not a folder" in refused("--out", Path(__file__, "metrics.json"))
    assert "error: --threshold must be probabilities" in refused("--threshold", "2")
    assert "--seed is for --partition" in refused("--seed", "1")
    assert "brings its own preparation" in refused("--scale", "none")
