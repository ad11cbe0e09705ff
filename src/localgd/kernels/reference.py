"""The specification of a local step, in NumPy, for every layout of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from localgd.layouts import Layout
from localgd.losses import Loss
from localgd.rounding import FloatArray
from localgd.rows import Shard

Batches: TypeAlias = NDArray[np.int64]
"""Sample numbers of the mini-batches, shape (local_steps, batch_size)."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The L local steps of one round, of size η = `lr`; `loss` gives the slopes of margins.

    `shrink` is 1 − ηλ, the pull towards w of the proximal form, or 1. `batches`, (local_steps, batch_size), are the
    samples of each step; None for full batches. `weights`, (n,), of mean 1, are those of the rows; None for 1 each.
    """

    local_steps: int
    lr: float
    loss: Loss
    shrink: float = 1.0
    batches: Batches | None = None
    weights: FloatArray | None = None

    def slopes(self, margins: FloatArray, index: Any = slice(None)) -> FloatArray:
        """Return the slopes of margins of these rows, each by its weight."""
        slopes = self.loss.slope(margins)
        return slopes if self.weights is None else slopes * self.weights[index]


def batch(shard: Shard, steps: Steps, step: int) -> tuple[Layout, Any]:
    """Return the rows of a step, and what they are numbered by on the node."""
    if steps.batches is None:
        return shard.data, slice(None)
    samples = steps.batches[step]
    return shard.data.take(samples), shard.data.index(samples)


def coefficients(shard: Shard, w: FloatArray, margins: FloatArray, steps: Steps) -> FloatArray:
    """Return the coefficients a >= 0, shape (n,), of the rows in v − w after the local steps from w, shape (d,).

    The `margins` z_i·w, shape (n,), are known already from the evaluation of w.
    """
    a = np.zeros(margins.shape)
    drift = np.zeros((*margins.shape[:-1], w.size))
    for step in range(steps.local_steps):
        block, index = batch(shard, steps, step)
        at = margins[index] if step == 0 else block.margins(w + drift)
        c = steps.slopes(at, index) * (steps.lr * steps.loss.versus / at.shape[-1])
        a *= steps.shrink
        if steps.batches is None:
            a += c
        else:
            np.add.at(a, index, c)  # a mini-batch with replacement may hold a row twice
        if step + 1 < steps.local_steps:
            drift = steps.shrink * drift + block.sum(c)
    return a
