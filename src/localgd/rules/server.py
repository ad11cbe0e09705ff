"""What the server does with the sum of the reports. Only `step` makes a new shared model.

Composed of small parts, as in optax: ``mean()``, ``chain(mean(), Momentum(0.7))``, ``Anchored(mean())``,
``Late(mean())``. Every part works on duals, so what is proved of the updates is proved of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from localgd.core import Message, Problem, Report
from localgd.duals.dual import Dual
from localgd.errors import check_flag, check_kind, check_positive, check_whole
from localgd.problems.regularised import hard_margin_only
from localgd.rounding import CANCELS, TINY, FloatArray, is_number, read_only


class End(StrEnum):
    """How a method, or a run, came to its end."""

    DONE = "done"
    STALLED = "stalled"
    INSEPARABLE = "inseparable"
    DIVERGED = "diverged"
    STOPPED = "stopped"
    OUT_OF_ROUNDS = "out of rounds"


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
    kept : tuple of Dual
        What the parts of a chain remember.
    asks : mapping
        ``extra`` of the next message.
    """

    model: Dual
    round: int = 0
    done: str = ""
    end: End = End.DONE
    tails: tuple[ServerState, ...] | None = None
    kept: tuple[Dual, ...] = ()
    asks: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field once."""
        check_kind("model", self.model, Dual, "a Dual; Dual(w) proves nothing")
        check_whole("round", self.round, 0)
        check_kind("done", self.done, str, "a text")
        check_kind("end", self.end, End, "an End")
        check_kind("kept", self.kept, tuple, "a tuple of what the parts of a chain remember")
        check_kind("asks", self.asks, Mapping, "a mapping from names to arrays")
        if self.tails is not None:
            check_kind("tails", self.tails, tuple, "a tuple of ServerState, or None")

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


def lacking(state: Any) -> str:
    """Return in words what the state of a merge lacks of what a run reads; "" if it has all of it.

    Examples
    --------
    >>> lacking(np.zeros(2))
    'its state (ndarray) lacks model, readout, w, done, end; derive it from localgd.ServerState'
    """
    lacks = [name for name in ("model", "readout", "w", "round", "done", "end") if not hasattr(state, name)]
    what = f"its state ({type(state).__name__}) lacks {', '.join(lacks)}"
    return f"{what}; derive it from localgd.ServerState" if lacks else ""


State = TypeVar("State", bound=ServerState)


def started(w0: FloatArray) -> ServerState:
    """Return the state before the first round: nothing is proved of w0 unless it is 0."""
    return ServerState(Dual(w0) if np.any(w0) else Dual.zeros(np.size(w0)))


def from_zero(w0: FloatArray, why: str) -> FloatArray:
    """Return the start 0; refuse another one, which has no meaning, and say why."""
    if np.any(w0):
        raise ValueError(f"w0 has no meaning {why}; leave it out")
    return read_only(np.zeros(w0.size))


def added(state: State, update: Dual, **kept: Any) -> State:
    """Return the state after w ← w + update, one round later, with what else it then keeps."""
    tails = None if state.tails is None else _grown(state.tails, state.round + 1, update)
    return replace(state, model=state.model + update, round=state.round + 1, tails=tails, **kept)


def mean_update(report: Report, factor: float = 1.0) -> Dual:
    """Return ``factor · Σ p_m (v_m − w) / Σ p_m`` for a factor >= 0, with what is proved of it.

    A model that the factor takes out of float64 is not finite, and so is refused.
    """
    return report.duals["update"].over(float(report.sums["weight"]), factor)


class Server:
    """What servers do unless they say otherwise: send the model and what the state asks for, suit any problem.

    `whole_rounds` is as in `localgd.core.Merge`; `hard_margin_as` says why it is for the hard margin alone, if so.
    """

    whole_rounds: ClassVar[str] = ""
    hard_margin_as: ClassVar[str] = ""

    def refuse(self, problem: Problem) -> None:
        """Refuse a problem that it has no meaning for, whatever the task."""
        if self.hard_margin_as:
            hard_margin_only(problem, self.hard_margin_as)

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002
        """Return the merge for this problem."""
        self.refuse(problem)
        return self

    def message(self, state: Any) -> Message:
        """Send the shared model and what is asked for."""
        return Message(state.round, state.w, state.asks)


class Part(Protocol):
    """A part of a chain: what becomes of the mean update before the server adds it."""

    def __call__(self, update: Dual, kept: Dual, report: Report) -> tuple[Dual, Dual]:
        """Return the update, and what to remember until the next round (an empty dual at first)."""


class Additive(Server):
    """A merge that makes its model by `added` alone: what it added lately is a combination of its own."""


@dataclass(frozen=True)
class Chain(Additive):
    """Local-GD's server: w ← w + Δ, with Δ the mean update Σ p_m (v_m − w)/Σ p_m after all parts of the chain.

    Parameters
    ----------
    parts : tuple of Part
        What is done to the mean update, in this order; none is the plain mean of the nodes' models.
    """

    parts: tuple[Any, ...] = ()

    def init(self, w0: FloatArray) -> ServerState:
        """Start from w0 at rest."""
        return replace(started(w0), kept=tuple(Dual.zeros(np.size(w0)) for _ in self.parts))

    def step(self, state: ServerState, report: Report) -> ServerState:
        """Return the state after the update."""
        update, kept = mean_update(report), []
        for part, before in zip(self.parts, state.kept, strict=True):
            made = part(update, before, report)
            if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(one, Dual) for one in made)):
                what = f"of a chain must return two duals, the update and what to keep, got {made!r:.80}"
                raise TypeError(f"{part!r} {what}; a vector of which nothing is proved is Dual(vector)")
            update, after = made
            kept.append(after)
        return added(state, update, kept=tuple(kept))


def mean() -> Chain:
    """Return the server of Local-GD: the new model is the weighted mean Σ p_m v_m/Σ p_m of the nodes' models."""
    return Chain()


def chain(first: Chain, *parts: Part) -> Chain:
    """Return a chain with further parts: what they do to the mean update, in this order.

    Parameters
    ----------
    first : Chain
        ``mean()``, or a chain of it.
    *parts : Part
        Called with the update, what the part kept (a `Dual`, empty at first) and the report; returns the update, and
        what to keep.

    Returns
    -------
    Chain
        The server.

    Raises
    ------
    TypeError
        If `first` is no chain, or a part cannot be called.

    Examples
    --------
    >>> chain(mean(), Momentum(0.7)).parts
    (Momentum(momentum=0.7, server_lr=1.0, nesterov=False),)
    """
    check_kind("first", first, Chain, "a Chain such as mean()")
    for part in parts:
        check_kind("parts", part, "__call__", "functions of an update, what was kept and a report")
    return Chain((*first.parts, *parts))


@dataclass(frozen=True)
class Momentum:
    """Momentum on the server: u ← βu + Δ, and α u for the update, or α (Δ + βu) with Nesterov.

    Parameters
    ----------
    momentum : float in [0, 1)
        β.
    server_lr : float > 0
        α; 1 with β = 0 is the plain mean.
    nesterov : bool
        False is SlowMo (Wang et al., ICLR 2020, arXiv 1910.00643), True the outer step of DiLoCo (Douillard et al.,
        arXiv 2311.08105).
    """

    momentum: float = 0.9
    server_lr: float = 1.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum!r}")
        check_positive("server_lr", self.server_lr)
        check_flag("nesterov", self.nesterov)

    def __call__(self, update: Dual, kept: Dual, report: Report) -> tuple[Dual, Dual]:  # noqa: ARG002
        """Return the update, and the velocity that goes with it."""
        velocity = kept.mixed(self.momentum, update)
        ahead = velocity.mixed(self.momentum, update) if self.nesterov else velocity
        return ahead.mixed(self.server_lr, Dual.zeros(ahead.vector.size)), velocity


@dataclass(frozen=True)
class Extrapolation:
    """FedExP: the update made longer where the nodes pull apart.

    η Δ̄ with Δ_m = v_m − w, Δ̄ = Σ p_m Δ_m / Σ p_m and η = max(1, ρ Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²)). With projections it
    is Pierra's extrapolated parallel projection: an intersection is reached sooner, at some point of it. The first part
    of its chain.

    Parameters
    ----------
    relaxation : float in (0, 1]
        ρ: 1/2 is FedExP (Jhunjhunwala, Wang, Joshi, ICLR 2023, arXiv 2301.09604), 1 is Pierra (Math. Programming 28,
        1984).

    Examples
    --------
    >>> updates = {"update": Dual.proved(np.array([2.0, 0.0]), 2.0, 0.0)}  # the sum of [1, 3] and [1, -3]
    >>> report = Report(2, 2, {"weight": 2.0, "update_sq_norm": 20.0}, duals=updates)
    >>> merges = [chain(mean(), Extrapolation(share)) for share in (0.5, 1.0)]
    >>> [merge.step(merge.init(np.zeros(2)), report).w.round(9).tolist() for merge in merges]
    [[5.0, 0.0], [10.0, 0.0]]
    """

    relaxation: float = 0.5

    def __post_init__(self) -> None:
        if not (is_number(self.relaxation) and 0 < self.relaxation <= 1):
            raise ValueError(f"relaxation must be above 0 and at most 1, got {self.relaxation!r}")

    def __call__(self, update: Dual, kept: Dual, report: Report) -> tuple[Dual, Dual]:  # noqa: ARG002
        """Return η times the mean update."""
        return mean_update(report, max(1.0, self.relaxation * spread(report))), kept


def spread(report: Report) -> float:
    """Return Σ p_m |Δ_m|² / (Σ p_m |Δ̄|²), at least 1 but for rounding: how far the nodes pull apart.

    0 where it is unknown: where Δ̄ is 0 to within its own rounding, so that its direction is noise. As a ratio of
    lengths, for |Δ̄|² may underflow; squares of nodes that do only make it smaller.
    """
    weight, update = float(report.sums["weight"]), report.duals["update"]
    mean = update.length / weight
    noise = CANCELS * update.parts[1] / weight
    if mean <= TINY or mean <= noise:  # in this form, for an error that is not known (NaN) must not switch it off
        return 0.0
    ratio = math.sqrt(float(report.sums["update_sq_norm"]) / weight) / mean
    return ratio * ratio  # not **, which raises where this overflows


def drift(report: Report) -> float:
    """Return the RMS distance of the nodes' models from their mean, √(Σ p_m |Δ_m − Δ̄|²/Σ p_m); NaN without updates.

    Examples
    --------
    >>> drift(Report(2, 2, {"weight": 2.0, "update_sq_norm": 50.0}, duals={"update": Dual(np.array([8.0, 0.0]))}))
    3.0
    """
    if "update" not in report.duals or "update_sq_norm" not in report.sums:
        return math.nan
    weight = float(report.sums["weight"])
    mean = report.duals["update"].length / weight
    return math.sqrt(max(0.0, float(report.sums["update_sq_norm"]) / weight - mean * mean))


@dataclass(frozen=True)
class Anchored(Server):
    """Halpern's anchor at 0: what a chain comes to, shrunk by a_k = k/(k+1), k counted from 1.

    With the mean of projections the limit is the hard-margin vector itself, while the plain mean stops at some point of
    the intersection (Zhu, Vardhan, Mazumdar, arXiv 2412.07971; Halpern 1967).
    """

    hard_margin_as: ClassVar[str] = "an anchor at 0 takes the model away from a finite minimiser"

    merge: Chain = Chain()

    def init(self, w0: FloatArray) -> ServerState:
        """Start from w0."""
        return self.merge.init(w0)

    def step(self, state: ServerState, report: Report) -> ServerState:
        """Return a_k times what the chain comes to."""
        following = self.merge.step(state, report)
        return replace(following, model=following.round / (following.round + 1) * following.model)


TAIL_SPACING = 1.1
"""Tails begin at rounds in about this ratio: eight of them cover the last half of a run."""


def _grown(tails: tuple[ServerState, ...], round_: int, update: Dual) -> tuple[ServerState, ...]:
    """Return the tails with the update added, those that are still needed, and perhaps a new one."""
    grown = [replace(tail, model=tail.model + update) for tail in tails]
    if round_ >= TAIL_SPACING * tails[-1].round:
        grown.append(ServerState(Dual.zeros(update.vector.size), round_))
    usable = [tail for tail in grown if 2 * tail.round <= round_]
    return (usable[-1], *grown[len(usable) :])
