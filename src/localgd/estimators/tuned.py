"""A classifier that chooses its C by cross-validation, all folds in the same rounds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import LeaveOneGroupOut, check_cv

from localgd.data.classes import signed
from localgd.data.coding import ClassWeight
from localgd.engine.inprocess import InProcess
from localgd.errors import check_kind
from localgd.estimators.linear import Classifier, reached, records, with_bias
from localgd.evaluation.names import Scoring
from localgd.methods.method import Choice, Method
from localgd.methods.table import asked
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.run.tune import LEAVE_ONE_OUT, ascending, cross_validated


@dataclass(eq=False, repr=False)
class LocalGDClassifierCV(Classifier):
    """Linear classifier with a penalty whose C is chosen by cross-validation over rows that are never pooled.

    For every fold and every C the minimiser of ``½|w|² + C Σ log(1 + exp(−y x·w))`` on the rows of the other folds, as
    scikit-learn's ``LogisticRegressionCV`` finds it on the pooled rows, and its score on those of the fold. All folds
    share their rounds, and every C starts from the model of the one before.

    Parameters
    ----------
    Cs : int or sequence of float > 0, default 10
        Values of C; a number is so many from 1e-4 to 1e4, in equal ratios.
    cv : int, "leave-one-node-out", splitter or iterable, default 5
        Folds, as in scikit-learn: a number is so many stratified ones. "leave-one-node-out" holds out a group each.
    scoring : str, default "accuracy"
        What a model is judged by on the rows held out, by its name in scikit-learn: "accuracy", "balanced_accuracy",
        "f1" (of two classes, the second one), "f1_macro", "neg_log_loss", "roc_auc" (of two), "roc_auc_ovr". An area
        takes more rounds: some three for each C.
    method : str, Method or Choice, default "auto"
        One that ends at the minimiser, such as "newton" or "lbfgs".
    fit_intercept : bool, default True
        Append a column of ones, free of C.
    class_weight : "balanced" or mapping from class to float, optional
        What a row counts in training by its class: see `localgd.LocalGDClassifier`. Balanced is by all rows, those held
        out included; scores know nothing of it, as in ``LogisticRegressionCV``.
    nodes : "groups" or None, default None
        With "groups", a fit without groups is an error; with None, all rows are then on one node.

    Attributes
    ----------
    C_ : float
        That of the best mean score; of several the least.
    Cs_ : (n,) float64 array
        All of them, ascending.
    scores_ : (folds, n) float64 array
        NaN for a fold whose rows lack a class, where the score has no meaning then.
    coefs_paths_ : (folds, n, classes, d + 1) float64 array
        The models of the folds, the intercept last, if there is one; one class for two.
    n_rounds_ : int
        Rounds that all of it took.
    coef_, intercept_, classes_, history_, certificate_, n_iter_
        Of the model of all rows with `C_`: see `localgd.LocalGDClassifier`.

    Examples
    --------
    >>> X = [[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4], [0.5, 1.0], [-0.3, 0.8]]
    >>> clf = LocalGDClassifierCV(Cs=3, cv=2).fit(X, [1, 1, 0, 0, 1, 0], groups=["a", "b", "a", "b", "a", "b"])
    >>> clf.C_, clf.scores_.shape
    (10000.0, (2, 3))
    """

    Cs: int | Sequence[float] = 10
    _: KW_ONLY
    cv: Any = 5
    scoring: Scoring = "accuracy"
    method: str | Method | Choice = "auto"
    fit_intercept: bool = True
    class_weight: ClassWeight | None = None
    nodes: Literal["groups"] | None = None

    def _fit(self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any) -> None:
        X, codes, held, weights = self._codes(X, y, groups, sample_weight)
        rows, judged = (with_bias(X, intercept=intercept) for intercept in (self.fit_intercept, True))
        places, n_classes = dict(held), len(self.classes_)
        given = np.asarray(1.0 if sample_weight is None else sample_weight, dtype=np.float64)
        there = given > 0 if given.ndim else None
        folds = self._folds(X, self.classes_[codes], held, there)
        self.Cs_ = ascending(self.Cs)
        method = self.method
        if isinstance(method, str):
            method = asked(method, C=1.0, intercept=self.fit_intercept)[0]
        check_kind("method", method, Method | Choice, "the name of a method, or a Method such as newton()")

        counting = self._by_class(codes, held, weights)

        def shard(node_id: str, index: NDArray[np.intp], of: Any, weights: FloatArray | None) -> Shard | None:
            own = None if weights is None else weights[index]
            return signed(node_id, of[index], codes[index], n_classes, own) if index.size else None

        def split(whole: Shard) -> list[tuple[Shard | None, Shard | None]]:
            own, name = places[whole.node_id], whole.node_id
            return [
                (shard(name, own[inside[own]], rows, counting), shard(name, own[outside[own]], judged, weights))
                for inside, outside in folds
            ]

        engine = InProcess([shard(name, index, rows, counting) for name, index in held])
        found = cross_validated(
            engine,
            split,
            len(folds),
            Cs=self.Cs_,
            intercept=self.fit_intercept,
            method=method,
            scoring=self.scoring,
        )
        if n_without := len(found.scores) - len(found.told):
            warnings.warn(
                f"scoring={self.scoring!r} has no meaning on {n_without} of {len(folds)} folds, whose held-out rows "
                "lack a class: the mean is that of the others",
                stacklevel=3,
            )
        run, shape = self._handed_out(found.runs[found.best], engine, X.dtype), (1 if n_classes == 2 else n_classes, -1)
        self.__dict__.update(self._shaped(run.w, X.dtype))
        self.C_, self.scores_, self.n_rounds_ = float(self.Cs_[found.best]), found.scores, found.n_rounds
        self.coefs_paths_ = np.array([[run.w.reshape(shape) for run in runs] for runs in found.fold_runs])
        self.n_iter_, self.history_, self.certificate_ = run.n_rounds, records(run), run.certificate
        self.probabilities_ = run.probabilities
        if not reached(run):
            warnings.warn(run.certificate.status, ConvergenceWarning, stacklevel=4)

    def _folds(
        self, X: Any, y: Any, held: list[tuple[str, NDArray[np.intp]]], there: NDArray[np.bool_] | None
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Return which rows every fold trains on, and which it holds out, of those that are there.

        A splitter splits those; a list of splits has the places of rows among all that were given.
        """
        names = np.zeros(len(y), dtype=int)
        for number, (_, index) in enumerate(held):
            names[index] = number
        alone = isinstance(self.cv, str) and self.cv == LEAVE_ONE_OUT
        if alone and len(held) < 2:
            raise ValueError(f"cv={self.cv!r} leaves a fold no row to train on; give more nodes, or other folds")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The groups parameter is ignored")  # most have no use for it
                splits = list(check_cv(LeaveOneGroupOut() if alone else self.cv, y, classifier=True).split(X, y, names))
            listed = not (isinstance(self.cv, int | str) or hasattr(self.cv, "split"))
            n_given = there.size if listed and there is not None else len(y)
            masks = [tuple(_masked(part, n_given) for part in fold) for fold in splits]
        except (TypeError, ValueError) as error:
            wanted = f"a number of folds, a splitter, splits or {LEAVE_ONE_OUT!r}"
            raise ValueError(f"cv must be {wanted}, got {self.cv!r}: {error}") from error
        return [
            (inside, outside) if n_given == len(y) else (inside[there], outside[there]) for inside, outside in masks
        ]


def _masked(places: Any, size: int) -> NDArray[np.bool_]:
    """Return which of so many rows these are."""
    out = np.zeros(size, dtype=bool)
    out[np.asarray(places, dtype=np.intp)] = True
    return out
