"""The scikit-learn regressor."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from common import OTHER_ORDER
from localgd import LocalGDRegressor, Status


@pytest.fixture
def data():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    return X, y, np.arange(len(y)) % 7


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_alpha_is_that_of_ridge_whatever_the_groups(data, fit_intercept, max_mb):
    X, y, groups = data
    X = X / X.std(axis=0)
    pooled = Ridge(alpha=2.5, fit_intercept=fit_intercept, solver="svd").fit(X, y)
    for names in (None, groups, np.arange(len(y))):
        reg = LocalGDRegressor(2.5, fit_intercept=fit_intercept, max_mb=max_mb).fit(X, y, groups=names)
        np.testing.assert_allclose(reg.coef_, pooled.coef_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(reg.intercept_, pooled.intercept_, rtol=0, atol=1e-7)
        assert np.linalg.norm(reg.coef_ - pooled.coef_) <= reg.certificate_.distance + 1e-10
        assert reg.certificate_.relative < 1e-6


def test_raw_columns_of_unlike_sizes_and_no_penalty(data):
    X, y, groups = data
    reg = LocalGDRegressor(alpha=0.0).fit(X, y, groups=groups)
    pooled = LinearRegression().fit(X, y)
    np.testing.assert_allclose(reg.predict(X), pooled.predict(X), rtol=1e-8)
    assert reg.certificate_.kind == "least-squares"
    assert reg.certificate_.verdict is Status.CERTIFIED


def test_more_columns_than_rows_without_penalty_is_linear_regression():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 80)) + 1.0, rng.standard_normal(30)
    reg = LocalGDRegressor(alpha=0.0).fit(X, y, groups=np.arange(30) % 4)
    pooled = LinearRegression().fit(X, y)
    np.testing.assert_allclose(reg.coef_, pooled.coef_, rtol=0, atol=OTHER_ORDER)
    np.testing.assert_allclose(reg.intercept_, pooled.intercept_, rtol=0, atol=OTHER_ORDER)
    assert reg.certificate_.kind == "minimum-norm"
    assert reg.certificate_.distance < 1e-9


def test_sparse_rows_are_the_same_rows(data):
    X, y, groups = data
    dense, sparse = (LocalGDRegressor().fit(rows, y, groups=groups) for rows in (X, csr_array(X)))
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-7)
    np.testing.assert_allclose(sparse.predict(csr_array(X)), dense.predict(X), rtol=1e-7)


def test_it_searches_a_grid_over_groups(data):
    X, y, groups = data
    search = GridSearchCV(LocalGDRegressor(), {"alpha": [0.1, 1.0, 1e6]}, cv=GroupKFold(3))
    search.fit(X / X.std(axis=0), y, groups=groups)
    assert search.best_params_["alpha"] < 1e6
    assert search.score(X / X.std(axis=0), y) > 0.45


def test_it_keeps_a_history_and_warns_where_it_is_not_done(data):
    X, y, groups = data
    with pytest.warns(ConvergenceWarning, match="out of rounds"):
        reg = LocalGDRegressor(max_mb=0.0, n_rounds=6).fit(X, y, groups=groups)
    assert reg.n_iter_ == len(reg.history_) - 1 == 6
    assert set(reg.history_[0]) >= {"round", "loss", "gap", "floats_up", "floats_down", "seconds"}
    pooled = Ridge(solver="svd").fit(X, y)
    assert np.linalg.norm(reg.coef_ - pooled.coef_) <= reg.certificate_.distance


@pytest.mark.parametrize(
    ("settings", "groups", "message"),
    [
        ({"alpha": -1.0}, None, "alpha must be"),
        ({"alpha": np.inf}, None, "alpha must be"),
        ({"tol": -1.0}, None, "tol must be"),
        ({"n_rounds": -1}, None, "n_rounds must be"),
        ({"max_mb": -1.0}, None, "max_mb must be"),
        ({}, [0, 1], "groups has shape"),
        ({}, [0.0, np.nan, 1.0], "groups has no value in row 1"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, groups, message):
    with pytest.raises(ValueError, match=message):
        LocalGDRegressor(**settings).fit([[1.0], [2.0], [4.0]], [1.0, 2.0, 3.0], groups=groups)


def test_rows_that_are_there_many_times_do_not_send_conjugate_gradients_astray():
    """Once the residual is rounding, more steps only make it grow."""
    rng = np.random.RandomState(42)
    X, y, times = rng.rand(15, 30), rng.randint(0, 3, 15).astype(float), rng.randint(0, 5, 15)
    X, y = np.repeat(X, times, axis=0), np.repeat(y, times)
    with pytest.warns(ConvergenceWarning, match="no bound on the distance"):
        reg = LocalGDRegressor(alpha=0.0, max_mb=0.0, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(reg.coef_, np.linalg.lstsq(X, y, rcond=None)[0], atol=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [2.5, [0.0, 1.0, 100.0]])
def test_several_targets_are_as_many_models_each_with_a_certificate(data, fit_intercept, alpha):
    X, y, groups = data
    Y = np.column_stack([y, y**2, X[:, 3] - y])
    reg = LocalGDRegressor(alpha, fit_intercept=fit_intercept).fit(X, Y, groups=groups)
    pooled = Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd").fit(X, Y)
    assert reg.coef_.shape == (3, 10)
    assert reg.intercept_.shape == (3,)
    np.testing.assert_allclose(reg.predict(X), pooled.predict(X), rtol=1e-7)
    for place, (target, own) in enumerate(zip(Y.T, np.broadcast_to(alpha, 3), strict=True)):
        alone = LocalGDRegressor(float(own), fit_intercept=fit_intercept).fit(X, target, groups=groups)
        assert np.array_equal(reg.coef_[place], alone.coef_)
        assert reg.certificate_[place] == alone.certificate_
        assert len(reg.history_[place]) == len(alone.history_)
    with pytest.raises(ValueError, match="alpha must be a number, or one for each target, got 2 for 3"):
        LocalGDRegressor([1.0, 2.0]).fit(X, Y, groups=groups)
