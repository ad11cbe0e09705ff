"""A sum that leaves in many buckets while it is written: in every rank, what holds of one sum holds of it."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from localgd.nets import LocalSGD, RankError, buckets
from nets.each_rank import (  # noqa: F401
    OPTIMIZERS,
    _group,
    apart,
    assert_equal_over_ranks,
    batches,
    beside_ddp,
    made,
    poisoned,
    trained,
)
from nets.models import MODELS


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET", 64)


@pytest.mark.parametrize("name", MODELS)
def test_one_local_step_at_a_time_is_ddp(name):
    (parameters, momenta), (others, their_momenta) = beside_ddp(name, "nesterov", torch.float64)
    assert apart(parameters, others) <= 1e-13
    assert apart(momenta, their_momenta) <= 1e-13


@pytest.mark.parametrize("name", MODELS)
def test_after_a_sync_all_ranks_hold_the_same_bits(name):
    model = made(name, torch.float32, seed=dist.get_rank())
    with LocalSGD(model, OPTIMIZERS["adam"](model.parameters()), sync_every=4) as local:
        for k, batch in enumerate(batches(dist.get_rank(), 8, dtype=torch.float32)):
            trained(model, local._exchange.optimizer, [batch], local.step)
            if k % 4 == 3:
                assert_equal_over_ranks(model)


def test_a_rank_that_is_not_finite_is_left_out_if_that_is_wanted():
    model = made("cnn with batch normalisation")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=2, on_failure="skip") as local:
        for k, batch in enumerate(batches(dist.get_rank(), 6)):
            trained(model, optimizer, [batch])
            if k == 1:
                poisoned(model, 1)
            local.step(batch)
    assert [sync.left_out for sync in local.history] == [(1,), (), ()]
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert_equal_over_ranks(model)


def test_a_rank_that_is_not_finite_is_named_and_nothing_moves():
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1)
    poisoned(model, 1)
    with pytest.raises(RankError, match="the update of rank 1 is not finite; lower"):
        local.step()
    if dist.get_rank() != 1:
        assert apart(model.parameters(), made("mlp").parameters()) == 0
