"""What a sync of a network costs beside a bare all-reduce of its parameters, over the ranks of torchrun.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/syncs.py [PARAMETERS] [--passes]

Seconds are medians of turns, ranks waiting for each other before each; bytes are those a rank gives to sums. With
`--passes`, the memory that a sync touches beside the sum is counted, in sizes of the parameters: by operator, every one
of which visits its tensors once; what of that is not in a cache of 2 MiB (simulated, last used last out); and how often
the parameters themselves come into it.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from localgd import torch_processes
from localgd.nets import LocalSGD, average, diloco

TURNS = 9

BLOCK, CACHE = 4096, 2**21
"""Bytes of a block of memory, and of the cache."""

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


class Traffic(TorchDispatchMode):
    """Counts what operators read and write, by their tensors' addresses."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.own = {block for tensor in tensors for block in blocks_of(tensor)}
        self.size = sum(tensor.nbytes for tensor in tensors)
        self.touched = self.missed = self.walked = 0
        self.cache: OrderedDict[int, None] = OrderedDict()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note the memory of all tensors that it is given or makes; a view touches nothing."""
        out = func(*args, **(kwargs or {}))
        if func.is_view or "c10d" in func.namespace:
            return out
        tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, torch.Tensor)]
        touched = {block for tensor in tensors for block in blocks_of(tensor)}
        self.touched += BLOCK * len(touched)
        for block in touched:
            if block not in self.cache:
                self.missed += BLOCK
                self.walked += BLOCK * (block in self.own)
            self.cache[block] = None
            self.cache.move_to_end(block)
            if len(self.cache) > CACHE // BLOCK:
                self.cache.popitem(last=False)
        return out


def blocks_of(tensor: torch.Tensor) -> range:
    """Return the blocks of memory that a contiguous tensor lies in."""
    begin = tensor.data_ptr()
    return range(begin // BLOCK, -(-(begin + tensor.nbytes) // BLOCK)) if tensor.nbytes >= BLOCK else range(0)


def passes(name: str, model: nn.Module) -> str:
    """Return a line of the table of what operators touch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    local = LocalSGD(model, optimizer, sync_every=1, optimizer_state="keep", **WAYS[name])
    local.step(1)
    traffic = Traffic([parameter.detach() for parameter in model.parameters()])
    with traffic:
        local.step(1)
    numbers = (traffic.touched, traffic.missed, traffic.walked)
    return f"| {name} | " + " | ".join(f"{number / traffic.size:.2f}" for number in numbers) + " |"


def main() -> None:
    """Print the table, in rank 0."""
    options = argparse.ArgumentParser()
    options.add_argument("parameters", type=float, nargs="?", default=1e7)
    options.add_argument("--passes", action="store_true")
    given = options.parse_args()
    with torch_processes() as (rank, world):
        model = network(int(given.parameters))
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
        bare = median(lambda: dist.all_reduce(flat))
        lines = [row(name, model, bare, flat.nbytes) for name in WAYS]
        if rank == 0:
            print(f"{flat.numel()} parameters, {world} ranks; a bare all-reduce takes {1e3 * bare:.0f} ms")
            print("| sync | ms | bare ones | pack, ms | wire, ms | apply, ms | bytes of a bare one |")
            print("|---|---|---|---|---|---|---|")
            print("\n".join(lines))
        if given.passes:
            counted = [passes(name, model) for name in ("average", "diloco")]
            if rank == 0:
                print("| sync | by operators | not in the cache | the parameters |")
                print("|---|---|---|---|")
                print("\n".join(counted))


if __name__ == "__main__":
    main()
