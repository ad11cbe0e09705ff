"""What the server does with the sum of the reports. Only `step` makes a new shared model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from localgd.core import End, Message, Problem, Report
from localgd.problems.regularised import hard_margin_only
from localgd.rounding import CANCELS, TINY, FloatArray, norm
from localgd.rows import Dual


@dataclass(frozen=True, eq=False)
class ServerState:
    """The server's state: the shared model, and what is proved of it.

    Parameters
    ----------
    model : Dual
        The shared model w. It has a mass if it is a combination of rows with coefficients >= 0, as after a start at 0
        and updates of that kind; what replaces it by a bare vector proves nothing.
    round : int
        Rounds done.
    done : str
        Why no further round can improve w, where that is so.
    end : End
        What kind of end that is.
    tails : tuple of ServerState, optional
        What was added since some earlier rounds, which their own `round` names; None if nobody asked for them.
    """

    model: Dual
    round: int = 0
    done: str = ""
    end: End = End.DONE
    tails: tuple[ServerState, ...] | None = None

    @property
    def w(self) -> FloatArray:
        """The shared model, shape (d,)."""
        return self.model.vector

    @property
    def readout(self) -> Dual:
        """The model that is handed out: w, or what was added to it in the last half of the rounds."""
        if not self.tails:
            return self.model
        return max((tail for tail in self.tails if 2 * tail.round <= self.round), key=lambda tail: tail.round).model


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

    whole_rounds: ClassVar[str] = ""

    late: bool = field(default=False, kw_only=True)

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002
        """Return the merge for this problem."""
        if self.late:
            hard_margin_only(problem, "late=True hands out a direction, and a penalised loss has a finite minimiser")
        return self

    def init(self, w0: FloatArray) -> ServerState:
        """Start from w0, of which nothing is proved unless it is 0."""
        empty = Dual.zeros(np.size(w0))
        tails = (ServerState(empty),) if self.late else None
        return ServerState(Dual(w0) if np.any(w0) else empty, tails=tails)

    def message(self, state: Any) -> Message:
        """Send the shared model, and the model that is handed out if it is another."""
        return Message(state.round, state.w, {"readout": state.readout.vector} if self.late else {})

    def step(self, state: Any, report: Report) -> ServerState:
        """Return w + Σ p_m (v_m − w) / Σ p_m."""
        following: ServerState = added(state, mean_update(report))
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

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002
        """Return the merge for this problem."""
        hard_margin_only(problem, "an anchor at 0 takes the model away from a finite minimiser")
        return self

    def step(self, state: ServerState, report: Report) -> ServerState:
        """Return a_k times the mean."""
        mean = added(state, mean_update(report))
        return replace(mean, model=mean.round / (mean.round + 1) * mean.model)


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
    >>> updates = {"update": Dual.proved(np.array([2.0, 0.0]), 2.0, 0.0)}  # the sum of [1, 3] and [1, -3]
    >>> report = Report(2, 2, {"weight": 2.0, "update_sq_norm": 20.0}, duals=updates)
    >>> [Extrapolated(share).step(Mean().init(np.zeros(2)), report).w.round(9).tolist() for share in (0.5, 1.0)]
    [[5.0, 0.0], [10.0, 0.0]]
    """

    relaxation: float = 0.5

    def __post_init__(self) -> None:
        """Check the share once."""
        if not 0 < self.relaxation <= 1:
            raise ValueError(f"relaxation must be above 0 and at most 1, got {self.relaxation!r}")

    def step(self, state: ServerState, report: Report) -> ServerState:
        """Return w + η Δ̄."""
        return added(state, mean_update(report, max(1.0, self.relaxation * spread(report))))


def spread(report: Report) -> float:
    """Return Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²), at least 1 but for rounding: how far the nodes pull apart.

    0 where it is unknown: where Δ̄ is 0 to within its own rounding, so that its direction is noise. As a ratio of
    lengths, for |Δ̄|² may underflow; squares of nodes that do only make it smaller.
    """
    weight, update = float(report.sums["weight"]), report.duals["update"]
    mean = norm(update.vector) / weight
    noise = CANCELS * update.parts[1] / weight
    if mean <= TINY or mean <= noise:  # in this form, for an error that is not known (NaN) must not switch it off
        return 0.0
    ratio = math.sqrt(float(report.sums["update_sq_norm"]) / weight) / mean
    return ratio * ratio  # not **, which raises where this overflows


def mean_update(report: Report, factor: float = 1.0) -> Dual:
    """Return ``factor · Σ p_m (v_m − w) / Σ p_m`` for a factor >= 0, with what is proved of it.

    A model that the factor takes out of float64 is not finite, and so is refused.
    """
    return report.duals["update"].over(float(report.sums["weight"]), factor)


State = TypeVar("State", bound=ServerState)


def added(state: State, update: Dual) -> State:
    """Return the state after w ← w + update, one round later."""
    tails = None if state.tails is None else _grown(state.tails, state.round + 1, update)
    return replace(state, model=state.model + update, round=state.round + 1, tails=tails)


TAIL_SPACING = 1.1
"""Tails begin at rounds in about this ratio: eight of them cover the last half of a run."""


def _grown(tails: tuple[ServerState, ...], round_: int, update: Dual) -> tuple[ServerState, ...]:
    """Return the tails with the update added, those that are still needed, and perhaps a new one."""
    grown = [replace(tail, model=tail.model + update) for tail in tails]
    if round_ >= TAIL_SPACING * tails[-1].round:
        grown.append(ServerState(Dual.zeros(update.vector.size), round_))
    usable = [tail for tail in grown if 2 * tail.round <= round_]
    return (usable[-1], *grown[len(usable) :])


@dataclass(frozen=True, eq=False)
class MomentumState(ServerState):
    """The server's state with a velocity, a combination of rows of its own."""

    velocity: Dual = field(default_factory=lambda: Dual.zeros(0))


@dataclass(frozen=True)
class ServerMomentum(Mean):
    """The mean update, with momentum on the server: u ← βu + Δ̄, then w ← w + α u, or w ← w + α (Δ̄ + βu) with Nesterov.

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

    def init(self, w0: FloatArray) -> MomentumState:
        """Start from w0 at rest."""
        return MomentumState(**vars(super().init(w0)), velocity=Dual.zeros(np.size(w0)))

    def step(self, state: Any, report: Report) -> MomentumState:
        """Return the state after the update, and the velocity that goes with it."""
        update = mean_update(report)
        velocity = state.velocity.mixed(self.momentum, update)
        ahead = velocity.mixed(self.momentum, update) if self.nesterov else velocity
        following: MomentumState = added(state, ahead.mixed(self.server_lr, Dual.zeros(ahead.vector.size)))
        return replace(following, velocity=velocity)


@dataclass(frozen=True, eq=False)
class NormalisedState(ServerState):
    """The server's state with the last point whose loss was accepted, that loss, and the share of the step size."""

    accepted: ServerState | None = None
    loss: float = math.inf
    share: float = 1.0


@dataclass(frozen=True)
class Normalised(Mean):
    """Local-GD with its step size over the loss of the round before, and a way back if the loss grows.

    Each update is still a combination of rows with coefficients >= 0 that vanish off the smallest margin, so the limit
    is the same max-margin direction, but |w| grows like the number k of rounds instead of its logarithm: the error
    falls like 1/k. A round that raised the loss is undone and repeated with half the step.
    """

    whole_rounds: ClassVar[str] = "the loss that sets its step size is a sum over all nodes"

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002
        """Return the merge for this problem."""
        hard_margin_only(problem, "the least value of a penalised loss is not 0, so it is nothing to divide by")
        return self

    def init(self, w0: FloatArray) -> NormalisedState:
        """Start from w0 with the step size as it is."""
        return NormalisedState(**vars(super().init(w0)))

    def message(self, state: Any) -> Message:
        """Send the shared model and what the step size is multiplied with."""
        plain = super().message(state)
        scale = state.share / state.loss if state.loss < math.inf else 1.0
        return replace(plain, extra={**plain.extra, "scale": np.asarray(scale)})

    def step(self, state: Any, report: Report) -> NormalisedState:
        """Return the next point, or go back to the last one with half the step."""
        loss = float(report.sums["loss"]) / float(report.sums["weight"])
        if state.accepted is not None and not loss <= state.loss:
            back = {**vars(state.accepted), "round": state.round + 1}
            return NormalisedState(**back, accepted=state.accepted, loss=state.loss, share=state.share / 2)
        if not 0 < loss < math.inf:
            ended: NormalisedState = replace(state, done="the loss is 0 in float64")
            return ended
        here = ServerState(state.model, state.round, tails=state.tails)
        following: NormalisedState = added(state, mean_update(report))
        return replace(following, accepted=here, loss=loss, share=min(1.0, 1.25 * state.share))
