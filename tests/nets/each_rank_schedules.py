"""When ranks sync, what a sync says, and what an error does: in every rank alike."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist

from localgd.nets import LocalSGD, RankError, qsr, until_drift
from nets.each_rank import OPTIMIZERS, _group, apart, assert_equal_over_ranks, batches, flat, made, trained  # noqa: F401


def history(n_steps, **options):
    model = made("mlp")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with LocalSGD(model, optimizer, **options) as local:
        for k, batch in enumerate(batches(dist.get_rank(), n_steps)):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + k)
            trained(model, optimizer, [batch], local.step)
    assert_equal_over_ranks(model)
    told = [None] * dist.get_world_size()
    dist.all_gather_object(told, [sync.steps for sync in local.history])
    assert all(each == told[0] for each in told)
    return local.history


def test_the_first_steps_are_synchronous_if_that_is_wanted():
    found = history(12, warmup=3, sync_every=4)
    assert [max(sync.steps) for sync in found] == [1, 1, 1, 4, 4, 1]  # the last when the block ends


def test_the_period_grows_as_the_step_size_falls():
    found = [max(sync.steps) for sync in history(30, sync_every=qsr(2, 0.03))]
    assert found[:2] == [2, 2]
    assert found[-2] > 4


def test_the_period_follows_the_drift():
    loose = [max(sync.steps) for sync in history(30, sync_every=until_drift(1e3, most=8))]
    tight = [max(sync.steps) for sync in history(30, sync_every=until_drift(1e-6))]
    assert loose[:4] == [1, 2, 4, 8]
    assert set(tight) == {1}


def test_a_sync_says_how_far_the_ranks_had_parted():
    world = dist.get_world_size()
    model = made("mlp")
    optimizer, start, data = (
        OPTIMIZERS["sgd"](model.parameters()),
        flat(model.parameters()),
        batches(dist.get_rank(), 4),
    )
    with LocalSGD(model, optimizer, sync_every=4) as local:
        trained(model, optimizer, data[:3], local.step)
        trained(model, optimizer, data[3:])
        mine = flat(model.parameters())
        sync = local.step(16)
    models = [torch.zeros_like(mine) for _ in range(world)]
    dist.all_gather(models, mine)
    mean = sum(models) / world
    assert sync.drift == pytest.approx(math.sqrt(sum(float((each - mean).square().sum()) for each in models) / world))
    assert sync.update == pytest.approx(float((mean - start).norm()))
    lengths = sum(float((each - start).norm()) for each in models) / world
    assert sync.agreement == pytest.approx(sync.update / lengths)


def test_an_error_in_the_block_never_leads_to_a_sync():
    model = made("mlp")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    local = LocalSGD(model, optimizer, sync_every=10)

    def block():
        with local:
            trained(model, optimizer, batches(dist.get_rank(), 3), local.step)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    assert local.history == []
    assert apart(model.parameters(), made("mlp").parameters()) > 0  # its own steps are there


def test_a_checkpoint_between_syncs_is_refused():
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=10)
    local.step()
    with pytest.raises(RuntimeError, match="1 local steps came since the last sync"):
        local.state_dict()
    local.finish()
    local.state_dict()


def test_ranks_that_give_no_batch_while_others_do_are_named():
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1)
    with pytest.raises(RankError, match="rank 1 gave step"):
        local.step(None if dist.get_rank() == 1 else 4)


def test_a_block_that_ends_without_finish_waits_for_ranks_with_steps_of_their_own():
    rank, model = dist.get_rank(), made("cnn with batch normalisation")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=2) as local:
        trained(model, optimizer, batches(rank, 4 if rank else 5), local.step)
    assert_equal_over_ranks(model)
    assert [max(sync.steps) for sync in local.history] == [2, 2, 1]
    assert not model.norm._forward_pre_hooks
