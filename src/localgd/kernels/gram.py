"""Local steps without touching the d columns: margins move by the Gram matrix, z_i·v = z_i·w + (G a)_i.

A full-batch step costs 2n² flops instead of 4nd, so this is the kernel for n < 2d; pure NumPy, nothing to compile. Of
many classes it takes the Gram matrix of the samples, and C times the flops either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from localgd.kernels.reference import Steps
from localgd.losses import Logistic, Loss
from localgd.rounding import FloatArray
from localgd.rows import Shard


def coefficients(shard: Shard, w: FloatArray, margins: FloatArray, steps: Steps) -> FloatArray:  # noqa: ARG001
    """Return the coefficients a >= 0, shape (n,), of the rows in v − w; see `localgd.kernels.reference`."""
    gram = shard.gram
    a = np.zeros(margins.shape)
    lr = steps.lr * steps.loss.versus
    if steps.batches is None:
        share = lr / shard.n_rows
        pull = pulls(steps.loss, share if steps.weights is None else share * steps.weights)
        shrink, after = steps.shrink, shard.data.moving(gram, margins, a)
        for _ in range(steps.local_steps):  # its every line counts: rows are few, and steps many
            c = pull(after())
            if shrink != 1.0:
                a *= shrink
            np.add(a, c, a)
        return a
    for samples in steps.batches:
        index = shard.data.index(samples)
        c = steps.slopes(margins[index] + shard.data.by_gram(gram, a, samples), index) * (lr / index.size)
        a *= steps.shrink
        np.add.at(a, index, c)
    return a


def pulls(loss: Loss, share: Any) -> Callable[[FloatArray], FloatArray]:
    """Return what makes slopes of margins, times a share, in place if that is faster.

    The logistic slope as the formula has it takes half the time of the one that is safe for every exponent, and
    differs by a few units in the last place; beyond e^709, where e^m has no float64, it is 0.

    Examples
    --------
    >>> with np.errstate(over="ignore"):
    ...     pulls(Logistic(), 0.5)(np.array([0.0, -800.0, 800.0])).tolist()
    [0.25, 0.5, 0.0]
    """
    if type(loss) is not Logistic:  # what is derived from it is another loss
        slope = loss.slope
        return lambda margins: slope(margins) * share
    one, share = np.ones(()), np.asarray(share)  # an array, as a number is made one in every step

    def pull(margins: FloatArray) -> FloatArray:
        np.exp(margins, margins)
        np.add(margins, one, margins)
        np.divide(share, margins, margins)
        return margins

    return pull
