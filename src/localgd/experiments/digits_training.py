"""How the experiment `digits` trains: a model for each of four nodes in this process, which take steps and sync.

It is what `localgd.nets.LocalSGD` does on four ranks, to rounding, without their start and their messages, which take
most of the time of a network as small as this; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from localgd.errors import extra
from localgd.experiments.digits_setting import (
    AVERAGE,
    BATCH,
    DILOCO,
    FEW,
    LEAST_SYNCS,
    LOCAL_STEPS,
    LOOKS,
    LRS,
    MIDDLE,
    MOMENTUM,
    OTHER_BATCHES,
    SLOWMO,
    SYNCHRONOUS,
    Digits,
)
from localgd.nets.outer import Outer, average, diloco, slowmo
from localgd.nets.record import spread

with extra("torch", "torch"):
    import torch
    from torch import nn

OUTER: dict[str, Outer] = {AVERAGE: average(), SLOWMO: slowmo(), DILOCO: diloco()}


@dataclass(frozen=True)
class Look:
    """The shared model right after a sync: what it predicts, and what the syncs until then took."""

    parameters: Any
    syncs: int
    bytes_up: int
    drift: float
    predicted: Any
    tuning: tuple[float, float]


@dataclass(frozen=True)
class Trained:
    """One training, at its step size."""

    lr: float
    looks: dict[int, Look]

    @property
    def end(self) -> Look:
        """The last look."""
        return self.looks[max(self.looks)]


def network(seed: int) -> Any:
    """Return two convolutions and a linear layer, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*front, nn.Flatten(), nn.Linear(64, 10))


def scores(parameters: Any, images: Any) -> Any:
    """Return what several networks at once say of images of their own: groups of channels keep them apart.

    Parameters
    ----------
    parameters : (M, P) tensor
        A row for each network, as `network` orders them.
    images : (M, n, 8, 8) tensor
        Of each network.

    Returns
    -------
    (M, n, 10) tensor
        Scores of the ten digits.
    """
    m, n = images.shape[:2]
    sizes = [8 * 9, 8, 16 * 8 * 9, 16, 10 * 64, 10]
    w1, b1, w2, b2, w3, b3 = parameters.split(sizes, dim=1)
    h = nn.functional.conv2d(images.transpose(0, 1), w1.reshape(-1, 1, 3, 3), b1.reshape(-1), groups=m).relu()
    h = nn.functional.conv2d(h, w2.reshape(-1, 8, 3, 3), b2.reshape(-1), groups=m).relu()
    h = nn.functional.max_pool2d(h, 2).reshape(n, m, 64).transpose(0, 1)
    return torch.baddbmm(b3[:, None], h, w3.reshape(m, 10, 64).transpose(1, 2))


def batches(n_rows: int, steps: int, seed: list[int]) -> Any:
    """Return the places of every step's rows, (steps, BATCH): all rows once, mixed, then all again.

    Examples
    --------
    >>> sorted(batches(32, 2, [0, 1]).ravel()) == list(range(32))
    True
    """
    rng = np.random.default_rng(seed)
    needed = -(-steps * BATCH // n_rows)
    mixed = np.concatenate([rng.permutation(n_rows) for _ in range(needed)])
    return mixed[: steps * BATCH].reshape(steps, BATCH)


class Nodes:
    """Networks of several nodes, all at once: their parameters and momenta are the rows of a tensor."""

    def __init__(self, n_nodes: int, seed: int, lr: float, outer: Outer) -> None:
        self.anchor = nn.utils.parameters_to_vector(network(seed).parameters()).detach()
        self.x = self.anchor.repeat(n_nodes, 1).requires_grad_()
        self.velocity, self.memory = torch.zeros(self.x.shape), torch.zeros_like(self.anchor)
        self.lr, self.outer = lr, outer

    def step(self, images: Any, labels: Any) -> None:
        """Take a step of gradient descent with momentum at every node, on its own (M, n) images."""
        loss = nn.functional.cross_entropy(scores(self.x, images).flatten(0, 1), labels.flatten(), reduction="sum")
        (slope,) = torch.autograd.grad(loss / labels.shape[1], self.x)
        self.velocity.mul_(MOMENTUM).add_(slope)
        self.x.data.add_(self.velocity, alpha=-self.lr)

    def sync(self) -> float:
        """Move all nodes by the outer step of their mean update; return drift over that update's length."""
        updates = self.x.detach() - self.anchor
        mean = updates.mean(0)
        length, lengths = float(mean.norm()), updates.norm(dim=1).tolist()
        drift, _ = spread([1 / len(lengths)] * len(lengths), lengths, length)
        self.outer.move(self.anchor, mean, self.memory, 1.0)
        self.x.data.copy_(self.anchor.expand_as(self.x))
        self.velocity.copy_(self.velocity.mean(0).expand_as(self.velocity))
        return drift / length if length else 0.0


def trained(held: Digits, *, lr: float, steps: int, outer: Outer, sync_every: int, draw: int = 0) -> Trained:
    """Train from the start that all trainings have, on the batches that all of the same `draw` have.

    Where nodes sync after every step they are one model, that sees the batches of all.
    """
    drawn = [batches(len(y), steps, [held.seed, draw, node]) for node, y in enumerate(held.y)]
    images, labels = (
        torch.from_numpy(np.stack([part[places] for part, places in zip(parts, drawn, strict=True)], axis=1))
        for parts in (held.x, held.y)
    )
    if sync_every == 1:
        images, labels = images.flatten(1, 2)[:, None], labels.flatten(1, 2)[:, None]
    nodes = Nodes(labels.shape[1], held.seed, lr, outer)
    looks: dict[int, Look] = {}
    for step in range(1, steps + 1):
        nodes.step(images[step - 1], labels[step - 1])
        if step % sync_every == 0:
            drift = nodes.sync()
            if step in LOOKS or step == steps:
                looks[step] = _look(nodes, held, step // sync_every, drift)
    return Trained(lr, looks)


def _look(nodes: Nodes, held: Digits, syncs: int, drift: float) -> Look:
    with torch.no_grad():
        said = scores(nodes.anchor[None], torch.from_numpy(held.x_tuning)[None])[0]
        predicted = scores(nodes.anchor[None], torch.from_numpy(held.x_test)[None])[0].argmax(1).numpy()
    loss = float(nn.functional.cross_entropy(said, torch.from_numpy(held.y_tuning)))
    right = float((said.argmax(1).numpy() == held.y_tuning).mean())
    sent = nodes.anchor.nbytes + nodes.velocity[0].nbytes
    return Look(nodes.anchor.clone(), syncs, syncs * sent, drift, predicted, (right, -loss))


def tuned(held: Digits, **options: Any) -> Trained:
    """Return the training of the step size that is best on the digits kept for that."""
    return max((trained(held, lr=lr, **options) for lr in LRS), key=lambda one: one.end.tuning)


def plan(held: Digits, steps: int) -> Iterator[tuple[str, int, Trained]]:
    """Yield every tuned training with its name and its local steps; synchronous training comes first."""
    alone: dict[str, Any] = {"outer": OUTER[AVERAGE], "sync_every": 1}
    synchronous = tuned(held, steps=steps, **alone)
    yield SYNCHRONOUS, 1, synchronous
    yield OTHER_BATCHES, 1, trained(held, lr=synchronous.lr, steps=steps, draw=1, **alone)
    yield FEW, 1, tuned(held, steps=steps // MIDDLE, **alone)
    for name, outer in OUTER.items():
        several = [each for each in LOCAL_STEPS if each * LEAST_SYNCS <= steps]
        for local_steps in several if name == AVERAGE else [MIDDLE]:
            yield name, local_steps, tuned(held, steps=steps, outer=outer, sync_every=local_steps)


def rows(held: Digits, steps: int) -> list[dict[str, Any]]:
    """Return a row for every look of every tuned training, beside synchronous training after as many steps."""
    found: list[dict[str, Any]] = []
    beside: dict[int, Look] = {}
    for method, local_steps, one in plan(held, steps):
        beside = beside or one.looks
        for step, look in one.looks.items():
            last = look is one.end
            synchronous = beside[steps if last else step]
            found.append(
                {
                    "method": method,
                    "local_steps": local_steps,
                    "step": step,
                    "last": last,
                    "syncs": look.syncs,
                    "megabytes": look.bytes_up / 1e6,
                    "lr": one.lr,
                    "drift": look.drift,
                    "right_percent": 100 * float((look.predicted == held.y_test).mean()),
                    "differ_percent": 100 * float((look.predicted != synchronous.predicted).mean()),
                }
            )
    return found
