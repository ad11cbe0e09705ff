"""Nodes of one process trained at once: their parameters stacked, one call of vmap for a step of all."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Stacked(NamedTuple):
    """Nodes that take as many steps, of one size, on as many examples each."""

    shards: Sequence[Examples]
    places: NDArray[np.int64]
    lr: float


def ready(task: NetSteps, message: Message, shards: Sequence[Examples]) -> dict[str, Callable[[], Report]]:
    """Return what makes the reports of nodes trained at once, by name; the others are to go one by one.

    In a first round that is to find out what is faster all go one by one, and some say how long either took.
    """
    trying = trial(task, message)
    if not (trying or task.at_once or (task.at_once is None and message.extra[CHOICE])):
        return {}
    out: dict[str, Callable[[], Report]] = {}
    for group in _groups(task, message, shards):
        if trying:
            if seconds := _tried(task, message, group):
                first = group.shards[0]
                return {first.node_id: partial(_and_seconds, task, message, first, seconds)}
            continue
        try:
            found, counted = _trained(task, message, group)
        except Exception as error:  # noqa: BLE001  whatever a module does that cannot be stacked
            if task.at_once:
                out |= {shard.node_id: partial(_refuse, error) for shard in group.shards}
            continue
        for place, shard in enumerate(group.shards):
            own = {name: tensor[place] for name, tensor in found.items()}
            out[shard.node_id] = partial(task.reported, message, shard, partial(_taken, task.module, own, counted))
    return out


def _refuse(error: Exception) -> Report:
    """Say why a node cannot be trained with others."""
    said = f"{error}".partition("\n")[0]
    raise ValueError(f"at_once=True: this network cannot be trained at once ({said:.200}); leave it out") from error


def _taken(made: Replica, own: Mapping[str, Any], counted: Sequence[tuple[float, int]], layers: list[Layer]) -> None:
    """Put what a node has come to into the module, and how large its batches were."""
    made.put(own)
    for layer, (size, batches) in zip(layers, counted, strict=True):
        layer.size, layer.batches = size, batches


def _and_seconds(task: NetSteps, message: Message, shard: Examples, seconds: Mapping[str, float]) -> Report:
    return task.run(message, shard, None)[0] + Report(sums=dict(seconds))


def _groups(task: NetSteps, message: Message, shards: Sequence[Examples]) -> Iterator[Stacked]:
    """Yield the nodes that can be stacked, in groups of a bearable size."""
    alike: dict[Any, list[Examples]] = {}
    for shard in shards:
        if shard.tensors is not None:
            shapes = tuple((part.dtype, tuple(part.shape[1:])) for part in shard.tensors.parts)
            alike.setdefault((*task.pace(shard, message), shapes), []).append(shard)
    most = max(2, MOST // task.module.size)
    for (n_steps, size, lr, _), same in alike.items():
        for begin in range(0, len(same), most):
            some = same[begin : begin + most]
            if len(some) > 1:
                places = np.stack([task.places(shard, message.round, n_steps, size) for shard in some], axis=1)
                yield Stacked(some, places, lr)


def _trained(task: NetSteps, message: Message, group: Stacked) -> tuple[dict[str, Any], list[tuple[float, int]]]:
    """Return the stacked tensors after all steps, by name, and what each normalisation counted."""
    made = task.module
    with AT_WORK, drawn(task.seed, message.round), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # the trial finds out whether that matters
        made.load(message.w)
        with made.watched() as layers:
            found = _descended(task, group)
            return found, [(layer.size, layer.batches) for layer in layers]


class _Loss(torch.nn.Module):
    """The loss of a module as a module: so that what it is made of can be put in by name, for the loss to use."""

    def __init__(self, model: Any, loss: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Any:
        return mean_of(self.loss, self.model, batch)


def _descended(task: NetSteps, group: Stacked) -> dict[str, Any]:
    """Take the steps of a group, from the numbers that the module has."""
    made, k = task.module, len(group.shards)
    assert task.network is not None  # noqa: S101  it has a module
    loss = _Loss(made.model, task.network.loss)
    numbers = {name: _wide(tensor, k) for name, tensor in made.trained.items()}
    moving = {name: _wide(tensor, k) for name, tensor in made.moving.items()}

    def of_one(own: Any, beside: Any, batch: Any) -> Any:
        held = {f"model.{name}": tensor for name, tensor in [*own.items(), *beside.items()]}
        found = functional_call(loss, held, (batch,))
        return found, beside

    slopes_of = vmap(grad(of_one, has_aux=True), randomness="error")
    step = task.stepping([*numbers.values()], group.lr)
    for places in group.places:
        slopes, moving = slopes_of(numbers, moving, made.sent(_batch(group.shards, places)))
        step([slopes[name] for name in numbers])
    return {**numbers, **moving}


def _wide(tensor: Any, k: int) -> Any:
    """Return k copies of a tensor, stacked."""
    return tensor.detach().expand(k, *tensor.shape).clone()


def _batch(shards: Sequence[Examples], places: NDArray[np.int64]) -> list[Any]:
    """Return the batches of a step, (k, size), stacked."""
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


def _tried(task: NetSteps, message: Message, group: Stacked) -> dict[str, float]:
    """Return the seconds that a few steps of a group take both ways; nothing, if they cannot be taken at once."""
    made, few = task.module, group.places[: TRIAL_STEPS + 1]
    some = group.shards[:TRIAL_NODES]
    try:
        at_once = _seconds(lambda n: _trained(task, message, group._replace(places=few[:n])))
    except Exception:  # noqa: BLE001  whatever a module does that cannot be stacked
        return {}
    alone = 0.0
    for place in range(len(some)):

        def steps(n: int, place: int = place) -> None:
            with AT_WORK, drawn(task.seed, message.round):
                made.load(message.w)
                task.descend(some[place], few[:n, place], group.lr)

        alone += _seconds(steps)
    return {ALONE: alone * len(group.shards) / len(some), TOGETHER: at_once}


def _seconds(steps: Callable[[int], object]) -> float:
    """Return the seconds of a few steps, after one to warm up."""
    steps(1)
    begin = time.perf_counter()
    steps(TRIAL_STEPS + 1)
    return time.perf_counter() - begin
