"""A sync whose sum is on its way while local steps go on: in every rank, what the rule says, written by hand."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from localgd.nets import LocalSGD, RankError, average, diloco, slowmo, until_drift
from nets.each_rank import (  # noqa: F401
    OPTIMIZERS,
    _group,
    apart,
    assert_equal_over_ranks,
    batches,
    flat,
    made,
    poisoned,
    trained,
)
from nets.models import MODELS

EVERY = 5


def by_hand(outer, n_periods, world):
    """Return where all ranks come to, each sum used one period late."""
    models = [made("mlp") for _ in range(world)]
    optimizers = [OPTIMIZERS["momentum"](model.parameters()) for model in models]
    shared, memory, on_way = flat(models[0].parameters()), torch.zeros(1), None
    starts = [shared] * world

    def use(mean):
        nonlocal shared, memory
        memory = outer.momentum * memory + mean
        shared = shared + outer.lr * ((mean + outer.momentum * memory) if outer.nesterov else memory)

    for k in range(n_periods):
        progress = []
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            trained(model, optimizer, batches(rank, EVERY * n_periods)[EVERY * k : EVERY * (k + 1)])
            progress.append(flat(model.parameters()) - starts[rank])
        if on_way is not None:
            use(on_way)
        starts = [shared + own for own in progress]
        for model, start in zip(models, starts, strict=True):
            torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        on_way = sum(progress) / world
    use(on_way)
    return shared


@pytest.mark.parametrize("outer", [average(), slowmo(momentum=0.5), diloco()])
def test_five_local_steps_beside_a_sum_are_those_written_by_hand(outer):
    world, rank = dist.get_world_size(), dist.get_rank()
    model = made("mlp")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=EVERY, outer=outer, overlap=True) as local:
        trained(model, optimizer, batches(rank, 4 * EVERY), local.step)
        assert [sync.number for sync in local.history] == [0, 1, 2]  # the fourth is on its way
    assert [sync.steps for sync in local.history] == [(EVERY,) * world] * 4
    assert apart(model.parameters(), [by_hand(outer, 4, world)]) <= 1e-13
    assert_equal_over_ranks(model)


def test_a_rank_sends_its_part_off_and_goes_on_before_others_have_sent_theirs():
    model, rank = made("mlp"), dist.get_rank()
    optimizer, store = OPTIMIZERS["sgd"](model.parameters()), dist.distributed_c10d._get_default_store()
    with LocalSGD(model, optimizer, sync_every=1, overlap=True, timeout=20.0) as local:
        for k, batch in enumerate(batches(rank, 6)):
            if rank:
                store.wait([f"gone on {k}"], timedelta(seconds=20))
            trained(model, optimizer, [batch], local.step)
            if rank == 0:
                store.set(f"gone on {k}", "")
    assert_equal_over_ranks(model)


@pytest.mark.parametrize(
    ("name", "state"), [*((name, "average") for name in MODELS), *(("tied", state) for state in ("keep", "reset"))]
)
def test_after_finish_all_ranks_hold_the_same_bits(name, state):
    rank = dist.get_rank()
    model = made(name, torch.float32, seed=rank)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=3, overlap=True, optimizer_state=state, warmup=2) as local:
        for epoch in range(2):
            trained(model, optimizer, batches(rank, 7 + rank + epoch, dtype=torch.float32), local.step)
            local.finish()
            assert_equal_over_ranks(model)
    if state == "average":
        told = [None] * dist.get_world_size()
        dist.all_gather_object(told, [held["exp_avg_sq"] for held in optimizer.state.values()])
        assert all(torch.equal(a, b) for other in told for a, b in zip(other, told[0], strict=True))


def test_statistics_are_those_of_the_union_of_all_batches_when_all_have_finished():
    rank, world = dist.get_rank(), dist.get_world_size()
    model = made("cnn with batch normalisation")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    union = copy.deepcopy(model)
    with LocalSGD(model, optimizer, sync_every=20, overlap=True) as local:
        trained(model, optimizer, batches(rank, 100), local.step)
    own = [batches(m, 100) for m in range(world)]
    with torch.no_grad():
        for step in zip(*own, strict=True):
            union(torch.cat([x for x, _ in step]))
    assert abs(float(model.norm.running_var.sum() / union.norm.running_var.sum()) - 1) <= 0.01
    assert model.norm.num_batches_tracked == 100


def test_loaders_of_unlike_length_end():
    model, rank = made("mlp"), dist.get_rank()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=2, overlap=True, weights="examples") as local:
        trained(model, optimizer, batches(rank, 14 if rank == 0 else 3), local.step)
    assert_equal_over_ranks(model)
    assert sum(max(sync.steps) for sync in local.history) == 14


def test_periods_are_decided_alike_one_sync_late():
    model = made("mlp")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=until_drift(1e3, most=8), overlap=True) as local:
        trained(model, optimizer, batches(dist.get_rank(), 40), local.step)
    assert [max(sync.steps) for sync in local.history][:6] == [1, 1, 2, 2, 4, 4]


def test_a_checkpoint_with_a_sum_on_its_way_goes_on_to_the_same_bits():
    data = batches(dist.get_rank(), 24, dtype=torch.float32)
    states = []
    for cut in (24, 12):
        model = made("cnn with batch normalisation", torch.float32)
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        local = LocalSGD(model, optimizer, sync_every=3, overlap=True, outer=diloco())
        trained(model, optimizer, data[:cut], local.step)
        kept = copy.deepcopy(local.state_dict())
        model = made("cnn with batch normalisation", torch.float32, seed=3)
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        again = LocalSGD(model, optimizer, sync_every=3, overlap=True, outer=diloco())
        again.load_state_dict(kept)
        trained(model, optimizer, data[cut:], again.step)
        again.finish()
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_rank_that_is_not_finite_is_named_or_left_out():
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1, overlap=True)
    poisoned(model, 1)
    local.step()
    with pytest.raises(RankError, match="sync 0: the update of rank 1 is not finite; lower"):
        local.step()
    model = made("mlp")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=2, overlap=True, on_failure="skip") as local:
        for k, batch in enumerate(batches(dist.get_rank(), 8)):
            trained(model, optimizer, [batch])
            if k == 1:
                poisoned(model, 1)
            local.step(batch)
    assert [sync.left_out for sync in local.history] == [(1,), (), (), ()]
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert_equal_over_ranks(model)
