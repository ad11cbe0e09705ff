"""Local gradient steps on one shard, once per way of storing the rows.

Every kernel has the same contract. It starts at ``v = w`` and takes `local_steps` steps

    v ← w + shrink·(v − w) + (lr/b) Σ_{i in batch} slope(z·v)_i z_i,        b = samples of the loss in the batch,

and returns the coefficients a >= 0, shape (n,), of ``v − w = Σ a_i z_i``. The caller forms that sum once, so its
rounding error does not grow with the number of steps, and Σ a_i is the mass that the certificate needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from localgd.kernels import gram, reference
from localgd.kernels.reference import Steps
from localgd.layouts import Csr, Dense, Float32
from localgd.many.stack import alone
from localgd.rounding import FloatArray
from localgd.rows import Shard

MOST_GRAM_ROWS = 2048
"""Largest Gram matrix kept on a node: 2048² float64 are 32 MB."""

SMALL_GRAM = 2**17
"""Entries of a Gram matrix, 1 MB, that are no burden: a larger one must not take more room than the rows."""

COMPILED_FROM, COSTLY_FROM, STEP = 10_000_000, 500_000, 2_000
"""Entries touched in one round from which a compiled kernel is worth seconds of compiling, once on a machine.

About 10 ms in NumPy. Of sparse rows, and of mini-batches, an entry takes several times as long, and a mini-batch as
long as `STEP` more entries, however small it is.
"""

CACHED_ENTRIES = 1_000_000
"""Dense rows up to here (8 MB) stay in cache, where two BLAS passes a step beat one compiled pass (`benchmarks/`)."""


Kernel: TypeAlias = Callable[[Shard, FloatArray, FloatArray, Steps], FloatArray]
"""From shard, w, margins z_i·w and steps to the coefficients; some need neither w nor the margins."""


def pick(shard: Shard, local_steps: int, batch_size: int | None = None, *, versus: int = 1) -> Kernel:
    """Return the fastest kernel for this shard; the choice depends on sizes only, never on timing.

    No compiled one for rows of many classes or with weights, or where `versus` margins, more than one, make one value
    of the loss.

    Examples
    --------
    >>> import numpy as np
    >>> pick(Shard("wide", np.ones((3, 50))), local_steps=10) is gram.coefficients
    True
    >>> pick(Shard("tall", np.ones((50, 3))), local_steps=10) is reference.coefficients
    True
    """
    data, stored = shard.data, shard.data.stored
    drawn = batch_size is not None and batch_size < shard.n_samples
    touched = stored * (batch_size or 0) / shard.n_samples + STEP if drawn else stored
    if local_steps == 1:
        return reference.coefficients
    room = max(stored, min(2 * stored, SMALL_GRAM))
    if shard.n_samples**2 <= room and shard.n_samples <= MOST_GRAM_ROWS:
        return gram.coefficients
    plain = versus == 1 and shard.weights is None and isinstance(data, Dense | Float32 | Csr)
    costly = drawn or isinstance(data, Csr)
    cached = not costly and stored <= CACHED_ENTRIES
    if not plain or cached or local_steps * touched < (COSTLY_FROM if costly else COMPILED_FROM):
        return reference.coefficients
    alone(shard, "compiled kernels take one node")
    from localgd.kernels import csr, dense  # noqa: PLC0415  the compiler, which few shards are large enough for

    return csr.coefficients if isinstance(data, Csr) else dense.coefficients
