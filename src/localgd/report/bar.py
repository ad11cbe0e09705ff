"""Progress of many cells: a bar on a terminal, a few lines in a log, and a clean stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from localgd.report import text
from localgd.report.progress import Patient

SHOWN = 60
"""Most letters of what is running."""


class Bar:
    """Show cells on standard error and note Ctrl-C and SIGTERM in `interrupted`.

    Parameters
    ----------
    quiet : bool
        Show nothing (signals are still noted).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Patient(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("cells"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            speed_estimate_period=600,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None
        self._before: dict[int, Any] = {}
        self.interrupted: int | None = None

    def __enter__(self) -> Self:
        """Take over Ctrl-C and the polite request to end that schedulers send."""
        self._before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give both back."""
        self._bar.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self, n_cells: int, n_kept: int) -> None:
        """Say how much there is to do, and start the bar."""
        self.say(f"{text.counted(n_cells, 'cell')}, {f'{n_kept:,} of them' if n_kept else 'none'} kept from before")
        self._task = self._bar.add_task("starting", total=n_cells, completed=n_kept)
        self._bar.start()

    def running(self, names: Sequence[str]) -> None:
        """Show what is being measured."""
        line = "; ".join(names)
        self._bar.update(self._task, description=line if len(line) <= SHOWN else f"{line[:SHOWN]}…")

    def advance(self) -> None:
        """One more cell is done."""
        self._bar.advance(self._task)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        self.interrupted = number
