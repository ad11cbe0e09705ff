"""What a sync of a network costs beside a bare all-reduce of its parameters, over the ranks of torchrun.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/syncs.py [PARAMETERS]

Seconds are medians of turns, ranks waiting for each other before each; bytes are those a rank gives to sums.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from localgd import torch_processes
from localgd.nets import LocalSGD, average, diloco

TURNS = 9

WAYS: dict[str, dict[str, Any]] = {
    "average": {"outer": average()},
    "diloco": {"outer": diloco()},
    "int8": {"compress": "int8"},
    "int4": {"compress": "int4"},
}


def network(size: int) -> nn.Module:
    """Return linear layers with about so many parameters."""
    return nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(max(1, round(size / 1.001e6)))))


def median(do: Callable[[], Any]) -> float:
    """Return the median of the seconds that it takes, the first turn apart."""
    seconds = []
    for _ in range(TURNS + 1):
        dist.barrier()
        begin = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def row(name: str, model: nn.Module, bare: float, n_bytes: int) -> str:
    """Return a line of the table."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    local = LocalSGD(model, optimizer, sync_every=1, optimizer_state="keep", **WAYS[name])
    seconds = median(lambda: local.step(1))
    last = local.history[-1]
    phases = " | ".join(f"{1e3 * last.seconds[phase]:.0f}" for phase in ("pack", "wire", "apply"))
    return f"| {name} | {1e3 * seconds:.0f} | {seconds / bare:.2f} | {phases} | {last.bytes_up / n_bytes:.4f} |"


def main() -> None:
    """Print the table, in rank 0."""
    with torch_processes() as (rank, world):
        model = network(int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**7)
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
        bare = median(lambda: dist.all_reduce(flat))
        lines = [row(name, model, bare, flat.nbytes) for name in WAYS]
        if rank == 0:
            print(f"{flat.numel()} parameters, {world} ranks; a bare all-reduce takes {1e3 * bare:.0f} ms")
            print("| sync | ms | bare ones | pack, ms | wire, ms | apply, ms | bytes of a bare one |")
            print("|---|---|---|---|---|---|---|")
            print("\n".join(lines))


if __name__ == "__main__":
    main()
