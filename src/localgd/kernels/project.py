"""Exact Euclidean projection onto the rows' own half-spaces, by a dual active set. NumPy and SciPy only.

The dual of the projection is a quadratic program in one number α_i >= 0 per row. Its iterates are *faces*: linearly
independent rows S with ``Z_S v = 1`` and α_S > 0. Every step moves to a face of higher dual value, so no face comes
back and the number of steps is finite; a block of rows enters at once where that raises the value, else one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.sparse import csr_array

from localgd.core import Rows, Shard
from localgd.rounding import UNIT_ROUNDOFF, FloatArray

Index: TypeAlias = NDArray[np.intp]

MARGIN_TOL = 1e-11
"""Shortfall of a margin below 1 that counts as feasible, before the rounding error of the margin itself."""

DEPENDENT = 1e-4
"""A row within this part of the least margin from the span of others is taken to lie in it."""


SEPARABLE = 1e-8
"""Least margin, relative to the radius, that counts as separable: below it the duals, 1/margin², exceed 1/eps."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The outcome of a projection.

    Parameters
    ----------
    duals : (n,) float64 array, >= 0
        If `feasible`, the projection is ``w + Zᵀ duals``. If not, a Gordan vector: duals ≠ 0 and
        ``|Zᵀ duals| <= 1e-8 · radius · Σ duals``, which bounds the margin of every direction.
    feasible : bool
        Whether some v has ``z·v >= 1`` for every row, by a margin worth the name (more than 1e-8 of the radius).
    """

    duals: FloatArray
    feasible: bool


class _Face(NamedTuple):
    """Rows `on` with positive `duals`, zero elsewhere; `ray` if the duals are a Gordan vector instead."""

    on: Index
    duals: FloatArray
    ray: bool = False


def project(shard: Shard, w: FloatArray, warm: FloatArray | None = None) -> Projection:
    """Project w onto C = {v : z·v >= 1 for every signed row z of the shard}.

    ``argmin_{v in C} ½|v − w|² = w + Zᵀα``, where α >= 0 maximises ``α·(1 − Zw) − ½|Zᵀα|²``.

    Parameters
    ----------
    shard : Shard
        The rows Z, (n, d), dense or CSR.
    w : (d,) float64 array
        The point to project.
    warm : (n,) float64 array, >= 0, optional
        Duals of a nearby projection; they change the time, not the answer (up to rounding).

    Returns
    -------
    Projection
        Its duals are exactly 0 if w is feasible. Margins reach 1 to 1e-11 plus rounding, eps·(|w|·radius·(row length)
        + 2 radius²·Σα). C is empty exactly if the rows are not separable (Gordan).

    Raises
    ------
    ArithmeticError
        If rounding stops the ascent before every margin reaches 1 (rows dependent up to about 1e-12).

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
    gap = 1.0 - shard.margins(w)
    tol = MARGIN_TOL + 2 * shard.margin_error(float(np.linalg.norm(w)))
    duals = np.zeros(shard.n_rows)
    if gap.max() <= tol:
        return Projection(duals, feasible=True)
    start = np.zeros(0, dtype=np.intp) if warm is None else np.flatnonzero(warm > 0)
    face = _maximise(_coordinates(shard), gap, start, tol / 2, shard.radius)
    duals[face.on] = face.duals
    return Projection(duals, feasible=not face.ray)


_COORDINATES: WeakKeyDictionary[Shard, Rows] = WeakKeyDictionary()


def _coordinates(shard: Shard) -> Rows:
    """Return the rows in an orthonormal basis of their span where that is narrower: same inner products."""
    if shard not in _COORDINATES:
        rows = shard.rows
        if isinstance(rows, csr_array):
            rows = csr_array(rows[:, np.unique(rows.indices)])
        if rows.shape[0] < rows.shape[1]:
            rows = np.ascontiguousarray(_triangle(_dense(rows)).T)
        _COORDINATES[shard] = rows
    return _COORDINATES[shard]


def _dense(rows: Rows) -> FloatArray:
    return np.asarray(rows.toarray()) if isinstance(rows, csr_array) else rows


def _triangle(block: FloatArray) -> FloatArray:
    """Return R of Bᵀ = QR."""
    return np.asarray(np.linalg.qr(block.T, mode="r"))


def _maximise(rows: Rows, gap: FloatArray, start: Index, tol: float, radius: float) -> _Face:
    """Climb from face to face until no row falls short of margin 1, or a ray shows that there is no end.

    Any duals prove that no margin exceeds |Zᵀα|/Σα: where that is tiny, they are as good as a ray.
    """
    width, tiny = rows.shape[1], SEPARABLE * radius
    face = _settle(rows, gap, start)
    for _ in range(100 + 10 * width):
        push = _dense(rows[face.on]).T @ face.duals
        mass = float(face.duals.sum())
        if face.on.size and np.linalg.norm(push) <= tiny * mass:
            return face._replace(ray=True)
        short = gap - rows @ push
        short[face.on] = -np.inf
        violated = np.flatnonzero(short > tol + 4 * UNIT_ROUNDOFF * radius**2 * mass)  # less is rounding of Zᵀα
        if violated.size == 0:
            return face
        worst = violated[np.argsort(-short[violated], kind="stable")]
        block = _settle(rows, gap, np.concatenate([face.on, worst[:width]]))
        if gap[block.on] @ block.duals > (1 + 1e-12) * (gap[face.on] @ face.duals):
            face = block
            continue
        face = _enter(rows, gap, face, worst[0], tiny)
        if face.ray:
            return face
        face = _settle(rows, gap, face.on)
    raise ArithmeticError("projection: rounding stopped the ascent; scale the rows or remove near-contradictory ones")


def _settle(rows: Rows, gap: FloatArray, index: Index) -> _Face:
    """Solve ``Z_S Z_Sᵀ α = gap_S``, dropping dependent rows and rows with α <= 0, until α > 0."""
    while index.size:
        block = _dense(rows[index])
        factor = _triangle(block)
        pivots = np.zeros(index.size)
        pivots[: len(factor)] = np.abs(np.diag(factor))
        keep = pivots > 1e-11 * np.linalg.norm(block, axis=1)
        if keep.all():
            duals = _solved(factor, block, gap[index])
            keep = duals > 0
            if keep.all():
                return _Face(index, duals)
        index = index[keep]
    return _Face(index, np.zeros(0))


def _solved(factor: FloatArray, block: FloatArray, target: FloatArray) -> FloatArray:
    """Solve ``B Bᵀ x = target`` given R of Bᵀ = QR; one refinement makes R as good as Q and R."""
    x = cho_solve((factor, False), target, check_finite=False)
    residual = target - block @ (block.T @ x)
    return np.asarray(x + cho_solve((factor, False), residual, check_finite=False))


def _enter(rows: Rows, gap: FloatArray, face: _Face, row: np.intp, tiny: float) -> _Face:
    """Raise the dual of one violated row, dropping the rows whose duals reach 0, until its margin is 1."""
    index, duals, raised = face.on, face.duals, 0.0
    entering = _dense(rows[np.array([row])])[0]
    while True:
        block = _dense(rows[index])
        share = np.zeros(0)
        if index.size:
            share = _solved(_triangle(block), block, block @ entering)
        away = entering - block.T @ share
        size, distance = 1.0 + float(np.abs(share).sum()), float(np.linalg.norm(away))
        falling = np.flatnonzero(share > 1e-14 * size)
        if falling.size == 0 and distance <= tiny * size:
            return _Face(np.append(index, row), np.append(np.maximum(-share, 0.0), 1.0), ray=True)
        short = float(gap[row] - entering @ (block.T @ duals + raised * entering))
        full = short / distance**2 if distance > DEPENDENT * tiny * size else np.inf
        limits = duals[falling] / share[falling]
        step = min(full, float(limits.min(initial=np.inf)))
        duals, raised = duals - step * share, raised + step
        if step == full:
            return _Face(np.append(index, row), np.append(duals, raised))
        stay = np.ones(index.size, dtype=bool)
        stay[falling[np.argmin(limits)]] = False
        index, duals = index[stay], np.maximum(duals[stay], 0.0)
