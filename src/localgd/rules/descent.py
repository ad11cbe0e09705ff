"""Servers that bring a penalised objective to its minimiser: Newton, L-BFGS, accelerated control variates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh

from localgd.core import Problem, Report
from localgd.duals.dual import Dual
from localgd.errors import check_whole
from localgd.losses import conjugated
from localgd.many.by_node import named
from localgd.problems.metrics import total
from localgd.problems.quotient import asked_of, basis
from localgd.problems.regularised import Regularised, regularised, settled
from localgd.problems.triangle import Affordable, symmetric
from localgd.rounding import FloatArray, norm, read_only
from localgd.rules.anderson import bordered, shortest_combination
from localgd.rules.server import Server, ServerState

NOISE = 1e-13
"""Objectives that differ by less than this part of themselves are the same."""

FLAT = 1e-20
"""A Newton step that promises less than this part of the objective is the last one."""

CURVED = 1e-12
"""Least cosine between a step and the change of the gradient along it that L-BFGS remembers."""

MEMORY = 30
"""Steps that L-BFGS remembers, and moves that Anderson's acceleration looks back on, unless told otherwise."""

SINGULAR = 1e-13
"""A curvature below this part of the largest is none."""

SUFFICIENT = 1e-4
"""Share of the predicted decrease that a Newton step must bring (Armijo's rule)."""


LENGTHS = 2.0 ** -np.arange(25.0)
"""Shares of a step at which nodes tell the derivative, where the curvature may jump on its way."""


@dataclass(frozen=True, eq=False)
class DescentState(ServerState):
    """The state of a descent: the last point accepted, its objective, and the step under way from it.

    w is `length` of the `direction` ahead of `base`, where F is `value`, its `gradient` known and its derivative along
    the direction `slope`. L-BFGS remembers `pairs` of steps and changes of the gradient.
    """

    base: FloatArray = field(default_factory=lambda: np.zeros(0))
    direction: FloatArray = field(default_factory=lambda: np.zeros(0))
    value: float = math.inf
    slope: float = 0.0
    length: float = 1.0
    gradient: FloatArray = field(default_factory=lambda: np.zeros(0))
    pairs: tuple[tuple[FloatArray, FloatArray], ...] = ()


@dataclass(frozen=True)
class Descending(Server):
    """What Newton's methods and L-BFGS share: a direction from every accepted point, and backtracking.

    They go down the problem, which `bound` sets.
    """

    whole_rounds: ClassVar[str] = "the objective that its steps must bring down is a sum over all nodes"

    problem: Regularised = Regularised()  # noqa: RUF009  frozen, so sharing one is safe

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002  the task knows nothing that it needs
        """Return the merge for this problem."""
        return replace(self, problem=regularised(problem))

    def init(self, w0: FloatArray) -> DescentState:
        """Start from w0."""
        return DescentState(Dual(w0))

    def step(self, state: Any, report: Report) -> Any:
        """Accept the point and step on, or halve the step that led to it."""
        value = self.problem.objective(report, state.w)
        wanted = state.value + SUFFICIENT * state.length * state.slope + NOISE * abs(state.value)
        following = replace(state, round=state.round + 1)
        if not value <= wanted and state.value < math.inf:
            length = self._shorter(state, report)
            if length < NOISE:
                return replace(following, model=Dual(state.base), done="no step brings the objective down any more")
            nearer = Dual(read_only(state.base + length * state.direction))
            return replace(following, length=length, asks={} if self._jumps else state.asks, model=nearer)
        slope = self.problem.gradient(report, state.w)
        if settled(report, slope, state.asks.get("units")):
            return replace(following, done="the gradient is 0 to within rounding")
        if not self.problem.penalised and float(report.mins["margin"]) > 0:
            return replace(following, done="some plane separates the rows, so the loss has no minimiser")
        following = self.aimed(following, report, slope)
        return self.ahead(replace(following, base=state.w, gradient=slope, value=value))

    def ahead(self, state: Any) -> Any:
        """Return the state with the model a whole step ahead of its point, in its direction."""
        promised = -float(state.gradient @ state.direction)
        if promised <= FLAT * abs(state.value):
            state = replace(state, done="no step brings the objective down any more")
        if self._jumps:
            state = replace(state, asks={"line": state.direction, "lengths": LENGTHS - 1.0})
        there = Dual(read_only(state.base + state.direction))
        return replace(state, model=there, slope=-promised, length=1.0)

    @property
    def _jumps(self) -> bool:
        """Whether the curvature may be another one at once, so that a step may be far too long."""
        known = conjugated(self.problem.loss)
        return known is not None and not known.self_concordant

    def _shorter(self, state: DescentState, report: Report) -> float:
        """Return a shorter step than one that was too long: half of it, or where the objective stops to fall."""
        if "turning" not in report.sums or report.flags.get("unturned", 0):
            return state.length / 2
        pull, n = self.problem.pull, total(report)
        at_base, along = (float(pull(vector) @ state.direction) for vector in (state.base, state.direction))
        rises = self.problem.strength(n) * (at_base + LENGTHS * along) - report.sums["turning"] / n
        uphill = np.flatnonzero(rises > 0)
        if not uphill.size:
            return state.length / 2
        high = int(uphill[-1])  # of those from 1 downwards, the shortest
        low, fall = (LENGTHS[high + 1], rises[high + 1]) if high + 1 < LENGTHS.size else (0.0, state.slope)
        return float(low + (LENGTHS[high] - low) * fall / (fall - rises[high]))

    def aimed(self, state: Any, report: Report, slope: FloatArray) -> Any:
        """Return the state with the direction from its point, where the gradient is `slope`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Newton(Affordable, Descending):
    """Newton's method with backtracking, from gradient and curvature summed over the nodes.

    Where the curvature is singular (no penalty and dependent columns), the step of least norm.
    """

    def init(self, w0: FloatArray) -> DescentState:
        """Start from w0; refuse d×d sums that are too large."""
        self.check_affordable(w0.size)
        return super().init(w0)

    def aimed(self, state: DescentState, report: Report, slope: FloatArray) -> DescentState:
        """Return the state with the direction −H⁻¹∇F, of least norm where H is singular."""
        curvature = symmetric(report.sums["curvature"]) / total(report)
        penalised = self.problem.pull(np.ones(slope.size))
        curvature[np.diag_indices(slope.size)] += self.problem.strength(total(report)) * penalised
        if not self.problem.penalised and state.value == math.inf:  # at the start no row has lost its curvature
            state = replace(state, asks=asked_of(self.problem, curvature))
        shift = self.problem.shift(slope.size)
        if shift.any():  # no step leads along it: of all minimisers, the one whose biases add up to 0
            curvature += np.trace(curvature) / slope.size * np.outer(shift, shift)
        try:
            if self.problem.penalised:
                return replace(state, direction=-np.asarray(cho_solve(cho_factor(curvature), slope)))
        except LinAlgError:
            pass  # rows so far on their sides that a bias has no curvature left
        return replace(state, direction=-_shortest(curvature, slope, state.asks.get("units")))


def _shortest(curvature: FloatArray, slope: FloatArray, units: FloatArray | None) -> FloatArray:
    """Return the shortest solution of a singular system; where columns are of unlike sizes, in units of their own."""
    values, vectors = eigh(curvature)
    kept = values > SINGULAR * values[-1]
    if units is not None and not kept.all():  # small columns are not flat
        each = np.tile(units, slope.size // units.size)
        own, across = eigh(curvature / each / each[:, None])
        bent = own > SINGULAR * own[-1]
        if np.count_nonzero(bent) > np.count_nonzero(kept):
            step = across[:, bent] @ ((across[:, bent].T @ (slope / each)) / own[bent]) / each
            flat = basis((across[:, ~bent] / each[:, None]).T)
            return np.asarray(step - flat @ (flat.T @ step))
    return np.asarray(vectors[:, kept] @ ((vectors[:, kept].T @ slope) / values[kept]))


@dataclass(frozen=True)
class LimitedMemory(Descending):
    """L-BFGS: a direction from the last steps and the changes of the gradient along them. One gradient a round.

    Parameters
    ----------
    memory : int, at least 1
        Steps that are remembered, on the server alone.

    Notes
    -----
    Liu & Nocedal (1989), *On the limited memory BFGS method for large scale optimization*. Steps along which the
    gradient does not grow are not remembered, so that every direction leads down.
    """

    memory: int = MEMORY

    def __post_init__(self) -> None:
        check_whole("memory", self.memory, 1)

    def aimed(self, state: DescentState, report: Report, slope: FloatArray) -> DescentState:
        """Return the state with the direction of the two-loop recursion."""
        pairs = state.pairs
        if state.value < math.inf:
            step, change = state.w - state.base, slope - state.gradient
            if float(step @ change) > CURVED * norm(step) * norm(change):
                pairs = (*pairs, (step, change))[-self.memory :]
        direction, shares = -slope, []
        for step, change in reversed(pairs):
            share = float(step @ direction) / float(step @ change)
            direction -= share * change
            shares.append(share)
        if pairs:
            step, change = pairs[-1]
            direction *= float(step @ change) / float(change @ change)
        else:  # a step that surely leads down: the curvature is at most that of the longest row
            radius, bend = float(report.maxs["radius"]), max(1.0, self.problem.loss.curvature)
            direction /= bend * radius * radius + self.problem.strength(total(report))
        for (step, change), share in zip(pairs, reversed(shares), strict=True):
            direction += step * (share - float(change @ direction) / float(step @ change))
        return replace(state, direction=read_only(direction), pairs=pairs)


@dataclass(frozen=True, eq=False)
class ScaffoldState(ServerState):
    """The state of `ControlVariates`: the best point so far, and the last points and moves of the fixed point.

    It asks with the gradient at w, once that is known. F was least, `value`, at `best`, and `downhill` is a step from
    there that surely brings it down. Local steps led to `ends`, by `moves`, whose inner products `gram` holds.
    """

    value: float = math.inf
    best: FloatArray = field(default_factory=lambda: np.zeros(0))
    downhill: FloatArray = field(default_factory=lambda: np.zeros(0))
    ends: tuple[FloatArray, ...] = ()
    moves: tuple[FloatArray, ...] = ()
    gram: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class ControlVariates(Server):
    """Local steps corrected by ∇F(w) − ∇F_m(w), averaged, and accelerated: two rounds a step, and no bias left.

    One round appraises w, the next takes the local steps with the gradient it gave. As the corrections are taken at w
    itself, w → mean of the corrected local models is a map of w alone; its fixed point is the minimiser of F for any
    number of local steps, and Anderson's acceleration needs nothing from the nodes. If the objective has grown, the
    next point is one gradient step of size `lr` from the best so far.

    Parameters
    ----------
    memory : int, at least 0
        Moves that the acceleration looks back on; 0 is the plain iteration.
    lr : float > 0, optional
        Step size of the way back: 1/(β + λ) or less brings the objective down. Default is the least of the local steps.

    Notes
    -----
    Karimireddy et al. (ICML 2020), *SCAFFOLD*, arXiv 1910.06378; with variates at the shared model itself Mitra et al.
    (NeurIPS 2021), *FedLin*, arXiv 2102.07053.
    """

    whole_rounds: ClassVar[str] = "its control variates need the gradient of every node"

    problem: Regularised = Regularised()  # noqa: RUF009  frozen, so sharing one is safe
    memory: int = MEMORY
    lr: float | None = None

    def __post_init__(self) -> None:
        check_whole("memory", self.memory, 0)

    def bound(self, problem: Problem, task: Any) -> Self:
        """Return the merge for this problem, with the task's (least) step size if it has none of its own."""
        own = min(float(lr) for _, lr in named("lr", task.lr))
        return replace(self, problem=regularised(problem), lr=own if self.lr is None else self.lr)

    def init(self, w0: FloatArray) -> ScaffoldState:
        """Start from w0."""
        return ScaffoldState(Dual(w0))

    def step(self, state: ScaffoldState, report: Report) -> ScaffoldState:
        """Go on from an appraisal or from local steps."""
        following = self._moved(state, report) if state.asks else self._judged(state, report)
        return replace(following, round=state.round + 1)

    def _judged(self, state: ScaffoldState, report: Report) -> ScaffoldState:
        value = self.problem.objective(report, state.w)
        if not value <= state.value + NOISE * abs(state.value):
            back = Dual(read_only(state.best + state.downhill))
            return replace(state, model=back, ends=(), moves=(), gram=np.zeros((0, 0)))
        slope = read_only(self.problem.gradient(report, state.w))
        if settled(report, slope):
            return replace(state, done="the gradient is 0 to within rounding")
        value = min(value, state.value)
        return replace(state, asks={"gradient": slope}, value=value, best=state.w, downhill=-(self.lr or 1.0) * slope)

    def _moved(self, state: ScaffoldState, report: Report) -> ScaffoldState:
        move = report.duals["update"].vector / float(report.sums["weight"])
        end = state.w + move
        if self.memory == 0 or not np.isfinite(end).all():
            end = end if self.memory == 0 else state.best + state.downhill
            return replace(state, asks={}, model=Dual(read_only(end)))
        keep = slice(-self.memory, None)
        moves, ends = (*state.moves, move)[keep], (*state.ends, end)[keep]
        gram = bordered(state.gram, np.array([float(old @ move) for old in moves]))
        weights = shortest_combination(gram)
        w = sum((a * x for a, x in zip(weights, ends, strict=True)), np.zeros(end.size))
        return replace(state, asks={}, model=Dual(read_only(w)), moves=moves, ends=ends, gram=gram)
