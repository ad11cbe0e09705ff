"""Networks over Flower and over torch.distributed: the same bits as in one process."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from cut import CutError, assert_same_run, cut_at
from engines.flower_grid import grid_of
from localgd import Checkpoints, InProcess, Method, NodeError, fedprox, mean, slowmo, train
from localgd.flower import FlowerEngine
from localgd.methods.served import TASKS
from localgd.nets import TASKS as NET_TASKS
from localgd.nets import NetSteps, Network
from nets.federated import cross_entropy, network, nodes
from nets.test_ranks import pytest_in_ranks

PROBLEM = network("cnn with batch normalisation")
METHODS = {
    "fedavg": Method("fedavg", NetSteps(epochs=1, batch_size=8, at_once=False), mean()),
    "slowmo": slowmo(local_steps=3, lr=0.05),
    "fedprox": fedprox(local_steps={f"node-{place}": 1 + place for place in range(5)}, lr=0.05, prox=0.1),
}


def over_flower(held, tasks=(*TASKS, *NET_TASKS), **options):
    return FlowerEngine(grid_of(held, tasks), **{"timeout": 30.0, "poll": 1e-4, **options})


def nodes_of_eight():
    """Nodes of other people take no batches of fewer than eight."""
    return nodes((40, 33, 25, 16, 9))


@pytest.mark.parametrize("name", METHODS)
def test_over_flower_a_network_is_the_same_to_the_bit(name):
    problem, method = PROBLEM, METHODS[name]
    if name != "fedavg":  # whose task says so itself; a trial is of one process
        method = Method(name, NetSteps(**settings_of(method.task), at_once=False), method.merge)
    runs = [
        train(engine, method, problem=problem, n_rounds=3)
        for engine in (InProcess(nodes_of_eight()), over_flower(nodes_of_eight()))
    ]
    assert_same_run(*runs)


def settings_of(task):
    names = ("local_steps", "lr", "batch_size", "prox")
    return {name: getattr(task, name) for name in names}


def test_float32_travels_over_flower_as_float32():
    held, problem = nodes_of_eight(), network()
    engine = over_flower(held)
    run = train(engine, METHODS["fedavg"], problem=problem, n_rounds=4)
    d, n, rounds = problem.start().size, len(held), 5
    least = 4 * d * n
    assert least * rounds <= engine.bytes_down <= 1.5 * least * rounds + 60_000
    assert least * (rounds - 1) <= engine.bytes_up <= 1.5 * least * (rounds - 1) + 60_000
    assert run.history[-1].floats_down <= rounds * n * (d / 2 + 2)


def test_a_run_over_flower_goes_on_from_its_checkpoint(tmp_path):
    settings = {"problem": PROBLEM, "n_rounds": 4}
    kept = Checkpoints(tmp_path / "run", every_rounds=1)
    with pytest.raises(CutError):
        train(over_flower(nodes_of_eight()), METHODS["fedavg"], checkpoints=kept, on_round=cut_at(2), **settings)
    found = train(over_flower(nodes_of_eight()), METHODS["fedavg"], checkpoints=kept, **settings)
    expected = train(over_flower(nodes_of_eight()), METHODS["fedavg"], **settings)
    assert np.array_equal(found.w, expected.w)


def test_what_flower_cannot_send_is_refused_in_words():
    lone = Network(lambda: nn.Linear(40, 3), cross_entropy)
    with pytest.raises(TypeError, match="cannot be named to a node elsewhere: make build and loss functions"):
        train(over_flower(nodes_of_eight()), METHODS["fedavg"], problem=lone, n_rounds=1)
    with pytest.raises(NodeError, match=r"the task 'network.NetSizes' is not on the list of this node"):
        train(over_flower(nodes_of_eight(), TASKS), METHODS["fedavg"], problem=PROBLEM, n_rounds=1)


def test_a_network_that_a_node_has_not_made_is_refused(monkeypatch):
    grid = grid_of(nodes_of_eight(), (*TASKS, *NET_TASKS))
    app = grid.app

    def on_the_node(message, context):
        with monkeypatch.context() as node:
            node.setattr("localgd.nets.network._KNOWN", {})
            return app(message, context)

    grid.app = on_the_node
    with pytest.raises(NodeError, match=r"there is no Network.* here: make the same one in the node's app"):
        train(FlowerEngine(grid, timeout=30.0, poll=1e-4), METHODS["fedavg"], problem=PROBLEM, n_rounds=1)


@pytest.mark.processes
@pytest.mark.parametrize("world", [2])
def test_over_torch_distributed_a_network_is_the_same(world):
    pytest_in_ranks(world, "tests/nets/each_rank_networks.py")
