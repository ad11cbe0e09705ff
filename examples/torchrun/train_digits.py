"""Train a small network on handwritten digits over the ranks of torchrun, which average every 16 steps.

torchrun --nproc-per-node 2 examples/torchrun/train_digits.py [--outer diloco] [--checkpoints DIR]
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from localgd import torch_processes
from localgd.nets import LocalSGD, average, diloco, slowmo

OUTER = {"average": average(), "slowmo": slowmo(), "diloco": diloco()}


def digits(rank: int, world: int) -> tuple[DataLoader, tuple[torch.Tensor, torch.Tensor]]:
    """Return this rank's batches, and the digits that none of them trains on."""
    held = load_digits()
    x = torch.tensor(held.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(held.target)
    own = torch.arange(len(y) - 300)[rank::world]
    draws = torch.Generator().manual_seed(rank)
    return DataLoader(TensorDataset(x[own], y[own]), batch_size=32, shuffle=True, generator=draws), (x[-300:], y[-300:])


def network() -> nn.Module:
    """Return two convolutions with batch normalisation and a linear head."""
    layers = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def main() -> None:
    """Train for ten epochs, and say how well each of them went."""
    options = argparse.ArgumentParser()
    options.add_argument("--outer", choices=OUTER, default="average")
    options.add_argument("--checkpoints")
    given = options.parse_args()
    with torch_processes() as (rank, world):
        torch.manual_seed(rank)
        (loader, (x, y)), model = digits(rank, world), network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        with LocalSGD(model, optimizer, sync_every=16, outer=OUTER[given.outer]) as local:
            began, found = 0, local.resume(given.checkpoints) if given.checkpoints else None
            if found:
                began, draws = found[1]
                loader.generator.set_state(draws)
            for epoch in range(began, 10):
                model.train()
                for inputs, labels in loader:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
                    local.step((inputs, labels))
                local.finish()
                if given.checkpoints:
                    local.save(given.checkpoints, [epoch + 1, loader.generator.get_state()])
                right = float((model.eval()(x).argmax(1) == y).float().mean())
                if rank == 0:
                    sync = local.history[-1]
                    parted = f"drift {sync.drift:.3f}, agreement {sync.agreement:.2f}"
                    print(f"epoch {epoch + 1:2}: {right:.1%} right, {parted}")


if __name__ == "__main__":
    main()
