"""What is said of training loops over ranks: right ones pass, and each fault of others is named as what it is."""

from __future__ import annotations

import os
import re
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from localgd.testing import assert_matches_ddp, in_ranks
from localgd.testing.ranks import _failure, _first


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


def build(momentum=0.9):
    model = Network().double()
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)


def plain():
    """Without a batch normalisation: no buffers."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def single():
    """In float32."""
    model = Network()
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def forgetful():
    model = plain()[0]
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def decayed():
    model = plain()[0]
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)


def adam():
    model = plain()[0]
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def batches(rank, world, sizes=(8, 8, 8, 8)):  # noqa: ARG001
    draws = torch.Generator().manual_seed(rank)
    shape = {"generator": draws, "dtype": torch.float64}
    return [(torch.randn(sizes[rank], 5, **shape), torch.randint(3, (sizes[rank],), generator=draws)) for _ in range(6)]


def in_float32(rank, world):
    return [(x.float(), y) for x, y in batches(rank, world)]


def unlike(rank, world):
    return batches(rank, world, sizes=(4, 12))


def loss(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def step(model, optimizer, batch):
    optimizer.zero_grad()
    loss(model, batch).backward()
    optimizer.step()


def mean(tensors):
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor.div_(dist.get_world_size())


def states(optimizer):
    return [state["momentum_buffer"] for state in optimizer.state.values() if state.get("momentum_buffer") is not None]


def everything(model, optimizer, data):
    """Average parameters, momentum and the buffers that are no counters."""
    for batch in data:
        step(model, optimizer, batch)
        floats = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        mean([*(parameter.data for parameter in model.parameters()), *states(optimizer), *floats])


def localgds_own(model, optimizer, data):
    from localgd.nets import LocalSGD

    with LocalSGD(model, optimizer, sync_every=1) as local:
        for batch in data:
            step(model, optimizer, batch)
            local.step(batch)


def parameters_only(model, optimizer, data):
    """What wrappers do that average what `parameters()` names."""
    for batch in data:
        step(model, optimizer, batch)
        mean([parameter.data for parameter in model.parameters()])


def parameters_and_momentum(model, optimizer, data):
    for batch in data:
        step(model, optimizer, batch)
        mean([*(parameter.data for parameter in model.parameters()), *states(optimizer)])


def without_the_last_bucket(model, optimizer, data, room=50):
    """Buckets of so many numbers, of which the last one, not full, is never sent."""
    for batch in data:
        step(model, optimizer, batch)
        bucket = []
        for tensor in [*(parameter.data for parameter in model.parameters()), *states(optimizer), *model.buffers()]:
            bucket.append(tensor)
            if sum(one.numel() for one in bucket) >= room:
                mean(bucket)
                bucket = []


def never(model, optimizer, data):
    for batch in data:
        step(model, optimizer, batch)


def of_a_copy(model, optimizer, data):  # noqa: ARG001
    other, own = plain()
    parameters_and_momentum(other, own, data)


def once(model, optimizer, data):
    never(model, optimizer, data)
    mean([*(parameter.data for parameter in model.parameters()), *states(optimizer)])


def added(model, optimizer, data):
    for batch in data:
        before = [parameter.detach().clone() for parameter in model.parameters()]
        step(model, optimizer, batch)
        for parameter, old in zip(model.parameters(), before, strict=True):
            update = parameter.detach() - old
            dist.all_reduce(update)
            parameter.data.copy_(old + update)


def added_with_momentum_averaged(model, optimizer, data):
    for batch in data:
        added(model, optimizer, [batch])
        mean(states(optimizer))


def every(steps, model, optimizer, data, *, momentum=True):
    for place, batch in enumerate(data, start=1):
        step(model, optimizer, batch)
        if place % steps == 0:
            mean([*(parameter.data for parameter in model.parameters()), *(states(optimizer) if momentum else ())])


def reset(model, optimizer, data):
    for batch in data:
        step(model, optimizer, batch)
        mean([parameter.data for parameter in model.parameters()])
        optimizer.state.clear()


CASES = {
    "everything": (everything, build, batches, {}, None),
    "localgd's own": (localgds_own, build, batches, {}, None),
    "localgd's own, in float32": (localgds_own, single, in_float32, {}, None),
    "localgd's own, without momentum": (localgds_own, forgetful, batches, {}, None),
    "localgd's own, unlike batches": (localgds_own, plain, unlike, {"weights": "batch"}, None),
    "unlike batches, all ranks alike": (parameters_and_momentum, plain, unlike, {}, None),
    "what is left out is left out": (
        parameters_only,
        build,
        batches,
        {"buffers": False, "optimizer_state": False},
        None,
    ),
    "parameters only": (
        parameters_only,
        build,
        batches,
        {},
        r"buffer norm.running_mean, norm.running_var|norm.running_var, norm.running_mean",
    ),
    "parameters and momentum": (
        parameters_and_momentum,
        build,
        batches,
        {},
        r"one network answers otherwise in each; average buffers, too",
    ),
    "parameters without momentum": (
        parameters_only,
        plain,
        batches,
        {},
        r"momentum_buffer of .* each rank keeps its own; average the optimizer's",
    ),
    "last bucket": (
        without_the_last_bucket,
        forgetful,
        batches,
        {},
        r"2\.bias.*other numbers there. 3 other parameters are the same in all ranks: the sync leaves these out",
    ),
    "never": (never, plain, batches, {}, r"No parameter is the same in all ranks: train does not sync"),
    "a copy": (of_a_copy, plain, batches, {}, r"It looks like this: train leaves the model as it was"),
    "once": (once, plain, batches, {}, r"It looks like this: ranks are averaged once, at the end"),
    "added": (added, plain, batches, {}, r"of the ranks are added up, where they should be averaged"),
    "added, with decay": (added, decayed, batches, {}, r"updates .* added up, where .* averaged: divide by the number"),
    "added, with decay, momentum averaged": (
        added_with_momentum_averaged,
        decayed,
        batches,
        {},
        r"updates of the ranks are added up, where they should be averaged: divide by the number of ranks",
    ),
    "added, momentum averaged": (added_with_momentum_averaged, plain, batches, {}, r"of the ranks are added up, where"),
    "every 3": (
        partial(every, 3),
        plain,
        batches,
        {},
        r"the same in all ranks. It looks like this: ranks are averaged after every 3 steps only \(momentum averaged",
    ),
    "every 3, momentum kept": (
        partial(every, 3, momentum=False),
        plain,
        batches,
        {},
        r"ranks are averaged after every 3 steps only \(momentum kept in each\), and not after every step",
    ),
    "every 4, and 2 more": (
        partial(every, 4),
        plain,
        batches,
        {},
        r"other numbers there. It looks like this: ranks are averaged after every 4 steps only .*, nor after the last",
    ),
    "every 2, of adam": (
        partial(every, 2, momentum=False),
        adam,
        batches,
        {},
        r"ranks are averaged after every 2 steps only \(momentum kept in each\)",
    ),
    "reset": (reset, plain, batches, {}, r"the optimizer's state is reset at every sync"),
    "mean of unlike batches": (
        parameters_and_momentum,
        plain,
        unlike,
        {"weights": "batch"},
        r"ranks count by nothing \(all alike\), where the size of their batches was asked for",
    ),
    "by size": (localgds_own, plain, unlike, {}, r"count by the size of their batches, .*\(weights='batch' if that is"),
    "adam": (parameters_only, adam, batches, {}, r"after steps of Adam, whose update is not linear in the gradient"),
}
"""Training, model, batches and options; and what is said, None if it is right."""


def drawn():
    torch.seed()
    return plain()


def uneven(rank, world):
    return batches(rank, world)[: 3 + rank]


REFUSED = {
    "numbers drawn anew": (drawn, batches, r"build makes other numbers each time, as in 0.weight"),
    "batches": (plain, uneven, r"ranks have 3 to 4 batches; DistributedDataParallel needs as many"),
    "a model alone": (lambda: plain()[0], batches, r"build must return \(model, optimizer\), got Sequential"),
}
"""Model and batches that nothing can be compared of."""


def said_of_each():
    """Return what is said of each case, in one program that has a process group."""
    given = {name: (train, made, data, options) for name, (train, made, data, options, _) in CASES.items()}
    given |= {name: (everything, made, data, {}) for name, (made, data, _) in REFUSED.items()}
    out = {}
    for name, (train, made, data, options) in given.items():
        try:
            assert_matches_ddp(train, made, data, loss, **options)
        except (AssertionError, TypeError, ValueError) as error:
            out[name] = str(error)
    return out


@pytest.fixture(scope="module")
def said():
    first, second = in_ranks(said_of_each, world=2)
    assert first == second  # all ranks say the same
    return first


@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_what_is_right_passes_and_a_fault_is_named(name, said):
    words = CASES[name][-1]
    if words is None:
        assert name not in said, said[name]
    else:
        assert said[name].startswith("not DistributedDataParallel (2 ranks, 6 steps):")
        assert re.search(words, said[name]), said[name]


@pytest.mark.processes
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused_in_words(name, said):
    assert re.search(REFUSED[name][-1], said[name]), said[name]


@pytest.mark.processes
def test_it_starts_ranks_of_its_own_and_takes_what_a_test_has_at_hand():
    listed = [batches(rank, 2) for rank in range(2)]
    with pytest.raises(AssertionError, match=r"(?s)buffer norm.running.*answers otherwise in each"):
        assert_matches_ddp(partial(parameters_only), build, listed, lambda *given: [loss(*given)][0])


@pytest.mark.processes
def test_a_rank_that_fails_is_named_with_its_traceback():
    def fails():
        if dist.get_rank() == 1:
            raise KeyError("no such column")
        dist.barrier()

    with pytest.raises(RuntimeError, match=r"rank 1: KeyError: 'no such column'") as caught:
        in_ranks(fails)
    assert "Traceback" in caught.value.__notes__[0]


def test_of_ranks_that_fail_the_first_is_named(tmp_path):
    for rank in range(3):
        (tmp_path / f"output-{rank}").write_text(f"rank {rank} speaking")
    (tmp_path / "error-0").write_text("RuntimeError\nconnection closed by peer")

    def failure(codes):
        failed = [rank for rank in range(3) if codes.get(rank) != 0]
        return _failure(tmp_path, _first(tmp_path, failed, codes), codes, 60.0)

    assert str(failure({0: 1, 1: -9, 2: 0})) == "rank 1 ended with code -9"
    assert str(failure({0: 0, 1: 0})) == "rank 2 did not end within 60 s, and was stopped"
    assert failure({0: 1, 2: 0}).args == ("rank 0: RuntimeError: connection closed by peer",)
    (tmp_path / "error-2").write_text("AssertionError\nnot alike")
    os.utime(tmp_path / "error-2", (0, 0))
    found = failure({0: 1, 1: 0, 2: 1})
    assert isinstance(found, AssertionError)
    assert found.__notes__ == ["rank 2 wrote:\nrank 2 speaking"]


OPTIONS = [
    ({"train": 3}, "train must be a function"),
    ({"weights": "rows"}, "weights must be 'equal' or 'batch'"),
    ({"rtol": 0.0}, "rtol must be a positive number"),
    ({"world": 0}, "world must be a whole number of at least 1"),
    ({"buffers": "yes"}, "buffers must be True or False"),
    ({"batches": [[]], "world": 2}, "batches are those of 1 ranks, and world is 2"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_settings_out_of_range_are_refused(options, words):
    given = {"train": everything, "build": build, "batches": batches, "loss": loss} | options
    with pytest.raises((TypeError, ValueError), match=words):
        assert_matches_ddp(**given)


def test_what_cannot_be_sent_says_so():
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="cannot be sent to other processes, with what it refers to"):
        in_ranks(lambda: lock)
