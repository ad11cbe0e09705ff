"""A linear regression over groups of rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from localgd.engine.inprocess import InProcess
from localgd.errors import check_positive
from localgd.estimators.linear import FLOATS, Linear, records, with_bias
from localgd.methods.auto import auto
from localgd.methods.squares import conjugate_gradients
from localgd.problems.certificate import Status
from localgd.problems.least_squares import LeastSquares
from localgd.problems.triangle import MOST_MB
from localgd.rounding import TINY, FloatArray, norm
from localgd.rows import Samples
from localgd.rules.server import End
from localgd.run.history import Run
from localgd.run.loop import train

LOW = 1e-8
"""An objective that is proved to be so near to its least, in squares of the targets, is that of the pooled model."""

UNDERFLOW = 2.0**10 * TINY
"""What bounds on squares have for underflow, however small those are."""


@dataclass(eq=False, repr=False)
class LocalGDRegressor(RegressorMixin, Linear):
    """Ridge regression, or least squares, over groups of rows that are never pooled, with a certificate.

    The minimiser of ``|y − Xw − b|² + alpha |w|²``, the same as scikit-learn's ``Ridge(alpha)`` on the pooled rows;
    with ``alpha=0`` that of ``LinearRegression()``, the one of least norm where there are many. `certificate_` says how
    far from it at most. See `localgd.LeastSquares`. Targets of several columns are as many models, each with rounds and
    a certificate of its own.

    Parameters
    ----------
    alpha : float, 0 to 1e100, or one for each target, default 1.0
        Strength of the penalty, as in ``Ridge``; the intercept is free of it.
    fit_intercept : bool, default True
        Append a column of ones.
    positive : bool, default False
        Of all models without a coefficient below 0, the intercept apart, as in ``Ridge``: it takes XᵀX.
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
    coef_ : (d,) array, (k, d) for targets of shape (n, k)
        Of the dtype of the rows, float64 or float32.
    intercept_ : float, or (k,) array
    n_iter_ : int
        Rounds that made the model; of several the most.
    history_ : list of dict
        One entry per round: `localgd.run.history.Row`; ``loss`` is the objective. For targets of shape (n, k) a list of
        such lists.
    certificate_ : SquaresCertificate
        Of `coef_` and `intercept_` as they are: ``distance`` and ``gap`` to the pooled solution, ``status``. For
        targets of shape (n, k) a list.
    model_ : Model
        The same as a model to save, for the commands on models and for other programs; of one target.

    Examples
    --------
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0]
    >>> reg = LocalGDRegressor(alpha=0.0).fit(X, y, groups=["a", "b", "a", "b"])
    >>> reg.predict([[4.0]]).round(9).tolist(), reg.certificate_.distance < 1e-9
    ([9.0], True)
    """

    alpha: float | Sequence[float] = 1.0
    _: KW_ONLY
    fit_intercept: bool = True
    positive: bool = False
    tol: float = 0.0
    n_rounds: int = 10_000
    max_mb: float = MOST_MB
    nodes: Literal["groups"] | None = None

    def _fit(self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any) -> None:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=FLOATS, y_numeric=True, multi_output=True)
        X, y, held, weights = self._present(X, y, groups, sample_weight)
        rows, several = with_bias(X, intercept=self.fit_intercept), np.ndim(y) == 2
        check_positive("max_mb", self.max_mb, or_zero=True)
        method = auto(max_mb=self.max_mb, tol=self.tol) if self.max_mb else conjugate_gradients(tol=self.tol)
        targets, runs = y.T if several else [y], list[Run]()
        alphas: list[Any] = [self.alpha] * len(targets) if np.ndim(self.alpha) == 0 else list(np.asarray(self.alpha))
        if len(alphas) != len(targets):
            raise ValueError(f"alpha must be a number, or one for each target, got {len(alphas)} for {len(targets)}")

        def so_far(w: FloatArray) -> dict[str, Any]:
            to_come = [np.zeros(w.size)] * (len(targets) - len(runs) - 1)
            return self._shaped([*(run.w for run in runs), w, *to_come], several=several)

        for target, alpha in zip(targets, alphas, strict=True):
            engine = InProcess(
                Samples(name, rows[index], target[index], weights=None if weights is None else weights[index])
                for name, index in held
            )
            problem, on_round = LeastSquares(alpha, self.fit_intercept, self.positive), self._on_round(so_far)
            run = train(engine, method, problem=problem, n_rounds=self.n_rounds, on_round=on_round)
            runs.append(self._handed_out(run, engine, X.dtype))
        for run, target in zip(runs, targets, strict=True):
            if not _as_asked(run, target if weights is None else np.sqrt(weights) * target):
                ended = "" if run.end is End.DONE else f"{run.end}: "
                warnings.warn(f"{ended}{run.certificate.status}", ConvergenceWarning, stacklevel=4)
        self.__dict__.update(self._shaped([run.w for run in runs], X.dtype, several=several))
        self.n_iter_ = max(run.n_rounds for run in runs)
        histories, certificates = [records(run) for run in runs], [run.certificate for run in runs]
        self.history_ = histories if several else histories[0]
        self.certificate_ = certificates if several else certificates[0]

    def _shaped(self, models: list[FloatArray], dtype: Any = np.float64, *, several: bool) -> dict[str, Any]:
        """Return models, one for each target, the bias last if there is one, as attributes."""
        each = np.array(models).astype(dtype)
        bias = each[:, -1].copy() if self.fit_intercept else np.zeros(len(each), dtype)
        coef = each[:, : self.n_features_in_].copy()
        return {"coef_": coef, "intercept_": bias} if several else {"coef_": coef[0], "intercept_": bias[0]}

    def predict(self, X: Any) -> FloatArray:
        """Return x·coef + intercept for every row, (n,), or (n, k) for targets of that shape."""
        return self._scores(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _as_asked(run: Run, targets: FloatArray) -> bool:
    """Return whether the model is proved to be what was asked for."""
    low = LOW * norm(targets) ** 2 + UNDERFLOW
    return run.end is End.DONE and (run.certificate.verdict is Status.CERTIFIED or run.certificate.gap <= low)
