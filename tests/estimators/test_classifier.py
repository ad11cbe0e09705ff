"""The scikit-learn estimator."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.preprocessing import scale

from common import SAME_ORDER, pooled_gd, random_rows, stacked
from localgd import LocalGDClassifier, Status, local_gd, modified_local_gd
from localgd.layouts import ClassRows
from localgd.losses import Logistic
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg


@pytest.fixture
def data():
    rows = stacked(random_rows(1, n_nodes=4, n=50))
    y = np.where(np.arange(len(rows)) % 2 == 0, "no", "yes")
    X = rows * np.where(y == "yes", 1.0, -1.0)[:, None]
    return X, y, np.arange(len(rows)) % 3


def test_it_trains_over_groups_and_certifies(data):
    X, y, groups = data
    clf = LocalGDClassifier("local-gd", n_rounds=100, fit_intercept=False).fit(X, y, groups=groups)
    assert clf.score(X, y) == 1.0
    signed = X * np.where(y == "yes", 1.0, -1.0)[:, None]
    true = angle_deg(clf.coef_[0], max_margin(signed).direction)
    assert true <= clf.certificate_.angle_deg_max < 60
    assert clf.certificate_.margin_low <= max_margin(signed).margin_high
    assert clf.intercept_.tolist() == [0.0]
    assert clf.n_iter_ == 100
    assert len(clf.history_) == 101
    assert set(clf.history_[0]) >= {"round", "loss", "accuracy", "low", "high", "angle_deg_max", "floats_up"}


def test_by_default_it_is_the_pooled_max_margin_model(data):
    X, y, groups = data
    clf = LocalGDClassifier(fit_intercept=False).fit(X, y, groups=groups)
    pooled = max_margin(X * np.where(y == "yes", 1.0, -1.0)[:, None])
    assert angle_deg(clf.coef_[0], pooled.direction) <= clf.certificate_.angle_deg_max < 1e-2
    assert clf.n_iter_ < 100


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("method", ["auto", "newton", "scaffold"])
def test_c_is_that_of_scikit_learn_whatever_the_groups(data, fit_intercept, method):
    X, y, groups = data
    clf = LocalGDClassifier(method, C=0.7, fit_intercept=fit_intercept, n_rounds=100).fit(X, y, groups=groups)
    pooled = LogisticRegression(C=0.7, fit_intercept=fit_intercept, solver="newton-cholesky", tol=1e-12).fit(X, y)
    np.testing.assert_allclose(clf.coef_, pooled.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(clf.intercept_, pooled.intercept_, rtol=0, atol=1e-8)
    assert clf.certificate_.kind == "minimiser"


def test_without_groups_it_is_pooled_training(data):
    X, y, _ = data
    clf = LocalGDClassifier("local-gd", local_steps=1, lr=0.1, n_rounds=100, fit_intercept=True).fit(X, y)
    signs = np.where(y == "yes", 1.0, -1.0)[:, None]
    signed = np.hstack([X, np.ones((len(X), 1))]) * signs
    w = pooled_gd(signed, np.full(len(X), 1 / len(X)), Logistic(), 0.1, 100)
    np.testing.assert_allclose(np.append(clf.coef_[0], clf.intercept_), w, rtol=SAME_ORDER * 10)


def test_sparse_rows_give_the_same_model(data):
    X, y, groups = data
    dense = LocalGDClassifier("local-gd", n_rounds=20).fit(X, y, groups=groups)
    sparse = LocalGDClassifier("local-gd", n_rounds=20).fit(csr_array(X), y, groups=groups)
    np.testing.assert_allclose(dense.coef_, sparse.coef_, rtol=1e-9)
    assert (sparse.predict(csr_array(X)) == dense.predict(X)).all()


def test_it_stops_at_the_angle_asked_for(data):
    X, y, groups = data
    clf = LocalGDClassifier("modified-local-gd", angle_tol_deg=30.0).fit(X, y, groups=groups)
    assert clf.n_iter_ < 500
    assert clf.certificate_.verdict is Status.CERTIFIED
    assert clf.certificate_.angle_deg_max <= 30.0


def test_a_method_of_its_own_and_grid_search(data):
    X, y, groups = data
    own = LocalGDClassifier(local_gd(local_steps=3, loss="exponential"), n_rounds=5)
    assert clone(own).fit(X, y, groups=groups).n_iter_ == 5
    search = GridSearchCV(LocalGDClassifier("local-gd", n_rounds=5), {"local_steps": [1, 10]}, cv=GroupKFold(2))
    assert search.fit(X, y, groups=groups).best_score_ > 0.5


def test_random_state_rules_the_batches(data):
    X, y, groups = data
    a, b, c = (
        LocalGDClassifier("local-sgd", n_rounds=5, local_steps=3, random_state=seed).fit(X, y, groups=groups).coef_
        for seed in (1, 1, 2)
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_falling_short_of_the_angle_asked_for_warns(data):
    X, y, groups = data
    with pytest.warns(ConvergenceWarning, match="separable, not yet certified"):
        LocalGDClassifier("local-gd", n_rounds=3, angle_tol_deg=0.01).fit(X, y, groups=groups)


@pytest.mark.parametrize("method", ["consensus", "interior-point", "modified-local-gd"])
def test_a_method_for_separable_rows_gives_way_to_the_minimiser_and_says_so(data, method):
    X, y, groups = data
    X, y, groups = np.vstack([X, X[:3]]), np.append(y, np.where(y[:3] == "no", "yes", "no")), np.append(groups, [0] * 3)
    clf = LocalGDClassifier(method).fit(X, y, groups=groups)
    assert f"; {method} took newton, as no plane separates the rows" in clf.certificate_.status
    assert clf.certificate_.kind == "minimiser"
    assert clf.certificate_.separable is False
    pooled = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky").fit(X, y)
    np.testing.assert_allclose(clf.coef_, pooled.coef_, atol=1e-8)


def test_a_method_of_ones_own_does_not_and_warns_with_a_remedy(data):
    X, y, groups = data
    X, y, groups = np.vstack([X, X[:3]]), np.append(y, np.where(y[:3] == "no", "yes", "no")), np.append(groups, [0] * 3)
    with pytest.warns(ConvergenceWarning, match="not separable to within rounding: .* use local-gd"):
        clf = LocalGDClassifier(modified_local_gd()).fit(X, y, groups=groups)
    assert clf.certificate_.separable is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "local-dg"}, "did you mean 'local-gd'"),
        ({"method": "local-gd", "local_steps": 0}, "local_steps must be"),
        ({"method": "local-gd", "lr": -1.0}, "lr must be"),
        ({"lr": 0.5}, "lr has no meaning for method 'auto'"),
        ({"C": 0.0}, "C must be"),
        ({"n_rounds": -1}, "n_rounds must be"),
        ({"n_rounds": 1.5}, "n_rounds must be"),
        ({"angle_tol_deg": 0.0}, "angle_tol_deg must be"),
        ({"method": "local-gd", "weighted_by": "size"}, "weighted_by must be"),
        ({"multi_class": "ovo"}, "multi_class must be 'softmax' or 'ovr', got 'ovo'"),
    ],
)
def test_bad_parameters_are_named(data, change, message):
    X, y, groups = data
    with pytest.raises(ValueError, match=message):
        LocalGDClassifier(**change).fit(X, y, groups=groups)


def test_groups_must_match_the_rows(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="give one entry per row"):
        LocalGDClassifier().fit(X, y, groups=[1, 2])
    with pytest.raises(ValueError, match="no value in row 1"):
        LocalGDClassifier().fit(X, y, groups=["a", None, *["b"] * (len(X) - 2)])


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    order = np.argsort(y, kind="stable")
    groups = np.empty(len(y), dtype=int)
    for node, part in enumerate(np.array_split(order, 4)):  # by label: most groups hold one class
        groups[part] = node
    return scale(X), np.array(["barbera", "barolo", "grignolino"])[y], groups


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_three_classes_are_one_model_with_one_certificate(wine, fit_intercept, storage):
    X, y, groups = wine
    clf = LocalGDClassifier("local-gd", n_rounds=60, local_steps=20, fit_intercept=fit_intercept).fit(
        storage(X), y, groups=groups
    )
    assert clf.score(storage(X), y) == clf.history_[-1]["accuracy"] == 1.0
    assert clf.coef_.shape == (3, 13)
    assert clf.intercept_.shape == (3,)
    assert clf.decision_function(storage(X)).shape == (len(y), 3)
    plain = np.hstack([X, np.ones((len(y), 1))]) if fit_intercept else X
    pooled = max_margin(ClassRows(plain, np.unique(y, return_inverse=True)[1], 3).explicit())
    w = np.hstack([clf.coef_, clf.intercept_[:, None]]) if fit_intercept else clf.coef_
    assert angle_deg(w.ravel(), pooled.direction) <= clf.certificate_.angle_deg_max < 90
    assert clf.certificate_.margin_low <= pooled.margin_high
    assert clf.certificate_.margin_high >= pooled.margin_low


def test_one_against_the_rest_is_two_class_training_of_each(wine):
    X, y, groups = wine
    clf = LocalGDClassifier("local-gd", n_rounds=20, multi_class="ovr").fit(X, y, groups=groups)
    assert clf.n_iter_ == 20
    assert len(clf.history_) == len(clf.certificate_) == 3
    for own, label in enumerate(clf.classes_):
        alone = LocalGDClassifier("local-gd", n_rounds=20).fit(X, y == label, groups=groups)
        assert np.array_equal(clf.coef_[own], alone.coef_[0])
        assert clf.intercept_[own] == alone.intercept_[0]
        assert clf.certificate_[own] == alone.certificate_
        assert len(clf.history_[own]) == len(alone.history_)
    assert clf.score(X, y) > 0.97


def test_two_classes_do_not_depend_on_multi_class(data):
    X, y, groups = data
    one, other = (
        LocalGDClassifier("local-gd", n_rounds=5, multi_class=how).fit(X, y, groups=groups)
        for how in ("softmax", "ovr")
    )
    assert np.array_equal(one.coef_, other.coef_)
    assert one.certificate_ == other.certificate_


def test_by_default_three_classes_have_the_hard_margin_and_with_c_scikit_learns_softmax(wine):
    X, y, groups = wine
    clf = LocalGDClassifier(fit_intercept=False).fit(X, y, groups=groups)
    pooled = max_margin(ClassRows(X, np.unique(y, return_inverse=True)[1], 3).explicit())
    assert angle_deg(clf.coef_.ravel(), pooled.direction) <= 1e-3
    assert clf.certificate_.angle_deg_max <= 0.1
    clf = LocalGDClassifier(C=0.5).fit(X, y, groups=groups)
    sklearns = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12).fit(X, y)
    np.testing.assert_allclose(clf.coef_ - clf.coef_.mean(axis=0), sklearns.coef_, atol=1e-5)


def test_sample_weight_is_scikit_learns_whatever_the_groups_and_leaves_out_what_weighs_nothing(data):
    X, y, groups = data
    rng = np.random.default_rng(0)
    weights = rng.random(len(y)) * 2 * (rng.random(len(y)) < 0.8)
    weights[groups == groups[0]] = 0.0  # a node without a row that counts
    clf = LocalGDClassifier(C=0.5).fit(X, y, groups=groups, sample_weight=weights)
    exact = LogisticRegression(C=0.5, tol=1e-12, solver="newton-cholesky").fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(clf.coef_, exact.coef_, atol=1e-6)
    np.testing.assert_allclose(clf.intercept_, exact.intercept_, atol=1e-6)
    assert clf.history_[-1]["accuracy"] == pytest.approx(clf.score(X, y, sample_weight=weights))
    there = weights > 0
    again = LocalGDClassifier(C=0.5).fit(X[there], y[there], groups=groups[there], sample_weight=weights[there])
    assert np.array_equal(clf.coef_, again.coef_)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        clf.fit(X, y, sample_weight=np.zeros(len(y)))
