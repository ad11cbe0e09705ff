"""Rows as a CSR array."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.layouts.layout import BLOCK, Index, Single
from localgd.rounding import FloatArray, norms_above, read_only, writable


@dataclass(frozen=True, eq=False)
class Csr(Single):
    """Rows as a CSR array of float64.

    Parameters
    ----------
    x : (n, d) sparse array
        The rows; made read-only, duplicates added up, copied unless they are so already and nobody can write to them.

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
        sealed = self.x.format == "csr" and not any(map(writable, _arrays(self.x)))
        rows = csr_array(self.x, dtype=np.float64, copy=not sealed)
        if rows.nnz and not 0 <= rows.indices.min() <= rows.indices.max() < rows.shape[1]:
            outside = rows.indices.max() if rows.indices.min() >= 0 else rows.indices.min()
            raise ValueError(
                f"CSR rows name column {outside}, but there are {rows.shape[1]}; mend the indices or the shape"
            )
        rows.check_format(full_check=True)
        rows = rows.copy() if sealed and not rows.has_canonical_format else rows
        rows.sum_duplicates()
        object.__setattr__(self, "x", sealed_csr(rows))

    @classmethod
    def _of(cls, rows: csr_array[np.float64]) -> Self:
        """Return rows of our own, which need no check."""
        made = cls.__new__(cls)
        object.__setattr__(made, "x", sealed_csr(rows))
        return made

    @property
    def stored(self) -> int:
        return int(self.x.nnz)

    @cached_property
    def row_length(self) -> int:
        return int(np.diff(self.x.indptr).max(initial=0))

    @property
    def parts(self) -> tuple[Any, ...]:
        return _arrays(self.x)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.x.data).all())

    @cached_property
    def peak(self) -> float:
        return float(max(self.x.data.max(initial=0.0), -self.x.data.min(initial=0.0)))

    @cached_property
    def _largest(self) -> FloatArray:
        """The largest entry of each row in absolute value, (n,)."""
        out, filled = np.zeros(self.shape[0]), np.flatnonzero(np.diff(self.x.indptr))
        starts = self.x.indptr[filled]
        out[filled] = np.maximum(np.maximum.reduceat(self.x.data, starts), -np.minimum.reduceat(self.x.data, starts))
        return out

    @cached_property
    def norms(self) -> FloatArray:
        exponents, squares = np.frexp(self._largest)[1], np.empty(self.shape[0])
        cuts = np.searchsorted(self.x.indptr, np.arange(BLOCK, self.x.nnz, BLOCK))
        # a row number for each of all entries would take as much as the rows
        for first, last in itertools.pairwise(np.unique([0, *cuts, self.shape[0]]).tolist()):
            ends = self.x.indptr[first : last + 1]
            of_row = np.repeat(np.arange(last - first), np.diff(ends))
            values = np.square(np.ldexp(self.x.data[ends[0] : ends[-1]], -exponents[first:last][of_row]))
            squares[first:last] = np.bincount(of_row, weights=values, minlength=last - first)
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

    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        """Return the diagonal of `moment`, (d,), or those for each column of coefficients, (d, k)."""
        squares = csr_array((np.square(self.x.data), self.x.indices, self.x.indptr), shape=self.shape)
        return np.asarray(squares.T @ coefficients)

    def take(self, samples: Index) -> Csr:
        return self._of(self.x[samples])

    def over(self, length: float) -> Self:
        return self._of(self.x / length)

    def filled(self) -> NDArray[np.bool_]:
        return self._largest > 0


def _arrays(rows: Any) -> tuple[NDArray[Any], ...]:
    return rows.indptr, rows.indices, rows.data


def sealed_csr(rows: csr_array[np.float64]) -> csr_array[np.float64]:
    """Make the arrays of rows of our own read-only, so that a `Csr` need not copy them."""
    for part in _arrays(rows):
        owner: Any = part
        while isinstance(owner, np.ndarray):  # SciPy keeps views
            owner.flags.writeable = False
            owner = owner.base
    return rows


def biased(rows: csr_array[np.float64]) -> csr_array[np.float64]:
    """Return rows with a last column of ones, in arrays of their own.

    Examples
    --------
    >>> biased(csr_array([[0.0, 2.0], [0.0, 0.0]])).toarray().tolist()
    [[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    """
    n_rows, n_columns = rows.shape
    indptr = rows.indptr + np.arange(n_rows + 1, dtype=rows.indptr.dtype)
    data, indices = np.ones(rows.nnz + n_rows), np.full(rows.nnz + n_rows, n_columns, dtype=rows.indices.dtype)
    own = np.ones(data.size, dtype=bool)
    own[indptr[1:] - 1] = False
    data[own], indices[own] = rows.data, rows.indices
    return csr_array((data, indices, indptr), shape=(n_rows, n_columns + 1))
