"""Consensus: every node keeps its own part of the dual, and an accelerated fixed point brings the parts into agreement.

Write ŵ = argmin ½|w|² s.t. z·w >= 1 for every row of every node, ŵ = Σ_m y_m with y_m = Z_mᵀa_m, a_m >= 0. Given the
others, the best part of node m is ``y_m = P_m(w − y_m) − (w − y_m)``, where P_m is the projection onto its own
half-spaces: Dykstra's algorithm, all nodes at once. Its fixed point is ŵ, with no penalty to choose and free of scale.

Measured against Douglas–Rachford splitting with the same projections (one memory vector a node too, and a penalty to
choose), both with Anderson's acceleration: a third to half of the rounds, on every problem tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from localgd.core import Loss, Message, Report, Shard, sealed
from localgd.kernels.project import project
from localgd.losses import Logistic
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, norm
from localgd.rules.anderson import bordered, shortest_combination
from localgd.rules.local import moved
from localgd.rules.merge import Iterate
from localgd.rules.probes import Weighting, check_weighting, node_weight, standing

MEMORY = 40
"""Rounds that the acceleration remembers."""


@dataclass(eq=False)
class Memory:
    """What a node keeps: where its last rounds began and ended, in coordinates of its row span, and the last duals."""

    starts: list[FloatArray] = field(default_factory=list)
    ends: list[FloatArray] = field(default_factory=list)
    duals: FloatArray | None = None


@dataclass(frozen=True)
class DualPart:
    """Improve the node's own part y of the dual, the others' given: a projection of w − y.

    Message: the sum w of all parts, and ``mix`` (2, h), the weights of the last h starts and ends whose combination is
    this round's start. Report: the standing at w; ``step`` the new part Zᵀa, ``mass`` Σ a, ``drift``; ``square``
    |Zᵀa|²; ``inner`` (h + 1,) the inner products of this round's move with those of the last h rounds and with itself.

    Parameters
    ----------
    loss : Loss
        Only reported, never used.
    weighted_by : "uniform" or "num-examples"
        Node weight in the reported loss; the parts are summed as they are.
    memory : int, at least 0
        Rounds that are remembered, (n or d, whichever is less) numbers twice for each.
    """

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    weighted_by: Weighting = "uniform"
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Check every field once."""
        check_weighting(self.weighted_by)
        if self.memory < 0 or self.memory != int(self.memory):
            raise ValueError(f"memory must be a whole number of at least 0, got {self.memory!r}")

    def init(self, shard: Shard) -> Memory:  # noqa: ARG002  the memory starts empty whatever the rows
        """Start from nothing."""
        return Memory()

    def run(self, message: Message, shard: Shard, state: Memory) -> tuple[Report, Memory]:
        """Combine the start, project, report."""
        span = Span(shard)
        mix = message.extra.get("mix", np.zeros((2, 0)))
        recent = slice(len(state.ends) - mix.shape[1], None)
        start = sum(
            (a * x + b * y for a, b, x, y in zip(*mix, state.starts[recent], state.ends[recent], strict=True)),
            np.zeros(span.width),
        )
        weight = node_weight(shard, self.weighted_by)
        here = standing(shard, message.w, shard.margins(message.w), self.loss, weight)
        projection = project(shard, message.w - span.vector(start), warm=state.duals)
        report = moved(shard, here, projection.duals, 1.0)
        if not projection.feasible:
            return replace(report, counts={**report.counts, "inseparable": 1}), state
        end = span.coordinates(projection.duals, report.sums["step"])
        moves = [y - x for x, y in zip(state.starts[recent], state.ends[recent], strict=True)]
        image = span.image(end - start)
        inner = [float(move @ image) for move in [*moves, end - start]]
        keep = slice(-self.memory - 1, None)
        known = Memory([*state.starts, start][keep], [*state.ends, end][keep], projection.duals)
        return replace(report, sums={**report.sums, "inner": np.array(inner)}), known


class Span:
    """Vectors of a node's row span by their coefficients, or as they are where that is shorter."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.by_row = shard.n_rows < shard.n_features
        self.width = shard.n_rows if self.by_row else shard.n_features

    def coordinates(self, coefficients: FloatArray, vector: FloatArray) -> FloatArray:
        """Return the coordinates of Σ c_i z_i, given both forms."""
        return coefficients if self.by_row else vector

    def vector(self, x: FloatArray) -> FloatArray:
        """Return the vector with coordinates x, shape (d,)."""
        return self.shard.combine(x) if self.by_row else x

    def image(self, x: FloatArray) -> FloatArray:
        """Return what coordinates are multiplied with for their inner products with x."""
        return self.shard.margins(self.vector(x)) if self.by_row else x


@dataclass(frozen=True, eq=False)
class Accord(Iterate):
    """The server's state: sums over the nodes of what they remember, and the best proved point so far.

    Parameters
    ----------
    starts, ends : tuple of (d,) arrays
        Σ_m of where the parts were before and after each of the last rounds, oldest first.
    moves : (h, h) float64 array
        Inner products, summed over the nodes, of these rounds' moves.
    mix : (2, h) float64 array
        What this round starts from, as weights of the starts and ends.
    value, mass_there : float
        Largest dual value ``Σ a_i − ½|Σ a_i z_i|²`` that was reached with a >= 0, and Σ a_i there.
    anchor, share : int, float
        Where: in that round, at this share of the way from start to end.
    proved : bool
        Whether this round starts just there.
    idle : int
        Rounds since that value grew.
    """

    starts: tuple[FloatArray, ...] = ()
    ends: tuple[FloatArray, ...] = ()
    moves: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    mix: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    value: float = 0.0
    mass_there: float = 0.0
    anchor: int = 0
    share: float = 0.0
    proved: bool = True
    idle: int = 0


@dataclass(frozen=True)
class Consensus:
    """The common fixed point of the nodes' parts, by Anderson's acceleration with a way back.

    The next start is the combination ``Σ θ_j end_j``, Σ θ_j = 1, with the shortest move ``Σ θ_j (end_j − start_j)``;
    its weights need only the inner products of the moves, which add over the nodes. If the dual value has not grown for
    `patience` rounds, the next start is the best point so far, and from there the plain iteration: of the way from
    start to end the share in [0, 1] of largest dual value, which never falls as every part is the best for its node.

    Parameters
    ----------
    memory : int, at least 0
        Rounds that the acceleration looks back on; 0 is the plain iteration.
    patience : int, at least 0
        Rounds without progress before the way back.

    Raises
    ------
    ValueError
        If a field is out of its range.

    Notes
    -----
    Boyle & Dykstra (1986); Han (1988), *A successive projection method* (the parallel form); Walker & Ni (2011),
    *Anderson acceleration for fixed-point iterations*. The plain iteration is CoCoA's (Jaggi et al., 2014).
    """

    needs_all_nodes: ClassVar[str] = "every node's part of the dual is in the sum that the others start from"

    memory: int = MEMORY
    patience: int = 5

    def __post_init__(self) -> None:
        """Check every field once."""
        if self.memory < 0 or self.memory != int(self.memory):
            raise ValueError(f"memory must be a whole number of at least 0, got {self.memory!r}")
        if self.patience < 0 or 0 < self.memory <= self.patience:
            raise ValueError(f"patience must be at least 0 and below memory={self.memory}, got {self.patience!r}")

    def init(self, w0: FloatArray) -> Accord:
        """Start with every part at 0: the sum is what the parts say, so w0 is of no use.

        Raises
        ------
        ValueError
            If w0 is not 0.
        """
        if np.any(w0):
            raise ValueError(
                "w0 has no meaning for consensus, which starts from the nodes' parts of the dual; leave it out"
            )
        return Accord(sealed(np.zeros(w0.size)), 0, float("nan"), float("nan"))

    def message(self, state: Accord) -> Message:
        """Send the sum of the parts and what the start is made of."""
        return Message(state.round, state.w, {"mix": state.mix})

    def step(self, state: Accord, report: Report) -> Accord:
        """Return the state with the next start."""
        if "inner" not in report.sums:
            raise RuntimeError("a node could not project onto its rows, so there is no agreement to go on with")
        keep = slice(-self.memory - 1, None)
        starts, ends = (*state.starts, state.w)[keep], (*state.ends, report.sums["step"])[keep]
        moves = bordered(state.moves, report.sums["inner"])[keep, keep]
        state = replace(self._valued(state, report, len(ends)), starts=starts, ends=ends, moves=moves)
        # the parts move by less than their own rounding: nothing is left to gain
        settled = float(moves[-1, -1]) <= (SETTLED * UNIT_ROUNDOFF) ** 2 * float(report.sums["square"])
        proved = self.memory == 0 or state.idle > self.patience
        mix = np.zeros((2, len(ends)))
        if proved:
            mix[:, state.anchor] = 1 - state.share, state.share
        else:
            mix[1] = shortest_combination(moves)
        w = sum((a * x + b * y for a, b, x, y in zip(*mix, starts, ends, strict=True)), np.zeros(state.w.size))
        idle = 0 if proved else state.idle
        following = replace(state, w=sealed(w), round=state.round + 1, mix=sealed(mix), proved=proved, idle=idle)
        return replace(following, done="the nodes agree to within rounding") if settled else following

    def _valued(self, state: Accord, report: Report, held: int) -> Accord:
        """Note the dual value of this round if it is the best."""
        end, mass = report.sums["step"], float(report.sums["mass"])
        share = 1.0
        if state.proved:  # the best share of the way, as value is a parabola of it
            move = end - state.w
            length = norm(move)
            rise = mass - state.mass_there - float(state.w @ move)
            share = min(1.0, max(0.0, rise / length / length)) if length > 0 else 1.0
            mass = (1 - share) * state.mass_there + share * mass
            end = state.w + share * move
        value = mass - 0.5 * norm(end) ** 2
        if state.proved or value >= state.value * (1 - FLAT):
            better = max(value, state.value)
            return replace(state, value=better, mass_there=mass, anchor=held - 1, share=share, idle=0)
        return replace(state, anchor=state.anchor - (len(state.ends) == held), idle=state.idle + 1)


SETTLED = 256.0
"""Moves shorter than this many roundings of the parts are noise."""

FLAT = 1e-12
"""Dual values that differ by less than this part of themselves are the same."""
