"""What holds in every rank of a program that trains a network; test_ranks.py starts the ranks."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from localgd.nets import LocalSGD, average, diloco, slowmo
from nets.models import MODELS, OPTIMIZERS, batches, made

STEPS = 50


@pytest.fixture(scope="module", autouse=True)
def _group():
    dist.init_process_group("gloo")
    yield
    dist.barrier()
    dist.destroy_process_group()


def trained(model, optimizer, data, after=id, seed=0):
    """Train on each batch in turn, dropout drawn alike whoever wraps the model."""
    torch.manual_seed(seed + dist.get_rank())
    for x, y in data:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        after((x, y))


def flat(tensors):
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def apart(a, b):
    """Return how far two lists of tensors are apart, relative to the second."""
    return float((flat(a) - flat(b)).norm() / flat(b).norm())


def buffers_of(optimizer):
    return [state["momentum_buffer"] for state in optimizer.state.values() if state.get("momentum_buffer") is not None]


def beside_ddp(name, how, dtype, **options):
    """Return parameters and momentum of one local step at a time, and DDP's."""
    data = batches(dist.get_rank(), STEPS, dtype=dtype)
    model, theirs = made(name, dtype), made(name, dtype)
    optimizer, other = OPTIMIZERS[how](model.parameters()), OPTIMIZERS[how](theirs.parameters())
    with LocalSGD(model, optimizer, sync_every=1, **options) as local:
        trained(model, optimizer, data, local.step)
    trained(DistributedDataParallel(theirs), other, data)
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


@pytest.mark.parametrize(("how", "options"), [("adam", {}), ("momentum", {"optimizer_state": "reset"})])
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
