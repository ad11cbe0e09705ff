"""Where this process stands among those that run the same command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Place(NamedTuple):
    """The number of this process, from 0, of how many; and what tells all of them what process 0 knows."""

    rank: int
    world: int
    shared: Callable[[bytes], bytes]

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


@contextmanager
def place(engine: str | None, timeout: float) -> Iterator[Place]:
    """Join the other processes, if torchrun started this one or it is to be so, and leave them at the end."""
    if engine == "in-process" or (engine is None and "TORCHELASTIC_RUN_ID" not in os.environ):
        yield Place(0, 1, bytes)
        return
    from localgd.engine.processes import Processes, torch_processes  # noqa: PLC0415 - torch, an extra

    try:
        with torch_processes(timeout=timeout) as (rank, world):
            yield Place(rank, world, Processes(timeout).first)
    except RuntimeError as error:
        if "RANK" in os.environ:
            raise
        raise ValueError(f"--engine torch: {error}") from error
