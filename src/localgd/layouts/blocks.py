"""Rows that are written out as float64 a block at a time: their numbers are kept in another form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.layouts.dense import Dense
from localgd.layouts.layout import BLOCK, Index, Rows, Single
from localgd.rounding import FloatArray, read_only


class Blocks(Single):
    """Rows of which each is a sample of its own, written out a block at a time and forgotten again.

    What is computed is computed of the rows as they are written out, all of it in float64; so what is proved of them
    is proved as of the same rows in memory, and only the order of sums is another one.
    """

    @property
    def row_length(self) -> int:
        return self.shape[1]

    @abstractmethod
    def take(self, samples: Index) -> Blocks: ...

    @abstractmethod
    def written(self, some: Any) -> FloatArray:
        """Return rows in float64, an array of our own."""

    def _blocks(self) -> Iterator[tuple[slice, Dense]]:
        """Yield places of rows and those rows, a few at a time."""
        size = max(1, BLOCK // max(1, self.row_length))
        for first in range(0, self.shape[0], size):
            some = slice(first, first + size)
            yield some, Dense(read_only(self.written(some)))

    def _each(self, told: Callable[[Dense], Any]) -> FloatArray:
        """Return what every block tells of its rows, one below the other."""
        return np.concatenate([told(block) for _, block in self._blocks()])

    @property
    def finite(self) -> bool:
        return all(block.finite for _, block in self._blocks())

    @cached_property
    def peak(self) -> float:
        return max((float(block.peak) for _, block in self._blocks()), default=0.0)

    @cached_property
    def norms(self) -> FloatArray:
        return read_only(self._each(lambda block: block.norms))

    @cached_property
    def squares(self) -> FloatArray:
        """|z_i|² of every row, (n, 1)."""
        return self._each(lambda block: block.squares)

    @property
    def trace(self) -> float:
        return float(self.squares.sum())

    @cached_property
    def gram(self) -> FloatArray:
        n = self.shape[0]
        out = np.empty((n, n))
        for some, block in self._blocks():
            for others, other in self._blocks():
                if others.start <= some.start:
                    out[some, others] = block.x @ other.x.T
                    out[others, some] = out[some, others].T
        return read_only(out)

    def filled(self) -> NDArray[np.bool_]:
        return np.asarray(self._each(lambda block: block.filled()))

    def margins(self, w: FloatArray) -> FloatArray:
        return self._each(lambda block: block.margins(w))

    def products(self, matrix: FloatArray) -> FloatArray:
        return self._each(lambda block: block.products(matrix))

    def _added(self, told: Callable[[slice, Dense], FloatArray], shape: tuple[int, ...]) -> FloatArray:
        """Return the sum over the blocks of what each tells of its rows."""
        out = np.zeros(shape)
        for some, block in self._blocks():
            out += told(some, block)
        return out

    def sum(self, coefficients: FloatArray) -> FloatArray:
        touched = self.few(coefficients)
        if touched is not None:
            return self.take(touched).sum(coefficients[touched])
        return self._added(lambda some, block: block.sum(coefficients[some]), (self.row_length,))

    def sums(self, coefficients: FloatArray) -> FloatArray:
        shape = (self.row_length, coefficients.shape[1])
        return self._added(lambda some, block: block.sums(coefficients[some]), shape)

    def moment(self, coefficients: FloatArray) -> FloatArray:
        return self._added(lambda some, block: block.moment(coefficients[some]), (self.row_length, self.row_length))

    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        """Return the diagonal of `moment`, (d,), or those for each column of coefficients, (d, k)."""
        shape = (self.row_length, *coefficients.shape[1:])
        return self._added(lambda some, block: block.diagonal(coefficients[some]), shape)

    def over(self, length: float) -> Any:
        return Shorter(self, length)

    def explicit(self) -> Rows:
        return read_only(self.written(slice(None)))


@dataclass(frozen=True, eq=False)
class Shorter(Blocks):
    """Rows of which each is divided by a number as it is written out."""

    rows: Blocks
    length: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    @property
    def parts(self) -> tuple[Any, ...]:
        return (*self.rows.parts, np.float64(self.length))

    def take(self, samples: Index) -> Shorter:
        return Shorter(self.rows.take(samples), self.length)

    def written(self, some: Any) -> FloatArray:
        out = self.rows.written(some)
        out /= self.length
        return out
