"""Rows of many classes: a sample is compared with every class that it is not of, and none of that is written out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.layouts.csr import Csr
from localgd.layouts.dense import Dense
from localgd.layouts.layout import Index, Layout, Single
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, is_whole, read_only, real_array


@dataclass(frozen=True, eq=False)
class ClassRows(Layout):
    """The rows (e_y − e_c)⊗x, c ≠ y in ascending order, of every sample (x, y): C − 1 each, of C·d columns.

    With w = W.ravel(), W one row of coefficients per class, the margin of such a row is w_y·x − w_c·x: the sample is
    right exactly if all its margins are above 0, and the max-margin w is the hard-margin multi-class model. Margins and
    sums are products of x, (n, d), with (d, C) and (n, C).

    Parameters
    ----------
    x : (n, d) float64 array, CSR array or Layout of one sample a row
        The plain rows; a last column of ones if there is a bias.
    codes : (n,) int array
        The classes y from 0 to C − 1, of which a node may lack some.
    n_classes : int, at least 2
        C.

    Raises
    ------
    ValueError
        If codes do not fit rows or classes.

    Examples
    --------
    >>> rows = ClassRows(np.array([[1.0, 2.0]]), np.array([1]), 3)
    >>> rows.explicit().toarray()
    array([[-1., -2.,  1.,  2.,  0.,  0.],
           [ 0.,  0.,  1.,  2., -1., -2.]])
    >>> rows.margins(np.arange(6.0)).tolist(), rows.sum(np.array([1.0, 10.0])).tolist()
    ([6.0, -6.0], [-1.0, -2.0, 11.0, 22.0, -10.0, -20.0])
    """

    x: Any
    codes: NDArray[np.intp]
    n_classes: int

    def __post_init__(self) -> None:
        given = real_array("codes", self.codes)
        with np.errstate(invalid="ignore"):
            codes = given.astype(np.intp)
        if not np.array_equal(codes, given):
            raise ValueError(f"codes must be whole numbers, got {np.asarray(self.codes)!r}")
        codes.flags.writeable = False
        object.__setattr__(self, "codes", codes)
        if not isinstance(self.x, Single):
            object.__setattr__(self, "x", Csr(self.x) if issparse(self.x) else Dense(self.x))
        if not is_whole(self.n_classes, least=2):
            raise ValueError(f"n_classes must be a whole number of at least 2, got {self.n_classes!r}")
        if len(self.x.shape) != 2:
            raise ValueError(f"x must be a table of rows, shape (n, d), got shape {self.x.shape}")
        if codes.shape != self.x.shape[:1]:
            raise ValueError(f"{self.x.shape[0]} rows need as many codes, got those of shape {codes.shape}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.n_classes:
            raise ValueError(f"codes must be 0 to {self.n_classes - 1}, got {codes.min()} to {codes.max()}")

    @property
    def versus(self) -> int:  # type: ignore[override]  # one number for all rows either way
        """C − 1."""
        return self.n_classes - 1

    @property
    def shape(self) -> tuple[int, int]:
        n, d = self.x.shape
        return n * self.versus, d * self.n_classes

    @property
    def stored(self) -> int:
        return int(self.x.stored)

    @property
    def row_length(self) -> int:
        return 2 * int(self.x.row_length)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (*self.x.parts, self.codes)

    @property
    def finite(self) -> bool:
        return bool(self.x.finite)

    @property
    def peak(self) -> float:
        return float(self.x.peak)

    @cached_property
    def norms(self) -> FloatArray:
        return read_only(np.repeat(self.x.norms * (math.sqrt(2.0) * (1 + 4 * UNIT_ROUNDOFF)), self.versus))

    @property
    def trace(self) -> float:
        return 2 * self.versus * float(self.x.trace)

    @property
    def gram(self) -> FloatArray:
        return np.asarray(self.x.gram)

    @cached_property
    def _others(self) -> Index:
        """Every class but y, in order, (n, C − 1)."""
        places = np.arange(self.versus)
        return np.asarray(places + (places >= self.codes[:, None]))

    def _against(self, scores: FloatArray) -> FloatArray:
        """Return the margins of every sample's own score over the others, from scores (n, C)."""
        own = np.take_along_axis(scores, self.codes[:, None], 1)
        return np.asarray((own - np.take_along_axis(scores, self._others, 1)).ravel())

    def _by_class(self, coefficients: FloatArray) -> FloatArray:
        """Return b, (n, C), with Σ c z = bᵀx: what coefficients of rows add to the class of a sample, and take off."""
        of_sample = coefficients.reshape(-1, self.versus)
        out = np.empty((of_sample.shape[0], self.n_classes))
        np.put_along_axis(out, self._others, -of_sample, 1)
        np.put_along_axis(out, self.codes[:, None], of_sample.sum(axis=1, keepdims=True), 1)
        return out

    def scores(self, w: FloatArray) -> FloatArray:
        """Return w_c·x of every sample and class, (n, C)."""
        return np.asarray(self.x.products(np.ascontiguousarray(w.reshape(self.n_classes, -1).T)))

    def margins(self, w: FloatArray) -> FloatArray:
        return self._against(self.scores(w))

    def sum(self, coefficients: FloatArray) -> FloatArray:
        return self.class_sum(self._by_class(coefficients))

    def class_sum(self, shares: FloatArray) -> FloatArray:
        """Return Σ_i q_ik x_i for every class k next to each other, (C·d,), from shares q, (n, C)."""
        return np.asarray(self.x.sums(shares).T.ravel())

    def class_shares(self, shares: FloatArray, power: int) -> FloatArray:
        """Return what every sample adds to each class's part of `class_sum`, as `shares`, (n, C)."""
        return np.asarray(np.abs(shares) * self.x.shares(np.ones(len(shares)), power))

    @property
    def own(self) -> FloatArray:
        """1 at the class of every sample, else 0, (n, C)."""
        return np.asarray(np.eye(self.n_classes)[self.codes])

    def relative(self, margins: FloatArray) -> FloatArray:
        """Return the scores of every class less that of the sample's own, (n, C), from the margins.

        Examples
        --------
        >>> ClassRows(np.eye(2), np.array([1, 0]), 3).relative(np.array([6.0, -6.0, 1.0, 2.0])).tolist()
        [[-6.0, 0.0, 6.0], [0.0, -1.0, -2.0]]
        """
        out = np.zeros((len(self.codes), self.n_classes))
        np.put_along_axis(out, self._others, -margins.reshape(-1, self.versus), 1)
        return out

    def moment(self, coefficients: FloatArray) -> FloatArray:
        return self._moment(coefficients, np.ones(len(self.codes)), 0.0)

    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        return np.asarray(self.x.diagonal(np.abs(self._by_class(coefficients))).T.ravel())

    def spread(self, coefficients: FloatArray, weights: FloatArray) -> FloatArray:
        return self._moment(coefficients, weights, 1.0)

    def _moment(self, coefficients: FloatArray, weights: FloatArray, less: float) -> FloatArray:
        """Return Σ c z zᵀ − less · Σ s sᵀ: x xᵀ times Σ_c c (e_y − e_c)(e_y − e_c)ᵀ − less · b bᵀ and the weights."""
        b, d, n_classes = self._by_class(coefficients), self.x.shape[1], self.n_classes
        own = np.zeros(b.shape, dtype=bool)
        np.put_along_axis(own, self.codes[:, None], values=True, axis=1)
        out = np.empty((n_classes, d, n_classes, d))
        for k in range(n_classes):
            for m in range(k + 1):
                # −c of the other class, where one of them is the sample's own
                apart = np.where(own[:, k], b[:, m], np.where(own[:, m], b[:, k], 0.0))
                shares = np.where(own[:, k], b[:, k], -b[:, k]) if k == m else apart
                block = self.x.moment(weights * (shares - less * b[:, k] * b[:, m]))
                out[k, :, m], out[m, :, k] = block, block
        return out.reshape(self.shape[1], self.shape[1])

    def by_gram(self, gram: FloatArray, coefficients: FloatArray, samples: Index | None = None) -> FloatArray:
        some, held = (gram, self) if samples is None else (gram[samples], self.take(samples))
        return held._against(some @ self._by_class(coefficients))  # noqa: SLF001  its own kind

    def take(self, samples: Index) -> ClassRows:
        return ClassRows(self.x.take(samples), self.codes[samples], self.n_classes)

    def over(self, length: float) -> Self:
        return type(self)(self.x.over(length), self.codes, self.n_classes)

    def shares(self, coefficients: FloatArray, power: int) -> FloatArray:
        parts = np.abs(self._by_class(np.abs(coefficients)))
        return np.asarray(parts * self.x.shares(np.ones(len(parts)), power))

    def spread_shares(self, coefficients: FloatArray) -> FloatArray:
        b = self._by_class(coefficients)
        return np.asarray(np.maximum(np.abs(b) - b * b, 0.0) * self.x.shares(np.ones(len(b)), 2))

    def explicit(self) -> csr_array[np.float64]:
        x = csr_array(self.x.explicit())
        d = x.shape[1]
        wide = csr_array(x[np.repeat(np.arange(x.shape[0]), self.versus)])
        row = np.repeat(np.arange(wide.shape[0]), np.diff(wide.indptr))
        own, other = np.repeat(self.codes, self.versus)[row], self._others.ravel()[row]
        columns = np.concatenate([wide.indices + d * own, wide.indices + d * other])
        entries = (np.concatenate([wide.data, -wide.data]), (np.concatenate([row, row]), columns))
        return csr_array(entries, shape=self.shape)

    def filled(self) -> NDArray[np.bool_]:
        return np.repeat(self.x.filled(), self.versus)
