"""Rows as a float32 array: half the memory, and every number that is computed of them is a float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from localgd.layouts.dense import Dense
from localgd.layouts.layout import Rows
from localgd.rounding import FloatArray, read_only

BLOCK = 2**16
"""Entries that are written out as float64 at a time, 512 KB: a cache holds them until they have been used."""


@dataclass(frozen=True, eq=False)
class Float32(Dense):
    """Rows of float32 numbers, each of which is a float64, too: nothing is rounded but what is computed of them.

    So what is proved of them holds as it does for the same rows in float64; only the order of sums is another one.

    Parameters
    ----------
    x : (n, d) float32 array
        The rows; made read-only, copied if somebody else may write to them.

    Examples
    --------
    >>> rows = Float32(np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32))
    >>> rows.sum(np.array([1.0, 2.0])).dtype, rows.x.nbytes
    (dtype('float64'), 16)
    """

    held: ClassVar[Any] = np.float32

    x: Any

    def _blocks(self) -> Iterator[tuple[slice, Dense]]:
        """Yield places of rows and those rows in float64, a few at a time."""
        size = max(1, BLOCK // max(1, self.row_length))
        for first in range(0, self.shape[0], size):
            some = slice(first, first + size)
            yield some, Dense(read_only(self.x[some].astype(np.float64)))

    def margins(self, w: FloatArray) -> FloatArray:
        return np.concatenate([block.margins(w) for _, block in self._blocks()])

    def sum(self, coefficients: FloatArray) -> FloatArray:
        out = np.zeros(self.row_length)
        for some, block in self._blocks():
            out += block.sum(coefficients[some])
        return out

    def moment(self, coefficients: FloatArray) -> FloatArray:
        out = np.zeros((self.row_length, self.row_length))
        for some, block in self._blocks():
            out += block.moment(coefficients[some])
        return out

    @cached_property
    def peak(self) -> float:
        return float(max(self.x.max(initial=0.0), -self.x.min(initial=0.0)))

    @cached_property
    def norms(self) -> FloatArray:
        return read_only(np.concatenate([block.norms for _, block in self._blocks()]))

    @cached_property
    def squares(self) -> FloatArray:
        """|z_i|² of every row, (n, 1)."""
        return np.concatenate([block.squares for _, block in self._blocks()])

    @property
    def trace(self) -> float:
        return float(self.squares.sum())

    @cached_property
    def gram(self) -> FloatArray:
        n, d = self.shape
        out, size = np.zeros((n, n)), max(1, BLOCK // n)
        for first in range(0, d, size):
            columns = self.x[:, first : first + size].astype(np.float64)
            out += columns @ columns.T
        return read_only(out)

    def take(self, samples: Any) -> Dense:
        return Float32(read_only(self.x[samples], np.float32))

    def over(self, length: float) -> Any:
        return Dense(read_only(np.divide(self.x, length, dtype=np.float64)))

    def explicit(self) -> Rows:
        return read_only(self.x.astype(np.float64))
