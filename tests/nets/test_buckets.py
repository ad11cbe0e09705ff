"""A sum that leaves in buckets while it is written is that which leaves at once, or is made again."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD, RankError, buckets, diloco
from nets.threads import in_threads

SMALL = 16
"""Numbers in a bucket: the model below has many of them, with tensors that begin and end within one."""


class Mixed(nn.Module):
    """Parameters of its own before those of layers, and a buffer that is averaged."""

    def __init__(self):
        super().__init__()
        self.long = nn.Parameter(torch.ones(37))
        self.middle = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 4))
        self.short = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("ema", torch.ones(5))

    def forward(self, x):
        return torch.tanh(self.middle(x * self.ema)).mean() * self.long.mean() * self.short.mean()


def moved(rank, start, spoil=None, **options):
    """Return what a rank holds after three syncs, one of its tensors not finite before the second."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    local = LocalSGD(model, optimizer, sync_every=2, outer=diloco(), buffers={"ema": "mean"}, **options)
    draws = torch.Generator().manual_seed(rank)
    for k in range(6):
        optimizer.zero_grad()
        model(torch.randn(6 + rank, 5, generator=draws)).backward()
        optimizer.step()
        if k == 3 and rank == 1 and spoil is not None:
            with torch.no_grad():
                dict(model.state_dict())[spoil].fill_(math.nan)
        local.step(6 + rank)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return state, optimizer.state_dict()["state"], local.history


def in_both(monkeypatch, **options):
    """Return what two ranks hold whose sums leave at once, and in buckets."""
    ways, start = [], Mixed()
    for size in (buckets.BUCKET, SMALL):
        monkeypatch.setattr(buckets, "BUCKET", size)
        ways.append(in_threads(monkeypatch, 2, lambda rank: moved(rank, start, **options)))
    return ways


def assert_same_bits(one, other):
    (model, momentum, _), (same, memory, _) = one, other
    assert all(torch.equal(model[name], same[name]) for name in model)
    assert all(torch.equal(momentum[k]["momentum_buffer"], memory[k]["momentum_buffer"]) for k in momentum)


@pytest.mark.parametrize("compress", [None, "int8"])
@pytest.mark.parametrize("state", ["average", "keep"])
def test_buckets_make_the_bits_of_one_sum(state, compress, monkeypatch):
    at_once, in_parts = in_both(monkeypatch, optimizer_state=state, compress=compress)
    for one, other in zip(at_once, in_parts, strict=True):
        assert_same_bits(one, other)
        assert one[2] == other[2]


@pytest.mark.parametrize("spoil", ["long", "middle.2.weight", "short", "ema", "middle.1.running_var"])
def test_what_a_rank_sent_before_it_knew_that_it_is_not_finite_does_not_count(spoil, monkeypatch):
    at_once, in_parts = in_both(monkeypatch, spoil=spoil, on_failure="skip")
    for one, other in zip(at_once, in_parts, strict=True):
        assert_same_bits(one, other)
        assert [sync.left_out for sync in other[2]] == [(), (1,), ()]
        assert [b.bytes_up // a.bytes_up for a, b in zip(one[2], other[2], strict=True)] == [1, 2, 1]


def test_nothing_moves_where_one_of_many_buckets_is_not_finite(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET", SMALL)

    def program(_):
        model = Mixed()
        local = LocalSGD(model, torch.optim.SGD(model.parameters(), lr=0.1), sync_every=1)
        with torch.no_grad():
            model.short.fill_(math.inf)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(RankError, match="the update of ranks 0, 1 is not finite"):
            local.step()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    in_threads(monkeypatch, 2, program)
