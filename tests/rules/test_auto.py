"""The choice of a method: by sizes, with fallbacks, and said in the status."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common import answer, federation, random_rows
from localgd import (
    Angle,
    HardMargin,
    InProcess,
    Regularised,
    SampledNodes,
    Shard,
    Status,
    auto,
    consensus,
    local_gd,
    newton,
    train,
)
from localgd.methods.method import Fallback
from localgd.problems.sizes import DataSizes
from localgd.rounding import angle_deg
from localgd.rules.server import End

SLOW = replace(local_gd(), name="slow", fallbacks={End.STALLED: Fallback(consensus())})


@pytest.mark.parametrize(
    ("name", "method", "rounds"),
    [
        ("gauss-2000", "consensus", 35),
        ("golub", "consensus", 40),
        ("mushroom", "interior-point", 45),
        ("hard", "interior-point", 60),
    ],
)
def test_the_choice_reaches_a_hundredth_of_a_degree_in_tens_of_rounds(name, method, rounds):
    run = train(federation(name), auto(), goal=[Angle(0.01)], n_rounds=rounds - 1)
    assert run.method.name == method
    assert run.certificate.angle_deg_max <= 0.01
    assert f"auto took {method}, as " in run.certificate.status


def test_without_a_goal_it_ends_when_nothing_is_left_to_gain():
    run = train(federation("golub"), auto(), reference=answer("golub").direction)
    assert run.n_rounds < 100
    assert run.history[-1].true_angle_deg < 1e-6
    assert run.certificate.angle_deg_max < 1e-3


def test_a_method_that_stalls_hands_over_and_the_history_goes_on():
    """Plain Local-GD never gets below a few degrees here; what takes over does, from the start."""
    run = train(federation("gauss-400"), SLOW, goal=[Angle(0.1)])
    assert run.method.name == "consensus"
    assert run.certificate.angle_deg_max <= 0.1
    assert [row.round for row in run.history] == list(range(len(run.history)))
    assert 60 < len(run.history) < 200


def test_gradients_that_creep_hand_over_to_second_order_rounds():
    """Little penalty on many correlated directions: conjugate gradients stall where d×d sums take a few rounds."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 750))
    z = x * np.sign(rng.standard_normal(2000) + x[:, 0])[:, None]
    run = train(InProcess(Shard(f"n{m}", z[m::3]) for m in range(3)), auto(), problem=Regularised(C=1000.0))
    assert run.method.name == "newton"
    assert "auto took newton, as newton-cg stalled" in run.certificate.status
    assert run.certificate.angle_deg_max < 1e-3


def test_limits_hold_over_all_methods_together():
    run = train(federation("gauss-400"), SLOW, goal=[Angle(1e-3)], n_rounds=70)
    assert run.history[-1].round <= 70


def test_rows_that_nothing_separates_get_the_minimiser_and_a_proof():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 20))
    y = np.sign(x[:, 0] + rng.standard_normal(400))
    shards = [Shard(f"n{m:02d}", (x * y[:, None])[m::40]) for m in range(40)]
    run = train(InProcess(shards), auto())
    assert run.method.name == "newton"
    assert run.certificate.separable is False
    assert run.certificate.kind == "minimiser"
    assert run.certificate.verdict is Status.CERTIFIED
    plain = train(InProcess(shards), newton())
    assert angle_deg(run.w, plain.w) < 1e-9


def test_contradictory_rows_of_one_node_are_called_not_separable_to_within_rounding():
    shards = [Shard("a", [[1.0, 0.2], [-1.0, -0.2]]), Shard("b", [[0.3, 1.0], [0.1, 1.0]])]
    run = train(InProcess(shards), auto())
    assert run.certificate.verdict is Status.CANCELS
    assert run.certificate.separable is None
    assert np.isfinite(run.w).all()


@pytest.mark.parametrize(
    ("options", "problem", "name"),
    [
        ({}, HardMargin(), "consensus"),
        ({}, Regularised(C=1.0), "newton"),
        ({"max_mb": 1e-6}, Regularised(C=1.0), "newton-cg"),
    ],
)
def test_what_is_chosen_by_what_is_asked(options, problem, name):
    sizes = DataSizes(n_samples=12, n_features=40, radius=1.0, versus=1)
    assert auto(**options).chosen(problem, sizes).name == name
    assert train(InProcess(random_rows(1, n=2, d=40)), auto(**options), problem=problem, n_rounds=1).method.name == name


def test_reruns_are_identical():
    first, second = (train(InProcess(random_rows(2)), auto()) for _ in range(2))
    assert np.array_equal(first.w, second.w)


def test_refusals():
    with pytest.raises(ValueError, match="C must be"):
        train(InProcess(random_rows(1)), auto(), problem=Regularised(C=-1.0))
    with pytest.raises(ValueError, match="max_mb must be"):
        auto(max_mb=0.0)
    with pytest.raises(ValueError, match="needs every node"):
        train(InProcess(random_rows(1)), auto(), nodes=SampledNodes(0.5))
