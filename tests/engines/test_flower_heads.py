"""Flower's own examples, in the shape that they have, and the certificates of what they train."""

from __future__ import annotations

import logging
import math
import re

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from torch import nn

from common import examples, stacked
from engines.flower_examples import Net, Scikit, Torch, body, digits, nodes
from engines.flower_grid import LocalGrid
from localgd import Angle, ClassRows, InProcess, Regularised, Shard, certify, from_arrays, prepare
from localgd.flower import Certified, Features, answer
from localgd.flower.features import HeadRows
from localgd.problems.certificate import Status
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg


def ran(example, n_rounds, **options):
    """Strategy, result, the final layer with its bias, and the pooled rows of the head."""
    strategy, result = example.run(lambda plain: Certified(plain, n_nodes=example.n_nodes, **options), n_rounds)
    parts = result.arrays.to_numpy_ndarrays()
    each = np.column_stack(parts) if len(parts) == 2 else parts[0]
    encode = HeadRows(max(2, len(each)), len(parts) == 2)
    held = [Features(f"{i}", *example.load_data(i)) for i in range(example.n_nodes)]
    return strategy, result, each, InProcess(held).map(encode)


SETS = {
    "digits": (load_digits, 150),
    "iris": (load_iris, 150),
    "two species": (load_iris, 100),
    "breast cancer": (load_breast_cancer, 400),
}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_the_scikit_learn_example_is_certified_as_it_is(name, fit_intercept):
    load, n = SETS[name]
    X, y = load(return_X_y=True)
    example = Scikit((X[:n], y[:n]), fit_intercept=fit_intercept)
    strategy, result, each, pooled = ran(example, n_rounds=6)
    w = each[0] if len(each) == 1 else (each - each.mean(axis=0)).ravel()
    here, found = certify(w, pooled), strategy.certificate
    assert found.verdict is here.verdict
    assert found.margin_high == pytest.approx(here.margin_high, rel=1e-9)
    assert result.evaluate_metrics_serverapp[6]["margin_high"] == found.margin_high
    rows = stacked(pooled.shards)
    assert found.separable is (True if (rows @ w).min() > 1e-9 else None)
    assert found.verdict is Status.CERTIFIED or name != "two species"
    if found.separable:
        exact = max_margin(rows)
        assert angle_deg(w, exact.direction) <= found.angle_deg_max < 90
        assert found.margin_low <= exact.margin_high * (1 + 1e-9)


def test_the_pytorch_example_is_certified_as_it_is_over_the_features_of_its_final_body():
    example = Torch(Net, *digits(), features=body)
    found, result = example.run(head="fc3", goal=Angle(20.0))
    state = result.arrays.to_torch_state_dict()
    with torch.no_grad():
        features = body(result.arrays, example.images).double().numpy()
    x = np.column_stack([features, np.ones(len(features))])
    each = np.column_stack([state["fc3.weight"].double().numpy(), state["fc3.bias"].double().numpy()])
    exact = max_margin(Shard("pooled", ClassRows(x, example.labels.numpy(), 10)).rows)
    assert found.separable
    assert found.angle_deg_min <= angle_deg((each - each.mean(axis=0)).ravel(), exact.direction)
    assert found.margin_low <= exact.margin_high * (1 + 1e-9)
    assert found.margin_high >= exact.margin_low * (1 - 1e-9)


def linear(n_logits, bias):
    return lambda: nn.Linear(64, n_logits, bias=bias, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_logits", [2, 10])
def test_a_linear_softmax_head_is_certified_like_the_same_model_in_process(n_logits, bias):
    images, labels = digits()
    some = labels < n_logits
    x, y = images[some].reshape(-1, 64), labels[some]
    example = Torch(linear(n_logits, bias), x, y, epochs=100, lr=1.0)
    example.images = example.images.double()
    found, result = example.run(n_rounds=8)
    each = np.column_stack(result.arrays.to_numpy_ndarrays()) if bias else result.arrays.to_numpy_ndarrays()[0]
    x = np.column_stack([example.images, np.ones(len(y))]) if bias else example.images.numpy()
    shards = [Shard(f"site {m}", ClassRows(x[m::3], y[m::3], n_logits)) for m in range(3)]
    here = certify((each - each.mean(axis=0)).ravel(), InProcess(shards))
    assert found.verdict is here.verdict
    assert found.angle_deg_max == pytest.approx(here.angle_deg_max, rel=1e-6)
    exact = max_margin(stacked(shards))
    assert angle_deg((each - each.mean(axis=0)).ravel(), exact.direction) <= found.angle_deg_max
    unit = np.sqrt(2) if n_logits == 2 else 1.0  # the margin of w_1 − w_0, and of both
    assert unit * found.margin_low <= exact.margin_high * (1 + 1e-9)
    assert unit * found.margin_high >= exact.margin_low * (1 - 1e-9)


def test_clients_that_fail_in_training_are_part_of_what_is_certified():
    images, labels = digits()
    example = Torch(linear(10, bias=True), images.reshape(-1, 64), labels, epochs=100, lr=1.0)
    example.images = example.images.double()
    client, asked = example.client(), []
    inner = client._registered_funcs["train.default"]

    def fails_at_two(message, context):
        asked.append(context.node_id)
        if context.node_config["partition-id"] == 2:
            raise RuntimeError("out of memory")
        return inner(message, context)

    client._registered_funcs["train.default"] = fails_at_two
    strategy = Certified(FedAvg(fraction_evaluate=0.0), n_nodes=3)
    start = {"train_config": ConfigRecord({"lr": 1.0}), "num_rounds": 4}
    result = strategy.start(LocalGrid(client, nodes(3)), ArrayRecord(example.make().state_dict()), **start)
    each = np.column_stack(result.arrays.to_numpy_ndarrays())
    x = np.column_stack([example.images, np.ones(len(labels))])
    pooled = Shard("pooled", ClassRows(x, labels, 10))
    w = (each - each.mean(axis=0)).ravel()
    assert len(set(asked)) == 3
    assert strategy.certificate.margin == pytest.approx(pooled.margins(w).min() / np.linalg.norm(w), rel=1e-6)


def log_of(caplog):
    return "\n".join(record.getMessage() for record in caplog.records if record.getMessage().startswith("localgd"))


@pytest.fixture
def heard(caplog):
    """What the log of Flower says, which it keeps from the root."""
    log = logging.getLogger("flwr")
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)


def drawn(arrays, images):
    """A body that forgot `eval`."""
    return nn.Dropout()(body(arrays, images))


UNPROVED = {
    "no head": ({}, body, r"has no single linear layer.*fc3.bias \(10,\)\): of a network name the last layer"),
    "another layer": ({"head": "fc4"}, body, "has no 'fc4' for a linear layer"),
    "a convolution": ({"head": "conv1"}, body, "has no 'conv1' for a linear layer"),
    "another width": ({"head": "fc2"}, body, "the model has 528 coefficients, but the rows have 272 columns"),
    "numbers": ({"head": "fc3"}, None, "its features are numbers, but the model is a network"),
    "what is drawn": ({"head": "fc3"}, drawn, "its features are others when they are computed again"),
    "more nodes than there are": ({"head": "fc3", "min_nodes": 9}, body, "min_nodes"),
    "a node too few": ({"head": "fc3", "timeout": 0.1, "n_nodes": 4}, body, "3 of 4 nodes are online"),
}


@pytest.mark.parametrize("name", UNPROVED)
def test_where_nothing_is_proved_the_model_comes_back_and_the_log_says_why(name, heard):
    options, features, words = UNPROVED[name]
    example = Torch(Net, *digits(), features=features, epochs=1)
    found, result = example.run(n_rounds=1, **options)
    assert found is None
    assert len(result.arrays) == 8
    assert re.search(f"localgd: no certificate: .*{words}", log_of(heard))


def test_a_goal_that_the_limits_of_a_node_keep_out_of_reach_leaves_what_three_rounds_prove(heard):
    images, labels = digits()
    example = Torch(linear(10, bias=True), images.reshape(-1, 64), labels, epochs=100, lr=1.0)
    example.images = example.images.double()
    guarded = [{"partition-id": i} for i in range(3)]
    found, _ = example.run(n_rounds=4, goal=Angle(1.0), configs=guarded)
    assert "the goal is out of reach, so only what three rounds prove is stated" in log_of(heard)
    without = example.run(n_rounds=4, configs=guarded)[0]
    assert found.verdict is without.verdict
    assert found.margin_high == pytest.approx(without.margin_high, rel=1e-6)  # of the same training, not to the bit


def test_the_body_is_the_one_of_the_last_round_whatever_the_nodes_held_before():
    example = Torch(Net, *digits(), features=body, epochs=5)
    seen = []
    example.features = lambda arrays, images: (seen.append(arrays.to_numpy_ndarrays()), body(arrays, images))[1]
    _, result = example.run(n_rounds=3, head="fc3")
    final = result.arrays.to_numpy_ndarrays()
    assert len(seen) == 6  # twice at each node
    for arrays in seen:
        assert all(np.array_equal(here, there) for here, there in zip(arrays, final, strict=True))


def test_tables_of_many_classes_go_through_the_recipe():
    X, y = load_iris(return_X_y=True)
    tables = from_arrays(X, y, groups=np.arange(150) % 3)
    recipe = prepare(InProcess(tables), scale="standard")[1]
    app = answer(ClientApp(), lambda context: tables[context.node_config["partition-id"]])

    @app.train()
    def train(message, context):  # noqa: ARG001  Flower's own signature
        n_classes = message.content["arrays"]["1"].shape[0]
        arrays = ArrayRecord([np.arange(4.0 * n_classes).reshape(n_classes, 4) ** 2, np.arange(float(n_classes))])
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 50})}), reply_to=message)

    def certified(n_classes):
        strategy = Certified(FedAvg(fraction_evaluate=0.0), n_nodes=3, recipe=recipe)
        strategy.start(LocalGrid(app, nodes(3)), ArrayRecord([np.zeros((n_classes, 4)), np.zeros(n_classes)]), 1)
        return strategy.certificate

    each = np.column_stack([np.arange(12.0).reshape(3, 4) ** 2, np.arange(3.0)])
    here = certify((each - each.mean(axis=0)).ravel(), InProcess(tables).map(recipe))
    assert certified(3).margin == pytest.approx(here.margin)
    assert certified(3).margin_high == pytest.approx(here.margin_high)
    assert certified(4) is None


@pytest.mark.parametrize("n_logits", [1, 2])
def test_samples_that_no_plane_separates_are_certified_against_the_pooled_logistic_regression(n_logits):
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    pooled = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(X, y)
    exact = np.append(pooled.coef_, pooled.intercept_)
    near = exact * (1 + 1e-3 * np.random.default_rng(0).standard_normal(exact.size))
    each = near[None] if n_logits == 1 else np.vstack([-near, near]) / 2 + 7.0

    def load(context):
        i = context.node_config["partition-id"]
        return Features(f"site {i}", X[i::3], y[i::3])

    app = answer(ClientApp(), load)

    @app.train()
    def train(message, context):  # noqa: ARG001  Flower's own signature
        content = {"arrays": ArrayRecord([each[:, :-1], each[:, -1]]), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    problem = Regularised(C=0.1, intercept=True)
    strategy = Certified(FedAvg(fraction_evaluate=0.0), n_nodes=3, problem=problem)
    strategy.start(LocalGrid(app, nodes(3)), ArrayRecord([each[:, :-1], each[:, -1]]), 1)
    found = strategy.certificate
    assert found.verdict is Status.CERTIFIED
    assert angle_deg(near[:-1], exact[:-1]) <= found.angle_deg_max < 10
    assert np.linalg.norm(near[:-1] - exact[:-1]) <= found.distance


@pytest.mark.parametrize("bias", [True, False])
def test_a_softmax_head_is_certified_against_the_pooled_penalised_minimiser(bias):
    """With a bias of each class that is free of the penalty, or none."""
    images, labels = digits()
    x = images.reshape(-1, 64)
    example = Torch(linear(10, bias=bias), x, labels)
    example.images = example.images.double()
    found, result = example.run(n_rounds=3, problem=Regularised(C=1.0, intercept=bias))
    trained = result.arrays.to_numpy_ndarrays()[0].astype(float)
    pooled = LogisticRegression(C=1.0, fit_intercept=bias, tol=1e-10, max_iter=10_000).fit(x, labels)
    assert np.linalg.norm(trained - pooled.coef_) <= found.distance < math.inf
    assert np.isnan(found.angle_deg_max) or angle_deg(trained.ravel(), pooled.coef_.ravel()) <= found.angle_deg_max


def test_features_that_have_changed_since_an_earlier_certificate_are_refused(heard):
    images, labels = digits()
    x = {"now": images.reshape(-1, 64)}
    app = answer(ClientApp(), lambda _: Features("site", x["now"], labels))

    @app.train()
    def train(message, context):  # noqa: ARG001  Flower's own signature
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    grid = LocalGrid(app, nodes(1))
    plain = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy, arrays = Certified(plain, n_nodes=1), ArrayRecord([np.eye(10, 64), np.arange(10.0)])
    strategy.start(grid, arrays, 1)
    first = strategy.certificate
    strategy.start(grid, arrays, 1)
    assert strategy.certificate == first
    x["now"] = x["now"][:, ::-1]
    strategy.start(grid, arrays, 1)
    assert strategy.certificate is None
    assert "its rows have changed since this run began" in log_of(heard)


@given(st.integers(0, 10**9), st.sampled_from([1, 2, 3, 5]), st.booleans(), st.sampled_from([1, 8]), st.booleans())
@settings(max_examples=examples(40), deadline=None)
def test_certificates_over_flower_hold_whatever_the_heads_the_nodes_and_the_clients_that_fail(
    seed, n_logits, bias, min_rows, looks_on
):
    rng = np.random.default_rng(seed)
    n_classes, n_nodes = max(2, n_logits), 3
    w = rng.standard_normal((n_classes, 4 + bias))
    x = np.column_stack([rng.standard_normal((60, 4)), np.ones(60)])[:, : 4 + bias]
    y = (x @ w.T).argmax(axis=1)
    of_node = np.where(rng.random(60) < 0.5, y, rng.integers(n_nodes, size=60)) % n_nodes  # by class, half of them
    of_node[:n_nodes] = range(n_nodes)
    held = [
        Features(f"{m}", x[of_node == m][:, :4], y[of_node == m], weights=rng.uniform(0.1, 3.0, (of_node == m).sum()))
        for m in range(n_nodes)
    ]
    near = w if n_logits > 1 else w[1:] - w[:1]
    each = (near + 10.0 ** rng.integers(-4, 1) * rng.standard_normal(near.shape)).astype(np.float32)
    each = each + (n_logits > 1) * 10 * rng.standard_normal(4 + bias).astype(np.float32)
    fails = rng.random(n_nodes) < 0.3
    fails[0] = False
    app = answer(ClientApp(), lambda context: held[context.node_config["partition-id"]])

    @app.train()
    def train(message, context):
        if fails[context.node_config["partition-id"]]:
            raise RuntimeError("out of memory")
        arrays = ArrayRecord([each[:, :4], each[:, 4]] if bias else [each])
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    configs = [{**config, "min-rows": min_rows} for config in nodes(n_nodes)]
    goal = Angle(5.0) if looks_on else None
    strategy = Certified(FedAvg(fraction_evaluate=0.0), n_nodes=n_nodes, goal=goal)
    result = strategy.start(LocalGrid(app, configs), ArrayRecord([each[:, :4], each[:, 4]] if bias else [each]), 1)
    found = strategy.certificate
    if found is None:
        assert min_rows > 1  # a node of fewer samples says nothing
        return
    final = np.column_stack([np.asarray(part, dtype=np.float64) for part in result.arrays.to_numpy_ndarrays()])
    rows = stacked(InProcess(held).map(HeadRows(n_classes, bias)).shards)
    exact = max_margin(rows)
    true = final[-1] - final[0] if n_logits == 2 else final[0] if n_logits == 1 else final - final.mean(axis=0)
    angle = angle_deg(true.ravel(), exact.direction)
    assert found.angle_deg_min <= angle
    assert np.isnan(found.angle_deg_max) or angle <= found.angle_deg_max
    assert found.margin_low <= exact.margin_high * (1 + 1e-12)
    assert found.margin_high >= exact.margin_low * (1 - 1e-12)
