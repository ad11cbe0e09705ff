"""What fewer bits cost a training, and save on the wire: its last losses beside float32's, over the ranks of torchrun.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 benchmarks/codes.py [SEEDS]

A network of 38,010 parameters learns digits, which lie by label on the ranks. The tail loss is the mean, over the last
15 syncs, of the loss on the rows of all ranks. Two lines say what a difference means: "another start" is float32 from
numbers that are 0.1 % off, and "int4, nothing kept back" forgets what its code lost. Bytes are those that ranks give to
sums, and, last, those that the loopback carried meanwhile, of all programs and with all headers, of a larger network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

from localgd import torch_processes
from localgd.nets import LocalSGD

SYNCS, EVERY, TAIL, BATCH, LR, TURNS = 100, 8, 15, 32, 0.05, 5

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, another start": {},
    "bf16": {"compress": "bf16"},
    "int8": {"compress": "int8"},
    "int4": {"compress": "int4"},
    "int4, nothing kept back": {"compress": "int4"},
}


def network(seed: int, *, off: bool) -> nn.Module:
    """Return 38,010 parameters, or others a little off."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 80), nn.ReLU(), nn.Linear(80, 10))
    with torch.no_grad():
        for parameter in model.parameters() if off else ():
            parameter.mul_(1 + 1e-3 * torch.randn(parameter.shape))
    return model


def on_loopback() -> int:
    """Return how many bytes this machine has sent itself."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[9]) for line in lines if line.split()[0] == "lo:")


def carried(way: str) -> float:
    """Return how many bytes of the loopback a sync of nine million parameters takes."""
    model = nn.Linear(3000, 3000)
    local = LocalSGD(model, torch.optim.SGD(model.parameters(), lr=LR), sync_every=1, **WAYS[way])
    dist.barrier()
    before = on_loopback()
    for _ in range(TURNS):
        local.step(1)
    dist.barrier()
    return (on_loopback() - before) / TURNS


def tail(way: str, seed: int, rows: tuple[Any, Any], rank: int, world: int) -> tuple[float, int]:
    """Return the loss of the last syncs, and bytes of a sync that a rank gives."""
    x, y = rows
    own = torch.tensor(np.array_split(np.argsort(y.numpy(), kind="stable"), world)[rank])
    model = network(seed, off="another" in way)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    local = LocalSGD(model, optimizer, sync_every=EVERY, **WAYS[way])
    draws, losses = torch.Generator().manual_seed(1000 * seed + rank), []
    for sync in range(SYNCS):
        for _ in range(EVERY):
            taken = own[torch.randint(len(own), (BATCH,), generator=draws)]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[taken]), y[taken]).backward()
            optimizer.step()
            local.step(BATCH)
        if "nothing" in way:
            for lost in local._exchange.coded.lost.values():  # noqa: SLF001  no option: nobody should want it
                lost.zero_()
        if sync >= SYNCS - TAIL:
            with torch.no_grad():
                losses.append(float(nn.functional.cross_entropy(model(x), y)))
    return float(np.mean(losses)), local.history[-1].bytes_up


def main() -> None:
    """Print the table, in rank 0."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    held = load_digits()
    rows = torch.tensor(held.data, dtype=torch.float32) / 16, torch.tensor(held.target)
    with torch_processes() as (rank, world):
        found = {way: np.array([tail(way, seed, rows, rank, world) for seed in seeds]) for way in WAYS}
        on_wire = {way: carried(way) for way in WAYS}
        if rank:
            return
        plain = found["float32"]
        print(f"digits by label over {world} ranks; float32 ends at {', '.join(f'{loss:.4f}' for loss in plain[:, 0])}")
        print("| updates in | tail loss against float32's | by seed | fewer bytes | of nine million, on the loopback |")
        print("|---|---|---|---|---|")
        for way, ends in found.items():
            off = 100 * (ends[:, 0] / plain[:, 0] - 1)
            saved, on_lo = plain[0, 1] / ends[0, 1], on_wire["float32"] / on_wire[way]
            each = ", ".join(f"{one:+.3f}" for one in off)
            print(f"| {way} | {off.mean():+.3f} % | {each} | {saved:.2f} × | {on_lo:.2f} × |")


if __name__ == "__main__":
    main()
