"""Proved bounds and rates: never exceeded, and equal where they are tight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from common import OTHER_ORDER, answer, random_rows, shards_of, stacked, weights_of
from localgd import InProcess, Method, Shard, train
from localgd.losses import Logistic
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.project import Project
from localgd.rules.server import Anchored, mean
from localgd.theory import anchored_residual, diversity, flow, flow_angle, flow_loss, projection_rate, round_drift

LATE = [1e6, 1e12, 1e20, 1e30]

weightings = pytest.mark.parametrize("weighted_by", ["uniform", "num-examples"])
seeds = pytest.mark.parametrize("seed", range(5))


def test_the_logistic_flow_can_exceed_the_bound_on_the_exponential_loss():
    (w,) = flow([Shard("a", [[1.0]])], [10.0], loss=Logistic())
    assert Logistic().value(w).item() > 1.1 * flow_loss(1.0, 10.0).value


def test_one_row_attains_the_bound_on_the_loss():
    row, times = np.array([0.3, -0.4]), [1e-3, 1.0, 1e3, 1e12, 1e30]
    for t, w in zip(times, flow([Shard("a", [row])], times), strict=True):
        found = flow_loss(0.5, t)
        assert math.exp(-row @ w) == pytest.approx(found.value, rel=1e-9)
        assert found.kind == "tight"


@weightings
@seeds
def test_the_flow_never_exceeds_its_bounds(seed, weighted_by):
    shards = random_rows(seed)
    rows, weights, known = stacked(shards), weights_of(shards, weighted_by), max_margin(stacked(shards))
    times = np.logspace(-3, 30, 34)
    angles = []
    for t, w in zip(times, flow(shards, times, weighted_by=weighted_by), strict=True):
        assert weights @ np.exp(-rows @ w) <= flow_loss(known.margin_low, t).value * (1 + 1e-6)
        angles.append(flow_angle(known.margin_low, weights.min(), t).value)
        assert angle_deg(w, known.direction) <= angles[-1] + 1e-4
    assert (np.diff(angles) <= 0).all()
    assert angles[0] == 90.0
    assert angles[-1] < 45.0


@pytest.mark.parametrize("name", ["rate-law", "gauss-400"])
def test_in_the_end_any_rows_attain_the_bound_on_the_loss(name):
    shards = shards_of(name)
    late = np.exp(-stacked(shards) @ flow(shards, [1e30])[0]).mean()
    assert late == pytest.approx(flow_loss(answer(name).margin_low, 1e30).value, rel=1e-4)


def test_a_single_row_leaves_no_angle():
    assert flow_angle(0.5, 1.0, 1.0).value == 0.0


@weightings
@pytest.mark.parametrize("name", ["gauss-400", 0, 1, 2])
def test_anchored_projections_never_exceed_the_bound_on_their_residual(name, weighted_by):
    shards = shards_of(name) if isinstance(name, str) else random_rows(name)
    margin = max_margin(stacked(shards)).margin_low
    task, engine = Project(weighted_by=weighted_by), InProcess(shards)
    for k in (1, 2, 5, 20):
        w = train(engine, Method("anchored", task, Anchored(mean())), n_rounds=k).w
        image = train(engine, Method("plain", task, mean()), n_rounds=1, w0=w).w
        assert np.linalg.norm(w - image) <= anchored_residual(margin, k).value


def blocks_of(seed, sizes=(3, 4), d=12):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, d)) for n in sizes]


@seeds
def test_the_rate_of_two_nodes_is_that_of_their_friedrichs_angle(seed):
    a, b = blocks_of(seed)
    b = np.vstack([b, a[:1]])  # a shared direction: principal angle 0, which does not count
    angles = subspace_angles(a.T, b.T)
    friedrichs = angles[angles > 1e-6].min()
    assert projection_rate([a, b]).value == pytest.approx((1 + math.cos(friedrichs)) / 2, abs=1e-9)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 5.0)])
@seeds
def test_the_worst_start_contracts_by_exactly_the_rate(seed, weights):
    blocks = blocks_of(seed, (3, 4, 2))
    p = np.full(3, 1 / 3) if weights is None else np.array(weights) / 8
    mean = sum(q * np.linalg.pinv(block) @ block for q, block in zip(p, blocks, strict=True))
    values, vectors = np.linalg.eigh(mean)
    error = vectors[:, np.flatnonzero(values > 1e-9)[0]]
    rate = projection_rate(blocks, weights).value
    for k in range(1, 6):
        # exact local solutions: every node moves to the nearest point with its own residuals zero
        error = sum(q * (error - np.linalg.pinv(block) @ (block @ error)) for q, block in zip(p, blocks, strict=True))
        assert np.linalg.norm(error) == pytest.approx(rate**k, abs=1e-9)


def test_no_start_from_the_rows_contracts_by_less_than_the_rate():
    blocks = blocks_of(7, (3, 4, 2))
    rate = projection_rate(blocks).value
    error = np.vstack(blocks).T @ np.random.default_rng(0).standard_normal((9, 200))
    after = sum(error - np.linalg.pinv(block) @ (block @ error) for block in blocks) / 3
    assert (np.linalg.norm(after, axis=0) <= rate * np.linalg.norm(error, axis=0) * (1 + 1e-12)).all()


def test_the_rate_knows_the_easy_cases():
    wide = blocks_of(0, (3,), 2000)[0]
    assert projection_rate([wide]).value == pytest.approx(0.0, abs=1e-12)
    assert projection_rate([wide, np.vstack([wide, wide])]).value == pytest.approx(0.0, abs=1e-12)
    assert projection_rate([np.eye(4)[:2], np.eye(4)[2:]]).value == pytest.approx(0.5)
    assert projection_rate([np.eye(4)[:2], np.zeros((1, 4))]).value == pytest.approx(0.5)


@pytest.mark.parametrize(("d", "rank", "n_nodes"), [(3, 2, 2), (10, 3, 5), (50, 5, 5)])
def test_nodes_of_one_span_are_done_in_a_round(d, rank, n_nodes):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((rank, d))
        blocks = [rng.standard_normal((rank, rank)) @ shared for _ in range(n_nodes)]
        assert projection_rate(blocks).value <= OTHER_ORDER


def test_bounds_and_angles_at_extreme_scales():
    assert flow_angle(1e-200, 0.5, 1e30).value == 90.0
    assert flow_angle(1e200, 0.5, 1e30).value < 10.0
    assert flow_loss(1e-200, 1.0).value == 1.0
    assert diversity(np.array([[2.0, 0.0], [0.0, 1e-3]])).mean_deg == pytest.approx(90.0)
    with pytest.raises(ValueError, match="zero vector"):
        diversity(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="lr must be"):
        round_drift(-1.0, 1, 1.0, 1.0)
