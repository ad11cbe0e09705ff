"""Probabilities for a model that has none: Platt's sigmoid, fitted in rounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localgd.core import Engine, Message
from localgd.data.probabilities import Probabilities
from localgd.errors import check_whole, from_all
from localgd.evaluation.asked import check_model, question
from localgd.evaluation.counting import Decisions
from localgd.evaluation.sigmoid import fitted

if TYPE_CHECKING:
    from localgd.data.model import Model


def calibrate(model: Model, engine: Engine, *, min_group: int = 1) -> Model:
    """Give a model probabilities, by the sigmoids of its scores that fit the rows of all nodes best.

    For two classes σ(slope·s + offset) of least log-loss, where a row of the second class is to come to
    (N₊ + 1)/(N₊ + 2) and one of the first to 1/(N₋ + 2), N₊ and N₋ the weights of both; for more classes each against
    the rest, divided by their sum. The same as scikit-learn's ``CalibratedClassifierCV(method="sigmoid")`` of a model
    that is fitted already, on the pooled rows.

    Parameters
    ----------
    model : Model
        As for `localgd.evaluate`. What probabilities it has are replaced.
    engine : Engine
        The federation: rows that the model was not trained on, as it is too sure of those that it was.
    min_group : int, at least 1
        A node refuses if it has some rows of a class, but fewer than these.

    Returns
    -------
    Model
        The same, with probabilities, and with the columns and classes of its recipe if it has one.

    Raises
    ------
    ValueError
        If the model predicts numbers, there are no rows of some class, or no sigmoid fits best.

    Notes
    -----
    Platt (1999), *Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods*.

    Examples
    --------
    >>> from localgd import InProcess, Model, Shard
    >>> rows = Shard("a", [[2.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [2.0, -1.0], [-1.0, -1.0]])
    >>> model = Model.from_vector(np.array([1.0, 0.0]), fit_intercept=True, classes=("no", "yes"))
    >>> calibrate(model, InProcess([rows])).probabilities.of(np.array([0.0, 2.0])).round(2).tolist()
    [[0.43, 0.57], [0.3, 0.7]]
    """
    check_model(model, engine)
    check_whole("min_group", min_group, 1)
    if model.classes == ():
        raise ValueError("this model predicts numbers, which have no probabilities; calibrate one of classes")
    federation, message, classes = question(replace(model, probabilities=None), engine)
    asked = {"thresholds": np.zeros(1), "n_classes": np.asarray(float(len(classes)))}
    counts = from_all(federation, Decisions(min_group, by_node=False), Message(0, message.w, asked))
    weights = counts.sums["classes"]
    if not (weights > 0).all():
        missing = [label for label, weight in zip(classes, weights, strict=True) if not weight > 0]
        raise ValueError(f"there is no row of class {missing[0]!r}; give rows of every class")
    own = weights[-1:] if len(classes) == 2 else weights
    rest = weights.sum() - own
    targets = np.column_stack([1 / (rest + 2), (own + 1) / (own + 2)])
    start = np.stack([np.log((own + 1) / (rest + 1)), np.zeros(own.size)], axis=-1)[:, None]
    free = np.ones(start.shape, dtype=bool)
    found, _ = fitted(federation, message, targets, start, free, min_group=min_group)
    if not np.isfinite(found).all():
        raise ValueError("no sigmoid of the scores fits best within 40 rounds; give more rows of every class")
    offset, slope = (tuple(found[:, 0, place].tolist()) for place in (0, 1))
    likely = Probabilities(slope, offset)
    if (recipe := model.recipe) is None:
        return replace(model, probabilities=likely)
    w = model.aligned(recipe, "this model")  # one from elsewhere may say no classes, or have them in another order
    how: dict[str, Any] = {"fit_intercept": recipe.intercept, "classes": recipe.classes, "recipe": recipe}
    return model.from_vector(w, **how, probabilities=likely)


def kept_aside(nodes: Iterable[NDArray[np.intp]], codes: NDArray[np.intp], rng: Any) -> NDArray[np.bool_]:
    """Return which rows are kept for a sigmoid, (n,): of each class at each node a fifth, drawn.

    Parameters
    ----------
    nodes : iterable of int arrays
        The places of each node's rows.
    codes : (n,) int array
        Classes.
    rng : numpy.random.RandomState
        What draws.

    Raises
    ------
    ValueError
        If there is none of some class among them.

    Examples
    --------
    >>> kept_aside([np.arange(10)], np.repeat([0, 1], 5), np.random.RandomState(0)).reshape(2, 5).sum(axis=1).tolist()
    [1, 1]
    """
    out = np.zeros(codes.size, dtype=bool)
    for index in nodes:
        for code in np.unique(codes[index]):
            of_class = index[codes[index] == code]
            out[rng.permutation(of_class)[: of_class.size // 5]] = True
    if np.unique(codes[out]).size < np.unique(codes).size:
        raise ValueError(
            "calibration='sigmoid' keeps a fifth of the rows of each class and group aside, but some class has no five "
            "rows in any group; give more rows, or leave calibration out"
        )
    return out
