"""What goes on beside a run if it is asked for: a comparison at some syncs, and a synchronous run as its shadow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sized
from inspect import signature
from typing import Any

from localgd.errors import check_flag, check_kind, check_whole, extra
from localgd.nets.checkpoint import rng_state
from localgd.nets.compare import against
from localgd.nets.exchange import Reached
from localgd.nets.ranks import Ranks
from localgd.nets.record import Against, Distance
from localgd.nets.shadow import Shadow
from localgd.nets.twin import Settings, Step, Twin, aside, settings_of

with extra("torch", "torch"):
    import torch
    from torch import nn

Loss = Callable[[Any, Any], Any]

LOSS = "a function of a model and a batch that returns the mean loss: lambda model, batch: f(model(batch[0]), batch[1])"
"""What a loss is to be, in words."""


class Beside:
    """Keeps the batches between two syncs, where they are needed, and trains copies of the model on them.

    Nothing that the run computes depends on it: it draws its own random numbers, and has its own gradients and buffers.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        ranks: Ranks,
        *,
        loss: Loss | None,
        compare_every: int | None,
        shadow: bool,
        probe: Any,
        other: Iterable[Any] | None,
        rules: Mapping[str, str],
    ) -> None:
        self.model, self.optimizer, self.ranks, self.every = model, optimizer, ranks, compare_every
        self.twin = Twin(model, optimizer, loss) if loss and compare_every else None
        self.shadow: Shadow | None = None
        if loss and shadow:
            self.shadow = Shadow(model, optimizer, loss, ranks, rules=rules, probe=probe, other=other)
        self._due = False
        self._span: list[Step] = []
        self._settings = list[Settings]()
        self._seen: Any = None

    def start(self, anchor: Any, number: int) -> None:
        """Begin, where all ranks have the same model; `anchor` holds what is trained, before a sync moves it."""
        self.anchor = anchor
        if self.shadow is not None:
            self.shadow.start(self.model, self.optimizer)
        if self.twin is not None or self.shadow is not None:
            self._seen = self.optimizer.register_step_pre_hook(self._see)
        self.begin(number)

    def _see(self, optimizer: Any, args: Any, options: Any) -> None:  # noqa: ARG002  what torch calls a hook with
        """Notice the settings that a step is taken with: a schedule may change them before it is counted."""
        self._settings.append(settings_of(optimizer))

    @property
    def _keeps(self) -> bool:
        return self._due or self.shadow is not None

    def begin(self, number: int) -> None:
        """Begin the steps that lead to this sync, at the anchor."""
        self._span = []
        self._due = self.every is not None and (number + 1) % self.every == 0
        if self._due and self.twin is not None:
            self.twin.begin(self.model, self.optimizer)
        self._mark()

    def _mark(self) -> None:
        self._settings.clear()
        self._generators = rng_state(self.anchor.device) if self._keeps else None

    def keep(self, batch: Any) -> None:
        """Keep a step of this rank: a copy of its batch, its settings, and where random numbers stood."""
        if not self._keeps:
            return
        if batch is None or isinstance(batch, int):
            raise ValueError(
                f"compare_every and shadow train on the same batches: local.step((x, y)), got {batch!r} for a batch"
            )
        if len(self._settings) != 1:
            raise ValueError(
                f"the optimizer that LocalSGD was given made {len(self._settings) or 'no'} steps since the last "
                "local.step(), and compare_every and shadow take one for each: call local.step(batch) once, after each "
                "optimizer.step(), and give batches whose gradients are added up as one; or leave them out"
            )
        self._span.append(Step(copy.deepcopy(batch), self._settings[0], self._generators))
        for twin in self._twins:
            twin.follow(self.model)
        self._mark()

    @property
    def _twins(self) -> list[Twin]:
        own = [self.twin] if self.twin is not None and self._due else []
        return own if self.shadow is None else [*own, self.shadow.same, self.shadow.others]

    def meanwhile(self, reached: Reached) -> Against | None:
        """Take the ranks' steps synchronously, before the sync moves anything; return what the comparison found."""
        if not (self._keeps and any(reached.steps)):
            return None
        with aside(self.anchor.device):
            if self.shadow is not None:
                self.shadow.advance(self._span, reached.steps, reached.weights)
            if self.twin is None or not self._due:
                return None
            self.twin.advance(self.ranks, self._span, reached.steps, reached.weights)
        return against(self.twin.places, self.anchor, reached.total, reached.factor)

    def distance(self, *, full: bool = False) -> Distance | None:
        """Return how far the run is from its shadow, if it has one."""
        if self.shadow is None:
            return None
        with aside(self.anchor.device):
            return self.shadow.in_full(self.model) if full else self.shadow.distance(self.model)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {} if self.shadow is None else self.shadow.state()

    def load(self, state: Mapping[str, Any], number: int) -> None:
        """Go on from what a checkpoint kept, before this sync."""
        if self.shadow is not None:
            if not state:
                raise ValueError("the checkpoint is of a run without a shadow; go on without, or begin with one")
            self.shadow.load(state)
        self.begin(number)

    def close(self) -> None:
        """Leave the optimizer as it was found."""
        if self._seen is not None:
            self._seen.remove()


def check_asked(loss: Any, compare_every: Any, *, shadow: Any, probe: Any, other: Any) -> None:
    """Refuse what cannot be done, or means nothing: before a `Beside` is made."""
    check_flag("shadow", shadow)
    if compare_every is not None:
        check_whole("compare_every", compare_every, 1)
    if loss is not None:
        _check_loss(loss)
    wanted = "compare_every" if compare_every is not None else "shadow" if shadow else ""
    if wanted and loss is None:
        raise ValueError(f"{wanted} trains a copy of the model, and needs loss=f(model, batch), and step(batch)")
    if loss is not None and not wanted:
        raise ValueError("loss is for compare_every and shadow; ask for one of them, or leave it out")
    if not shadow and (probe is not None or other is not None):
        raise ValueError(f"{'other' if probe is None else 'probe'} is for shadow=True; ask for it, or leave it out")
    if other is not None:
        check_kind("other", other, "__iter__", "an iterable of batches, such as a loader with another seed")
        if isinstance(other, str | bytes | torch.Tensor | Mapping):
            raise TypeError(f"other must be an iterable of batches, and a {type(other).__name__} is none")
        if isinstance(other, Sized) and not len(other):
            raise ValueError("other holds no batch; give a loader that has some, or leave it out")


def _check_loss(loss: Any) -> None:
    """Refuse what is no function of a model and a batch, as far as its name and its signature tell."""
    check_kind("loss", loss, "__call__", f"{LOSS}")
    name = getattr(loss, "__name__", type(loss).__name__)
    if isinstance(loss, nn.Module) or getattr(loss, "__module__", "") == nn.functional.__name__:
        raise TypeError(f"loss must be {LOSS}; got {name}, which takes what a model says and targets")
    try:
        parameters = signature(loss)
    except (TypeError, ValueError):  # of what is not written in Python nothing is known
        return
    try:
        parameters.bind(None, None)
    except TypeError as error:
        raise TypeError(f"loss must be {LOSS}; {name}{parameters} does not take two ({error})") from error


def check_copied(optimizer: Any) -> None:
    """Refuse an optimizer whose steps a copy cannot take from gradients alone, or does not tell of.

    Examples
    --------
    >>> check_copied(torch.optim.LBFGS([torch.zeros(2)]))
    Traceback (most recent call last):
    ValueError: compare_every and shadow step with a gradient that is there, and the step of LBFGS needs a closure ...
    """
    name = type(optimizer).__name__
    needed = [each for each in signature(optimizer.step).parameters.values() if each.default is each.empty]
    if any(each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in needed):
        raise ValueError(
            f"compare_every and shadow step with a gradient that is there, and the step of {name} needs a closure that "
            "makes it anew; leave them out, or take another optimizer"
        )
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise ValueError(
            f"compare_every and shadow look at every step, and {name}, which has no hooks, does not tell of them; give "
            "the optimizer that it wraps"
        )
