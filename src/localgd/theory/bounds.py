"""Proved bounds and rates, each with its kind and its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import orth, svdvals
from scipy.special import expit

from localgd.rounding import FloatArray


@dataclass(frozen=True)
class Prediction:
    """A number known beforehand, how far it can be trusted, and why.

    Parameters
    ----------
    value : float
        What is predicted.
    kind : "tight", "upper" or "first order"
        "upper": never exceeded. "tight": never exceeded, and attained by some problem. "first order": its relative
        error vanishes as the step size does.
    source : str
        The proof in a line, or where it is.
    """

    value: float
    kind: Literal["tight", "upper", "first order"]
    source: str


def positive(**given: float) -> None:
    """Refuse an argument that is not a finite number above 0, by its name."""
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a number above 0, got {value!r}")


def flow_loss(margin: float, t: float) -> Prediction:
    """Return the bound on the *exponential* loss of the flow, ``F <= 1/(1 + γ*² t)``: equal for one row, late for any.

    It is no bound on the logistic loss: the logistic flow is slower and can exceed it.

    Examples
    --------
    >>> flow_loss(0.5, 12.0).value
    0.25
    """
    positive(margin=margin, t=t)
    value = float(expit(-2 * math.log(margin) - math.log(t)))
    return Prediction(value, "tight", "F(0) = 1, and F falls at rate |∇F|² >= (margin · F)²")


def flow_angle(margin: float, smallest_weight: float, t: float) -> Prediction:
    """Return the bound in degrees on the angle of the exponential flow to u* at time t.

    ``cos θ >= 1 − log(1/c_min)/log(1 + γ*² t)``: every margin is at least log(c_min/F), since c_i e^(−z_i·w) <= F;
    |w| <= log(1/F)/γ*, since d log(1/F)/dt = |∇F|²/F >= γ*|∇F|; their ratio low has cos θ >= low/γ* and grows with
    log(1/F) >= log(1 + γ*² t). Before that says anything, 90: w is a non-negative combination of rows.

    Examples
    --------
    >>> round(flow_angle(1.0, 0.5, 1e30).value, 2), flow_angle(1.0, 0.5, 0.1).value
    (8.12, 90.0)
    """
    positive(margin=margin, t=t, smallest_weight=smallest_weight)
    if smallest_weight > 1:
        raise ValueError(f"smallest_weight must be at most 1, the sum of all weights, got {smallest_weight!r}")
    growth = float(np.logaddexp(0.0, 2 * math.log(margin) + math.log(t)))  # γ*² may under- or overflow
    cosine = 1.0 + math.log(smallest_weight) / growth if growth > 0 else 0.0
    source = "min z·w >= log(c_min/F), |w| <= log(1/F)/margin, F <= 1/(1 + margin² t)"
    return Prediction(math.degrees(math.acos(max(cosine, 0.0))), "upper", source)


def anchored_residual(margin: float, k: int) -> Prediction:
    """Return the bound on |w_k − T(w_k)| after k rounds of Modified Local-GD, ``2/(γ* (k + 1))``.

    ``w_k = k/(k+1) T(w_{k−1})`` from w_0 = 0, with T the weighted mean of the nodes' projections onto {v : z·v >= 1}:
    Halpern's iteration of a map that brings no two points further apart, its nearest fixed point ŵ at |ŵ| = 1/γ*.

    Examples
    --------
    >>> anchored_residual(0.5, 3).value
    1.0
    """
    positive(margin=margin, k=k)
    return Prediction(2.0 / (margin * (k + 1)), "upper", "Lieder (2021), Optimization Letters 15, Halpern's iteration")


def projection_rate(blocks: Sequence[FloatArray], weights: Sequence[float] | None = None) -> Prediction:
    """Return by what the error shrinks in a round of averaged exact local least squares: ``1 − λ_min(Σ p_m Π_m)``.

    Π_m projects onto the span of the rows of node m, and λ_min is over the span of all rows, where the error of a run
    from 0 lies. For two nodes of equal weight it is (1 + cos θ)/2, θ their smallest principal angle above 0.

    The blocks are the nodes' rows, (n_m, d), and the weights p_m > 0, one per block, before normalisation; None for
    equal ones. The factor is attained, in every round, from the worst start.

    Examples
    --------
    >>> round(projection_rate([np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])]).value, 6)
    0.853553
    """
    p = np.ones(len(blocks)) if weights is None else np.asarray(weights, dtype=np.float64)
    if p.shape != (len(blocks),) or not (np.isfinite(p).all() and p.min() > 0):
        raise ValueError(f"weights must be {len(blocks)} numbers above 0, one per block, got {weights!r}")
    if not any(np.any(block) for block in blocks):
        raise ValueError("every row of every block is zero, so there is nothing to project on; check the columns")
    # Σ p Π = AAᵀ: the singular values of A, squared, and no (d, d) matrix.
    values = svdvals(np.hstack([math.sqrt(q) * orth(block.T) for q, block in zip(p / p.sum(), blocks, strict=True)]))
    least = values[values > 1e-8 * values[0]].min()  # what nodes share leaves noise of the blocks' condition number
    source = "a round takes Σ p_m Π_m e from the error e, a symmetric map"
    return Prediction(max(1.0 - float(least) ** 2, 0.0), "tight", source)


def round_drift(lr: float, local_steps: int, smoothness: float, loss: float) -> float:
    """Return ``η L λ_max F``, about how much the margins of a node move within a round at loss F.

    A yardstick, not a bound: where it was at most 0.05, measured runs of Local-GD followed the flow.
    """
    positive(lr=lr, local_steps=local_steps, smoothness=smoothness, loss=loss)
    return lr * local_steps * smoothness * loss
