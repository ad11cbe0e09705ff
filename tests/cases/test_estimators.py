"""Estimators: wide rows, intercepts, cross-validation, groups, and ends without a proof."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.preprocessing import scale

from localgd import LocalGDClassifier


def wide(n, d):
    """A few sparse rows of very many columns, and their nodes."""
    return sparse.random(n, d, density=10 / d, random_state=0, format="csr"), np.arange(n) % 3


def peak_of(fit):
    """What `fit` returns, and the most bytes that it held at once."""
    tracemalloc.start()
    try:
        return fit(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("method", ["auto", "newton-cg", "lbfgs", "scaffold"])
def test_very_many_columns_are_solved_with_vectors_only(method, fit_intercept):
    """Quantco/glum#485: sparse rows, and the fit asks for a dense columns × columns matrix."""
    d = 3000
    X, groups = wide(30, d)
    y = np.arange(30) % 2
    clf = LocalGDClassifier(method, C=1.0, fit_intercept=fit_intercept)
    _, peak = peak_of(lambda: clf.fit(X, y, groups=groups))
    pooled = LogisticRegression(C=1.0, fit_intercept=fit_intercept, tol=1e-10, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(clf.coef_, pooled.coef_, rtol=0, atol=1e-4)
    assert peak < 8 * d * d / 10


@pytest.mark.parametrize("multi_class", ["ovr", "softmax"])
def test_very_many_columns_of_many_classes_are_solved_with_vectors_only(multi_class):
    """Quantco/glum#485, for three classes."""
    d = 3000
    X, groups = wide(30, d)
    clf = LocalGDClassifier(C=0.01, multi_class=multi_class, n_rounds=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is not the end that is looked at here
        _, peak = peak_of(lambda: clf.fit(X, np.arange(30) % 3, groups=groups))
    assert peak < 8 * d * d / 10


def quasi_separated(values, classes):
    return np.array(values, dtype=float)[:, None], np.array(classes), np.arange(len(values)) % 2


def far_from_0(centre):
    """A column of small spread around a large number, beside another one."""
    rng = np.random.default_rng(7)
    near, x = rng.normal(size=400) * 0.5, rng.normal(size=400)
    y = rng.random(400) < 1 / (1 + np.exp(0.7 * x - 1.2 * near))
    return np.c_[centre + near, x], y.astype(int), np.arange(400) % 4


def indicator(size):
    """A column that only rows of one class have, beside one of another size."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    y = (x + rng.normal(size=200) > 0).astype(int)
    return np.c_[x * size, (y == 1) & (rng.random(200) < 0.2)], y, np.arange(200) % 3


NO_MINIMISER = {
    "quasi-separated": quasi_separated([-1, 0, 0, 1], [0, 0, 1, 1]),
    "quasi-separated, repeated": quasi_separated([-2, -1, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1]),
    "quasi-separated, three classes": quasi_separated([-1, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]),
    "an indicator of one class, beside a size of 1e6": indicator(1e6),
}


def fitted(X, y, groups):
    """The estimator as it comes, and whether it warned."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        clf = LocalGDClassifier().fit(X, y, groups=groups)
    return clf, any(issubclass(one.category, ConvergenceWarning) for one in told)


@pytest.mark.parametrize("name", NO_MINIMISER)
def test_rows_without_a_finite_minimiser_end_with_a_warning(name):
    """choxos/mlumr#32, statsmodels#39: they were reported as converged."""
    _, warned = fitted(*NO_MINIMISER[name])
    assert warned


@pytest.mark.parametrize("centre", [1e6, 1e7])
def test_a_column_far_from_0_gives_the_pooled_model_or_a_warning(centre):
    """apache/spark#31693 (SPARK-34448): a column far from 0 with a small spread."""
    X, y, groups = far_from_0(centre)
    clf, warned = fitted(X, y, groups)
    right = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X - X.mean(axis=0), y)
    assert warned or np.abs(clf.coef_ / right.coef_ - 1).max() < 0.01


def searched(spy, X, y, groups):
    GridSearchCV(spy, {"local_steps": [1, 10]}, cv=GroupKFold(3)).fit(X, y, groups=groups)


def scored(spy, X, y, groups):
    cross_val_score(spy, X, y, groups=groups, cv=GroupKFold(3))


@pytest.mark.parametrize("validate", [searched, scored], ids=["GridSearchCV", "cross_val_score"])
def test_groups_that_cross_validation_keeps_to_itself_are_missed_or_written_of(validate):
    """scikit-learn#20349, #16136, #28696."""
    seen = []

    class Spy(LocalGDClassifier):
        def fit(self, X, y, groups=None):
            seen.append(groups)
            return super().fit(X, y, groups=groups)

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] + 0.5 * rng.normal(size=60) > 0).astype(int)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        validate(Spy("local-gd", n_rounds=3), X, y, np.arange(60) % 4)
    written = "GridSearchCV" in f"{LocalGDClassifier.__doc__}{LocalGDClassifier.fit.__doc__}"
    warned = any("groups" in str(one.message) for one in told)
    assert written or warned or not any(groups is None for groups in seen)


@pytest.mark.parametrize(
    "missing",
    [
        np.nan,
        None,
        pd.NA,
        pd.NaT,
        pd.Categorical([None], ["a"]),
        pd.Series([pd.NA], dtype="string"),
        pd.Series([pd.NA], dtype="Int64"),
    ],
    ids=["NaN", "None", "NA", "NaT", "categorical", "string", "Int64"],
)
def test_a_row_without_a_group_is_refused_in_words(missing):
    """scikit-learn#28696: groups as they come from a table, with a value missing."""
    if isinstance(missing, pd.Categorical):
        groups = pd.Categorical(["a"] * 11 + [None])
    elif isinstance(missing, pd.Series):
        groups = pd.concat([pd.Series([1] * 11).astype(missing.dtype), missing])
    else:
        groups = ["a"] * 11 + [missing]
    X = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.raises(ValueError, match="groups has no value in row 11"):
        LocalGDClassifier("local-gd", n_rounds=2).fit(X, np.arange(12) % 2, groups=groups)


@pytest.mark.parametrize("convert", [pd.Categorical, pd.Series, lambda groups: np.array(groups, dtype=object)])
def test_groups_of_any_kind_of_column_are_the_same_nodes(convert):
    X, y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2
    plain, other = (
        LocalGDClassifier("local-gd", n_rounds=2).fit(X, y, groups=groups)
        for groups in (list("abc") * 4, convert(list("abc") * 4))
    )
    assert plain.history_[0]["n_nodes"] == other.history_[0]["n_nodes"] == 3
    np.testing.assert_array_equal(plain.coef_, other.coef_)


@pytest.mark.parametrize("load", [load_wine, load_iris], ids=["wine", "iris"])
@pytest.mark.parametrize("n_nodes", [1, 2, 7])
def test_the_intercepts_of_softmax_are_those_of_sum_0_however_rows_are_spread(load, n_nodes):
    """From a suite of peers: `LogisticRegression` gives the zero-sum ones."""
    X, y = load(return_X_y=True)
    X = scale(X)
    right = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y).intercept_
    found = LocalGDClassifier(C=0.5).fit(X, y, groups=np.arange(len(y)) % n_nodes).intercept_
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["local-gd", "local-sgd", "fedexp", "fedprox", "slowmo"])
@pytest.mark.parametrize("load", [load_wine, load_iris], ids=["wine", "iris"])
def test_averaging_takes_a_penalty_on_many_classes(method, load):
    """From a suite of peers: every method that takes a penalty on two classes takes it on three."""
    X, y = load(return_X_y=True)
    clf = LocalGDClassifier(method, C=1.0, n_rounds=20).fit(scale(X), y, groups=np.arange(len(y)) % 3)
    assert clf.score(scale(X), y) > 0.9
