"""scikit-learn estimators."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack, issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from localgd.core import End, Problem
from localgd.data.classes import signed
from localgd.data.groups import blocks, node_names, refuse_masked
from localgd.data.model import Model
from localgd.data.probabilities import Probabilities, none_there
from localgd.engine.inprocess import InProcess
from localgd.errors import check_flag, check_kind, check_positive
from localgd.evaluation.calibrate import calibrate, kept_aside
from localgd.methods.auto import auto
from localgd.methods.averaging import LocalSteps, StepSize, Weights
from localgd.methods.method import Choice, Method
from localgd.methods.options import BY_NAME
from localgd.methods.squares import conjugate_gradients
from localgd.methods.table import asked
from localgd.problems.certificate import Status
from localgd.problems.least_squares import LeastSquares
from localgd.problems.regularised import Regularised
from localgd.problems.triangle import MOST_MB
from localgd.rounding import FloatArray
from localgd.rows import Samples
from localgd.run.goals import Angle
from localgd.run.history import Run
from localgd.run.loop import train


class _Linear(BaseEstimator):
    """What a linear model over groups of dense or sparse rows does, whatever it is fitted to."""

    fit_intercept: bool
    nodes: Literal["groups"] | None

    def fit(
        self, X: Any, y: Any, groups: ArrayLike | None = None, sample_weight: ArrayLike | float | None = None
    ) -> Self:
        """Fit over the groups.

        Parameters
        ----------
        X : (n, d) array or CSR
            Rows.
        y : (n,) array
            Labels of two classes or more; of a regressor real targets.
        groups : (n,) array, optional
            Which node holds a row, as in ``GroupKFold``: texts, numbers or truth values, none missing. None puts all
            rows on one node, or is an error with ``nodes="groups"``. ``GridSearchCV(…).fit(X, y, groups=g)`` and
            ``cross_val_score`` keep groups for their splitter, unless they are asked to hand them on, by
            ``sklearn.set_config(enable_metadata_routing=True)`` and `set_fit_request` of this estimator, with
            ``groups=True``.
        sample_weight : (n,) array or float, optional
            What a row counts, at least 0; 1 by default. A row of weight 2 is two of weight 1; those of weight 0, and
            nodes without another, are left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is one class only, a value is missing or infinite, or a parameter is out of its range.
        """
        check_flag("fit_intercept", self.fit_intercept)
        for what, values in (("X", X), ("y", y)):
            refuse_masked(what, values)
        self._fit(X, y, groups, sample_weight)
        return self

    def _present(
        self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any
    ) -> tuple[Any, Any, list[tuple[str, NDArray[np.intp]]], FloatArray | None]:
        """Return what there is of rows that count, the nodes that hold them, and how much each does."""
        if self.nodes not in (None, "groups"):
            raise ValueError(f"nodes must be None or 'groups', got {self.nodes!r}")
        if groups is None and self.nodes == "groups":
            raise ValueError(
                "nodes='groups', but fit got no groups, so all rows would be on one node; give fit(X, y, groups=…). "
                "Cross-validation hands them on after sklearn.set_config(enable_metadata_routing=True) and "
                "set_fit_request(groups=True)"
            )
        names = np.full(X.shape[0], "0") if groups is None else node_names(groups, X.shape[0])
        if sample_weight is None:
            return X, y, blocks(names), None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        there = weights > 0
        return X[there], y[there], blocks(names[there]), weights[there]

    def _scores(self, X: Any) -> FloatArray:
        """Return X·coef + intercept."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _has_probabilities(classifier: LocalGDClassifier) -> bool:
    """Return whether scores mean probabilities; an AttributeError, as scikit-learn wants it, says what to do if not."""
    minimises = classifier.C is not None or isinstance(getattr(classifier.method, "problem", None), Regularised)
    to_be = Probabilities() if minimises or classifier.calibration else None
    if getattr(classifier, "probabilities_", to_be) is None:
        raise AttributeError(none_there("give C, LocalGDClassifier(C=1.0), or calibration='sigmoid'"))
    return True


@dataclass(eq=False, repr=False)
class LocalGDClassifier(ClassifierMixin, _Linear):
    """Linear classifier, trained over groups of rows that are never pooled, with a certificate.

    By default the pooled max-margin model, ``argmin |w| s.t. y x·w >= 1``, where some plane separates the rows, else
    the minimiser of the logistic loss; with `C` the minimiser of ``½|w|² + C Σ log(1 + exp(−y x·w))``, the same as
    scikit-learn's ``LogisticRegression(C=C)`` on the pooled rows. For three or more classes the margins are
    ``(w_y − w_c)·x``, c ≠ y, and the loss ``log(1 + Σ_c exp(−(w_y − w_c)·x))``. `certificate_` says how far from it at
    most. Rows are not scaled; angles are in the space of the rows given, the bias column included when fitted and not
    free of C.

    Parameters
    ----------
    method : str, Method or Choice, default "auto"
        "auto" chooses by the sizes of the data; else the name of a method (`localgd.methods.table.METHODS`), such as
        "local-gd" or "scaffold", or a `localgd.Method` with options of its own, which then brings its own of the below.
    C : float > 0, optional
        Inverse strength of the penalty, as in ``LogisticRegression``; the intercept is free of it.
    local_steps : int or mapping from group to int, default 100
        Gradient steps per node and round, where the method takes any. A mapping names every group, as a text.
    n_rounds : int, default 500
        Most rounds.
    lr : float, "auto", "paper" or mapping from group to float, default "auto"
        Step size; "auto" is 1/smoothness, "paper" that over `local_steps`.
    angle_tol_deg : float, optional
        Stop once the model is proved to be within so many degrees of the pooled one.
    fit_intercept : bool, default True
        Append a column of ones.
    weighted_by : "uniform", "num-examples" or mapping from group to float, optional
        Weight of a group in the average; default is all alike, or by rows with `C`.
    lr_schedule : str, optional
        How the step size goes down from round to round, as "cosine:500": see `localgd.local_gd`.
    compress : str, optional
        How updates travel: "int8", "int4", "sign" or "topk:0.05"; see `localgd.Method.compressed`.
    late : bool, optional
        Hand out the late direction, or the model; default is the method's own.
    random_state : int, RandomState or None
        Seed of mini-batches; None draws a fresh one, as everywhere in scikit-learn.
    multi_class : "softmax" or "ovr", default "softmax"
        For three or more classes: one model of all of them, or each class against the rest, C models apart. Two classes
        are the same either way.
    nodes : "groups" or None, default None
        With "groups", a fit without groups is an error: none is lost on its way through a pipeline or a search. With
        None, all rows are then on one node.
    calibration : "sigmoid", optional
        Train on four fifths of the rows of each class and group, and fit the probabilities to the scores of the others,
        as `localgd.calibrate` does: for models that have none, and those whose are too sure.

    Attributes
    ----------
    coef_ : (1, d) float64 array, (C, d) for C >= 3 classes
    intercept_ : (1,) float64 array, (C,) for C >= 3 classes
    classes_ : (C,) array
        Of two, the second is the positive side.
    n_iter_ : int
        Rounds that made the model; the most of any class under "ovr".
    history_ : list of dict
        One entry per round: `localgd.run.history.Row`. For three or more classes under "ovr" a list of such lists, one
        per class.
    certificate_ : Certificate
        ``margin_low``, ``margin_high``, ``angle_deg_max``, ``separable``, ``status``. For three or more classes under
        "ovr" a list, one per class; under "softmax" it is about all of (W_1 … W_C) at once.
    probabilities_ : Probabilities or None
        How scores become probabilities; None for a max-margin model, which has none.

    Examples
    --------
    >>> X = [[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4]]
    >>> clf = LocalGDClassifier(n_rounds=50).fit(X, [1, 1, 0, 0], groups=["a", "b", "a", "b"])
    >>> clf.predict([[3.0, 0.0]]).tolist(), clf.certificate_.separable
    ([1], True)
    """

    method: str | Method | Choice = "auto"
    _: KW_ONLY
    C: float | None = None
    local_steps: LocalSteps = 100
    n_rounds: int = 500
    lr: StepSize = "auto"
    angle_tol_deg: float | None = None
    fit_intercept: bool = True
    weighted_by: Weights = None
    lr_schedule: str | None = None
    compress: str | None = None
    late: bool | None = None
    random_state: int | None = None
    multi_class: Literal["softmax", "ovr"] = "softmax"
    nodes: Literal["groups"] | None = None
    calibration: Literal["sigmoid"] | None = None

    def _fit(self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any) -> None:
        if self.multi_class not in ("softmax", "ovr"):
            raise ValueError(f"multi_class must be 'softmax' or 'ovr', got {self.multi_class!r}")
        if self.calibration not in (None, "sigmoid"):
            raise ValueError(f"calibration must be 'sigmoid' or None, got {self.calibration!r}")
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        X, y, held, weights = self._present(X, y, groups, sample_weight)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()[0]!r}: a classifier needs two classes")
        rows, how = _with_bias(X, intercept=self.fit_intercept), self._how()
        n_classes = len(self.classes_)
        apart = self.multi_class == "ovr" and n_classes > 2
        aside = np.zeros(len(codes), dtype=bool)
        if self.calibration:
            aside = kept_aside([index for _, index in held], codes, check_random_state(self.random_state))
        own = [(name, index[~aside[index]]) for name, index in held]
        if apart:
            ones = [(codes == one).astype(int) for one in range(n_classes)]
            runs = [self._run(_engine(rows, own, one, 2, weights), how) for one in ones]
        else:
            runs = [self._run(_engine(rows, own, codes, n_classes, weights), how)]
        w = np.concatenate([run.w for run in runs]).reshape(1 if n_classes == 2 else n_classes, -1)
        self.coef_ = np.array(w[:, : self.n_features_in_])
        self.intercept_ = np.array(w[:, self.n_features_in_]) if self.fit_intercept else np.zeros(len(w))
        self.n_iter_ = max(run.n_rounds for run in runs)
        histories, certificates = [_records(run) for run in runs], [run.certificate for run in runs]
        self.history_ = histories if apart else histories[0]
        self.certificate_ = certificates if apart else certificates[0]
        self.probabilities_ = None if None in (of := [run.probabilities for run in runs]) else of[0]
        if apart and self.probabilities_ is not None:
            self.probabilities_ = Probabilities((1.0,) * n_classes, (0.0,) * n_classes)
        if self.calibration:
            others = [(name, found) for name, index in held if (found := index[aside[index]]).size]
            coef, intercept = (self.coef_, self.intercept_) if n_classes > 2 else (self.coef_[0], self.intercept_[0])
            model = Model(coef, intercept, tuple(self.classes_.tolist()))
            engine = _engine(_with_bias(X, intercept=True), others, codes, n_classes, weights)
            self.probabilities_ = calibrate(model, engine).probabilities

    def decision_function(self, X: Any) -> FloatArray:
        """Return x·coef + intercept for every row; positive means ``classes_[1]``.

        For three or more classes (n, C), one column per class: the largest is the label. With `calibration` the
        log-odds, slope·(x·coef + intercept) + offset.
        """
        scores = self._scores(X)  # first, as it checks that there is a model
        likely = self.probabilities_ or Probabilities()
        return likely.log_odds(scores if scores.shape[1] > 1 else scores.ravel())

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of every row."""
        scores = self.decision_function(X)  # first, as it checks that there is a model
        return np.asarray(self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)])

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class for every row, (n, C): those of ``LogisticRegression`` for its coef_.

        There are none for a max-margin model, whose scores are no log-odds: give `C`.
        """
        return np.asarray(np.exp(self.predict_log_proba(X)))

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithms of `predict_proba`, also where those are too small for float64."""
        scores = self._scores(X)  # first, as it checks that there is a model
        likely = self.probabilities_ or Probabilities()
        return likely.log_of(scores if scores.shape[1] > 1 else scores.ravel())

    def _run(self, engine: InProcess, how: tuple[Method | Choice, Problem | None]) -> Run:
        """Train one model, one node per name; warn where it is not what was asked for: no surprise in a pipeline."""
        goal = () if self.angle_tol_deg is None else Angle(self.angle_tol_deg)
        method, problem = how
        run = train(engine, method, problem=problem, n_rounds=self.n_rounds, goal=goal)
        short = self.angle_tol_deg is not None and not Angle(self.angle_tol_deg).met(run.certificate)
        to_prove = run.method.exact and run.method.problem.certified
        open_end = to_prove and run.certificate.verdict in (Status.UNDECIDED, Status.FINITE, Status.CANCELS)
        lost = run.certificate.verdict is Status.DIVERGED or (self.n_rounds > 0 and not run.w.any())
        if short or open_end or lost:
            warnings.warn(run.certificate.status, ConvergenceWarning, stacklevel=3)
        return run

    def _how(self) -> tuple[Method | Choice, Problem | None]:
        """Return method and problem; a setting that has no meaning for the method is refused by name."""
        # a default that the method has no use for is no setting
        defaults = {field.name: field.default for field in fields(self)}
        given = {name: getattr(self, name) for name in defaults if name in BY_NAME}
        options: dict[str, Any] = {name: value for name, value in given.items() if value != defaults[name]}
        if not isinstance(self.method, str):
            check_kind("method", self.method, Method | Choice, "the name of a method, or a Method such as local_gd()")
            if options:
                raise ValueError(f"{min(options)} is a setting of the method: give it to {self.method.name} itself")
            return self.method, None if self.C is None else Regularised(C=self.C, intercept=self.fit_intercept)
        try:
            rng = check_random_state(self.random_state)
        except (TypeError, ValueError) as error:
            wanted = "a whole number from 0 to 4294967295, a RandomState or None"
            raise ValueError(f"random_state must be {wanted}, got {self.random_state!r}") from error
        if self.method == "local-sgd":
            options["seed"] = int(rng.randint(2**31 - 1))
        return asked(self.method, C=self.C, intercept=self.fit_intercept, **options)


@dataclass(eq=False, repr=False)
class LocalGDRegressor(RegressorMixin, _Linear):
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
        rows = _with_bias(X, intercept=self.fit_intercept)
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
        self.history_ = _records(run)
        self.certificate_ = run.certificate

    def predict(self, X: Any) -> FloatArray:
        """Return x·coef + intercept for every row."""
        return self._scores(X)


def _with_bias(X: Any, *, intercept: bool) -> Any:
    """Return the rows, with a column of ones if there is an intercept."""
    parts: list[Any] = [X, np.ones((X.shape[0], int(intercept)))]
    return csr_array(hstack(parts)) if issparse(X) else np.hstack(parts)


def _engine(
    rows: Any,
    held: list[tuple[str, NDArray[np.intp]]],
    codes: NDArray[np.intp],
    n_classes: int,
    weights: FloatArray | None,
) -> InProcess:
    """Return a federation of signed rows, one node per name."""
    return InProcess(
        signed(name, rows[index], codes[index], n_classes, None if weights is None else weights[index])
        for name, index in held
    )


def _records(run: Run) -> list[dict[str, Any]]:
    """Return the history, one dict per round."""
    columns = run.columns()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
