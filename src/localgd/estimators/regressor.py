"""A linear regression over groups of rows."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from localgd.core import End
from localgd.engine.inprocess import InProcess
from localgd.errors import check_positive
from localgd.estimators.linear import Linear, records, with_bias
from localgd.methods.auto import auto
from localgd.methods.squares import conjugate_gradients
from localgd.problems.least_squares import LeastSquares
from localgd.problems.triangle import MOST_MB
from localgd.rounding import FloatArray
from localgd.rows import Samples
from localgd.run.loop import train


@dataclass(eq=False, repr=False)
class LocalGDRegressor(RegressorMixin, Linear):
    """Ridge regression, or least squares, over groups of rows that are never pooled, with a certificate.

    The minimiser of ``|y − Xw − b|² + alpha |w|²``, the same as scikit-learn's ``Ridge(alpha)`` on the pooled rows;
    with ``alpha=0`` that of ``LinearRegression()``, the one of least norm where there are many. `certificate_` says how
    far from it at most. See `localgd.LeastSquares`.

    Parameters
    ----------
    alpha : float, 0 to 1e100, default 1.0
        Strength of the penalty, as in ``Ridge``; the intercept is free of it.
    fit_intercept : bool, default True
        Append a column of ones.
    tol : float, at least 0, default 0.0
        Stop once the gradient has come down to this part of what it is at 0; 0 goes on until rounding stops it.
    n_rounds : int, at least 0, default 10,000
        Most rounds.
    max_mb : float, at least 0, default 64.0
        Largest XᵀX, in megabytes, that a node is asked for; beyond, conjugate gradients.
    nodes : "groups" or None, default None
        With "groups", a fit without groups is an error: none is lost on its way through a pipeline or a search. With
        None, all rows are then on one node.

    Attributes
    ----------
    coef_ : (d,) float64 array
    intercept_ : float
    n_iter_ : int
        Rounds that made the model.
    history_ : list of dict
        One entry per round: `localgd.run.history.Row`; ``loss`` is the objective.
    certificate_ : SquaresCertificate
        ``distance`` and ``gap`` to the pooled solution, ``status``.
    model_ : Model
        The same as a model to save, for the commands on models and for other programs.

    Examples
    --------
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0]
    >>> reg = LocalGDRegressor(alpha=0.0).fit(X, y, groups=["a", "b", "a", "b"])
    >>> reg.predict([[4.0]]).round(9).tolist(), reg.certificate_.distance < 1e-9
    ([9.0], True)
    """

    alpha: float = 1.0
    _: KW_ONLY
    fit_intercept: bool = True
    tol: float = 0.0
    n_rounds: int = 10_000
    max_mb: float = MOST_MB
    nodes: Literal["groups"] | None = None

    def _fit(self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any) -> None:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=True)
        X, y, held, weights = self._present(X, y, groups, sample_weight)
        rows = with_bias(X, intercept=self.fit_intercept)
        engine = InProcess(
            Samples(name, rows[index], y[index], weights=None if weights is None else weights[index])
            for name, index in held
        )
        problem = LeastSquares(self.alpha, self.fit_intercept)
        check_positive("max_mb", self.max_mb, or_zero=True)
        method = auto(max_mb=self.max_mb, tol=self.tol) if self.max_mb else conjugate_gradients(tol=self.tol)
        run = train(engine, method, problem=problem, n_rounds=self.n_rounds)
        if run.end is not End.DONE:
            warnings.warn(f"{run.end}: {run.certificate.status}", ConvergenceWarning, stacklevel=2)
        self.coef_ = np.array(run.w[: self.n_features_in_])
        self.intercept_ = float(run.w[-1]) if self.fit_intercept else 0.0
        self.n_iter_ = run.n_rounds
        self.history_ = records(run)
        self.certificate_ = run.certificate

    def predict(self, X: Any) -> FloatArray:
        """Return x·coef + intercept for every row."""
        return self._scores(X)
