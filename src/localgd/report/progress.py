"""Live progress of a run: one line on a terminal, a few lines in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from rich.console import Console

from localgd.core import Failure
from localgd.report import text
from localgd.report.interrupts import INTERRUPTS
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

    What is found out, and not just what goes on, is kept in `notes`, printed or not.

    Parameters
    ----------
    quiet : bool
        Show nothing (signals are still noted).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Patient(stderr=True, highlight=False, quiet=quiet)
        self._hold = ExitStack()
        self._pressed = 0.0
        self.interrupted: int | None = None
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        """Take over Ctrl-C and the polite request to end that schedulers send."""
        self._hold.enter_context(INTERRUPTS.answered(self._asked_to_end))
        return self

    def __exit__(self, *_: object) -> None:
        """Give both back."""
        self._hold.close()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a line, and keep it."""
        self.say(line)
        self.notes.append(line)

    def _asked_to_end(self, number: int) -> bool:
        """Note a signal; return whether all comes to an end by itself now, which it does unless asked again."""
        now, again = time.monotonic(), self.interrupted is not None
        if again:
            return now - self._pressed < AGAIN_SECONDS
        self.interrupted, self._pressed = number, now
        return True


class Progress(Listener):
    """Show rounds on standard error and turn Ctrl-C and SIGTERM into a clean stop after the round."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._status: Any = None
        self._told = 0
        self._next = 1
        self._n_rounds: int | None = None
        self._since: tuple[int, float] | None = None
        self._unsaid = ""

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

    def begin(self, n_rounds: int) -> None:
        """Count rounds from here, at most so many; from now on a signal lets the round that is at work be finished."""
        self._next, self._n_rounds, self._since = 1, n_rounds, None

    def on_round(self, info: RoundInfo) -> bool:
        """Show the round; return whether the user wants to stop."""
        row = info.row
        if self._unsaid:
            self.say(self._unsaid)
            self._unsaid = ""
        line = text.progress(row, info.certificate)
        if self._status is not None:
            self._status.update(line + self._left(row.round))
        if row.round >= self._next and self.interrupted is None:  # rounds 1, 2, 5, 10, 20, 50, … stay on the screen
            self.say(line)
            while self._next <= row.round:
                self._next = self._next * 5 // 2 if str(self._next)[0] == "2" else self._next * 2
        return self.interrupted is not None

    def _left(self, round_: int) -> str:
        """Return how many rounds are left, and how long they take at most, at the pace of those since the first."""
        now = time.monotonic()
        if self._since is None:
            self._since = (round_, now)
        if self._n_rounds is None:
            return ""
        begun, then = self._since
        seconds = (now - then) / (round_ - begun) if round_ > begun else None
        return text.left(max(0, self._n_rounds - round_), seconds)

    def _asked_to_end(self, number: int) -> bool:
        if self._n_rounds is None:  # there is no round to finish
            return False
        first = self.interrupted is None
        orderly = super()._asked_to_end(number)
        if first:
            line = "interrupted: finishing this round (press again to stop at once)"
            try:
                self.say(line)
            except RuntimeError:  # the signal came in the middle of a line
                self._unsaid = line
        return orderly
