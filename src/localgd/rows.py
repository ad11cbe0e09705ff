"""Rows: what a node holds, read-only, and what can be asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Never, Self, TypeAlias

import numpy as np
from scipy.sparse import csr_array, issparse

from localgd.rounding import (
    CANCELS,
    COMFORTABLE_EXPONENT,
    TINY,
    UNIT_ROUNDOFF,
    FloatArray,
    acos_above,
    below,
    norm,
    norm_above,
)

Rows: TypeAlias = "FloatArray | csr_array[np.float64]"


def frozen(array: Any, dtype: Any = np.float64) -> FloatArray:
    """Return `array` as read-only float64; a copy if it, or what it is a view of, can be written to."""
    out = np.asarray(array, dtype=dtype)
    owner = out
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return sealed(out.copy(), dtype) if out.flags.writeable or owner.flags.writeable else out


def sealed(array: Any, dtype: Any = np.float64) -> FloatArray:
    """Make an array of our own read-only float64 in place, without a copy."""
    out = np.asarray(array, dtype=dtype)
    out.flags.writeable = False
    return out


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


@dataclass(frozen=True, eq=False)
class Dual:
    """A vector s and what is proved of it: s = Σ q_i z_i up to an error of norm `error`, q >= 0 and Σ q_i >= `mass`.

    Then γ* <= |s|/Σ q_i for the pooled margin γ*, and cos∠(s, u*) >= γ* Σ q_i/|s|: a dual speaks of rows, not of a
    model. Vector, mass and error are one value. ``Dual(vector)`` proves nothing: its mass is NaN. What proves something
    comes from `Shard.combination`, and from sums and non-negative multiples of such duals, which count their own
    rounding. A vector that was changed by hand (cut to its largest entries, rounded to a few bits) has no mass.

    Parameters
    ----------
    vector : (d,) float64 array
        s.

    Examples
    --------
    >>> s = Shard("a", [[3.0, 0.0], [0.0, 4.0]]).combination(np.array([1.0, 1.0]))
    >>> s.vector.tolist(), round(s.mass, 12), round((2 * s + s).margin_upper, 12)
    ([3.0, 4.0], 2.0, 2.5)
    >>> Dual(s.vector).known, (-1 * s).known
    (False, False)
    """

    __array_ufunc__: ClassVar[None] = None  # NumPy's numbers leave multiplication to `__rmul__`

    vector: FloatArray
    _mass: float = field(default=math.nan, init=False, repr=False)
    _error: float = field(default=math.nan, init=False, repr=False)
    n_folded: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the vector read-only."""
        object.__setattr__(self, "vector", frozen(self.vector))

    @classmethod
    def proved(cls, vector: FloatArray, mass: float, error: float, n_folded: int = 0) -> Self:
        """Return a dual whose mass and error somebody vouches for: code that reads what another process has proved.

        Parameters
        ----------
        vector : (d,) float64 array
            s; made read-only in place.
        mass, error : float
            A lower bound on Σ q_i and an upper bound on the error.
        n_folded : int, at least 0
            Duals of single nodes that were added up without a look at the rounding of their weights and of the sums:
            `mass` and `error` then count it.
        """
        dual = cls(sealed(vector))
        for name, value in (("_mass", float(mass)), ("_error", float(error)), ("n_folded", n_folded)):
            object.__setattr__(dual, name, value)
        return dual

    @classmethod
    def zeros(cls, n_features: int) -> Self:
        """Return the empty combination."""
        return cls.proved(np.zeros(n_features), 0.0, 0.0)

    @property
    def mass(self) -> float:
        """Lower bound on Σ q_i; NaN if nothing is proved."""
        return below(self._mass, self.n_folded) if self.n_folded else self._mass

    @property
    def error(self) -> float:
        """Upper bound on |s − Σ q_i z_i|; NaN if nothing is proved."""
        # n + 2 roundings (weights, the fold over n nodes, what is done with it) of what each node's error counts 8 u of
        return self._error * (2 + self.n_folded) if self.n_folded else self._error

    @property
    def parts(self) -> tuple[float, float]:
        """Mass and error as they add over nodes, without the rounding of the fold: what travels, with the vector."""
        return self._mass, self._error

    @property
    def known(self) -> bool:
        """Whether it says anything: NaN, infinite or vanishing masses do not."""
        return 0 < self.mass < math.inf and self.error < math.inf

    @property
    def margin_upper(self) -> float:
        """Upper bound |s|/Σ q_i on γ*; inf where nothing is known."""
        if not self.known:
            return math.inf
        return (norm_above(self.vector) + self.error) / self.mass * (1 + 8 * UNIT_ROUNDOFF) + TINY

    @property
    def cancels(self) -> bool:
        """Whether s is 0 to within rounding: Gordan's proof, as far as float64 goes, that nothing separates them."""
        above_underflow = self.error > self.vector.size * TINY / UNIT_ROUNDOFF  # else the error is all absolute part
        return self.known and above_underflow and norm(self.vector) <= CANCELS * self.error

    def angle(self, gamma: float) -> float:
        """Upper bound in radians on ∠(s, u*) if γ* >= gamma."""
        if not self.known:
            return math.inf
        along = gamma * self.mass * (1 - 8 * UNIT_ROUNDOFF) - self.error - TINY
        return acos_above(along, norm_above(self.vector))

    def weighted(self, weight: float) -> Dual:
        """Return it times a node's weight, for the fold over the nodes, which counts the rounding of both."""
        return Dual.proved(weight * self.vector, weight * self.mass, weight * self.error, 1)

    def folded(self, other: Dual) -> Dual:
        """Return the sum of two nodes' duals; the fold's rounding is counted by how many there are."""
        vector = self.vector + other.vector
        n_folded = max(self.n_folded, 1) + max(other.n_folded, 1)
        return Dual.proved(vector, self._mass + other._mass, self._error + other._error, n_folded)

    def over(self, weight: float, factor: float = 1.0) -> Dual:
        """Return it times factor/weight, known numbers that multiply coefficients and vector alike."""
        # However they came about and were rounded does not matter; a quotient that underflows is less wrong than what
        # the mass was rounded down by; the two roundings of the vector are among those of the fold.
        return Dual.proved(
            factor * (self.vector / weight), factor * (self.mass / weight), factor * (self.error / weight)
        )

    def __add__(self, other: Dual) -> Dual:
        vector = self.vector + other.vector
        error = self.error + other.error + 4 * UNIT_ROUNDOFF * (norm(self.vector) + norm(vector))
        return Dual.proved(vector, below(self.mass + other.mass, 2), error)

    def __rmul__(self, share: float) -> Dual:
        vector = share * self.vector
        if not share >= 0:
            return Dual(sealed(vector))
        error = share * self.error + 4 * UNIT_ROUNDOFF * norm(vector) + vector.size * TINY
        return Dual.proved(vector, below(share * self.mass, 2), error)

    def mixed(self, share: float, other: Dual) -> Dual:
        """Return ``share·self + other`` for a share >= 0, in one go."""
        vector = share * self.vector + other.vector
        error = 4 * UNIT_ROUNDOFF * (share * norm(self.vector) + norm(vector)) + vector.size * TINY
        error += (share * self.error + other.error) * (1 + 1e-15)
        return Dual.proved(vector, below(share * self.mass + other.mass, 3), error)


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

    Raises
    ------
    ValueError
        If there is no row, an entry is not finite, or the rows do not make whole samples.

    Examples
    --------
    >>> shard = Shard("a", [[3.0, 4.0], [0.0, 1.0]])
    >>> shard.n_rows, shard.n_features, round(shard.radius, 12)
    (2, 2, 5.0)
    """

    node_id: str
    rows: Rows
    versus: int = field(default=1, kw_only=True)

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
            return sealed(np.ldexp(above, exponents) + TINY)

    @property
    def radius(self) -> float:
        """Upper bound on the largest row norm max |z_i|."""
        return float(self.norms.max())

    @cached_property
    def gram(self) -> FloatArray:
        """Inner products of the rows, (n, n)."""
        product: Any = self.rows @ self.rows.T
        return sealed(product.toarray() if isinstance(self.rows, csr_array) else product)

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

    def combine(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,)."""
        return np.asarray(self.rows.T @ coefficients)

    def combination(self, coefficients: FloatArray) -> Dual:
        """Return Σ a_i z_i as a dual vector, which proves nothing if some a_i is negative.

        Examples
        --------
        >>> Shard("a", [[3.0, 4.0]]).combination(np.array([-1.0])).known
        False
        """
        vector = self.combine(coefficients)
        if not (coefficients >= 0).all():
            return Dual(sealed(vector))
        return Dual.proved(vector, below(coefficients.sum(), self.n_rows), self.combine_error(coefficients))

    def second_moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d)."""
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
        exponents = math.frexp(self.peak)[1], max(math.frexp(float(np.abs(self.targets).max()))[1], 0)
        if max(abs(exponent) for exponent in exponents) > COMFORTABLE_EXPONENT:
            raise ValueError(f"node {self.node_id!r} has entries of extreme size; give rows or targets in another unit")

    def margins(self, w: FloatArray) -> Never:  # noqa: ARG002  there is no w that it could take
        """Refuse: rows without a sign have no margins, and a classifier trained on them would mean nothing."""
        raise TypeError(f"node {self.node_id!r} holds real targets, not signed rows: use fit_squares, not a classifier")

    def residuals(self, w: FloatArray) -> FloatArray:
        """Return y_i − x_i·w for every row, shape (n,)."""
        return np.asarray(self.targets - self.rows @ w)
