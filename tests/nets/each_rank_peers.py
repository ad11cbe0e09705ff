"""What other wrappers do by their documentation, written here in a few lines each, beside what ours does."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from localgd.nets import LocalSGD
from nets.each_rank import OPTIMIZERS, _group, assert_equal_over_ranks, batches, made, trained  # noqa: F401

NAME = "cnn with batch normalisation"


def average_parameters(model):
    """Average what `parameters()` names, and nothing else."""
    for parameter in model.parameters():
        dist.all_reduce(parameter.data)
        parameter.data /= dist.get_world_size()


def average_in_buckets(model, room):
    """Average in buckets that end before the tensor that does not fit, and go on after as much as would have fitted."""
    flat = torch.cat([parameter.data.reshape(-1) for parameter in model.parameters()])
    sizes = [parameter.numel() for parameter in model.parameters()]
    begin = 0
    while begin < len(flat):
        at, taken = 0, 0
        for size in sizes:
            if begin <= at and at + size <= begin + room:
                taken += size
            at += size
        bucket = flat[begin : begin + taken]
        dist.all_reduce(bucket)
        bucket /= dist.get_world_size()
        begin += room
    torch.nn.utils.vector_to_parameters(flat, model.parameters())


def answers(model):
    """Return what every rank's model says of one input."""
    told = [None] * dist.get_world_size()
    dist.all_gather_object(told, model.eval()(batches(99, 1)[0][0]).detach())
    return torch.stack(told)


def local_steps(model):
    trained(model, OPTIMIZERS["sgd"](model.parameters()), [(x + 3 * dist.get_rank(), y) for x, y in own()])


def own():
    return batches(dist.get_rank(), 10)


def test_averaging_parameters_alone_leaves_ranks_with_other_statistics():
    theirs, model = made(NAME), made(NAME)
    local_steps(theirs)
    average_parameters(theirs)
    assert (answers(theirs) - answers(theirs)[0]).abs().max() > 1e-3
    with LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=10) as local:
        local_steps(model)
        for _ in range(10):
            local.step()
    assert (answers(model) - answers(model)[0]).abs().max() == 0


@pytest.mark.parametrize("room", [10**6, 50])
def test_buckets_that_skip_what_does_not_fit_leave_tensors_local(room):
    theirs = made(NAME)
    local_steps(theirs)
    average_in_buckets(theirs, room)
    parted = (torch.nn.utils.parameters_to_vector(theirs.parameters()).double(),)
    told = [None] * dist.get_world_size()
    dist.all_gather_object(told, parted[0].detach())
    equal = all(torch.equal(each, told[0]) for each in told)
    assert equal == (room == 10**6)


def test_ours_leaves_none():
    model = made(NAME)
    with LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=10) as local:
        local_steps(model)
        for _ in range(10):
            local.step()
    assert_equal_over_ranks(model)
