"""Probabilities for models that have none: Platt's sigmoid of the scores of pooled rows, fitted in rounds."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from command import localgd
from common import random_rows, with_bias
from evaluation.test_evaluate import samples
from localgd import InProcess, LocalGDClassifier, Model, calibrate, evaluate, from_arrays, load, prepare
from localgd.data.classes import signed
from localgd.data.probabilities import Probabilities


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator does not appear to accept")  # nothing is fitted again
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_they_are_scikit_learns_of_the_pooled_rows(n_classes, weighted):
    X, y, groups, weights = samples(n_classes)
    weights = weights if weighted else None
    clf = LocalGDClassifier("local-gd", n_rounds=5).fit(X, y, groups)
    pooled = CalibratedClassifierCV(FrozenEstimator(clf), method="sigmoid").fit(X, y, sample_weight=weights)
    tables = InProcess(from_arrays(X, y, groups, sample_weight=weights))
    (coef, intercept) = (clf.coef_[0], clf.intercept_[0]) if n_classes == 2 else (clf.coef_, clf.intercept_)
    federation, recipe = prepare(tables)
    found = calibrate(Model(coef, intercept, recipe.classes, recipe), tables)
    assert found.recipe is recipe
    np.testing.assert_allclose(found.likely.of(clf.decision_function(X)), pooled.predict_proba(X), atol=2e-4)
    bare = Model(coef, intercept, recipe.classes)
    np.testing.assert_allclose(calibrate(bare, federation).probabilities.slope, found.probabilities.slope, rtol=1e-9)


def test_the_sigmoid_is_the_one_of_least_loss_with_platts_targets():
    X, y, groups, weights = samples(2)
    clf = LocalGDClassifier("local-gd", n_rounds=5).fit(X, y, groups)
    tables = from_arrays(X, y, groups, sample_weight=weights)
    federation, _ = prepare(InProcess(tables))
    found = calibrate(Model(clf.coef_[0], clf.intercept_[0], (0, 1)), federation).probabilities
    s, n, p = clf.decision_function(X), weights[y == 0].sum(), weights[y == 1].sum()
    target = np.where(y == 1, (p + 1) / (p + 2), 1 / (n + 2))

    def gradient(x):
        off = weights * (expit(x[0] + x[1] * s) - target)
        return np.array([off.sum(), off @ s])

    def loss(x):
        z = x[0] + x[1] * s
        return weights @ (target * np.logaddexp(0, -z) + (1 - target) * np.logaddexp(0, z))

    at = np.array([*found.offset, *found.slope])
    assert np.abs(gradient(at)).max() < 1e-9
    least = minimize(loss, np.zeros(2), jac=gradient, tol=1e-12).fun
    assert loss(at) == pytest.approx(least, rel=1e-9)


def test_a_classifier_keeps_rows_aside_for_its_probabilities():
    X, y, groups, _ = samples(2, n=900)
    clf = LocalGDClassifier("local-gd", n_rounds=30, calibration="sigmoid", random_state=0).fit(X, y, groups)
    again = LocalGDClassifier("local-gd", n_rounds=30, calibration="sigmoid", random_state=0).fit(X, y, groups)
    np.testing.assert_array_equal(clf.predict_proba(X), again.predict_proba(X))
    plain = LocalGDClassifier("local-gd", n_rounds=30).fit(X, y, groups)
    assert not np.array_equal(clf.coef_, plain.coef_)  # as it has not seen a fifth of the rows
    assert (clf.classes_[clf.predict_proba(X).argmax(axis=1)] == clf.predict(X)).all()
    model = Model(clf.coef_[0], clf.intercept_[0], (0, 1), probabilities=clf.probabilities_)
    found = evaluate(model, InProcess(shards_of(X, y, groups)))
    assert 0.7 < found.calibration.slope < 1.4
    for multi_class in ("softmax", "ovr"):
        X4, y4, groups4, _ = samples(4)
        many = LocalGDClassifier("local-gd", n_rounds=30, calibration="sigmoid", multi_class=multi_class)
        likely = many.fit(X4, y4, groups4).predict_proba(X4)
        np.testing.assert_allclose(likely.sum(axis=1), 1.0)
        assert (likely.argmax(axis=1) == many.predict(X4)).all()


def test_a_calibrated_classifier_decides_by_its_log_odds():
    X, y, groups, _ = samples(2, n=900)
    clf = LocalGDClassifier("local-gd", n_rounds=30, calibration="sigmoid", random_state=0).fit(X, y, groups)
    (slope,), (offset,) = clf.probabilities_.slope, clf.probabilities_.offset
    raw = X @ clf.coef_[0] + clf.intercept_[0]
    np.testing.assert_allclose(clf.decision_function(X), slope * raw + offset, rtol=1e-12)
    np.testing.assert_allclose(clf.predict_proba(X)[:, 1], expit(slope * raw + offset), rtol=1e-12)
    assert (clf.predict(X) == (slope * raw + offset > 0)).all()


def shards_of(X, y, groups):
    ones = np.hstack([X, np.ones((len(X), 1))])
    return [signed(name, ones[groups == name], y[groups == name], 2) for name in np.unique(groups)]


def test_what_cannot_be_calibrated_is_refused_in_words():
    engine = InProcess(with_bias(random_rows(0), noise=0.2))
    with pytest.raises(ValueError, match="predicts numbers, which have no probabilities"):
        calibrate(Model(np.ones(5), 1.0, ()), engine)
    X, y, groups, _ = samples(2)
    with pytest.raises(ValueError, match="there is no row of class 0; give rows of every class"):
        calibrate(Model(np.ones(4), 1.0), InProcess(shards_of(X[y == 1], y[y == 1], groups[y == 1])))
    with pytest.raises(ValueError, match="some class has no five rows in any group"):
        LocalGDClassifier(calibration="sigmoid").fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="calibration must be 'sigmoid' or None, got 'isotonic'"):
        LocalGDClassifier(calibration="isotonic").fit([[0.0], [1.0]], [0, 1])


def test_a_run_is_calibrated_by_command_on_rows_that_it_has_not_seen(tmp_path):
    table = load("mushroom")[0]
    assert (
        localgd("train", "mushroom", "--n-rounds", "4", "--method", "local-gd", "--out", tmp_path / "RUN").returncode
        == 0
    )
    labelled = table.features.with_columns(label=pl.Series([f"{value}" for value in table.labels]))
    labelled.write_csv(tmp_path / "more.csv")
    words = ("calibrate", tmp_path / "RUN", tmp_path / "more.csv", "--label", "label", "--out", tmp_path / "sure.json")
    done = localgd(*words)
    assert done.returncode == 0, done.stderr
    assert f"predict {tmp_path / 'sure.json'} FILE --proba" in done.stdout
    model = Model.load(tmp_path / "sure.json")
    assert isinstance(model.probabilities, Probabilities)
    assert len(model.probabilities.slope) == 1
    assert localgd(*words).returncode == 2  # it is there
    predicted = json.loads(
        localgd("predict", tmp_path / "sure.json", tmp_path / "more.csv", "--proba", "--json").stdout
    )
    assert len(predicted) == table.n_rows
    log_odds = model.decision_function(table)
    np.testing.assert_allclose([row["probability_poisonous"] for row in predicted], expit(log_odds), rtol=1e-12)
    assert [row["prediction"] == "poisonous" for row in predicted] == (log_odds > 0).tolist()
