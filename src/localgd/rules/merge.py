"""What the server does with the sum of the reports. Only `step` makes a new shared model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localgd.core import Message, Report, frozen, sealed
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, below, norm


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
        weight = float(report.sums["weight"])
        w = state.w + report.sums["step"] / weight
        mass = below(state.mass + below(report.sums["mass"], report.n_nodes) / weight, 2)
        # The nodes' own errors, the fold over the nodes (their drift is more than 8 u times what they move), the sum.
        fold = float(report.sums["drift"]) / weight * (2 + report.n_nodes)
        rounding = 4 * UNIT_ROUNDOFF * (norm(state.w) + norm(w))
        return Iterate(sealed(w), state.round + 1, mass, state.drift + fold + rounding)


@dataclass(frozen=True)
class Anchored:
    """Halpern's anchor at 0: the mean of the nodes' models, shrunk by a_k = k/(k+1).

    w ← a_k Σ p_m v_m with k counted from 1. With projections the limit is the hard-margin vector itself, while the
    plain mean stops at some point of the intersection (Zhu, Vardhan, Mazumdar, arXiv 2412.07971; Halpern 1967).
    """

    def init(self, w0: FloatArray) -> Iterate:
        """Start from w0; the mass is known only for w0 = 0."""
        return Mean().init(w0)

    def message(self, state: Iterate) -> Message:
        """Send the shared model."""
        return Message(state.round, state.w)

    def step(self, state: Iterate, report: Report) -> Iterate:
        """Return a_k times the mean, its mass and its drift."""
        mean = Mean().step(state, report)
        a = mean.round / (mean.round + 1)
        w = a * mean.w
        rounding = 4 * UNIT_ROUNDOFF * norm(w) + w.size * TINY
        return Iterate(sealed(w), mean.round, below(a * mean.mass, 2), a * mean.drift + rounding)
