"""A fit warns where the model is not proved to be what was asked for, and nowhere else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning

from localgd import LocalGDClassifier, LocalGDRegressor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
SEPARABLE = X + np.sign(X[:, :1]) * 0.2, X[:, 0] > 0
NOISY = X, RNG.random(60) > 0.5
WIDE = make_classification(n_samples=10, n_features=20, random_state=42)
TARGETS = X, X @ np.arange(4.0) + RNG.standard_normal(60)
TWICE = np.hstack([X, X]), TARGETS[1]
QUASI = np.array([[-1.0], [0.0], [0.0], [1.0]]), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("estimator", "rows", "warns"),
    [
        (LocalGDClassifier(), SEPARABLE, ""),
        (LocalGDClassifier(), NOISY, ""),
        (LocalGDClassifier(), WIDE, ""),
        (LocalGDClassifier(n_rounds=3), SEPARABLE, "not yet certified|undecided"),
        (LocalGDClassifier(), QUASI, "no bound on the distance"),
        (LocalGDClassifier(C=1.0), SEPARABLE, ""),
        (LocalGDClassifier(C=1e30), SEPARABLE, ""),
        (LocalGDClassifier(C=1e30), NOISY, ""),
        (LocalGDClassifier(C=1e30), WIDE, ""),
        (LocalGDClassifier(C=1e-30), NOISY, ""),
        (LocalGDClassifier(C=np.inf), NOISY, ""),
        (LocalGDClassifier(C=np.inf), SEPARABLE, "undecided"),
        (LocalGDClassifier(C=1.0), load_iris(return_X_y=True), ""),
        (LocalGDClassifier(C=1.0, n_rounds=2), load_iris(return_X_y=True), "finite minimiser, not yet certified"),
        (LocalGDClassifier(C=1.0, multi_class="ovr"), load_iris(return_X_y=True), ""),
        (LocalGDClassifier("consensus"), SEPARABLE, ""),
        (LocalGDClassifier("consensus"), NOISY, ""),
        (LocalGDClassifier("local-gd", n_rounds=3), SEPARABLE, ""),
        (LocalGDClassifier("local-gd", n_rounds=3), NOISY, ""),
        (LocalGDClassifier("local-gd", n_rounds=3, angle_tol_deg=0.01), SEPARABLE, "within 39° of the pooled"),
        (LocalGDClassifier("local-gd", n_rounds=500, angle_tol_deg=60.0), SEPARABLE, ""),
        (LocalGDClassifier("local-gd", C=1.0, n_rounds=20, lr=1e30), NOISY, "diverged"),
        (LocalGDRegressor(), TARGETS, ""),
        (LocalGDRegressor(alpha=0.0), TARGETS, ""),
        (LocalGDRegressor(alpha=0.0), TWICE, "no bound on the distance"),
        (LocalGDRegressor(alpha=1.0), TWICE, ""),
        (LocalGDRegressor(max_mb=0.0), TARGETS, ""),
        (LocalGDRegressor(max_mb=0.0, n_rounds=3), TARGETS, "out of rounds"),
        (LocalGDRegressor(alpha=0.0), (X, np.zeros(60)), ""),
        (LocalGDRegressor(alpha=0.0), (X, np.ones(60)), ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_warns_just_where_nothing_proves_the_model(estimator, rows, warns, dtype):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        estimator.fit(rows[0].astype(dtype), rows[1])
    said = [str(one.message) for one in told if one.category is ConvergenceWarning]
    assert len(told) == len(said)
    assert bool(said) == bool(warns)
    if warns:
        with pytest.warns(ConvergenceWarning, match=warns):
            estimator.fit(rows[0].astype(dtype), rows[1])
