"""scikit-learn estimators."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack, issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from localgd.certificate import Status, until_angle
from localgd.core import Shard
from localgd.engine.inprocess import InProcess
from localgd.history import Run
from localgd.rounding import FloatArray
from localgd.rules.method import Choice, Method
from localgd.rules.named import method_named
from localgd.rules.probes import Weighting
from localgd.train import train


class LocalGDClassifier(ClassifierMixin, BaseEstimator):
    """Two-class linear classifier, trained over groups of rows that are never pooled, with a certificate.

    By default the pooled max-margin model, ``argmin |w| s.t. y x·w >= 1``, where some plane separates the rows, else
    the minimiser of the logistic loss; with `C` the minimiser of ``½|w|² + C Σ log(1 + exp(−y x·w))``, the same as
    scikit-learn's ``LogisticRegression(C=C)`` on the pooled rows. `certificate_` says how far from it at most. Rows are
    not scaled; angles are in the space of the rows given, the bias column included when fitted and not free of C.

    Parameters
    ----------
    method : str, Method or Choice, default "auto"
        "auto" chooses by the sizes of the data; else the name of a method (`localgd.rules.named.METHODS`), such as
        "local-gd" or "scaffold", or a `localgd.Method` with options of its own, which then brings its own of the below.
    C : float > 0, optional
        Inverse strength of the penalty, as in ``LogisticRegression``; the intercept is free of it.
    local_steps : int, default 100
        Gradient steps per node and round, where the method takes any.
    n_rounds : int, default 500
        Most rounds.
    lr : float, "auto" or "paper", default "auto"
        Step size; "auto" is 1/smoothness, "paper" that over `local_steps`.
    angle_tol_deg : float, optional
        Stop once the model is proved to be within so many degrees of the pooled one.
    fit_intercept : bool, default True
        Append a column of ones.
    weighted_by : "uniform" or "num-examples", default "uniform"
        Weight of a group in the average.
    random_state : int, RandomState or None
        Seed of mini-batches; None draws a fresh one, as everywhere in scikit-learn.

    Attributes
    ----------
    coef_ : (1, d) float64 array
    intercept_ : (1,) float64 array
    classes_ : (2,) array
        The second is the positive side.
    n_iter_ : int
        Rounds that made the model.
    history_ : list of dict
        One entry per round: `localgd.train.Row`.
    certificate_ : Certificate
        ``margin_low``, ``margin_high``, ``angle_deg``, ``separable``, ``status``.

    Examples
    --------
    >>> X = [[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4]]
    >>> clf = LocalGDClassifier(n_rounds=50).fit(X, [1, 1, 0, 0], groups=["a", "b", "a", "b"])
    >>> clf.predict([[3.0, 0.0]]).tolist(), clf.certificate_.separable
    ([1], True)
    """

    def __init__(
        self,
        method: str | Method | Choice = "auto",
        *,
        C: float | None = None,
        local_steps: int = 100,
        n_rounds: int = 500,
        lr: float | Literal["auto", "paper"] = "auto",
        angle_tol_deg: float | None = None,
        fit_intercept: bool = True,
        weighted_by: Weighting = "uniform",
        random_state: int | None = None,
    ) -> None:
        self.method = method
        self.C = C
        self.local_steps = local_steps
        self.n_rounds = n_rounds
        self.lr = lr
        self.angle_tol_deg = angle_tol_deg
        self.fit_intercept = fit_intercept
        self.weighted_by = weighted_by
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Train over the groups.

        Parameters
        ----------
        X : (n, d) array or CSR
            Rows.
        y : (n,) array
            Two classes.
        groups : (n,) array, optional
            Which node holds a row, as in ``GroupKFold``; None puts all rows on one node.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are not exactly two classes, or a value is missing or infinite.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        signs = self._signs(y)
        names = np.zeros(len(signs), dtype=int) if groups is None else np.asarray(groups)
        if names.shape != signs.shape:
            raise ValueError(f"groups has shape {names.shape}, expected one entry for each of the {len(signs)} rows")
        nobody = np.flatnonzero([name is None or name != name for name in names.tolist()])  # noqa: PLR0124  NaN
        if nobody.size:
            raise ValueError(f"groups has no value in row {nobody[0]}; say which node holds it, or remove the row")
        rows: Any = self._augmented(X)
        rows = csr_array(rows.multiply(signs[:, None])) if issparse(X) else rows * signs[:, None]
        engine = InProcess(Shard(str(name), rows[np.flatnonzero(names == name)]) for name in np.unique(names))
        stop = [] if self.angle_tol_deg is None else [until_angle(self.angle_tol_deg)]
        run = train(engine, self._method(), n_rounds=self.n_rounds, stop=stop)
        self._warn(run)
        self.coef_ = np.array(run.w[None, : self.n_features_in_])
        self.intercept_ = np.array(run.w[self.n_features_in_ :]) if self.fit_intercept else np.zeros(1)
        self.n_iter_ = run.n_rounds
        self.history_ = [
            dict(zip(run.columns(), row, strict=True)) for row in zip(*run.columns().values(), strict=True)
        ]
        self.certificate_ = run.certificate
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Return x·coef + intercept for every row; positive means ``classes_[1]``."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_[0] + self.intercept_[0])

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of every row."""
        positive = self.decision_function(X) > 0  # first, as it checks that there is a model
        return np.asarray(self.classes_[positive.astype(int)])

    def _signs(self, y: NDArray[Any]) -> FloatArray:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) > 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {type_of_target(y)}; "
                f"y has {len(self.classes_)} classes. Keep two, or make it one against the rest."
            )
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()[0]!r}: a classifier needs two classes")
        return np.where(y == self.classes_[1], 1.0, -1.0)

    def _warn(self, run: Run) -> None:
        """Warn where the model is not what was asked for: no silent surprise in a pipeline."""
        short = self.angle_tol_deg is not None and run.certificate.verdict is not Status.CERTIFIED
        if short or run.certificate.verdict is Status.DIVERGED or (self.n_rounds > 0 and not run.w.any()):
            warnings.warn(run.certificate.status, ConvergenceWarning, stacklevel=3)

    def _augmented(self, X: Any) -> Any:
        if not self.fit_intercept:
            return X
        ones = np.ones((X.shape[0], 1))
        stack: Any = hstack if issparse(X) else np.hstack
        return stack([X, csr_array(ones) if issparse(X) else ones])

    def _method(self) -> Method | Choice:
        if not isinstance(self.method, str):
            return self.method
        given = {"C": self.C, "local_steps": self.local_steps, "lr": self.lr, "weighted_by": self.weighted_by}
        # a default that the method has no use for is no setting; anything else is refused by name
        defaults = {"C": None, "local_steps": 100, "lr": "auto", "weighted_by": "uniform"}
        options: dict[str, Any] = {name: value for name, value in given.items() if value != defaults[name]}
        if self.C is not None:
            options["intercept"] = self.fit_intercept
        if self.method == "local-sgd":
            options["seed"] = int(check_random_state(self.random_state).randint(2**31 - 1))
        return method_named(self.method, **options)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.sparse = True
        return tags
