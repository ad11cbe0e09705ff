"""Progress of many cells: a bar on a terminal, a few lines in a log, and a clean stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from localgd.report import text
from localgd.report.progress import Listener

SHOWN = 60
"""Most letters of what is running."""


class Bar(Listener):
    """Show cells on standard error and note Ctrl-C and SIGTERM in `interrupted`."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
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
        self._alone = False

    def __exit__(self, *fault: object) -> None:
        """Take the bar away, and listen no more."""
        self._bar.stop()
        super().__exit__(*fault)

    def begin(self, n_cells: int, n_kept: int) -> None:
        """Say how much there is to do, and start the bar."""
        self.say(f"{text.counted(n_cells, 'cell')}, {f'{n_kept:,} of them' if n_kept else 'none'} kept from before")
        self._task = self._bar.add_task("starting", total=n_cells, completed=n_kept)
        self._bar.start()

    def running(self, names: Sequence[str], *, alone: bool = False) -> None:
        """Show what is being measured; `alone`, in this very process, it is given up if a signal comes."""
        self._alone = alone
        line = "; ".join(names)
        self._bar.update(self._task, description=line if len(line) <= SHOWN else f"{line[:SHOWN]}…")

    def advance(self) -> None:
        """One more cell is done."""
        self._bar.advance(self._task)

    def _asked_to_end(self, number: int) -> bool:
        orderly = super()._asked_to_end(number)
        if self._alone:
            raise KeyboardInterrupt
        return orderly
