"""A fit that begins at the model of the last one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from localgd import InProcess, LocalGDClassifier, Shard, local_gd, train
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 6))
    return X, X[:, 0] + 0.3 * rng.standard_normal(120) > 0, np.arange(120) % 4


@pytest.mark.parametrize("method", ["newton", "newton-cg", "lbfgs", "scaffold"])
def test_a_warm_fit_takes_fewer_rounds_to_the_same_minimiser(data, method):
    X, y, groups = data
    warm, cold = LocalGDClassifier(method, C=10.0, warm_start=True), LocalGDClassifier(method, C=12.0)
    warm.fit(X, y, groups=groups)
    warm.set_params(C=12.0).fit(X, y, groups=groups)
    cold.fit(X, y, groups=groups)
    assert warm.n_iter_ < cold.n_iter_
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-8)
    assert warm.certificate_.angle_deg_max < 1e-6


def separable(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 3))
    X[:, 0] += np.sign(X[:, 0]) * 0.3
    return X, X[:, 0] > 0, np.arange(40) % 4


def fit(clf, X, y, groups):
    """Fit; beside it, how far the model really is."""
    clf.fit(X, y, groups=groups)
    true = max_margin(X * np.where(y, 1.0, -1.0)[:, None])
    assert clf.certificate_.margin_low <= true.margin_high
    assert clf.certificate_.margin_high >= true.margin_low
    return angle_deg(clf.coef_[0], true.direction)


def test_over_the_same_rows_a_warm_fit_goes_on_with_what_is_proved():
    X, y, groups = separable(1)
    clf = LocalGDClassifier("local-gd", n_rounds=15, local_steps=5, fit_intercept=False, warm_start=True)
    for _ in range(4):
        true = fit(clf, X, y, groups)
    whole = LocalGDClassifier("local-gd", n_rounds=60, local_steps=5, fit_intercept=False).fit(X, y, groups=groups)
    np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=1e-12)
    assert true <= clf.certificate_.angle_deg_max <= whole.certificate_.angle_deg_max * (1 + 1e-9)
    clf.coef_ *= 2.0  # no combination that anybody has counted
    fit(clf, X, y, groups)


@pytest.mark.parametrize("change", ["rows", "labels", "groups", "weights"])
def test_no_certificate_rests_on_rows_that_are_not_there_any_more(change):
    X, y, groups = separable(2)
    clf = LocalGDClassifier("local-gd", n_rounds=60, local_steps=5, fit_intercept=False, warm_start=True)
    fit(clf, X, y, groups)
    before = clf.certificate_.margin_high
    clf.set_params(n_rounds=1)
    if change == "rows":  # the margin grows tenfold: bounds of before would be wrong
        X = X * 10.0
    elif change == "labels":
        y = X[:, 0] + 0.0 > 0.3
        X, y, groups = X[y | (X[:, 0] < 0)], y[y | (X[:, 0] < 0)], groups[y | (X[:, 0] < 0)]
    elif change == "groups":
        groups = np.zeros(40, dtype=int)
    else:
        near = np.argsort(np.abs(X[:, 0]))[:10]
        X, y, groups = np.delete(X, near, axis=0), np.delete(y, near), np.delete(groups, near)
    true = fit(clf, X, y, groups)
    assert np.isnan(clf.certificate_.angle_deg_max) or true <= clf.certificate_.angle_deg_max
    if change == "rows":
        assert clf.certificate_.margin_high > before


def test_one_class_after_the_other_has_a_start_of_its_own(data):
    X, _, groups = data
    y = np.argmax(X[:, :3], axis=1)
    clf = LocalGDClassifier(C=1.0, multi_class="ovr", warm_start=True).fit(X, y, groups=groups)
    first = clf.coef_
    assert clf.fit(X, y, groups=groups).n_iter_ <= 1
    np.testing.assert_allclose(clf.coef_, first, atol=1e-9)
    softmax = clf.set_params(multi_class="softmax").fit(X, y, groups=groups)
    exact = LogisticRegression(C=1.0, tol=1e-12, solver="newton-cholesky").fit(X, y)
    np.testing.assert_allclose(softmax.coef_ - softmax.coef_.mean(axis=0), exact.coef_, atol=1e-5)


def test_a_start_that_means_nothing_is_refused(data):
    X, y, groups = data
    with pytest.raises(ValueError, match="warm_start=True has no meaning for auto and the max-margin model"):
        LocalGDClassifier(warm_start=True).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="warm_start must be"):
        LocalGDClassifier(C=1.0, warm_start="yes").fit(X, y, groups=groups)
    clf = LocalGDClassifier(C=1.0, warm_start=True).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match=r"the last model is for 6 columns and classes \[False, True\], .* have 5"):
        clf.fit(X[:, :5], y, groups=groups)


def test_a_bare_start_is_worth_a_round_for_dual_vectors_and_a_dual_is_worth_its_own():
    X, y, _ = separable(3)
    engine = InProcess([Shard("a", X * np.where(y, 1.0, -1.0)[:, None])])
    method = local_gd(local_steps=5)
    first = train(engine, method, n_rounds=30)
    bare, told = (train(engine, method, n_rounds=1, w0=start) for start in (first.w, first.dual))
    assert np.array_equal(bare.w, told.w)
    assert first.dual.known
    assert told.dual.known
    assert not bare.dual.known
    assert max_margin(engine.shards["a"].rows).margin_low <= bare.certificate.margin_high < np.inf
    assert told.certificate.margin_high <= first.certificate.margin_high * (1 + 1e-9)
