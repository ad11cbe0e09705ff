"""Local gradient steps on an objective with more than the rows in it: a penalty, a pull, a linear correction."""

from __future__ import annotations

import numpy as np

from localgd.losses import Loss
from localgd.rounding import FloatArray
from localgd.rows import Shard


def descend(
    shard: Shard,
    w: FloatArray,
    margins: FloatArray,
    loss: Loss,
    local_steps: int,
    lr: float,
    more: tuple[FloatArray, float, FloatArray],
) -> FloatArray:
    """Return v after `local_steps` steps ``v ← v − lr (−(1/n) Σ slope(z_i·v) z_i + decay·v + prox (v − w) + shift)``.

    Parameters
    ----------
    shard : Shard
        The node's rows, (n, d).
    w : (d,) float64 array
        Where the steps begin.
    margins : (n,) float64 array
        z_i·w, known already.
    loss : Loss
        Gives the slope −ℓ' of a margin.
    local_steps, lr
        How many steps, and of what size.
    more : tuple of (d,) array, float, (d,) array
        decay, prox and shift.
    """
    decay, prox, shift = more
    v, n = np.array(w), shard.n_rows / loss.versus
    for step in range(local_steps):
        slope = loss.slope(margins if step == 0 else shard.margins(v))
        v -= lr * (decay * v + prox * (v - w) + shift - shard.combine(slope) / n)
    return v
