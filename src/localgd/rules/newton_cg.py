"""Newton's method without a d×d sum: the system of each step is solved by conjugate gradients, a round each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from localgd.core import Field, Message, Report, Schema
from localgd.losses import Loss, bend
from localgd.problems.metrics import METRICS, standing, total, values
from localgd.problems.regularised import Appraise, appraisal, with_turning
from localgd.rounding import FloatArray, read_only
from localgd.rows import Shard
from localgd.rules.descent import Descending, DescentState

SOLVED = 0.1
"""A step's system is solved where so much of it is left: better steps come from a better point."""

MOST_INNER = 200
"""Rounds of conjugate gradients for one step: whatever they have come to then leads down, too."""


@dataclass(frozen=True)
class Along(Appraise):
    """Report the appraisal and the diagonal of the curvature; on a message ``along`` v how the curvature acts on v.

    Sums beside the appraisal: ``diagonal``, about Σ ∇²ℓ's. With ``along`` v, (d,), only how the model stands and
    ``curved``, Σ ∇²ℓ v, both (d,).
    """

    def schema(self, message: Message) -> Schema:
        """Return what a report on this message holds."""
        vector = Field("sum", message.w.shape)
        if "along" in message.extra:
            return {**METRICS, "curved": vector}
        return {**super().schema(message), "diagonal": vector}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the report."""
        margins, loss = shard.margins(message.w), self.problem.loss
        if "along" in message.extra:
            here = standing(shard, message.w, margins, values(loss, margins), shard.total)
            turned = _curved(loss, margins, shard.margins(message.extra["along"]))
            return here + Report(sums={"curved": shard.combine(shard.weigh(turned))}), state
        report = with_turning(appraisal(shard, message.w, margins, self.problem), message, shard, margins, loss)
        slopes = loss.slope(margins)
        bends = bend(loss, margins) if loss.versus == 1 else slopes * (1.0 - slopes)
        return report + Report(sums={"diagonal": shard.diagonal(shard.weigh(bends))}), state


def _curved(loss: Loss, margins: FloatArray, across: FloatArray) -> FloatArray:
    """Return ∇²ℓ of every sample times its `across`: how its rows' slopes fall along a direction.

    Examples
    --------
    >>> from localgd.losses import Logistic, Softmax
    >>> flat, across = np.zeros(2), np.array([1.0, 1.0])
    >>> _curved(Logistic(), flat, across).tolist(), _curved(Softmax(2), flat, across).round(4).tolist()
    ([0.25, 0.25], [0.1111, 0.1111])
    """
    if loss.versus == 1:
        return bend(loss, margins) * across
    slopes = loss.slope(margins).reshape(-1, loss.versus)
    across = across.reshape(slopes.shape)
    return np.asarray((slopes * (across - (slopes * across).sum(axis=1, keepdims=True))).ravel())


@dataclass(frozen=True, eq=False)
class InnerState(DescentState):
    """The state of `NewtonCG`: of its step's system H p = −∇F the p so far, the `direction`, and what is `left` of it.

    The nodes are asked ``along`` which direction next; `scales` is the diagonal of H, `power` leftᵀ left/scales, and it
    is solved where that is `enough`. `inner` counts its rounds.
    """

    left: FloatArray = field(default_factory=lambda: np.zeros(0))
    scales: FloatArray = field(default_factory=lambda: np.zeros(0))
    power: float = 0.0
    enough: float = 0.0
    inner: int = 0


@dataclass(frozen=True)
class NewtonCG(Descending):
    """Truncated Newton steps with backtracking: conjugate gradients, preconditioned by the diagonal, a round each.

    Of many classes, a column has one scale for all of them.

    Notes
    -----
    Dembo & Steihaug (1983), *Truncated-Newton algorithms for large-scale unconstrained optimization*.
    """

    def init(self, w0: FloatArray) -> InnerState:
        """Start from w0."""
        return InnerState(super().init(w0).model)

    def step(self, state: Any, report: Report) -> Any:
        """Go on with the system of the step, or accept the point and ask for the next one's."""
        if "along" not in state.asks:
            return super().step(state, report)
        along, n = state.asks["along"], total(report)
        curved = report.sums["curved"] / n + self.problem.strength(n) * self.problem.pull(along)
        bent = float(along @ curved)
        following = replace(state, round=state.round + 1, inner=state.inner + 1)
        if not bent > 0:  # flat to within rounding
            return self.ahead(replace(following, asks={}, direction=state.direction if state.inner else along))
        length = state.power / bent
        left = state.left - length * curved
        reduced = left / state.scales
        power = float(left @ reduced)
        following = replace(following, direction=read_only(state.direction + length * along), left=left, power=power)
        if not power > state.enough or following.inner >= MOST_INNER:
            return self.ahead(replace(following, asks={}))
        return replace(following, asks={"along": read_only(reduced + power / state.power * along)})

    def ahead(self, state: Any) -> Any:
        """Return the state a step ahead, if that step is known."""
        return state if "along" in state.asks else super().ahead(state)

    def aimed(self, state: Any, report: Report, slope: FloatArray) -> Any:
        """Return the state with the system of the step from its point, of which nothing is solved yet."""
        n = total(report)
        # one scale for a column of all classes: else directions leave the space where classes add up to 0, and beside
        # which only the penalty bends the objective
        each = report.sums["diagonal"].reshape(self.problem.n_blocks, -1).mean(axis=0)
        scales = np.tile(each, self.problem.n_blocks) / n + self.problem.strength(n) * self.problem.pull(
            np.ones(slope.size)
        )
        scales = np.where(scales > 0, scales, 1.0)  # a column of zeros, which nothing pulls at
        reduced = -slope / scales
        power = -float(slope @ reduced)
        system: dict[str, Any] = {
            "left": -slope,
            "scales": scales,
            "power": power,
            "enough": SOLVED**2 * power,
            "inner": 0,
        }
        return replace(state, direction=np.zeros(slope.size), asks={"along": read_only(reduced)}, **system)
