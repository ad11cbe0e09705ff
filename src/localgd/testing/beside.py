"""In every rank: a training under test, DistributedDataParallel beside it, and the mistakes that others have made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from localgd.errors import extra
from localgd.nets.steps import examples_in

with extra("torch", "torch"):
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

RTOL = {torch.float64: 1e-10, torch.float32: 1e-4}
"""By dtype; what fewer bits hold is known to `COARSE`."""

COARSE = 2e-2

PERIODS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 50, 64, 100)
"""Steps between two syncs, where there is to be one: it is told how many, if they are so many."""

Way = Callable[..., None]
"""Of training a model, given its optimizer."""


def compared(
    train: Callable[..., Any], build: Callable[..., Any], batches: Any, loss: Any, options: tuple[float | None, str]
) -> dict[str, Any]:
    """Train in both ways; return how far tensors are apart, over ranks and from DistributedDataParallel.

    The same in all ranks, which decide alike by what they told each other. Options are `rtol` and `weights`.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    case = Case(build, loss, list(batches(rank, world) if callable(batches) else batches[rank]), options[1])
    tested, start = built(build), built(build)[0]
    case.check(tested[0], start)
    seed()
    train(*tested, case.batches)
    theirs = case.trained_by(case.ddp)
    tensors, reference = trained(tested[0]), trained(theirs[0])
    size = rms(reference.values())
    rtol = options[0] or max(RTOL.get(tensor.dtype, COARSE) for tensor in reference.values())
    ranks, ddp = over_ranks(tensors, size), most(apart(tensors, reference, size))
    state = _of_states(tested, theirs)
    looks = ""
    if min(ranks.values()) > rtol:
        looks = case.looks_like(tensors, rtol, case.periods())
    elif max(ranks.values()) <= rtol < max(ddp.values()):
        moved = most(apart(tensors, trained(start), 0.0))
        ways = {**case.mistakes(), **case.periods()}
        looks = case.looks_like(tensors, rtol, ways) if max(moved.values()) > 0 else "still"
    return {
        "world": world,
        "steps": len(case.batches),
        "optimizer": type(tested[1]).__name__,
        "rtol": rtol,
        "parameters": {"ranks": ranks, "ddp": ddp},
        "buffers": over_ranks(dict(tested[0].named_buffers()), 0.0),
        "state": state,
        "looks": looks,
        "worst": max([*ranks.values(), *ddp.values(), *state["ddp"].values()]),
    }


class Case:
    """What is trained in this rank, and how much the rank counts in every step; and ways to train it.

    `own` is what the rank counts by the rule that was asked for, "equal" or "batch", `other` by the other one.
    """

    def __init__(self, build: Callable[..., Any], loss: Any, batches: Sequence[Any], weights: str) -> None:
        self.build, self.loss, self.batches = build, loss, batches
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, torch.tensor([len(batches)]))
        if len(numbers := sorted({int(count) for count in counts})) > 1:
            raise ValueError(
                f"ranks have {numbers[0]} to {numbers[-1]} batches; DistributedDataParallel needs as many in each"
            )
        equal, by_size = [1.0 / len(counts)] * len(batches), self._by_size()
        self.own, self.other = (by_size, equal) if weights == "batch" else (equal, by_size)

    def _by_size(self) -> list[float]:
        """Return the share of this rank in each step's examples; an equal one where no batch tells how many it has."""
        sizes = torch.ones(len(self.batches), dtype=torch.float64)
        with suppress(ValueError):
            sizes = torch.tensor([float(examples_in(batch)) for batch in self.batches], dtype=torch.float64)
        total = sizes.clone()
        dist.all_reduce(total)
        return [float(share) for share in sizes / total]

    def check(self, model: Any, again: Any) -> None:
        """Refuse models that begin elsewhere, when they are built again or in another rank."""
        twice, begin = most(apart(trained(again), trained(model), 0.0)), over_ranks(trained(model), 0.0)
        if unlike := [name for name in twice if max(twice[name], begin[name]) > 0]:
            raise ValueError(
                f"build makes other numbers each time, as in {unlike[0]}: draw them all after torch.manual_seed(0)"
            )
        if not twice:
            raise ValueError("build makes a model without a parameter that is trained")

    def trained_by(self, way: Way) -> tuple[Any, Any]:
        """Return a fresh model and its optimizer, after one way of training."""
        model, optimizer = built(self.build)
        seed()
        way(model, optimizer)
        return model, optimizer

    def looks_like(self, tensors: dict[str, Any], rtol: float, ways: dict[str, Way]) -> str:
        """Return which of these ways leads to these numbers in every rank, "" if none does."""
        for name, way in ways.items():
            found = trained(self.trained_by(way)[0])
            if max(most(apart(tensors, found, rms(found.values()))).values()) <= 10 * rtol:
                return name
        return ""

    def mistakes(self) -> dict[str, Way]:
        """Return the mistakes that others have made, by name; an update is a multiple of a gradient in SGD only."""
        each, ones = len(self.batches), [1.0] * len(self.batches)
        return {
            "weights": lambda *fresh: self.summed(fresh, self.other),
            "added": lambda *fresh: self.summed(fresh, ones),
            "updates": lambda *fresh: self.averaged(fresh, ones, every=1),
            "updates, momentum averaged": lambda *fresh: self.averaged(fresh, ones, every=1, momentum=True),
            "reset": lambda *fresh: self.summed(fresh, self.own, forget=True),
            "once": lambda *fresh: self.averaged(fresh, self.own, every=each),
            "models": lambda *fresh: self.averaged(fresh, self.own, every=1),
        }

    def periods(self) -> dict[str, Way]:
        """Return syncs after several steps, with momentum kept or averaged, under the number of steps."""
        each = len(self.batches)
        return {
            f"every {k}{', momentum averaged' * momentum}": partial(self._every, k, momentum)
            for k in PERIODS
            if k < each
            for momentum in (False, True)
        }

    def _every(self, steps: int, momentum: bool, *fresh: Any) -> None:
        self.averaged(fresh, self.own, every=steps, momentum=momentum)

    def ddp(self, model: Any, optimizer: Any) -> None:
        """Train by torch's own wrapper."""
        probe = built(self.build)[0]
        for batch in self.batches[:1]:
            self.loss(probe, batch).backward()  # which parameters have no part in it
        idle = any(parameter.requires_grad and parameter.grad is None for parameter in probe.parameters())
        wrapped = DistributedDataParallel(model, find_unused_parameters=idle)
        seed()
        for batch, share in zip(self.batches, self.own, strict=True):
            optimizer.zero_grad()
            (self.loss(wrapped, batch) * (share * dist.get_world_size())).backward()
            optimizer.step()

    def summed(self, fresh: tuple[Any, Any], shares: list[float], *, forget: bool = False) -> None:
        """Step along the sum of the ranks' gradients, each by its share; perhaps without a memory."""
        model, optimizer = fresh
        for batch, share in zip(self.batches, shares, strict=True):
            optimizer.zero_grad()
            self.loss(model, batch).backward()
            for parameter in model.parameters():
                if parameter.requires_grad:
                    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * share
                    dist.all_reduce(gradient)
                    parameter.grad = gradient
            optimizer.step()
            if forget:
                optimizer.state.clear()

    def averaged(self, fresh: tuple[Any, Any], shares: list[float], *, every: int, momentum: bool = False) -> None:
        """Step in every rank alone; after so many steps add the ranks' updates, by their shares, and average momentum.

        In the mean of momentum, unlike in the sum of updates, a rank always counts as was asked for.
        """
        model, optimizer = fresh
        shared = [parameter.detach().clone() for parameter in model.parameters()]
        for place, (batch, share) in enumerate(zip(self.batches, shares, strict=True), start=1):
            optimizer.zero_grad()
            self.loss(model, batch).backward()
            optimizer.step()
            if place % every:
                continue
            for parameter, old in zip(model.parameters(), shared, strict=True):
                update = (parameter.detach() - old) * share
                dist.all_reduce(update)
                old.add_(update)
                parameter.data.copy_(old)
            for _, held in _state(model, optimizer) if momentum else ():
                held.mul_(self.own[place - 1])
                dist.all_reduce(held)


def built(build: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return a fresh model and its optimizer."""
    torch.manual_seed(0)
    made = build()
    if not (isinstance(made, tuple) and len(made) == 2 and hasattr(made[0], "named_parameters")):
        raise TypeError(f"build must return (model, optimizer), got {type(made).__name__}")
    return made


def seed() -> None:
    """Let dropout draw the same whatever trains, and something else in every rank."""
    torch.manual_seed(1 + dist.get_rank())


def trained(model: Any) -> dict[str, Any]:
    """Return the parameters that are trained, by name, tied ones once."""
    return {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad}


def rms(tensors: Any) -> float:
    """Return the root mean square of all numbers of tensors."""
    held = [tensor.double() for tensor in tensors if tensor.numel()]
    count = sum(tensor.numel() for tensor in held)
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in held) / count) if count else 0.0


def apart(tensors: dict[str, Any], others: dict[str, Any], size: float) -> dict[str, float]:
    """Return how far each tensor is from the other of its name, as a part of its size, or of `size` if that is larger.

    Examples
    --------
    >>> apart({"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([2.0, 4.0])}, 4.0)["a"] == math.sqrt(1 / 2) / 4
    True
    """
    out = {}
    for name, other in others.items():
        own = tensors[name].detach().double() if name in tensors else torch.zeros_like(other, dtype=torch.float64)
        off, scale = rms([own - other.detach().double()]), max(rms([other.detach()]), size)
        out[name] = off / scale if scale > 0 else off
        if math.isnan(out[name]):
            out[name] = math.inf
    return out


def over_ranks(tensors: dict[str, Any], size: float) -> dict[str, float]:
    """Return how far each tensor is from that of rank 0, at most, over all ranks."""
    first = {}
    for name, tensor in tensors.items():
        first[name] = tensor.detach().double().contiguous().clone()
        dist.broadcast(first[name], 0)
    return most(apart(tensors, first, size))


def most(values: dict[str, float]) -> dict[str, float]:
    """Return the largest of each over all ranks."""
    held = torch.tensor([*values.values(), 0.0], dtype=torch.float64)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return dict(zip(values, held.tolist(), strict=False))


def _of_states(one: tuple[Any, Any], other: tuple[Any, Any]) -> dict[str, dict[str, float]]:
    """Return how far the states of optimizers are apart; nothing where the tested one was not used."""
    theirs = dict(_state(*other))
    own = {name: tensor for name, tensor in _state(*one) if name in theirs}
    filled = {name: own.get(name, torch.zeros_like(tensor)) for name, tensor in theirs.items()}
    used = torch.tensor([float(bool(one[1].state))])
    dist.all_reduce(used)
    if not used.item():
        return {"ranks": {}, "ddp": {}}
    size = rms(theirs.values())
    return {"ranks": over_ranks(filled, size), "ddp": most(apart(filled, theirs, size))}


def _state(model: Any, optimizer: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.is_floating_point():
                yield f"{key} of {name}", value
