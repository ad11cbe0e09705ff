"""The real command on tables of three classes."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_iris, load_wine

from command import localgd

LABELS = ("--label", "kind", "--node", "site")
SLOW = ("--method", "local-gd")


def table_of(bunch, path, n_sites=4):
    """Write a CSV with the rows sorted by label over the sites, so that a site lacks one or two classes."""
    names = bunch.target_names[bunch.target]
    order = np.argsort(names, kind="stable")
    columns = {f"c{j}": bunch.data[order, j] for j in range(bunch.data.shape[1])}
    site = [f"site-{m}" for m, part in enumerate(np.array_split(order, n_sites)) for _ in part]
    pl.DataFrame({**columns, "site": site, "kind": names[order]}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    return table_of(load_wine(), tmp_path_factory.mktemp("wine") / "wine.csv")


@pytest.fixture(scope="module")
def run(wine):
    done = localgd("train", wine, *LABELS, "--n-rounds", "60", "--compare", "pooled", "--out", wine.with_name("RUN"))
    assert done.returncode == 0, done.stderr
    assert "178 rows" in done.stderr
    assert "classes class_0 / class_1 / class_2" in done.stderr
    assert "certified: within" in done.stdout
    return wine.with_name("RUN")


def test_a_table_of_three_classes_trains_and_leaves_one_row_of_coefficients_per_class(run):
    model = json.loads((run / "model.json").read_text())
    assert model["classes"] == ["class_0", "class_1", "class_2"]
    assert np.shape(model["coef"]) == (3, 13)
    assert np.shape(model["intercept"]) == (3,)
    assert model["feature_names"] == [f"c{j}" for j in range(13)]
    task = json.loads((run / "config.json").read_text())["method"]["task"]
    assert task["loss"] == {"rule": "Softmax", "versus": 2}
    history = pl.read_csv(run / "history.csv")
    assert history["accuracy"][-1] == 1.0
    assert history["true_angle_deg"][-1] <= history["angle_deg_max"][-1] < 90
    assert json.loads((run / "certificate.json").read_text())["separable"] is True


def test_predict_takes_the_largest_score(run, wine, tmp_path):
    truth = pl.read_csv(wine)["kind"].to_list()
    assert json.loads(localgd("predict", run, wine, "--json").stdout) == truth
    saved = localgd("predict", run / "model.json", wine, "--out", tmp_path / "labels.csv")
    assert "178 rows labelled" in saved.stdout
    assert pl.read_csv(tmp_path / "labels.csv")["prediction"].to_list() == truth


def test_certify_takes_the_run_and_models_from_elsewhere(run, wine, tmp_path):
    own = json.loads((run / "certificate.json").read_text())
    found = json.loads(localgd("certify", run, wine, *LABELS, "--json").stdout)
    assert found["accuracy"] == 1.0
    assert found["margin"] == pytest.approx(own["margin"], rel=1e-6)
    assert found["margin_low"] <= own["margin_high"]
    assert "on all 178 rows 100 %" in localgd("certify", run, wine, *LABELS).stdout
    # the same model as others write it: other order of classes and columns, and a part that all classes share
    entries, order = json.loads((run / "model.json").read_text()), [2, 0, 1]
    coef = np.array(entries["coef"])[order][:, ::-1] + np.linspace(-9, 9, 13)
    intercept = np.array(entries["intercept"])[order] + 5.0
    names = {"feature_names": entries["feature_names"][::-1], "classes": [entries["classes"][k] for k in order]}
    np.savez(tmp_path / "other.npz", coef=coef, intercept=intercept, **names)
    other = {"coef": coef.tolist(), "intercept": intercept.tolist(), **names}
    (tmp_path / "other.json").write_text(json.dumps(other))
    frame = pl.read_csv(wine)
    numbers = frame.select(pl.selectors.float())
    prepared = numbers.select((pl.all() - pl.all().mean()) / pl.all().std(ddof=0))
    prepared.with_columns(frame["site"], frame["kind"]).write_csv(tmp_path / "prepared.csv")
    for path in (tmp_path / "other.npz", tmp_path / "other.json"):
        done = localgd("certify", path, tmp_path / "prepared.csv", *LABELS, "--json")
        assert done.returncode == 0, done.stderr
        again = json.loads(done.stdout)
        assert again["accuracy"] == 1.0
        assert again["margin"] == pytest.approx(found["margin"], rel=1e-6)
        assert again["angle_deg_max"] == pytest.approx(found["angle_deg_max"], rel=1e-6)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"coef": [1.0] * 13, "intercept": 0.0}, "has 1 row of coefficients for classes"),
        ({"coef": np.ones((4, 13)).tolist(), "intercept": [0.0] * 4}, "4 rows of coefficients"),
        ({"coef": np.ones((3, 13)).tolist(), "intercept": [0.0] * 2}, "intercept (2,)"),
        ({"coef": np.ones((3, 12)).tolist(), "intercept": [0.0] * 3}, "has 12 coefficients, but the rows have 13"),
        ({"coef": np.ones((2, 13)).tolist(), "intercept": [0.0] * 2}, "the second less that of the first"),
        ({"coef": np.ones((3, 13)).tolist(), "classes": ["a", "b", "c"]}, "classes 'a', 'b', 'c', but the rows have"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_words(wine, tmp_path, entries, message):
    (tmp_path / "other.json").write_text(json.dumps(entries))
    done = localgd("certify", tmp_path / "other.json", wine, *LABELS)
    assert done.returncode == 2
    assert message in done.stderr


def test_every_method_runs_and_sparse_rows_and_a_missing_bias_are_fine(wine, tmp_path):
    short = ("--n-rounds", "20", "--json")
    for method in ("local-sgd", "modified-local-gd", "fedexp"):
        done = localgd("train", wine, *LABELS, "--method", method, *short)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["accuracy"] > 0.97
    out = tmp_path / "N"
    done = localgd("train", wine, *LABELS, *short, "--no-fit-intercept", *SLOW, "--loss", "exponential", "--out", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "model.json").read_text())["intercept"] == [0.0, 0.0, 0.0]
    assert len(json.loads(localgd("predict", out, wine, "--json").stdout)) == 178


def test_classes_that_overlap_are_compared_with_the_softmax_minimiser(tmp_path):
    bunch = load_iris()
    bunch.target = np.random.default_rng(0).permutation(bunch.target)
    iris = table_of(bunch, tmp_path / "iris.csv", n_sites=3)
    words = ("train", iris, *LABELS, "--compare", "pooled", "--json")
    done = localgd(*words, *SLOW, "--n-rounds", "20", "--local-steps", "5")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["true_angle_deg"] < 90
    by_default = localgd(*words)
    assert by_default.returncode == 0, by_default.stderr
    assert json.loads(by_default.stdout)["true_angle_deg"] <= 1e-4  # three sites of one size: weights are equal
