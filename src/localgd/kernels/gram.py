"""Local steps without touching the d columns: margins move by the Gram matrix, z_i·v = z_i·w + (G a)_i.

A full-batch step costs 2n² flops instead of 4nd, so this is the kernel for n < 2d; pure NumPy, nothing to compile. Of
many classes it takes the Gram matrix of the samples, and C times the flops either way.
"""

from __future__ import annotations

import numpy as np

from localgd.kernels.reference import Steps
from localgd.rounding import FloatArray
from localgd.rows import Shard


def coefficients(shard: Shard, w: FloatArray, margins: FloatArray, steps: Steps) -> FloatArray:  # noqa: ARG001
    """Return the coefficients a >= 0, shape (n,), of the rows in v − w; see `localgd.kernels.reference`."""
    gram = shard.gram
    a = np.zeros(margins.shape)
    lr = steps.lr * steps.loss.versus
    if steps.batches is None:
        share, shrink, weights, slope = lr / shard.n_rows, steps.shrink, steps.weights, steps.loss.slope
        after = shard.data.moving(gram, margins)
        for _ in range(steps.local_steps):  # its every line counts: rows are few, and steps many
            c = slope(after(a))
            c = (c if weights is None else c * weights) * share
            if shrink != 1.0:
                a *= shrink
            a += c
        return a
    for samples in steps.batches:
        index = shard.data.index(samples)
        c = steps.slopes(margins[index] + shard.data.by_gram(gram, a, samples), index) * (lr / index.size)
        a *= steps.shrink
        np.add.at(a, index, c)
    return a
