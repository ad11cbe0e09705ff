"""Running statistics of normalisation: after a sync, those of the union of the batches.

A layer keeps moving averages, ``r ← (1 − a)·r + a·batch``. Averaging them over ranks is wrong twice: the spread between
ranks enters with a weight of its own, and ranks with other batches, or fewer, count alike. So the moving average since
the anchor is undone, ``fresh = anchor + (r − anchor)/β`` with ``β = 1 − (1 − a)^k``, fresh moments are pooled, and put
back with one β for all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from localgd.errors import extra

with extra("torch", "torch"):
    import torch
    from torch.nn.modules.instancenorm import _InstanceNorm

SUMS = 4
"""Vectors that are summed per layer: of means, squared means, variances, and variances over their sample size."""

KEPT = ("mean", "var", "tracked", "shift", "size", "batches")
"""What of a layer a checkpoint keeps."""

FAR = 100.0
"""Standard deviations between mean and shift from which float32 sums are made again about a better shift."""


def blend(a: float | None, before: int, steps: int) -> float:
    """Return β, the weight of `steps` batches in the average; `a` None: all batches, `before` earlier ones, alike.

    Examples
    --------
    >>> blend(0.1, 0, 1), blend(None, 3, 1)
    (0.09999999999999998, 0.25)
    """
    if a is None:
        return steps / (steps + before) if steps else 0.0
    return float(1.0 - (1.0 - a) ** steps)


def concentration(a: float | None, steps: int) -> float:
    """Return Σ w_t² of the weights that batches have among the fresh ones: 1 for one batch, small for many.

    Examples
    --------
    >>> round(concentration(0.1, 1), 12), concentration(None, 4)
    (1.0, 0.25)
    """
    if steps == 0:
        return 1.0
    if a is None or a == 0:
        return 1.0 / steps
    keep = 1.0 - a
    return float(a * a * (1.0 - keep ** (2 * steps)) / (1.0 - keep * keep) / (1.0 - keep**steps) ** 2)


class Span(NamedTuple):
    """Batches that the same ranks took part in: what they count, each rank's part of them, and how large they were."""

    weight: float
    parts: list[float]
    size: float


def spans(a: float | None, steps: Sequence[int], sizes: Sequence[float]) -> list[Span]:
    """Return the unions of the batches, batch t that of the ranks which took t steps or more.

    It counts ``a(1 − a)^(k − t)`` of k batches, divided by the sum.

    Examples
    --------
    >>> spans(0.1, [5, 5], [32.0, 96.0])
    [Span(weight=1.0, parts=[0.25, 0.75], size=128.0)]
    >>> spans(None, [1, 2], [32.0, 32.0])
    [Span(weight=0.5, parts=[0.5, 0.5], size=64.0), Span(weight=0.5, parts=[0.0, 1.0], size=32.0)]
    """
    longest, done, out = max(steps), 0, list[Span]()
    for end in sorted({k for k in steps if k > 0}):
        if a is None or a == 0:
            weight = (end - done) / longest
        else:
            weight = (1 - a) ** (longest - end) * blend(a, 0, end - done) / blend(a, 0, longest)
        size = math.fsum(n for k, n in zip(steps, sizes, strict=True) if k >= end)
        parts = [n / size if k >= end else 0.0 for k, n in zip(steps, sizes, strict=True)]
        out.append(Span(weight, parts, size))
        done = end
    return out


@dataclass
class Layer:
    """The statistics of one layer, where they began, and how large its batches were."""

    name: str
    module: Any
    mean: Any
    var: Any
    tracked: int
    shift: Any
    size: float = 0.0
    batches: int = 0
    hook: Any = None

    @classmethod
    def of(cls, name: str, module: Any) -> Layer:
        """Begin where a layer stands; notice how many numbers its batches have per channel."""
        self = cls(name, module, *_held(module), int(module.num_batches_tracked), _held(module)[0])
        self.hook = module.register_forward_pre_hook(self.seen)
        return self

    def seen(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Count a batch of training; compiled code is left alone, as what changes would have it compiled again."""
        if module.training and not torch.compiler.is_compiling():
            self.size += inputs[0].numel() / inputs[0].shape[1]
            self.batches += 1

    @property
    def steps(self) -> int:
        """Batches since the anchor."""
        return int(self.module.num_batches_tracked) - self.tracked

    @property
    def mean_size(self) -> float:
        """Numbers per channel in a batch, 0 if there was none; where nobody counted, as in compiled code, very many."""
        return self.size / self.batches if self.batches else 1e9 if self.steps else 0.0

    def fresh(self) -> tuple[Any, Any]:
        """Return mean and variance of the batches since the anchor, in float64."""
        beta = blend(self.module.momentum, self.tracked, self.steps) or 1.0
        mean = self.mean + (self.module.running_mean.double() - self.mean) / beta
        return mean, self.var + (self.module.running_var.double() - self.var) / beta

    def sums(self, weight: float) -> Any:
        """Return the four sums of this rank, (4, channels), that weighs so much."""
        if weight == 0:
            return torch.zeros((SUMS, len(self.mean)), dtype=torch.float64, device=self.mean.device)
        mean, var = self.fresh()
        away = mean - self.shift
        return weight * torch.stack([away, away**2, var, var / self.mean_size])

    def pooled(self, total: Any, weight: float, size: float, steps: int) -> tuple[Any, Any]:
        """Return mean and variance of the union of the batches: the variance unbiased, as a layer keeps it."""
        first, second, var, fluctuating = total.double() / weight
        within = var - fluctuating
        between = second - first**2
        chance = (1.0 - concentration(self.module.momentum, steps)) * (fluctuating - var / size)
        return self.shift + first, (within + between + chance).clamp_min(0.0) * (size / max(size - 1.0, 1.0))

    def put(self, mean: Any, var: Any, steps: int) -> None:
        """Take pooled statistics of so many batches into the average, from where the anchor was."""
        beta = blend(self.module.momentum, self.tracked, steps)
        self.shift = mean
        self.module.running_mean.copy_(self.mean + beta * (mean - self.mean))
        self.module.running_var.copy_(self.var + beta * (var - self.var))
        self.module.num_batches_tracked.fill_(self.tracked + steps)
        self.begin()

    def begin(self) -> None:
        """Make the anchor where the layer stands now."""
        self.mean, self.var = _held(self.module)
        self.tracked = int(self.module.num_batches_tracked)
        self.size, self.batches = 0.0, 0


class InstanceLayer(Layer):
    """The statistics of an instance normalisation: means over the examples of what each of them has by itself.

    So nothing enters from between examples, and the union's are the ranks' means by their number of examples.
    """

    def seen(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Count a batch of training, in examples."""
        if module.training and not torch.compiler.is_compiling():
            alone = inputs[0].dim() == module._get_no_batch_dim()  # noqa: SLF001  there is no public name
            self.size += 1 if alone else inputs[0].shape[0]
            self.batches += 1

    @property
    def steps(self) -> int:
        """Batches since the anchor, which the module itself does not count."""
        if not self.batches and not torch.equal(self.module.running_var.double(), self.var):
            raise ValueError(
                f"{self.name} took steps that nobody could count, as in compiled code; "
                f"give it a rule: buffers={{'{self.name}.running_*': 'mean'}}"
            )
        return self.batches

    def pooled(self, total: Any, weight: float, size: float, steps: int) -> tuple[Any, Any]:  # noqa: ARG002
        """Return the means of means and of variances."""
        first, _, var, _ = total.double() / weight
        return self.shift + first, var

    def put(self, mean: Any, var: Any, steps: int) -> None:
        """Take pooled statistics of so many batches into the average, from where the anchor was."""
        super().put(mean, var, steps)
        self.module.num_batches_tracked.zero_()
        self.tracked = 0


class Statistics:
    """The running statistics of all normalisations of a model."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.layers = [
            (InstanceLayer if isinstance(module, _InstanceNorm) else Layer).of(name, module)
            for name, module in modules.items()
        ]
        self.size = sum(SUMS * len(layer.mean) for layer in self.layers)

    def close(self) -> None:
        """Count no more batches."""
        for layer in self.layers:
            layer.hook.remove()

    def words(self) -> list[float]:
        """Return what the header says of this rank's layers: batches, and numbers in one."""
        return [number for layer in self.layers for number in (layer.steps, layer.mean_size)]

    @property
    def names(self) -> list[str]:
        """Names of these words."""
        return [f"{word} of {layer.name}" for layer in self.layers for word in ("batches", "size")]

    def pack(self, out: Any, *, sound: bool) -> None:
        """Write what is summed, as if all ranks had taken the same steps."""
        at = 0
        for layer in self.layers:
            end = at + SUMS * len(layer.mean)
            weight = layer.mean_size if sound else 0.0
            out[at:end] = layer.sums(weight).reshape(-1).to(out.dtype)
            at = end

    def finite(self) -> bool:
        """Return whether all statistics are."""
        return all(bool(torch.isfinite(t).all()) for layer in self.layers for t in layer.fresh())

    def pooled(
        self, total: Any, rows: Sequence[dict[str, float]], rank: int, again: Callable[[Any], object]
    ) -> list[tuple[Layer, Any, Any, int]]:
        """Return mean, variance and batches of each layer's union, from the sums and the rows of all ranks.

        ``again(numbers)`` sums once more, where ranks took unlike steps or a mean lay too far from the shift. A rank
        that is left out says 0 batches. Nothing is put in the layers yet: that sum may fail.
        """
        at, out, odd = 0, [], []
        for layer in self.layers:
            end = at + SUMS * len(layer.mean)
            steps = [int(row[f"batches of {layer.name}"]) for row in rows]
            sizes = [row[f"size of {layer.name}"] if k else 0.0 for row, k in zip(rows, steps, strict=True)]
            sums, size = total[at:end].view(SUMS, -1), sum(sizes)
            at = end
            if not max(steps):
                continue
            if len(set(steps)) == 1 and not _far(sums, size):
                out.append((layer, *layer.pooled(sums, size, size, max(steps)), max(steps)))
            else:
                layer.shift = layer.shift + sums[0].double() / size
                odd.append((layer, spans(layer.module.momentum, steps, sizes), max(steps)))
        if odd:
            own = [layer.sums(span.parts[rank]).reshape(-1) for layer, unions, _ in odd for span in unions]
            sums = torch.cat(own).to(total.dtype)
            again(sums)
            parts = iter(torch.split(sums, [len(piece) for piece in own]))
            for layer, unions, longest in odd:
                found = [layer.pooled(next(parts).view(SUMS, -1), 1.0, span.size, longest) for span in unions]
                mean = sum(span.weight * mean for span, (mean, _) in zip(unions, found, strict=True))
                var = sum(span.weight * var for span, (_, var) in zip(unions, found, strict=True))
                out.append((layer, mean, var, longest))
        return out

    def state(self) -> list[Any]:
        """Return what a checkpoint keeps, beside the model's own buffers."""
        return [{name: getattr(layer, name) for name in KEPT} for layer in self.layers]

    def load(self, state: list[Any]) -> None:
        """Go on from what a checkpoint kept."""
        for layer, kept in zip(self.layers, state, strict=True):
            for name, value in kept.items():
                setattr(layer, name, value)


def _far(sums: Any, weight: float) -> bool:
    """Return whether float32 lost the variance in the square of the mean."""
    first, _, var, _ = sums.double() / weight
    return sums.dtype != torch.float64 and bool((first.abs() > FAR * var.clamp_min(1e-30).sqrt()).any())


def _held(module: Any) -> tuple[Any, Any]:
    """Return copies of the mean and variance that a layer keeps."""
    return module.running_mean.to(torch.float64, copy=True), module.running_var.to(torch.float64, copy=True)
