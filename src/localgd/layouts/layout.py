"""What can be asked of rows, and what rows that are samples of their own have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from localgd.rounding import FloatArray

Rows: TypeAlias = "FloatArray | csr_array[np.float64]"

Index: TypeAlias = NDArray[np.intp]

BLOCK = 2**16
"""Entries that are written out at a time, 512 KB: a cache holds them until they have been used."""

LARGE, FEW = 2**20, 4
"""Entries from which rows lie in memory, not in a cache; a fourth of the rows is not few of them."""


class Layout(ABC):
    """Rows z_1 … z_n of d columns, read-only: margins, sums, second moments and Gram matrix of them.

    Next to each other lie the `versus` rows that speak for one sample; mini-batches are of samples.
    """

    versus: int

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows n and columns d."""

    @property
    @abstractmethod
    def stored(self) -> int:
        """Entries in memory."""

    @property
    @abstractmethod
    def row_length(self) -> int:
        """Most entries that one inner product with a row adds up (d, or the fullest row's non-zeros)."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Any, ...]:
        """The arrays it is made of."""

    @property
    @abstractmethod
    def finite(self) -> bool:
        """Whether every entry is."""

    @property
    @abstractmethod
    def peak(self) -> float:
        """Largest entry in absolute value."""

    @property
    @abstractmethod
    def norms(self) -> FloatArray:
        """Upper bounds on the row norms |z_i|, shape (n,), whatever their sizes."""

    @property
    @abstractmethod
    def trace(self) -> float:
        """Σ |z_i|²."""

    @property
    @abstractmethod
    def gram(self) -> FloatArray:
        """Inner products that `by_gram` needs, (k, k), where k is the number of samples."""

    @abstractmethod
    def margins(self, w: FloatArray) -> FloatArray:
        """Return z_i·w for every row, shape (n,)."""

    @abstractmethod
    def sum(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,)."""

    @abstractmethod
    def moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d)."""

    @abstractmethod
    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        """Return the diagonal of `moment`, c >= 0, shape (d,)."""

    @abstractmethod
    def spread(self, coefficients: FloatArray, weights: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ less s sᵀ of every sample's own sum s = Σ c_i z_i, each by a weight, shape (d, d)."""

    @abstractmethod
    def by_gram(self, gram: FloatArray, coefficients: FloatArray, samples: Index | None = None) -> FloatArray:
        """Return z_j·Σ c_i z_i for every row, or those of some samples, by the Gram matrix."""

    def moving(self, gram: FloatArray, margins: FloatArray, coefficients: FloatArray) -> Callable[[], FloatArray]:
        """Return what gives m + `by_gram` of coefficients as they are then; what it gives, callers may write over."""
        return lambda: margins + self.by_gram(gram, coefficients)

    @abstractmethod
    def take(self, samples: Index) -> Layout:
        """Return the rows of these samples."""

    @abstractmethod
    def over(self, length: float) -> Self:
        """Return the rows divided by a number."""

    @abstractmethod
    def shares(self, coefficients: FloatArray, power: int) -> FloatArray:
        """Return |c_i| |z_i|^power summed over every sample's rows, (samples, 1); for many classes, in each's part."""

    @abstractmethod
    def spread_shares(self, coefficients: FloatArray) -> FloatArray:
        """Return what every sample adds to the diagonals of `spread`, as `shares`."""

    @abstractmethod
    def explicit(self) -> Rows:
        """Return the rows written out, as an array or a CSR array."""

    @abstractmethod
    def filled(self) -> NDArray[np.bool_]:
        """Return which rows have an entry that is not 0, (n,)."""

    def index(self, samples: Index) -> Index:
        """Return the row numbers of batches of samples, (…, b), those of a sample next to each other.

        Examples
        --------
        >>> from localgd.layouts import ClassRows
        >>> ClassRows(np.ones((4, 1)), np.array([0, 1, 2, 0]), 3).index(np.array([[3, 0]])).tolist()
        [[6, 7, 0, 1]]
        """
        if self.versus == 1:
            return samples
        places = samples[..., None] * self.versus + np.arange(self.versus)
        return np.asarray(places.reshape(*samples.shape[:-1], -1))


def times(matrix: Any, vector: FloatArray) -> FloatArray:
    """Return a matrix times a vector, or many of them, each times a vector of its own or all times the same one.

    `np.matmul` asks BLAS once for each of them, so what comes out of many has the bits of one by one.
    """
    out: FloatArray = matrix @ vector if vector.ndim == 1 else np.matmul(matrix, vector[..., None])[..., 0]
    return out


class Single(Layout):
    """Rows of which each is a sample of its own."""

    versus: int = 1

    x: Any
    squares: Any

    @property
    def shape(self) -> tuple[int, int]:
        out: tuple[int, int] = self.x.shape[-2:]
        return out

    @property
    def stored(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def columns(self) -> Any:
        """The rows the other way round, a view of them, (d, n)."""
        return self.x.T

    def margins(self, w: FloatArray) -> FloatArray:
        return times(self.x, w)

    def sum(self, coefficients: FloatArray) -> FloatArray:
        return times(self.columns, coefficients)

    def few(self, coefficients: FloatArray) -> Index | None:
        """Return the rows whose coefficients are not 0, if rows are many and these so few that others are passed over.

        As after mini-batches, which touch few rows of a large node.
        """
        if coefficients.ndim > 1 or self.stored < LARGE:
            return None
        touched = np.flatnonzero(coefficients)
        return touched if FEW * touched.size < coefficients.size else None

    def products(self, matrix: FloatArray) -> FloatArray:
        """Return z_i·w for each column w of a (d, k) matrix, (n, k)."""
        return np.asarray(self.x @ matrix)

    def sums(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i for each column c of an (n, k) matrix, (d, k)."""
        return np.asarray(self.columns @ coefficients)

    def spread(self, coefficients: FloatArray, weights: FloatArray) -> FloatArray:
        return self.moment(weights * (coefficients * (1.0 - coefficients)))

    def by_gram(self, gram: FloatArray, coefficients: FloatArray, samples: Index | None = None) -> FloatArray:
        return times(gram if samples is None else gram[samples], coefficients)

    def moving(self, gram: FloatArray, margins: FloatArray, coefficients: FloatArray) -> Callable[[], FloatArray]:
        products, by_row = np.empty((*margins.shape, 1)), coefficients[..., None]
        at = products[..., 0]

        def after() -> FloatArray:
            np.matmul(gram, by_row, products)
            return np.add(margins, at, at)

        return after

    @cached_property
    def _lengths(self) -> FloatArray:
        return np.asarray(np.sqrt(self.squares))

    def shares(self, coefficients: FloatArray, power: int) -> FloatArray:
        sizes = np.abs(coefficients)[..., None]
        if power == 0:
            return np.asarray(sizes * (self._lengths > 0))
        return np.asarray(sizes * (self._lengths if power == 1 else self.squares))

    def spread_shares(self, coefficients: FloatArray) -> FloatArray:
        return self.shares(coefficients * (1.0 - coefficients), 2)

    def explicit(self) -> Rows:
        out: Rows = self.x
        return out
