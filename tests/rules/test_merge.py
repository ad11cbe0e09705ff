"""What extrapolation may and may not do to a model and to its certificate."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import METHODS, SAME_ORDER, examples, random_rows, stacked
from localgd import InProcess, Method, SampledNodes, Shard, Status, fedexp, local_gd, train
from localgd.core import Message, Report
from localgd.duals.dual import Dual
from localgd.kernels.project import project
from localgd.reference.max_margin import max_margin
from localgd.rules.project import Project
from localgd.rules.server import Extrapolation, chain, mean, spread


def report_of(moves, error=0.0, mass=1.0):
    moves = np.array(moves, dtype=float)
    sums = {"weight": len(moves), "update_sq_norm": np.square(moves).sum()}
    update = Dual.proved(moves.sum(0), mass, error, len(moves))
    return Report(len(moves), len(moves), sums, duals={"update": update})


@pytest.mark.parametrize("relaxation", [0.5, 1.0])
def test_the_move_is_that_of_the_formula(relaxation):
    shards = random_rows(1, shift=3.0)
    w = np.random.default_rng(0).standard_normal(5)
    sizes = np.array([shard.n_rows for shard in shards])
    share = sizes / sizes.sum()
    moves = np.array([shard.combine(project(shard, w).duals) for shard in shards])
    average = share @ moves
    factor = max(1.0, relaxation * (share @ np.square(moves).sum(1)) / (average @ average))
    assert factor > 1.1
    report = InProcess(shards).round(Project(weighted_by="num-examples"), Message(0, w))
    merge = chain(mean(), Extrapolation(relaxation))
    found = merge.step(merge.init(w), report)
    np.testing.assert_allclose(found.w, w + factor * average, rtol=SAME_ORDER)


def test_nodes_that_agree_are_not_extrapolated_to_the_last_bit():
    rows = random_rows(2)[-1].rows
    engine = InProcess([Shard(name, rows) for name in "abc"])
    plain, extrapolated = (train(engine, make(local_steps=5), n_rounds=10) for make in (local_gd, fedexp))
    assert np.array_equal(plain.w, extrapolated.w)


def test_rows_almost_opposite_are_met_in_one_round_instead_of_ten_orders_of_magnitude():
    shards = [Shard("a", [[1.0, 1e-5]]), Shard("b", [[-1.0, 1e-5]])]
    run = train(InProcess(shards), Method("pierra", Project(), chain(mean(), Extrapolation(1.0))), n_rounds=1)
    np.testing.assert_allclose(run.w, [0.0, 1e5], rtol=1e-9)
    assert run.certificate.angle_deg_max < 0.1


@pytest.mark.parametrize(
    ("moves", "error"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], 0.0),
        ([[0.0, 0.0], [0.0, 0.0]], math.nan),
        ([[1.0, 0.0], [-1.0, 0.0]], 0.0),
        ([[1.0, 1e-15], [-1.0, 1e-15]], 1e-14),  # its direction is rounding
        ([[1e-170, 0.0], [0.0, 1e-170]], 0.0),  # squares that vanish
        ([[5e-324, 0.0], [5e-324, 0.0]], 0.0),
    ],
    ids=["at rest", "at rest, error unknown", "opposite", "noise", "tiny", "subnormal"],
)
def test_what_says_nothing_is_not_extrapolated(moves, error):
    report, w = report_of(moves, error), np.array([1.0, 2.0])
    merge, plain = chain(mean(), Extrapolation(1.0)), mean()
    assert np.array_equal(merge.step(merge.init(w), report).w, plain.step(plain.init(w), report).w)


@pytest.mark.parametrize("size", [1e-150, 1e-100, 1.0, 1e100, 1e150])
def test_the_factor_does_not_depend_on_the_size_of_the_moves(size):
    assert spread(report_of(np.array([[1.0, 3.0], [1.0, -3.0]]) * size)) == pytest.approx(10.0)


def test_squares_beyond_float64_end_in_a_status_not_a_claim():
    for lr in (1e160, 1e300):
        run = train(InProcess(random_rows(3)), fedexp(local_steps=1, lr=lr, loss="exponential"), n_rounds=5)
        assert run.certificate.verdict is Status.DIVERGED
        assert np.isfinite(run.w).all()
        assert "lower lr" in run.certificate.status


@pytest.mark.parametrize("relaxation", [0.0, -1.0, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(relaxation):
    with pytest.raises(ValueError, match="relaxation must be"):
        chain(mean(), Extrapolation(relaxation))


@given(
    apart=st.floats(0, 1e5), mass=st.floats(1e-300, 1e300), error=st.floats(1e-300, 1e-3), before=st.floats(0, 1e300)
)
def test_mass_and_error_grow_with_the_factor_and_are_rounded_to_the_safe_side(apart, mass, error, before):
    report = report_of([[1.0, apart], [1.0, -apart], [1.0, 0.0]], error, mass)
    factor = max(1.0, 0.5 * spread(report))
    merge = chain(mean(), Extrapolation())
    state = replace(merge.init(np.zeros(2)), model=Dual.proved(np.zeros(2), before, 0.0), round=1)
    found = merge.step(state, report).model
    if math.isfinite(found.mass):
        exact = Fraction(before) + Fraction(factor) * Fraction(mass) / 3
        assert Fraction(found.mass) <= exact <= Fraction(found.mass) * (1 + Fraction(1, 10**13)) + Fraction(factor)
    assert Fraction(found.error) >= Fraction(factor) * Fraction(error) / 3


@pytest.mark.parametrize("relaxation", [0.5, 1.0])
def test_error_and_mass_cover_the_rounding_of_an_extrapolated_model(relaxation):
    """Replay a run in exact fractions with the factors it used: |w − Σ α_i z_i| <= error, Σ α_i >= mass."""
    shards = random_rows(4, n_nodes=3, n=3, d=3, shift=3.0)
    engine, task, merge = InProcess(shards), Project(), chain(mean(), Extrapolation(relaxation))
    state = merge.init(np.zeros(3))
    exact, mass, factors = [Fraction(0)] * 3, Fraction(0), []
    duals = {shard.node_id: np.zeros(shard.n_rows) for shard in shards}
    for _ in range(30):
        message = merge.message(state)
        report = engine.round(task, message)
        factors.append(max(1.0, relaxation * spread(report)))
        share = Fraction(factors[-1]) / 3
        for shard in shards:
            a = duals[shard.node_id] = project(shard, message.w, warm=duals[shard.node_id]).duals
            mass += share * sum(Fraction(float(x)) for x in a)
            for j in range(3):
                exact[j] += share * sum(
                    Fraction(float(x)) * Fraction(float(z[j])) for x, z in zip(a, shard.rows, strict=True)
                )
        state = merge.step(state, report)
        apart = math.sqrt(float(sum((Fraction(float(w)) - e) ** 2 for w, e in zip(state.w, exact, strict=True))))
        assert 0 < apart <= state.model.error < 1e-9
        assert 0 < Fraction(state.model.mass) <= mass
    assert max(factors) > 1.5


@given(
    seed=st.integers(0, 10**6),
    shift=st.sampled_from([0.0, 1.0, 3.0]),
    name=st.sampled_from(["fedexp", "extrapolated projections", "pierra"]),
    exponent=st.integers(-300, 300),
    fraction=st.sampled_from([None, 0.5]),
)
@settings(max_examples=examples(100))
def test_bounds_hold_whatever_the_factor(seed, shift, name, exponent, fraction):
    """Step sizes from 1e-300 to 1e300, nodes unlike each other, and half of them absent."""
    shards = random_rows(seed, 3, 3, 3, shift)
    pooled = max_margin(stacked(shards))
    pierra = Method("pierra", Project(), chain(mean(), Extrapolation(1.0)))
    method = fedexp(local_steps=3, lr=10.0**exponent) if name == "fedexp" else METHODS.get(name, pierra)
    nodes = None if fraction is None else SampledNodes(fraction, seed)
    run = train(InProcess(shards), method, n_rounds=15, nodes=nodes, reference=pooled.direction)
    assert run.certificate.separable is not False
    assert np.isfinite(run.w).all()
    for row in run.history:
        assert row.low <= pooled.margin_high
        assert row.high >= pooled.margin_low
        assert math.isnan(row.angle_deg_max) or row.true_angle_deg <= row.angle_deg_max + 1e-6


def test_extrapolation_is_what_sets_fedexp_apart_from_local_gd():
    engine = InProcess(random_rows(5, shift=3.0))
    first, second = (train(engine, make(local_steps=20), n_rounds=10) for make in (local_gd, fedexp))
    assert second.history[-1].loss < first.history[-1].loss
