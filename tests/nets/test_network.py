"""Networks of many nodes in one process: against loops written by hand, and through all that a run can do."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from cut import CutError, assert_same_run, cut_at
from localgd import (
    Checkpoints,
    InProcess,
    Method,
    NodeError,
    SampledNodes,
    Status,
    chain,
    local_sgd,
    mean,
    train,
)
from localgd.nets import Examples, NetSteps, Network
from localgd.rules.local import node_seed
from localgd.rules.server import Momentum
from nets.federated import apart, cross_entropy, digits, network, nodes
from nets.models import MODELS

ALONE = {"at_once": False}


def fedavg(merge=None, **settings):
    return Method("fedavg", NetSteps(**{"local_steps": 5, "lr": 0.05, "batch_size": 16, **settings}), merge or mean())


def test_ten_nodes_learn_digits():
    run = train(
        InProcess(digits(10)),
        local_sgd(local_steps=20, lr=0.3),
        problem=Network(lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), cross_entropy),
        n_rounds=15,
    )
    assert run.history[-1].accuracy > 0.95
    assert run.history[-1].loss < 0.2 < run.history[0].loss
    assert all(row.drift > 0 for row in run.history[:-1])
    assert np.isnan(run.history[-1].drift)
    assert run.certificate.verdict is Status.UNDECIDED
    assert "no theorem says which network local steps lead to" in run.certificate.status


def by_hand(problem, held, *, n_rounds, n_steps, size, optimizer):
    """FedAvg as one would write it with torch alone: no buffers, nodes weighing as their examples."""
    shared = problem.module(problem.start())
    for round_ in range(n_rounds):
        ends = []
        for node in held:
            model = copy.deepcopy(shared).train()
            steps = optimizer(model.parameters())
            rng = np.random.default_rng([0, round_, node_seed(node.node_id)])
            n = node.n_samples
            chain_ = np.concatenate([rng.permutation(n) for _ in range(-(-n_steps * min(size, n) // n))])
            for places in chain_[: n_steps * min(size, n)].reshape(n_steps, -1):
                steps.zero_grad()
                cross_entropy(model, node.batch(places)).backward()
                steps.step()
            ends.append(dict(model.named_parameters()))
        total = sum(node.n_samples for node in held)
        with torch.no_grad():
            for name, parameter in shared.named_parameters():
                updates = [
                    node.n_samples / total * (end[name] - parameter) for node, end in zip(held, ends, strict=True)
                ]
                parameter.add_(sum(updates))
    return shared


HOW = {
    "sgd": ({}, lambda p: torch.optim.SGD(p, lr=0.05)),
    "momentum": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "nesterov": (
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["mlp", "tied", "frozen trunk", "transformer block"])
def test_a_run_is_the_loop_that_one_would_write(name, how, at_once):
    settings, optimizer = HOW[how]
    problem, held = network(name, "float64"), nodes((40, 24, 24), "float64")
    run = train(InProcess(held), fedavg(at_once=at_once, **settings), problem=problem, n_rounds=3)
    expected = by_hand(problem, held, n_rounds=3, n_steps=5, size=16, optimizer=optimizer)
    found = dict(problem.module(run.w).named_parameters())
    for parameter, other in expected.named_parameters():
        assert torch.dist(found[parameter], other) <= 1e-12 * other.norm(), parameter


AT_ONCE = ("mlp", "cnn with batch normalisation", "transformer block", "embedding", "tied", "frozen trunk")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", AT_ONCE)
def test_all_at_once_is_one_by_one_to_1e_6_over_ten_rounds(name, dtype, monkeypatch):
    held, problem, alone = nodes((40, 40, 40, 40, 12, 12, 7), dtype), network(name, dtype), []
    plain = NetSteps.descend
    monkeypatch.setattr(NetSteps, "descend", lambda task, node, *more: alone.append(node) or plain(task, node, *more))
    run = train(InProcess(held), fedavg(at_once=True, momentum=0.9), problem=problem, n_rounds=10)
    assert {node.node_id for node in alone} == {"node-6"}  # whose seven examples are a batch of no other's size
    loop = train(InProcess(held), fedavg(at_once=False, momentum=0.9), problem=problem, n_rounds=10)
    off = apart(problem, run.w, loop.w)
    print(f"{name}, {dtype}: {off:.1e}")  # noqa: T201  for whoever runs with -s
    assert off <= (1e-6 if dtype == "float32" else 1e-12)
    assert run.history[-1].n_nodes == 7


@pytest.mark.parametrize("name", ["mlp", "cnn with batch normalisation"])
def test_nodes_of_unlike_sizes_take_their_epochs_at_once_too(name):
    held, problem = nodes((64, 40, 33, 17, 16), "float64"), network(name, "float64")
    settings = {"local_steps": None, "epochs": 2, "momentum": 0.9, "prox": 0.1}
    runs = [
        train(InProcess(held), fedavg(at_once=at_once, **settings), problem=problem, n_rounds=4)
        for at_once in (True, False)
    ]
    assert apart(problem, runs[0].w, runs[1].w) <= 1e-12
    if name != "mlp":
        assert int(problem.module(runs[0].w).norm.num_batches_tracked) == 4 * 8  # the most of any node


def test_tied_weights_are_one_and_stay_tied():
    """A copy of a module on another device unties them, and training then goes another way without an error."""
    problem, held = network("tied"), nodes()
    n_numbers = sum(parameter.numel() for parameter in MODELS["tied"]().parameters())
    assert problem.start().size == n_numbers
    runs = [train(InProcess(held), fedavg(at_once=at_once), problem=problem, n_rounds=10) for at_once in (True, False)]
    assert apart(problem, runs[0].w, runs[1].w) <= 1e-6
    module = problem.module(runs[0].w)
    assert module.decode.weight is module.encode.weight
    untied = Network(untied_model, cross_entropy)
    assert untied.start().size == n_numbers + 1600
    other = train(InProcess(held), fedavg(**ALONE), problem=untied, n_rounds=10)
    assert not np.allclose(untied.module(other.w).decode.weight.detach(), module.decode.weight.detach(), atol=1e-3)


def untied_model():
    model = MODELS["tied"]()
    model.decode.weight = nn.Parameter(model.decode.weight.detach().clone())
    return model


@pytest.mark.parametrize("at_once", [False, True])
def test_statistics_are_those_of_the_union_of_the_batches(at_once):
    """One step of size 0 on all examples of alike nodes: what one node with all of them would have."""
    held = nodes((30, 30, 30), "float64")
    problem = network("cnn with batch normalisation", "float64")
    task = {"local_steps": 1, "lr": 1e-300, "batch_size": None, "at_once": at_once}
    run = train(InProcess(held), fedavg(**task), problem=problem, n_rounds=1)
    pooled = problem.module(problem.start()).train()
    pooled(torch.cat([node.data.tensors[0] for node in held]))
    found = problem.module(run.w)
    torch.testing.assert_close(found.norm.running_mean, pooled.norm.running_mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.norm.running_var, pooled.norm.running_var, rtol=1e-12, atol=0)
    assert int(found.norm.num_batches_tracked) == 1


def test_no_momentum_of_a_server_acts_on_statistics():
    held, problem = nodes((30, 30, 30)), network("cnn with batch normalisation")
    still = {"local_steps": 4, "lr": 1e-30, **ALONE}
    merges = (mean(), chain(mean(), Momentum(0.9, 0.7, nesterov=True)))
    plain, pushed = (train(InProcess(held), fedavg(merge, **still), problem=problem, n_rounds=6) for merge in merges)
    found, other = (problem.module(run.w).norm for run in (plain, pushed))
    assert torch.equal(found.running_mean, other.running_mean)
    assert torch.equal(found.running_var, other.running_var)
    assert int(found.num_batches_tracked) == int(other.num_batches_tracked) == 24


def cumulative():
    model = MODELS["cnn with batch normalisation"]()
    model.norm.momentum = None
    return model


def test_cumulative_statistics_go_one_by_one_or_at_once_alike():
    problem, held = Network(cumulative, cross_entropy), nodes((30, 30))
    runs = [train(InProcess(held), fedavg(at_once=at_once), problem=problem, n_rounds=4) for at_once in (None, False)]
    assert apart(problem, runs[0].w, runs[1].w) <= 1e-6


def test_what_draws_random_numbers_goes_one_by_one_from_the_seeds():
    problem, held = network("group normalisation and dropout"), nodes()
    runs = [train(InProcess(held, n_jobs=jobs), fedavg(), problem=problem, n_rounds=3) for jobs in (1, 2)]
    assert_same_run(*runs)
    assert "one by one" in runs[0].certificate.reason
    other = train(InProcess(held), fedavg(seed=1), problem=problem, n_rounds=3)
    assert apart(problem, other.w, runs[0].w) > 1e-3
    with pytest.raises(NodeError, match=r"at_once=True: this network cannot be trained at once .*random"):
        train(InProcess(held), fedavg(at_once=True), problem=problem, n_rounds=1)


def test_the_users_own_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train(InProcess(nodes()), fedavg(), problem=network("group normalisation and dropout"), n_rounds=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("at_once", [False, True])
def test_neither_order_of_nodes_nor_threads_matter(at_once):
    held, method = nodes(), fedavg(at_once=at_once)
    runs = [
        train(engine, method, problem=network(), n_rounds=3)
        for engine in (InProcess(held), InProcess(held[::-1], n_jobs=2))
    ]
    assert_same_run(*runs)


def test_the_trial_of_the_first_round_decides_and_is_said():
    run = train(InProcess(nodes((40,) * 12)), fedavg(local_steps=10), problem=network(), n_rounds=2)
    assert "nodes were trained" in run.certificate.reason
    lone = train(InProcess(nodes((40,))), fedavg(), problem=network(), n_rounds=2)
    assert "one by one" in lone.certificate.reason


@pytest.mark.parametrize("at_once", [None, False, True])
@pytest.mark.parametrize("merge", [mean(), chain(mean(), Momentum(0.7, 0.8))], ids=["mean", "momentum"])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(merge, at_once, tmp_path):
    problem, held = network("cnn with batch normalisation"), nodes()
    settings = {"problem": problem, "n_rounds": 6}
    method = fedavg(merge, at_once=at_once)
    kept = Checkpoints(tmp_path / "run", every_rounds=1)
    with pytest.raises(CutError):
        train(InProcess(held), method, checkpoints=kept, on_round=cut_at(3), **settings)
    found = train(InProcess(held), method, checkpoints=kept, **settings)
    assert found.n_rounds == 6
    if at_once is not None:  # a trial may go either way in another run
        assert_same_run(found, train(InProcess(held), method, **settings))


def test_the_choice_of_the_trial_is_that_of_the_checkpoint(tmp_path, monkeypatch):
    """Even if a trial would go the other way when the run goes on."""
    from localgd.nets import at_once

    said = iter(({at_once.ALONE: 2.0, at_once.TOGETHER: 1.0}, {at_once.ALONE: 1.0, at_once.TOGETHER: 2.0}))
    monkeypatch.setattr(at_once.Stacked, "tried", lambda _: next(said))
    kept = Checkpoints(tmp_path / "run", every_rounds=1)
    runs = [
        train(InProcess(nodes()), fedavg(), problem=network(), n_rounds=rounds, checkpoints=kept) for rounds in (2, 4)
    ]
    assert all("at once" in run.certificate.reason for run in runs)


def test_other_examples_are_refused_when_a_run_goes_on(tmp_path):
    kept = Checkpoints(tmp_path / "run", every_rounds=1)
    train(InProcess(nodes()), fedavg(), problem=network(), n_rounds=2, checkpoints=kept)
    with pytest.raises(NodeError, match="not those of the checkpoint"):
        train(InProcess(nodes(seed=1)), fedavg(), problem=network(), n_rounds=4, checkpoints=kept)


def test_some_of_the_nodes_take_part():
    held = digits(20, "dirichlet:0.3")
    run = train(
        InProcess(held),
        local_sgd(local_steps=10, lr=0.2),
        problem=Network(lambda: nn.Linear(64, 10), cross_entropy),
        n_rounds=12,
        nodes=SampledNodes(0.3),
    )
    assert {row.n_nodes for row in run.history[:-1]} == {6}
    assert run.history[-1].n_nodes == 20
    assert run.history[-1].accuracy > 0.7


@dataclass(frozen=True)
class Torn(Dataset):
    """Examples of which one cannot be read."""

    data: TensorDataset

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        if place == 5:
            raise OSError("this image is torn")
        return self.data[place]


def test_a_node_that_fails_ends_the_run_or_is_left_out():
    held = nodes()
    held[1] = Examples("node-1", Torn(held[1].data))
    with pytest.raises(NodeError, match="round 0, node 'node-1': OSError: this image is torn"):
        train(InProcess(held), fedavg(), problem=network(), n_rounds=3)
    run = train(InProcess(held, on_failure="skip"), fedavg(at_once=True), problem=network(), n_rounds=3)
    assert {row.n_nodes for row in run.history} == {4}
    others = train(InProcess([held[0], *held[2:]]), fedavg(at_once=True), problem=network(), n_rounds=3)
    assert np.array_equal(run.w, others.w)


class Plain(Dataset):
    """Any dataset of torch: examples one by one."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        return self.data[place]


def test_any_dataset_will_do():
    held = nodes()
    plain = [Examples(node.node_id, Plain(node.data)) for node in held]
    runs = [train(InProcess(one), fedavg(**ALONE), problem=network(), n_rounds=2) for one in (held, plain)]
    assert_same_run(*runs)


def test_float32_travels_as_float32():
    problem, held = network(), nodes()
    run = train(InProcess(held), fedavg(**ALONE), problem=problem, n_rounds=2)
    d, n = problem.start().size, len(held)
    down = np.diff([row.floats_down for row in run.history])
    up = np.diff([row.floats_up for row in run.history])
    assert down.max() <= n * (d / 2 + 2)
    assert up[0] <= n * (d / 2 + 10)
    assert np.array_equal(run.w, run.w.astype(np.float32))
    wide = train(InProcess(nodes(dtype="float64")), fedavg(**ALONE), problem=network(dtype="float64"), n_rounds=2)
    assert np.diff([row.floats_down for row in wide.history]).min() >= n * d
