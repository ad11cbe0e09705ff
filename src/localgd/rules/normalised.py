"""Local-GD whose step size is divided by the loss, with a way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from localgd.core import Message, Report
from localgd.rounding import FloatArray
from localgd.rules.server import Additive, ServerState, added, mean_update, started


@dataclass(frozen=True, eq=False)
class NormalisedState(ServerState):
    """The server's state with the last point whose loss was accepted, that loss, and the share of the step size."""

    accepted: ServerState | None = None
    loss: float = math.inf
    share: float = 1.0


@dataclass(frozen=True)
class Normalised(Additive):
    """Local-GD with its step size over the loss of the round before, and a way back if the loss grows.

    Each update is still a combination of rows with coefficients >= 0 that vanish off the smallest margin, so the limit
    is the same max-margin direction, but |w| grows like the number k of rounds instead of its logarithm: the error
    falls like 1/k. A round that raised the loss is undone and repeated with half the step.
    """

    whole_rounds: ClassVar[str] = "the loss that sets its step size is a sum over all nodes"
    hard_margin_as: ClassVar[str] = "the least value of a penalised loss is not 0, so it is nothing to divide by"

    def init(self, w0: FloatArray) -> NormalisedState:
        """Start from w0 with the step size as it is."""
        return NormalisedState(**vars(started(w0)))

    def message(self, state: NormalisedState) -> Message:
        """Send the shared model and what the step size is multiplied with."""
        scale = state.share / state.loss if state.loss < math.inf else 1.0
        return Message(state.round, state.w, {"scale": np.asarray(scale)})

    def step(self, state: NormalisedState, report: Report) -> NormalisedState:
        """Return the next point, or go back to the last one with half the step."""
        loss = float(report.sums["loss"]) / float(report.sums["weight"])
        if state.accepted is not None and not loss <= state.loss:
            back = {**vars(state.accepted), "round": state.round + 1}
            return NormalisedState(**back, accepted=state.accepted, loss=state.loss, share=state.share / 2)
        if not 0 < loss < math.inf:
            return replace(state, done="the loss is 0 in float64")
        here = ServerState(state.model, state.round, tails=state.tails)
        share = min(1.0, 1.25 * state.share)
        return added(state, mean_update(report), accepted=here, loss=loss, share=share)
