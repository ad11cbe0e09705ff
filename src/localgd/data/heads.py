"""The last layer of a network as a linear model: its vector in the space of rows, and the rows that it meets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.data.classes import signed
from localgd.limits import RefusedError
from localgd.rounding import FloatArray
from localgd.rows import Samples, Shard

LEAST = 2.0**-900
"""Entries of a head that are smaller than this share of the largest would lose digits."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The numbers of a linear layer: one row of coefficients a logit, (C, d), and C intercepts or None."""

    coef: FloatArray
    intercept: FloatArray | None = None

    @property
    def n_classes(self) -> int:
        """How many classes its logits tell apart: two, if it has one."""
        return max(2, len(self.coef))

    def vector(self, *, shared: bool = False) -> FloatArray:
        """Return it as a vector in the space of the rows, bias last (of each class).

        Of two logits that is w_1 − w_0, whose sign is the prediction. Of more it is W.ravel() less the mean over the
        classes, over a power of two, unless `shared`: what all classes share changes no prediction and no margin, and
        no max-margin model has it, so it would only count as an angle.

        Examples
        --------
        >>> LastLayer(np.array([[1.0, 0.0], [4.0, 2.0]]), np.array([0.5, 0.0])).vector().tolist()
        [3.0, 2.0, -0.5]
        >>> LastLayer(np.array([[5.0], [6.0], [7.0]])).vector().tolist()  # over 2³
        [-0.125, 0.0, 0.125]
        """
        each = self.coef if self.intercept is None else np.column_stack([self.coef, self.intercept])
        if not np.isfinite(each).all():
            raise ValueError("the model has NaN or infinite entries: training has diverged, so take smaller steps")
        if len(each) > 1 and (each == each[0]).all():
            raise ValueError("all classes have the same coefficients, so the model tells none apart")
        if len(each) == 1:
            return np.asarray(each[0])
        if len(each) == 2:
            return np.asarray(each[1] - each[0])
        if shared:
            return np.asarray(each.ravel())
        scaled = np.ldexp(each, -math.frexp(float(np.abs(each).max()))[1])  # so that no sum leaves float64
        if ((np.abs(scaled) < LEAST) & (each != 0.0)).any():
            raise ValueError("entries of the head differ more than 1e270-fold in size; scale the features")
        each = scaled
        # Twice: the rounding of the first mean leaves a share as large as its last digit, which may be much. Beside
        # what is shared, entries are rounded by 2·2⁻⁵³ of themselves: a margin's bound on rounding has room for 5.
        for _ in range(2):
            each = each - each.mean(axis=0)
        return np.asarray(each.ravel())


def head_rows(
    node_id: str, x: Any, labels: NDArray[Any], n_classes: int, *, weights: FloatArray | None = None
) -> Shard:
    """Return the rows that a last layer meets at a node.

    Of two classes these are y·x with y = ±1, of more `localgd.ClassRows`, of real targets `localgd.Samples`.

    Parameters
    ----------
    node_id : str
        Name of the node.
    x : (n, d) float64 or float32 array, or CSR array
        The features, with a last column of ones if the layer has a bias; of our own, to be written to.
    labels : (n,) array
        The places of the logits, from 0 to C − 1 (of one logit: 1 where it is to be positive); or real targets.
    n_classes : int
        Classes C, 2 or more; 0 for real targets.
    weights : (n,) float64 array, optional
        What each sample counts.

    Returns
    -------
    Shard

    Raises
    ------
    RefusedError
        If labels do not fit the features or the classes.

    Examples
    --------
    >>> head_rows("site", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1]), 2).rows.tolist()
    [[-1.0, -2.0], [3.0, 4.0]]
    """
    if labels.shape != x.shape[:1]:
        raise RefusedError(f"it has features of {x.shape[0]} samples, and labels of shape {labels.shape}")
    if not n_classes:
        return Samples(node_id, x, labels, weights=weights)
    if labels.dtype.kind not in "iufb" or not _places(labels, n_classes):
        raise RefusedError(
            f"its labels are not all whole numbers from 0 to {n_classes - 1}: give each the place of its logit"
        )
    return signed(node_id, x, labels.astype(np.intp), n_classes, weights)


def _places(labels: Any, n_classes: int) -> bool:
    """Whether all are whole numbers from 0 to so many less one."""
    return bool(((labels >= 0) & (labels < n_classes) & (labels == np.floor(labels))).all())
