"""Consensus: every node keeps its own part of the dual, and an accelerated fixed point brings the parts into agreement.

Write ŵ = argmin ½|w|² s.t. z·w >= 1 for every row of every node, ŵ = Σ_m y_m with y_m = Z_mᵀa_m, a_m >= 0. Given the
others, the best part of node m is ``y_m = P_m(w − y_m) − (w − y_m)``, where P_m is the projection onto its own
half-spaces: Dykstra's algorithm, all nodes at once. Its fixed point is ŵ, with no penalty to choose and free of scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from localgd.core import Field, Message, Report, Schema
from localgd.duals.dual import Dual
from localgd.errors import check_whole
from localgd.kernels.project import project
from localgd.problems.metrics import metrics
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, norm, read_only
from localgd.rows import Shard
from localgd.rules.anderson import bordered, shortest_combination
from localgd.rules.local import moved, moves
from localgd.rules.probes import forgotten
from localgd.rules.project import MarginTask
from localgd.rules.server import Server, ServerState, from_zero

MEMORY = 40
"""Rounds that the acceleration remembers."""


@dataclass(eq=False)
class Memory:
    """What a node keeps: the coefficients of its rows before and after each of the last rounds."""

    starts: list[Coefficients] = field(default_factory=list)
    ends: list[Coefficients] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """One number per row, of which few are not 0."""

    rows: NDArray[np.intp]
    values: FloatArray

    @classmethod
    def of(cls, full: FloatArray) -> Coefficients:
        """Return the entries that are not 0."""
        rows = np.flatnonzero(full)
        return cls(rows, full[rows])

    @staticmethod
    def mixed(shares: Iterable[float], parts: Sequence[Coefficients], n_rows: int) -> FloatArray:
        """Return ``Σ shares_j parts_j``, one number per row."""
        out = np.zeros(n_rows)
        for share, part in zip(shares, parts, strict=True):
            out[part.rows] += share * part.values
        return out

    def dot(self, image: FloatArray) -> float:
        """Return the inner product with one number per row."""
        return float(self.values @ image[self.rows])


@dataclass(frozen=True)
class DualPart(MarginTask):
    """Improve the node's own part y of the dual, the others' given: a projection of w − y.

    Message: the sum w of all parts, and ``mix`` (2, h), the weights of the last h starts and ends whose combination is
    this round's start y = Zᵀc. Report: the standing at w; the dual ``update``, the end Zᵀa; ``update_sq_norm``
    |Zᵀa|²; ``start`` Σ c; ``inner`` (h + 1,) the inner products of this round's move with those of the last h rounds
    and with itself; the maximum ``since``, the least share of the way from c to a from which on no coefficient is
    negative. The last three are not there if the projection is impossible, as the flag ``inseparable`` says.

    Parameters
    ----------
    memory : int, at least 0
        Rounds that are remembered, by the coefficients that are not 0.
    """

    state_type: ClassVar[Any] = Memory
    hard_margin_as: ClassVar[str] = "its projections look for the max-margin model"

    memory: int = MEMORY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("memory", self.memory, 0)

    def schema(self, message: Message) -> Schema:
        """Return the metrics, an update, and what the acceleration is made of."""
        remembered = message.extra["mix"].shape[1] if "mix" in message.extra else 0
        gained = {
            "inner": Field("sum", (remembered + 1,), unless="inseparable"),
            "start": Field("sum", unless="inseparable"),
            "since": Field("max", unless="inseparable"),
        }
        flags = {"inseparable": Field("flag"), "forgotten": Field("flag")}
        return {**metrics(message), **moves(message.w.size), **gained, **flags}

    def init(self, shard: Shard) -> Memory:  # noqa: ARG002  the memory starts empty whatever the rows
        """Start from nothing."""
        return Memory()

    def run(self, message: Message, shard: Shard, state: Memory) -> tuple[Report, Memory]:
        """Combine the start, project, report."""
        mix = message.extra.get("mix", np.zeros((2, 0)))
        if mix.shape[1] > len(state.ends):
            return forgotten(), state
        recent = slice(len(state.ends) - mix.shape[1], None)
        starts, ends = state.starts[recent], state.ends[recent]
        start = Coefficients.mixed(mix.ravel(), [*starts, *ends], shard.n_rows)
        here = self.standing(message, shard, shard.margins(message.w))
        vector = shard.own_sum(start)
        warm = Coefficients.mixed([1.0], ends[-1:], shard.n_rows) if ends else None
        projection = project(shard, message.w - vector, warm=warm)
        report = moved(shard, here, projection.duals, 1.0)
        if not projection.feasible:
            return report + Report(flags={"inseparable": 1}), state
        end = projection.duals
        image = shard.margins(report.duals["update"].vector - vector)
        before = [y.dot(image) - x.dot(image) for x, y in zip(starts, ends, strict=True)]
        inner = np.array([*before, float((end - start) @ image)])
        keep = slice(-self.memory - 1, None)
        known = Memory([*state.starts, Coefficients.of(start)][keep], [*state.ends, Coefficients.of(end)][keep])
        gained = Report(sums={"inner": inner, "start": float(start.sum())}, maxs={"since": since(start, end)})
        return report + gained, known


def since(start: FloatArray, end: FloatArray) -> float:
    """Return the least share of the way from start to end, end >= 0, from which on every coefficient is non-negative.

    Examples
    --------
    >>> since(np.array([-1.0, 2.0]), np.array([3.0, 0.0]))
    0.25
    """
    below = start < 0
    return float((-start[below] / (end[below] - start[below])).max(initial=0.0))


@dataclass(frozen=True, eq=False)
class ConsensusState(ServerState):
    """The server's state: sums over the nodes of what they remember, and the best proved point so far.

    Parts were at `starts` before, and at `ends` after, each of the last h rounds, oldest first; `moves`, (h, h), holds
    the inner products of these rounds' moves. `value` is the largest dual value ``Σ a_i − ½|Σ a_i z_i|²`` that was
    reached with a >= 0: in round `anchor`, at `share` of the way from start to end; `damping` is the best share of the
    last round. A `plain` round starts just at that point. It is `idle` rounds since that value grew, `rest` plain
    rounds are still to come, and the next way back brings `penance` of them.
    """

    starts: tuple[FloatArray, ...] = ()
    ends: tuple[FloatArray, ...] = ()
    moves: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    value: float = 0.0
    anchor: int = 0
    share: float = 0.0
    damping: float = 1.0
    plain: bool = True
    idle: int = 0
    rest: int = 0
    penance: int = 1


@dataclass(frozen=True)
class Consensus(Server):
    """The common fixed point of the nodes' parts, by Anderson's acceleration with a way back.

    The next start is ``Σ θ_j ((1 − β) start_j + β end_j)``, Σ θ_j = 1, for the combination with the shortest move
    ``Σ θ_j (end_j − start_j)``; its weights need only the inner products of the moves, which add over the nodes. β is
    the share of the way from start to end, in [0, 1] and with no negative coefficient, of largest dual value. If that
    value has not grown for two rounds, the next start is the best point so far, and from there the plain iteration:
    always that share of the way. Its value never falls, as every part is the best for its node. First one plain round
    is taken, the next time four, then sixteen, until acceleration helps again: where it does not, few rounds are lost.

    Parameters
    ----------
    memory : int, at least 0
        Rounds that the acceleration looks back on; 0 is the plain iteration.

    Notes
    -----
    Boyle & Dykstra (1986); Han (1988), *A successive projection method* (the parallel form); Walker & Ni (2011),
    *Anderson acceleration for fixed-point iterations*. The plain iteration is CoCoA's (Jaggi et al., 2014), with the
    best step instead of a safe one.
    """

    whole_rounds: ClassVar[str] = "every node's part of the dual is in the sum that the others start from"

    memory: int = MEMORY

    def __post_init__(self) -> None:
        if self.memory < 0 or self.memory != int(self.memory) or 0 < self.memory < LEAST_MEMORY:
            raise ValueError(f"memory must be 0 or a whole number of at least {LEAST_MEMORY}, got {self.memory!r}")

    def init(self, w0: FloatArray) -> ConsensusState:
        """Start with every part at 0: the sum is what the parts say, so w0 is of no use."""
        start = from_zero(w0, "for consensus, which starts from the nodes' parts of the dual")
        return ConsensusState(Dual(start), asks={"mix": np.zeros((2, 0))})

    def step(self, state: ConsensusState, report: Report) -> ConsensusState:
        """Return the state with the next start."""
        if "inner" not in report.sums:
            raise RuntimeError("a node could not project onto its rows, so there is no agreement to go on with")
        keep = slice(-self.memory - 1, None)
        starts, ends = (*state.starts, state.w)[keep], (*state.ends, report.duals["update"].vector)[keep]
        moves = bordered(state.moves, report.sums["inner"])[keep, keep]
        state = self._paced(self._valued(state, report, len(ends)))
        mix = np.zeros((2, len(ends)))
        if state.plain:
            mix[:, state.anchor] = 1 - state.share, state.share
        else:
            mix[:] = np.outer([1 - state.damping, state.damping], shortest_combination(moves))
        w = sum((a * x + b * y for a, b, x, y in zip(*mix, starts, ends, strict=True)), np.zeros(state.w.size))
        known = replace(state, starts=starts, ends=ends, moves=moves, asks={"mix": read_only(mix)})
        following = replace(known, model=Dual(read_only(w)), round=state.round + 1)
        # the parts move by less than their own rounding: nothing is left to gain
        settled = float(moves[-1, -1]) <= (SETTLED * UNIT_ROUNDOFF) ** 2 * float(report.sums["update_sq_norm"])
        return replace(following, done="the nodes agree to within rounding") if settled else following

    def _valued(self, state: ConsensusState, report: Report, held: int) -> ConsensusState:
        """Note the largest dual value on the way from start to end, if it is the best."""
        move = report.duals["update"].vector - state.w
        length = norm(move)
        start, end = float(report.sums["start"]), report.duals["update"].parts[0]
        rise = end - start - float(state.w @ move)  # the value is a parabola of the share of the way
        top = rise / length / length if length > 0 else 1.0
        share = min(1.0, max(float(report.maxs["since"]), top))
        value = (1 - share) * start + share * end - 0.5 * norm(state.w + share * move) ** 2
        state = replace(state, damping=max(share, LEAST_DAMPING))
        if state.plain or value >= state.value * (1 - FLAT):
            return replace(state, value=max(value, state.value), anchor=held - 1, share=share, idle=0)
        return replace(state, anchor=state.anchor - (len(state.ends) == held), idle=state.idle + 1)

    def _paced(self, state: ConsensusState) -> ConsensusState:
        """Say whether the next round is a plain one."""
        if self.memory == 0:
            return replace(state, plain=True)
        if state.idle > PATIENCE:
            return replace(state, plain=True, idle=0, rest=state.penance - 1, penance=4 * state.penance)
        penance = state.penance if state.plain or state.idle else 1
        return replace(state, plain=state.rest > 0, rest=max(state.rest - 1, 0), penance=penance)


PATIENCE = 1
"""Rounds without progress that the acceleration is allowed."""

LEAST_MEMORY = 5
"""The best point must be remembered until the way back."""

LEAST_DAMPING = 0.1
"""Least share β of the way that an accelerated start takes over."""

SETTLED = 256.0
"""Moves shorter than this many roundings of the parts are noise."""

FLAT = 1e-12
"""Dual values that differ by less than this part of themselves are the same."""
