"""Cells of tables: how rows fall between cuts, and what is told of cells that hold too few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from localgd.rounding import FloatArray


class Span(NamedTuple):
    """Weights of cells, or places of them, of which only bounds are told: the least and the most."""

    low: FloatArray
    high: FloatArray


def bounded(n_rows: NDArray[np.intp], weights: FloatArray, min_group: int) -> Span:
    """Return bounds on the weights of cells, (k, C): of every line, cells of fewer than `min_group` rows only together.

    Where those together are still too few, the next larger cell of the line joins them. Without weights of rows, bounds
    say of each that it is below `min_group`, and nothing else.

    Examples
    --------
    >>> low, high = bounded(np.array([[90, 2, 9]]), np.array([[90.0, 2.0, 9.0]]), 5)
    >>> low.tolist(), high.tolist()
    ([[90.0, 0.0, 7.0]], [[90.0, 4.0, 11.0]])
    """
    low, high = weights.copy(), weights.copy()
    for line in np.flatnonzero(((n_rows > 0) & (n_rows < min_group)).any(axis=1)):
        order = [cell for cell in np.argsort(n_rows[line], kind="stable") if n_rows[line, cell]]
        size = 0
        hidden: list[int] = []
        for cell in order:
            if size >= min_group and n_rows[line, cell] >= min_group:
                break
            hidden.append(int(cell))
            size += int(n_rows[line, cell])
        together, few = weights[line, hidden].sum(), n_rows[line, hidden] < min_group
        most = np.where(few & (weights[line] == n_rows[line]).all(), min_group - 1.0, together)
        high[line, hidden] = np.minimum(most, together)
        low[line, hidden] = np.where(few, 0.0, np.maximum(together - most[few].sum(), 0.0))
    return Span(low, high)


def groups(n_rows: NDArray[np.intp], min_group: int) -> NDArray[np.intp]:
    """Return which group each bin with rows is in, (k,): neighbours are joined until a group has `min_group` rows.

    Examples
    --------
    >>> groups(np.array([5, 1, 1, 9, 2]), 3).tolist()
    [0, 1, 1, 1, 1]
    """
    out, size, group = np.zeros(n_rows.size, dtype=np.intp), 0, 0
    for place, here in enumerate(n_rows.tolist()):
        out[place] = group
        size += here
        if size >= min_group:
            group, size = group + 1, 0
    if size and group:
        out[out == group] = group - 1
    return out


def placed(n_rows: NDArray[np.intp], weights: FloatArray, min_group: int) -> tuple[Span, NDArray[np.bool_]]:
    """Return the weights of bins, (k,), with joined bins in the lowest and in the highest of them, and which those are.

    Joined are as few neighbours as make every bin, or what it is joined with, hold no row or at least `min_group`.

    Examples
    --------
    >>> (low, high), joined = placed(np.array([5, 1, 0, 2]), np.array([5.0, 1.0, 0.0, 2.0]), 3)
    >>> low.tolist(), high.tolist(), joined.tolist()
    ([5.0, 3.0, 0.0, 0.0], [5.0, 0.0, 0.0, 3.0], [False, True, True, True])
    """
    joined = np.zeros(n_rows.size, dtype=bool)
    filled = np.flatnonzero(n_rows)
    if min_group <= 1 or not filled.size:
        return Span(weights, weights), joined
    low, high = np.zeros(weights.size), np.zeros(weights.size)
    group = groups(n_rows[filled], min_group)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts[1:], group.size) - 1
    totals = np.add.reduceat(weights[filled], starts)
    low[filled[starts]], high[filled[ends]] = totals, totals
    for first, last in zip(filled[starts], filled[ends], strict=True):
        joined[first : last + 1] |= first < last
    return Span(low, high), joined


def ordinals(values: FloatArray) -> NDArray[np.int64]:
    """Return the places of float64 numbers among all of them, in order; 0 is at 0.

    Examples
    --------
    >>> ordinals(np.array([-0.0, 5e-324, -5e-324])).tolist()
    [0, 1, -1]
    """
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    return np.asarray(np.where(bits < 0, np.iinfo(np.int64).min - bits, bits))


def at_ordinals(places: NDArray[np.int64]) -> FloatArray:
    """Return the numbers at these places.

    Examples
    --------
    >>> at_ordinals(ordinals(np.array([-2.5, 0.0, 1e300]))).tolist()
    [-2.5, 0.0, 1e+300]
    """
    bits = np.where(places < 0, np.iinfo(np.int64).min - places, places)
    return np.ascontiguousarray(bits, dtype=np.int64).view(np.float64)


REACH = 40
"""First cuts lie where scores usually are, between 2⁻⁴⁰ and 2⁴⁰ in size, as many in each power of two."""


def first_cuts(n_cuts: int) -> FloatArray:
    """Return cuts for scores of which nothing is known, (k,), sorted."""
    edges = ordinals(np.array([2.0**-REACH, 2.0**REACH]))
    sizes = at_ordinals(np.linspace(edges[0], edges[1], max(2, n_cuts // 2)).astype(np.int64))
    return np.concatenate([-sizes[::-1], [0.0], sizes])


def finer(cuts: FloatArray, filled: NDArray[np.bool_], doubt: FloatArray, n_cuts: int) -> FloatArray:
    """Return other cuts, sorted: those at a bin with rows, and about `n_cuts` more where bins leave most in doubt.

    Bins are the parts between cuts, (k + 1,); as many new ones are in a bin as the root of its `doubt` says, which
    leaves least of the sum, evenly among the float64 numbers there.
    """
    lower = ordinals(np.concatenate([[np.finfo(np.float64).min], cuts]))
    upper = ordinals(np.concatenate([cuts, [np.finfo(np.float64).max]]))
    root = np.sqrt(doubt)
    n_new = np.rint(n_cuts * root / (root.sum() or 1.0)).astype(np.int64)
    n_new[(root > 0) & (root == root.max())] += 1  # something is always made finer
    split = np.flatnonzero(n_new)
    step = np.maximum(upper[split] // (n_new[split] + 1) - lower[split] // (n_new[split] + 1), 1)
    of = np.repeat(np.arange(split.size), n_new[split])
    within = np.arange(of.size) - np.repeat(np.cumsum(n_new[split]) - n_new[split], n_new[split]) + 1
    fresh = np.minimum(lower[split][of] + step[of] * within, upper[split][of])
    kept = cuts[filled[:-1] | filled[1:]]
    return at_ordinals(np.unique(np.concatenate([fresh, ordinals(kept)])))
