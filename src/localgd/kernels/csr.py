"""Compiled local steps on CSR rows.

Strict math on purpose: with fastmath the compiler emits vector gathers, half as fast on some machines. Four
accumulators keep the loads in flight instead, and unsigned column numbers save the wrap-around check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from localgd.kernels.dense import compiled, slope
from localgd.kernels.reference import Batches, Steps
from localgd.rounding import FloatArray
from localgd.rows import Shard


@njit(cache=True, nogil=True, inline="always")
def product(data: FloatArray, columns: NDArray[np.uint32], v: FloatArray, begin: int, end: int) -> float:
    """Return the inner product of v with the row whose entries are those from `begin` to `end`."""
    s0 = s1 = s2 = s3 = 0.0
    quads = begin + (end - begin) // 4 * 4
    for p in range(begin, quads, 4):
        s0 += data[p] * v[columns[p]]
        s1 += data[p + 1] * v[columns[p + 1]]
        s2 += data[p + 2] * v[columns[p + 2]]
        s3 += data[p + 3] * v[columns[p + 3]]
    for p in range(quads, end):
        s0 += data[p] * v[columns[p]]
    return (s0 + s1) + (s2 + s3)


@njit(cache=True, nogil=True)
def _steps(
    data: FloatArray,
    columns: NDArray[np.uint32],
    starts: NDArray[np.int64],
    w: FloatArray,
    margins: FloatArray,
    batches: Batches,
    local_steps: int,
    lr: float,
    loss_id: int,
    shrink: float,
) -> FloatArray:
    n = starts.size - 1
    full = batches.shape[0] == 0
    size = n if full else batches.shape[1]
    a = np.zeros(n)
    v = w.copy()
    c = np.empty(size)
    for step in range(local_steps):
        for k in range(size):
            i = k if full else batches[step, k]
            margin = margins[i] if step == 0 else product(data, columns, v, starts[i], starts[i + 1])
            c[k] = slope(loss_id, margin) * (lr / size)
        if shrink != 1.0:
            for i in range(n):
                a[i] *= shrink
            for j in range(v.size):
                v[j] = w[j] + shrink * (v[j] - w[j])
        for k in range(size):
            i = k if full else batches[step, k]
            a[i] += c[k]
            for p in range(starts[i], starts[i + 1]):
                v[columns[p]] += c[k] * data[p]
    return a


def coefficients(shard: Shard, w: FloatArray, margins: FloatArray, steps: Steps) -> FloatArray:
    """Return the coefficients a >= 0, shape (n,), of the rows in v − w; see `localgd.kernels.reference`."""
    rows: Any = shard.data.x
    columns = rows.indices.astype(np.uint32)
    starts = rows.indptr.astype(np.int64)
    return np.asarray(_steps(rows.data, columns, starts, w, margins, *compiled(steps)))
