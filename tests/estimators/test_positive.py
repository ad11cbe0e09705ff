"""Regression without a coefficient below 0, held against non-negative least squares of the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from common import examples
from localgd import InProcess, LeastSquares, LocalGDRegressor, Samples, certify, conjugate_gradients, train


def drawn(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + rng.standard_normal(d)
    return X, X @ rng.standard_normal(d) + rng.standard_normal(n) + 3.0


def pooled(X, y, alpha, *, intercept):
    """The solution on the pooled rows, by another way: rows for the penalty, and the mean taken out."""
    d = X.shape[1]
    X, y = (X - X.mean(axis=0), y - y.mean()) if intercept else (X, y)
    return nnls(np.vstack([X, np.sqrt(alpha) * np.eye(d)]), np.append(y, np.zeros(d)))[0]


SEEDS, SIZES = st.integers(0, 10**6), st.integers(1, 9)


@given(seed=SEEDS, d=SIZES, alpha=st.sampled_from([0.0, 1e-3, 1.0, 1e4]), intercept=st.booleans())
@settings(max_examples=examples(50))
def test_it_is_the_pooled_solution_and_the_bound_holds(seed, d, alpha, intercept):
    X, y = drawn(seed, 30, d)
    reg = LocalGDRegressor(alpha, fit_intercept=intercept, positive=True).fit(X, y, groups=np.arange(30) % 3)
    exact = pooled(X, y, alpha, intercept=intercept)
    assert (reg.coef_ >= 0).all()
    np.testing.assert_allclose(reg.coef_, exact, atol=1e-9)
    assert np.linalg.norm(reg.coef_ - exact) <= reg.certificate_.distance + 1e-12 <= 1e-8
    assert reg.certificate_.kind == f"non-negative {'ridge' if alpha else 'least-squares'}"


@given(seed=SEEDS, d=SIZES, alpha=st.sampled_from([0.0, 1.0]), intercept=st.booleans(), off=st.floats(1e-6, 10.0))
@settings(max_examples=examples(50))
def test_bounds_on_distance_and_gap_hold_for_any_model(seed, d, alpha, intercept, off):
    X, y = drawn(seed, 30, d)
    exact, rng = pooled(X, y, alpha, intercept=intercept), np.random.default_rng(seed)
    v = np.maximum(exact + off * rng.standard_normal(d) * (rng.random(d) < 0.7), 0.0)
    rows = np.column_stack([X, np.ones(30)]) if intercept else X
    w, best = ((np.append(c, (y - X @ c).mean()) if intercept else c) for c in (v, exact))
    if intercept:
        w[-1] += off * rng.standard_normal()
    engine = InProcess([Samples(str(m), rows[m::3], y[m::3]) for m in range(3)])
    proved = certify(w, engine, problem=LeastSquares(alpha, intercept, positive=True))
    assert np.linalg.norm(v - exact) <= proved.distance * (1 + 1e-9)

    def objective(c):
        return np.sum((y - rows @ c) ** 2) + alpha * np.sum((c[:-1] if intercept else c) ** 2)

    assert objective(w) - objective(best) <= proved.gap * (1 + 1e-6) + 1e-9
    assert proved.length_low <= np.linalg.norm(exact) * (1 + 1e-9)


def test_it_is_ridge_of_scikit_learn_by_weights_and_targets():
    X, y = drawn(0, 40, 6)
    weights, Y = np.random.default_rng(1).random(40), np.column_stack([y, -y])
    reg = LocalGDRegressor(2.0, positive=True).fit(X, Y, groups=np.arange(40) % 4, sample_weight=weights)
    exact = Ridge(2.0, positive=True, tol=1e-12).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(reg.coef_, exact.coef_, atol=1e-5)
    np.testing.assert_allclose(reg.intercept_, exact.intercept_, atol=1e-5)


def test_what_it_cannot_prove_or_do_is_said():
    X, y = drawn(0, 10, 20)
    with pytest.warns(ConvergenceWarning, match="no bound on the distance"):
        LocalGDRegressor(0.0, positive=True).fit(X, y)
    with pytest.raises(ValueError, match="positive=True asks for XᵀX, which it does not send; take auto"):
        LocalGDRegressor(positive=True, max_mb=0.0).fit(X, y)
    with pytest.raises(ValueError, match="positive must be"):
        LocalGDRegressor(positive="yes").fit(X, y)
    engine = InProcess([Samples("a", X, y)])
    with pytest.raises(ValueError, match="take auto or normal-equations"):
        train(engine, conjugate_gradients(), problem=LeastSquares(1.0, positive=True))
    below = certify(-np.ones(20), engine, problem=LeastSquares(1.0, positive=True))
    assert below.distance == np.inf or np.isnan(below.distance)
    assert "a coefficient is below 0" in below.status
    assert (LocalGDRegressor(positive=True).fit(np.abs(X), -np.abs(y)).coef_ == 0).any()
