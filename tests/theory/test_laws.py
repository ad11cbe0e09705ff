"""What is known beforehand against what happens: the flow, its asymptote, the nodes' own answers, the drift."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from common import SAME_ORDER, answer, as_csr, random_rows, shards_of, stacked, weights_of
from localgd import ClassRows, Exponential, InProcess, Shard, local_gd, train
from localgd.losses import Logistic
from localgd.reference.max_margin import NotSeparableError, max_margin
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg
from localgd.theory import (
    anchored_residual,
    asymptote,
    constants,
    diversity,
    drift_bias,
    flow,
    flow_angle,
    flow_loss,
    laws,
    local_directions,
    projection_rate,
    round_drift,
)

LATE = [1e6, 1e12, 1e20, 1e30]

LOSSES = {"exponential": Exponential(), "logistic": Logistic()}
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
weightings = pytest.mark.parametrize("weighted_by", ["uniform", "num-examples"])
seeds = pytest.mark.parametrize("seed", range(5))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def overlapping(seed=0):
    """Unlike nodes of unlike sizes that no direction separates."""
    rng = np.random.default_rng(seed)
    return [Shard(f"n{m}", rng.standard_normal((20 + 10 * m, 3)) + 0.7 * rng.standard_normal(3)) for m in range(4)]


def test_the_flow_of_the_rate_law_problem():
    models = flow(shards_of("rate-law"), LATE)
    angles = [angle_deg(w, answer("rate-law").direction) for w in models]
    assert angles == pytest.approx([3.46, 1.345, 0.734, 0.467], abs=0.01)


@weightings
@losses
def test_the_flow_is_gradient_descent_with_small_steps(loss, weighted_by):
    shards, t, lr = random_rows(1), 3.0, 1e-4
    rows, weights, w = stacked(shards), weights_of(shards, weighted_by), np.zeros(5)
    for _ in range(round(t / lr)):  # midpoint steps: error lr²
        half = w + lr / 2 * rows.T @ (weights * loss.slope(rows @ w))
        w = w + lr * rows.T @ (weights * loss.slope(rows @ half))
    assert relative(flow(shards, [t], loss=loss, weighted_by=weighted_by)[0], w) <= 1e-5


@losses
def test_the_flow_starts_along_the_mean_row(loss):
    shards = random_rows(2)
    mean = np.mean([shard.rows.mean(axis=0) for shard in shards], axis=0)
    w = flow(shards, [1e-9, 1.0], loss=loss)[0]
    assert relative(w, 1e-9 * loss.slope(np.zeros(1)) * mean) <= 1e-6


def test_the_logistic_flow_has_the_exponential_flow_s_end():
    exponential, logistic = (flow(shards_of("rate-law"), LATE, loss=loss)[-1] for loss in LOSSES.values())
    assert relative(logistic, exponential) <= 1e-4


@pytest.mark.parametrize("t", [1e4, 1e15, 1e30])
def test_the_flow_of_overlapping_rows_rests_at_the_minimiser(t):
    shards = overlapping()
    assert (
        relative(flow(shards, [t], loss=Logistic())[0], minimiser(stacked(shards), weights_of(shards, "uniform")))
        < 1e-6
    )


@losses
@pytest.mark.parametrize("scale", [1e-28, 1e-3, 3.0, 1e28])
def test_rows_scaled_by_s_reach_the_same_direction_at_t_over_s_squared(scale, loss):
    shards = random_rows(3)
    scaled = [Shard(shard.node_id, scale * shard.rows) for shard in shards]
    times = np.array([1e-2, 1e4, 1e20])
    models = flow(shards, times, loss=loss)
    np.testing.assert_allclose(scale * flow(scaled, times / scale / scale, loss=loss), models, rtol=0, atol=1e-10)


def test_neither_node_order_nor_storage_changes_the_flow():
    shards = random_rows(4)
    models = flow(shards, LATE, weighted_by="num-examples")
    assert np.array_equal(flow(shards[::-1], LATE, weighted_by="num-examples"), models)
    assert np.array_equal(flow(as_csr(shards), LATE, weighted_by="num-examples"), models)


def test_more_times_change_no_model_between_them():
    shards = random_rows(4)
    np.testing.assert_array_equal(flow(shards, LATE)[1:], flow(shards, [1e-300, *LATE])[2:])


def test_zero_rows_stay_at_zero():
    assert not flow([Shard("a", np.zeros((2, 3)))], LATE).any()


def test_local_gd_with_little_drift_follows_the_flow():
    shards, local_steps, n_rounds = shards_of("gauss-400"), 10, 200
    smoothness = constants(shards).smoothness
    lr = 0.05 / (smoothness * local_steps)
    run = train(InProcess(shards), local_gd(local_steps=local_steps, lr=lr, loss="exponential"), n_rounds=n_rounds)
    assert round_drift(lr, local_steps, smoothness, 1.0) == pytest.approx(0.05)
    assert relative(run.w, flow(shards, [lr * local_steps * n_rounds])[0]) <= 0.02


def test_the_asymptote_of_the_rate_law_problem():
    known = asymptote(shards_of("rate-law"))
    angles = np.array([known.angle_deg(t) for t in LATE[1:]])
    assert angles == pytest.approx([1.362, 0.736, 0.468], abs=0.001)
    followed = [angle_deg(w, answer("rate-law").direction) for w in flow(shards_of("rate-law"), LATE[1:])]
    assert angles == pytest.approx(followed, rel=0.02)


@weightings
@losses
def test_what_the_asymptote_leaves_out_vanishes(loss, weighted_by):
    rng = np.random.default_rng(0)
    shards = [Shard(f"n{m}", rng.standard_normal((m + 1, 60)) / 8) for m in range(3)]
    known = asymptote(shards, weighted_by)
    errors = [
        np.linalg.norm(w - known.hard_margin * math.log(t) - known.offset)
        for t, w in zip(LATE, flow(shards, LATE, loss=loss, weighted_by=weighted_by), strict=True)
    ]
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-4  # of a length of 166


def test_the_offset_is_exact_where_rows_are_orthogonal():
    known = asymptote([Shard("a", [[2.0, 0.0, 0.0]]), Shard("b", [[0.0, 1.0, 0.0], [0.0, 0.0, 4.0]])])
    np.testing.assert_allclose(known.hard_margin, [0.5, 1.0, 0.25], rtol=SAME_ORDER)
    expected = [math.log(4 / 2) / 2, math.log(1 / 4), math.log(16 / 4) / 4]  # from w_j = log(1 + c_j z_j² t)/z_j
    np.testing.assert_allclose(known.offset, expected, rtol=SAME_ORDER)


@pytest.mark.parametrize("t", [0.0, -1.0, math.nan, math.inf])
def test_the_asymptote_has_no_angle_at_no_time(t):
    known = asymptote([Shard("a", [[1.0, 0.0]]), Shard("b", [[0.0, 2.0]])])
    with pytest.raises(ValueError, match="t must be a number above 0"):
        known.angle_deg(t)


def test_an_asymptote_needs_every_row_to_support():
    with pytest.raises(ValueError, match=r"on all 300 rows, 224 have one; use flow"):
        asymptote(shards_of("gauss-400"))


def test_local_directions_are_the_nodes_own_max_margin_directions():
    shards = random_rows(5)
    for shard, direction in zip(shards, local_directions(shards), strict=True):
        np.testing.assert_allclose(direction, max_margin(shard.rows).direction, atol=SAME_ORDER)


def test_a_node_that_cannot_be_separated_is_named():
    shards = [Shard("good", [[1.0]]), Shard("bad", [[1.0], [-1.0]])]
    with pytest.raises(NotSeparableError, match=r"node 'bad': the rows are not separable") as raised:
        local_directions(shards)
    assert raised.value.margin_bound <= 1e-8


def test_diversity_is_mean_and_largest_angle():
    fan = np.array([[math.cos(a), math.sin(a)] for a in np.radians([0.0, 1e-6, 90.0, 180.0])])
    found = diversity(fan)
    assert found.max_deg == pytest.approx(180.0, abs=1e-5)
    assert found.mean_deg == pytest.approx((1e-6 + 90 + 180 + 90 - 1e-6 + 180 - 1e-6 + 90) / 6)
    assert diversity(fan[:2]).mean_deg == pytest.approx(1e-6, rel=1e-6)
    alone = diversity(fan[:1])
    assert (alone.mean_deg, alone.max_deg) == (0.0, 0.0)


def test_constants_are_those_of_the_rows():
    shards = random_rows(6)
    found = constants(shards)
    assert found.margin == pytest.approx(max_margin(stacked(shards)).margin_high, rel=1e-9)
    spectra = [np.linalg.eigvalsh(shard.rows.T @ shard.rows / shard.n_rows)[-1] for shard in shards]
    assert max(spectra) * (1 - 1e-9) <= found.smoothness <= max(spectra) * (1 + 1e-5)
    assert found.radius == pytest.approx(np.linalg.norm(stacked(shards), axis=1).max())
    assert (found.n_rows, found.n_nodes) == (len(stacked(shards)), len(shards))
    assert constants(shards_of("gauss-400")).n_support == 224


def rested(shards, loss, weighted_by, lr, local_steps):
    """The fixed point of Local-GD, by its own rounds."""
    weights = np.array([1.0 if weighted_by == "uniform" else shard.n_rows for shard in shards])
    w = np.zeros(shards[0].n_features)
    for _ in range(math.ceil(80 / (lr * local_steps))):
        models = []
        for shard in shards:
            v = w
            for _ in range(local_steps):
                v = v + lr * shard.combine(loss.slope(shard.margins(v))) / shard.n_rows
            models.append(v)
        w = np.average(models, axis=0, weights=weights)
    return w


def pooled_minimiser(shards, loss, weighted_by):
    rows, weights = stacked(shards), weights_of(shards, weighted_by)
    w = minimiser(rows, weights)
    for _ in range(50 if isinstance(loss, Exponential) else 0):  # Newton from nearby
        slopes = weights * loss.slope(rows @ w)
        w = w + np.linalg.solve(rows.T @ (slopes[:, None] * rows), rows.T @ slopes)
    return w


@weightings
@losses
def test_the_drift_bias_is_right_to_first_order(loss, weighted_by):
    shards = overlapping()
    w = pooled_minimiser(shards, loss, weighted_by)
    errors = []
    for lr in (0.04, 0.02, 0.01):
        measured = rested(shards, loss, weighted_by, lr, 4) - w
        errors.append(relative(drift_bias(shards, w, lr, 4, loss=loss, weighted_by=weighted_by), measured))
    assert errors[-1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.2)
    assert errors[1] / errors[2] == pytest.approx(2.0, abs=0.1)


def test_one_local_step_and_alike_nodes_leave_no_bias():
    shards = overlapping()
    w = pooled_minimiser(shards, Logistic(), "uniform")
    assert not drift_bias(shards, w, 0.1, 1).any()
    alike = [Shard(name, shards[-1].rows) for name in "abc"]
    w = pooled_minimiser(alike, Logistic(), "uniform")
    assert np.linalg.norm(drift_bias(alike, w, 0.1, 100)) <= 1e-9


def test_the_bias_lies_in_the_span_of_the_rows_and_forgets_node_order():
    thin = overlapping()
    wide = [Shard(shard.node_id, np.hstack([shard.rows, shard.rows[:, :1]])) for shard in thin]
    w = pooled_minimiser(thin, Logistic(), "uniform")
    bias = drift_bias(wide, np.array([w[0] / 2, w[1], w[2], w[0] / 2]), 0.01, 4)
    assert bias[0] == pytest.approx(bias[3], rel=1e-9)  # the twin columns share
    assert np.array_equal(drift_bias(thin[::-1], w, 0.01, 4), drift_bias(thin, w, 0.01, 4))


FEW = [Shard("a", [[1.0, 0.0]]), Shard("b", [[0.0, 1.0]])]


MIXED = [Shard("a", [[1.0, 0.0]]), Shard("b", [[1.0]])]


REFUSED = {
    "no times": (lambda: flow(FEW, []), "times must be"),
    "descending": (lambda: flow(FEW, [2.0, 1.0]), "times must be"),
    "twice": (lambda: flow(FEW, [1.0, 1.0]), "times must be"),
    "time 0": (lambda: flow(FEW, [0.0, 1.0]), "times must be"),
    "endless": (lambda: flow(FEW, [1.0, np.inf]), "times must be"),
    "a number": (lambda: flow(FEW, 1.0), "times must be"),
    "mixed widths": (lambda: flow(MIXED, [1.0]), r"same features.*\[1, 2\]"),
    "no nodes": (lambda: flow([], [1.0]), "same features"),
    "weighting": (lambda: flow(FEW, [1.0], weighted_by="size"), "weighted_by must be"),
    "loss": (lambda: flow(FEW, [1.0], loss="hinge"), "loss must be"),
    "asymptote, mixed widths": (lambda: asymptote(MIXED), "same features"),
    "constants, mixed widths": (lambda: constants(MIXED), "same features"),
    "constants, inseparable": (lambda: constants(overlapping()), "not separable"),
    "margin 0": (lambda: flow_loss(0.0, 1.0), "margin must be"),
    "t nan": (lambda: flow_angle(1.0, 0.5, math.nan), "t must be"),
    "weight 2": (lambda: flow_angle(1.0, 2.0, 1.0), "smallest_weight must be at most 1"),
    "round 0": (lambda: anchored_residual(1.0, 0), "k must be"),
    "weights": (lambda: projection_rate([np.eye(2)], [0.5, 0.5]), "weights must be 1 numbers"),
    "negative weight": (lambda: projection_rate([np.eye(2)] * 2, [0.5, -0.5]), "weights must be"),
    "zero rows": (lambda: projection_rate([np.zeros((1, 2))]), "nothing to project on"),
    "lr 0": (lambda: drift_bias(FEW, np.zeros(2), 0.0, 2), "lr must be"),
    "no steps": (lambda: drift_bias(FEW, np.zeros(2), 0.1, 0), "local_steps must be"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_failed_integration_says_so(monkeypatch):
    monkeypatch.setattr(
        laws, "solve_ivp", lambda *_, **__: SimpleNamespace(success=False, sol=None, message="step too small")
    )
    with pytest.raises(ValueError, match=r"could not be followed to t = 1e\+30: step too small"):
        flow(FEW, LATE)


def test_laws_of_two_classes_refuse_many():
    shard = Shard("a", ClassRows(np.ones((2, 1)), [0, 1], 3))
    with pytest.raises(ValueError, match="give shards of two classes"):
        flow([shard], [1.0])
    with pytest.raises(ValueError, match="give shards of two classes"):
        drift_bias([shard], np.zeros(3), lr=0.1, local_steps=2)
