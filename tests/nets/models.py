"""Modules of every kind that users train, and data for them."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """A transformer's block on five tokens, with layer normalisation and GELU."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.wide = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        x = x.reshape(len(x), 5, 8)
        seen = self.first(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        return self.head((x + self.wide(self.second(x))).mean(1))


class Embedded(nn.Module):
    """Words, looked up, and their mean."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.words((x.abs() * 20).long() % 50).mean(1))


class Tied(nn.Module):
    """An encoder and a decoder of one matrix."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode, self.head = nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.head(torch.tanh(self.decode(torch.tanh(self.encode(x)))))


class Recurrent(nn.Module):
    """Five steps of a GRU."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.gru(x.reshape(len(x), 5, 8))[0][:, -1])


class Convolved(nn.Module):
    """Convolution over 5 x 8 pixels, and what comes after it."""

    def __init__(self, norm, bend):
        super().__init__()
        self.conv, self.norm, self.bend, self.head = nn.Conv2d(1, 4, 3), norm, bend, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.bend(self.norm(self.conv(x.reshape(len(x), 1, 5, 8)))).mean((2, 3)))


def frozen():
    trunk = nn.Linear(40, 16).requires_grad_(False)
    return nn.Sequential(trunk, nn.Tanh(), nn.Linear(16, 3))


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 3)),
    "cnn with batch normalisation": lambda: Convolved(nn.BatchNorm2d(4), torch.relu),
    "transformer block": Block,
    "embedding": Embedded,
    "tied": Tied,
    "frozen trunk": frozen,
    "group normalisation and dropout": lambda: Convolved(
        nn.Sequential(nn.GroupNorm(2, 4), nn.Dropout(0.2)), torch.tanh
    ),
    "gru": Recurrent,
}

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.02),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def made(name, dtype=torch.float64, seed=0):
    """Return a model of known numbers."""
    torch.manual_seed(seed)
    return MODELS[name]().to(dtype)


def batches(rank, n, size=16, dtype=torch.float64):
    """Return n batches of a rank's own, each of inputs and of the classes that a planted matrix gives them."""
    planted = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = torch.Generator().manual_seed(1000 + rank)
    inputs = [torch.randn(size, 40, generator=draws, dtype=torch.float64) for _ in range(n)]
    return [(x.to(dtype), (x @ planted).argmax(1)) for x in inputs]
