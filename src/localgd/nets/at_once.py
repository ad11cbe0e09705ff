"""Nodes of one process trained at once: their parameters stacked, one call of vmap for a step of all."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localgd.core import Field, Message, Report, Schema
from localgd.errors import extra
from localgd.nets.examples import Examples
from localgd.nets.replica import AT_WORK, Replica, drawn, mean_of
from localgd.nets.statistics import Layer

if TYPE_CHECKING:
    from localgd.nets.net_steps import NetSteps

with extra("torch", "torch"):
    import torch
    from torch.func import functional_call, grad, vmap

MOST = 2**24
"""Numbers of all stacked models together: each takes about four times that, with gradients and momentum."""

TRIAL_STEPS, TRIAL_NODES = 2, 4
"""Steps that a trial takes both ways, after one to warm up; alone of so many nodes."""

ALONE, TOGETHER, CHOICE = "seconds_alone", "seconds_at_once", "at_once"

TRIED: Schema = {ALONE: Field("sum"), TOGETHER: Field("sum")}
"""Seconds that a trial of the first round took, both ways, for as much; 0 of nodes that took no part in it."""

UNTRIED = Report(sums=dict.fromkeys(TRIED, 0.0))
"""What a node says of a trial that it had no part in."""


def how(asks: Mapping[str, Any]) -> list[str]:
    """Return in words what the trial of the first round decided, if there was one."""
    if CHOICE not in asks:
        return []
    return ["nodes were trained at once, as a trial said" if asks[CHOICE] else "nodes were trained one by one"]


def decided(asks: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Return what the server asks of nodes after a trial: to be trained at once, if that was faster."""
    if ALONE not in report.sums:
        return dict(asks)
    faster = float(report.sums[TOGETHER]) < float(report.sums[ALONE])
    return {**asks, CHOICE: np.asarray(float(faster))}


def trial(task: NetSteps, message: Message) -> bool:
    """Return whether this round is to find out what is faster."""
    return task.at_once is None and CHOICE not in message.extra


@dataclass(eq=False)
class Stacked:
    """Nodes that take steps of one size on as many examples each, those with most steps first.

    They are trained when the first report is made.
    """

    task: NetSteps
    message: Message
    shards: Sequence[Examples]
    orders: Sequence[NDArray[np.int64]]
    lr: float
    found: dict[str, Any] | None = None
    counted: Sequence[tuple[float, int]] = ()
    error: Exception | None = None

    def report(self, place: int) -> Report:
        """Return the report of one of the nodes: where they cannot be trained at once, and need not, of it alone."""
        task, shard = self.task, self.shards[place]
        with AT_WORK:
            if self.found is None and self.error is None:
                try:
                    self.found, self.counted = self.trained()
                except Exception as error:  # noqa: BLE001  whatever a module does that cannot be stacked
                    self.error = error
        if self.found is not None:
            own = {name: tensor[place] for name, tensor in self.found.items()}
            return task.reported(self.message, shard, partial(_taken, task.module, own, self.counted))
        if not task.at_once:
            return task.run(self.message, shard, None)[0]
        said = f"{self.error}".partition("\n")[0]
        raise ValueError(
            f"at_once=True: this network cannot be trained at once ({said:.200}); leave it out, also to have a node "
            "named, and skipped, whose examples do not fit: trained at once, all of them fail"
        )

    def tried(self) -> dict[str, float]:
        """Return the seconds that a few steps take both ways; nothing, if they cannot be taken at once."""
        task, some = self.task, self.shards[:TRIAL_NODES]
        try:
            at_once = _seconds(self.trained)
        except Exception:  # noqa: BLE001  likewise
            return {}

        def alone(n: int) -> None:
            for shard, order in zip(some, self.orders, strict=False):
                task.module.load(self.message.w)
                task.descend(shard, order[:n], self.lr)

        with AT_WORK, drawn(task.seed, self.message.round):
            return {ALONE: _seconds(alone) * len(self.shards) / len(some), TOGETHER: at_once}

    def trained(self, most: int | None = None) -> tuple[dict[str, Any], Sequence[tuple[float, int]]]:
        """Return the stacked tensors after all steps, or so many, by name, and what each normalisation counted."""
        task, made = self.task, self.task.module
        with AT_WORK, drawn(task.seed, self.message.round), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # the trial finds out whether that matters
            made.load(self.message.w)
            with made.watched() as layers:
                found = _descended(task, self.shards, [order[:most] for order in self.orders], self.lr)
                return found, [(layer.size, layer.batches) for layer in layers]


def ready(task: NetSteps, message: Message, shards: Sequence[Examples]) -> dict[str, Callable[[], Report]]:
    """Return what makes the reports of nodes trained at once, by name; the others are to go one by one.

    In a first round that is to find out what is faster all go one by one, and one says how long either took.
    """
    trying = trial(task, message)
    if not (trying or task.at_once or (task.at_once is None and message.extra[CHOICE])):
        return {}
    groups = list(_groups(task, message, shards))
    if not trying:
        made = [(shard.node_id, partial(group.report, n)) for group in groups for n, shard in enumerate(group.shards)]
        return dict(made)
    if not groups:
        return {}
    largest = max(groups, key=lambda group: len(group.shards))
    first, seconds = largest.shards[0], largest.tried()
    return {first.node_id: lambda: task.run(message, first, None)[0] + Report(sums=seconds)}


def _taken(made: Replica, own: Mapping[str, Any], counted: Sequence[tuple[float, int]], layers: list[Layer]) -> None:
    """Put what a node has come to into the module, and how large its batches were."""
    made.put(own)
    for layer, (size, batches) in zip(layers, counted, strict=True):
        layer.size, layer.batches = size, batches


def _groups(task: NetSteps, message: Message, shards: Sequence[Examples]) -> Iterator[Stacked]:
    """Yield the nodes that can be stacked, in groups of a bearable size."""
    alike: dict[Any, list[Examples]] = {}
    for shard in shards:
        if shard.tensors is not None:
            shapes = tuple((part.dtype, tuple(part.shape[1:])) for part in shard.tensors.parts)
            alike.setdefault((*task.pace(shard, message)[1:], shapes), []).append(shard)
    most = max(2, MOST // task.module.size)
    for (size, lr, _), same in alike.items():
        for begin in range(0, len(same), most):
            some = same[begin : begin + most]
            if len(some) > 1:
                some.sort(key=lambda shard: -task.pace(shard, message)[0])
                orders = [task.places(shard, message.round, task.pace(shard, message)[0], size) for shard in some]
                yield Stacked(task, message, some, orders, lr)


class _Loss(torch.nn.Module):
    """The loss of a module as a module: so that what it is made of can be put in by name, for the loss to use."""

    def __init__(self, model: Any, loss: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Any:
        return mean_of(self.loss, self.model, batch)


def _descended(
    task: NetSteps, shards: Sequence[Examples], orders: Sequence[NDArray[np.int64]], lr: float
) -> dict[str, Any]:
    """Take steps of stacked nodes, on the examples (steps, size) of each, from the numbers that the module has."""
    made, k = task.module, len(shards)
    assert task.network is not None  # noqa: S101  it has a module
    loss = _Loss(made.model, task.network.loss)
    numbers = {name: _wide(tensor, k) for name, tensor in made.trained.items()}
    moving = {name: _wide(tensor, k) for name, tensor in made.moving.items()}

    def of_one(own: Any, beside: Any, batch: Any) -> Any:
        held = {f"model.{name}": tensor for name, tensor in [*own.items(), *beside.items()]}
        found = functional_call(loss, held, (batch,))
        return found, beside

    slopes_of = vmap(grad(of_one, has_aux=True), randomness="error")
    step = task.stepping([*numbers.values()], lr)
    for at in range(len(orders[0])):
        places = [order[at] for order in orders if at < len(order)]  # of the nodes that are not done yet
        own, beside = ({name: wide[: len(places)] for name, wide in held.items()} for held in (numbers, moving))
        slopes, after = slopes_of(own, beside, made.sent(_batch(shards[: len(places)], places)))
        step([slopes[name] for name in numbers], len(places))
        for name, tensor in after.items():
            moving[name][: len(places)] = tensor
    return {**numbers, **moving}


def _wide(tensor: Any, k: int) -> Any:
    """Return k copies of a tensor, stacked."""
    return tensor.detach().expand(k, *tensor.shape).clone()


def _batch(shards: Sequence[Examples], places: Sequence[NDArray[np.int64]]) -> list[Any]:
    """Return the batches of a step, stacked."""
    held = [shard.tensors for shard in shards if shard.tensors is not None]
    own = [one.places[torch.tensor(row)] for one, row in zip(held, places, strict=True)]
    first = held[0].parts
    if all(part is other for one in held for part, other in zip(one.parts, first, strict=True)):
        index = torch.stack(own)
        return [part[index] for part in first]
    return [
        torch.stack([one.parts[place][index] for one, index in zip(held, own, strict=True)])
        for place in range(len(first))
    ]


def _seconds(steps: Callable[[int], object]) -> float:
    """Return the seconds of a few steps, after one to warm up."""
    steps(1)
    begin = time.perf_counter()
    steps(TRIAL_STEPS + 1)
    return time.perf_counter() - begin
