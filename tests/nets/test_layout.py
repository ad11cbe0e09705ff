"""What is added, frozen or replaced once a sync is laid out is noticed by name, in all ranks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD, RankError
from nets.threads import in_threads


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.trunk.requires_grad_(False)
        self.register_buffer("seen", torch.tensor(0))


def grown(model, optimizer):
    model.extra = nn.Linear(2, 2, bias=False)
    optimizer.add_param_group({"params": [model.extra.weight]})


def replaced(model, _):
    model.head = nn.Linear(4, 2)


def loaded(model, _):
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


def rebound(model, _):
    model.seen = model.seen + 1


def thawed(model, _):
    model.trunk.bias.requires_grad_(True)


def frozen(model, _):
    model.head.weight.requires_grad_(False)


def halved(model, _):
    model.half()


def pruned(model, _):
    del model.head.bias


def given(model, optimizer):
    optimizer.add_param_group({"params": [model.trunk.weight]})


def strange(_, optimizer):
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


def taken(_, optimizer):
    optimizer.param_groups[0]["params"].pop()


def without_momentum(_, optimizer):
    optimizer.param_groups[0]["momentum"] = 0.0


CHANGES = {
    grown: "extra.weight was added to the model, extra.weight was given to the optimizer",
    replaced: r"head.weight is another tensor, where the one before was to be written to, head.bias is",
    loaded: "trunk.weight is another tensor",
    rebound: "seen is another tensor, where the one before was to be written to",
    thawed: "trunk.bias requires a gradient now",
    frozen: "head.weight requires no gradient now",
    halved: r"head.weight is torch.float16 \(2, 4\), and was torch.float32 \(2, 4\)",
    pruned: "head.bias was taken out of the model",
    given: "trunk.weight was given to the optimizer",
    strange: "a parameter that is not of the model was given to the optimizer",
    taken: "head.bias was taken from the optimizer",
    without_momentum: "the optimizer keeps nothing of head.weight, and kept momentum_buffer",
}


@pytest.mark.parametrize("compress", [None, "int8"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_in_one_rank_is_named_in_all_and_nothing_moves(change, compress, monkeypatch):
    def program(rank):
        model = Small()
        optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1, momentum=0.9)
        local = LocalSGD(model, optimizer, sync_every=1, compress=compress)
        local.step()
        if rank == 1:
            change(model, optimizer)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(RankError, match=f"sync 1: rank 1: .*{CHANGES[change]}.*; make another LocalSGD"):
            local.step()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    in_threads(monkeypatch, 2, program)


def test_what_goes_on_in_a_training_is_no_change(monkeypatch):
    def program(_):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
        local = LocalSGD(model, optimizer, sync_every=1)
        for k in range(8):
            model(torch.ones(5, 3) * k).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=k % 2 == 0)
            schedule.step()
            local.step()
            model.load_state_dict(copy.deepcopy(model.state_dict()))
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            model.to(torch.device("cpu")).eval().train()
        return len(local.history)

    assert in_threads(monkeypatch, 2, program) == [8, 8]
