"""How far a run is from synchronous training: a run of that kind beside it, and another one as a yardstick."""

from __future__ import annotations

import copy
import math
import random
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from localgd.errors import extra
from localgd.nets.buffers import Buffers
from localgd.nets.checkpoint import rng_state, set_rng_state
from localgd.nets.places import Places
from localgd.nets.ranks import Ranks
from localgd.nets.record import Apart, Distance
from localgd.nets.statistics import Statistics
from localgd.nets.survey import parts_of
from localgd.nets.twin import Step, Twin, aside, mean_loss, tensors_of

with extra("torch", "torch"):
    import torch
    from torch import nn

MOST_KEPT = 256
"""Batches, the last of a rank, from which those of the yardstick are drawn."""

POINTS = 11
"""At which the loss is taken on the straight line between two models."""


class Synchronous(Twin):
    """A twin that is asked for predictions: statistics and buffers, too, are those of all ranks."""

    def pool_by(self, rules: Mapping[str, str]) -> None:
        """Begin to count what the statistics are of."""
        parts = parts_of(self.model, rules)
        self.statistics, self.buffers = Statistics(parts.layers), Buffers(parts.others, rules)

    @torch.no_grad()
    def pool(self, ranks: Ranks, weights: Sequence[float]) -> None:
        """Bring the statistics of the ranks together, as a sync does."""
        sizes = [self.statistics.size, self.buffers.size]
        numbers = torch.zeros(sum(sizes), dtype=self.dtype, device=self.device)
        statistics, buffers = torch.split(numbers, sizes)
        self.statistics.pack(statistics, sound=True)
        self.buffers.pack(buffers, weights[ranks.rank])
        names = [*self.statistics.names, *self.buffers.names]
        words = [*self.statistics.words(), *self.buffers.words()]
        rows = ranks.everyone(dict(zip(names, words, strict=True)))
        ranks.add(numbers)
        found = self.statistics.pooled(statistics, rows, ranks.rank, ranks.add)
        self.buffers.apply(buffers, math.fsum(weights), rows)
        for layer, mean, var, batches in found:
            layer.put(mean, var, batches)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {**super().state(), "statistics": self.statistics.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        super().load(state)
        self.statistics.load(state["statistics"])


class Redrawn:
    """Batches drawn at random, with replacement, from the last that a rank trained on."""

    def __init__(self) -> None:
        self.held = deque[Any](maxlen=MOST_KEPT)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.held[int(torch.randint(len(self.held), ()))]


class Shadow:
    """Two synchronous runs beside a run: on the same batches, and, the yardstick, on others.

    Parameters
    ----------
    model, optimizer, loss
        What is trained, and how: see `Twin`. It costs two copies of model and optimizer, and twice the time of training
        with a sum over the ranks at every step.
    ranks : Ranks
        All of the program.
    rules : dict
        Of buffers, as for the run.
    probe : batch or tensor, optional
        What models are asked about; what several ranks give alike counts once.
    other : iterable of batches, optional
        The yardstick's, begun again where it ends; else those of a rank are drawn at random, with replacement, from the
        last 256 that it trained on, which are kept.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Callable[[Any, Any], Any],
        ranks: Ranks,
        *,
        rules: Mapping[str, str],
        probe: Any,
        other: Iterable[Any] | None,
    ) -> None:
        self.same, self.others = Synchronous(model, optimizer, loss), Synchronous(model, optimizer, loss)
        self.loss, self.ranks, self.rules = loss, ranks, rules
        self.own = Redrawn()
        self._batches = _again(self.own if other is None else other)
        self.probe, self.inputs = probe, inputs_of(probe)

    def start(self, model: Any, optimizer: Any) -> None:
        """Begin both runs where the model stands; agree on who asks about what."""
        labelled = not isinstance(self.probe, torch.Tensor)
        told = self.ranks.everyone((_digest(self.inputs), 0 if self.inputs is None else len(self.inputs), labelled))
        counted = {rank: told[rank][1] for rank in {told.index(each) for each in told}}
        self.n_probes = sum(counted.values())
        if not self.n_probes:
            raise ValueError("shadow needs inputs to ask the models about: give probe=(x, y), or probe=x")
        self.labelled = all(told[rank][2] for rank, n in counted.items() if n)
        self.n_own = counted.get(self.ranks.rank, 0)
        self.trained = Places((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
        self.device = self.same.device
        for twin in (self.same, self.others):
            twin.begin(model, optimizer)
            twin.pool_by(self.rules)
        seed = torch.initial_seed() + 1
        with aside(self.device):
            torch.manual_seed(seed)
            random.seed(seed)
            self._generators = rng_state(self.device)

    def advance(self, span: Sequence[Step], steps: Sequence[int], weights: Sequence[float]) -> None:
        """Take as many synchronous steps as the rank with most took; random numbers are to be put aside."""
        self.own.held.extend(step.batch for step in span)
        self.same.advance(self.ranks, span, steps, weights)
        set_rng_state(self._generators, self.device)  # a stream of its own
        drawn = [step._replace(batch=next(self._batches), generators=None) for step in span]
        self.others.advance(self.ranks, drawn, steps, weights)
        self._generators = rng_state(self.device)
        for twin in (self.same, self.others):
            twin.pool(self.ranks, weights)

    def distance(self, model: Any) -> Distance:
        """Return how far the run is from both."""
        classes = [predicted(each, self.inputs) if self.n_own else None for each in self._three(model)]
        run, same, others = classes
        differ = [0.0 if a is None else float((a != b).double().mean()) for a, b in ((run, same), (same, others))]
        counts = torch.tensor(differ, dtype=torch.float64, device=self.device) * (self.n_own / self.n_probes)
        self.ranks.add(counts)
        run_differs, others_differ = counts.tolist()
        return Distance(
            self.n_probes,
            Apart(run_differs, length_between(self.trained, self.same.places), head_deg(model, self.same.model)),
            Apart(
                others_differ,
                length_between(self.others.places, self.same.places),
                head_deg(self.others.model, self.same.model),
            ),
        )

    def in_full(self, model: Any) -> Distance:
        """Return that with barriers and gradients, for which a third model is made and the probe must have labels."""
        found = self.distance(model)
        if not self.labelled:
            return found
        scratch = copy.deepcopy(self.same.model)
        run, same, others = self._three(model)
        barriers = [self._barrier(scratch, a, same) for a in (run, others)]
        lengths = (self._gradient(scratch, run), self._gradient(scratch, same))
        return replace(
            found,
            run=replace(found.run, barrier=barriers[0]),
            yardstick=replace(found.yardstick, barrier=barriers[1]),
            gradients=lengths,
        )

    def _three(self, model: Any) -> tuple[Any, Any, Any]:
        return model, self.same.model, self.others.model

    @torch.no_grad()
    def _barrier(self, scratch: Any, one: Any, other: Any) -> float:
        losses = torch.zeros(POINTS, dtype=torch.float64, device=self.device)
        for k in range(POINTS):
            _put_between(scratch, one, other, k / (POINTS - 1))
            losses[k] = self._own_loss(scratch)
        self.ranks.add(losses)
        return float(losses.max() - torch.maximum(losses[0], losses[-1]))

    def _own_loss(self, scratch: Any) -> Any:
        """Return this rank's part of the mean loss of all probes."""
        if not self.n_own:
            return 0.0
        with evaluating(scratch):
            return mean_loss(self.loss, scratch, self.probe) * (self.n_own / self.n_probes)

    def _gradient(self, scratch: Any, model: Any) -> float:
        _put_between(scratch, model, model, 0.0)
        scratch.zero_grad()
        if self.n_own:
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # whose RNNs have none in evaluation
                self._own_loss(scratch).backward()
        trained = [tensor for tensor in scratch.parameters() if tensor.requires_grad]
        parts = [(torch.zeros_like(t) if t.grad is None else t.grad).double().reshape(-1) for t in trained]
        gradient = torch.cat(parts)
        self.ranks.add(gradient)
        return float(gradient.norm())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; kept batches, and how far others were drawn, are not in it."""
        return {"same": self.same.state(), "others": self.others.state(), "generators": self._generators}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.same.load(state["same"])
        self.others.load(state["others"])
        self._generators = state["generators"]


def inputs_of(probe: Any) -> Any:
    """Return what models are asked about: a tensor, or the first of a tuple; None if there is none.

    Examples
    --------
    >>> inputs_of((torch.zeros(3, 2), torch.zeros(3))).shape
    torch.Size([3, 2])
    """
    inputs = probe[0] if isinstance(probe, tuple | list) and probe else probe
    if inputs is not None and not (isinstance(inputs, torch.Tensor) and inputs.ndim):
        raise TypeError(
            f"probe must be a tensor of inputs, or a tuple that begins with one, got {type(probe).__name__}"
        )
    return inputs


@torch.no_grad()
def predicted(model: Any, inputs: Any) -> Any:
    """Return the class of each input: the largest of several outputs, or the sign of one.

    Examples
    --------
    >>> predicted(nn.Identity(), torch.tensor([[1.0, 2.0], [3.0, 0.0]])).tolist()
    [1, 0]
    >>> predicted(nn.Identity(), torch.tensor([1.0, -2.0])).tolist()
    [True, False]
    """
    with evaluating(model):
        out = model(inputs)
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"shadow compares predictions, and model(x) returned no tensor but {type(out).__name__}")
    return out.argmax(1) if out.ndim > 1 and out.shape[1] > 1 else out > 0


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Have a model evaluate, and train again as it did."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def length_between(one: Places, other: Places) -> float:
    """Return how far apart tensors of the same shapes are."""
    pairs = [(a.detach(), b.detach()) for (_, a, *_), (_, b, *_) in zip(one, other, strict=True)]
    return math.sqrt(math.fsum(float((a - b).double().square().sum()) for a, b in pairs))


def head_deg(one: Any, other: Any) -> float:
    """Return the angle between the weights of the last linear layers, in degrees; NaN if there are none.

    Examples
    --------
    >>> round(head_deg(nn.Sequential(layer := nn.Linear(2, 2)), nn.Sequential(layer)), 6)
    0.0
    """
    heads = [[module for module in model.modules() if isinstance(module, nn.Linear)] for model in (one, other)]
    if not heads[0]:
        return math.nan
    u, v = (head[-1].weight.detach().double().reshape(-1) for head in heads)
    u, v = u / u.norm(), v / v.norm()
    return math.degrees(2 * math.atan2(float((u - v).norm()), float((u + v).norm())))


@torch.no_grad()
def _put_between(scratch: Any, one: Any, other: Any, place: float) -> None:
    """Put a model on the straight line between two: running statistics, too; whole numbers are those of the first."""
    for at, a, b in zip(*map(tensors_of, (scratch, one, other)), strict=True):
        at.copy_(torch.lerp(a, b, place) if a.is_floating_point() else a)


def _again(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches for ever."""
    while True:
        before = None
        for before in batches:
            yield before
        if before is None:
            raise ValueError("other holds no batch, or was an iterator that is at its end; give a list, or a loader")


def _digest(inputs: Any) -> int:
    if inputs is None:
        return 0
    return zlib.crc32(inputs.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
