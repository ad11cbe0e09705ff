"""The last layer of a model that Flower trained, as a vector in the space of the nodes' rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from localgd.rounding import FloatArray

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


def last_layer(arrays: ArrayRecord, head: str | None = None) -> LastLayer:
    """Return the last layer of a model: the one that is called `head`, or all there is.

    A ValueError if there is no model, as when no round of training came to its end, or that is no linear layer.

    Examples
    --------
    >>> last_layer(ArrayRecord([np.ones((3, 2)), np.zeros(3)])).n_classes
    3
    """
    if not arrays:
        raise ValueError("the strategy has made no model: no round of training came to its end")
    names = list(arrays) if head is None else [name for name in (f"{head}.weight", f"{head}.bias") if name in arrays]
    dims = [len(arrays[name].shape) for name in names]
    if head is None and max(dims) < 2:
        return LastLayer(np.concatenate([_numbers(arrays, name).ravel() for name in names])[None])
    if dims == [2]:
        return LastLayer(_numbers(arrays, names[0]))
    if len(dims) == 2 and dims[0] == 2 and dims[1] < 2:
        coef, intercept = (_numbers(arrays, name) for name in names)
        if intercept.size == len(coef):
            return LastLayer(coef, intercept.ravel())
    listed = ", ".join(f"{name} {tuple(array.shape)}" for name, array in list(arrays.items())[-6:])
    called = "single" if head is None else f"{head!r} for a"
    raise ValueError(
        f"the model has no {called} linear layer, a row of coefficients for each logit and as many intercepts or none "
        f"(its arrays, or the last of them: {listed}): of a network name the last layer, as in head='fc' for arrays "
        "called fc.weight and fc.bias"
    )


def _numbers(arrays: ArrayRecord, name: str) -> FloatArray:
    return np.asarray(arrays[name].numpy(), dtype=np.float64)
