"""Second-order rounds for the hard margin: a primal–dual interior point whose linear algebra is d×d sums over nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from localgd.core import Engine, Field, Message, Problem, Report, Schema
from localgd.duals.dual import Dual
from localgd.kernels.project import SEPARABLE
from localgd.problems.metrics import metrics
from localgd.problems.sizes import DataSizes
from localgd.problems.triangle import Affordable, symmetric, triangle, triangle_size
from localgd.rounding import FloatArray, read_only
from localgd.rows import Shard
from localgd.rules.local import moved, moves
from localgd.rules.probes import forgotten
from localgd.rules.project import MarginTask
from localgd.rules.server import End, Server, ServerState, from_zero

START_MASS = 100.0
"""Σ a_i to start from, in units of 1/radius²: the answer's is 1/γ², 100 for a margin of a tenth of the radius."""

NEARLY = 0.995
"""Share of the way to the boundary of a >= 0, s >= 0 that a step goes at most."""

TRUSTED, SHY = 0.5, 0.15
"""A predictor that goes 1 − e of its way, e up to 1/2, lets the corrected step be guessed at 1 − 0.15 e of its own."""

SETTLED = 1e-14
"""Part of Σ a that Σ a s may be without anything left to gain."""

UNBOUNDED = "the duals grow without bound"

STUCK = 1e-8
"""Steps shorter than this lead nowhere: rounding has the better of the boundary."""


@dataclass(eq=False)
class Slacks:
    """What a node keeps: its duals a, slacks s and margins z·w at the agreed point, and the direction under way."""

    a: FloatArray
    s: FloatArray
    margins: FloatArray
    da: FloatArray
    ds: FloatArray

    def gone(self, share: float, margins: FloatArray) -> Slacks:
        """Return the state after that share of the direction, where the margins are these."""
        rest = np.zeros(self.a.size)
        return Slacks(self.a + share * self.da, self.s + share * self.ds, margins, rest, rest)

    @property
    def fastest(self) -> FloatArray:
        """One over the longest steps that keep s and a non-negative, (2,); at most 0 where nothing falls."""
        return np.array([float((-self.ds / self.s).max()), float((-self.da / self.a).max())])


@dataclass(frozen=True)
class InteriorPoint(MarginTask):
    """A node's part of Mehrotra's predictor–corrector method for min ½|w|² s.t. z·w >= 1.

    With duals a, slacks s and r = 1 + s − z·w, the Newton direction for products a·s = t solves
    ``(I + Σ (a/s) z zᵀ) Δw = Σ a z − w + Σ ((t − a s + a r)/s) z``, then row by row ``Δs = z·Δw − r`` and
    ``Δa = (t − a s − a Δs)/s``. Every message says what ``share`` of the last direction has been agreed on, and asks:

    - for sums: ``curvature`` Σ (a/s) z zᵀ (upper triangle), ``pull`` Σ (a r/s − a) z, ``gap`` Σ a s, and the dual
      ``update`` Σ a z;
    - to ``predict`` along Δw for t = 0: ``products`` of a, s and their changes, ``corrector`` Σ −(Δa Δs/s) z and
      Σ (1/s) z, and the maximum ``fastest`` (2,), which limits the steps of s and a;
    - to ``correct`` along Δw for t = ``target`` − Δa Δs: ``fastest``, and the sums of the first kind at the ``guess``
      of the share, unless some a or s would leave the positive numbers there, as the flag ``unguessed`` says.

    Parameters
    ----------
    start : float > 0 or "auto"
        The dual that every row starts with; "auto" is 100/(N · radius²), found before the first round.
    """

    state_type: ClassVar[Any] = Slacks | None
    hard_margin_as: ClassVar[str] = "its rounds look for the max-margin model"

    start: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        number = 0.0 if isinstance(self.start, str) else self.start
        if self.start != "auto" and not 0 < number < math.inf:
            raise ValueError(f"start must be a positive number or 'auto', got {self.start!r}")

    def schema(self, message: Message) -> Schema:
        """Return the metrics, and what is asked for."""
        d = message.w.size
        here, fastest = {**metrics(message), "forgotten": Field("flag")}, Field("max", (2,))
        if "predict" in message.extra:
            return {**here, "products": Field("sum", (4,)), "corrector": Field("sum", (2, d)), "fastest": fastest}
        sums = {"curvature": Field("sum", (triangle_size(d),)), "pull": Field("sum", (d,)), "gap": Field("sum")}
        system = {**moves(d), **sums, "rows": Field("sum", optional=True)}
        if "correct" not in message.extra:
            return {**here, **system}
        guessed = {name: replace(field, unless="unguessed") for name, field in system.items()}
        return {**here, **guessed, "fastest": fastest, "unguessed": Field("flag")}

    def init(self, shard: Shard) -> Slacks | None:  # noqa: ARG002  round 0 starts it
        """Start from nothing."""
        return None

    def _begun(self, shard: Shard) -> Slacks:
        """Return equal duals and slacks."""
        if isinstance(self.start, str):
            raise TypeError("start='auto' is not a number yet; train() finds it with one round")
        none, ones = np.zeros(shard.n_rows), np.ones(shard.n_rows)
        return Slacks(self.start * ones, ones, none, none, none)

    def run(self, message: Message, shard: Shard, state: Slacks | None) -> tuple[Report, Slacks | None]:
        """Go the agreed share of the last direction, then do what is asked for."""
        extra = message.extra
        if message.round > 0 and state is None:
            return forgotten(), state
        state = self._begun(shard) if state is None else state
        margins = shard.margins(message.w)
        here = self.standing(message, shard, margins)
        if "correct" in extra:
            return self._corrected(extra, shard, state, here, margins)
        state = state.gone(float(extra["share"]), margins)
        if "predict" in extra:
            return self._predicted(shard, state, here, extra["predict"])
        return self._summed(shard, state, here), state

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:
        """Return the task for this problem, with its start found if it was "auto"."""
        start = START_MASS / sizes.n_rows / sizes.radius**2 if isinstance(self.start, str) else self.start
        return replace(super().bound(problem, engine, sizes), start=start)

    def _summed(self, shard: Shard, state: Slacks, here: Report) -> Report:
        a, s = state.a, state.s
        pull = shard.combine(a * ((1 + s - state.margins) / s - 1))
        sums = {"curvature": triangle(shard.second_moment(a / s)), "pull": pull, "gap": float(a @ s)}
        rows = {} if shard.versus == 1 else {"rows": shard.n_rows}  # else the report's own count
        return moved(shard, here, a, 1.0) + Report(sums={**sums, **rows})

    def _predicted(self, shard: Shard, state: Slacks, here: Report, dw: FloatArray) -> tuple[Report, Slacks]:
        """Report what the Newton step to a·s = 0 would do."""
        a, s = state.a, state.s
        ds = shard.margins(dw) - (1 + s - state.margins)
        state = replace(state, da=-a - a * ds / s, ds=ds)
        products = [float(x @ y) for x, y in ((a, s), (a, ds), (state.da, s), (state.da, ds))]
        corrector = [shard.combine(-state.da * ds / s), shard.combine(1 / s)]
        found = Report(sums={"products": products, "corrector": corrector}, maxs={"fastest": state.fastest})
        return here + found, state

    def _corrected(
        self, extra: Mapping[str, FloatArray], shard: Shard, state: Slacks, here: Report, margins: FloatArray
    ) -> tuple[Report, Slacks]:
        """Report how far the corrected step may go, and the sums at the guessed share of it."""
        a, s, guess = state.a, state.s, float(extra["guess"])
        ds = shard.margins(extra["correct"]) - (1 + s - state.margins)
        da = (extra["target"] - state.da * state.ds - a * s - a * ds) / s
        state = replace(state, da=da, ds=ds)
        here += Report(maxs={"fastest": state.fastest})
        if guess == 0.0 or guess * state.fastest.max() > NEARLY:
            return here + Report(flags={"unguessed": 1}), state
        return self._summed(shard, state.gone(guess, margins), here), state


@dataclass(frozen=True, eq=False)
class InteriorState(ServerState):
    """The server's state: w, what the next message asks for, and the step under way.

    That began at `base` and leads in `direction`; `factor` is the Cholesky factor of I + curvature at `base`, `right`
    the right-hand side for t = 0 there. `mass_0` is Σ a at the start, 100/radius², and so tells the unit of the rows.
    """

    base: FloatArray = field(default_factory=lambda: np.zeros(0))
    direction: FloatArray = field(default_factory=lambda: np.zeros(0))
    factor: Any = None
    right: FloatArray = field(default_factory=lambda: np.zeros(0))
    n_rows: int = 0
    mass_0: float = 0.0


@dataclass(frozen=True)
class Mehrotra(Affordable, Server):
    """The server of `InteriorPoint`: solves the d×d systems and agrees on the length of the steps.

    Two rounds a step where the guess of its length suits every node, else three; some 14 steps.

    Notes
    -----
    Mehrotra (1992), *On the implementation of a primal–dual interior point method*, SIAM J. Optimization 2.
    """

    whole_rounds: ClassVar[str] = "a Newton step needs the curvature of every node"

    def init(self, w0: FloatArray) -> InteriorState:
        """Start from equal duals at w = 0; refuse another start, and d×d sums that are too large."""
        start = from_zero(w0, "for an interior point, which starts from equal duals")
        self.check_affordable(w0.size)
        return InteriorState(Dual(start), asks={"share": 0.0})

    def step(self, state: InteriorState, report: Report) -> InteriorState:
        """Go on from what was asked for."""
        if "predict" in state.asks:
            following = self._corrected(state, report)
        elif "correct" in state.asks:
            following = self._stepped(state, report)
        else:
            following = self._predicted(state, report, 0.0)
        return replace(following, round=state.round + 1)

    def _predicted(self, state: InteriorState, report: Report, share: float) -> InteriorState:
        """Factor the curvature at w and ask for the predictor."""
        dual = report.duals["update"]
        mass = dual.parts[0]
        mass_0 = state.mass_0 or mass
        if dual.cancels:
            return replace(state, done=UNBOUNDED, end=End.INSEPARABLE)
        if float(report.sums["gap"]) <= SETTLED * mass:
            return replace(state, done="every row is on its side or carries no weight, to within rounding")
        try:
            factor = cho_factor(np.eye(state.w.size) + symmetric(report.sums["curvature"]))
        except LinAlgError:  # a/s spans more than float64 holds: nothing left to gain
            if dual.length <= SEPARABLE * mass * math.sqrt(START_MASS / mass_0):
                return replace(state, done=UNBOUNDED, end=End.INSEPARABLE)
            return replace(state, done="the curvature is singular to within rounding")
        right = dual.vector - state.w + report.sums["pull"]
        ask = {"share": share, "predict": cho_solve(factor, right)}
        aimed = replace(state, asks=ask, base=state.w, factor=factor, right=right)
        return replace(aimed, n_rows=int(report.sums.get("rows", report.n_rows)), mass_0=mass_0)

    def _corrected(self, state: InteriorState, report: Report) -> InteriorState:
        """Choose the target from what the predictor reached, and ask for the corrected step."""
        gap, by_s, by_a, by_both = report.sums["products"]
        to_s, to_a = (float(limit) for limit in longest(report))
        ahead = gap + to_s * by_s + to_a * by_a + to_s * to_a * by_both
        target = float((ahead / gap) ** 3 * gap / state.n_rows)
        correct, centre = report.sums["corrector"]
        direction = cho_solve(state.factor, state.right + correct + target * centre)
        reach = min(to_s, to_a)
        guess = min(NEARLY, 1 - SHY * (1 - reach)) if reach >= TRUSTED else 0.0
        ask = {"correct": direction, "target": target, "guess": guess}
        return replace(state, model=Dual(read_only(state.base + guess * direction)), asks=ask, direction=direction)

    def _stepped(self, state: InteriorState, report: Report) -> InteriorState:
        """Accept the guess, or go as far as every node can and ask for the sums there."""
        length = min(1.0, NEARLY * float(longest(report).min()))
        if not report.flags.get("unguessed", 0):
            return self._predicted(state, report, float(state.asks["guess"]))
        if length < STUCK:
            return replace(state, model=Dual(state.base), done="rounding leaves no room to step")
        return replace(state, model=Dual(read_only(state.base + length * state.direction)), asks={"share": length})


def longest(report: Report) -> FloatArray:
    """Return the longest steps up to 1 that keep every slack and every dual non-negative."""
    return np.asarray(1 / np.maximum(1.0, report.maxs["fastest"]))
