"""Directions that no margin sees: columns that depend on each other exactly, and what all classes share.

Where z·n = 0 for every row and the penalty does not see n, F(w + n) = F(w): minimisers are a flat, and what can be
proved of a model is how far the flat is. Only what is exactly so may be left out: the columns of a complete category
add up to the bias column, number for number, as they hold 0 and 1; a standardised column misses such a sum by its
rounding. So the server guesses vectors of whole numbers from the curvature, and the nodes look whether every one of
their rows is at a right angle to them, without rounding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import qr, solve_triangular

from localgd.core import Report
from localgd.layouts import ClassRows, Csr, Dense
from localgd.layouts.layout import Layout, Rows
from localgd.rounding import FloatArray
from localgd.rows import Shard

if TYPE_CHECKING:
    from localgd.problems.regularised import Regularised

DEPENDENT = 1e-10
"""A column of which less than this part is its own, by its square, may depend on others."""

UNLIKE = 16.0
"""Columns whose sizes are farther apart than this are judged in units of their own."""

WHOLE = 1e-3
"""How near to a whole number a coefficient must be to be guessed to be one."""

MOST_WHOLE = 2.0**20
"""Larger coefficients are not guessed."""


def dependencies(moment: FloatArray) -> FloatArray:
    """Return vectors of whole numbers, (k, d), that the columns of rows with Σ c z zᵀ like this may be orthogonal to.

    A column that depends on others is written in those that do not (pivoted QR of the matrix with a diagonal of ones).

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    >>> abs(dependencies(rows.T @ rows)).tolist()
    [[1.0, 1.0, 1.0]]
    """
    size = np.sqrt(np.diagonal(moment))
    size = np.where(size > 0, size, 1.0)
    upper, order = qr(moment / size / size[:, None], mode="r", pivoting=True)
    rank = int(np.count_nonzero(np.abs(np.diagonal(upper)) > DEPENDENT))
    shares = solve_triangular(upper[:rank, :rank], upper[:rank, rank:])
    first, last = order[:rank], order[rank:]
    shares = (shares / size[first, None] * size[last]).T
    whole = np.rint(shares)
    near = ((np.abs(shares - whole) <= WHOLE) & (np.abs(whole) <= MOST_WHOLE)).all(axis=1)
    out = np.zeros((len(last), len(size)))
    out[:, first] = -whole
    out[np.arange(len(last)), last] = 1.0
    return np.asarray(out[near])


def asked_of(problem: Regularised, curvature: FloatArray) -> dict[str, FloatArray]:
    """Return what to ask the nodes of `Curvature`, given the curvature of a loss without a penalty, (d, d).

    ``dependent``: guessed dependencies, if there are some; ``units`` (d,), or (d/C,) of each class: the size of each
    column as a power of two, if columns are of unlike sizes.
    """
    each = len(curvature) // problem.n_blocks
    moment = np.einsum("ijik->jk", curvature.reshape(-1, each, problem.n_blocks, each))
    guessed, squares = dependencies(moment), np.diagonal(moment)
    asks = {"dependent": guessed} if len(guessed) else {}
    units = np.ldexp(1.0, np.frexp(np.sqrt(np.where(squares > 0, squares, squares.max())))[1])
    return asks | {"units": units} if units.max() > UNLIKE * units.min() else asks


def in_units(layout: Layout, units: FloatArray) -> Layout:
    """Return rows with each column, of a sample for many classes, divided by a power of two: no digit changes."""
    if isinstance(layout, ClassRows):
        return replace(layout, x=in_units(layout.x, units))
    rows: Any = layout.explicit()
    return Dense(rows / units) if isinstance(rows, np.ndarray) else Csr(rows.multiply(1 / units))


def uncancelled(shard: Shard, vectors: FloatArray) -> FloatArray:
    """Return 0 for each vector, (k,), that every row of a node, of a sample for many classes, is orthogonal to; else 1.

    Without rounding: sums of whole numbers, or of entries themselves, are exact.

    Examples
    --------
    >>> uncancelled(Shard("a", [[1.0, 0.1, 0.3], [2.0, 0.2, 0.6]]), np.array([[0.0, 3.0, -1.0], [2.0, 0.0, 0.0]]))
    array([1., 1.])
    """
    if shard.limits is not None:
        shard.limits.rest(np.ones((shard.n_samples, 1)))
    layout = shard.data.x if isinstance(shard.data, ClassRows) else shard.data
    rows = layout.explicit()
    return np.array([0.0 if _cancels(rows, vector) else 1.0 for vector in vectors])


def _cancels(rows: Rows, vector: FloatArray) -> bool:
    """Return whether Σ_j v_j z_j is exactly 0 for every row, if that can be told."""
    places = np.flatnonzero(vector)
    some: Any = rows[:, places]
    part, factors = some if isinstance(some, np.ndarray) else some.toarray(), vector[places]
    most = float(np.abs(part).max(initial=0.0)) * float(np.abs(factors).sum())
    if most < 2.0**53 and np.array_equal(part, np.rint(part)) and np.array_equal(factors, np.rint(factors)):
        return not (part @ factors).any()
    if (np.abs(factors) != 1.0).any():
        return False
    return all(math.fsum(row) == 0.0 for row in part * factors)


def unseen(problem: Regularised, report: Report, guessed: FloatArray | None, size: int) -> FloatArray:
    """Return vectors (m, size) that neither a margin nor the penalty sees, from a report of all nodes on the guess."""
    blocks = problem.n_blocks
    if problem.penalised:  # what is penalised is seen
        shift = problem.shift(size)
        return shift[None] if shift.any() else np.zeros((0, size))
    width = size // blocks
    told = report.maxs.get("uncancelled")
    found = np.zeros((0, width)) if guessed is None or told is None else guessed[np.asarray(told) == 0.0]
    if blocks == 1:
        return found
    return np.vstack([np.tile(np.eye(width), blocks), *(np.kron(each, found) for each in np.eye(blocks)[:, None])])


def basis(vectors: FloatArray) -> FloatArray:
    """Return an orthonormal basis (size, m) of the span of vectors (k, size), of which some may be dependent, or 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd((vectors / np.where(lengths > 0, lengths, 1.0)).T, full_matrices=False)
    return np.asarray(left[:, values > 1e-9 * values.max(initial=0.0)])
