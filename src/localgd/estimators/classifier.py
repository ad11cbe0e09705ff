"""A linear classifier over groups of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from localgd.core import Problem
from localgd.data.coding import ClassWeight
from localgd.data.model import Model
from localgd.data.probabilities import Probabilities
from localgd.duals.dual import Dual
from localgd.engine.inprocess import InProcess
from localgd.errors import check_flag, check_kind
from localgd.estimators.linear import Classifier, engine_of, marks, reached, records, with_bias
from localgd.evaluation.calibrate import calibrate, kept_aside
from localgd.losses import loss_named
from localgd.methods.auto import OrMinimiser
from localgd.methods.averaging import LocalSteps, StepSize, Weights
from localgd.methods.method import Choice, Method
from localgd.methods.options import BY_NAME
from localgd.methods.table import asked
from localgd.problems.certificate import Status
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray
from localgd.run.goals import Angle
from localgd.run.history import RoundInfo, Run
from localgd.run.loop import train

SEPARATING = ("consensus", "interior-point", "modified-local-gd")
"""Methods that come to nothing where no plane separates the rows: then the minimiser of the loss is looked for."""

Known: TypeAlias = tuple[dict[str, str], Dual | None]
"""What tells the rows of a model from any others, and the model with what is proved of it by them."""

UNKNOWN: Known = ({}, None)


@dataclass(eq=False, repr=False)
class LocalGDClassifier(Classifier):
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
        A method by its name that needs separable rows gives way to the minimiser of the loss, as "auto" does.
    C : float > 0, optional
        Inverse strength of the penalty, as in ``LogisticRegression``; the intercept is free of it.
    loss : "logistic", "squared_hinge" or "exponential", optional
        What is summed over the rows; default is logistic. With `C` squared hinge is the model of ``LinearSVC(C=C)``:
        with ``fit_intercept=False``, or with a large ``intercept_scaling``, as the intercept here is free of the
        penalty. It is for two classes, or for more with ``multi_class="ovr"``, and has no probabilities of its own.
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
    warm_start : bool, default False
        Begin the next fit at `coef_` and `intercept_`, for a method that can begin anywhere: with `C`, or one that
        averages. What is proved of the last model counts again only where the rows are the same.
    class_weight : "balanced" or mapping from class to float, optional
        What a row counts by its class, beside its `sample_weight`, as in scikit-learn: Σ n/(C n_c) if balanced, n_c the
        rows of the class, each by its weight; a class that is not named counts 1. Under "ovr", too, a row counts what
        its own class does. A max-margin model knows no weights.
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
    coef_ : (1, d) array, (C, d) for C >= 3 classes
        Of the dtype of the rows, float64 or float32.
    intercept_ : (1,) array, (C,) for C >= 3 classes
        Likewise.
    classes_ : (C,) array
        Of two, the second is the positive side.
    n_iter_ : int
        Rounds that made the model; the most of any class under "ovr".
    history_ : list of dict
        One entry per round: `localgd.run.history.Row`. For three or more classes under "ovr" a list of such lists, one
        per class.
    certificate_ : Certificate
        Of `coef_` and `intercept_` as they are: ``margin_low``, ``margin_high``, ``angle_deg_max``, ``separable``,
        ``status``. For three or more classes under
        "ovr" a list, one per class; under "softmax" it is about all of (W_1 … W_C) at once.
    probabilities_ : Probabilities or None
        How scores become probabilities; None for a max-margin model, which has none.
    model_ : Model
        The same as a model to save, for the commands on models and for other programs.

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
    loss: Literal["logistic", "squared_hinge", "exponential"] | None = None
    local_steps: LocalSteps = 100
    n_rounds: int = 500
    lr: StepSize = "auto"
    angle_tol_deg: float | None = None
    fit_intercept: bool = True
    weighted_by: Weights = None
    lr_schedule: str | None = None
    compress: str | None = None
    late: bool | None = None
    warm_start: bool = False
    class_weight: ClassWeight | None = None
    random_state: int | None = None
    multi_class: Literal["softmax", "ovr"] = "softmax"
    nodes: Literal["groups"] | None = None
    calibration: Literal["sigmoid"] | None = None

    def _fit(self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any) -> None:
        if self.multi_class not in ("softmax", "ovr"):
            raise ValueError(f"multi_class must be 'softmax' or 'ovr', got {self.multi_class!r}")
        if self.calibration not in (None, "sigmoid"):
            raise ValueError(f"calibration must be 'sigmoid' or None, got {self.calibration!r}")
        check_flag("warm_start", self.warm_start)
        last = self._last() if self.warm_start else None
        X, codes, held, weights = self._codes(X, y, groups, sample_weight)
        rows, how = with_bias(X, intercept=self.fit_intercept), self._how()
        n_classes = len(self.classes_)
        apart = self.multi_class == "ovr" and n_classes > 2
        aside = np.zeros(len(codes), dtype=bool)
        if self.calibration:
            aside = kept_aside([index for _, index in held], codes, check_random_state(self.random_state))
        own = [(name, index[~aside[index]]) for name, index in held]
        counting = self._by_class(codes, own, weights)
        targets = [(codes == one).astype(int) for one in range(n_classes)] if apart else [codes]
        trained, runs, ends = list[Run](), list[Run](), list[Known]()
        for target, start in zip(targets, self._starts(last, how, len(targets)), strict=True):
            engine = engine_of(rows, own, target, 2 if apart else n_classes, counting)
            on_round = self._on_round(self._so_far(trained, len(targets)))
            trained.append(self._run(engine, how, start, on_round))
            runs.append(self._handed_out(trained[-1], engine, X.dtype))
            ends.append((marks(engine), trained[-1].dual) if self.warm_start else UNKNOWN)
            del engine  # of each class against the rest there are signed rows, as many as all
        self._ends = ends
        self.__dict__.update(self._shaped(np.concatenate([run.w for run in runs]), X.dtype))
        self.n_iter_ = max(run.n_rounds for run in runs)
        histories, certificates = [records(run) for run in runs], [run.certificate for run in runs]
        self.history_ = histories if apart else histories[0]
        self.certificate_ = certificates if apart else certificates[0]
        self.probabilities_ = None if None in (of := [run.probabilities for run in runs]) else of[0]
        if apart and self.probabilities_ is not None:
            self.probabilities_ = Probabilities((1.0,) * n_classes, (0.0,) * n_classes)
        if self.calibration:
            others = [(name, found) for name, index in held if (found := index[aside[index]]).size]
            coef, intercept = self.coef_.astype(np.float64), self.intercept_.astype(np.float64)
            coef, intercept = (coef, intercept) if n_classes > 2 else (coef[0], intercept[0])
            model = Model(coef, intercept, tuple(self.classes_.tolist()))
            engine = engine_of(with_bias(X, intercept=True), others, codes, n_classes, weights)
            self.probabilities_ = calibrate(model, engine).probabilities
        for run in runs:
            if not self._as_asked(run):
                warnings.warn(run.certificate.status, ConvergenceWarning, stacklevel=4)

    def _meant(self) -> Probabilities | None:
        problem = getattr(self.method, "problem", None)
        minimises = self.C is not None or isinstance(problem, Regularised)
        odds = minimises and self.loss in (None, "logistic")
        return Probabilities() if odds or self.calibration else None

    def _last(self) -> tuple[FloatArray, list[Any]] | None:
        """Return the model of the last fit, one vector per run, and its classes; None if there was none."""
        if not hasattr(self, "coef_"):
            return None
        bias = self.intercept_[:, None][:, : int(self.fit_intercept)]
        return np.hstack([self.coef_, bias]).astype(np.float64), self.classes_.tolist()

    def _starts(
        self,
        last: tuple[FloatArray, list[Any]] | None,
        how: tuple[Method | Choice, Problem | None],
        n_runs: int,
    ) -> list[tuple[FloatArray | None, Known]]:
        """Return where each run begins: None for 0, else at the last model, with what is proved of it by its rows."""
        method, problem = how
        anywhere = isinstance(method.problem if problem is None else problem, Regularised)
        if self.warm_start and not anywhere and (isinstance(method, Choice) or method.exact):
            raise ValueError(
                f"warm_start=True has no meaning for {method.name} and the max-margin model, which is not looked for "
                "from a start; give C, or a method that averages, such as local-gd"
            )
        if last is None:
            return [(None, UNKNOWN)] * n_runs
        each, classes = last
        n_rows = 1 if len(self.classes_) == 2 else len(self.classes_)
        if classes != self.classes_.tolist() or each.shape != (n_rows, self.n_features_in_ + self.fit_intercept):
            raise ValueError(
                f"warm_start=True, but the last model is for {each.shape[1] - self.fit_intercept} columns and classes "
                f"{classes}, these rows have {self.n_features_in_} and {self.classes_.tolist()}; give warm_start=False"
            )
        vectors = [each.ravel()] if n_runs == 1 else list(each)
        return list(zip(vectors, self._ends if len(self._ends) == n_runs else [UNKNOWN] * n_runs, strict=True))

    def _so_far(self, runs: list[Run], n_runs: int) -> Callable[[FloatArray], dict[str, Any]]:
        """Return what makes attributes of the model of a run, after others that are done and before those to come."""

        def shaped(w: FloatArray) -> dict[str, Any]:
            to_come = [np.zeros(w.size)] * (n_runs - len(runs) - 1)
            return {**self._shaped(np.concatenate([*(run.w for run in runs), w, *to_come])), "probabilities_": None}

        return shaped

    def _run(
        self,
        engine: InProcess,
        how: tuple[Method | Choice, Problem | None],
        start: tuple[FloatArray | None, Known],
        on_round: Callable[[RoundInfo], bool] | None,
    ) -> Run:
        """Train one model, one node per name; what is proved of the start counts if it is about these rows."""
        goal = () if self.angle_tol_deg is None else Angle(self.angle_tol_deg)
        (method, problem), (w, (seen, dual)) = how, start
        same = w is not None and dual is not None and np.array_equal(dual.vector, w) and seen == marks(engine)
        w0 = dual if same else w
        return train(engine, method, problem=problem, n_rounds=self.n_rounds, goal=goal, w0=w0, on_round=on_round)

    def _as_asked(self, run: Run) -> bool:
        """Return whether the model is proved to be what was asked for; of methods that only come near, if it is one."""
        if self.angle_tol_deg is not None:
            return Angle(self.angle_tol_deg).met(run.certificate)
        if run.method.exact and run.method.problem.certified:
            return reached(run)
        return run.certificate.verdict is not Status.DIVERGED and (self.n_rounds == 0 or bool(run.w.any()))

    def _how(self) -> tuple[Method | Choice, Problem | None]:
        """Return method and problem; a setting that has no meaning for the method is refused by name."""
        # a default that the method has no use for is no setting
        defaults = {field.name: field.default for field in fields(self)}
        given = {name: getattr(self, name) for name in defaults if name in BY_NAME}
        options: dict[str, Any] = {name: value for name, value in given.items() if value != defaults[name]}
        if not isinstance(self.method, str):
            check_kind("method", self.method, Method | Choice, "the name of a method, or a Method such as local_gd()")
            loss = "logistic" if self.C is None else options.pop("loss", "logistic")
            if options:
                raise ValueError(f"{min(options)} is a setting of the method: give it to {self.method.name} itself")
            return self.method, None if self.C is None else Regularised(loss_named(loss), self.C, self.fit_intercept)
        try:
            rng = check_random_state(self.random_state)
        except (TypeError, ValueError) as error:
            wanted = "a whole number from 0 to 4294967295, a RandomState or None"
            raise ValueError(f"random_state must be {wanted}, got {self.random_state!r}") from error
        if self.method == "local-sgd":
            options["seed"] = int(rng.randint(2**31 - 1))
        method, problem = asked(self.method, C=self.C, intercept=self.fit_intercept, **options)
        if isinstance(method, Method) and method.name in SEPARATING and self.C is None:
            return OrMinimiser(method), problem
        return method, problem
