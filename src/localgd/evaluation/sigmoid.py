"""Sigmoids of scores that fit best, found by rounds: calibration of a model, and how well it is calibrated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from localgd.core import Engine, Message
from localgd.errors import from_all
from localgd.evaluation.counting import SigmoidLoss
from localgd.rounding import FloatArray

MOST_ROUNDS = 40

CLOSE = 1e-9
"""A step of Newton's method that is this small, of the sigmoid's own size, is the last one: its square is nothing."""

SINGULAR = 1e-12
"""Offset and slope whose parts of the curvature are as alike as this cannot be told apart."""


def fitted(
    engine: Engine,
    message: Message,
    targets: FloatArray,
    start: FloatArray,
    free: NDArray[np.bool_],
    *,
    min_group: int,
) -> tuple[FloatArray, int]:
    """Return the sigmoids σ(offset + slope·s) of least log-loss, and how many rounds that took.

    Newton's method on all of them at once; a step that makes the loss larger is cut to a quarter.

    Parameters
    ----------
    engine : Engine
        Its nodes hold rows with a bias column.
    message : Message
        The model, and perhaps ``odds``.
    targets : (H, 2) float64 array
        What a row of the rest, and of the class, is to come to.
    start : (H, K, 2) float64 array
        Offsets and slopes to begin with.
    free : (H, K, 2) bool array
        Which of them may change.
    min_group : int
        As in `localgd.evaluate`.

    Returns
    -------
    sigmoids : (H, K, 2) float64 array
        NaN where there is no least loss, as of scores that tell the classes apart.
    n_rounds : int
    """
    at, done = np.array(start, dtype=np.float64), np.zeros(start.shape[:2], dtype=bool)
    best, losses, lost = at.copy(), np.full(start.shape[:2], np.inf), done.copy()
    n_rounds = 0
    while n_rounds < MOST_ROUNDS and not done.all():
        extra = {**message.extra, "sigmoids": at, "targets": targets}
        sums = from_all(engine, SigmoidLoss(min_group), Message(0, message.w, extra)).sums["sigmoid"]
        n_rounds += 1
        for place in zip(*np.nonzero(~done), strict=True):
            loss, first, second = sums[place][0], sums[place][1:3], sums[place][3:]
            if not loss <= losses[place] * (1 + 1e-13):
                at[place] = best[place] + (at[place] - best[place]) / 4
                continue
            best[place], losses[place] = at[place], loss
            curvature = np.array([[second[0], second[2]], [second[2], second[1]]])
            of = np.flatnonzero(free[place])
            step = np.zeros(2)
            step[of] = _newton(curvature[np.ix_(of, of)], first[of])
            if np.isnan(step).any():  # scores that are all the same have no slope
                done[place] = lost[place] = True
                continue
            at[place] += step
            done[place] = bool((np.abs(step) <= CLOSE * (1 + np.abs(at[place]))).all())
    at[~done | lost] = np.nan
    return at, n_rounds


def _newton(curvature: FloatArray, slope: FloatArray) -> FloatArray:
    """Return the step of Newton's method; NaN if the curvature is singular to within rounding."""
    size = np.sqrt(np.diag(curvature))
    if not (size > 0).all():
        return np.full(slope.size, np.nan)
    alike = curvature / np.outer(size, size)
    if np.linalg.eigvalsh(alike)[0] < SINGULAR:
        return np.full(slope.size, np.nan)
    return np.asarray(-np.linalg.solve(alike, slope / size) / size)
