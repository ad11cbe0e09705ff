"""What local steps beside a sum save in waiting, and cost in loss, over the ranks of torchrun.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 benchmarks/overlap.py

A network of 38,010 parameters takes 800 steps on digits, dealt to the ranks at random or by label. The loss is that on
the rows of all ranks at the end; waiting is for the sum and for other ranks, the median of the syncs.
"""

from __future__ import annotations

import numpy as np
import torch
from codes import BATCH, LR, network
from sklearn.datasets import load_digits
from torch import nn

from localgd import torch_processes
from localgd.nets import LocalSGD, Outer, average, diloco, slowmo

STEPS = 800
OUTERS = {"average()": average(), "slowmo()": slowmo(), "diloco()": diloco()}


def ended(
    own: torch.Tensor, rows: tuple[torch.Tensor, torch.Tensor], *, every: int, outer: Outer, overlap: bool
) -> str:
    """Return the loss at the end, and milliseconds of waiting in a sync."""
    (x, y), model = rows, network(0, off=False)
    optimizer, draws = torch.optim.SGD(model.parameters(), lr=LR), torch.Generator().manual_seed(int(own[0]))
    with LocalSGD(model, optimizer, sync_every=every, outer=outer, overlap=overlap) as local:
        for _ in range(STEPS):
            taken = own[torch.randint(len(own), (BATCH,), generator=draws)]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[taken]), y[taken]).backward()
            optimizer.step()
            local.step(BATCH)
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(model(x), y))
    waiting = 1e3 * float(np.median([sync.seconds["wire"] for sync in local.history]))
    return f"{loss:.4f} | {waiting:.1f}"


def main() -> None:
    """Print the table, in rank 0."""
    held = load_digits()
    rows = torch.tensor(held.data, dtype=torch.float32) / 16, torch.tensor(held.target)
    orders = {
        "at random": np.random.default_rng(0).permutation(len(held.target)),
        "by label": np.argsort(held.target, kind="stable"),
    }
    with torch_processes() as (rank, world):
        if rank == 0:
            print("| rows | outer | steps | loss | ms of waiting | loss, overlapped | ms of waiting |")
            print("|---|---|---|---|---|---|---|")
        for dealt, order in orders.items():
            own = torch.tensor(np.array_split(order, world)[rank])
            for name, outer in OUTERS.items():
                for every in (4, 16):
                    found = [ended(own, rows, every=every, outer=outer, overlap=late) for late in (False, True)]
                    if rank == 0:
                        print(f"| {dealt} | `{name}` | {every} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
