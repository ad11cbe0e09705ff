"""Running statistics after a sync are those that one process would keep of the union of the batches."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from localgd.nets.statistics import Statistics


def batch_of(rank, step, size, channels, *, length=(), centre=0.0, spread=1.0, dtype=torch.float64):
    """Return a batch whose mean and spread differ by rank."""
    draws = torch.Generator().manual_seed(100 * rank + step)
    x = torch.randn(size, channels, *length, generator=draws, dtype=torch.float64)
    return (centre + spread * ((1 + 0.5 * rank) * x + rank)).to(dtype)


class Sums:
    """The sum over ranks that are threads of this process, and how many of them there were."""

    def __init__(self, world):
        self.barrier, self.held, self.asked = threading.Barrier(world, timeout=30), [None] * world, 0

    def of(self, rank):
        def add(numbers):
            self.held[rank] = numbers.clone()
            self.barrier.wait()
            numbers.copy_(sum(self.held))
            if self.barrier.wait() == 0:
                self.asked += 1
            self.barrier.wait()

        return add


def pooled(layers, steps, sizes, **data):
    """Feed each layer its own batches, and bring them together; return how many sums that took."""
    world, dtype = len(layers), layers[0].running_mean.dtype
    sums, all_rows = Sums(world), [{}] * world

    def rank_does(rank):
        own, layer = Statistics({"norm": layers[rank]}), layers[rank]
        for t in range(steps[rank]):
            layer(batch_of(rank, t, sizes[rank], layer.num_features, dtype=dtype, **data))
        total = torch.zeros(own.size, dtype=dtype)
        own.pack(total, sound=True)
        all_rows[rank] = dict(zip(own.names, own.words(), strict=True))
        sums.of(rank)(total)
        for found, mean, var, longest in own.pooled(total, all_rows, rank, sums.of(rank)):
            found.put(mean, var, longest)

    with ThreadPoolExecutor(world) as pool:
        list(pool.map(rank_does, range(world)))
    return sums.asked


def of_union(layer, steps, sizes, **data):
    """Feed one layer the unions of all ranks' batches."""
    for t in range(max(steps)):
        own = [
            batch_of(rank, t, size, layer.num_features, dtype=layer.running_mean.dtype, **data)
            for rank, (k, size) in enumerate(zip(steps, sizes, strict=True))
            if t < k
        ]
        layer(torch.cat(own))
    return layer


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("sizes", [(16, 16), (4, 12, 7), (2, 3)])
def test_of_one_batch_each_they_are_the_unions_own(sizes, momentum):
    layers = [nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in sizes]
    union = nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    assert pooled(layers, [1] * len(sizes), sizes) == 1
    of_union(union, [1] * len(sizes), sizes)
    for layer in layers:
        torch.testing.assert_close(layer.running_mean, union.running_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_var, union.running_var, rtol=1e-12, atol=1e-12)
        assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
@pytest.mark.parametrize("steps", [(5, 5), (100, 100), (20, 20, 20), (50, 100), (1, 7), (0, 40), (90, 100, 100)])
def test_of_many_batches_they_are_the_unions_within_a_percent(steps, momentum):
    sizes = [64] * len(steps)
    layers = [nn.BatchNorm1d(200, momentum=momentum, dtype=torch.float64) for _ in steps]
    union = nn.BatchNorm1d(200, momentum=momentum, dtype=torch.float64)
    assert pooled(layers, steps, sizes) == 1 + (len(set(steps)) > 1)
    of_union(union, steps, sizes)
    for layer in layers:
        off = (layer.running_var.sum() / union.running_var.sum() - 1).abs()
        assert off <= 0.01
        away = (layer.running_mean - union.running_mean) / union.running_var.sqrt()
        assert away.square().mean().sqrt() <= 0.02


@pytest.mark.parametrize("steps", [(1, 1), (30, 30), (10, 30)])
def test_a_mean_far_from_zero_costs_no_digits_in_float32(steps):
    data = {"centre": 1e3, "spread": 1.0}
    layers = [nn.BatchNorm1d(50) for _ in steps]
    union = nn.BatchNorm1d(50, dtype=torch.float64)
    pooled(layers, steps, [64, 64], **data)
    of_union(union, steps, [64, 64], **data)
    for layer in layers:
        assert (layer.running_var.double().sum() / union.running_var.sum() - 1).abs() <= 0.01
        torch.testing.assert_close(layer.running_mean.double(), union.running_mean, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_ranks_keep_the_same_bits(dtype):
    layers = [nn.BatchNorm1d(8, dtype=dtype) for _ in range(3)]
    pooled(layers, [3, 5, 4], [8, 9, 10], centre=50.0)
    for layer in layers[1:]:
        for name, tensor in layers[0].state_dict().items():
            assert torch.equal(tensor, layer.state_dict()[name])


def test_the_mean_of_running_variances_would_be_wrong():
    layers = [nn.BatchNorm1d(200, dtype=torch.float64) for _ in range(2)]
    union = of_union(nn.BatchNorm1d(200, dtype=torch.float64), (1, 1), (64, 64))
    for rank, layer in enumerate(layers):
        layer(batch_of(rank, 0, 64, 200))
    naive = sum(layer.running_var + layer.running_mean**2 for layer in layers) / 2
    naive -= (sum(layer.running_mean for layer in layers) / 2) ** 2
    assert (naive.sum() / union.running_var.sum() - 1).abs() > 0.01


@pytest.mark.parametrize("momentum", [0.1, 0.5])
@pytest.mark.parametrize("steps", [(1, 1, 1), (9, 9, 9)])
def test_those_of_instance_normalisations_are_the_unions_own_however_many_batches(steps, momentum):
    sizes = (4, 12, 7)
    layers = [nn.InstanceNorm1d(3, momentum=momentum, track_running_stats=True, dtype=torch.float64) for _ in sizes]
    union = nn.InstanceNorm1d(3, momentum=momentum, track_running_stats=True, dtype=torch.float64)
    for _ in range(3):
        assert pooled(layers, steps, sizes, length=(6,)) == 1
        of_union(union, steps, sizes, length=(6,))
    for layer in layers:
        for name, tensor in union.state_dict().items():
            torch.testing.assert_close(layer.state_dict()[name], tensor, rtol=1e-12, atol=1e-12)


def test_those_of_instance_normalisations_with_unlike_steps_are_nearly_the_unions():
    layers = [nn.InstanceNorm1d(50, track_running_stats=True, dtype=torch.float64) for _ in range(2)]
    union = nn.InstanceNorm1d(50, track_running_stats=True, dtype=torch.float64)
    assert pooled(layers, (10, 30), (32, 32), length=(6,)) == 2
    of_union(union, (10, 30), (32, 32), length=(6,))
    for layer in layers:
        assert (layer.running_var.sum() / union.running_var.sum() - 1).abs() <= 0.02
        assert torch.equal(layer.running_var, layers[0].running_var)


def test_an_instance_normalisation_that_nobody_counted_for_is_named():
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    own = Statistics({"norm": layer})
    own.close()
    layer(torch.randn(3, 2, 5))
    with pytest.raises(ValueError, match=r"norm took steps that nobody could count.*'norm.running_\*': 'mean'"):
        own.words()
