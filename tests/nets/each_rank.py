"""What holds in every rank of a program that trains a network; test_ranks.py starts the ranks."""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from localgd.nets import LocalSGD, RankError, average, diloco, slowmo
from nets.models import MODELS, OPTIMIZERS, batches, made

STEPS = 50


@pytest.fixture(scope="module", autouse=True)
def _group():
    dist.init_process_group("gloo")
    yield
    dist.barrier()
    dist.destroy_process_group()


def trained(model, optimizer, data, after=id, *, clip=math.inf):
    """Train on each batch in turn, dropout drawn alike whoever wraps the model; no gradient longer than `clip`."""
    torch.manual_seed(dist.get_rank())
    for x, y in data:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        if clip < math.inf:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        after((x, y))


def flat(tensors):
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def apart(a, b):
    """Return how far two lists of tensors are apart, relative to the second."""
    one, other = flat(a), flat(b)
    return float((one - other).norm() / other.norm())


def buffers_of(optimizer):
    return [state["momentum_buffer"] for state in optimizer.state.values() if state.get("momentum_buffer") is not None]


def beside_ddp(name, how, dtype, clip=math.inf, **options):
    """Return parameters and momentum of one local step at a time, and DDP's."""
    data = batches(dist.get_rank(), STEPS, dtype=dtype)
    model, theirs = made(name, dtype), made(name, dtype)
    optimizer, other = OPTIMIZERS[how](model.parameters()), OPTIMIZERS[how](theirs.parameters())
    with LocalSGD(model, optimizer, sync_every=1, **options) as local:
        trained(model, optimizer, data, local.step, clip=clip)
    trained(DistributedDataParallel(theirs), other, data, clip=clip)
    return (list(model.parameters()), buffers_of(optimizer)), (list(theirs.parameters()), buffers_of(other))


def assert_equal_over_ranks(model):
    told = [None] * dist.get_world_size()
    dist.all_gather_object(told, {name: tensor.clone() for name, tensor in model.state_dict().items()})
    for state in told:
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("how", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("name", MODELS)
def test_one_local_step_at_a_time_is_ddp(name, how, dtype, within):
    (parameters, momenta), (others, their_momenta) = beside_ddp(name, how, dtype)
    assert apart(parameters, others) <= within
    if how != "sgd":
        assert len(momenta) == len(their_momenta)
        assert apart(momenta, their_momenta) <= within


@pytest.mark.parametrize(
    ("how", "options"), [("adam", {}), ("momentum", {"optimizer_state": "reset"}), ("sgd", {"clip": 0.1})]
)
def test_what_is_not_linear_in_the_gradient_is_not_ddp(how, options):
    (parameters, _), (others, _) = beside_ddp("mlp", how, torch.float64, **options)
    assert apart(parameters, others) > 1e-4


@pytest.mark.parametrize("outer", [average(), slowmo(momentum=0.5), diloco()])
def test_five_local_steps_are_those_written_by_hand(outer):
    world, rank = dist.get_world_size(), dist.get_rank()
    start = made("mlp")
    model = copy.deepcopy(start)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=5, outer=outer) as local:
        trained(model, optimizer, batches(rank, 20), local.step)
    assert [sync.steps for sync in local.history] == [(5,) * world] * 4
    shared, memory = flat(start.parameters()), torch.zeros(1)
    for k in range(4):
        updates = []
        for other in range(world):
            copied = copy.deepcopy(start)
            torch.nn.utils.vector_to_parameters(shared.clone(), copied.parameters())
            trained(copied, OPTIMIZERS["sgd"](copied.parameters()), batches(other, 20)[5 * k : 5 * k + 5])
            updates.append(flat(copied.parameters()) - shared)
        mean = sum(updates) / world
        memory = outer.momentum * memory + mean
        shared = shared + outer.lr * ((mean + outer.momentum * memory) if outer.nesterov else memory)
    assert apart(model.parameters(), [shared]) <= 1e-13


@pytest.mark.parametrize("name", MODELS)
def test_after_a_sync_all_ranks_hold_the_same_bits(name):
    model = made(name, torch.float32, seed=dist.get_rank())
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=4) as local:
        for k, batch in enumerate(batches(dist.get_rank(), 12, dtype=torch.float32)):
            trained(model, optimizer, [batch], local.step)
            if k % 4 == 3:
                assert_equal_over_ranks(model)


def uneven(rank):
    """Return batches of one rank, seven times as many in the first as in the others."""
    return batches(rank, 28 if rank == 0 else 4)


def test_loaders_of_unlike_length_end_and_are_ddps_join():
    rank = dist.get_rank()
    model, theirs = made("mlp"), made("mlp")
    optimizer, other = OPTIMIZERS["sgd"](model.parameters()), OPTIMIZERS["sgd"](theirs.parameters())
    with LocalSGD(model, optimizer, sync_every=1) as local:
        trained(model, optimizer, uneven(rank), local.step)
        local.finish()
    wrapped = DistributedDataParallel(theirs)
    with Join([wrapped], divide_by_initial_world_size=True):
        trained(wrapped, other, uneven(rank))
    assert apart(model.parameters(), theirs.parameters()) <= 1e-12
    assert_equal_over_ranks(model)
    assert len(local.history) == 28


def test_unlike_batches_count_by_their_size_like_one_large_batch():
    world, rank = dist.get_world_size(), dist.get_rank()
    model, pooled = made("mlp"), made("mlp")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    own = [batches(m, 10, size=4 + 8 * m) for m in range(world)]
    with LocalSGD(model, optimizer, sync_every=1) as local:
        trained(model, optimizer, own[rank], local.step)
    union = [tuple(torch.cat(parts) for parts in zip(*step, strict=True)) for step in zip(*own, strict=True)]
    trained(pooled, OPTIMIZERS["momentum"](pooled.parameters()), union)
    assert apart(model.parameters(), pooled.parameters()) <= 1e-13


def poisoned(model, rank):
    if dist.get_rank() == rank:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))


def test_a_rank_that_is_not_finite_is_named_and_nothing_moves():
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1)
    poisoned(model, 1)
    with pytest.raises(RankError, match="the update of rank 1 is not finite; lower"):
        local.step()
    if dist.get_rank() != 1:
        assert apart(model.parameters(), made("mlp").parameters()) == 0


@pytest.mark.parametrize("state", ["average", "keep", "reset"])
def test_a_rank_that_is_not_finite_is_left_out_if_that_is_wanted(state):
    model = made("cnn with batch normalisation")
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with LocalSGD(model, optimizer, sync_every=2, optimizer_state=state, on_failure="skip") as local:
        for k, batch in enumerate(batches(dist.get_rank(), 6)):
            trained(model, optimizer, [batch])
            if k == 1:
                poisoned(model, 1)
            local.step(batch)
    assert [sync.left_out for sync in local.history] == [(1,), (), ()]
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert_equal_over_ranks(model)


def test_constants_that_differ_are_named():
    model = made("mlp")
    model.register_buffer("scale", torch.ones(2))
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1)
    model.scale += dist.get_rank()
    with pytest.raises(ValueError, match=r"scale differ over the ranks, and no rule .*buffers=\{'scale': 'mean'\}"):
        local.step()


def test_buffers_follow_the_rules_given_and_counters_take_the_largest():
    model, rank, world = made("mlp"), dist.get_rank(), dist.get_world_size()
    for name, value in (("ema", 0.0), ("peak", 0.0), ("still", 1.5)):
        model.register_buffer(name, torch.full((3,), value))
    model.register_buffer("seen", torch.tensor(0))
    rules = {"em*": "mean", "peak": "max"}
    with LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1, buffers=rules) as local:
        model.ema += rank
        model.peak += rank
        model.seen += 2**40 + rank
        local.step()
    assert model.ema.tolist() == [(world - 1) / 2] * 3
    assert model.peak.tolist() == [world - 1.0] * 3
    assert model.seen == 2**40 + world - 1
    assert model.still.tolist() == [1.5] * 3


def test_settings_that_differ_are_refused_in_all_ranks():
    model = made("mlp")
    with pytest.raises(RankError, match="had another group of settings than rank 0"):
        LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=4 + dist.get_rank())


def test_a_refusal_in_one_rank_is_told_in_all():
    model = made("mlp") if dist.get_rank() else nn.Sequential(nn.Embedding(3, 2, sparse=True))
    kind, words = (RankError, "rank 0: .*sparse=False") if dist.get_rank() else (TypeError, "sparse=False")
    with pytest.raises(kind, match=words):
        LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()))


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path_factory):
    folder = [f"{tmp_path_factory.mktemp('kept')}"]
    dist.broadcast_object_list(folder)

    def run(until, *, saved, fresh=True):
        model = made("group normalisation and dropout", torch.float32)
        optimizer = OPTIMIZERS["adam"](model.parameters())
        local = LocalSGD(model, optimizer, sync_every=3, outer=diloco())
        began = 0
        if fresh:
            torch.manual_seed(dist.get_rank())
        else:
            _, began = local.resume(folder[0])
            assert began == 6
        with local:
            for k, (x, y) in enumerate(batches(dist.get_rank(), until, dtype=torch.float32)):
                if k < began:
                    continue
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                if local.step((x, y)) is not None and saved:
                    local.save(folder[0], k + 1)
        return model.state_dict()

    whole = run(12, saved=False)
    run(7, saved=True)
    for name, tensor in run(12, saved=True, fresh=False).items():
        assert torch.equal(tensor, whole[name]), name


@pytest.mark.parametrize("code", ["bf16", "int8", "int4"])
def test_in_fewer_bits_ranks_still_hold_the_same_and_nothing_is_lost_for_good(code):
    """The updates that were applied, with what is still kept back, are those that were made."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = made("mlp", torch.float32)
    start, made_so_far = flat(model.parameters()), 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with LocalSGD(model, optimizer, sync_every=1, compress=code) as local:
        for k in range(20):
            before = flat(model.parameters())
            draws = torch.Generator().manual_seed(k + 50 * rank)
            for parameter in model.parameters():
                parameter.grad = -torch.randn(parameter.shape, generator=draws)
            optimizer.step()
            update = flat(model.parameters()) - before
            local.step(4)
            made_so_far = made_so_far + update
            assert_equal_over_ranks(model)
    told = [None] * world
    lost = local._exchange.coded.lost
    dist.all_gather_object(told, (made_so_far, lost["own"].double(), lost["summed"].double()))
    size = len(start)
    wanted = sum(one for one, _, _ in told) / world
    kept = sum(own for _, own, _ in told)[:size] + torch.cat([summed for _, _, summed in told])[:size]
    kept /= world
    got = flat(model.parameters()) - start
    torch.testing.assert_close(got + kept, wanted, rtol=0, atol=1e-6)
    assert (got - wanted).norm() > 1e-6


def test_a_checkpoint_in_fewer_bits_goes_on_to_the_same_bits():
    data = batches(dist.get_rank(), 8, dtype=torch.float32)
    states = []
    for cut in (8, 4):
        model = made("mlp", torch.float32)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        local = LocalSGD(model, optimizer, sync_every=2, compress="int4", outer=slowmo())
        trained(model, optimizer, data[:cut], local.step)
        kept = copy.deepcopy(local.state_dict())
        model = made("mlp", torch.float32, seed=3)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        again = LocalSGD(model, optimizer, sync_every=2, compress="int4", outer=slowmo())
        again.load_state_dict(kept)
        trained(model, optimizer, data[cut:], again.step)
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


def rows_of(rank):
    """Return batches of two rows with noisy labels, 70 in the first rank and 10 in each other, unlike by rank."""
    draws = torch.Generator().manual_seed(rank)
    out = []
    for _ in range(70 if rank == 0 else 10):
        x = torch.randn(2, 5, generator=draws, dtype=torch.float64) + 0.3 * rank
        y = (torch.rand(2, generator=draws, dtype=torch.float64) < torch.sigmoid(x.sum(1) - rank)).double()
        out.append((x, y))
    return out


def gone_to_rest(weights, sync_every, epochs=60):
    """Return where a logistic regression comes to rest, its last rates small."""
    model = nn.Linear(5, 1, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.2)
    with LocalSGD(model, optimizer, sync_every=sync_every, weights=weights) as local:
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + epoch / 2)
            for x, y in rows_of(dist.get_rank()):
                optimizer.zero_grad()
                functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
                optimizer.step()
                local.step(len(y))
            local.finish()
    return flat(model.parameters())


def pooled_rest():
    """Return where it would come to rest on all batches at once."""
    rows = [batch for rank in range(dist.get_world_size()) for batch in rows_of(rank)]
    x, y = torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows])
    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(x @ w[:5] + w[5], y) + 0.1 * w.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return w.detach()


@pytest.mark.parametrize("sync_every", [1, 8, 64] if os.environ.get("LOCALGD_TESTS") == "nightly" else [8, 64])
def test_unlike_loaders_lead_to_the_pooled_optimum_and_weights_by_examples_do_not(sync_every):
    wanted = pooled_rest()
    assert apart([gone_to_rest("batch", sync_every)], [wanted]) <= 0.02
    if sync_every == 8:
        assert apart([gone_to_rest("examples", sync_every)], [wanted]) >= 0.05
