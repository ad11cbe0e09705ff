"""Rows: what a node holds, read-only, and what can be asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Never, TypeAlias

import numpy as np
from scipy.sparse import csr_array, issparse

from localgd.limits import Limits
from localgd.rounding import COMFORTABLE_EXPONENT, TINY, UNIT_ROUNDOFF, Dual, FloatArray, below, frozen, read_only

MOST_APART = 1e12
"""How many times longer than another a row may be."""

Rows: TypeAlias = "FloatArray | csr_array[np.float64]"


def _sealed_csr(given: Any) -> csr_array[np.float64]:
    rows = csr_array(given, dtype=np.float64, copy=True)
    if rows.nnz and not 0 <= rows.indices.min() <= rows.indices.max() < rows.shape[1]:
        outside = rows.indices.max() if rows.indices.min() >= 0 else rows.indices.min()
        raise ValueError(
            f"CSR rows name column {outside}, but there are {rows.shape[1]}; mend the indices or the shape"
        )
    rows.check_format(full_check=True)
    rows.sum_duplicates()
    for part in (rows.data, rows.indices, rows.indptr):
        part.flags.writeable = False
    return rows


def _squares(rows: Any, versus: int) -> FloatArray:
    """Return |z|² of rows, (n, 1); of rows that many classes share, in every class's part, (n, C)."""
    n_features = int(rows.shape[1])
    n_parts = versus + 1 if versus > 1 and n_features % (versus + 1) == 0 else 1
    squares = rows.multiply(rows) if isinstance(rows, csr_array) else np.square(rows)
    return np.asarray(squares @ np.repeat(np.eye(n_parts), n_features // n_parts, axis=0))


@dataclass(frozen=True, eq=False)
class Shard:
    """One node's signed rows ``z = y·x``; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    rows : (n, d) float64 array or CSR array
        Signed rows, finite, at least one. A bias is one more column holding y.
    versus : int, at least 1
        How many rows next to each other speak for one sample: 1 for two classes, C − 1 for C classes, one against each
        class that the sample is not of (`localgd.data.classes.expanded`). The sample is right if all of them are.
    limits : Limits, optional
        What may be summed of the rows for others, as the node's operator says; anything by default.

    Raises
    ------
    ValueError
        If there is no row, an entry is not finite, the largest is beyond 2^±100, rows that are not 0 differ more than
        1e12-fold in length, or the rows do not make whole samples.

    Examples
    --------
    >>> shard = Shard("a", [[3.0, 4.0], [0.0, 1.0]])
    >>> shard.n_rows, shard.n_features, round(shard.radius, 12)
    (2, 2, 5.0)
    """

    node_id: str
    rows: Rows
    versus: int = field(default=1, kw_only=True)
    limits: Limits | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        """Check the rows once and freeze them."""
        given: Any = self.rows
        rows: Rows = _sealed_csr(given) if issparse(given) else frozen(given)
        if rows.ndim != 2 or rows.shape[0] == 0:
            raise ValueError(f"node {self.node_id!r} has no rows (shape {rows.shape}); give it at least one or drop it")
        values = rows.data if isinstance(rows, csr_array) else rows
        if not np.isfinite(values).all():
            raise ValueError(f"node {self.node_id!r} has NaN or infinite entries; impute or remove those rows")
        if self.versus < 1 or rows.shape[0] % self.versus:
            raise ValueError(
                f"node {self.node_id!r}: versus={self.versus!r} does not divide its {rows.shape[0]} rows; give every "
                "sample one row for each class that it is not of"
            )
        object.__setattr__(self, "rows", rows)
        self._check_sizes(self.peak)

    def _check_sizes(self, peak: float) -> None:
        """Refuse entries whose products leave float64, and rows so unlike in length that sums forget the short ones."""
        if peak > 0 and abs(math.frexp(peak)[1]) > COMFORTABLE_EXPONENT:
            what = f"entries of extreme size (the largest is {peak:.0e})"
        elif peak > 0 and self.shortest * MOST_APART < self.radius:
            what = f"rows of lengths from {self.shortest:.0e} to {self.radius:.0e}, more than 1e12 apart"
        else:
            return
        raise ValueError(f"node {self.node_id!r} has {what}; scale the columns, or give them in another unit")

    @property
    def n_rows(self) -> int:
        """Number of rows n."""
        return int(self.rows.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of samples: of rows, for two classes."""
        return self.n_rows // self.versus

    @property
    def n_features(self) -> int:
        """Number of columns d, the bias column included."""
        return int(self.rows.shape[1])

    @cached_property
    def row_length(self) -> int:
        """Most entries that one inner product with a row adds up (d, or the fullest row's non-zeros)."""
        if isinstance(self.rows, csr_array):
            return int(np.diff(self.rows.indptr).max(initial=0))
        return self.n_features

    @cached_property
    def peak(self) -> float:
        """Largest entry in absolute value."""
        rows: Any = self.rows
        return float(np.abs(rows.data if isinstance(rows, csr_array) else rows).max(initial=0.0))

    @cached_property
    def norms(self) -> FloatArray:
        """Upper bounds on the row norms |z_i|, shape (n,), whatever their sizes: each row is scaled by its own."""
        rows: Any = self.rows
        if isinstance(rows, csr_array):
            of_row = np.repeat(np.arange(self.n_rows), np.diff(rows.indptr))
            exponents = np.frexp(abs(rows).max(axis=1).toarray().ravel())[1]
            values = np.square(np.ldexp(rows.data, -exponents[of_row]))
            squares = np.bincount(of_row, weights=values, minlength=self.n_rows)
        else:
            exponents = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1]
            scaled = np.ldexp(rows, -exponents[:, None])
            squares = np.einsum("ij,ij->i", scaled, scaled)
        above = np.sqrt(squares) * (1 + (2 * self.row_length + 16) * UNIT_ROUNDOFF)
        with np.errstate(over="ignore"):  # a norm beyond float64 is infinite, and says so
            return read_only(np.ldexp(above, exponents) + TINY)

    @cached_property
    def radius(self) -> float:
        """Upper bound on the largest row norm max |z_i|."""
        return float(self.norms.max())

    @cached_property
    def shortest(self) -> float:
        """The least row norm, rows of zeros apart; inf if there is no other."""
        rows: Any = self.rows
        if isinstance(rows, csr_array):
            filled = np.asarray(abs(rows).max(axis=1).toarray()).ravel() > 0
        else:
            filled = rows.any(axis=1)
        return float(self.norms[filled].min(initial=math.inf))

    @cached_property
    def token(self) -> object:
        """What a dual made of these rows is known by."""
        return object()

    @cached_property
    def columns(self) -> Any:
        """The rows the other way round, a view of them, (d, n)."""
        return self.rows.T

    @cached_property
    def gram(self) -> FloatArray:
        """Inner products of the rows, (n, n)."""
        if self.limits is not None:
            self.limits.bear(float(self.n_rows) ** 2, f"an n×n sum of {self.n_rows} rows")
        product: Any = self.rows @ self.rows.T
        return read_only(product.toarray() if isinstance(self.rows, csr_array) else product)

    def margins(self, w: FloatArray) -> FloatArray:
        """Return z_i·w for every row, shape (n,)."""
        return np.asarray(self.rows @ w)

    def n_right(self, margins: FloatArray) -> int:
        """Return how many samples have no row of margin <= 0.

        Examples
        --------
        >>> Shard("a", np.eye(4), versus=2).n_right(np.array([1.0, 2.0, 3.0, -1.0]))
        1
        """
        right = margins > 0
        return int(np.count_nonzero(right if self.versus == 1 else right.reshape(-1, self.versus).all(axis=1)))

    @cached_property
    def _squares(self) -> FloatArray:
        """|z_i|² of every row, (n, 1); in every class's part of it apart, (n, C), if there are many classes."""
        return _squares(self.rows, self.versus)

    def _by_sample(self, shares: FloatArray) -> FloatArray:
        """Return the shares of rows, (n, k), summed over the rows that speak for one sample."""
        return np.asarray(shares.reshape(self.n_samples, self.versus, -1).sum(axis=1))

    def permit(self, coefficients: FloatArray) -> None:
        """Refuse Σ c_i z_i, or one class's part of it, if it rests on fewer rows than the limits say.

        Raises
        ------
        RefusedError
            If it does.
        """
        if self.limits is not None:
            sizes, lengths = np.abs(coefficients)[:, None], np.sqrt(self._squares)
            # by the coefficients alone, too: a few long rows with small ones would hide a short row, not cover it
            self.limits.rest(self._by_sample(np.hstack([sizes * lengths, sizes * (lengths > 0)])))

    def permit_squares(self, coefficients: FloatArray, means: Rows | None = None) -> None:
        """Refuse Σ c_i z_i z_iᵀ, less s sᵀ of every sample's mean s, if it is too large or rests on too few rows.

        Raises
        ------
        RefusedError
            If so.
        """
        if self.limits is None:
            return
        self.limits.bear(float(self.n_features) ** 2, f"a d×d sum of {self.n_features} columns")
        shares = self._by_sample(np.abs(coefficients)[:, None] * self._squares)
        self.limits.rest(shares if means is None else np.maximum(shares - _squares(means, self.versus), 0.0))

    def combine(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,), if that may leave the node: see `limits`."""
        self.permit(coefficients)
        return self.own_sum(coefficients)

    def own_sum(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,), for the node's own use: no report may hold it, or what shows it."""
        return np.asarray(self.columns @ coefficients)

    def combination(self, coefficients: FloatArray) -> Dual:
        """Return Σ a_i z_i as a dual vector, which proves nothing if some a_i is negative.

        Examples
        --------
        >>> Shard("a", [[3.0, 4.0]]).combination(np.array([-1.0])).known
        False
        """
        vector = self.combine(coefficients)
        if not (coefficients >= 0).all():
            return Dual(read_only(vector))
        mass, error = below(coefficients.sum(), self.n_rows), self.combine_error(coefficients)
        return Dual.proved(vector, mass, error, of=self.token)

    def second_moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d), if that may leave the node: see `limits`."""
        self.permit_squares(coefficients)
        return self.own_second_moment(coefficients)

    def own_second_moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d), for the node's own use."""
        rows: Any = self.rows
        if isinstance(rows, csr_array):
            return np.asarray((rows.T @ rows.multiply(coefficients[:, None])).toarray())
        return np.asarray(rows.T @ (rows * coefficients[:, None]))

    def margin_error(self, w_norm: float) -> float:
        """Bound on the rounding error of one computed margin z_i·w, from n·u·|z||w| for n-term inner products."""
        return 2 * (self.row_length + 2) * UNIT_ROUNDOFF * self.radius * w_norm + self.n_features * TINY

    def combine_error(self, coefficients: FloatArray) -> float:
        """Bound on the rounding error of a computed Σ a_i z_i, a >= 0, from n·u·Σ a_i |z_i| for n-term sums."""
        length = float((coefficients * self.norms).sum())
        return 2 * (self.n_rows + 4) * UNIT_ROUNDOFF * length + self.n_features * TINY


@dataclass(frozen=True, eq=False)
class Samples(Shard):
    """One node's rows x and their real targets y; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    rows : (n, d) float64 array or CSR array
        Rows x, finite, at least one, not signed by anything. An intercept is one more column of ones.
    targets : (n,) float64 array
        Targets y, finite, one per row.
    versus : int
        1: every row is a sample of its own.
    limits : Limits, optional
        What may be summed of the rows for others, as the node's operator says; anything by default.

    Raises
    ------
    ValueError
        If rows and targets do not fit each other, an entry is not finite, or the largest one is beyond 2^±100, so that
        its square might not be a float64.

    Examples
    --------
    >>> Samples("a", [[3.0, 4.0]], [5.0]).residuals(np.array([1.0, 0.0])).tolist()
    [2.0]
    """

    targets: FloatArray

    def __post_init__(self) -> None:
        """Check rows and targets once and freeze them."""
        super().__post_init__()
        object.__setattr__(self, "targets", frozen(self.targets))
        if self.targets.shape != (self.n_rows,):
            raise ValueError(
                f"node {self.node_id!r} has {self.n_rows} rows but targets of shape {self.targets.shape}; "
                f"give one target per row, shape ({self.n_rows},)"
            )
        if not np.isfinite(self.targets).all():
            raise ValueError(f"node {self.node_id!r} has NaN or infinite targets; impute or remove those rows")
        if math.frexp(float(np.abs(self.targets).max()))[1] > COMFORTABLE_EXPONENT:
            raise ValueError(f"node {self.node_id!r} has targets of extreme size; give them in another unit")

    def margins(self, w: FloatArray) -> Never:  # noqa: ARG002  there is no w that it could take
        """Refuse: rows without a sign have no margins, and a classifier trained on them would mean nothing."""
        raise TypeError(f"node {self.node_id!r} holds real targets, not signed rows: look for LeastSquares()")

    def residuals(self, w: FloatArray) -> FloatArray:
        """Return y_i − x_i·w for every row, shape (n,)."""
        return np.asarray(self.targets - self.rows @ w)
