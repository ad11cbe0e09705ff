"""How a model stands on a node: loss, accuracy and smallest margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from localgd.core import Field, Message, Report, Schema
from localgd.errors import check_positive
from localgd.losses import ELEMENTWISE, Logistic, Loss
from localgd.many.by_node import ByNode, by_node
from localgd.many.reports import blank, more
from localgd.many.stack import Stack, alone, at_once
from localgd.rounding import FloatArray, norm
from localgd.rows import Shard

Weighting: TypeAlias = Literal["uniform", "num-examples"] | ByNode[float]
"""How nodes weigh in a mean: all alike, by their samples, or by numbers of one's own."""

LARGEST = float(np.finfo(np.float64).max)

WEIGHTED: Schema = {"total": Field("sum", optional=True), "n_weighted": Field("sum", optional=True)}
"""What nodes whose samples have weights add to a report: Σ of those, and how many there are."""

METRICS: Schema = {
    "weight": Field("sum"),
    "loss": Field("sum"),
    "correct": Field("sum"),
    "margin": Field("min"),
    **WEIGHTED,
}
"""What `standing` reports."""

OF_VECTOR, READOUT = ("correct", "margin"), "readout_"
"""What of it is about a vector; of the model that is handed out, where that is another, under names of its own."""


def node_weight(shard: Any, weighted_by: Weighting | None) -> Any:
    """Return the weight p_m of a node before normalisation: 1, its samples, each by its weight, or a given number."""
    if isinstance(weighted_by, ByNode):
        if isinstance(shard, Stack):
            return np.array([float(weighted_by.at(node_id)) for node_id in shard.node_ids])
        return float(weighted_by.at(shard.node_id))
    return shard.total if weighted_by == "num-examples" else 1.0


def weights_of(shard: Shard) -> dict[str, float]:
    """Return the sums of `WEIGHTED`: nothing, if the samples have no weights."""
    return {} if shard.weights is None else {"total": shard.total, "n_weighted": float(shard.n_samples)}


def total(report: Report) -> float:
    """Return Σ of the weights of all samples that speak through a report: their number, if none has one.

    Examples
    --------
    >>> total(Report(2, 10)), total(Report(2, 10, {"total": 2.5, "n_weighted": 4.0}))
    (10.0, 8.5)
    """
    return report.n_rows - float(report.sums.get("n_weighted", 0.0)) + float(report.sums.get("total", 0.0))


def check_weighting(weighted_by: Weighting | None) -> None:
    """Refuse a weighting nobody knows, and numbers of which none is above 0; None leaves it to the problem."""
    if isinstance(weighted_by, ByNode):
        check_positive("weighted_by", weighted_by, or_zero=True)
        if not any(weight for _, weight in weighted_by.values):
            raise ValueError("weighted_by is 0 for every node; give one of them a number above 0")
    elif weighted_by not in (None, "uniform", "num-examples"):
        raise ValueError(
            f"weighted_by must be 'uniform', 'num-examples' or a mapping from nodes to numbers, got {weighted_by!r}"
        )


def values(loss: Loss, margins: FloatArray) -> FloatArray:
    """Return the loss of every sample; inf where it is beyond float64."""
    with np.errstate(over="ignore"):
        return loss.value(margins)


def elementwise(loss: Loss, shard: Shard) -> None:
    """Go on with one node only if the loss is a stranger's: it may be one of an array (n,) only."""
    if type(loss) not in ELEMENTWISE:
        alone(shard, f"{loss!r} is no loss of this library")


def standing(shard: Shard, w: FloatArray, margins: FloatArray, of_samples: FloatArray, weight: Any) -> Report:
    """Return how the shared model w stands on this node.

    Sums: ``weight`` p_m, ``loss`` p_m f_m(w), f_m the mean of the losses `of_samples` (the largest float64 where it is
    beyond), ``correct`` samples that are right, each by its weight, and `weights_of`. Minimum: ``margin``, a lower
    bound on min z_i·w (the computed one less its rounding error).
    """
    sums = {"weight": weight, **_loss(shard, of_samples, weight), "correct": shard.right(margins), **weights_of(shard)}
    return more(blank(shard), sums=sums, mins={"margin": _low(shard, w, margins)})


def _low(shard: Shard, w: FloatArray, margins: FloatArray) -> Any:
    """Return a lower bound on min z_i·w."""
    return margins.min(axis=-1) - shard.margin_error(norm(w))


def _loss(shard: Shard, of_samples: FloatArray, weight: Any) -> dict[str, Any]:
    """Return ``loss``."""
    with np.errstate(over="ignore"):
        return {"loss": np.minimum(weight * shard.mean(of_samples), LARGEST)}


def seen(message: Message, shard: Shard, margins: FloatArray, loss: Loss, weight: Any) -> Report:
    """Return the standing of the shared model, whose margins are these; of the ``readout`` instead if there is one.

    What is right and the margin are then ``readout_correct`` and ``readout_margin``. The loss is that of the shared
    model in either case: it is what the method brings down.
    """
    of_samples = values(loss, margins)
    if "readout" not in message.extra:
        return standing(shard, message.w, margins, of_samples, weight)
    readout = message.extra["readout"]
    there = shard.margins(readout)
    sums = {"weight": weight, **_loss(shard, of_samples, weight), f"{READOUT}correct": shard.right(there)}
    low = {f"{READOUT}margin": _low(shard, readout, there)}
    return more(blank(shard), sums={**sums, **weights_of(shard)}, mins=low)


def metrics(message: Message) -> Schema:
    """Return the schema of `seen`."""
    apart = READOUT if "readout" in message.extra else ""
    return {f"{apart}{name}" if name in OF_VECTOR else name: field for name, field in METRICS.items()}


def is_about(w: FloatArray, message: Message, schema: Schema) -> bool:
    """Return whether what nodes say of a model in this round is about w, and not about what else a merge may send.

    A task that has never heard of a readout speaks of the shared model, as its schema tells.
    """
    apart = f"{READOUT}margin" in schema
    looked_at = message.extra["readout"] if apart else message.w
    return looked_at is w or np.array_equal(looked_at, w)


def said_of(w: FloatArray, message: Message, schema: Schema, report: Report) -> Report:
    """Return a report that says nothing of any other vector than w, and that of w under the plain names."""
    about, apart = is_about(w, message, schema), READOUT if f"{READOUT}margin" in schema else ""
    if about and not apart:
        return report

    def kept(part: Mapping[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in part.items() if name.removeprefix(READOUT) not in OF_VECTOR}
        return rest | {name: part[apart + name] for name in OF_VECTOR if about and apart + name in part}

    return replace(report, sums=kept(report.sums), mins=kept(report.mins))


class ByMargins:
    """What problems about the margins of signed rows have in common."""

    by_margins: ClassVar[bool] = True

    def beginning(self, state: Any) -> Message:
        """Return the message for a first look at the model: that is all a look needs."""
        return Message(state.round, state.w)

    def scores(self, report: Report, state: Any) -> tuple[float, float]:
        """Return loss and accuracy of the shared model."""
        sums, labels = report.sums, bool(state.readout.vector.any())  # w = 0 labels nothing
        accuracy = float(sums["correct"]) / total(report) if labels and "correct" in sums else math.nan
        return float(sums["loss"]) / float(sums["weight"]), accuracy

    def unproved(self, proof: Any, state: Any) -> bool:  # noqa: ARG002
        """Return False: dual vectors speak of the hard margin only."""
        return False


@dataclass(frozen=True)
class Evaluate:
    """Report the standing of the shared model on every node, nothing else."""

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    weighted_by: Weighting = "uniform"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weighted_by", by_node(self.weighted_by, "weighted_by"))
        check_weighting(self.weighted_by)

    def schema(self, message: Message) -> Schema:
        """Return `metrics`."""
        return metrics(message)

    @at_once
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return `seen`."""
        elementwise(self.loss, shard)
        weight = node_weight(shard, self.weighted_by)
        return seen(message, shard, shard.margins(message.w), self.loss, weight), state
