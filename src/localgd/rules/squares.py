"""Servers for ridge and least squares: conjugate gradients, and XᵀX once with refinement by the true residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from localgd.core import Message, Problem, Report
from localgd.duals.dual import Dual
from localgd.problems.least_squares import Facts, LeastSquares, least_squares, of_along, of_residuals
from localgd.problems.spectrum import Spectrum, spectrum
from localgd.problems.triangle import Affordable
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, is_number, norm, read_only
from localgd.rules.server import Server, ServerState, from_zero

LOOK_EVERY = 50
"""Conjugate gradients update their residual; so often, or after a step a row, the true one takes its place."""

GREW = 100.0
"""A residual so many times longer than it has been is one of rounding: then the true one is looked at."""

WELL_BELOW = 64
"""The bound on the rounding of a gradient is of the worst case: it can usually be brought so far below."""

PROGRESS = 0.9
"""A refinement that leaves more than this part of what is missing is the last."""

SETTLED, SMALL = "no further round brings the gradient down in float64", "the gradient is as small as asked"
ZERO = "the gradient is 0"
SHORTEST = "here: the shortest solution is reached from 0"


def at(w: FloatArray, astray: float = math.inf) -> Dual:
    """Return a model whose distance from the span of the rows is at most `astray`; coefficients have either sign."""
    return Dual.proved(read_only(w), math.nan, astray)


@dataclass(frozen=True, eq=False)
class Point:
    """A model that the nodes have looked at: `base` (d,) is it with the intercept at its best.

    `h` (k,) is half of the way down from there, and `residual` |y − Xw|.
    """

    model: Dual
    base: FloatArray
    h: FloatArray
    residual: float


@dataclass(frozen=True, eq=False)
class SquaresState(ServerState):
    """What both servers remember; they ask for XᵀXv ``along`` a vector, for ``moments``, XᵀX, or for a look at w.

    Parameters
    ----------
    facts : Facts, optional
        What is known of the rows, once there was a round.
    goal : float
        Where |h| is small enough.
    value : float
        F(w), as far as it is known.
    point : Point, optional
        The best model so far.
    """

    facts: Facts | None = None
    goal: float = 0.0
    value: float = math.nan
    point: Point | None = None


State = TypeVar("State", bound=SquaresState)
Fact = TypeVar("Fact")


def told(fact: Fact | None) -> Fact:
    """Return what the rounds so far have told."""
    if fact is None:
        raise ValueError("nothing is known of the rows before they were looked at")
    return fact


def check_tol(tol: float) -> None:
    """Refuse what is no part of a gradient to come down to."""
    if not (is_number(tol) and 0 <= tol < 1):
        raise ValueError(f"tol must be at least 0 and below 1, got {tol!r}; 0 goes on until rounding stops it")


@dataclass(frozen=True)
class Solving(Server):
    """What both servers share: the start at 0, the messages, and the first looks.

    Parameters
    ----------
    problem : LeastSquares
        What is solved; `bound` sets it.
    tol : float, at least 0
        Stop once the gradient has come down to this part of what it is at w = 0, the intercept at its best; 0 goes on
        until rounding stops it.
    """

    whole_rounds: ClassVar[str] = "the gradient that it brings to 0 is a sum over all nodes"

    problem: LeastSquares = LeastSquares()  # noqa: RUF009  frozen, so sharing one is safe
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tol(self.tol)

    def bound(self, problem: Problem, task: Any) -> Self:  # noqa: ARG002  the task knows nothing that it needs
        """Return the merge for this problem."""
        problem = least_squares(problem)
        if problem.positive and not isinstance(self, NormalEquations):
            raise ValueError(
                "positive=True asks for XᵀX, which it does not send; take auto or normal-equations, with max_mb large "
                "enough, or leave positive out"
            )
        return replace(self, problem=problem)

    def message(self, state: SquaresState) -> Message:
        """Send what is asked for, and the model only where it is to be looked at."""
        return Message(state.round, extra=state.asks) if state.asks else self.look(state)

    def look(self, state: SquaresState) -> Message:
        """Send the model."""
        return self.problem.beginning(state) if state.facts is None else Message(state.round, state.w)

    def step(self, state: Any, report: Report) -> Any:
        """Go on from what was asked for."""
        following = self.answered(state, report) if state.asks else self._looked(state, report)
        return replace(following, round=state.round + 1)

    def _looked(self, state: Any, report: Report) -> Any:
        """Go on from a look at w; the first is at 0, the next at 0 with the intercept at its best, if there is one."""
        facts = state.facts or self.problem.begun(report, state.w)
        known, pull = facts.reduced, report.sums["pull"]
        base, h = read_only(known.centred(state.w, pull)), read_only(known.downhill(state.w, report))
        point = Point(state.model, base, h, math.sqrt(float(report.sums["square"])))
        value = self.problem.objective(report, state.w)
        if state.facts is None and self.problem.intercept:  # the mean target: what is left is then seen in h alone
            return replace(state, facts=facts, model=at(point.base, 0.0), value=value)
        if state.point is None:
            facts, goal = replace(facts, first=of_residuals(report)), self.tol * norm(point.h)
            return self.begun(replace(state, facts=facts, goal=goal, value=value, point=point), report)
        return self.judged(replace(state, value=value), point, report)

    def begun(self, state: Any, report: Report) -> Any:
        """Go on from the start, which is the point of the state."""
        raise NotImplementedError

    def judged(self, state: Any, point: Point, report: Report) -> Any:
        """Go on from another point."""
        raise NotImplementedError

    def answered(self, state: Any, report: Report) -> Any:
        """Go on from what the nodes have made of something else than the model."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ConjugateState(SquaresState):
    """The state of conjugate gradients.

    Parameters
    ----------
    h : (k,) float64 array
        Half of the way down from w, as it is kept up to date.
    target : float
        Where |h| is as small as rounding lets it be, or as asked.
    steps : int
        Steps since the last look.
    direction : (k,) float64 array
        Where the next step leads.
    least : float
        The least |h| since the last look.
    """

    h: FloatArray = field(default_factory=lambda: np.zeros(0))
    target: float = 0.0
    steps: int = 0
    direction: FloatArray = field(default_factory=lambda: np.zeros(0))
    least: float = math.inf


@dataclass(frozen=True)
class ConjugateGradients(Solving):
    """Conjugate gradients from w = 0: a d-vector each way a round; at times, 50 steps at most, the true residuals.

    w stays in the span of the rows and, for α = 0, tends to the shortest of the solutions.

    Notes
    -----
    Hestenes & Stiefel (1952), *Methods of conjugate gradients for solving linear systems*.
    """

    def init(self, w0: FloatArray) -> ConjugateState:
        """Start from 0."""
        return ConjugateState(at(from_zero(w0, SHORTEST), 0.0))

    def begun(self, state: ConjugateState, report: Report) -> ConjugateState:
        """Go straight down from the start."""
        point = told(state.point)
        return self._aimed(state, point, report, point.h)

    def judged(self, state: ConjugateState, point: Point, report: Report) -> ConjugateState:
        """Go on from a look at what the last steps have reached; end where they were the last."""
        best, h = told(state.point), point.h
        last = norm(state.h) <= state.target and not norm(h) <= norm(best.h) / 2
        state = replace(state, point=point if norm(h) <= norm(best.h) else best)
        if last:
            return _ended(state, SETTLED)
        # what was kept up to date may not be the true gradient any more: then start afresh
        afresh = not norm(h - state.h) <= norm(h) / 10
        return self._aimed(state, point, report, h if afresh else state.direction)

    def _aimed(self, state: ConjugateState, point: Point, report: Report, direction: FloatArray) -> ConjugateState:
        """Step on from a point, unless it is as good as float64 knows."""
        known = told(state.facts).reduced
        rounding = known.downhill_error(point.model.vector, report) + known.blurred(report)
        target = max(state.goal, rounding / WELL_BELOW)
        if norm(point.h) <= target:
            return _ended(state, SMALL if norm(point.h) <= state.goal else SETTLED)
        aimed = replace(state, model=at(point.base), h=point.h, target=target, steps=0, least=math.inf)
        return self._along(aimed, direction)

    def _along(self, state: ConjugateState, direction: FloatArray) -> ConjugateState:
        """Ask for a step along that direction."""
        ask = {"along": told(state.facts).reduced.lifted(direction)}
        return replace(state, asks=ask, direction=read_only(direction))

    def answered(self, state: ConjugateState, report: Report) -> ConjugateState:
        """Go as far along the direction as F falls, and make the next direction."""
        report = of_along(report)
        known, h, direction = told(state.facts).reduced, state.h, state.direction
        image = known.of(report.sums["pull"]) + known.alpha * direction
        curved, square = float(direction @ image), float(h @ h)
        if not curved > 0:  # rounding is all that is left of this direction
            return replace(state, asks={}, h=np.zeros(h.size))
        length = float(h @ direction) / curved
        value = state.value - length * float(h @ direction)
        w, h = state.w + known.lifted(length * direction), h - length * image
        direction = h + float(h @ h) / square * direction
        most = min(LOOK_EVERY, max(known.rank, 1))  # as many steps as independent rows solve it, but for rounding
        length, steps = norm(h), state.steps + 1
        due = length <= state.target or steps == most or length > GREW * state.least
        least = min(length, state.least)
        moved = replace(state, asks={}, model=at(w), value=value, steps=steps, h=read_only(h), least=least)
        return replace(moved, direction=read_only(direction)) if due else self._along(moved, direction)


@dataclass(frozen=True)
class NormalEquations(Affordable, Solving):
    """XᵀX once; the server solves, and rounds that look at the residuals refine the solution while that brings more.

    Where only the choice of the shortest solution decides some directions, what is added is made of a sum Xᵀa that
    nodes form, by one more round, so that it lies in the span of the rows.

    Notes
    -----
    Wilkinson (1963), *Rounding errors in algebraic processes*, on refinement.
    """

    def __post_init__(self) -> None:
        Solving.__post_init__(self)
        super().__post_init__()

    def init(self, w0: FloatArray) -> SquaresState:
        """Start from 0; refuse another start, and XᵀX if it is too large."""
        self.check_affordable(w0.size, "conjugate-gradients")
        return SquaresState(at(from_zero(w0, SHORTEST), 0.0))

    def begun(self, state: SquaresState, report: Report) -> SquaresState:  # noqa: ARG002  the point says it all
        """Ask for XᵀX."""
        return replace(state, asks={"moments": np.asarray(float(state.w.size))})

    def answered(self, state: SquaresState, report: Report) -> SquaresState:
        """Solve for the first time, or add what the nodes have made of the solution."""
        facts, asked = told(state.facts), replace(state, asks={})
        if "moments" in state.asks:
            return self._solved(replace(asked, facts=replace(facts, known=spectrum(report, facts.reduced))))
        known, report = facts.reduced, of_along(report)
        return self._moved(asked, known.of(report.sums["pull"]), told(state.point).model.error + known.error(report))

    def judged(self, state: SquaresState, point: Point, report: Report) -> SquaresState:  # noqa: ARG002  likewise
        """Go on from what the last solution has reached; end where it has brought little."""
        before = told(state.point)
        now, then = (_missed(state, one, positive=self.problem.positive) for one in (point, before))
        if not now <= PROGRESS * then:
            return _ended(replace(state, point=point if now < then else before), SETTLED)
        return self._solved(replace(state, point=point))

    def _solved(self, state: SquaresState) -> SquaresState:
        """Solve for what is left at the point."""
        point = told(state.point)
        missed = _missed(state, point, positive=self.problem.positive)
        if (missed if self.problem.positive else norm(point.h)) <= state.goal or missed == 0.0:
            return _ended(state, SMALL if missed else ZERO)
        known = told(told(state.facts).known)
        if self.problem.positive:
            return replace(state, model=at(self._positive(known, point)))
        move = known.solved(point.h)
        if known.spans:  # a sum that nodes form is in the span of the rows, whatever it is a sum of
            return replace(state, asks={"along": known.reduced.lifted(known.solved(move))})
        return self._moved(state, move, math.inf)

    def _positive(self, known: Spectrum, point: Point) -> FloatArray:
        """Return the best model without a coefficient below 0, as XᵀX and h at the point tell; intercept and all.

        With C = RᵀR it is the v >= 0 of least |Rv − R⁻ᵀ(Cv₀ + h)|; Lawson & Hanson (1974), *Solving Least Squares
        Problems*.
        """
        before = known.reduced.free(point.base)
        from scipy.optimize import nnls  # noqa: PLC0415  a third of all imports of a command, for a rare step

        root, aim = known.rooted(before, point.h)
        after = nnls(root, aim, maxiter=100 * before.size + 100)[0]
        w = point.base + known.reduced.lifted(after - before)
        w[: after.size] = after  # a coefficient that is 0 is just that
        return w

    def _moved(self, state: SquaresState, move: FloatArray, astray: float) -> SquaresState:
        known, point = told(state.facts).reduced, told(state.point)
        w = point.base + known.lifted(move)
        lengths = norm(known.free(w)) + norm(known.free(point.model.vector))
        astray += 4 * UNIT_ROUNDOFF * lengths + w.size * TINY
        return replace(state, model=at(w, astray * (1 + 8 * UNIT_ROUNDOFF)))


def _missed(state: SquaresState, point: Point, *, positive: bool = False) -> float:
    """Return what is left to bring to 0: the residuals where there is a solution without any, else the gradient."""
    known = told(told(state.facts).known)
    if positive:
        return norm(known.reduced.inward(point.base, point.h))
    without = known.spans and known.independent and known.reduced.alpha == 0
    return point.residual if without else norm(point.h)


def _ended(state: State, why: str) -> State:
    """Return to the best point, as there is nothing more to gain."""
    return replace(state, done=why, asks={}, model=told(state.point).model)
