"""Reference answers for when the rows may be pooled: the yardsticks a federated run is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import issparse
from scipy.sparse import vstack as sparse_vstack

from localgd.duals.dual import Dual
from localgd.kernels.project import MARGIN_TOL, SEPARABLE, UnitRows, dense, maximise, narrowed, shortest, unit_rows
from localgd.layouts.layout import Rows
from localgd.many.by_node import ByNode
from localgd.reference.minimiser import minimiser
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, below, norm
from localgd.rows import Shard

KKT_TOL = 1e-8
"""Largest KKT residual with which a max-margin answer is handed out; 1e-13 is usual."""


@dataclass(frozen=True, eq=False)
class MaxMargin:
    """The pooled max-margin direction and its proof.

    Parameters
    ----------
    direction : (d,) float64 array
        Unit vector u*.
    margin_low, margin_high : float
        ``min_i z_i·u* <= γ* <= |Σ α_i z_i| / Σ α_i``, in the units of the rows; equal up to rounding, which is about
        eps |z_i| for the margin of a row.
    duals : (N,) float64 array, >= 0
        α with ``Σ α_i z_i = u*/γ*``. Linearly dependent rows leave it free; at most rank(Z) are above 0. They go with
        1/γ*²; those that float64 cannot hold are inf or 0.
    kkt_residual : float
        The largest of three relative errors in the optimality conditions, measured at ``ŵ = u*/γ*`` and α:
        the largest shortfall of ``ẑ_i·ŵ`` below ``1/|z_i|`` and the mean distance between the two under the weights
        α_i |z_i|, both as part of the mean 1/|z_i| under these weights, where ẑ_i = z_i/|z_i|; and ``|ŵ − Zᵀα|/|ŵ|``.
    n_support : int
        Distinct rows on the margin (within 1e-9 of it and rounding).
    """

    direction: FloatArray
    margin_low: float
    margin_high: float
    duals: FloatArray
    kkt_residual: float
    n_support: int


class NotSeparableError(ValueError):
    """No direction has all rows on its right side; `margin_bound` is a proven bound on the margin of any direction."""

    def __init__(self, margin_bound: float) -> None:
        self.margin_bound = margin_bound
        super().__init__(
            f"the rows are not separable, or by less than {SEPARABLE:.0e} of a row's length: no direction has margin "
            f"above {margin_bound:.3g}"
        )


def max_margin(rows: Rows) -> MaxMargin:
    """Return the hard-margin direction of the pooled signed rows.

    ``γ* = max_{|u|=1} min_i z_i·u``, attained at ``u* = ŵ/|ŵ|`` with ``ŵ = argmin ½|w|² s.t. Zw >= 1``. A primal–dual
    interior point finds the rows on the margin, an active set makes sure of them, ŵ is the shortest vector that has
    margin 1 with each, and the optimality conditions are checked on the answer.

    Parameters
    ----------
    rows : (N, d) float64 array or CSR array
        Signed rows z = y·x; a bias is one more column holding y. Of any size, and of different sizes.

    Returns
    -------
    MaxMargin
        Direction, margin from both sides, duals and residual. Measured on problems with known answers, margins of 1e-1
        to 1e-6 of the largest row and rows 1000 times shorter among them: the direction is right to 1e-8 degrees. The
        residual itself proves less than that.

    Raises
    ------
    NotSeparableError
        If the rows are not separable, or by less than 1e-8 of a row's length.
    ValueError
        If no answer reaches the residual 1e-8.

    Notes
    -----
    Mehrotra (1992), *On the implementation of a primal-dual interior point method*. Costs N d² + d³ a step where
    N >= d and N³ where N < d, some 20 steps.

    Examples
    --------
    >>> found = max_margin(np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 1.0]]))
    >>> found.direction.round(6), round(found.margin_low, 6), found.n_support
    (array([0.316228, 0.948683]), 0.948683, 2)
    """
    unit = unit_rows(Shard("pooled", rows).rows)
    if not unit.lengths.all():
        raise NotSeparableError(0.0)  # a zero row
    shard = Shard("pooled", unit.rows)
    target = unit.per_length(1.0, int(unit.exponents.min()))
    rough, slack = _interior_point(shard, target)
    try:
        face = maximise(narrowed(shard.rows), target, np.flatnonzero(rough > slack), MARGIN_TOL / 2 * target)
    except ArithmeticError as stuck:
        raise ValueError(f"max_margin: {stuck}") from stuck
    duals = np.zeros(shard.n_rows)
    duals[face.on] = face.duals
    if face.ray:
        raise NotSeparableError(_bound(shard, unit, duals))
    support = dense(shard.rows[face.on])
    w, _ = shortest(support, target[face.on], *np.linalg.qr(support.T))
    return _checked_answer(shard, unit, target, w, duals)


def _checked_answer(shard: Shard, unit: UnitRows, target: FloatArray, w: FloatArray, duals: FloatArray) -> MaxMargin:
    """Measure the optimality conditions of ``min ½|w|² s.t. Ẑw >= target`` and return to the units of the rows."""
    margins, combined, length = shard.margins(w), shard.combine(duals), norm(w)
    short, mass, typical = target - margins, float(duals.sum()), float(duals @ target)
    shortfall = max(float(short.max()) * mass, float(duals @ np.abs(short))) / typical
    residual = max(shortfall, norm(w - combined) / length)
    if not residual <= KKT_TOL:
        raise ValueError(
            f"max_margin: KKT residual {residual:.1e}: a margin of {length / mass:.1e} of the row lengths is too small "
            f"for float64; scale the columns"
        )
    smallest = int(unit.exponents.min())
    on = np.flatnonzero(short >= -1e-9 * target - 8 * UNIT_ROUNDOFF * length)
    with np.errstate(over="ignore"):
        return MaxMargin(
            direction=w / length,
            margin_low=float(np.ldexp(unit.lengths * margins / length, unit.exponents).min()),
            margin_high=float(np.ldexp(norm(combined) / typical, smallest)),
            duals=unit.per_length(duals, -smallest),
            kkt_residual=residual,
            n_support=len(np.unique(dense(shard.rows[on]), axis=0)),
        )


def _bound(shard: Shard, unit: UnitRows, duals: FloatArray) -> float:
    """Return |Σ α_i z_i|/Σ α_i for α_i = duals_i/|z_i|, rounded up: no direction has a larger margin."""
    on = np.flatnonzero(duals)
    held, smallest = unit.take(on), int(unit.exponents[on].min())
    mass = below(duals[on] @ held.per_length(1.0, smallest), shard.n_rows)
    high = Dual.proved(shard.combine(duals), mass, shard.combine_error(duals)).margin_upper
    return math.nextafter(math.ldexp(high, smallest), math.inf)


def _interior_point(shard: Shard, target: FloatArray, max_steps: int = 100) -> tuple[FloatArray, FloatArray]:
    """Return the best duals a >= 0 and slacks s of ``min ½|w|² s.t. Zw − s = t, s >= 0`` with w = Zᵀa throughout."""
    a = np.full(shard.n_rows, 1.0 / shard.n_rows)
    s = np.ones(shard.n_rows)
    best, best_residual = (a, s), np.inf
    for _ in range(max_steps):
        w = shard.combine(a)
        margins = shard.margins(w)
        infeasible = margins - s - target
        gap, typical = float(a @ s), float(a @ target)
        residual = max(float(np.abs(infeasible).max()) * float(a.sum()), gap) / typical
        if residual < best_residual:
            best, best_residual = (a, s), residual
        if gap <= 1e-14 * typical or norm(w) <= SEPARABLE * a.sum():
            break
        try:
            solve = _newton(shard, s / a)
        except np.linalg.LinAlgError:  # a/s spans more than float64 holds: nothing left to gain
            break
        da = solve(target - margins)
        ds = shard.margins(shard.combine(da)) + infeasible
        affine = _longest(a, da, s, ds)
        centre = ((a + affine * da) @ (s + affine * ds) / gap) ** 3 * gap / a.size
        da = solve(target - margins + (centre - da * ds) / a)
        ds = shard.margins(shard.combine(da)) + infeasible
        step = 0.995 * _longest(a, da, s, ds)
        a, s = a + step * da, s + step * ds
        if not (np.isfinite(a).all() and step > 1e-10):
            break
    return best


def _longest(a: FloatArray, da: FloatArray, s: FloatArray, ds: FloatArray) -> float:
    """Return the largest step up to 1 that keeps a and s non-negative."""
    fastest = max(float((-da / a).max()), float((-ds / s).max()))
    return 1.0 if fastest <= 1.0 else 1.0 / fastest


def _newton(shard: Shard, ratio: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the map ``r -> (ZZᵀ + diag(ratio))⁻¹ r``, through the smaller of ZZᵀ and ZᵀZ (Woodbury)."""
    if shard.n_rows <= shard.n_features:
        small = cho_factor(shard.gram + np.diag(ratio), check_finite=False)
        return lambda r: np.asarray(cho_solve(small, r, check_finite=False))
    normal = cho_factor(np.eye(shard.n_features) + shard.second_moment(1.0 / ratio), check_finite=False)
    return lambda r: (r - shard.margins(cho_solve(normal, shard.combine(r / ratio), check_finite=False))) / ratio


def pooled_direction(shards: Iterable[Shard], weighted_by: str | ByNode[float] = "uniform") -> FloatArray:
    """Return the model that pooling the nodes' rows would give: max-margin if they are separable, else the minimiser.

    That is a unit direction (d,), or the minimiser of the logistic loss, which alone depends on the weights of the
    nodes. A ValueError if the rows have neither, as when a direction separates some of them and has the others at
    margin 0.

    Examples
    --------
    >>> pooled_direction([Shard("a", [[2.0, 0.0]]), Shard("b", [[0.0, 2.0]])]).round(6).tolist()
    [0.707107, 0.707107]
    """
    held = list(shards)
    stack: Callable[[list[Any]], Rows] = sparse_vstack if issparse(held[0].rows) else np.vstack
    rows = stack([shard.rows for shard in held])
    totals = np.array([shard.total * shard.versus for shard in held])
    if isinstance(weighted_by, ByNode):
        each = np.array([weighted_by.at(shard.node_id) for shard in held])
    else:
        each = np.ones(len(held)) if weighted_by == "uniform" else totals
    each = each / each.sum()
    weights = [shard.weigh(np.full(shard.n_rows, p / n)) for shard, p, n in zip(held, each, totals, strict=True)]
    with suppress(NotSeparableError):
        return max_margin(rows).direction
    try:
        return minimiser(rows, np.concatenate(weights), held[0].versus)
    except ValueError as error:
        raise ValueError(
            "there is no pooled model to compare with: the rows have neither a max-margin direction, as no direction "
            "separates them, nor a finite minimiser of the loss, as one separates some and misplaces none"
        ) from error
