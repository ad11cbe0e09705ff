"""Rows as an array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from localgd.layouts.layout import BLOCK, Index, Single, times
from localgd.rounding import FloatArray, norms_above, read_only, real_array


@dataclass(frozen=True, eq=False)
class Dense(Single):
    """Rows as a float64 array.

    Parameters
    ----------
    x : (n, d) float64 array
        The rows; made read-only, copied if somebody else may write to them. Of k nodes at once, (k, n, d): then each
        answer has one more axis in front, and for every node the bits that it has alone.

    Examples
    --------
    >>> Dense([[3.0, 4.0], [0.0, 1.0]]).sum(np.array([1.0, 2.0])).tolist()
    [3.0, 6.0]
    """

    x: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", real_array("rows x", self.x))
        if self.x.ndim not in (2, 3):
            raise ValueError(
                f"rows x must be a table, shape (n, d), not of shape {self.x.shape}; one row alone is [[…]]"
            )

    @property
    def row_length(self) -> int:
        return self.shape[1]

    @property
    def parts(self) -> tuple[FloatArray]:
        return (self.x,)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.x).all())

    @cached_property
    def peak(self) -> float:
        out: float = np.abs(self.x).max(axis=(-2, -1), initial=0.0)
        return out

    @cached_property
    def columns(self) -> FloatArray:
        """The rows the other way round, a view of them, (d, n)."""
        return self.x.swapaxes(-2, -1)

    @cached_property
    def norms(self) -> FloatArray:
        exponents = np.frexp(np.abs(self.x).max(axis=-1, initial=0.0))[1]
        scaled = np.ldexp(self.x, -exponents[..., None])
        return norms_above(np.einsum("...ij,...ij->...i", scaled, scaled), exponents, self.row_length)

    @cached_property
    def squares(self) -> FloatArray:
        """|z_i|² of every row, (n, 1)."""
        return np.asarray(np.square(self.x) @ np.ones((self.row_length, 1)))

    @property
    def trace(self) -> float:
        out: float = (self.x * self.x).sum(axis=(-2, -1))
        return out

    @cached_property
    def gram(self) -> FloatArray:
        if self.x.ndim == 2:
            return read_only(self.x @ self.x.T)
        out = np.empty((*self.x.shape[:-1], self.x.shape[-2]))
        for x, gram in zip(self.x, out, strict=True):  # one by one it is known to be symmetric
            np.matmul(x, x.T, out=gram)
        return read_only(out)

    def sum(self, coefficients: FloatArray) -> FloatArray:
        some = self.few(coefficients)
        return super().sum(coefficients) if some is None else times(self.x[some].T, coefficients[some])

    def moment(self, coefficients: FloatArray) -> FloatArray:
        return np.asarray(self.x.T @ (self.x * coefficients[:, None]))

    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        """Return the diagonal of `moment`, (d,), or those for each column of coefficients, (d, k)."""
        out, size = np.zeros((self.shape[1], *coefficients.shape[1:])), max(1, BLOCK // max(1, self.row_length))
        for first in range(0, self.shape[0], size):
            some = slice(first, first + size)
            out += np.square(self.x[some]).T @ coefficients[some]
        return out

    def take(self, samples: Index) -> Dense:
        return Dense(read_only(self.x[samples]))

    def over(self, length: float) -> Self:
        return type(self)(read_only(self.x / np.asarray(length)[..., None, None]))

    def filled(self) -> NDArray[np.bool_]:
        return np.asarray(self.x.any(axis=-1))
