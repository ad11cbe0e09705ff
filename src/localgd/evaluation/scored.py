"""What a node sees of its own rows under a model: scores, classes, weights. None of it leaves the node as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.core import Message
from localgd.data.probabilities import Probabilities
from localgd.layouts import ClassRows
from localgd.limits import RefusedError
from localgd.rounding import FloatArray
from localgd.rows import Shard

ODDS = "odds"
"""What a message says of probabilities: slope and offset for each class, (k, 2); none for those of the loss."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A node's samples under a model.

    Parameters
    ----------
    scores : (n,) float64 array, (n, C) for C >= 3 classes
        x·coef + intercept.
    codes : (n,) int array
        Their classes.
    weights : (n,) float64 array
        What each counts.
    n_classes : int
        C.
    likely : Probabilities or None
        How scores become probabilities, if they do.
    """

    scores: FloatArray
    codes: NDArray[np.intp]
    weights: FloatArray
    n_classes: int
    likely: Probabilities | None

    @property
    def columns(self) -> FloatArray:
        """What rows are ranked by, for each class against the rest, (H, n): one column for two classes."""
        if self.scores.ndim == 1:
            return self.scores[None]
        return np.ascontiguousarray((self.scores if self.likely is None else self.likely.of(self.scores)).T)

    @property
    def sides(self) -> NDArray[np.bool_]:
        """Which samples are of the class that a column is about, (H, n)."""
        n_heads = 1 if self.n_classes == 2 else self.n_classes
        return np.asarray(self.codes == np.arange(self.n_classes)[-n_heads:, None])


def scored(shard: Shard, message: Message, min_group: int) -> Scored:
    """Return a node's samples under the model of a message.

    Raises
    ------
    RefusedError
        If the node has some rows of a class, but fewer than `min_group`: how many would be told.
    ValueError
        If its rows have no bias column, which says what class they are of.
    """
    data: Any = shard.data
    odds = message.extra.get(ODDS)
    likely = None if odds is None else Probabilities(tuple(odds[:, 0].tolist()), tuple(odds[:, 1].tolist()))
    weights = np.ones(shard.n_samples) if shard.weights is None else shard.weights
    if isinstance(data, ClassRows):
        scores, codes, n_classes = data.scores(message.w), data.codes, data.n_classes
    else:
        last = np.zeros(shard.n_features)
        last[-1] = 1.0
        signs = shard.margins(last)  # the bias column of a signed row is its label
        if not (np.abs(signs) == 1.0).all():
            raise ValueError(
                "the last column is no bias, so nothing says which class a row is of; evaluate a model with its recipe "
                "on tables, or prepare with an intercept"
            )
        scores, codes, n_classes = signs * shard.margins(message.w), (signs > 0).astype(np.intp), 2
    few = np.bincount(codes, minlength=n_classes)
    if ((few > 0) & (few < min_group)).any():
        raise RefusedError(
            f"it has fewer than min_group={min_group} rows of a class, and does not tell how they are decided; ask "
            "for a smaller min_group, or leave the node out"
        )
    return Scored(scores, codes, weights, n_classes, likely)
