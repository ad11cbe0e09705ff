"""Homogeneous networks: slopes against differences, margins and KKT points against answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from common import SAME_ORDER
from localgd.experiments.homogeneous import Homogeneous, local_gd, standing
from localgd.reference.max_margin import max_margin

NETWORKS = [
    Homogeneous((3, 5, 1), relu=True),
    Homogeneous((3, 4, 2, 1), relu=True),
    Homogeneous((3, 4, 2, 1), relu=False),
    Homogeneous((3, 1), relu=False),
]


def some(network, n_nodes=2, n_rows=6, seed=0):
    """Parameters, rows and labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_nodes, n_rows, network.widths[0]))
    return network.start(rng), X, np.sign(rng.normal(size=(n_nodes, n_rows)))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_pull_is_minus_the_slope_of_the_loss(network):
    theta, X, y = some(network)
    at_nodes = np.stack([theta, theta + 0.1])
    pull = np.empty_like(at_nodes)
    q = network.pull(at_nodes, X, y, pull)
    for node in range(2):
        assert q[node] == pytest.approx(y[node] * network.scores(at_nodes[node], X[node]), rel=SAME_ORDER)
        for place in range(network.n_parameters):
            step = np.zeros(network.n_parameters)
            step[place] = 1e-6
            above, below = (
                np.logaddexp(0, -y[node] * network.scores(at_nodes[node] + sign * step, X[node])).mean()
                for sign in (1, -1)
            )
            assert pull[node, place] == pytest.approx((below - above) / 2e-6, abs=1e-8)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_homogeneous_and_its_margin_has_no_scale(network):
    theta, X, y = some(network)
    assert network.scores(3 * theta, X) == pytest.approx(3**network.degree * network.scores(theta, X), rel=1e-12)
    small, large = standing(network, theta, X, y), standing(network, 3 * theta, X, y)
    assert large.margin == pytest.approx(small.margin, rel=1e-12)
    assert small.margin == pytest.approx(
        (y * network.scores(theta, X)).min() / np.linalg.norm(theta) ** network.degree, rel=1e-12
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_nodes_measure_what_one_that_holds_all_rows_does(network):
    theta, X, y = some(network, n_nodes=4)
    whole = standing(network, theta, X.reshape(1, -1, 3), y.reshape(1, -1))
    over = standing(network, theta, X, y)
    for name in ("margin", "residual", "complementarity", "loss"):
        assert getattr(over, name) == pytest.approx(getattr(whole, name), rel=1e-9), name


# Two rows on the margin of (1, 0), each with half of the dual, and one far beyond it.
ROWS = np.array([[[1.0, 1.0], [1.0, -1.0], [5.0, 0.0]]])
KNOWN = [
    (Homogeneous((2, 1), relu=False), [1.0, 0.0]),
    (Homogeneous((2, 2, 1), relu=False), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    (Homogeneous((2, 1, 1, 1), relu=False), [-1.0, 0.0, 1.0, -1.0]),
    (Homogeneous((2, 2, 1), relu=True), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
]


@pytest.mark.parametrize(("network", "theta"), KNOWN)
def test_a_kkt_point_has_no_residual(network, theta):
    point = np.array(theta)
    far = standing(network, 60 ** (1 / network.degree) * point, ROWS, np.ones((1, 3)))
    assert far.residual <= 1e-12
    assert far.complementarity <= 1e-12
    assert far.margin == pytest.approx(network.degree ** (-network.degree / 2), rel=1e-12)
    near = standing(network, point, ROWS, np.ones((1, 3)))
    assert near.complementarity > 0.01, "the row beyond the margin still pulls"


@pytest.mark.parametrize(("network", "theta"), KNOWN)
def test_another_point_has_one(network, theta):
    moved = np.array(theta) + 0.3 * np.random.default_rng(1).normal(size=len(theta))
    found = standing(network, 60 ** (1 / network.degree) * moved, ROWS, np.ones((1, 3)))
    assert found.residual > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_no_deep_linear_network_has_more_than_the_balanced_one(seed):
    network = Homogeneous((3, 4, 2, 1), relu=False)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1, 8, 3)) + np.array([2.0, 0.0, 0.0])
    answer = max_margin(X[0])
    best = answer.margin_high * network.degree ** (-network.degree / 2)
    y = np.ones((1, 8))
    balanced = np.zeros(network.n_parameters)
    for place, layer in enumerate(network.layers(balanced)):
        layer[0, : 3 if place == 0 else 1] = answer.direction if place == 0 else 1.0
    assert standing(network, balanced, X, y).margin == pytest.approx(best, rel=1e-9)
    assert network.map(balanced) == pytest.approx(answer.direction, rel=1e-12)
    theta = network.start(rng)
    assert network.scores(theta, X[0]) == pytest.approx(X[0] @ network.map(theta), rel=1e-9)
    for _ in range(50):
        assert standing(network, balanced + 0.1 * network.start(rng), X, y).margin <= best


@pytest.mark.parametrize("network", NETWORKS)
def test_one_local_step_is_pooled_training(network):
    theta, X, y = some(network, n_nodes=3)
    over = local_gd(network, theta[None], X[None], y[None], lr=0.1, local_steps=1, rounds=7)
    pooled = local_gd(
        network, theta[None], X.reshape(1, 1, -1, 3), y.reshape(1, 1, -1), lr=0.1, local_steps=1, rounds=7
    )
    assert over == pytest.approx(pooled, rel=1e-9)
    more = local_gd(network, theta[None], X[None], y[None], lr=0.1, local_steps=3, rounds=7)
    assert np.abs(more - over).max() > 1e-4


def test_local_gd_is_the_mean_of_steps_at_each_node():
    network = NETWORKS[0]
    theta, X, y = some(network)
    ends = []
    for node in range(2):
        here = theta.copy()
        for _ in range(4):
            pull = np.empty_like(here)
            network.pull(here, X[node], y[node], pull)
            here += 0.1 * pull
        ends.append(here)
    starts, swapped = np.stack([theta, theta]), (np.stack([part, part[::-1]]) for part in (X, y))
    both = local_gd(network, starts, *swapped, lr=0.1, local_steps=4, rounds=1)
    assert both[0] == pytest.approx(np.mean(ends, axis=0), rel=1e-12)
    assert both[1] == pytest.approx(both[0], rel=1e-12)
