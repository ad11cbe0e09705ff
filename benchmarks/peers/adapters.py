"""Estimators of localgd under the names and the parameters of scikit-learn's, for its own tests.

An adapter translates parameters and computes nothing: what has the same name here is taken as it is, the rest is a
property below. Names of solvers, `dual`, `n_jobs`, `verbose` and `intercept_scaling`, which scikit-learn's own default
solver does not look at either, change no model and are not looked at. What would change the model and is not offered
here is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from localgd import LocalGDClassifier, LocalGDClassifierCV, LocalGDRegressor

TOUCHED: list[str] = []
"""The adapters that the test at work has fitted, or made."""


def refuse(what: str, value: Any) -> None:
    """Say that a model is asked for that localgd does not offer."""
    raise NotImplementedError(f"localgd does not offer {what}={value!r}")


class LogisticRegression(LocalGDClassifier):
    """``LogisticRegression``: `C`, `fit_intercept`, `random_state`; `max_iter` is `n_rounds`, no penalty ``C=inf``."""

    def __init__(
        self,
        penalty="deprecated",
        *,
        C=1.0,
        l1_ratio=0.0,
        dual=False,
        tol=1e-4,
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        random_state=None,
        solver="lbfgs",
        max_iter=100,
        verbose=0,
        warm_start=False,
        n_jobs=None,
    ):
        TOUCHED.append("LogisticRegression")
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    n_rounds = property(lambda self: self.max_iter)

    def fit(self, X, y, sample_weight=None):
        """Fit the pooled model."""
        TOUCHED.append("LogisticRegression")
        if self.penalty == "l1" or self.l1_ratio or self.l1_ratio is None:
            refuse("l1_ratio", self.l1_ratio)
        return super().fit(X, y, sample_weight=sample_weight)


class LogisticRegressionCV(LocalGDClassifierCV):
    """``LogisticRegressionCV``: `Cs`, `cv`, `scoring`, `fit_intercept`."""

    def __init__(
        self,
        *,
        Cs=10,
        l1_ratios="warn",
        fit_intercept=True,
        cv=None,
        dual=False,
        penalty="deprecated",
        scoring=None,
        solver="lbfgs",
        tol=1e-4,
        max_iter=100,
        class_weight=None,
        n_jobs=None,
        verbose=0,
        refit=True,
        intercept_scaling=1.0,
        random_state=None,
        use_legacy_attributes="warn",
    ):
        TOUCHED.append("LogisticRegressionCV")
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.penalty = penalty
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.refit = refit
        self.intercept_scaling = intercept_scaling
        self.random_state = random_state
        self.use_legacy_attributes = use_legacy_attributes

    def fit(self, X, y, sample_weight=None):
        """Fit the pooled models."""
        TOUCHED.append("LogisticRegressionCV")
        if isinstance(self.l1_ratios, list | tuple | np.ndarray) and np.any(self.l1_ratios):
            refuse("l1_ratios", self.l1_ratios)
        if not self.refit:
            refuse("refit", self.refit)
        ours = LocalGDClassifierCV(
            Cs=self.Cs,
            cv=5 if self.cv is None else self.cv,
            scoring="accuracy" if self.scoring is None else self.scoring,
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
        )
        ours.fit(X, y, sample_weight=sample_weight)
        vars(self).update({name: value for name, value in vars(ours).items() if name.endswith("_")})
        return self


class LinearSVC(LocalGDClassifier):
    """``LinearSVC``: `C`, `fit_intercept`, `random_state`, each class against the rest; `max_iter` is `n_rounds`.

    The intercept is free of the penalty here, whatever `intercept_scaling`.
    """

    def __init__(
        self,
        penalty="l2",
        loss="squared_hinge",
        *,
        dual="auto",
        tol=1e-4,
        C=1.0,
        multi_class="ovr",
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        verbose=0,
        random_state=None,
        max_iter=1000,
    ):
        TOUCHED.append("LinearSVC")
        self.penalty = penalty
        self.loss = loss
        self.dual = dual
        self.tol = tol
        self.C = C
        self.multi_class = multi_class
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        self.max_iter = max_iter

    n_rounds = property(lambda self: self.max_iter)

    def fit(self, X, y, sample_weight=None):
        """Fit the pooled model."""
        TOUCHED.append("LinearSVC")
        for name, offered in (("penalty", "l2"), ("loss", "squared_hinge"), ("multi_class", "ovr")):
            if (given := getattr(self, name)) != offered:
                refuse(name, given)
        return super().fit(X, y, sample_weight=sample_weight)


class Ridge(LocalGDRegressor):
    """``Ridge``: `alpha`, `fit_intercept`; rounds go on until rounding stops them, whatever `tol`."""

    def __init__(
        self,
        alpha=1.0,
        *,
        fit_intercept=True,
        copy_X=True,
        max_iter=None,
        tol=1e-4,
        solver="auto",
        positive=False,
        random_state=None,
    ):
        TOUCHED.append("Ridge")
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.positive = positive
        self.random_state = random_state

    n_rounds = property(lambda self: 10_000 if self.max_iter is None else self.max_iter)

    def fit(self, X, y, sample_weight=None):
        """Fit the pooled model."""
        TOUCHED.append("Ridge")
        own = {"fit_intercept": self.fit_intercept, "n_rounds": self.n_rounds, "positive": self.positive}
        ours = LocalGDRegressor(self.alpha, **own)
        ours.fit(X, y, sample_weight=sample_weight)
        vars(self).update({name: value for name, value in vars(ours).items() if name.endswith("_")})
        return self


class LinearRegression(LocalGDRegressor):
    """``LinearRegression``: `alpha` is 0."""

    def __init__(self, *, fit_intercept=True, copy_X=True, tol=1e-6, n_jobs=None, positive=False):
        TOUCHED.append("LinearRegression")
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs
        self.positive = positive

    alpha = 0.0

    def fit(self, X, y, sample_weight=None):
        """Fit the pooled model."""
        TOUCHED.append("LinearRegression")
        return super().fit(X, y, sample_weight=sample_weight)


ADAPTED = {
    "sklearn.linear_model": (LogisticRegression, LogisticRegressionCV, Ridge, LinearRegression),
    "sklearn.svm": (LinearSVC,),
}
"""The module that a test imports a name from, and what it gets there instead."""
