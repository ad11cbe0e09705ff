"""A module as one vector: trained parameters, averaged buffers, statistics of normalisation, counters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from localgd.errors import extra, listing
from localgd.nets.buffers import Buffers
from localgd.nets.places import Places
from localgd.nets.statistics import SUMS, Layer
from localgd.nets.survey import parts_of
from localgd.rounding import FloatArray

with extra("torch", "torch"):
    import torch

LOOKED_AT = 1024
"""Examples of which a look takes loss and accuracy at once."""

AT_WORK = threading.RLock()
"""Who works with torch's generator: it is one for all threads."""


class Standing(NamedTuple):
    """How a module stands on examples: the sum of their losses, and how many are right; None if that has no meaning."""

    loss: float
    right: int | None


@contextmanager
def drawn(*seed: int) -> Iterator[None]:
    """Let torch draw from these seeds, and put its generator back where it was."""
    cuda: Any = torch.cuda
    devices = range(cuda.device_count() if cuda.is_initialized() else 0)
    with AT_WORK, torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


class Replica:
    """A module of this process, which stands for one node after the other, and its place in a vector.

    First the trained parameters, each once also where modules share it; then float buffers that a rule averages, mean
    and variance of each batch normalisation, counters and the numbers of batches. Frozen parameters and constants are
    as the module was built.
    """

    def __init__(self, model: Any, rules: Mapping[str, str]) -> None:
        parts = parts_of(model, rules)
        self.model, self.normalised = model, parts.layers
        self.buffers = Buffers(parts.others, rules)
        statistics = [
            (f"{name}.{part}", getattr(layer, part))
            for name, layer in parts.layers.items()
            for part in ("running_mean", "running_var")
        ]
        means = [(name, tensor) for name, tensor, _, _ in self.buffers.means]
        counters = [(name, tensor) for name, tensor, _, _ in self.buffers.peaks]
        batches = [(f"{name}.num_batches_tracked", layer.num_batches_tracked) for name, layer in parts.layers.items()]
        trained = [(name, tensor) for name, tensor, _, _ in parts.trained]
        self.all = Places([*trained, *means, *statistics, *counters, *batches])
        self.trained, self.size, self.n_trained = dict(trained), self.all.size, parts.trained.size
        self.moving: dict[str, Any] = dict([*means, *statistics, *counters, *batches])
        floats = [tensor for tensor in [*self.trained.values(), *self.moving.values()] if tensor.is_floating_point()]
        self.dtype = "float32" if all(tensor.element_size() <= 4 for tensor in floats) else "float64"
        self.device = next(iter(self.trained.values())).device
        self.training = {module: module.training for module in model.modules()}
        self.constants = self.buffers.digests()

    def load(self, w: FloatArray) -> None:
        """Put the numbers of a vector (d,) into the module, rounded as its tensors are."""
        with torch.no_grad():
            for tensor, at in self.all.views(torch.tensor(w)):
                tensor.copy_(at)

    def read(self) -> FloatArray:
        """Return the numbers of the module as a vector (d,)."""
        out = torch.empty(self.size, dtype=torch.float64)
        for tensor, at in self.all.views(out):
            at.copy_(tensor)
        return out.numpy()

    def put(self, tensors: Mapping[str, Any]) -> None:
        """Put tensors into the module by their names."""
        with torch.no_grad():
            for name, tensor in tensors.items():
                (self.trained[name] if name in self.trained else self.moving[name]).copy_(tensor)

    def train(self) -> None:
        """Have every module be as it was built: training, or in a trunk that stays as it is perhaps not."""
        for module, training in self.training.items():
            module.training = training

    def sent(self, batch: Any) -> Any:
        """Return a batch on the device of the module."""
        if isinstance(batch, torch.Tensor):
            return batch.to(self.device)
        if isinstance(batch, Mapping):
            return {name: self.sent(part) for name, part in batch.items()}
        if isinstance(batch, list | tuple):
            return [self.sent(part) for part in batch]
        return batch

    @torch.no_grad()
    def look(self, examples: Any, loss: Callable[[Any, Any], Any]) -> Standing:
        """Return how the module stands on all examples, as it is used: without dropout, by its running statistics."""
        self.model.eval()
        seen: list[Any] = []
        hook = self.model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        total, right = 0.0, list[int | None]()
        try:
            for begin in range(0, examples.n_samples, LOOKED_AT):
                places = np.arange(begin, min(begin + LOOKED_AT, examples.n_samples))
                batch = self.sent(examples.batch(places))
                seen.clear()
                total += float(mean_of(loss, self.model, batch)) * len(places)
                right.append(_right(seen, batch))
        finally:
            hook.remove()
            self.train()
        known = [number for number in right if number is not None]
        return Standing(total, sum(known) if len(known) == len(right) else None)

    @property
    def widths(self) -> tuple[int, int]:
        """How many numbers of a report speak of the buffers: sums, and maxima."""
        channels = sum(len(layer.running_mean) for layer in self.normalised.values())
        sums = self.buffers.means.size + SUMS * channels + len(self.normalised)
        return sums, self.buffers.peaks.size + len(self.normalised)

    def moved(self, before: Mapping[str, Any], layers: Sequence[Layer], weight: float) -> dict[str, FloatArray]:
        """Return what a report says of the buffers since they were like `before`.

        Sums, by the node's weight: updates of means, four sums of each normalisation and the numbers per channel in its
        batches (those as they are). Maxima: counters, and batches of each normalisation.
        """
        sums = [weight * (tensor.double() - before[name]).reshape(-1) for name, tensor, _, _ in self.buffers.means]
        sums += [layer.sums(weight if layer.steps else 0.0).reshape(-1) for layer in layers]
        sums += [torch.tensor([layer.mean_size if weight else 0.0 for layer in layers], dtype=torch.float64)]
        most = [tensor.double().reshape(-1) for _, tensor, _, _ in self.buffers.peaks]
        most += [torch.tensor([layer.steps if weight else 0 for layer in layers], dtype=torch.float64)]
        return {
            name: torch.cat([part.cpu() for part in parts]).numpy()
            for name, parts in (("buffers", sums), ("counters", most))
        }

    def gather(self, sums: FloatArray, most: FloatArray, weight: float) -> None:
        """Put the buffers of all nodes together, from those sums and maxima, where the module has the old ones."""
        total, peaks = (torch.tensor(numbers, device=self.device) for numbers in (sums, most))
        with torch.no_grad(), self.watched() as layers:
            for tensor, update in self.buffers.means.views(total):
                tensor.add_(update / weight)
            for tensor, peak in self.buffers.peaks.views(peaks):
                tensor.copy_(peak)
            at = self.buffers.means.size
            sizes, batches = (
                total[total.numel() - len(layers) :].tolist(),
                peaks[peaks.numel() - len(layers) :].tolist(),
            )
            for layer, size, steps in zip(layers, sizes, map(int, batches), strict=True):
                end = at + SUMS * len(layer.mean)
                if steps:
                    layer.put(*layer.pooled(total[at:end].view(SUMS, -1), weight, size, steps), steps)
                at = end

    @contextmanager
    def watched(self) -> Iterator[list[Layer]]:
        """Yield the batch normalisations from where they stand, which notice the size of their batches meanwhile."""
        layers = [Layer.of(name, module) for name, module in self.normalised.items()]
        try:
            yield layers
        finally:
            for layer in layers:
                layer.hook.remove()

    def check_constants(self) -> None:
        """Refuse what local steps have written to, and no rule speaks of."""
        now = self.buffers.digests()
        if changed := sorted(name for name, mark in now.items() if mark != self.constants[name]):
            raise ValueError(
                f"{listing(changed)} changed in local steps, and no rule says what becomes of it; give one: "
                f"Network(buffers={{{changed[0]!r}: 'mean'}}) or 'max'"
            )


def mean_of(loss: Callable[[Any, Any], Any], model: Any, batch: Any) -> Any:
    """Return the mean loss of a batch; refuse what is none."""
    found = loss(model, batch)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"loss must return one number, the mean over the batch, as a tensor; got {what}")
    return found.reshape(())


def _right(seen: list[Any], batch: Any) -> int | None:
    """Return how many classes are right, where a batch is (inputs, classes) and the module gave each class a score."""
    if len(seen) != 1 or not isinstance(batch, list) or len(batch) != 2:
        return None
    scores, classes = seen[0], batch[1]
    tensors = isinstance(scores, torch.Tensor) and isinstance(classes, torch.Tensor)
    if not tensors or scores.ndim != 2 or classes.shape != scores.shape[:1] or scores.shape[1] < 2:
        return None
    whole = not (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool)
    return int((scores.argmax(1) == classes).sum()) if whole else None
