"""What stays the same from one method of a run to the one that takes over: nodes, limits, history, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from localgd.core import Engine, Task
from localgd.problems.hard_margin import Certificate, Rule, Status
from localgd.rounding import FloatArray, at_most
from localgd.run.checkpoint import Checkpoints, Found, Snapshot
from localgd.run.history import Ledger, Row


@dataclass(eq=False)
class Watch:
    """A run as a whole, whichever method is at work."""

    engine: Engine
    divisor: float
    radius: float
    rules: Sequence[Rule]
    ledger: Ledger
    limit: int
    max_seconds: float | None
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None
    on_round: Callable[[Row, Certificate], bool | None] | None
    reference: FloatArray | None
    checkpoints: Checkpoints | None
    base: Snapshot
    history: list[Row] = field(default_factory=list)
    stopping: bool = False
    saving: bool = False
    saved: tuple[int, float] = field(default_factory=lambda: (0, time.perf_counter()))
    begin: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> bool:
        """Whether no round is left, or somebody asked to stop."""
        return self.stopping or len(self.history) > self.limit

    def found(self) -> Found | None:
        """Return the checkpoint to go on from, if there is one, and take its history over.

        Raises
        ------
        ValueError
            If it is of another federation or method.
        """
        found = None if self.checkpoints is None else self.checkpoints.find(self.engine)
        if found is None:
            return None
        if found.snapshot.about != self.base.about:
            raise ValueError(
                f"the checkpoint is of another run ({found.snapshot.about}) than this one ({self.base.about}); give "
                "another folder for checkpoints, or the same data and method"
            )
        self.base = found.snapshot
        self.history += found.snapshot.rows
        self.saved = (len(self.history), self.saved[1])
        self.engine.failures[:] = found.snapshot.failures
        return found

    def hand_over(self, ended: str, shown: Certificate) -> None:
        """Note what a method has proved, and how it ended, before the next one begins."""
        earlier = shown if self.base.earlier is None else after(self.base.earlier, shown)
        self.base = replace(self.base, ended=(*self.base.ended, ended), before=len(self.history), earlier=earlier)

    def note(self, row: Row, shown: Certificate) -> None:
        """Keep a row; find out whether somebody wants to stop, and whether it is time for a checkpoint."""
        self.history.append(row)
        now = time.perf_counter()
        asked = bool(self.on_round(row, shown)) if self.on_round is not None else False
        late = self.max_seconds is not None and now - self.begin >= self.max_seconds
        due = self.checkpoints is not None and self.checkpoints.due(
            len(self.history) - self.saved[0], now - self.saved[1]
        )
        self.stopping, self.saving = self.engine.agreed(asked or late, due)

    def save(self, task: Task, snapshot: Snapshot, state: Any, session: str) -> None:
        """Write a checkpoint, if anybody wants them."""
        if self.checkpoints is not None:
            known = replace(snapshot, rows=tuple(self.history), failures=tuple(self.engine.failures))
            self.checkpoints.save(self.engine, task, known, state, session)
            self.saved = (len(self.history), time.perf_counter())


def after(earlier: Certificate, later: Certificate) -> Certificate:
    """Return the later certificate with what the earlier one proved of the same rows."""
    low, high = max(earlier.margin_low, later.margin_low), min(earlier.margin_high, later.margin_high)
    later = replace(later, margin_low=low, margin_high=high)
    if later.verdict is not Status.UNDECIDED:
        return later
    verdict = Status.NOT_SEPARABLE if earlier.verdict is Status.NOT_SEPARABLE else Status.UNDECIDED
    known = earlier.reason if verdict is Status.NOT_SEPARABLE else f"any pooled margin is at most {at_most(high)}"
    return replace(later, verdict=verdict, reason=f"{known}; {later.reason}")
