"""Anderson's acceleration of a fixed point x = T(x), by inner products of its moves T(x) − x alone."""

from __future__ import annotations

import numpy as np

from localgd.rounding import TINY, FloatArray


def bordered(gram: FloatArray, inner: FloatArray) -> FloatArray:
    """Return the Gram matrix of the last len(inner) vectors: that of all but the newest, and the newest's products.

    Examples
    --------
    >>> bordered(np.array([[9.0, 0.0], [0.0, 4.0]]), np.array([2.0, 5.0])).tolist()
    [[4.0, 2.0], [2.0, 5.0]]
    """
    h = len(inner) - 1
    out = np.empty((h + 1, h + 1))
    out[:h, :h] = gram[len(gram) - h :, len(gram) - h :]
    out[h, :] = out[:, h] = inner
    return out


def shortest_combination(gram: FloatArray) -> FloatArray:
    """Return the weights θ, Σ θ_j = 1, of the shortest ``Σ θ_j f_j``, given the inner products of the f_j.

    The next point is ``Σ θ_j T(x_j)``. Directions that are dependent to within rounding are left out.

    Notes
    -----
    Walker & Ni (2011), *Anderson acceleration for fixed-point iterations*, SIAM J. Numerical Analysis 49.

    Examples
    --------
    >>> shortest_combination(np.array([[4.0, 0.0], [0.0, 1.0]])).tolist()
    [0.2, 0.8]
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(gram), TINY))
    values, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
    kept = values > 1e-14 * values[-1]
    solution = scale * (vectors[:, kept] @ ((vectors[:, kept].T @ scale) / values[kept]))
    total = float(solution.sum())
    if not np.isfinite(solution).all() or total == 0:
        return np.asarray(np.eye(len(gram))[-1])
    return np.asarray(solution / total)
