"""Compiled local steps on dense rows: margin and gradient in one pass over each row.

Reassociation is allowed in the dot products (without it they do not vectorise, three times slower), and that zeros lose
their sign and quotients are products (without these sums are slower again): whatever bits the steps come out with, the
returned coefficients are what the certificate is about, and it sums them in strict NumPy.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from localgd.kernels.reference import Batches, Steps
from localgd.losses import LARGEST_EXPONENT
from localgd.rounding import FloatArray
from localgd.rows import Shard

NO_BATCHES = np.zeros((0, 0), dtype=np.int64)


@njit(cache=True, nogil=True, inline="always")
def slope(loss_id: int, margin: float) -> float:
    """Return −ℓ'(m): 0 is logistic, 1 is exponential (`localgd.losses`)."""
    if loss_id == 0:
        decay = math.exp(-abs(margin))
        return decay / (1.0 + decay) if margin > 0 else 1.0 / (1.0 + decay)
    return math.exp(min(-margin, LARGEST_EXPONENT))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _steps(
    rows: FloatArray,
    w: FloatArray,
    margins: FloatArray,
    batches: Batches,
    local_steps: int,
    lr: float,
    loss_id: int,
    shrink: float,
) -> FloatArray:
    n, d = rows.shape
    full = batches.shape[0] == 0
    size = n if full else batches.shape[1]
    a = np.zeros(n)
    v = w.copy()
    gradient = np.empty(d)
    for step in range(local_steps):
        gradient[:] = 0.0
        if shrink != 1.0:
            for i in range(n):
                a[i] *= shrink
        for k in range(size):
            i = k if full else batches[step, k]
            margin = 0.0
            if step == 0:
                margin = margins[i]
            else:
                for j in range(d):
                    margin += rows[i, j] * v[j]
            c = slope(loss_id, margin) * (lr / size)
            a[i] += c
            for j in range(d):
                gradient[j] += c * rows[i, j]
        for j in range(d):
            v[j] = w[j] + shrink * (v[j] - w[j]) + gradient[j]
    return a


def compiled(steps: Steps) -> tuple[Batches, int, float, int, float]:
    """Return the steps as the plain arguments that compiled code takes."""
    batches = NO_BATCHES if steps.batches is None else steps.batches
    return batches, steps.local_steps, steps.lr, steps.loss.loss_id, steps.shrink


def coefficients(shard: Shard, w: FloatArray, margins: FloatArray, steps: Steps) -> FloatArray:
    """Return the coefficients a >= 0, shape (n,), of the rows in v − w; see `localgd.kernels.reference`."""
    rows = np.ascontiguousarray(shard.data.x)
    return np.asarray(_steps(rows, w, margins, *compiled(steps)))
