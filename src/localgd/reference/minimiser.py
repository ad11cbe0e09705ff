"""The pooled minimiser of the loss, for rows that no plane separates."""

from __future__ import annotations

import numpy as np

from localgd.kernels.project import dense
from localgd.layouts.layout import Rows
from localgd.losses import Logistic, among
from localgd.rounding import FloatArray, norm
from localgd.rows import Shard


def minimiser(rows: Rows, weights: FloatArray, versus: int = 1) -> FloatArray:
    """Return the minimiser of the weighted logistic loss ``F(w) = Σ weights_i log(1 + exp(−z_i·w))``, or of softmax.

    Newton's method with backtracking; where columns are dependent, the minimiser of least norm, which is the one
    gradient descent from 0 tends to.

    The rows (N, d), dense or CSR, must not be separable; a row of node m weighs p_m/n_m, all weights (N,) together 1.
    Where `versus` rows next to each other, of one weight, speak for a sample, the loss is softmax, and the weight of a
    sample is the sum of theirs. Returns w, shape (d,), with ``|∇F(w)| <= 1e-12 · max |z_i|``. A ValueError if there is
    no minimiser, because some direction separates rows without misplacing any, or if Newton's method does not reach
    that norm.

    Examples
    --------
    >>> rows = np.array([[1.0], [1.0], [1.0], [-1.0]])
    >>> minimiser(rows, np.full(4, 0.25)).round(12) == np.log(3).round(12)
    array([ True])
    """
    weights, loss = checked_weights(weights, rows) * versus, among(Logistic(), versus)
    z = dense(Shard("pooled", rows).rows)
    exponent = np.frexp(np.abs(z).max())[1]
    z = np.ldexp(z, -exponent)  # a power of two changes no digit of z·w, and 1 becomes a length to measure by
    shard = Shard("pooled", z)
    w = np.zeros(shard.n_features)
    for _ in range(200):
        margins = shard.margins(w)
        slope = loss.slope(margins)
        gradient = -shard.combine(weights * slope)
        # The Newton step as least squares over rows, not over the Hessian: that would square the condition number.
        aim = np.sqrt(weights) * np.exp(-margins / 2)  # √weights · √(p/p₀) for every row, as p/p₀ = exp(−m)
        newton, _, rank, values = np.linalg.lstsq(_root(z, weights, margins, versus), aim)
        if not w.any():
            full_rank, faint = rank, 1e-8 * values[rank - 1]
        # A direction along which every curvature fades is one along which the loss falls for ever.
        if margins.min() > 0 or rank < full_rank or values[rank - 1] < faint:
            raise ValueError(
                "the loss has no minimiser: a direction separates rows without misplacing any; use max_margin"
            )
        step = np.asarray(newton)
        if norm(step) <= 1e-9 * (1.0 + norm(w)) and norm(gradient) <= 1e-12 * shard.radius:
            return np.asarray(np.ldexp(w, -exponent))
        value = weights[::versus] @ loss.value(margins)
        while weights[::versus] @ loss.value(shard.margins(w + step)) > value * (1 + 1e-14):
            step /= 2
        w = w + step
    unmet = norm(gradient) / shard.radius
    raise ValueError(f"minimiser: gradient norm {unmet:.1e} of max |z_i| after 200 Newton steps; scale the columns")


def _root(z: FloatArray, weights: FloatArray, margins: FloatArray, versus: int) -> FloatArray:
    """Return an R with RᵀR = ∇²F; with the aim it makes Rᵀ aim = −∇F.

    Of a sample with slopes p, p₀ = 1 − Σp and q = √p the Hessian is diag(p) − ppᵀ, its root (I − qqᵀ/(1+√p₀)) diag(q).
    """
    loss = among(Logistic(), versus)
    slope = loss.slope(margins)
    if versus == 1:
        return np.asarray(np.sqrt(weights * slope * loss.slope(-margins))[:, None] * z)
    q = np.sqrt(slope).reshape(-1, versus, 1)
    rows = q * z.reshape(-1, versus, z.shape[1])
    share = q / (1.0 + np.exp(-loss.value(margins) / 2))[:, None, None]
    rows -= share * (q * rows).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(weights)[:, None] * rows.reshape(z.shape))


def checked_weights(weights: FloatArray, rows: Rows) -> FloatArray:
    """Return the weights of the rows, if they fit."""
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (rows.shape[0],):
        raise ValueError(f"weights must have one entry per row ({rows.shape[0]}), got shape {weights.shape}")
    if not (weights.min() >= 0 and abs(weights.sum() - 1.0) <= 1e-9):
        raise ValueError(f"weights must be non-negative and sum to 1, got sum {weights.sum()!r}; divide by the sum")
    return weights
