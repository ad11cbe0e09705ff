"""How far local steps lead from synchronous training on digits, beside what other batches do to synchronous training.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 benchmarks/shadow.py [--steps 600] [--local 5 20 100] [--drawn]

Images lie over the ranks at random, or sorted by label. The yardstick's batches come from a second loader with another
seed, or, with `--drawn`, from those that the run trained on. Shares are means over the first and last quarter of the
syncs; `--out DIR` writes each history.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from localgd import torch_processes
from localgd.nets import Distance, LocalSGD

PROBES = 360

PAIRS = ("run", "yardstick")


def network() -> nn.Module:
    """Return two convolutions with batch normalisation and a linear head."""
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def digits(rank: int, world: int, *, by_label: bool) -> tuple[TensorDataset, tuple[torch.Tensor, torch.Tensor]]:
    """Return this rank's images, as many in all ranks, and those that nobody trains on."""
    held = load_digits()
    x, y = torch.tensor(held.images, dtype=torch.float32)[:, None] / 16, torch.tensor(held.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    trained, asked = order[PROBES:], order[:PROBES]
    if by_label:
        trained = trained[torch.argsort(y[trained], stable=True)]
    size = len(trained) // world
    own = trained[rank * size : (rank + 1) * size] if by_label else trained[rank::world][:size]
    return TensorDataset(x[own], y[own]), (x[asked], y[asked])


def loader(data: TensorDataset, seed: int) -> DataLoader[Any]:
    """Return batches in an order of this seed."""
    draws = torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size=32, shuffle=True, drop_last=True, generator=draws)


def loss(model: nn.Module, batch: Any) -> Any:
    """Return the mean loss of a batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def run(rank: int, world: int, every: int, n_steps: int, *, by_label: bool, drawn: bool) -> LocalSGD:
    """Train for so many steps with a shadow; return what was recorded."""
    torch.manual_seed(0)
    data, probe = digits(rank, world, by_label=by_label)
    model, batches = network(), loader(data, rank)
    other = None if drawn else loader(data, 1000 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    local = LocalSGD(
        model, optimizer, sync_every=every, loss=loss, shadow=True, probe=probe, other=other, compare_every=1
    )
    with local:
        done = 0
        while done < n_steps:
            for batch in batches:
                loss(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                local.step(batch)
                done += 1
                if done == n_steps:
                    break
    return local


def share(distances: list[Distance], name: str) -> float:
    """Return the mean share of predictions that differ, in percent."""
    return 100 * float(np.mean([getattr(distance, name).disagreement for distance in distances]))


def row(local: LocalSGD, *words: object) -> str:
    """Return a line of the table."""
    found = [sync.distance for sync in local.history if sync.distance]
    quarter = max(1, len(found) // 4)
    early, late = (
        " | ".join(f"{share(part, name):.1f} %" for name in PAIRS) for part in (found[:quarter], found[-quarter:])
    )
    last, beside = local.distance(), local.history[-1].against_synchronous
    lengths = f"{last.run.parameters:.2f} | {last.yardstick.parameters:.2f}"
    heads = f"{last.run.head_deg:.1f}° | {last.yardstick.head_deg:.1f}°"
    barriers = f"{last.run.barrier:.3f} | {last.yardstick.barrier:.3f}"
    cosine = f"{beside.cosine:.2f} | {beside.ratio:.2f}" if beside else " | "
    told = " | ".join(map(str, words))
    return f"| {told} | {early} | {late} | {lengths} | {heads} | {barriers} | {cosine} |"


def main() -> None:
    """Print the table, in rank 0."""
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--local", type=int, nargs="+", default=[5, 20, 100])
    options.add_argument("--drawn", action="store_true")
    options.add_argument("--out")
    given = options.parse_args()
    with torch_processes() as (rank, world):
        if rank == 0:
            print("| images | steps | run, early | of other | run, late | of other | parameters | of other", end="")
            print(" | head | of other | barrier | of other | cosine | length |\n|" + "---|" * 14)
        for by_label in (False, True):
            for every in given.local:
                local = run(rank, world, every, given.steps, by_label=by_label, drawn=given.drawn)
                kind = "by label" if by_label else "at random"
                told = row(local, kind, every)
                if rank == 0:
                    print(told, flush=True)
                if given.out:
                    local.report(Path(given.out, f"{kind} {every}".replace(" ", "-")))


if __name__ == "__main__":
    main()
