"""Ctrl-C and SIGTERM, answered within a second, whatever the program is at.

Python hands a signal to the main thread between two of its own steps, so a library that computes for long keeps it
waiting. A second thread hears of it at once: if the main thread does not answer, this one does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from localgd.run.whole import discard_begun

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE_SECONDS = 0.25
"""How long the main thread may take to answer, and again to end; two of them are less than a second."""


class Interrupts:
    """What a process does when it is asked to end: it stops at once, or lets those who can end in order.

    Attributes
    ----------
    number : int or None
        The signal by which it is being stopped at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._orderly: list[Callable[[int], bool]] = []
        self._depth = 0
        self._noticed = threading.Event()
        self._answered_for_main = False

    @contextmanager
    def answered(self, orderly: Callable[[int], bool] | None = None) -> Iterator[None]:
        """Answer both signals in here, by KeyboardInterrupt in the main thread, or by the end of the process.

        `orderly` is asked first, by the number of the signal: it returns True if it has answered, and all will come to
        an end by itself. What may be nested is, and the innermost is asked. Outside the main thread nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._orderly += [orderly] if orderly else []
        try:
            if self._depth:
                yield
            else:
                with self._listening():
                    yield
        finally:
            if orderly:
                self._orderly.pop()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        self.number, self._depth = None, 1
        done = threading.Event()
        ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        before: dict[int, Any] = {number: signal.signal(number, self._in_main) for number in SIGNALS}
        unraised = sys.unraisablehook
        sys.unraisablehook = lambda fault: None if self._swallowed(fault) else unraised(fault)
        told_before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        watch = threading.Thread(target=self._watch, args=(ear, done), daemon=True, name="interrupts")
        watch.start()
        try:
            yield
        finally:
            done.set()
            sys.unraisablehook = unraised
            signal.set_wakeup_fd(told_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            mouth.close()  # the watch reads to the end
            watch.join()
            ear.close()
            self._depth = 0

    def _swallowed(self, fault: Any) -> bool:
        """Return whether this is our own interrupt, where Python cannot raise one: the watch ends the process then."""
        return self.number is not None and issubclass(fault.exc_type, KeyboardInterrupt)

    def _stops(self, number: int) -> bool:
        """Return whether the process is to stop at once."""
        return not (self._orderly and self._orderly[-1](number))

    def _in_main(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        if self._answered_for_main:
            self._answered_for_main = False
            return
        try:
            if self.number is None and self._stops(number):
                self.number = number
                raise KeyboardInterrupt
        finally:
            self._noticed.set()

    def _watch(self, ear: socket.socket, done: threading.Event) -> None:
        while told := ear.recv(1):
            number = told[0]
            if number not in SIGNALS:
                continue
            noticed = self._noticed.wait(PATIENCE_SECONDS)
            self._noticed.clear()
            if done.is_set():
                return
            if not noticed and self.number is None:  # the main thread is in the middle of something
                self._answered_for_main = True
                with suppress(KeyboardInterrupt):
                    if not self._stops(number):
                        continue
                self.number = number
            if self.number is not None and not done.wait(PATIENCE_SECONDS if noticed else 0):
                _end(self.number)


def _end(number: int) -> None:
    """End the process, which is in the middle of something, without another word of it."""
    discard_begun()
    cursor = b"\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else b""  # a spinner hides it
    os.write(2, cursor + b"interrupted\n")  # whoever holds the streams of Python may never let them go
    os._exit(128 + number)


INTERRUPTS = Interrupts()
"""Those of this process."""
