"""What the server does with the sum of the reports. Only `step` makes a new shared model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from localgd.core import Message, Report
from localgd.rounding import CANCELS, TINY, UNIT_ROUNDOFF, Dual, FloatArray, below, norm
from localgd.rows import frozen, sealed


@dataclass(frozen=True, eq=False)
class Iterate:
    """The server's state: the shared model and what is needed to certify it.

    ``w = Σ α_i z_i`` up to an error of norm at most `drift`, with α >= 0 and ``Σ α_i >= mass``. Both are NaN when the
    run did not start at 0, because then w is no such combination and nothing bounds γ* from above. `done` says why no
    further round can improve w, where that is so. `tails` are the same of what was added since some earlier rounds,
    which their own `round` names; None if nobody asked for them.
    """

    w: FloatArray
    round: int = 0
    mass: float = 0.0
    drift: float = 0.0
    done: str = ""
    tails: tuple[Iterate, ...] | None = None

    @property
    def readout(self) -> Iterate:
        """The model that is handed out: w, or what was added to it in the last half of the rounds."""
        if not self.tails:
            return self
        return max((tail for tail in self.tails if 2 * tail.round <= self.round), key=lambda tail: tail.round)


@dataclass(frozen=True)
class Mean:
    """Local-GD's server: the new model is the weighted mean Σ p_m v_m of the nodes' models.

    Parameters
    ----------
    late : bool
        Hand out the late direction w_k − w_j, with j at most k/2 and near to it, instead of w_k. On separable data
        ``w(t) = ŵ log t + ρ + o(1)``, and the constant ρ cancels. What was added since round j is itself a combination
        of rows with coefficients >= 0, so its certificate is the same theorem.
    """

    late: bool = field(default=False, kw_only=True)

    def init(self, w0: FloatArray) -> Iterate:
        """Start from w0; the mass is known only for w0 = 0."""
        known = 0.0 if not np.any(w0) else float("nan")
        tails = (Iterate(sealed(np.zeros(np.size(w0)))),) if self.late else None
        return Iterate(frozen(w0), 0, known, known, tails=tails)

    def message(self, state: Any) -> Message:
        """Send the shared model, and the model that is handed out if it is another."""
        return Message(state.round, state.w, {"readout": state.readout.w} if self.late else {})

    def step(self, state: Any, report: Report) -> Iterate:
        """Return w + Σ p_m (v_m − w) / Σ p_m, and the mass and drift that go with it."""
        following: Iterate = added(state, mean_move(report))
        return following


@dataclass(frozen=True)
class Anchored(Mean):
    """Halpern's anchor at 0: the mean of the nodes' models, shrunk by a_k = k/(k+1).

    w ← a_k Σ p_m v_m with k counted from 1. With projections the limit is the hard-margin vector itself, while the
    plain mean stops at some point of the intersection (Zhu, Vardhan, Mazumdar, arXiv 2412.07971; Halpern 1967).

    Raises
    ------
    ValueError
        If `late` is asked for: shrinking takes away from what was added, so there is no late direction.
    """

    def __post_init__(self) -> None:
        """Check the read-out once."""
        if self.late:
            raise ValueError(
                "late=True has no meaning for an anchored mean, which shrinks what was added; leave it out"
            )

    def step(self, state: Iterate, report: Report) -> Iterate:
        """Return a_k times the mean, its mass and its drift."""
        mean = added(state, mean_move(report))
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
        return added(state, mean_move(report, max(1.0, self.relaxation * spread(report))))


def spread(report: Report) -> float:
    """Return Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²), at least 1 but for rounding: how far the nodes pull apart.

    0 where it is unknown: where Δ̄ is 0 to within its own rounding, so that its direction is noise. As a ratio of
    lengths, for |Δ̄|² may underflow; squares of nodes that do only make it smaller.
    """
    weight = float(report.sums["weight"])
    mean = norm(report.sums["step"]) / weight
    noise = CANCELS * float(report.sums.get("drift", math.nan)) / weight
    if mean <= TINY or mean <= noise:  # in this form, for a drift that is not known (NaN) must not switch it off
        return 0.0
    ratio = math.sqrt(float(report.sums["square"]) / weight) / mean
    return ratio * ratio  # not **, which raises where this overflows


def mean_move(report: Report, factor: float = 1.0) -> Dual:
    """Return ``factor · Σ p_m (v_m − w) / Σ p_m`` with the mass and drift that go with it, NaN if nobody says them.

    `factor` >= 0 is a known number that multiplies coefficients and model alike, so how it came about and how it was
    rounded does not matter; a model that it takes out of float64 is not finite, and so is refused.
    """
    weight = float(report.sums["weight"])
    # A quotient that underflows is less wrong than the inner `below` took off, whatever the factor.
    mass = factor * (below(report.sums.get("mass", math.nan), report.n_nodes) / weight)
    # The nodes' own errors; and at most n + 2 roundings (the weighting, the fold over the nodes, two operations on it)
    # of what the nodes move, of which their drift is more than 8 u.
    fold = factor * (float(report.sums.get("drift", math.nan)) / weight * (2 + report.n_nodes))
    return Dual(factor * (report.sums["step"] / weight), mass, fold)


State = TypeVar("State", bound=Iterate)


def added(state: State, move: Dual) -> State:
    """Return the state after w ← w + move, one round later."""
    w = state.w + move.vector
    drift = state.drift + move.drift + 4 * UNIT_ROUNDOFF * (norm(state.w) + norm(w))
    tails = None if state.tails is None else _grown(state.tails, state.round + 1, move)
    return replace(
        state, w=sealed(w), round=state.round + 1, mass=below(state.mass + move.mass, 2), drift=drift, tails=tails
    )


TAIL_SPACING = 1.1
"""Tails begin at rounds in about this ratio: eight of them cover the last half of a run."""


def _grown(tails: tuple[Iterate, ...], round_: int, move: Dual) -> tuple[Iterate, ...]:
    """Return the tails with the move added, those that are still needed, and perhaps a new one."""
    grown = [replace(added(tail, move), round=tail.round) for tail in tails]
    if round_ >= TAIL_SPACING * tails[-1].round:
        grown.append(Iterate(sealed(np.zeros(move.vector.size)), round_))
    usable = [tail for tail in grown if 2 * tail.round <= round_]
    return (usable[-1], *grown[len(usable) :])


@dataclass(frozen=True, eq=False)
class Coasting(Iterate):
    """The server's state with a velocity, a combination of rows of its own."""

    velocity: Dual = field(default_factory=lambda: Dual(np.zeros(0), 0.0))


@dataclass(frozen=True)
class ServerMomentum(Mean):
    """The mean move, with momentum on the server: u ← βu + Δ̄, then w ← w + α u, or w ← w + α (Δ̄ + βu) with Nesterov.

    Parameters
    ----------
    momentum : float in [0, 1)
        β.
    server_lr : float > 0
        α; 1 with β = 0 is the plain mean.
    nesterov : bool
        False is SlowMo (Wang et al., ICLR 2020, arXiv 1910.00643), True the outer step of DiLoCo (Douillard et al.,
        arXiv 2311.08105).

    Raises
    ------
    ValueError
        If a field is out of its range.
    """

    momentum: float = 0.9
    server_lr: float = 1.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Check every field once."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum!r}")
        if not (math.isfinite(self.server_lr) and self.server_lr > 0):
            raise ValueError(f"server_lr must be a positive number, got {self.server_lr!r}")

    def init(self, w0: FloatArray) -> Coasting:
        """Start from w0 at rest."""
        rest = Dual(np.zeros(np.size(w0)), 0.0)
        return Coasting(**vars(super().init(w0)), velocity=rest)

    def step(self, state: Any, report: Report) -> Coasting:
        """Return the state after the move, and the velocity that goes with it."""
        move = mean_move(report)
        velocity = _mixed(state.velocity, self.momentum, move)
        ahead = _mixed(velocity, self.momentum, move) if self.nesterov else velocity
        following: Coasting = added(state, _mixed(ahead, self.server_lr))
        return replace(following, velocity=velocity)


def _mixed(a: Dual, share: float, b: Dual | None = None) -> Dual:
    """Return share·a + b with its mass rounded down and its rounding error counted."""
    b = Dual(np.zeros(a.vector.size), 0.0) if b is None else b
    vector = share * a.vector + b.vector
    rounding = 4 * UNIT_ROUNDOFF * (share * norm(a.vector) + norm(vector)) + vector.size * TINY
    return Dual(vector, below(share * a.mass + b.mass, 3), (share * a.drift + b.drift) * (1 + 1e-15) + rounding)


@dataclass(frozen=True, eq=False)
class Guarded(Iterate):
    """The server's state with the last point whose loss was accepted, that loss, and the share of the step size."""

    accepted: Iterate | None = None
    loss: float = math.inf
    share: float = 1.0


@dataclass(frozen=True)
class Normalised(Mean):
    """Local-GD with its step size over the loss of the round before, and a way back if the loss grows.

    Each update is still a combination of rows with coefficients >= 0 that vanish off the smallest margin, so the limit
    is the same max-margin direction, but |w| grows like the number k of rounds instead of its logarithm: the error
    falls like 1/k. A round that raised the loss is undone and repeated with half the step.
    """

    needs_all_nodes: ClassVar[str] = "the loss that sets its step size is a sum over all nodes"

    def init(self, w0: FloatArray) -> Guarded:
        """Start from w0 with the step size as it is."""
        return Guarded(**vars(super().init(w0)))

    def message(self, state: Any) -> Message:
        """Send the shared model and what the step size is multiplied with."""
        plain = super().message(state)
        scale = state.share / state.loss if state.loss < math.inf else 1.0
        return replace(plain, extra={**plain.extra, "scale": np.asarray(scale)})

    def step(self, state: Any, report: Report) -> Guarded:
        """Return the next point, or go back to the last one with half the step."""
        loss = float(report.sums["loss"]) / float(report.sums["weight"])
        if state.accepted is not None and not loss <= state.loss:
            back = {**vars(state.accepted), "round": state.round + 1}
            return Guarded(**back, accepted=state.accepted, loss=state.loss, share=state.share / 2)
        if not 0 < loss < math.inf:
            ended: Guarded = replace(state, done="the loss is 0 in float64")
            return ended
        here = Iterate(state.w, state.round, state.mass, state.drift, tails=state.tails)
        following: Guarded = added(state, mean_move(report))
        return replace(following, accepted=here, loss=loss, share=min(1.0, 1.25 * state.share))
