"""What a round over torch.distributed costs beyond the bare all-reduce of the same numbers.

    OMP_NUM_THREADS=1 python benchmarks/torch_overhead.py [--world 2]

Every rank holds one node, whose report is one vector as long as the model and whose work is nothing, so that what is
left is the engine. Bare all-reduces and rounds take turns in the same processes. Memory is the peak resident size of a
rank over some rounds, with the model that they make, above what it held before the first model; in vectors.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from localgd import Message, Report, Shard, TorchDistributed, torch_processes
from localgd.core import Field, Schema
from localgd.rounding import read_only

BLOCK = 5
"""All-reduces, or rounds, timed in one go: as in a run, ranks wait for each other nowhere else."""


@dataclass(frozen=True)
class Vector:
    """Report the model that was sent, or one vector more."""

    fresh: bool

    def schema(self, message: Message) -> Schema:
        """Return a vector and two numbers."""
        return {"step": Field("sum", message.w.shape), "loss": Field("sum"), "margin": Field("min")}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the model itself, which costs nothing, or a step from it."""
        step = read_only(message.w + 1.0) if self.fresh else message.w
        return Report(1, shard.n_rows, {"step": step, "loss": 1.0}, mins={"margin": 0.5}), state


def milliseconds(d: int, engine: TorchDistributed, repeats: int) -> list[float]:
    """Return the medians of a bare all-reduce, of a round, and of their ratio, with its quartiles; in turns."""
    bare, rounds = [], []
    numbers = torch.zeros(d, dtype=torch.float64)
    message = Message(0, read_only(np.zeros(d)))
    for _ in range(repeats + 1):
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(BLOCK):
            dist.all_reduce(numbers)
        middle = time.perf_counter()
        for _ in range(BLOCK):
            engine.round(Vector(fresh=False), message)
        bare.append(middle - begin)
        rounds.append(time.perf_counter() - middle)
    # The first block connects, and settles the layout. Neighbours in time are compared: machines have slow minutes.
    took = 1e3 * np.array([bare[1:], rounds[1:]]) / BLOCK
    return [*np.median(took, axis=1), *np.quantile(took[1] / took[0], [0.5, 0.25, 0.75])]


def status(name: str) -> int:
    """Return a size of this process in bytes, as Linux tells it."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def peak_vectors(d: int, engine: TorchDistributed) -> tuple[float, float]:
    """Return the most vectors that this rank held at once: of bare all-reduces, and of rounds with their models."""
    peaks = []
    for bare in (True, False):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        if bare:
            numbers = torch.ones(d, dtype=torch.float64)
            for _ in range(5):
                dist.all_reduce(numbers)
            del numbers
        else:
            w = read_only(np.ones(d))
            for k in range(5):
                report = engine.round(Vector(fresh=True), Message(k, w))
                w = read_only(report.sums["step"] / report.n_nodes)
                del report  # as `train` lets go of it
        peaks.append((status("VmHWM") - before) / (8 * d))
    return peaks[0], peaks[1]


def rank_of(part: str) -> None:
    """Measure, as one of the ranks."""
    with torch_processes() as (rank, _):
        engine = TorchDistributed([Shard(f"node-{rank}", [[1.0]])])
        for d in (10, 10**4, 10**5, 10**6, 4 * 10**6) if part == "time" else (10**5, 10**6, 4 * 10**6):
            if part == "time":
                bare, whole, ratio, low, high = milliseconds(d, engine, 60)
                line = f"{d:>9} {bare:>9.2f} ms {whole:>9.2f} ms {ratio:>6.2f} {low:>6.2f} to {high:.2f}"
            else:
                bare, whole = peak_vectors(d, engine)
                line = f"{d:>9} {bare:>9.2f}    {whole:>9.2f}"
            if rank == 0:
                print(line, flush=True)


def in_ranks(world: int, part: str) -> int:
    """Measure in as many ranks, started as torchrun would; return the worst exit code."""
    place = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    # What is freed goes back to the system at once, for its count to tell what is held.
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536"} if part == "memory" else {}
    command = [sys.executable, __file__, "--part", part]
    ranks = [subprocess.Popen(command, env={**place, **freed, "RANK": str(rank)}) for rank in range(world)]  # noqa: S603
    try:
        return max(rank.wait(timeout=600) for rank in ranks)
    finally:
        for rank in ranks:
            rank.kill()


def main() -> None:
    """Start the ranks, as torchrun would."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=int, default=2, help="ranks, on this machine")
    parser.add_argument("--part", choices=["time", "memory"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if "RANK" in os.environ:
        rank_of(given.part)
        return
    print(f"{given.world} ranks, time of one call")
    print(f"{'d':>9} {'bare':>12} {'round':>12} {'ratio':>6} {'quartiles':>14}", flush=True)
    code = in_ranks(given.world, "time")
    print(f"\npeak memory of a rank, in vectors\n{'d':>9} {'bare':>9} {'round':>12}", flush=True)
    sys.exit(max(code, in_ranks(given.world, "memory")))


if __name__ == "__main__":
    main()
