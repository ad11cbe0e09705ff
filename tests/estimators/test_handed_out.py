"""What is handed out for rows of float32 is float32, and the certificate is about just those numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression, Ridge

from common import examples
from localgd import InProcess, LocalGDClassifier, LocalGDClassifierCV, LocalGDRegressor, local_gd, train
from localgd.data.classes import signed
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.run.rounded import rounded


@st.composite
def rows(draw):
    """Rows of float32 of three nodes, separable by the first column, and plain targets."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    X = rng.standard_normal((30, draw(st.integers(2, 8)))).astype(np.float32)
    X[:, 0] += np.sign(X[:, 0]) * np.float32(0.3)
    return X, X[:, 0] > 0, X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(30), np.arange(30) % 3


@given(data=rows())
@settings(max_examples=examples(20))
def test_the_bound_holds_for_the_rounded_max_margin_model(data):
    X, y, _, groups = data
    clf = LocalGDClassifier(fit_intercept=False).fit(X, y, groups=groups)
    assert clf.coef_.dtype == clf.intercept_.dtype == clf.decision_function(X).dtype == np.float32
    z = X.astype(np.float64) * np.where(y, 1.0, -1.0)[:, None]
    w = clf.coef_[0].astype(np.float64)
    assert angle_deg(w, max_margin(z).direction) <= clf.certificate_.angle_deg_max <= 1e-2
    margin = float((z @ w).min() / np.linalg.norm(w))
    assert clf.certificate_.margin == pytest.approx(margin, rel=1e-9)
    assert clf.certificate_.margin <= margin * (1 + 1e-12)


@given(data=rows(), C=st.sampled_from([1e-2, 1.0, 1e4]))
@settings(max_examples=examples(20))
def test_the_bound_holds_for_the_rounded_minimiser_and_counts_the_rounding(data, C):
    X, y, _, groups = data
    clf = LocalGDClassifier(C=C).fit(X, y, groups=groups)
    exact = LocalGDClassifier(C=C).fit(X.astype(np.float64), y, groups=groups)
    apart = np.linalg.norm(clf.coef_ - exact.coef_)
    assert (
        apart - exact.certificate_.distance <= clf.certificate_.distance <= exact.certificate_.distance + 1.01 * apart
    )
    assert clf.certificate_.angle_deg_max < 1e-4
    assert clf.certificate_.status.partition("; ")[2] == exact.certificate_.status.partition("; ")[2] != ""
    pooled = LogisticRegression(C=C, tol=1e-12, solver="newton-cholesky").fit(X.astype(np.float64), y)
    assert np.linalg.norm(clf.coef_ - pooled.coef_) <= clf.certificate_.distance + 1e-8


@pytest.mark.parametrize(("alpha", "shape"), [(1.0, (60, 5)), (0.0, (60, 5)), (0.0, (8, 20))])
def test_the_bound_holds_for_a_rounded_solution(alpha, shape):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape[0])
    reg = LocalGDRegressor(alpha=alpha).fit(X, y, groups=np.arange(len(y)) % 2)
    exact = LocalGDRegressor(alpha=alpha).fit(X.astype(np.float64), y, groups=np.arange(len(y)) % 2)
    apart = np.linalg.norm(reg.coef_ - exact.coef_)
    assert reg.coef_.dtype == reg.intercept_.dtype == reg.predict(X).dtype == np.float32
    assert reg.certificate_.kind == exact.certificate_.kind
    assert apart <= reg.certificate_.distance <= exact.certificate_.distance + 1.01 * apart
    residual = y - (X.astype(np.float64) @ reg.coef_.astype(np.float64) + float(reg.intercept_))
    assert reg.certificate_.residual == pytest.approx(np.linalg.norm(residual), rel=1e-9)
    if alpha:
        np.testing.assert_allclose(reg.coef_, Ridge(alpha=alpha, solver="svd").fit(X, y).coef_, atol=1e-5)


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_predictions_of_float32_are_those_of_its_coefficients_in_float64(storage):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4)).astype(np.float32)
    y = rng.integers(3, size=60)
    for clf in (LocalGDClassifier(C=1.0), LocalGDClassifierCV(Cs=2, cv=2)):
        clf.fit(storage(X), y)
        assert clf.coef_.dtype == np.float32
        scores = X.astype(np.float64) @ clf.coef_.T.astype(np.float64) + clf.intercept_.astype(np.float64)
        np.testing.assert_array_equal(clf.predict(storage(X)), scores.argmax(axis=1))
        np.testing.assert_array_equal(clf.predict(storage(X.astype(np.float64))), scores.argmax(axis=1))


def test_coefficients_that_float32_does_not_hold_are_refused():
    X = np.array([[1], [2], [-1], [-2]], dtype=np.float32) * np.float32(1e-29)
    with pytest.raises(ValueError, match="outside the range of float32; give the rows as float64"):
        LocalGDRegressor(alpha=0.0).fit(X, X[:, 0].astype(np.float64) * 1e58)


def test_a_model_that_rounding_does_not_change_keeps_its_certificate():
    engine = InProcess([signed("a", np.array([[1.0], [-1.0]]), np.array([1, 0]), 2, None)])
    run = train(engine, local_gd(local_steps=1, lr=1.0), n_rounds=1)
    assert rounded(run, engine, np.float32).certificate == run.certificate
