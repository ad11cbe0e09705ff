"""What goes on beside a run if it is asked for: a comparison at some syncs, and a synchronous run as its shadow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from localgd.errors import check_flag, check_kind, check_whole
from localgd.nets.checkpoint import rng_state
from localgd.nets.compare import against
from localgd.nets.exchange import Reached
from localgd.nets.ranks import Ranks
from localgd.nets.record import Against, Distance
from localgd.nets.shadow import Shadow
from localgd.nets.twin import Settings, Step, Twin, aside, settings_of

Loss = Callable[[Any, Any], Any]


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
        check_asked(loss, compare_every, shadow=shadow, probe=probe, other=other)
        self.model, self.optimizer, self.ranks, self.every = model, optimizer, ranks, compare_every
        self.twin = Twin(model, optimizer, loss) if loss and compare_every else None
        self.shadow: Shadow | None = None
        if loss and shadow:
            self.shadow = Shadow(model, optimizer, loss, ranks, rules=rules, probe=probe, other=other)
        self._due = False
        self._span: list[Step] = []
        self._settings: Settings | None = None
        self._seen: Any = None

    def start(self, anchor: Any, number: int) -> None:
        """Begin, where all ranks have the same model; `anchor` holds what is trained, before a sync moves it."""
        self.anchor = anchor
        if self.shadow is not None:
            self.shadow.start(self.model, self.optimizer)
        if self.twin is not None or self.shadow is not None:
            check_kind("optimizer", self.optimizer, "register_step_pre_hook", "a torch.optim.Optimizer")
            self._seen = self.optimizer.register_step_pre_hook(self._see)
        self.begin(number)

    def _see(self, optimizer: Any, args: Any, options: Any) -> None:  # noqa: ARG002  what torch calls a hook with
        """Notice the settings that a step is taken with: a schedule may change them before it is counted."""
        self._settings = settings_of(optimizer)

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
        self._settings = None
        self._generators = rng_state(self.anchor.device) if self._keeps else None

    def keep(self, batch: Any) -> None:
        """Keep a step of this rank: a copy of its batch, its settings, and where random numbers stood."""
        if not self._keeps:
            return
        if batch is None or isinstance(batch, int):
            raise ValueError(
                f"compare_every and shadow train on the same batches: local.step((x, y)), got {batch!r} for a batch"
            )
        settings = self._settings or settings_of(self.optimizer)
        self._span.append(Step(copy.deepcopy(batch), settings, self._generators))
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
    """Refuse what cannot be done, or means nothing."""
    check_flag("shadow", shadow)
    if compare_every is not None:
        check_whole("compare_every", compare_every, 1)
    if loss is not None:
        check_kind("loss", loss, "__call__", "a function of a model and a batch that returns the mean loss")
    wanted = "compare_every" if compare_every is not None else "shadow" if shadow else ""
    if wanted and loss is None:
        raise ValueError(f"{wanted} trains a copy of the model, and needs loss=f(model, batch), and step(batch)")
    if loss is not None and not wanted:
        raise ValueError("loss is for compare_every and shadow; ask for one of them, or leave it out")
    if not shadow and (probe is not None or other is not None):
        raise ValueError(f"{'other' if probe is None else 'probe'} is for shadow=True; ask for it, or leave it out")
    if other is not None:
        check_kind("other", other, "__iter__", "an iterable of batches, such as a loader with another seed")
