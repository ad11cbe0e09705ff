"""Where this process stands among those that run the same command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

KINDS: tuple[type[Exception], ...] = (FileExistsError, FileNotFoundError, OSError, ValueError)
"""Errors that mean something to the command line."""


class ProcessGroup(NamedTuple):
    """The number of this process, from 0, of how many; and what tells all of them what process 0 knows."""

    rank: int
    world: int
    shared: Callable[[bytes], bytes]

    def first(self, do: Callable[[], bytes | None]) -> bytes:
        """Do something in process 0 only, and give all of them what came of it.

        Raises
        ------
        OSError, ValueError
            In all processes, what it raised in process 0.
        """
        found, trouble = b"", None
        if self.leads:
            try:
                found = do() or b""
            except (OSError, ValueError) as error:
                trouble = error
        kind = next((kind for kind in KINDS if isinstance(trouble, kind)), None)
        told = self.shared(json.dumps([kind and kind.__name__, str(trouble)]).encode() + b"\n" + found)
        if trouble is not None:
            raise trouble
        head, _, found = told.partition(b"\n")
        name, said = json.loads(head)
        if name is not None:
            raise next(kind for kind in KINDS if kind.__name__ == name)(said)
        return found

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


def of_torch(engine: str | None) -> bool:
    """Return whether this is a process of torch: torchrun started it, or it is to be so."""
    return engine == "torch" or (engine is None and "TORCHELASTIC_RUN_ID" in os.environ)


@contextmanager
def process_group(engine: str | None, timeout: float | None) -> Iterator[ProcessGroup]:
    """Join the other processes, if this is one of torch, and leave them at the end."""
    if not of_torch(engine):
        if timeout is not None:
            raise ValueError("--timeout is for the processes of torch, and nobody is waited for here; leave it out")
        yield ProcessGroup(0, 1, bytes)
        return
    from localgd.engine.processes import TIMEOUT, Processes, torch_processes

    timeout = TIMEOUT if timeout is None else timeout
    try:
        with torch_processes(timeout=timeout) as (rank, world):
            yield ProcessGroup(rank, world, Processes(timeout).first)
    except RuntimeError as error:
        if "RANK" in os.environ:
            raise
        raise ValueError(f"--engine torch: {error}") from error
