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
    a = np.zeros(shard.n_rows)
    lr = steps.lr * steps.loss.versus
    for step in range(steps.local_steps):
        if steps.batches is None:
            a = steps.shrink * a + steps.slopes(margins + shard.data.by_gram(gram, a)) * (lr / a.size)
        else:
            samples = steps.batches[step]
            index = shard.data.index(samples)
            c = steps.slopes(margins[index] + shard.data.by_gram(gram, a, samples), index) * (lr / index.size)
            a *= steps.shrink
            np.add.at(a, index, c)
    return a
