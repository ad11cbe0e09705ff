"""Live progress of a run: one line on a terminal, a few lines in a log."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

from rich.console import Console

from localgd.core import Failure
from localgd.report import text
from localgd.run.history import RoundInfo

AGAIN_SECONDS = 0.5
"""A second signal this soon is the same one: a terminal tells torchrun and its workers, torchrun tells them again."""


class Patient(Console):
    """A console that falls silent, rather than ending the program, when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Go on without a reader: no reason to lose the run."""
        self.quiet = True


class Listener:
    """Print lines on standard error, and note Ctrl-C and SIGTERM in `interrupted`, the number of the signal, or None.

    Parameters
    ----------
    quiet : bool
        Show nothing (signals are still noted).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Patient(stderr=True, highlight=False, quiet=quiet)
        self._before: dict[int, Any] = {}
        self.interrupted: int | None = None

    def __enter__(self) -> Self:
        """Take over Ctrl-C and the polite request to end that schedulers send."""
        self._before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Give both back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        self.interrupted = number


class Progress(Listener):
    """Show rounds on standard error and turn Ctrl-C and SIGTERM into a clean stop after the round."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._status: Any = None
        self._next = 1
        self._told = 0
        self._pressed = 0.0

    def __enter__(self) -> Self:
        """Listen, and show what is going on if there is a terminal."""
        super().__enter__()
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *fault: object) -> None:
        """Listen no more."""
        super().__exit__(*fault)
        if self._status is not None:
            self._status.stop()

    def say(self, line: str) -> None:
        """Print a line, and show it as what is going on."""
        super().say(line)
        if self._status is not None:
            self._status.update(line)

    def failures(self, found: Sequence[Failure]) -> None:
        """Say which nodes failed since this was last asked; after ten, every hundredth."""
        while self._told < len(found):
            failure = found[self._told]
            self._told += 1
            if self._told <= 10 or self._told % 100 == 0:
                self.say(f"round {failure.round}: node {failure.node_id!r} {failure.outcome}: {failure.error}")

    def restart(self) -> None:
        """Begin counting rounds again, for a further run."""
        self._next = 1

    def on_round(self, info: RoundInfo) -> bool:
        """Show the round; return whether the user wants to stop."""
        row = info.row
        line = text.progress(row, info.certificate)
        if self._status is not None:
            self._status.update(line)
        if row.round >= self._next:  # rounds 1, 2, 5, 10, 20, 50, … stay on the screen
            self.say(line)
            while self._next <= row.round:
                self._next = self._next * 5 // 2 if str(self._next)[0] == "2" else self._next * 2
        return self.interrupted is not None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  as above
        now = time.monotonic()
        if self.interrupted is not None:
            if now - self._pressed < AGAIN_SECONDS:
                return
            raise KeyboardInterrupt
        self.interrupted, self._pressed = number, now
        self.say("interrupted: finishing this round (press again to stop at once)")
