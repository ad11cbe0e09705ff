"""Rows as a CSR array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.layouts.layout import Index, Single
from localgd.rounding import FloatArray, norms_above, read_only


@dataclass(frozen=True, eq=False)
class Csr(Single):
    """Rows as a CSR array of float64.

    Parameters
    ----------
    x : (n, d) sparse array
        The rows; copied, duplicates added up, and made read-only.

    Raises
    ------
    ValueError
        If an index is out of range.

    Examples
    --------
    >>> Csr(csr_array(np.eye(3))).margins(np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0]
    """

    x: Any

    def __post_init__(self) -> None:
        sparse = issparse(self.x)
        if not sparse or self.x.dtype.kind not in "biuf":
            raise ValueError(f"x must be a sparse array of real numbers, got {self.x!r}")
        rows = csr_array(self.x, dtype=np.float64, copy=True)
        if rows.nnz and not 0 <= rows.indices.min() <= rows.indices.max() < rows.shape[1]:
            outside = rows.indices.max() if rows.indices.min() >= 0 else rows.indices.min()
            raise ValueError(
                f"CSR rows name column {outside}, but there are {rows.shape[1]}; mend the indices or the shape"
            )
        rows.check_format(full_check=True)
        rows.sum_duplicates()
        object.__setattr__(self, "x", _sealed(rows))

    @classmethod
    def _of(cls, rows: csr_array[np.float64]) -> Self:
        """Return rows of our own, which need no check."""
        made = cls.__new__(cls)
        object.__setattr__(made, "x", _sealed(rows))
        return made

    @cached_property
    def row_length(self) -> int:
        return int(np.diff(self.x.indptr).max(initial=0))

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.x.indptr, self.x.indices, self.x.data)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.x.data).all())

    @cached_property
    def peak(self) -> float:
        return float(np.abs(self.x.data).max(initial=0.0))

    @cached_property
    def norms(self) -> FloatArray:
        of_row = np.repeat(np.arange(self.shape[0]), np.diff(self.x.indptr))
        exponents = np.frexp(abs(self.x).max(axis=1).toarray().ravel())[1]
        values = np.square(np.ldexp(self.x.data, -exponents[of_row]))
        squares = np.bincount(of_row, weights=values, minlength=self.shape[0])
        return norms_above(squares, exponents, self.row_length)

    @cached_property
    def squares(self) -> FloatArray:
        """|z_i|² of every row, (n, 1)."""
        return np.asarray(self.x.multiply(self.x) @ np.ones((self.shape[1], 1)))

    @property
    def trace(self) -> float:
        return float(self.x.multiply(self.x).sum())

    @cached_property
    def gram(self) -> FloatArray:
        return read_only((self.x @ self.x.T).toarray())

    def moment(self, coefficients: FloatArray) -> FloatArray:
        return np.asarray((self.x.T @ self.x.multiply(coefficients[:, None])).toarray())

    def take(self, samples: Index) -> Csr:
        return self._of(self.x[samples])

    def over(self, length: float) -> Self:
        return self._of(self.x / length)

    def filled(self) -> NDArray[np.bool_]:
        return np.asarray(abs(self.x).max(axis=1).toarray()).ravel() > 0


def _sealed(rows: csr_array[np.float64]) -> csr_array[np.float64]:
    for part in (rows.data, rows.indices, rows.indptr):
        part.flags.writeable = False
    return rows
