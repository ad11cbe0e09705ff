"""What a sync of a network costs beside a bare all-reduce of its parameters, over the ranks of torchrun.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/syncs.py [PARAMETERS] [--turns N] [--codes]

Every way takes a turn after a bare all-reduce of its own, ranks waiting for each other before each. The table has
medians of seconds, and of their ratios turn by turn; ranks send while they pack, so the wire is what is left of a sum
by then. Bytes are those a rank gives to sums. Then comes the memory that a sync touches beside the sum, in sizes of the
parameters: by operator, every one of which visits its tensors once; what of that is not in a cache of 2 MiB (simulated,
last used last out); and how often the parameters themselves come into it.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from localgd import torch_processes
from localgd.nets import LocalSGD, average, diloco

BLOCK, CACHE = 4096, 2**21
"""Bytes of a block of memory, and of the cache."""

PHASES = ("pack", "wire", "apply")

WAYS: dict[str, dict[str, Any]] = {
    "average": {"outer": average()},
    "diloco": {"outer": diloco()},
    "int8": {"compress": "int8"},
    "int4": {"compress": "int4"},
}


def network(size: int) -> nn.Module:
    """Return linear layers with about so many parameters."""
    return nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(max(1, round(size / 1.001e6)))))


def seconds_of(do: Callable[[], Any]) -> float:
    """Return how long it takes in this rank, all of them beginning together."""
    dist.barrier()
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


def begun(name: str, model: nn.Module) -> LocalSGD:
    """Return what syncs a model after every step, in a way of this name."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return LocalSGD(model, optimizer, sync_every=1, optimizer_state="keep", **WAYS[name])


def row(name: str, local: LocalSGD, bare: list[float], synced: list[float], n_bytes: int) -> str:
    """Return a line of the table, of the turns after the first."""
    ratios = np.divide(synced, bare)[1:]
    phases = [1e3 * np.median([sync.seconds[phase] for sync in local.history[1:]]) for phase in PHASES]
    numbers = [1e3 * np.median(bare[1:]), 1e3 * np.median(synced[1:]), *phases]
    words = [f"{np.median(ratios):.2f}", f"{local.history[-1].bytes_up / n_bytes:.4f}"]
    return f"| {name} | " + " | ".join([*(f"{number:.0f}" for number in numbers), *words]) + " |"


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
    model = deepcopy(model)
    local = begun(name, model)
    local.step(1)
    traffic = Traffic([parameter.detach() for parameter in model.parameters()])
    with traffic:
        local.step(1)
    numbers = (traffic.touched, traffic.missed, traffic.walked)
    return f"| {name} | " + " | ".join(f"{number / traffic.size:.2f}" for number in numbers) + " |"


def main() -> None:
    """Print the tables, in rank 0."""
    options = argparse.ArgumentParser()
    options.add_argument("parameters", type=float, nargs="?", default=1e7)
    options.add_argument("--turns", type=int, default=20)
    options.add_argument("--codes", action="store_true")
    given = options.parse_args()
    names = list(WAYS)[: None if given.codes else 2]
    with torch_processes() as (rank, world):
        model = network(int(given.parameters))
        flat = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
        locals_ = {name: begun(name, deepcopy(model)) for name in names}  # each with what only it moves
        bare, synced = ({name: list[float]() for name in names} for _ in range(2))
        for _ in range(given.turns + 1):
            for name, local in locals_.items():
                bare[name].append(seconds_of(lambda: dist.all_reduce(flat)))
                synced[name].append(seconds_of(lambda local=local: local.step(1)))
        lines = [row(name, locals_[name], bare[name], synced[name], flat.nbytes) for name in names]
        lines += ["", "| sync | by operators | not in the cache | the parameters |", "|---|---|---|---|"]
        lines += [passes(name, model) for name in ("average", "diloco")]
        if rank == 0:
            print(f"{flat.numel()} parameters, {world} ranks, {given.turns} turns")
            print("| sync | bare, ms | sync, ms | pack, ms | wire, ms | apply, ms | bare ones | bytes of a bare one |")
            print("|---|---|---|---|---|---|---|---|")
            print("\n".join(lines))


if __name__ == "__main__":
    main()
