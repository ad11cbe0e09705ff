"""Known trajectories: the published figures of Modified Local-GD, and runs that must not move unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from common import OTHER_ORDER, against, answer, federation, stacked
from localgd import (
    InProcess,
    Method,
    consensus,
    fedexp,
    interior_point,
    local_gd,
    local_sgd,
    modified_local_gd,
    normalised_local_gd,
    train,
)
from localgd.data.synthetic import KNOWN
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.project import Project
from localgd.rules.server import Extrapolation, chain, mean


@pytest.mark.parametrize("name", ["gauss-400", "gauss-400-shifted", "hard", "many-nodes"])
def test_the_exact_answer_has_the_known_margin(name):
    assert answer(name).margin_low == pytest.approx(KNOWN[name].margin, abs=2e-9)
    assert answer(name).margin_high == pytest.approx(KNOWN[name].margin, abs=2e-9)


def test_modified_local_gd_is_near_two_degrees_after_500_rounds_and_the_plain_average_is_stuck():
    pooled = answer("gauss-400").direction
    engine = federation("gauss-400")
    anchored = train(engine, modified_local_gd(), n_rounds=500, reference=pooled)
    assert anchored.history[-1].true_angle_deg == pytest.approx(2.1, abs=0.3)
    plain = train(engine, Method("plain-average", Project(), mean()), n_rounds=500, reference=pooled)
    assert plain.history[-1].true_angle_deg == pytest.approx(8.4, abs=0.1)
    assert plain.history[-1].true_angle_deg == pytest.approx(plain.history[250].true_angle_deg, abs=0.02)
    # ~1/k: half the rounds, twice the angle
    ratio = anchored.history[250].true_angle_deg / anchored.history[500].true_angle_deg
    assert ratio == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(("relaxation", "angle"), [(0.5, 10.656), (1.0, 15.102)], ids=["FedExP", "Pierra"])
def test_extrapolated_projections_reach_the_intersection_early_and_are_stuck_there(relaxation, angle):
    """Published: stuck at about 15 degrees (relaxation 1). Sooner than the plain average, and at a worse point."""
    method = Method("extrapolated", Project(), chain(mean(), Extrapolation(relaxation)))
    run = train(federation("gauss-400"), method, n_rounds=500, reference=answer("gauss-400").direction)
    assert run.history[-1].true_angle_deg == pytest.approx(angle, abs=0.01)
    assert run.history[100].true_angle_deg == pytest.approx(run.history[-1].true_angle_deg, abs=1e-6)


def test_the_rate_law_problem_has_its_known_angles():
    """method: L=10, η = 0.5/(λ_max L), exponential loss: 9.04 degrees at round 260."""
    lr = train(federation("rate-law"), local_gd(local_steps=10, lr="paper", loss="exponential"), n_rounds=0)
    half = 0.5 * lr.method.task.lr
    run = train(federation("rate-law"), local_gd(local_steps=10, lr=half, loss="exponential"), n_rounds=260)
    assert angle_deg(run.w, answer("rate-law").direction) == pytest.approx(9.04, abs=0.02)


# method, then loss and upper bound on the pooled margin after 1, 5 and 20 rounds of gauss-400
GOLDEN = [
    (
        local_gd(local_steps=10),
        [(0.5070064794020767, 0.05831141451960441), (0.234261630784581, 0.05093507837078329)],
        (0.06644902023951559, 0.04593779736442823),
    ),
    (
        local_sgd(local_steps=10, batch_size=8, seed=7),
        [(0.4482633186304391, 0.05586025127049558), (0.18984443440991708, 0.049196930848368264)],
        (0.051635970315032406, 0.04587540622800447),
    ),
    (
        modified_local_gd(),
        [(0.661092101057195, 0.05887622640765783), (0.5744134842460136, 0.05379931779255)],
        (0.44932452507721454, 0.0474453140682051),
    ),
    (
        modified_local_gd(form="proximal", local_steps=10),
        [(0.6192075794951325, 0.06036890667592121), (0.4315047146432257, 0.056710386588388596)],
        (0.20488466412812048, 0.05085001290825623),
    ),
    (
        fedexp(local_steps=10),
        [(0.2425954935975713, 0.050365342082336395), (0.020296077453816393, 0.044694507913115585)],
        (0.0027988154588225083, 0.04407399519416241),
    ),
]


@pytest.mark.parametrize(
    ("method", "early", "late"), GOLDEN, ids=["local-gd", "local-sgd", "modified", "proximal", "fedexp"]
)
def test_trajectories_do_not_move_unnoticed(method, early, late):
    run = train(federation("gauss-400"), method, n_rounds=20)
    found = [(run.history[k].loss, run.history[k].high) for k in (1, 5, 20)]
    np.testing.assert_allclose(found, [*early, late], rtol=OTHER_ORDER)


def test_four_classes_over_label_sorted_nodes():
    """A prototype on such data: 0.0597 <= 0.0694 <= 0.0757 after 3000 rounds, 7.8 degrees from the pooled model."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((4, 60)), rng.standard_normal((120, 60)) / np.sqrt(60)
    y = (x @ w.T).argmax(axis=1)
    parts = np.array_split(np.argsort(y, kind="stable"), 5)
    engine = InProcess(against([(x[part], y[part]) for part in parts], 4))
    pooled = max_margin(stacked(engine.shards))
    last = train(engine, local_gd(local_steps=10), n_rounds=1000, reference=pooled.direction).history[-1]
    assert last.low <= pooled.margin_low <= last.high
    assert (last.low, pooled.margin_low, last.high) == pytest.approx((0.05460, 0.06766, 0.06863), abs=5e-5)
    assert last.true_angle_deg == pytest.approx(9.22, abs=0.01)


# The exact methods: problem, rounds, largest true angle and largest certified angle in degrees after them.
REACHED = [
    (consensus(), "gauss-2000", 35, 1e-4, 1e-3),
    (consensus(), "mushroom", 70, 0.1, 1.0),
    (consensus(), "mushroom", 140, 1e-4, 1e-3),
    (consensus(), "bladder", 40, 1e-3, 1e-2),
    (consensus(), "golub", 40, 1e-3, 1e-2),
    (interior_point(), "mushroom", 30, 0.5, 1.0),
    (interior_point(), "mushroom", 45, 1e-4, 1e-3),
    (interior_point(), "hard", 60, 1e-4, 1e-2),
]


@pytest.mark.parametrize(("method", "name", "rounds", "true", "certified"), REACHED)
def test_exact_methods_reach_the_pooled_model_in_tens_of_rounds(method, name, rounds, true, certified):
    """A round is one reduce, the last one, which only looks, included."""
    run = train(federation(name), method, n_rounds=rounds - 1, reference=answer(name).direction)
    assert run.history[-1].true_angle_deg <= true
    assert run.certificate.angle_deg_max <= certified


@pytest.mark.parametrize(
    ("local_steps", "late", "angle"),
    [
        (1, False, 1.08881),
        (1, True, 0.167119),
        (10, False, 1.650265),
        (10, True, 0.306637),
        (50, False, 1.693193),
        (50, True, 0.318861),
    ],
)
def test_loss_normalised_local_gd_and_its_late_direction_have_their_known_angles(local_steps, late, angle):
    """gauss-2000, round 500. With the loss of the same round, not one round older: 1.0, 0.14; 1.6, 0.27; 1.6, 0.28."""
    method = normalised_local_gd(local_steps=local_steps).late(late)
    run = train(federation("gauss-2000"), method, n_rounds=500, reference=answer("gauss-2000").direction)
    assert run.history[-1].true_angle_deg == pytest.approx(angle, rel=1e-4)
