"""What linear models over groups of rows have in common, whatever they are fitted to, and what classifiers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from localgd.data.classes import signed
from localgd.data.coding import ClassWeight, class_weights, weighed
from localgd.data.encodings import Number
from localgd.data.groups import blocks, node_names, refuse_masked
from localgd.data.model import Model
from localgd.data.probabilities import Probabilities, none_there
from localgd.data.recipe import Recipe
from localgd.engine.inprocess import InProcess
from localgd.engine.nodes import fingerprint
from localgd.errors import check_flag
from localgd.layouts.csr import biased
from localgd.rounding import FloatArray
from localgd.run.goals import Angle
from localgd.run.history import RoundInfo, Run
from localgd.run.rounded import rounded

FLOATS = (np.float64, np.float32)
"""What rows may be given as, and what coefficients are then; all is computed in float64."""

NEAR, LOW = Angle(1.0), 1e-8
"""What a method that reaches the pooled classifier is to end with, unless another angle is asked for.

Either so near to it, or with a loss so near to the least one, in nats a row: no data could then tell them apart.
"""


class Linear(CallbackSupportMixin, BaseEstimator):
    """What a linear model over groups of dense or sparse rows does, whatever it is fitted to.

    A callback of scikit-learn (`set_callbacks`) is told of every round, and may end the rounds by a true answer.
    """

    fit_intercept: bool
    nodes: Literal["groups"] | None

    @with_callbacks
    def fit(
        self, X: Any, y: Any, groups: ArrayLike | None = None, sample_weight: ArrayLike | float | None = None
    ) -> Self:
        """Fit over the groups.

        Parameters
        ----------
        X : (n, d) array or CSR
            Rows. Of float32, so are the coefficients, and the certificate is about just those.
        y : (n,) array, or (n, k) of a regressor
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
        known = {"groups": groups, "sample_weight": sample_weight}
        given = {name: value for name, value in known.items() if value is not None}
        self._about = {"estimator": self, "X": X, "y": y, "metadata": given or None}
        context = self._init_callback_context(max_subtasks=None).call_on_fit_task_begin(**self._about)
        try:
            self._fit(X, y, groups, sample_weight)
            context.call_on_fit_task_end(**self._about, reconstruction_attributes={})
        finally:
            del self._about
        return self

    def _on_round(self, shaped: Callable[[FloatArray], dict[str, Any]]) -> Callable[[RoundInfo], bool] | None:
        """Return what tells callbacks of a round, given how a model becomes attributes; None if there are none."""
        if not getattr(self, "_skl_callbacks", None):
            return None

        def told(info: RoundInfo) -> bool:
            task = self._callback_fit_ctx.subcontext(task_name="round").call_on_fit_task_begin(**self._about)
            fitted = {"certificate_": info.certificate, **shaped(info.w)}
            return bool(task.call_on_fit_task_end(**self._about, reconstruction_attributes=fitted))

        return told

    def _handed_out(self, run: Run, engine: InProcess, dtype: Any) -> Run:
        """Return the run with the model that is handed out for rows of this dtype."""
        return run if dtype == np.float64 else rounded(run, engine, dtype)

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
        if there.all():
            return X, y, blocks(names), weights
        return X[there], y[there], blocks(names[there]), weights[there]

    @property
    def model_(self) -> Model:
        """The fitted model as it is kept in a file: ``clf.model_.save("model.json")``, for the commands on models."""
        check_is_fitted(self)
        coef, intercept = np.asarray(self.coef_), np.asarray(self.intercept_)
        if coef.ndim == 2 and len(coef) == 1:
            coef, intercept = coef[0], intercept[0]
        classes = tuple(getattr(self, "classes_", np.zeros(0)).tolist())
        if coef.ndim == 2 and not classes:
            raise ValueError(f"a model file holds one target, and this estimator has {len(coef)}; fit one at a time")
        names = getattr(self, "feature_names_in_", [f"x{place}" for place in range(self.n_features_in_)])
        columns = tuple(Number(str(name), fill=None) for name in names)
        likely = getattr(self, "probabilities_", None)
        recipe = Recipe(columns, classes, self.fit_intercept, sparse=False)
        return Model(coef, float(intercept) if coef.ndim == 1 else intercept, classes, recipe, None, likely)

    def _scores(self, X: Any) -> FloatArray:
        """Return X·coef + intercept."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS, reset=False)
        scores = X.astype(np.float64) @ self.coef_.T.astype(np.float64) + self.intercept_
        return np.asarray(scores, dtype=np.result_type(X.dtype, self.coef_.dtype))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _has_probabilities(classifier: Classifier) -> bool:
    """Return whether scores mean probabilities; an AttributeError, as scikit-learn wants it, says what to do if not."""
    if getattr(classifier, "probabilities_", classifier._meant()) is None:  # noqa: SLF001  its own kind
        raise AttributeError(
            none_there("give C and the logistic loss, LocalGDClassifier(C=1.0), or calibration='sigmoid'")
        )
    return True


class Classifier(ClassifierMixin, Linear):
    """What a linear classifier does, however its coefficients come about."""

    class_weight: ClassWeight | None

    def _codes(
        self, X: Any, y: Any, groups: ArrayLike | None, sample_weight: Any
    ) -> tuple[Any, NDArray[np.intp], list[tuple[str, NDArray[np.intp]]], FloatArray | None]:
        """Return what there is of rows that count, their classes as numbers, their nodes, and how much each counts."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=FLOATS)
        check_classification_targets(y)
        X, y, held, weights = self._present(X, y, groups, sample_weight)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()[0]!r}: a classifier needs two classes")
        return X, codes, held, weights

    def _by_class(
        self, codes: NDArray[np.intp], held: list[tuple[str, NDArray[np.intp]]], weights: FloatArray | None
    ) -> FloatArray | None:
        """Return what rows count in training: their own weight times that of their class, if they have one."""

        def counted() -> FloatArray:
            each = (np.bincount(codes[i], None if weights is None else weights[i], n_classes) for _, i in held)
            return np.asarray(sum(each, np.zeros(n_classes)))

        n_classes = len(self.classes_)
        of_class = class_weights(self.class_weight, self.classes_.tolist(), (), counted)
        return weighed(weights, codes, of_class)

    def _shaped(self, w: FloatArray, dtype: Any = np.float64) -> dict[str, Any]:
        """Return a model, one vector for all classes, the bias last if there is one, as attributes."""
        each = w.reshape(1 if len(self.classes_) == 2 else len(self.classes_), -1).astype(dtype)
        bias = np.array(each[:, self.n_features_in_]) if self.fit_intercept else np.zeros(len(each), dtype)
        return {"coef_": np.array(each[:, : self.n_features_in_]), "intercept_": bias}

    def _meant(self) -> Probabilities | None:
        """Return the probabilities that scores will mean, once it is fitted; None if they will mean none."""
        return Probabilities()

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


class with_bias:  # noqa: N801  it stands for the rows that it makes
    """The rows, with a column of ones if there is an intercept; made for the places asked for, node by node."""

    def __init__(self, X: Any, *, intercept: bool) -> None:
        self._X, self._intercept = X, intercept

    def __getitem__(self, index: Any) -> Any:
        found: Any = self._X[index]
        rows: Any = csr_array(found) if isinstance(found, csr_matrix) else found  # whose * is that of rows
        rows = rows.astype(np.float64, copy=False)
        if not self._intercept:
            return rows
        if isinstance(rows, np.ndarray):
            n_rows, n_columns = rows.shape
            with_ones = np.ones((n_rows, n_columns + 1))
            with_ones[:, :n_columns] = rows
            return with_ones
        return biased(rows)


def engine_of(
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


def reached(run: Run) -> bool:
    """Return whether a model is proved to be the one that was looked for, or as good as it."""
    return NEAR.met(run.certificate) or run.certificate.gap <= LOW


def marks(engine: InProcess) -> dict[str, str]:
    """Return what tells the rows of every node from any others."""
    return {name: fingerprint(shard) for name, shard in engine.shards.items()}


def records(run: Run) -> list[dict[str, Any]]:
    """Return the history, one dict per round."""
    columns = run.columns()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
