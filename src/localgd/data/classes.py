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

    Parameters
    ----------
    node_id : str
        Name of the node.
    rows : (n, d) float64 array or CSR array
        Plain rows x of the caller's own; for two classes they become the signed ones in place.
    codes : (n,) int array
        Class of every row, from 0.
    n_classes : int, at least 2
        C, over all nodes.

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

    Parameters
    ----------
    rows : (n, d) float64 array or CSR array
        Plain rows x, a last column of ones if there is a bias.
    codes : (n,) int array
        Class y of every row, from 0 to `n_classes` − 1.
    n_classes : int, at least 2
        C, over all nodes: a node may lack a class.

    Returns
    -------
    (n·(C − 1), C·d) CSR array
        Twice the entries of x in each row; for `Shard` with ``versus=C − 1``.

    Examples
    --------
    >>> expanded(np.array([[1.0, 2.0]]), np.array([1]), 3).toarray()
    array([[-1., -2.,  1.,  2.,  0.,  0.],
           [ 0.,  0.,  1.,  2., -1., -2.]])
    """
    x = csr_array(rows)
    n, d = x.shape
    others = np.arange(n_classes - 1) + (np.arange(n_classes - 1) >= codes[:, None])  # every class but y, in order
    own = np.broadcast_to(codes[:, None], others.shape)
    wide = csr_array(x[np.repeat(np.arange(n), n_classes - 1)])
    first, second = np.minimum(own, others).ravel(), np.maximum(own, others).ravel()
    sign = np.where(own < others, 1.0, -1.0).ravel()
    of_row = np.repeat(np.arange(wide.shape[0]), np.diff(wide.indptr))
    place = np.arange(wide.nnz) + wide.indptr[of_row]  # of an entry in its row's first block
    again = place + np.diff(wide.indptr)[of_row]
    data, columns = np.empty(2 * wide.nnz), np.empty(2 * wide.nnz, dtype=np.int64)
    data[place], data[again] = wide.data * sign[of_row], -wide.data * sign[of_row]
    columns[place], columns[again] = wide.indices + d * first[of_row], wide.indices + d * second[of_row]
    return csr_array((data, columns, 2 * wide.indptr.astype(np.int64)), shape=(wide.shape[0], n_classes * d))
