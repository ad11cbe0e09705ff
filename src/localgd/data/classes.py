"""Many classes as signed rows: a sample becomes one row against each class that it is not of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from localgd.rounding import read_only
from localgd.rows import Rows, Shard


def signed(node_id: str, rows: Rows, codes: NDArray[Any], n_classes: int) -> Shard:
    """Return a node's shard: y·x with y = ±1 for two classes, the rows of `expanded` for more.

    Plain rows x of the caller's own, (n, d), become the signed ones in place; their classes, `codes`, count from 0.

    Examples
    --------
    >>> signed("a", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1]), 2).rows.tolist()
    [[-1.0, -2.0], [3.0, 4.0]]
    """
    if n_classes > 2:
        return Shard(node_id, expanded(rows, codes, n_classes), versus=n_classes - 1)
    signs = np.where(codes == 1, 1.0, -1.0)
    if isinstance(rows, csr_array):
        rows.data *= np.repeat(signs, np.diff(rows.indptr))
        return Shard(node_id, rows)
    rows *= signs[:, None]
    return Shard(node_id, read_only(rows))


def expanded(rows: Rows, codes: NDArray[Any], n_classes: int) -> csr_array[np.float64]:
    """Return the rows (e_y − e_c)⊗x, c ≠ y, of every sample (x, y), those of a sample next to each other.

    With w = W.ravel(), W one row of coefficients per class, the margin of such a row is w_y·x − w_c·x: the sample is
    right exactly if all its margins are above 0, and the max-margin w is the hard-margin multi-class model.

    The plain rows x, (n, d), have a last column of ones if there is a bias; `codes`, (n,), are the classes y from 0 to
    `n_classes` − 1, of which a node may lack some. The (n·(C − 1), C·d) rows are for `Shard` with ``versus=C − 1``.

    Examples
    --------
    >>> expanded(np.array([[1.0, 2.0]]), np.array([1]), 3).toarray()
    array([[-1., -2.,  1.,  2.,  0.,  0.],
           [ 0.,  0.,  1.,  2., -1., -2.]])
    """
    x = csr_array(rows)
    n, d = x.shape
    others = np.arange(n_classes - 1) + (np.arange(n_classes - 1) >= codes[:, None])  # every class but y, in order
    wide = csr_array(x[np.repeat(np.arange(n), n_classes - 1)])
    row = np.repeat(np.arange(wide.shape[0]), np.diff(wide.indptr))
    own, other = np.repeat(codes.astype(np.int64), n_classes - 1)[row], others.ravel()[row]
    columns = np.concatenate([wide.indices + d * own, wide.indices + d * other])
    entries = (np.concatenate([wide.data, -wide.data]), (np.concatenate([row, row]), columns))
    return csr_array(entries, shape=(wide.shape[0], n_classes * d))
