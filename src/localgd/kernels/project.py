"""Exact Euclidean projection onto the rows' own half-spaces, by a dual active set. NumPy and SciPy only.

The half-space of a row is the same at any length of the row, so the work is done on rows of length 1: ``ẑ·v >= 1/|z|``.
The dual of the projection is a quadratic program in one number a_i >= 0 per row. Its iterates are *faces*: linearly
independent rows S whose margins are met exactly, with a_S > 0. Every step moves to a face of higher dual value, so no
face comes back and the number of steps is finite; a block of rows enters at once where that raises the value, else one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

from localgd.layouts.layout import Rows
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, norm
from localgd.rows import Shard

Index: TypeAlias = NDArray[np.intp]

MARGIN_TOL = 1e-11
"""Shortfall of a margin below 1 that counts as feasible, before the rounding error of the margin itself."""

SEPARABLE = 1e-8
"""Least margin, as part of a row's length, that counts as separable: below it the duals, 1/margin², exceed 1/eps."""

DEPENDENT = 1e-12
"""A row of length 1 that is this near to the span of others is taken to lie in it."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The outcome of a projection.

    Parameters
    ----------
    duals : (n,) float64 array, >= 0
        If `feasible`, the projection is ``w + Zᵀ duals``. If not, a Gordan vector: duals ≠ 0 and
        ``|Zᵀ duals| <= 1e-8 · Σ duals_i |z_i|``, which bounds the margin of every direction.
    feasible : bool
        Whether C was reached. If not, no direction has a cosine above 1e-8 with every row: the rows are not separable,
        or by less than 1e-8 of a row's length.
    """

    duals: FloatArray
    feasible: bool


class UnitRows(NamedTuple):
    """Rows z = length · 2^exponent · ẑ with |ẑ| = 1 and length >= 1; for a zero row ẑ = 0 and length = 0.

    No square of an entry under- or overflows on the way, so the rows may be of any size.
    """

    rows: Rows
    lengths: FloatArray
    exponents: NDArray[np.int_]

    def per_length(self, values: FloatArray | float, scale: int = 0) -> FloatArray:
        """Return ``2^scale · values / |z|``."""
        return np.asarray(np.ldexp(values / self.lengths, scale - self.exponents))

    def take(self, index: Index) -> UnitRows:
        """Return the rows of that index."""
        return UnitRows(self.rows[index], self.lengths[index], self.exponents[index])


def unit_rows(rows: Rows) -> UnitRows:
    """Return the rows at length 1 and how long they were."""
    if isinstance(rows, csr_array):
        of_row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        exponents = np.frexp(abs(rows).max(axis=1).toarray().ravel())[1].astype(int) - 1
        values = np.ldexp(rows.data, -exponents[of_row])
        lengths = np.sqrt(np.bincount(of_row, np.square(values), minlength=rows.shape[0]))
        values /= np.maximum(lengths, 1.0)[of_row]  # 1 for the stored zeros of a zero row
        return UnitRows(csr_array((values, rows.indices, rows.indptr), rows.shape), lengths, exponents)
    exponents = np.frexp(np.abs(rows).max(axis=1))[1].astype(int) - 1
    values = np.ldexp(rows, -exponents[:, None])
    lengths = np.sqrt(np.square(values).sum(axis=1))
    return UnitRows(values / np.maximum(lengths, 1.0)[:, None], lengths, exponents)


class Face(NamedTuple):
    """Rows `on` with positive `duals`, zero elsewhere; `ray` if the duals are a Gordan vector instead.

    `push` is ``Σ duals_i ẑ_i``, found as the shortest vector that meets the margins: to rounding of itself, where the
    sum would be off by rounding of Σ duals, which is larger by one over the margin.
    """

    on: Index
    duals: FloatArray
    push: FloatArray
    ray: bool = False


def project(shard: Shard, w: FloatArray, warm: FloatArray | None = None) -> Projection:
    """Project w onto C = {v : z·v >= 1 for every signed row z of the shard}.

    ``argmin_{v in C} ½|v − w|² = w + Zᵀα``, where α >= 0 maximises ``α·(1 − Zw) − ½|Zᵀα|²``. The lengths of the rows Z,
    (n, d), dense or CSR, may differ widely: every tolerance is per row. `warm` are the duals (n,) >= 0 of a nearby
    projection; they change the time, not the answer (up to rounding).

    The duals are exactly 0 if w is feasible. Margins reach 1 to 1e-11 plus rounding, a few eps times
    ``|z|·(|w|·(entries of a row) + Σ α_i |z_i|)``; where |w|·|z| exceeds 1e15 they drown in it. C is empty exactly if
    the rows are not separable (Gordan); margins of at most 1e-8 of the row lengths count as none.

    An ArithmeticError if rounding stops the ascent before every margin reaches 1 (rows dependent up to about 1e-12), or
    if the duals, about 1/margin², do not fit float64.

    Notes
    -----
    The dual active set of Goldfarb and Idnani (1983), *A numerically stable dual method for solving strictly convex
    quadratic programs*, started from the faces of a semismooth Newton method.

    Examples
    --------
    >>> shard = Shard("a", [[1.0, 0.0], [0.0, 1.0]])
    >>> found = project(shard, np.array([3.0, -1.0]))
    >>> found.duals, found.feasible
    (array([0., 2.]), True)
    >>> project(Shard("b", [[1.0], [-1.0]]), np.zeros(1))
    Projection(duals=array([1., 1.]), feasible=False)
    """
    unit = _coordinates(shard)
    duals = np.zeros(shard.n_rows)
    if not unit.lengths.all():
        duals[np.argmin(unit.lengths)] = 1.0  # a zero row has margin 0 with everything
        return Projection(duals, feasible=False)
    length, scale = norm(w), -int(unit.exponents.min())
    if length > 0:
        scale = max(scale, math.frexp(length)[1])
    target = unit.per_length(1.0, -scale)  # v in units of 2^scale is neither tiny nor huge
    gap = target - unit.per_length(shard.margins(np.ldexp(w, -scale)))
    tol = MARGIN_TOL * target + 4 * (shard.row_length + 2) * UNIT_ROUNDOFF * math.ldexp(length, -scale)
    if (gap <= tol).all():
        return Projection(duals, feasible=True)
    start = np.zeros(0, dtype=np.intp) if warm is None else np.flatnonzero(warm > 0)
    face = maximise(unit.rows, gap, start, tol / 2)
    held = unit.take(face.on)
    with np.errstate(over="ignore"):
        duals[face.on] = held.per_length(face.duals, int(held.exponents.min()) if face.ray else scale)
    if not TINY <= duals.max() < np.inf:
        raise ArithmeticError("projection: the duals, about 1/margin², do not fit float64; scale the rows")
    return Projection(duals, feasible=not face.ray)


_COORDINATES: WeakKeyDictionary[Shard, UnitRows] = WeakKeyDictionary()


def _coordinates(shard: Shard) -> UnitRows:
    if shard not in _COORDINATES:
        unit = unit_rows(shard.rows)
        _COORDINATES[shard] = unit._replace(rows=narrowed(unit.rows))
    return _COORDINATES[shard]


def narrowed(rows: Rows) -> Rows:
    """Return the rows in an orthonormal basis of their span where that is narrower: same inner products."""
    if isinstance(rows, csr_array):
        rows = csr_array(rows[:, np.unique(rows.indices)])
    if rows.shape[0] < rows.shape[1]:
        rows = np.ascontiguousarray(np.asarray(np.linalg.qr(dense(rows).T, mode="r")).T)
    return rows


def dense(rows: Rows) -> FloatArray:
    """Return the rows as a NumPy array."""
    return np.asarray(rows.toarray()) if isinstance(rows, csr_array) else rows


def maximise(rows: Rows, gap: FloatArray, start: Index, tol: FloatArray) -> Face:
    """Climb from face to face until no row of length 1 falls short of its gap, or a ray shows that there is no end.

    Any duals prove that no margin exceeds |Zᵀα|/Σα: where that is tiny, they are as good as a ray.
    """
    width = rows.shape[1]
    face = _settle(rows, gap, start)
    for _ in range(100 + 10 * width):
        length = norm(face.push)
        if face.on.size and length <= SEPARABLE * face.duals.sum():
            return face._replace(ray=True)
        short = gap - rows @ face.push
        short[face.on] = -np.inf
        violated = np.flatnonzero(short > tol + 4 * (2 + math.sqrt(width)) * UNIT_ROUNDOFF * length)
        if violated.size == 0:
            return face
        worst = violated[np.argsort(-short[violated], kind="stable")]
        block = _settle(rows, gap, np.concatenate([face.on, worst[:width]]))
        if gap[block.on] @ block.duals > (1 + 1e-12) * (gap[face.on] @ face.duals):
            face = block
            continue
        face = _enter(rows, gap, face, worst[0])
        if face.ray:
            return face
        face = _settle(rows, gap, face.on)
    raise ArithmeticError("projection: rounding stopped the ascent; scale the rows or remove near-contradictory ones")


def _settle(rows: Rows, gap: FloatArray, index: Index) -> Face:
    """Meet the margins of these rows exactly, without dependent rows and rows with duals <= 0."""
    while index.size:
        block = dense(rows[index])
        basis, factor = np.linalg.qr(block.T)
        pivots = np.zeros(index.size)
        pivots[: len(factor)] = np.abs(np.diag(factor))
        keep = pivots > 1e-11
        if keep.all():
            push, duals = shortest(block, gap[index], basis, factor)
            keep = duals > 0
            if keep.all():
                return Face(index, duals, push)
        index = index[keep]
    return Face(index, np.zeros(0), np.zeros(rows.shape[1]))


def shortest(
    block: FloatArray, target: FloatArray, basis: FloatArray, factor: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the shortest x with ``B x = target``, given Bᵀ = QR, and the a with ``x = Bᵀ a``; one refinement."""
    along = solve_triangular(factor, target, trans="T", check_finite=False)
    along += solve_triangular(factor, target - block @ (basis @ along), trans="T", check_finite=False)
    return basis @ along, np.asarray(solve_triangular(factor, along, check_finite=False))


def _enter(rows: Rows, gap: FloatArray, face: Face, row: np.intp) -> Face:
    """Raise the dual of one violated row, dropping the rows whose duals reach 0, until its margin is 1."""
    index, duals, push, raised = face.on, face.duals, face.push, 0.0
    entering = dense(rows[np.array([row])])[0]
    while True:
        basis, factor = np.linalg.qr(dense(rows[index]).T)
        along = basis.T @ entering
        share = solve_triangular(factor, along, check_finite=False)
        away = entering - basis @ along
        size, distance = 1.0 + float(np.abs(share).sum()), norm(away)
        falling = np.flatnonzero(share > 1e-14 * size)
        if falling.size == 0 and distance <= SEPARABLE * size:
            return Face(np.append(index, row), np.append(np.maximum(-share, 0.0), 1.0), away, ray=True)
        full = float(gap[row] - entering @ push) / distance**2 if distance > DEPENDENT * size else np.inf
        limits = duals[falling] / share[falling]
        step = min(full, float(limits.min(initial=np.inf)))
        duals, push, raised = duals - step * share, push + step * away, raised + step
        if step == full:
            return Face(np.append(index, row), np.append(duals, raised), push)
        stay = np.ones(index.size, dtype=bool)
        stay[falling[np.argmin(limits)]] = False
        index, duals = index[stay], np.maximum(duals[stay], 0.0)
