"""The duals of several nodes as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from localgd.duals.dual import Dual
from localgd.rounding import CANCELS, SMALLEST, TINY, UNIT_ROUNDOFF, FloatArray, length_above, margin_above, norms

Present: TypeAlias = NDArray[np.bool_]
"""Which nodes have something, (k,)."""


@dataclass(frozen=True, eq=False)
class Duals:
    """The duals of several nodes: vectors, a lower bound on the mass of each and an upper bound on its error.

    What is proved of each is what `localgd.duals.dual.Dual` says of one, to the bit.

    Parameters
    ----------
    vector : (k, d) float64 array
        Σ q_i z_i of every node.
    mass, error : (k,) float64 array
        NaN where nothing is proved.
    """

    vector: FloatArray
    mass: FloatArray
    error: FloatArray

    @property
    def parts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What it is made of."""
        return self.vector, self.mass, self.error

    @cached_property
    def length(self) -> FloatArray:
        """|s|, as computed, (k,)."""
        return norms(self.vector)

    @cached_property
    def known(self) -> Present:
        """Which of them say anything."""
        return np.asarray((self.mass > 0) & (self.mass < math.inf) & (self.error < math.inf))

    @property
    def margin_upper(self) -> FloatArray:
        """Upper bounds on γ*, (k,), which mean something where something is known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(margin_above(length_above(self.length, self.vector.shape[-1]), self.mass, self.error))

    @property
    def cancels(self) -> Present:
        """Which of them are 0 to within rounding."""
        above_underflow = self.error > self.vector.shape[-1] * TINY / UNIT_ROUNDOFF
        return np.asarray(self.known & above_underflow & (self.length <= CANCELS * self.error))

    def weighted(self, weight: Any) -> Duals:
        """Return them times the weights of their nodes, (k,) or one for all, for the fold over the nodes."""
        error = weight * self.error + self.vector.shape[-1] * SMALLEST
        return Duals(np.asarray(weight)[..., None] * self.vector, weight * self.mass, error)

    @property
    def size(self) -> int:
        """How many numbers they carry: mass and error where something is proved."""
        return int(self.vector.size + 2 * np.count_nonzero(~np.isnan(self.mass)))

    @property
    def sound(self) -> bool:
        """Whether the vectors are finite, and the masses, if something is proved."""
        return bool(np.isfinite(self.vector).all() and not np.isinf(self.mass).any())

    def __getitem__(self, places: Any) -> Duals:
        return Duals(*(part[places] for part in self.parts))

    def folded(self) -> Dual:
        """Return the sum of weighted ones, in their order."""
        return Dual.proved(fold(self.vector), float(fold(self.mass)), float(fold(self.error)), len(self.mass))


def fold(values: FloatArray) -> FloatArray:
    """Return the sum over the first axis, added up from the first to the last, as reports are.

    Examples
    --------
    >>> fold(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [4.0, 6.0]
    """
    if values.size == len(values):  # along the last axis NumPy adds in pairs
        return np.asarray(np.add.accumulate(values)[-1])
    return np.asarray(np.add.reduce(values, initial=-0.0))  # 0.0 would make zeros of −0.0
