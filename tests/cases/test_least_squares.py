"""Least squares on wide rows: where sums of squares, or one step too many, lose the solution."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, Ridge

from localgd import LocalGDRegressor


def off(found, right):
    return np.abs(found - right).max() / np.abs(right).max()


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4, 10, 20])
def test_few_very_wide_rows_get_the_solution_of_least_norm(n, fit_intercept):
    """From a suite of peers: `LinearRegression` answers such rows to rounding. Without XᵀX nothing proves it."""
    rng = np.random.default_rng(n)
    X, y = rng.standard_normal((n, 5000)), rng.uniform(-10, 10, n)
    with pytest.warns(ConvergenceWarning, match="no bound on the distance"):
        found = LocalGDRegressor(alpha=0, fit_intercept=fit_intercept).fit(X, y, groups=np.arange(n) % 3)
    assert off(found.coef_, LinearRegression(fit_intercept=fit_intercept).fit(X, y).coef_) <= 1e-8


@pytest.mark.parametrize("shape", [(50, 100), (20, 40)], ids=str)
@pytest.mark.parametrize("alpha", [1e-20, 1e-16, 1e-14, 1e-12, 1e-10, 1e-6])
def test_a_tiny_penalty_on_wide_rows_gives_the_ridge_solution_and_proves_it(alpha, shape):
    """From a suite of peers: ``Ridge(solver="svd")`` does not square the singular values."""
    n, d = shape
    X, y = make_regression(n, d, n_informative=10, bias=3.0, noise=0.1, random_state=2)
    found = LocalGDRegressor(alpha=alpha).fit(X, y, groups=np.arange(n) % 3)
    assert off(found.coef_, Ridge(alpha=alpha, solver="svd").fit(X, y).coef_) <= 1e-6
    assert found.certificate_.relative <= 1e-3


@pytest.mark.parametrize("alpha", [1e-16, 1e-12])
def test_a_tiny_penalty_on_wide_rows_that_repeat_gives_the_ridge_solution_or_a_warning(alpha):
    X, y = make_regression(50, 100, n_informative=10, bias=3.0, noise=0.1, random_state=2)
    X, y = np.vstack([X, X[:5]]), np.append(y, y[:5])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = LocalGDRegressor(alpha=alpha).fit(X, y, groups=np.arange(55) % 3)
    warned = any(issubclass(one.category, ConvergenceWarning) for one in told)
    assert warned or off(found.coef_, Ridge(alpha=alpha, solver="svd").fit(X, y).coef_) <= 1e-6
