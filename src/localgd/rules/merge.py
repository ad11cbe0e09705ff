"""What the server does with the sum of the reports. Only `step` makes a new shared model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from localgd.core import Message, Report, frozen, sealed
from localgd.rounding import CANCELS, TINY, UNIT_ROUNDOFF, FloatArray, below, norm


@dataclass(frozen=True, eq=False)
class Iterate:
    """The server's state: the shared model and what is needed to certify it.

    ``w = Σ α_i z_i`` up to an error of norm at most `drift`, with α >= 0 and ``Σ α_i >= mass``. Both are NaN when the
    run did not start at 0, because then w is no such combination and nothing bounds γ* from above.
    """

    w: FloatArray
    round: int = 0
    mass: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True)
class Mean:
    """Local-GD's server: the new model is the weighted mean Σ p_m v_m of the nodes' models."""

    def init(self, w0: FloatArray) -> Iterate:
        """Start from w0; the mass is known only for w0 = 0."""
        known = 0.0 if not np.any(w0) else float("nan")
        return Iterate(frozen(w0), 0, known, known)

    def message(self, state: Iterate) -> Message:
        """Send the shared model."""
        return Message(state.round, state.w)

    def step(self, state: Iterate, report: Report) -> Iterate:
        """Return w + Σ p_m (v_m − w) / Σ p_m, and the mass and drift that go with it."""
        return moved_along(state, report)


@dataclass(frozen=True)
class Anchored(Mean):
    """Halpern's anchor at 0: the mean of the nodes' models, shrunk by a_k = k/(k+1).

    w ← a_k Σ p_m v_m with k counted from 1. With projections the limit is the hard-margin vector itself, while the
    plain mean stops at some point of the intersection (Zhu, Vardhan, Mazumdar, arXiv 2412.07971; Halpern 1967).
    """

    def step(self, state: Iterate, report: Report) -> Iterate:
        """Return a_k times the mean, its mass and its drift."""
        mean = moved_along(state, report)
        a = mean.round / (mean.round + 1)
        w = a * mean.w
        rounding = 4 * UNIT_ROUNDOFF * norm(w) + w.size * TINY
        return Iterate(sealed(w), mean.round, below(a * mean.mass, 2), a * mean.drift + rounding)


@dataclass(frozen=True)
class Extrapolated(Mean):
    """FedExP's server: the mean move, made longer where the nodes pull apart.

    w ← w + η Δ̄ with Δ_m = v_m − w, Δ̄ = Σ p_m Δ_m / Σ p_m and η = max(1, ρ Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²)). With
    projections it is Pierra's extrapolated parallel projection: an intersection is reached sooner, at some point of it.

    Parameters
    ----------
    relaxation : float in (0, 1]
        ρ: 1/2 is FedExP (Jhunjhunwala, Wang, Joshi, ICLR 2023, arXiv 2301.09604), 1 is Pierra (Math. Programming 28,
        1984).

    Raises
    ------
    ValueError
        If `relaxation` is out of its range.

    Examples
    --------
    >>> sums = {"weight": 2.0, "step": [2.0, 0.0], "square": 20.0, "mass": 2.0, "drift": 0.0}  # moves [1, 3], [1, -3]
    >>> report = Report(n_nodes=2, sums=sums)
    >>> [Extrapolated(share).step(Iterate(np.zeros(2)), report).w.round(9).tolist() for share in (0.5, 1.0)]
    [[5.0, 0.0], [10.0, 0.0]]
    """

    relaxation: float = 0.5

    def __post_init__(self) -> None:
        """Check the share once."""
        if not 0 < self.relaxation <= 1:
            raise ValueError(f"relaxation must be above 0 and at most 1, got {self.relaxation!r}")

    def step(self, state: Iterate, report: Report) -> Iterate:
        """Return w + η Δ̄, and the mass and drift that go with it."""
        return moved_along(state, report, max(1.0, self.relaxation * spread(report)))


def spread(report: Report) -> float:
    """Return Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²), at least 1 but for rounding: how far the nodes pull apart.

    0 where it is unknown: where Δ̄ is 0 to within its own rounding, so that its direction is noise. As a ratio of
    lengths, for |Δ̄|² may underflow; squares of nodes that do only make it smaller.
    """
    weight = float(report.sums["weight"])
    mean = norm(report.sums["step"]) / weight
    noise = CANCELS * float(report.sums["drift"]) / weight
    if mean <= TINY or mean <= noise:  # in this form, for a drift that is not known (NaN) must not switch it off
        return 0.0
    ratio = math.sqrt(float(report.sums["square"]) / weight) / mean
    return ratio * ratio  # not **, which raises where this overflows


def moved_along(state: Iterate, report: Report, factor: float = 1.0) -> Iterate:
    """Return w + factor · Σ p_m (v_m − w) / Σ p_m, and the mass and drift that go with it.

    `factor` >= 1 is a known number that multiplies coefficients and model alike, so how it came about and how it was
    rounded does not matter; a model that it takes out of float64 is not finite, and so is refused.
    """
    weight = float(report.sums["weight"])
    w = state.w + factor * (report.sums["step"] / weight)
    # Three roundings. A quotient that underflows is less wrong than the inner `below` took off, whatever the factor.
    mass = below(state.mass + factor * (below(report.sums["mass"], report.n_nodes) / weight), 2)
    # The nodes' own errors; at most n + 2 roundings (the weighting, the fold over the nodes, two operations on it) of
    # what the nodes move, of which their drift is more than 8 u; and the last sum.
    fold = factor * (float(report.sums["drift"]) / weight * (2 + report.n_nodes))
    rounding = 4 * UNIT_ROUNDOFF * (norm(state.w) + norm(w))
    return Iterate(sealed(w), state.round + 1, mass, state.drift + fold + rounding)
