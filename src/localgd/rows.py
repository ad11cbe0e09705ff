"""Rows: what a node holds, read-only, and what can be asked of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Never

import numpy as np

from localgd.duals.dual import Dual
from localgd.layouts import Dense, Layout, laid
from localgd.layouts.layout import Rows
from localgd.limits import Limits
from localgd.rounding import COMFORTABLE_EXPONENT, TINY, UNIT_ROUNDOFF, FloatArray, below, read_only, real_array

MOST_APART = 1e12
"""How many times longer than another a row may be."""


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as a float, which overflows without a warning; an array, of many nodes, as it is."""
    return value if value.ndim else float(value)


@dataclass(frozen=True, eq=False)
class Shard:
    """One node's signed rows ``z = y·x``; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    data : (n, d) float64 or float32 array, CSR array or Layout
        Signed rows, finite, at least one. A bias is one more column holding y. Plain rows with their signs and what
        prepares them, also those of a file, are `localgd.Prepared`. Of many classes `localgd.ClassRows`: one row
        against each class that a sample is not of; the sample is right if all of them are.
    weights : (n_samples,) float64 array, optional
        What each sample counts, finite and at least 0; 1 by default. Samples of weight 0 are left out. A sample of
        weight 2 is two of weight 1 in every loss and every mean; the hard margin knows only which samples there are.
    limits : Limits, optional
        What may be summed of the rows for others, as the node's operator says; anything by default.

    Raises
    ------
    ValueError
        If weights do not fit the rows, there is no row, an entry is not finite, the largest is beyond 2^±100, or rows
        that are not 0 differ more than 1e12-fold in length.

    Examples
    --------
    >>> shard = Shard("a", [[3.0, 4.0], [0.0, 1.0]])
    >>> shard.n_rows, shard.n_features, round(shard.radius, 12)
    (2, 2, 5.0)
    """

    node_id: str
    data: Any
    weights: FloatArray | None = field(default=None, kw_only=True, repr=False)
    limits: Limits | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        """Check the rows once and freeze them."""
        if not isinstance(self.node_id, str):
            raise ValueError(f"node_id must be a text, got {self.node_id!r}")  # noqa: TRY004  a bad value
        if not isinstance(self.limits, Limits | None):
            raise TypeError(f"limits of node {self.node_id!r} must be Limits(…) or None, got {self.limits!r}")
        data = self._laid()
        if self.weights is not None:
            data = self._weighted(self.weights)
        if data.shape[0] == 0:
            raise ValueError(f"node {self.node_id!r} has no rows (shape {data.shape}); give it at least one or drop it")
        if not data.finite:
            raise ValueError(f"node {self.node_id!r} has NaN or infinite entries; impute or remove those rows")
        self._check_sizes(self.peak)

    def _laid(self) -> Any:
        """Lay the rows that were given; return them."""
        if not isinstance(self.data, Layout):
            try:
                object.__setattr__(self, "data", laid(self.data))
            except ValueError as error:
                raise ValueError(f"data of node {self.node_id!r}: {error}") from error
        data = self.data
        if len(data.shape) != 2 or (isinstance(data, Dense) and data.x.ndim > 2):
            what = f"must be a table of rows, shape (n, d), not of shape {data.shape}; one row alone is [[…]]"
            raise ValueError(f"data of node {self.node_id!r} {what}")
        return data

    def _weighted(self, given: Any) -> Any:
        """Leave out samples of weight 0, and weights that are all 1; return the rows."""
        weights = real_array(f"weights of node {self.node_id!r}", given)
        n_samples = self.data.shape[0] // self.data.versus
        if weights.shape != (n_samples,):
            of_shape = f"{n_samples} samples but weights of shape {weights.shape}"
            raise ValueError(f"node {self.node_id!r} has {of_shape}; give one each")
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"node {self.node_id!r} has weights that are not finite, or below 0; mend the samples")
        if not weights.any():
            raise ValueError(f"node {self.node_id!r} has no sample of a weight above 0; leave the node out")
        least, most = float(weights[weights > 0].min()), float(weights.max())
        if least * MOST_APART < most or abs(math.frexp(most)[1]) > COMFORTABLE_EXPONENT:
            what = f"weights from {least:.0e} to {most:.0e}: too far apart, or from 1"
            raise ValueError(f"node {self.node_id!r} has {what}; divide them by their mean, and drop the smallest")
        data, present = self.data, np.flatnonzero(weights)
        if present.size < weights.size:
            data, weights = data.take(present), read_only(weights[present])
            self._leave(present)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "weights", None if (weights == 1.0).all() else weights)
        return data

    def _leave(self, present: Any) -> None:
        """Leave what else there is of each sample, but for those that are present."""

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
    def rows(self) -> Rows:
        """The signed rows, (n, d), as an array or a CSR array; those of many classes are written out for it."""
        return self.data.explicit()  # type: ignore[no-any-return]

    @cached_property
    def versus(self) -> int:
        """How many rows next to each other speak for one sample: 1 for two classes, C − 1 for C classes."""
        return int(self.data.versus)

    @cached_property
    def n_rows(self) -> int:
        """Number of rows n."""
        return int(self.data.shape[0])

    @cached_property
    def n_samples(self) -> int:
        """Number of samples: of rows, for two classes."""
        return self.n_rows // self.versus

    @cached_property
    def total(self) -> float:
        """Σ of the weights: the number of samples, if they have none."""
        return float(self.n_samples if self.weights is None else self.weights.sum())

    @cached_property
    def of_rows(self) -> FloatArray | None:
        """The weight of each row as part of their mean, (n,); None without weights."""
        if self.weights is None:
            return None
        return read_only(np.repeat(self.weights * (self.n_samples / self.total), self.versus))

    def mean(self, values: FloatArray) -> Any:
        """Return the mean of values of rows, or of samples, each by its weight."""
        if self.weights is None:
            return _plain(values.mean(axis=-1))
        return _plain(self.weigh(values).sum(axis=-1)) / (self.total * (values.shape[-1] // self.n_samples))

    def weigh(self, values: FloatArray) -> FloatArray:
        """Return values of rows, or of samples, times the weight of each.

        Examples
        --------
        >>> Shard("a", [[1.0], [2.0]], weights=[0.5, 2.0]).weigh(np.array([10.0, 10.0])).tolist()
        [5.0, 20.0]
        """
        if self.weights is None:
            return values
        return np.asarray(np.repeat(self.weights, values.shape[-1] // self.n_samples, axis=-1) * values)

    @cached_property
    def n_features(self) -> int:
        """Number of columns d, the bias column included."""
        return int(self.data.shape[1])

    @cached_property
    def row_length(self) -> int:
        """Most entries that one inner product with a row adds up (d, or the fullest row's non-zeros)."""
        return int(self.data.row_length)

    @property
    def peak(self) -> float:
        """Largest entry in absolute value."""
        out: float = self.data.peak
        return out

    @property
    def norms(self) -> FloatArray:
        """Upper bounds on the row norms |z_i|, shape (n,), whatever their sizes: each row is scaled by its own."""
        return np.asarray(self.data.norms)

    @cached_property
    def radius(self) -> float:
        """Upper bound on the largest row norm max |z_i|."""
        out: float = _plain(self.norms.max(axis=-1))
        return out

    @cached_property
    def shortest(self) -> float:
        """The least row norm, rows of zeros apart; inf if there is no other."""
        out: float = _plain(np.where(self.data.filled(), self.norms, math.inf).min(axis=-1))
        return out

    @cached_property
    def token(self) -> object:
        """What a dual made of these rows is known by."""
        return object()

    @cached_property
    def gram(self) -> FloatArray:
        """Inner products of the rows, (n, n); of plain ones, a sample each, if there are many classes."""
        if self.limits is not None:
            self.limits.bear(float(self.n_samples) ** 2, f"an n×n sum of {self.n_samples} rows")
        return np.asarray(self.data.gram)

    def margins(self, w: FloatArray) -> FloatArray:
        """Return z_i·w for every row, shape (n,)."""
        return np.asarray(self.data.margins(w))

    def right(self, margins: FloatArray) -> Any:
        """Return how many samples have no row of margin <= 0, each by its weight.

        Examples
        --------
        >>> from localgd.layouts import ClassRows
        >>> Shard("a", ClassRows(np.eye(2), [0, 2], 3)).right(np.array([1.0, 2.0, 3.0, -1.0]))
        1.0
        """
        right = margins > 0 if self.versus == 1 else (margins > 0).reshape(-1, self.versus).all(axis=1)
        if self.weights is None:
            return _plain(1.0 * np.count_nonzero(right, axis=-1))
        return _plain(np.where(right, self.weights, 0.0).sum(axis=-1))

    def dual(self, vector: FloatArray) -> Any:
        """Return a vector of which nothing is proved, (d,), as a dual."""
        return Dual(read_only(vector))

    def permit(self, coefficients: FloatArray) -> None:
        """Refuse Σ c_i z_i, or one class's part of it, if it rests on fewer rows than the limits say.

        Raises
        ------
        RefusedError
            If it does.
        """
        if self.limits is not None:
            # by the coefficients alone, too: a few long rows with small ones would hide a short row, not cover it
            self.limits.rest(np.hstack([self.data.shares(coefficients, power) for power in (1, 0)]))

    def _permit_squares(self, shares: Callable[[], FloatArray]) -> None:
        """Refuse a d×d sum to which samples add these shares, if it is too large or rests on too few rows."""
        if self.limits is not None:
            self.limits.bear(float(self.n_features) ** 2, f"a d×d sum of {self.n_features} columns")
            self.limits.rest(shares())

    def _fitting(self, coefficients: Any) -> FloatArray:
        """Return coefficients as an array; refuse those that are not one real number a row."""
        given = np.asarray(coefficients)
        if given.shape[-1:] != (self.n_rows,) or given.dtype.kind not in "biuf":
            got = f"got {given.dtype} of shape {given.shape}"
            raise ValueError(f"coefficients must be {self.n_rows} real numbers, one a row of {self.node_id!r}, {got}")
        return given

    def combine(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,), if that may leave the node: see `limits`."""
        coefficients = self._fitting(coefficients)
        self.permit(coefficients)
        return self.own_sum(coefficients)

    def class_sum(self, shares: FloatArray) -> FloatArray:
        """Return Σ q_ik x_i for every class k, (C·d,), from shares (n_samples, C), if that may leave the node.

        Whoever also has Σ a_i z_i at the slopes a of these shares has the sum of each class's own samples: so those
        must be as many.
        """
        if self.limits is not None:
            own = self.data.own * self.weigh(np.ones(self.n_samples))[:, None]
            parts = [self.data.class_shares(part, power) for part in (shares, own) for power in (1, 0)]
            self.limits.rest(np.hstack(parts))
        return np.asarray(self.data.class_sum(shares))

    def own_sum(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,), for what stays on the node: no limit holds it, so a report must not show it."""
        return np.asarray(self.data.sum(coefficients))

    def combination(self, coefficients: FloatArray) -> Any:
        """Return Σ a_i z_i as a dual vector, which proves nothing if some a_i is negative.

        Examples
        --------
        >>> Shard("a", [[3.0, 4.0]]).combination(np.array([-1.0])).known
        False
        """
        coefficients = self._fitting(coefficients)
        vector = self.combine(coefficients)
        if not (coefficients >= 0).all():
            return self.dual(vector)
        mass, error = below(_plain(coefficients.sum()), self.n_rows), self.combine_error(coefficients)
        return Dual.proved(vector, mass, error, of=self.token)

    def second_moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d), if that may leave the node: see `limits`."""
        coefficients = self._fitting(coefficients)
        self._permit_squares(lambda: self.data.shares(coefficients, 2))
        return np.asarray(self.data.moment(coefficients))

    def diagonal(self, coefficients: FloatArray) -> FloatArray:
        """Return the diagonal of Σ c_i z_i z_iᵀ, c >= 0, shape (d,), if that may leave the node: see `limits`."""
        coefficients = self._fitting(coefficients)
        if self.limits is not None:
            self.limits.rest(self.data.shares(coefficients, 2))
        return np.asarray(self.data.diagonal(coefficients))

    def spread(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ less s sᵀ of every sample's s = Σ c_i z_i, each sample by its weight, (d, d).

        If that may leave the node.
        """
        weights = np.ones(self.n_samples) if self.weights is None else self.weights
        self._permit_squares(lambda: self.data.spread_shares(coefficients) * weights[:, None])
        return np.asarray(self.data.spread(coefficients, weights))

    def margin_error(self, w_norm: Any, radius: Any = None) -> Any:
        """Bound on the rounding error of one computed margin z_i·w, from n·u·|z||w| for n-term inner products.

        In other units of the columns: with |w| and max |z_i| in those.
        """
        longest = self.radius if radius is None else radius
        return 2 * (self.row_length + 2) * UNIT_ROUNDOFF * longest * w_norm + self.n_features * TINY

    def combine_error(self, coefficients: FloatArray, norms: FloatArray | None = None) -> Any:
        """Bound on the rounding error of a computed Σ a_i z_i, a >= 0, from n·u·Σ a_i |z_i| for n-term sums.

        In other units of the columns: with the row norms in those.
        """
        length = _plain((coefficients * (self.norms if norms is None else norms)).sum(axis=-1))
        return 2 * (self.n_rows + 4) * UNIT_ROUNDOFF * length + self.n_features * TINY


@dataclass(frozen=True, eq=False)
class Samples(Shard):
    """One node's rows x and their real targets y; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    data : (n, d) float64 array or CSR array
        Rows x, finite, at least one, not signed by anything. An intercept is one more column of ones.
    targets : (n,) float64 array
        Targets y, finite, one per row.
    weights : (n,) float64 array, optional
        What each row counts, as of `Shard`.
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
        object.__setattr__(self, "targets", real_array(f"targets of node {self.node_id!r}", self.targets))
        n_rows = self._laid().shape[0]
        if self.targets.shape != (n_rows,):
            got = f"targets of shape {self.targets.shape}; give one target per row, shape ({n_rows},)"
            raise ValueError(f"node {self.node_id!r} has {n_rows} rows but {got}")
        super().__post_init__()
        if not np.isfinite(self.targets).all():
            raise ValueError(f"node {self.node_id!r} has NaN or infinite targets; impute or remove those rows")
        if math.frexp(float(np.abs(self.targets).max()))[1] > COMFORTABLE_EXPONENT:
            raise ValueError(f"node {self.node_id!r} has targets of extreme size; give them in another unit")

    def _leave(self, present: Any) -> None:
        object.__setattr__(self, "targets", read_only(self.targets[present]))

    def margins(self, w: FloatArray) -> Never:  # noqa: ARG002  there is no w that it could take
        """Refuse: rows without a sign have no margins, and a classifier trained on them would mean nothing."""
        raise TypeError(f"node {self.node_id!r} holds real targets, not signed rows: look for LeastSquares()")

    def residuals(self, w: FloatArray) -> FloatArray:
        """Return y_i − x_i·w for every row, shape (n,)."""
        return np.asarray(self.targets - self.data.margins(w))
