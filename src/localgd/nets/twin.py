"""A copy of a model and its optimizer that synchronous training moves: gradients are averaged at every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from localgd.errors import extra, said
from localgd.nets.checkpoint import rng_state, set_rng_state
from localgd.nets.places import Places
from localgd.nets.ranks import Ranks

with extra("torch", "torch"):
    import torch

Settings = list[dict[str, Any]]
"""Numbers of each group of an optimizer, such as its step size."""


class Step(NamedTuple):
    """A step of this rank: what it was taken on, with what settings, and where random numbers stood before it."""

    batch: Any
    settings: Settings
    generators: dict[str, Any] | None


def settings_of(optimizer: Any) -> Settings:
    """Return what a schedule may change.

    Examples
    --------
    >>> settings_of(torch.optim.SGD([torch.zeros(2)], lr=0.1, momentum=0.9))
    [{'lr': 0.1, 'momentum': 0.9, 'dampening': 0, 'weight_decay': 0}]
    """
    groups = []
    for group in optimizer.param_groups:
        plain = {key: value.item() if _one(value) else value for key, value in group.items()}
        groups.append({key: value for key, value in plain.items() if _number(value) or _numbers(value)})
    return groups


def _one(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_number, value))


def adopt(optimizer: Any, settings: Settings) -> None:
    """Give an optimizer these settings."""
    for group, numbers in zip(optimizer.param_groups, settings, strict=True):
        for key, number in numbers.items():
            if _one(group[key]):
                group[key].fill_(number)
            else:
                group[key] = tuple(number) if isinstance(number, list) else number


@contextmanager
def aside(device: Any) -> Iterator[None]:
    """Put torch's and Python's generators back at the end to where they were."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


class Twin:
    """A copy of a model and its optimizer, the same bits in all ranks.

    Parameters
    ----------
    model, optimizer
        That are copied; the copy costs as much memory as they do, and while it moves a gradient more.
    loss : callable
        ``loss(model, batch)``: the mean loss of a batch, a tensor of one number.
    """

    def __init__(self, model: Any, optimizer: Any, loss: Callable[[Any, Any], Any]) -> None:
        try:
            self.model, self.optimizer = copy.deepcopy((model, optimizer))
        except Exception as error:  # whatever a module of the user's own raises
            raise TypeError(
                f"compare_every and shadow train a copy of the model, and this one cannot be copied ({said(error)}); "
                "leave them out"
            ) from error
        self.loss = loss
        named = self.model.named_parameters()
        self.places = Places((name, tensor) for name, tensor in named if tensor.requires_grad)
        self.dtype = torch.float64 if any(t.dtype == torch.float64 for _, t, _, _ in self.places) else torch.float32

    @property
    def device(self) -> Any:
        """Where the model lies."""
        return next(iter(self.places))[1].device

    @torch.no_grad()
    def begin(self, model: Any, optimizer: Any) -> None:
        """Stand where a model and its optimizer stand."""
        for own, theirs in zip(tensors_of(self.model), tensors_of(model), strict=True):
            own.copy_(theirs)
        self.optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    def follow(self, model: Any) -> None:
        """Train as a model trains, module by module."""
        for own, theirs in zip(self.model.modules(), model.modules(), strict=True):
            own.training = theirs.training

    def advance(self, ranks: Ranks, span: Sequence[Step], steps: Sequence[int], weights: Sequence[float]) -> None:
        """Take the steps of the ranks together: step t with the gradients of all that took as many, by their weights.

        A rank that took fewer adds 0, as it does to a mean update. Settings are those of the first rank that took most.
        Random numbers are drawn: what they are drawn from is to be put aside.
        """
        leader = list(steps).index(max(steps))
        told = ranks.everyone(_brief(span) if ranks.rank == leader else [])[leader]
        total = torch.zeros(self.places.size + len(self.places), dtype=self.dtype, device=self.device)
        own = steps[ranks.rank] if weights[ranks.rank] else 0
        for t, settings in enumerate(told):
            if settings is not None:
                adopt(self.optimizer, settings)
            total.zero_()
            if t < own:
                self._gradient(span[t], weights[ranks.rank], total)
            ranks.add(total)
            self._step(total)

    def _gradient(self, step: Step, weight: float, out: Any) -> None:
        """Write this rank's part of the mean gradient, and which parameters have one."""
        if step.generators is not None:
            set_rng_state(step.generators, out.device)
        self.optimizer.zero_grad()
        with torch.enable_grad():
            mean_loss(self.loss, self.model, step.batch).backward()
        for place, (_, tensor, begin, end) in enumerate(self.places):
            if tensor.grad is not None:
                torch.mul(tensor.grad.to(out.dtype), weight, out=out[begin:end].view(tensor.shape))
                out[self.places.size + place] = 1.0

    def _step(self, total: Any) -> None:
        """Step with a mean gradient; a parameter that has one in no rank has none, as in DistributedDataParallel."""
        there = total[self.places.size :].tolist()
        for (_, tensor, begin, end), n_ranks in zip(self.places, there, strict=True):
            tensor.grad = total[begin:end].view(tensor.shape).to(tensor.dtype) if n_ranks else None
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def mean_loss(loss: Callable[[Any, Any], Any], model: Any, batch: Any) -> Any:
    """Return the loss of a batch, a tensor of one number; that of a training model has a gradient.

    Examples
    --------
    >>> mean_loss(lambda model, batch: 0.5, torch.nn.Linear(1, 1), None)
    Traceback (most recent call last):
    TypeError: loss(model, batch) must return the mean loss, a tensor of one number with a gradient; got 0.5
    """
    try:
        value = loss(model, batch)
    except Exception as error:
        error.add_note("this came of loss(model, batch), which compare_every and shadow call with a copy of the model")
        raise
    lone = isinstance(value, torch.Tensor) and value.numel() == 1
    if not lone or (torch.is_grad_enabled() and not value.requires_grad):
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) and not lone else repr(value)
        raise TypeError(
            f"loss(model, batch) must return the mean loss, a tensor of one number with a gradient; got {got}"
        )
    return value


def tensors_of(model: Any) -> list[Any]:
    """Return parameters and buffers, tied ones once."""
    return [*model.parameters(), *model.buffers()]


def _brief(span: Sequence[Step]) -> list[Settings | None]:
    """Return the settings of steps, None where they are those of the step before."""
    before = [None, *(step.settings for step in span)]
    return [None if step.settings == last else step.settings for step, last in zip(span, before, strict=False)]
