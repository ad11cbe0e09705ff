"""Local gradient steps on an objective with more than the rows in it: a penalty, a pull, a linear correction."""

from __future__ import annotations

from typing import Any

import numpy as np

from localgd.kernels.reference import Steps
from localgd.rounding import FloatArray
from localgd.rows import Shard


def descend(
    shard: Shard,
    w: FloatArray,
    margins: FloatArray,
    steps: Steps,
    more: tuple[FloatArray, float, FloatArray],
) -> FloatArray:
    """Return v after the steps ``v ← v − lr (−(1/b) Σ slope(z_i·v) z_i + decay·v + prox (v − w) + shift)``.

    Parameters
    ----------
    shard : Shard
        The node's rows, (n, d).
    w : (d,) float64 array
        Where the steps begin.
    margins : (n,) float64 array
        z_i·w, known already.
    steps : Steps
        How many steps, of what size, on which rows.
    more : tuple of (d,) array, float, (d,) array
        decay, prox and shift.
    """
    decay, prox, shift = more
    rows: Any = shard.rows
    v = np.array(w)
    for step in range(steps.local_steps):
        index: Any = slice(None) if steps.batches is None else steps.batches[step]
        block = rows if steps.batches is None else rows[index]
        slope = steps.loss.slope(margins[index] if step == 0 else np.asarray(block @ v))
        mean = np.asarray(block.T @ slope) / (slope.size / shard.versus)
        v -= steps.lr * (decay * v + prox * (v - w) + shift - mean)
    return v
