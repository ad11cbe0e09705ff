"""Local gradient steps on an objective with more than the rows in it: a penalty, a pull, a linear correction."""

from __future__ import annotations

from typing import Any

import numpy as np

from localgd.kernels.reference import Steps, batch
from localgd.rounding import FloatArray
from localgd.rows import Shard


def descend(
    shard: Shard,
    w: FloatArray,
    margins: FloatArray,
    steps: Steps,
    more: tuple[FloatArray, float, FloatArray],
    known: FloatArray | None = None,
) -> FloatArray:
    """Return v after the steps ``v ← v − lr (−(1/b) Σ slope(z_i·v) z_i + decay·v + prox (v − w) + shift)``.

    What it holds of the rows is held against the limits of the shard, as v may leave the node. The margins z_i·w, shape
    (n,), are known already; `more` is decay (d,), prox and shift (d,), and `known` (n,) are the slopes of which shift
    holds the mean (1/n) Σ known_i z_i, if it does.
    """
    decay, prox, shift = more
    held = None if shard.limits is None else Held(shard, steps, np.unique(decay) + prox, known)
    v = np.broadcast_to(w, (*margins.shape[:-1], w.size)).copy()
    for step in range(steps.local_steps):
        block, index = batch(shard, steps, step)
        slope = steps.slopes(margins[index] if step == 0 else block.margins(v), index)
        if held is not None:
            held.step(index, slope)
        mean = block.sum(slope) / (slope.shape[-1] / shard.versus)
        v -= steps.lr * (decay * v + prox * (v - w) + shift - mean)
    if held is not None:
        held.permit()
    return v


class Held:
    """Coefficients of the rows in v − w while steps go on: one vector for each strength that columns are pulled with.

    Every step takes the `known` slopes off again, if there are some.
    """

    def __init__(self, shard: Shard, steps: Steps, pulls: FloatArray, known: FloatArray | None) -> None:
        self.shard, self.steps, self.known = shard, steps, known
        self.kept = (1.0 - steps.lr * pulls)[:, None]
        self.coefficients = np.zeros((pulls.size, shard.n_rows))

    def step(self, index: Any, slope: FloatArray) -> None:
        """Take the step that adds the rows with these slopes."""
        gained = np.zeros(self.shard.n_rows)
        np.add.at(gained, index, slope / slope.size)
        if self.known is not None:
            gained -= self.known / self.shard.n_rows
        self.coefficients = self.kept * self.coefficients + gained

    def permit(self) -> None:
        """Refuse them if one of the combinations rests on too few rows."""
        for of_columns in self.coefficients:
            self.shard.permit(of_columns)
