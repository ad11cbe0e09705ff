"""What a row counts by its class: scikit-learn's class_weight, counted in one round, kept in the recipe."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.utils.class_weight import compute_class_weight

from command import localgd
from engines.flower_grid import LocalGrid
from localgd import (
    InProcess,
    LocalGDClassifier,
    LocalGDClassifierCV,
    Regularised,
    auto,
    evaluate,
    from_arrays,
    newton,
    prepare,
    train,
)
from localgd.core import Message
from localgd.data.coding import ClassCounts, said_weight
from localgd.data.recipe import Recipe
from localgd.flower import FlowerEngine
from localgd.flower.client import client

WEIGHTS = ["balanced", {"a": 0.3, "c": 5}, {" B ": 2.5}]


def rows(n_classes=2, seed=0, n=90):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    y = np.array(list("abc"))[np.searchsorted([0.5, 1.5][: n_classes - 1], x[:, 0] + rng.standard_normal(n))]
    return x, y, rng.choice(["n", "s", "w"], n), rng.random(n) * 3 * (rng.random(n) < 0.8)


def exact(x, y, weight, sample_weight=None):
    named = {key.strip().lower(): value for key, value in weight.items()} if isinstance(weight, dict) else weight
    named = {key: value for key, value in named.items() if key in y} if isinstance(named, dict) else named
    model = LogisticRegression(C=0.7, class_weight=named, tol=1e-12, solver="newton-cholesky", max_iter=1000)
    return model.fit(x, y, sample_weight=sample_weight)


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learns_with_and_without_weights_of_rows(weight, n_classes, weighted):
    x, y, groups, s = rows(n_classes)
    if isinstance(weight, dict) and n_classes == 2:
        weight = {key: value for key, value in weight.items() if key != "c"}
    own = s if weighted else None
    clf = LocalGDClassifier(C=0.7, class_weight=weight).fit(x, y, groups=groups, sample_weight=own)
    wanted = exact(x, y, weight, own)
    np.testing.assert_allclose(clf.coef_, wanted.coef_, atol=1e-6)
    shift = wanted.intercept_ - (wanted.intercept_.mean() if n_classes > 2 else 0.0)
    np.testing.assert_allclose(clf.intercept_, shift, atol=1e-6)
    assert clf.certificate_.status.startswith("certified")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_over_every_engine_the_same_weights_come_of_one_round(n_classes, tmp_path):
    x, y, groups, s = rows(n_classes)
    tables = from_arrays(x, y, groups, sample_weight=s)
    engine, recipe = prepare(InProcess(tables), class_weight="balanced")
    wanted = compute_class_weight("balanced", classes=np.unique(y), y=y, sample_weight=s)
    np.testing.assert_allclose(recipe.class_weights, wanted, rtol=1e-13)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert f"by its class: 'a' as {wanted[0]:.4g}" in recipe.summary
    configs = []
    for name in sorted(set(groups)):
        part = {f"x{j}": x[groups == name, j] for j in range(3)} | {"y": y[groups == name], "s": s[groups == name]}
        pl.DataFrame(part).write_csv(tmp_path / f"{name}.csv")
        own = {"data-path": str(tmp_path / f"{name}.csv"), "label": "y", "weight": "s", "node-name": name}
        configs.append(own | {"min-rows": 1, "min-group": 1})
    far = FlowerEngine(LocalGrid(client, configs), n_nodes=3, timeout=5.0, poll=1e-4)
    there, again = prepare(far, class_weight="balanced")
    assert again.class_weights == recipe.class_weights
    problem = Regularised(C=0.7, intercept=True)
    runs = [train(nodes, newton(), problem=problem) for nodes in (engine, there)]
    np.testing.assert_array_equal(runs[0].w, runs[1].w)


def test_a_model_is_judged_by_rows_that_count_as_they_are():
    x, y, groups, _ = rows()
    tables = InProcess(from_arrays(x, y, groups))
    federation, recipe = prepare(tables, class_weight={"b": 20})
    model = train(federation, auto(), problem=Regularised(C=0.7, intercept=True)).model(recipe)
    plain = exact(x, y, {"b": 20})
    assert evaluate(model, tables).decisions[0].accuracy.low == pytest.approx(plain.score(x, y))


def test_a_run_goes_on_is_certified_and_compared_with_the_weights_it_was_begun_with(tmp_path):
    x, y, groups, s = rows()
    columns = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "ill": y, "site": groups, "s": s}
    pl.DataFrame(columns).write_csv(tmp_path / "rows.csv")
    data = (tmp_path / "rows.csv", "--label", "ill", "--node", "site", "--weight", "s")
    how = ("--C", 0.7, "--scale", "none", "--class-weight", "balanced", "--checkpoint-rounds", 1)
    done = localgd("train", *data, *how, "--n-rounds", 2, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", 30).returncode == 0
    model = json.loads((tmp_path / "RUN" / "model.json").read_text())
    wanted = exact(x, y, "balanced", s)
    np.testing.assert_allclose(np.ravel(model["coef"]), wanted.coef_.ravel(), atol=1e-6)
    assert json.loads(localgd("certify", tmp_path / "RUN", *data, "--json").stdout)["distance"] < 1e-6
    refused = localgd("certify", tmp_path / "RUN", *data, "--class-weight", "balanced")
    assert "brings its own preparation; leave --class-weight out" in refused.stderr
    held = {"coef": wanted.coef_.ravel().tolist(), "intercept": float(wanted.intercept_[0])}
    (tmp_path / "other.json").write_text(json.dumps(held))
    elsewhere = ("certify", tmp_path / "other.json", *data, "--C", 0.7, "--json")
    assert json.loads(localgd(*elsewhere, "--class-weight", "balanced").stdout)["distance"] < 1e-6
    assert json.loads(localgd(*elsewhere).stdout)["distance"] > 1e-3


def test_scores_of_a_search_know_nothing_of_it():
    x, y, groups, _ = rows()
    Cs = [0.01, 1.0]
    found = LocalGDClassifierCV(Cs=Cs, cv=3, class_weight="balanced").fit(x, y, groups=groups)
    options = {"l1_ratios": (0.0,), "use_legacy_attributes": False, "solver": "newton-cholesky", "tol": 1e-12}
    wanted = LogisticRegressionCV(Cs=Cs, cv=3, class_weight="balanced", scoring="accuracy", **options).fit(x, y)
    np.testing.assert_allclose(found.scores_, wanted.scores_.reshape(3, 2), atol=1e-12)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-6)


def test_probabilities_are_fitted_to_rows_that_count_as_they_are():
    x, y, groups, _ = rows(n=400)
    clf = LocalGDClassifier(C=0.7, class_weight={"b": 20}, calibration="sigmoid", random_state=0)
    likely = clf.fit(x, y, groups=groups).predict_proba(x)[:, 1]
    wanted = CalibratedClassifierCV(LogisticRegression(C=0.7, class_weight={"b": 20}), cv=5).fit(x, y)
    assert (
        abs(likely.mean() - wanted.predict_proba(x)[:, 1].mean())
        < 0.05
        < abs(exact(x, y, {"b": 20}).predict_proba(x)[:, 1].mean() - (y == "b").mean())
    )


def test_a_max_margin_model_knows_none_and_says_so():
    x = np.array([[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4]])
    runs = [LocalGDClassifier(class_weight=weight).fit(x, [1, 1, 0, 0]) for weight in (None, {1: 7})]
    np.testing.assert_allclose(runs[0].coef_, runs[1].coef_, rtol=1e-6)
    said = "rows with weights: a max-margin model knows only which are above 0"
    assert [said in run.certificate_.status for run in runs] == [False, True]
    assert said not in LocalGDClassifier(C=1.0, class_weight={1: 7}).fit(x, [1, 1, 0, 0]).certificate_.status


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ({"z": 1.0}, "class_weight names 'z', which is none of the classes 'a', 'b'"),
        ({"a": 1.0, "A": 2.0}, "class_weight names class 'a' twice"),
        ({"a": -1.0}, "class_weight of 'a' must be a finite number above 0, got -1.0; rows that are to count nothing"),
        ({"a": 0.0}, "class_weight of 'a' must be a finite number above 0, got 0.0"),
        ({"a": np.inf}, "class_weight of 'a' must be a finite number above 0, got inf"),
        ({"a": np.nan}, "class_weight of 'a' must be a finite number above 0, got nan"),
        ({"a": "much"}, "class_weight of 'a' must be a finite number above 0, got 'much'"),
        ("even", "class_weight must be None, 'balanced' or a mapping from classes to numbers, got 'even'"),
    ],
)
def test_what_means_nothing_is_refused_in_words(weight, words):
    x, y, groups, _ = rows()
    for fit in (
        lambda: LocalGDClassifier(C=1.0, class_weight=weight).fit(x, y),
        lambda: prepare(InProcess(from_arrays(x, y, groups)), class_weight=weight),
    ):
        with pytest.raises(ValueError, match=words):
            fit()


@pytest.mark.parametrize("text", ["even", "no", "no=", "no=1,no=2", "=1", "no=x"])
def test_a_text_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match="--class-weight is balanced, or CLASS=NUMBER,CLASS=NUMBER, each class once"):
        said_weight(text, "--class-weight")


def test_numbers_to_fit_have_no_classes_to_count_by():
    with pytest.raises(ValueError, match="class_weight are for classes"):
        prepare(InProcess(from_arrays(np.eye(3), [0.5, 1.5, 2.5])), classes=False, class_weight="balanced")


def test_a_node_tells_no_small_number_of_rows():
    tables = from_arrays(np.eye(5), [0, 0, 0, 0, 1])
    assert InProcess(tables).round(ClassCounts((0, 1)), Message()).sums["by_class"].tolist() == [4.0, 1.0]
    with pytest.raises(RuntimeError, match=r"fewer than min_group=2 are of; give class_weight \(--class-weight\)"):
        prepare(InProcess(tables), class_weight="balanced", min_group=2)
