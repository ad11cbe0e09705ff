"""Tasks that look for the max-margin model itself, and the simplest: a projection onto the node's own half-spaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from localgd.core import Engine, Field, Message, Problem, Report, Schema
from localgd.errors import check_named
from localgd.kernels.project import project
from localgd.losses import Logistic, Loss, among
from localgd.many.by_node import by_node
from localgd.problems.metrics import Weighting, check_weighting, metrics, node_weight, seen
from localgd.problems.regularised import hard_margin_only
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.rules.local import moved, moves


@dataclass(frozen=True)
class MarginTask:
    """What tasks share that look for the max-margin model, whatever the loss: they only report one.

    Parameters
    ----------
    loss : Loss
        Only reported, never used.
    weighted_by : "uniform", "num-examples" or mapping from node to float
        Node weight in the reported loss, and in an average.
    """

    hard_margin_as: ClassVar[str]

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    weighted_by: Weighting = "uniform"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weighted_by", by_node(self.weighted_by, "weighted_by"))
        check_weighting(self.weighted_by)

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:
        """Return the task for this problem."""
        check_named(self, engine.node_ids)
        hard_margin_only(problem, self.hard_margin_as)
        return replace(self, loss=among(self.loss, sizes.versus))

    def standing(self, message: Message, shard: Shard, margins: FloatArray) -> Report:
        """Return how the shared model, whose margins are these, stands on a node."""
        return seen(message, shard, margins, self.loss, node_weight(shard, self.weighted_by))


@dataclass(frozen=True)
class Project(MarginTask):
    """Project the shared model onto C_m = {v : z·v >= 1 for every row of the node}.

    The λ → 0 limit of solving argmin f_m(v) + (λ/2)|v − w|² to the end (Zhu, Vardhan, Mazumdar, arXiv 2412.07971,
    Modified Local-GD). The node keeps its dual coefficients to start from next time. A node whose own rows cannot be
    separated stays where it is and reports the proof of that as its ``margin_upper``.
    """

    state_type: ClassVar[Any] = FloatArray
    hard_margin_as: ClassVar[str] = "projections look for the max-margin model"

    def schema(self, message: Message) -> Schema:
        """Return the metrics, an update, and the flag ``inseparable``: no projection, as nothing separates the rows."""
        return {**metrics(message), **moves(message.w.size), "inseparable": Field("flag")}

    def init(self, shard: Shard) -> FloatArray:
        """Start from zero duals."""
        return np.zeros(shard.n_rows)

    def run(self, message: Message, shard: Shard, state: FloatArray) -> tuple[Report, FloatArray]:
        """Project; report the standing at w and the weighted move."""
        here, weight = self.standing(message, shard, shard.margins(message.w)), node_weight(shard, self.weighted_by)
        projection = project(shard, message.w, warm=state)
        report = moved(shard, here, projection.duals, weight)
        if projection.feasible:
            return report, projection.duals
        stay = moved(shard, here, np.zeros(shard.n_rows), weight)
        return replace(stay, mins=report.mins, flags={**report.flags, "inseparable": 1}), state
