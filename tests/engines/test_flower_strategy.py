"""Flower: the certificate of a model that any other strategy trains."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.server import strategy as older
from flwr.serverapp.strategy import FedAvg

from engines.flower_grid import LocalGrid
from localgd import Angle, InProcess, NodeError, Shard, certify, from_arrays, prepare
from localgd.flower import Certified, FlowerEngine, answer

UNGUARDED = {"min-rows": 1, "min-batch": 1, "min-group": 1}
"""Node-config of nodes that have fewer than eight rows."""


def rows_and_fedavg():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 3)), None
    y = np.where(x[:, 0] + 0.3 > 0, 1.0, -1.0)
    keep = np.abs(x[:, 0] + 0.3) > 0.2
    x, y = np.column_stack([x, np.ones(60)])[keep], y[keep]
    return [Shard(f"site {i}", x[i::3] * y[i::3, None]) for i in range(3)]


def fedavg_app(shards):
    from flwr.app import Message as FlowerMessage
    from flwr.app import MetricRecord, RecordDict

    app = answer(ClientApp(), lambda context: shards[context.node_id - 2**63])

    @app.train()
    def fit(message, context):
        parts = [np.asarray(part) for part in message.content["arrays"].to_numpy_ndarrays()]
        w = np.concatenate([part.ravel() for part in parts])
        rows = shards[context.node_id - 2**63].rows
        for _ in range(50):
            w = w + 0.5 * rows.T @ (1 / (1 + np.exp(rows @ w))) / len(rows)
        new = ArrayRecord([w[:-1].reshape(1, -1), w[-1:]])
        metrics = MetricRecord({"num-examples": len(rows)})
        return FlowerMessage(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)

    return app


def test_what_fedavg_makes_is_certified_by_one_line_on_each_side():
    shards = rows_and_fedavg()
    grid = LocalGrid(fedavg_app(shards), [UNGUARDED] * 3)
    plain = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)
    strategy = Certified(plain, n_nodes=3, goal=Angle(30.0))
    result = strategy.start(grid, ArrayRecord([np.zeros((1, 3)), np.zeros(1)]), num_rounds=20)
    parts = result.arrays.to_numpy_ndarrays()
    w = np.concatenate([part.ravel() for part in parts])
    expected = certify(w, InProcess(shards), goal=Angle(30.0))
    assert strategy.certificate.to_dict() == expected.to_dict()
    metrics = result.evaluate_metrics_serverapp[20]
    assert metrics["margin_low"] == expected.margin_low > 0
    assert metrics["angle_deg_max"] == expected.angle_deg_max < 90
    assert metrics["certified"] == 1.0


def test_a_strategy_that_cannot_be_certified_keeps_what_it_made():
    shards = rows_and_fedavg()
    grid = LocalGrid(fedavg_app(shards), [UNGUARDED] * 3)
    strategy = Certified(FedAvg(fraction_evaluate=0.0), n_nodes=3, on_failure="skip", min_nodes=9)
    result = strategy.start(grid, ArrayRecord([np.zeros((1, 3)), np.zeros(1)]), num_rounds=1)
    assert len(result.arrays) == 2
    assert strategy.certificate is None


def test_tables_of_own_clients_need_the_recipe():
    x = np.array([[1.0], [2.0], [4.0], [5.0]])
    tables = from_arrays(x, ["no", "no", "yes", "yes"], groups=["a", "b", "a", "b"])
    app = answer(ClientApp(), lambda context: tables[context.node_id - 2**63])
    recipe = prepare(InProcess(tables), intercept=True)[1]
    grid = LocalGrid(app, [UNGUARDED] * 2)
    found = certify(np.array([1.0, -3.0]), FlowerEngine(grid, n_nodes=2).map(recipe))
    assert found.margin_low > 0
    with pytest.raises(NodeError, match="TypeError"):
        certify(np.array([1.0, -3.0]), FlowerEngine(grid, n_nodes=2))


class OlderOwn(older.FedProx):
    """A user's own, of the older API."""


class OlderBase(older.Strategy):
    """Derived from nothing else of the older API."""

    configure_fit = aggregate_fit = configure_evaluate = aggregate_evaluate = None
    initialize_parameters = evaluate = None


WRONG = {
    "older": (older.FedAvg(), r"FedAvg is of Flower's older API \(flwr.server.strategy\).*: take FedAvg from"),
    "its class": (older.FedAvg, r"FedAvg is of Flower's older API .*: take FedAvg from"),
    "derived from an older one": (
        OlderOwn(proximal_mu=0.1),
        "OlderOwn is of .* older API .*: take FedProx from",
    ),
    "an older base": (OlderBase, r"OlderBase is of Flower's older API .*: take Strategy from"),
    "a class": (
        FedAvg,
        r"strategy is the class FedAvg: .*, as in Certified\(FedAvg\(…\), n_nodes=3\)",
    ),
    "a name": ("FedAvg", "strategy must be one of flwr.serverapp.strategy, such as FedAvg.., got 'FedAvg'"),
    "nothing": (None, "strategy must be one of flwr.serverapp.strategy, such as FedAvg.., got None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_strategy_is_refused_with_the_remedy(name):
    strategy, words = WRONG[name]
    with pytest.raises(TypeError, match=words):
        Certified(strategy, n_nodes=3)


OPTIONS = {
    "no nodes": ({"n_nodes": 0}, ValueError, "n_nodes must be a whole number of at least 1"),
    "nodes in words": ({"n_nodes": "three"}, TypeError, "n_nodes must be of type int, got 'three'"),
    "an unknown option": ({"timeot": 3.0}, TypeError, "unexpected keyword argument 'timeot'"),
    "a recipe of another kind": ({"recipe": "scale"}, TypeError, "recipe must be of type .*Recipe.*, got 'scale'"),
    "a layer for its name": ({"head": 3}, TypeError, "head must be of type .*, got 3"),
    "a goal that is a number": ({"goal": 3.0}, ValueError, "goal=3.0 has no meaning here"),
    "a problem of another kind": ({"problem": "hard"}, TypeError, r"problem must be HardMargin\(\), Regularised"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options_are_refused_before_anything_is_trained(name):
    options, kind, words = OPTIONS[name]
    with pytest.raises(kind, match=words):
        Certified(FedAvg(), **{"n_nodes": 3, **options})


def test_apps_of_the_older_kind_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"has a client_fn, as in Flower's older API.*@app.train\(\)"):
        answer(ClientApp(client_fn=lambda context: None))  # noqa: ARG005
    with pytest.raises(TypeError, match=r"app must be a ClientApp of flwr.clientapp, got 'client'"):
        answer("client")
