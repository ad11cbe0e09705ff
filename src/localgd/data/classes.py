"""Classes as signed rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from localgd.layouts import ClassRows, Prepared, laid
from localgd.layouts.csr import sealed_csr
from localgd.layouts.layout import Rows
from localgd.rounding import FloatArray, read_only
from localgd.rows import Shard


def signed(
    node_id: str, rows: Rows | Prepared, codes: NDArray[Any], n_classes: int, weights: FloatArray | None = None
) -> Shard:
    """Return a node's shard: y·x with y = ±1 for two classes, `localgd.ClassRows` for more.

    Plain rows x of the caller's own, (n, d), become the signed ones in place, read-only, but for those of a file; their
    classes, `codes`, count from 0, and `weights`, (n,), are what each counts.

    Examples
    --------
    >>> signed("a", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1]), 2).rows.tolist()
    [[-1.0, -2.0], [3.0, 4.0]]
    """
    if n_classes > 2:
        return Shard(node_id, ClassRows(_sealed(rows), codes, n_classes), weights=weights)
    signs = np.where(codes == 1, 1.0, -1.0)
    if isinstance(rows, Prepared):
        rows = replace(rows, signs=signs)
    elif isinstance(rows, csr_array):
        rows.data *= np.repeat(signs.astype(np.int8), np.diff(rows.indptr))  # a byte an entry, not as large as the rows
    else:
        rows *= signs[:, None]
    return Shard(node_id, _sealed(rows), weights=weights)


def _sealed(rows: Any) -> Any:
    """Return rows of our own read-only, so that nobody need copy them, float32 as such; those of a file are so."""
    if isinstance(rows, csr_array):
        return sealed_csr(rows)
    if not isinstance(rows, np.ndarray):
        return rows
    return laid(read_only(rows, np.float32 if rows.dtype == np.float32 else np.float64))
