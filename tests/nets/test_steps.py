"""Whose steps a run counts: those of the optimizer that it was given, once each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD
from nets.threads import in_threads


def loss(model, batch):
    return model(batch).square().mean()


def program(monkeypatch, train, world=2, **options):
    """Return what ``train(model, optimizer, local)`` returns in each rank."""

    def own(_):
        model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return train(model, optimizer, LocalSGD(model, optimizer, **options))

    return in_threads(monkeypatch, world, own)


def stepped(model, *optimizers):
    loss(model, torch.ones(4, 2)).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("sync_every", [1, 3])
@pytest.mark.parametrize("foreach", [False, True])
def test_an_optimizer_that_the_loop_replaces_is_noticed(sync_every, overlap, foreach, monkeypatch):
    def train(model, optimizer, local):
        for _ in range(6):
            stepped(model, optimizer)
            local.step(4)
        other = torch.optim.Adam(model.parameters(), foreach=foreach)
        stepped(model, other)
        local.step(4)
        stepped(model, other)
        with pytest.raises(ValueError, match="the optimizer that LocalSGD was given, SGD, made none: another one"):
            local.step(4)

    program(monkeypatch, train, sync_every=sync_every, overlap=overlap)


def swapped_weights(model, optimizer):
    """Evaluate with other weights where a loss scaler has left a step out."""
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.copy_(parameter.clone())
    return optimizer


def left_out(model, optimizer):
    """Leave a step out, as a loss scaler does."""


def cut(model, optimizer):
    """Keep weights in bounds after a step."""
    stepped(model, optimizer)
    for parameter in model.parameters():
        parameter.data.clamp_(-1, 1)
        with torch.no_grad():
            parameter.clamp_(-1, 1)


def by_both(model, optimizer):
    """Have another optimizer of the same parameters step, too."""
    stepped(model, torch.optim.SGD(model.parameters(), lr=0.01), optimizer)


@pytest.mark.parametrize("between", [swapped_weights, left_out, cut, by_both], ids=lambda each: each.__name__)
def test_what_a_loop_does_beside_its_optimizer_is_no_replacement(between, monkeypatch):
    def train(model, optimizer, local):
        for _ in range(3):
            between(model, optimizer)
            local.step(4)
            stepped(model, optimizer)
            local.step(4)
        local.finish()
        return [sync.steps for sync in local.history]

    assert program(monkeypatch, train, sync_every=1) == [[(1, 1)] * 6] * 2


def test_calls_are_steps_also_where_gradients_add_up(monkeypatch):
    def train(model, optimizer, local):
        for k in range(8):
            loss(model, torch.ones(4, 2)).backward()
            if k % 2:
                optimizer.step()
                optimizer.zero_grad()
            local.step(4)
        return [sync.steps for sync in local.history]

    assert program(monkeypatch, train, sync_every=4) == [[(4, 4)] * 2] * 2


METERS = {
    "compare": {"compare_every": 1, "loss": loss},
    "shadow": {"shadow": True, "loss": loss, "probe": torch.ones(3, 2)},
}


@pytest.mark.parametrize("made", [0, 2])
@pytest.mark.parametrize("name", METERS)
def test_meters_refuse_steps_that_they_cannot_take(name, made, monkeypatch):
    def train(model, optimizer, local):
        batch = torch.ones(4, 2)
        for _ in range(3):
            stepped(model, optimizer)
            local.step(batch)
        for _ in range(made):
            stepped(model, optimizer)
        with pytest.raises(ValueError, match=rf"made {made or 'no'} steps since the last local.step\(\), and compare"):
            local.step(batch)

    program(monkeypatch, train, sync_every=2, **METERS[name])


def test_the_optimizer_is_left_without_hooks(monkeypatch):
    def train(model, optimizer, local):
        with local:
            stepped(model, optimizer)
            local.step(torch.ones(4, 2))
        return len(optimizer._optimizer_step_post_hooks), len(optimizer._optimizer_step_pre_hooks)

    assert program(monkeypatch, train, **METERS["shadow"]) == [(0, 0)] * 2


def test_two_runs_of_unlike_size_go_side_by_side_as_each_would_alone(monkeypatch):
    def train(rank, widths):
        runs = []
        for width in widths:
            torch.manual_seed(width)
            model = nn.Linear(width, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            runs.append((model, optimizer, LocalSGD(model, optimizer, sync_every=2)))
        for k in range(6):
            for (model, optimizer, local), width in zip(runs, widths, strict=True):
                model(torch.full((4, width), 0.1 * (k + rank))).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                local.step(4)
        for _, _, local in runs:
            local.finish()
        return [model.weight.detach() for model, _, _ in runs]

    def own(widths):
        return in_threads(monkeypatch, 2, lambda rank: train(rank, widths))

    alone = [[*each, *other] for each, other in zip(own([2]), own([50]), strict=True)]
    for beside, apart in zip(own([2, 50]), alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(beside, apart, strict=True))
