"""What the tests of simulated networks share: networks, nodes, and how far two models are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import TensorDataset

from localgd.nets import Examples, Network, partition_dataset
from nets.models import MODELS


def cross_entropy(model, batch):
    x, y = batch
    return functional.cross_entropy(model(x), y)


@dataclass(frozen=True)
class Built:
    """One of the modules of `nets.models`, as a function that has a name."""

    name: str
    dtype: str = "float32"

    def __call__(self):
        return MODELS[self.name]().to(getattr(torch, self.dtype))


def network(name="mlp", dtype="float32", **options):
    return Network(Built(name, dtype), cross_entropy, **options)


def digits(n_nodes, how="iid", dtype=torch.float32):
    """The digits of scikit-learn, 1,797 of 64 pixels, over nodes."""
    x, y = load_digits(return_X_y=True)
    return partition_dataset(TensorDataset(torch.tensor(x / 16, dtype=dtype), torch.tensor(y)), y, how, n_nodes)


def nodes(sizes=(40, 40, 40, 25, 7), dtype="float32", seed=0):
    """Nodes of 40 numbers an example and three classes that a planted matrix gives, a shift of their own each."""
    draws = torch.Generator().manual_seed(seed)
    planted = torch.randn(40, 3, generator=draws, dtype=torch.float64)
    out = []
    for place, size in enumerate(sizes):
        x = torch.randn(size, 40, generator=draws, dtype=torch.float64)
        x = x + 0.5 * torch.randn(40, generator=draws, dtype=torch.float64)
        classes = (x @ planted).argmax(1)
        out.append(Examples(f"node-{place}", TensorDataset(x.to(getattr(torch, dtype)), classes)))
    return out


def apart(problem, a, b):
    """How far two models of a network are apart: the most of any tensor, relative to that of the second."""
    parts = [(a[begin:end], b[begin:end]) for _, _, begin, end in problem.replica.all]
    return max(float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0)) for one, other in parts)
