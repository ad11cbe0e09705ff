"""What networks refuse, and what they leave alone; partitions of a dataset; the page's example."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from localgd import (
    Angle,
    HardMargin,
    InProcess,
    Int8,
    Method,
    NodeError,
    Regularised,
    Shard,
    Status,
    certify,
    check_method,
    local_sgd,
    mean,
    train,
)
from localgd.nets import Examples, NetSteps, Network, partition_dataset
from localgd.testing.check import MethodError
from nets.federated import cross_entropy, digits, network, nodes
from nets.models import MODELS

FEDAVG = Method("fedavg", NetSteps(local_steps=3, lr=0.05, batch_size=16, at_once=False), mean())


def test_nothing_is_ever_certified():
    engine, problem = InProcess(nodes()), network()
    run = train(engine, FEDAVG, problem=problem, n_rounds=2)
    assert run.certificate.to_dict()["angle_deg_max"] is None
    assert run.certificate.separable is None
    with pytest.raises(ValueError, match="nothing can be proved of a network: no theorem says which one"):
        certify(run.w, engine, problem=problem)
    with pytest.raises(ValueError, match="nothing is proved about a network; leave the goal out"):
        train(engine, FEDAVG, problem=problem, goal=Angle(1.0))
    with pytest.raises(ValueError, match="reference is the direction of a linear model, and a network has none"):
        train(engine, FEDAVG, problem=problem, reference=run.w)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((nn.Linear(2, 3), cross_entropy), "build must be a function that returns a module, as lambda: nn.Linear"),
        ((lambda: nn.Linear(2, 3), nn.CrossEntropyLoss()), "loss must be a function of a model and a batch, as lambda"),
    ],
)
def test_a_module_is_no_function_that_makes_one(given, words):
    with pytest.raises(TypeError, match=words):
        Network(*given)


def test_codes_are_refused_in_words():
    with pytest.raises(ValueError, match=r"fedavg: Compressed works on rows, .*without compress"):
        train(InProcess(nodes()), FEDAVG.compressed(Int8()), problem=network(), n_rounds=1)


@pytest.mark.parametrize("problem", [HardMargin(), Regularised(C=1.0)])
def test_steps_of_a_network_look_for_nothing_else(problem):
    with pytest.raises(ValueError, match="fedavg: it trains a network, and cannot look for the"):
        train(InProcess([Shard("a", [[1.0]])]), FEDAVG, problem=problem, n_rounds=1)


def test_rows_and_examples_are_told_apart():
    with pytest.raises(NodeError, match=r"this node holds Shard, not examples .* localgd.nets.Examples"):
        train(InProcess([Shard("a", [[1.0]])]), FEDAVG, problem=network(), n_rounds=1)
    with pytest.raises(NodeError, match="this node holds examples of a network, not signed rows; give problem=Network"):
        train(InProcess(nodes()), local_sgd(lr=0.1), n_rounds=1)


class Counted(nn.Module):
    """A module that writes to a table, which no rule speaks of."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(40, 3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.seen += 1.0
        return self.head(x)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_buffer_without_a_rule_is_refused_by_name_and_with_one_averaged(at_once):
    method = Method("fedavg", NetSteps(local_steps=3, at_once=at_once), mean())
    held = nodes((40, 40))
    with pytest.raises(NodeError, match=r"seen changed in local steps, .*'seen': 'mean'|cannot be trained at once"):
        train(InProcess(held), method, problem=Network(Counted, cross_entropy), n_rounds=1)
    problem = Network(Counted, cross_entropy, buffers={"seen": "mean"})
    run = train(InProcess(held), method, problem=problem, n_rounds=2)
    assert problem.module(run.w).seen.tolist() == [6.0] * 3


def trunk():
    """A convolution whose batch normalisation is used as it is, also while the head is trained."""
    model = MODELS["cnn with batch normalisation"]()
    model.norm.eval()
    return model


def test_what_was_built_for_evaluation_stays_so():
    problem = Network(trunk, cross_entropy)
    run = train(InProcess(nodes()), FEDAVG, problem=problem, n_rounds=2)
    assert problem.module(run.w).norm.running_mean.tolist() == [0.0] * 4
    assert int(problem.module(run.w).norm.num_batches_tracked) == 0
    assert run.history[-1].loss < run.history[0].loss


def test_a_method_is_tried_on_rows_only():
    with pytest.raises(MethodError, match="a network has none: run it on nodes of yours"):
        check_method(FEDAVG, network())


def test_a_loss_that_is_no_number_is_refused():
    problem = Network(lambda: nn.Linear(40, 3), lambda model, batch: model(batch[0]))
    with pytest.raises(NodeError, match="loss must return one number, the mean over the batch"):
        train(InProcess(nodes()), FEDAVG, problem=problem, n_rounds=1)


def test_what_blows_up_ends_in_words():
    method = Method("fedavg", NetSteps(local_steps=30, lr=1e38, at_once=False), mean())
    run = train(InProcess(nodes()), method, problem=network(), n_rounds=5)
    assert run.certificate.verdict is Status.DIVERGED


def test_real_targets_have_a_loss_and_no_accuracy():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    held = partition_dataset(TensorDataset(x, x.sum(1, keepdim=True)), None, "iid", 3)
    problem = Network(lambda: nn.Linear(4, 1), lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]))
    run = train(InProcess(held), local_sgd(lr=0.05, local_steps=10), problem=problem, n_rounds=20)
    assert run.history[-1].loss < 0.01 * run.history[0].loss
    assert np.isnan(run.history[-1].accuracy)


@pytest.mark.parametrize(("how", "labels"), [("iid", None), ("by_label", 1), ("dirichlet:0.2", 1), ("by_size:2", None)])
def test_one_dataset_is_dealt_to_nodes(how, labels):
    data = TensorDataset(torch.arange(100), torch.arange(100) % 5)
    held = partition_dataset(data, None if labels is None else data.tensors[1], how, 8, seed=3)
    assert [node.node_id for node in held] == [f"node-{place}" for place in range(8)]
    assert sorted(int(node.data[i][0]) for node in held for i in range(node.n_samples)) == list(range(100))
    again = partition_dataset(data, None if labels is None else data.tensors[1], how, 8, seed=3)
    assert [node.data.indices for node in held] == [node.data.indices for node in again]


@pytest.mark.parametrize(
    ("how", "labels", "n_nodes", "words"),
    [
        ("by_feature:age", None, 2, "looks at a column, which a dataset has not"),
        ("by_label", None, 2, "labels must be given for how='by_label'"),
        ("iid", [1], 2, "labels must be one a row of data, 3"),
        ("iid", None, 4, "n_nodes=4 must be from 1 to the 3 rows"),
    ],
)
def test_partitions_that_cannot_be_are_refused(how, labels, n_nodes, words):
    with pytest.raises(ValueError, match=words):
        partition_dataset(TensorDataset(torch.eye(3)), labels, how, n_nodes)


def test_examples_are_checked():
    with pytest.raises(ValueError, match="node 'a' has no example"):
        Examples("a", TensorDataset(torch.zeros(0, 2)))
    with pytest.raises(TypeError, match="data of node 'a' must be a torch Dataset with a length"):
        Examples("a", iter([1]))


def test_accuracy_is_that_of_the_examples():
    held = digits(4)
    problem = Network(lambda: nn.Linear(64, 10), cross_entropy)
    run = train(InProcess(held), local_sgd(lr=0.2, local_steps=10), problem=problem, n_rounds=4)
    model, right = problem.module(run.w), 0
    for node in held:
        x, y = node.batch(np.arange(node.n_samples))
        right += int((model(x).argmax(1) == y).sum())
    assert run.history[-1].accuracy == right / 1797


def test_the_programs_of_the_page_run(capsys, monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    section = page[page.index("## Fifty nodes on a laptop") :]
    first, second = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(first.strip().splitlines()) <= 20
    names = {"__name__": "page"}
    exec(compile(first, "networks.md", "exec"), names)  # noqa: S102
    assert float(re.search(r"([\d.]+)% right", capsys.readouterr().out)[1]) > 90
    monkeypatch.chdir(tmp_path)
    exec(compile(second, "networks.md", "exec"), names)  # noqa: S102
    for name, tensor in names["model"].state_dict().items():
        assert torch.equal(names["again"].state_dict()[name], tensor)
    assert names["run"].n_rounds == 40
    assert len(names["run"].history) == 41
