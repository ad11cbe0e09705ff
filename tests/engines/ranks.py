"""Start processes as torchrun does, none of which outlives its time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """How a process ended; -9 if it was killed or its time was up."""

    code: int
    output: str


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def in_ranks(world: int, arguments: list[str], *, seconds: float = 120.0, until: set[int] | None = None) -> list[Ended]:
    """Run ``python ARGUMENTS`` as every one of `world` ranks; wait for those of `until` only, and end the others."""
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    begin = time.monotonic()
    codes: dict[int, int] = {}
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(world)]
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        rooms = [own / f"{rank}" for rank in range(world)]  # of one for all, pytests would tidy up each other's
        for room in rooms:
            room.mkdir()
        started = [
            subprocess.Popen(
                [sys.executable, *arguments],
                env={**environment, "RANK": str(rank), "PYTEST_DEBUG_TEMPROOT": f"{rooms[rank]}"},
                stdout=files[rank],
                stderr=subprocess.STDOUT,
                cwd=TESTS.parent,
            )
            for rank in range(world)
        ]
        try:
            while not (until or set(range(world))) <= codes.keys() and time.monotonic() - begin < seconds:
                time.sleep(0.02)
                for rank, process in enumerate(started):
                    if process.poll() is not None:
                        codes.setdefault(rank, process.returncode)
        finally:
            for process in started:
                process.kill()
                process.wait()
        out = []
        for rank, file in enumerate(files):
            file.seek(0)
            out.append(Ended(codes.get(rank, -9), file.read()))
    return out
