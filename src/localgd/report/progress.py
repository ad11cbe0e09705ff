"""Live progress of a run: one line on a terminal, a few lines in a log."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console

from localgd.certify import Certificate
from localgd.report import text
from localgd.train import Row


class Progress:
    """Show rounds on standard error and turn Ctrl-C into a clean stop after the round.

    Parameters
    ----------
    quiet : bool
        Show nothing (Ctrl-C still stops cleanly).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._status: Any = None
        self._before: Any = None
        self._next = 1
        self.interrupted = False

    def __enter__(self) -> Self:
        """Take over Ctrl-C."""
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)
        if self._status is not None:
            self._status.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def restart(self) -> None:
        """Begin counting rounds again, for a further run."""
        self._next = 1

    def on_round(self, row: Row, certificate: Certificate) -> bool:  # noqa: ARG002  the signature of train's callback
        """Show the round; return whether the user wants to stop."""
        line = text.progress(row)
        if self._status is not None:
            self._status.update(line)
        if row.round >= self._next:  # rounds 1, 2, 5, 10, 20, 50, … stay on the screen
            self.say(line)
            while self._next <= row.round:
                self._next = self._next * 5 // 2 if str(self._next)[0] == "2" else self._next * 2
        return self.interrupted

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature of a handler
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.say("interrupted: finishing this round (press again to stop at once)")
