"""The certificate never claims more than holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier
from sklearn.svm import LinearSVC

from common import answer, as_csr, examples, federation, random_rows, stacked
from localgd import (
    Angle,
    Certificate,
    InProcess,
    MarginRatio,
    SampledNodes,
    Shard,
    Status,
    certify,
    local_gd,
    local_sgd,
    modified_local_gd,
    train,
)
from localgd.core import Message
from localgd.duals.dual import Dual
from localgd.methods.method import Method
from localgd.problems.hard_margin import angle_bound, certificate
from localgd.problems.metrics import Evaluate
from localgd.reference.max_margin import NotSeparableError, max_margin
from localgd.rounding import angle_deg
from localgd.rules.server import End

EXACT_DEG = 1e-7
"""What the reference directions are good for, in degrees."""


def assert_true(run, pooled):
    """Every recorded bound holds against the exact answer."""
    for row in run.history:
        assert row.low <= pooled.margin_high
        assert row.high >= pooled.margin_low
        assert math.isnan(row.angle_deg_max) or row.true_angle_deg <= row.angle_deg_max + EXACT_DEG


@pytest.mark.parametrize("name", ["bladder", "golub"])
@pytest.mark.parametrize(
    "method",
    [local_gd(local_steps=100), local_sgd(local_steps=50, batch_size=4), modified_local_gd()],
    ids=lambda method: method.name,
)
def test_bounds_hold_at_every_round_on_real_data(name, method):
    pooled = answer(name)
    run = train(federation(name), method, n_rounds=100, reference=pooled.direction)
    assert_true(run, pooled)
    assert run.certificate.separable
    assert run.history[-1].true_angle_deg < run.certificate.angle_deg_max < 60


@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12)),
    shift=st.sampled_from([0.0, 1.0, 3.0]),
    method=st.sampled_from(
        [
            local_gd(local_steps=7),
            local_gd(local_steps=3, loss="exponential", lr=0.05),
            local_sgd(local_steps=9, batch_size=2),
            modified_local_gd(),
            modified_local_gd(form="proximal", local_steps=9),
        ]
    ),
    fraction=st.sampled_from([None, 0.3]),
)
@settings(max_examples=examples(150))
def test_bounds_hold_on_random_problems(seed, sizes, shift, method, fraction):
    shards = random_rows(seed, *sizes, shift)
    try:
        pooled = max_margin(stacked(shards))
    except (NotSeparableError, ValueError):
        assume(False)
    nodes = None if fraction is None else SampledNodes(fraction, seed)
    run = train(InProcess(shards), method, n_rounds=25, nodes=nodes, reference=pooled.direction)
    assert_true(run, pooled)


@given(seed=st.integers(0, 10**6), method=st.sampled_from([local_gd(local_steps=7), modified_local_gd()]))
@settings(max_examples=examples(60))
def test_rows_that_cannot_be_separated_are_never_called_separable(seed, method):
    shards = random_rows(seed)
    flipped = Shard("flipped", -stacked(shards)[:2])
    run = train(InProcess([*shards, flipped]), method, n_rounds=40)
    assert run.certificate.separable is not True
    assert run.certificate.margin_low <= 0
    assert math.isnan(run.certificate.angle_deg_max)


def test_a_start_elsewhere_than_0_bounds_nothing_by_its_own_norm():
    """w0 is no combination of rows: |w|/mass would claim a margin far below the true one."""
    shards = random_rows(8)
    pooled = max_margin(stacked(shards))
    for size in (1e-3, 1.0, 1e3):
        w0 = size * np.ones(shards[0].n_features)
        run = train(InProcess(shards), local_gd(local_steps=5), n_rounds=30, w0=w0, reference=pooled.direction)
        assert_true(run, pooled)
        assert run.certificate.margin_high < math.inf  # the rounds' own steps still bound it


@pytest.mark.parametrize("tau", [1e-30, 1e-12, 1e-6])
def test_the_certificate_survives_margins_near_rounding(tau):
    """Two rows almost opposite: the margin is about tau, the smaller the nearer to rounding."""
    shards = [Shard("a", [[1.0, tau]]), Shard("b", [[-1.0, tau]])]
    run = train(InProcess(shards), local_gd(local_steps=3, lr=1.0), n_rounds=50)
    assert run.certificate.margin_low <= tau
    assert run.certificate.margin_high >= tau


@pytest.mark.parametrize("size", [2.0**90, 2.0**-90])
def test_features_of_extreme_size_work(size):
    shards = random_rows(9)
    pooled = max_margin(stacked(shards))
    big = [Shard(s.node_id, s.rows * size) for s in shards]
    run = train(InProcess(big), local_gd(local_steps=10), n_rounds=50, reference=pooled.direction)
    assert run.certificate.separable
    assert run.history[-1].true_angle_deg <= run.certificate.angle_deg_max
    assert run.certificate.margin_low <= pooled.margin_low * size * (1 + 1e-9)
    assert run.certificate.margin_high >= pooled.margin_low * size * (1 - 1e-9)
    plain, scaled = certify(pooled.direction, InProcess(shards)), certify(pooled.direction, InProcess(big))
    assert scaled.angle_deg_max == pytest.approx(plain.angle_deg_max, rel=1e-6)
    assert scaled.margin_low == pytest.approx(plain.margin_low * size, rel=1e-9)


def test_partial_rounds_prove_no_margin_and_the_last_look_asks_all_nodes():
    engine = InProcess(random_rows(10))
    run = train(engine, local_gd(local_steps=5), n_rounds=200, nodes=SampledNodes(0.5, seed=1))
    assert all(math.isnan(row.margin) for row in run.history[:-1])
    assert run.history[-1].margin > 0
    assert run.certificate.verdict is Status.CERTIFIED


def test_stopping_in_a_partial_round_still_looks_at_all_nodes():
    engine = InProcess(random_rows(10))
    run = train(
        engine,
        local_gd(local_steps=5),
        n_rounds=400,
        nodes=SampledNodes(0.5, seed=1),
        on_round=lambda info: info.row.round == 30,
    )
    assert [row.round for row in run.history] == list(range(32))
    assert np.isfinite(run.history[-1].margin)


def test_goals_stop_at_the_first_round_that_proves_them():
    engine, pooled = federation("gauss-400"), answer("gauss-400")
    run = train(engine, modified_local_gd(), goal=[Angle(30.0)], reference=pooled.direction)
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.history[-1].angle_deg_max <= 30.0 < run.history[-2].angle_deg_max
    ratio = train(engine, modified_local_gd(), goal=[MarginRatio(0.8)])
    assert ratio.certificate.margin_ratio >= 0.8
    own = (stacked(engine.shards) @ ratio.w).min() / np.linalg.norm(ratio.w)
    assert own >= 0.8 * pooled.margin_low


def test_a_model_that_falls_short_of_what_was_asked_says_what_is_proved():
    run = train(federation("gauss-400"), local_gd(local_steps=100), n_rounds=50, goal=[Angle(0.5)])
    assert run.certificate.status.startswith("certified: within 40.3° of the pooled")
    assert not Angle(0.5).met(run.certificate)
    assert run.end is End.OUT_OF_ROUNDS


def test_running_out_of_exponent_is_called_a_stall():
    """One step that leaves every margin beyond e^-745: no gradient is left to take."""
    shards = [Shard("a", [[1.0, 0.1], [1.0, -0.1]])]
    run = train(InProcess(shards), local_gd(local_steps=1, lr=1e4), n_rounds=50, goal=[Angle(1e-9)])
    assert run.end is End.STALLED
    assert "every gradient is 0 in float64" in run.certificate.status
    assert run.n_rounds < 50
    assert run.certificate.separable


def test_leaving_float64_is_called_divergence_and_keeps_a_finite_model():
    shards = [Shard("a", [[1.0, 0.1], [-0.9, 0.2]]), Shard("b", [[-1.0, 0.1], [0.2, 1.0]])]
    run = train(InProcess(shards), local_gd(local_steps=1, lr=1e300, loss="exponential"), n_rounds=50)
    assert run.certificate.verdict is Status.DIVERGED
    assert np.isfinite(run.w).all()
    assert "lower lr" in run.certificate.status


ELSEWHERE = {
    "logistic": LogisticRegression(C=100.0, max_iter=10_000),
    "svm": LinearSVC(C=1e6, tol=1e-8, max_iter=100_000, fit_intercept=False),
    "perceptron": Perceptron(fit_intercept=False),
    "ridge": RidgeClassifier(fit_intercept=False),
}


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("storage", [list, as_csr], ids=["dense", "csr"])
def test_models_from_elsewhere_are_certified_rightly(name, storage):
    shards = random_rows(11, n_nodes=5, n=10, d=8)
    z = stacked(shards)
    y = np.where(np.arange(len(z)) % 2 == 0, 1.0, -1.0)
    model = ELSEWHERE[name].set_params(fit_intercept=False).fit(z * y[:, None], y)
    pooled = max_margin(z)
    w = np.ravel(model.coef_)
    found = certify(w, InProcess(storage(shards)))
    assert found.margin_low <= pooled.margin_high
    assert found.margin_high >= pooled.margin_low
    true = angle_deg(w, pooled.direction)
    assert math.isnan(found.angle_deg_max) or true <= found.angle_deg_max + EXACT_DEG
    if (z @ w).min() > 0:
        assert found.separable
        assert found.angle_deg_max < 90


@given(seed=st.integers(0, 10**6), noise=st.floats(0, 1))
@settings(max_examples=examples(100))
def test_any_vector_is_certified_rightly(seed, noise):
    shards = random_rows(seed, n=4)
    pooled = max_margin(stacked(shards))
    w = pooled.direction + noise * np.random.default_rng(seed).standard_normal(pooled.direction.size)
    found = certify(w, InProcess(shards))
    assert found.margin_low <= pooled.margin_high
    assert found.margin_high >= pooled.margin_low
    assert math.isnan(found.angle_deg_max) or angle_deg(w, pooled.direction) <= found.angle_deg_max + EXACT_DEG


def test_the_exact_answer_from_elsewhere_is_certified_but_loosely():
    """One round of tempered duals cannot see which rows support: a bound, not a tight one."""
    found = certify(answer("golub").direction, federation("golub"))
    assert found.separable
    assert 0 < found.angle_deg_max < 45


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (np.zeros(5), "other than zero"),
        (np.array([1.0, np.nan, 0, 0, 0]), "finite"),
        (np.ones(4), "4 coefficients"),
        (np.ones((2, 5)), "vector"),
    ],
)
def test_certify_refuses_what_is_no_model(w, message):
    with pytest.raises(ValueError, match=message):
        certify(w, InProcess(random_rows(1)))


@given(
    low=st.floats(1e-6, 1.0),
    ratio=st.floats(0, 1),
    spread=st.floats(0, 1),
    apart=st.floats(0, 1.5),
    error=st.floats(0, 0.1),
)
@settings(max_examples=examples(200))
def test_the_angle_bound_is_the_worst_over_all_margins_in_the_bracket(low, ratio, spread, apart, error):
    """Against a grid: for every γ in the bracket the better of the two bounds is at most the answer."""
    high, margin = low * (1 + spread), low * ratio
    w, s = np.array([1.0, 0.0]), np.array([math.cos(apart), math.sin(apart)])
    dual = Dual.proved(s, 1 / high, error)
    found = angle_bound(w, margin, [dual], low, high)
    for gamma in np.linspace(low, high, 50):
        by_margin = math.acos(min(1.0, margin / gamma)) if margin > 0 else math.pi
        by_dual = apart + math.acos(max(-1.0, min(1.0, gamma / high - error)))
        assert math.degrees(min(by_margin, by_dual)) <= found + 1e-5


@given(low=st.floats(1e-6, 1.0), ratio=st.floats(0.5, 1), spread=st.floats(1e-6, 1), seed=st.integers(0, 999))
@settings(max_examples=examples(200))
def test_several_duals_bound_the_angle_as_the_best_of_them_does(low, ratio, spread, seed):
    rng = np.random.default_rng(seed)
    w, high = rng.standard_normal(3), low * (1 + spread)
    duals = [Dual.proved(w, np.linalg.norm(w) / high, 1e-9)]
    for _ in range(3):
        s = w + 10.0 ** rng.uniform(-3, 0) * rng.standard_normal(3)
        duals.append(Dual.proved(s, np.linalg.norm(s) / (high * rng.uniform(1, 1.5)), 0.0))
    each = [angle_bound(w, low * ratio, [dual], low, high) for dual in [*duals, Dual(w)]]
    assert angle_bound(w, low * ratio, [*duals, Dual(w)], low, high) == pytest.approx(min(each), rel=1e-12)


def test_without_error_the_bound_is_the_square_root_of_low_over_high():
    w = np.array([3.0, 4.0])
    found = certificate(w, 5 * 0.3, [Dual.proved(w, 5 / 0.4, 0.0)])
    assert found.angle_deg_max == pytest.approx(math.degrees(math.acos(math.sqrt(0.3 / 0.4))), rel=1e-9)
    assert found.margin_low <= 0.3
    assert found.margin_high >= 0.4


def test_unknown_numbers_are_null_in_json():
    entries = Certificate().to_dict()
    assert entries["margin_low"] is None
    assert entries["angle_deg_max"] is None
    assert entries["separable"] is None


def test_node_margins_are_lower_bounds_even_where_rounding_bites():
    """z·w cancels to rounding: the reported margin must not exceed the exact one."""
    from fractions import Fraction

    rng = np.random.default_rng(3)
    for _ in range(50):
        z = rng.standard_normal(20) * 10.0 ** rng.integers(-8, 8, 20)
        w = rng.standard_normal(20)
        w -= z * (z @ w) / (z @ z)
        exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(z, w, strict=True))
        report = InProcess([Shard("a", z[None])]).round(Evaluate(), Message(0, w))
        assert Fraction(float(report.mins["margin"])) <= exact


def test_the_error_covers_the_rounding_of_the_accumulated_model():
    """Replay a run in exact fractions: |w − Σ α_i z_i| stays below the error that the server carries."""
    from fractions import Fraction

    from localgd.kernels import pick
    from localgd.kernels.reference import Steps
    from localgd.losses import Logistic

    shards = random_rows(12, n_nodes=3, n=3, d=3)
    engine = InProcess(shards)
    method: Method = local_gd(local_steps=4, lr=0.37)
    state = method.merge.init(np.zeros(3))
    exact = [Fraction(0)] * 3
    mass = Fraction(0)
    for _ in range(30):
        message = method.merge.message(state)
        for shard in shards:
            a = pick(shard, 4)(shard, message.w, shard.margins(message.w), Steps(4, 0.37, Logistic()))
            mass += sum(Fraction(float(x)) for x in a) / 3
            for j in range(3):
                products = (Fraction(float(x)) * Fraction(float(z[j])) for x, z in zip(a, shard.rows, strict=True))
                exact[j] += sum(products) / 3
        state = method.merge.step(state, engine.round(method.task, message))
        apart = math.sqrt(float(sum((Fraction(float(w)) - e) ** 2 for w, e in zip(state.w, exact, strict=True))))
        assert 0 < apart <= state.model.error < 1e-10
        assert Fraction(state.model.mass) <= mass


def test_the_last_look_is_no_looser_than_the_round_before():
    """The round that only looks takes no step, so it must remember the dual vector of the last step."""
    run = train(federation("gauss-400"), local_gd(local_steps=100), n_rounds=100)
    before, last = run.history[-2], run.history[-1]
    assert last.high <= before.high
    assert last.angle_deg_max <= before.angle_deg_max
