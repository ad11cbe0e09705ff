"""Many classes: every method and certificate on signed rows (e_y − e_c)⊗x."""

from __future__ import annotations

import math
from dataclasses import replace

import clarabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array
from sklearn.linear_model import LogisticRegression

from common import (
    METHODS,
    OTHER_ORDER,
    SOLVER,
    against,
    as_csr,
    examples,
    random_samples,
    stacked,
)
from localgd import (
    Angle,
    ClassRows,
    InProcess,
    Regularised,
    Shard,
    Status,
    auto,
    certify,
    consensus,
    interior_point,
    local_gd,
    modified_local_gd,
    newton,
    scaffold,
    train,
)
from localgd.losses import Softmax
from localgd.problems.regularised import hessian
from localgd.reference.max_margin import max_margin, pooled_direction
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg
from rules.test_softmax import gradient

C, D = 4, 5
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def hard_margin(x, y, n_classes):
    """argmin ½|W|² subject to (W_y − W_c)·x >= 1, by a conic solver on constraints written out one by one."""
    d = x.shape[1]
    rows = []
    for sample, own in zip(x, y, strict=True):
        for other in range(n_classes):
            if other != own:
                row = np.zeros((n_classes, d))
                row[own], row[other] = sample, -sample
                rows.append(row.ravel())
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-12
    size = n_classes * d
    quadratic, cones = csc_array(np.eye(size)), [clarabel.NonnegativeConeT(len(rows))]
    solver = clarabel.DefaultSolver(
        quadratic, np.zeros(size), csc_array(-np.array(rows)), -np.ones(len(rows)), cones, options
    )
    return np.array(solver.solve().x)


@methods
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_at_every_round(method, seed):
    shards = against(random_samples(seed), C)
    pooled = max_margin(stacked(shards))
    run = train(InProcess(shards), method, n_rounds=40, reference=pooled.direction)
    for row in run.history:
        assert row.low <= pooled.margin_high
        assert row.high >= pooled.margin_low
        assert math.isnan(row.angle_deg_max) or row.true_angle_deg <= row.angle_deg_max + SOLVER
    assert run.history[-1].margin <= (stacked(shards) @ run.w).min() / np.linalg.norm(run.w)
    elsewhere = certify(run.w, InProcess(shards))
    assert elsewhere.margin_low <= pooled.margin_high
    assert elsewhere.margin_high >= pooled.margin_low


@settings(max_examples=examples(25))
@given(
    st.integers(0, 10_000),
    st.integers(3, 6),
    st.integers(2, 12),
    st.sampled_from(["local-gd", "local-sgd", "modified, projection"]),
)
def test_brackets_hold_on_random_problems(seed, n_classes, d, name):
    shards = against(random_samples(seed, n_classes, d=d), n_classes)
    pooled = max_margin(stacked(shards))
    run = train(InProcess(shards), METHODS[name], n_rounds=15, reference=pooled.direction)
    for row in run.history:
        assert row.low <= pooled.margin_high
        assert row.high >= pooled.margin_low
        assert math.isnan(row.angle_deg_max) or row.true_angle_deg <= row.angle_deg_max + SOLVER


@methods
def test_reruns_node_order_storage_and_scale(method):
    shards = against(random_samples(6), C)
    first = train(InProcess(shards), method, n_rounds=8)
    again = train(InProcess(shards[::-1], n_jobs=2), method, n_rounds=8)
    assert np.array_equal(first.w, again.w)
    np.testing.assert_allclose(
        train(InProcess(as_csr(shards)), method, n_rounds=8).w, first.w, rtol=OTHER_ORDER, atol=OTHER_ORDER
    )
    if getattr(method.task, "prox", 0) == 0:
        huge = [replace(shard, data=shard.data.over(2.0**-90)) for shard in shards]
        run = train(InProcess(huge), method, n_rounds=8)
        assert angle_deg(run.w, first.w) < 1e-5
        assert run.history[-1].accuracy == first.history[-1].accuracy


@pytest.mark.parametrize("seed", range(4))
def test_the_pooled_reference_is_the_multi_class_hard_margin(seed):
    samples = random_samples(seed)
    found = max_margin(stacked(against(samples, C)))
    exact = hard_margin(np.vstack([x for x, _ in samples]), np.concatenate([y for _, y in samples]), C)
    assert np.linalg.norm(found.direction - exact / np.linalg.norm(exact)) <= SOLVER
    assert found.margin_low == pytest.approx(1 / np.linalg.norm(exact), rel=SOLVER)
    assert np.abs(found.direction.reshape(C, D).sum(axis=0)).max() <= SOLVER  # classes sum to zero


def test_modified_local_gd_tends_to_the_hard_margin():
    shards = against(random_samples(7), C)
    pooled = max_margin(stacked(shards))
    rounds = (10, 100, 1000)
    history = train(InProcess(shards), modified_local_gd(), n_rounds=1000, reference=pooled.direction).history
    angles = [history[k].true_angle_deg for k in rounds]
    assert angles[0] > angles[1] > angles[2]
    assert angles[2] < 2.0
    assert history[-1].angle_deg_max < 15.0


@pytest.mark.parametrize(
    ("method", "rounds"), [(consensus(), 80), (interior_point(), 60)], ids=["consensus", "interior"]
)
def test_exact_methods_reach_the_multi_class_hard_margin(method, rounds):
    shards = against(random_samples(7), C)
    run = train(InProcess(shards), method, n_rounds=rounds, reference=max_margin(stacked(shards)).direction)
    assert run.history[-1].true_angle_deg <= 1e-4
    assert run.certificate.angle_deg_max <= 1e-2


@pytest.mark.parametrize("seed", [7, 11])
def test_the_choice_agrees_with_an_independent_quadratic_program(seed):
    """clarabel knows nothing of signed rows, projections or rounds."""
    samples = random_samples(seed)
    exact = hard_margin(np.vstack([x for x, _ in samples]), np.concatenate([y for _, y in samples]), C)
    run = train(InProcess(against(samples, C)), auto())
    assert np.linalg.norm(run.w / np.linalg.norm(run.w) - exact / np.linalg.norm(exact)) <= SOLVER
    assert run.certificate.margin_low <= 1 / np.linalg.norm(exact) * (1 + SOLVER)
    assert run.certificate.margin_high >= 1 / np.linalg.norm(exact) * (1 - SOLVER)


def test_rows_that_cancel_are_called_not_separable_to_within_rounding():
    x, y = np.array([[1.0, 0.2], [1.0, 0.2], [1.0, 0.2], [0.3, 1.0]]), np.array([0, 1, 2, 0])
    for method, n in ((local_gd(), 3), (modified_local_gd(), 4)):
        run = train(InProcess(against([(x[:n], y[:n])], 3)), method, n_rounds=100)
        assert run.certificate.verdict is Status.CANCELS


def test_mixed_numbers_of_classes_are_refused():
    mixed = [Shard(str(c), ClassRows(np.ones((2, 12 // c)), [0, 1], c)) for c in (3, 4)]
    for nodes in (mixed, [mixed[0], Shard("b", np.ones((6, 12)))]):
        with pytest.raises(ValueError, match="nodes differ in their number of rows a sample"):
            train(InProcess(nodes), local_gd())


@pytest.mark.parametrize("weighted_by", ["uniform", "num-examples"])
def test_where_no_plane_separates_the_pooled_model_is_the_softmax_minimiser(weighted_by):
    rng = np.random.default_rng(0)
    samples = [(rng.standard_normal((n, D)), rng.integers(0, C, n)) for n in (40, 80)]
    w = pooled_direction(against(samples, C), weighted_by).reshape(C, D)
    share = (0.5, 0.5) if weighted_by == "uniform" else (1 / 3, 2 / 3)
    slope = sum(p * gradient(w, x, y) for p, (x, y) in zip(share, samples, strict=True))
    assert np.abs(slope).max() <= 1e-12
    assert np.abs(w.sum(axis=0)).max() <= 1e-12  # of least norm
    engine = InProcess(against(samples, C))
    run = train(engine, local_gd(local_steps=1, weighted_by=weighted_by), n_rounds=3000)
    np.testing.assert_allclose(run.w, w.ravel(), rtol=SOLVER)
    apart = stacked(against(random_samples(0), C))
    with pytest.raises(ValueError, match="no minimiser"):
        minimiser(apart, np.full(len(apart), 1 / len(apart)), C - 1)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("method", [newton, scaffold], ids=["newton", "scaffold"])
def test_penalised_softmax_is_scikit_learns(method, intercept):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((90, D))
    y = rng.integers(0, C, 90)
    sides = [np.arange(0, 20), np.arange(20, 50), np.arange(50, 90)]
    rows = np.hstack([x, np.ones((90, 1))]) if intercept else x
    engine = InProcess(against([(rows[part], y[part]) for part in sides], C))
    run = train(engine, method(), problem=Regularised(C=0.3, intercept=intercept), n_rounds=200)
    sklearns = LogisticRegression(C=0.3, fit_intercept=intercept, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    sklearns.fit(x, y)
    w = run.w.reshape(C, -1)
    np.testing.assert_allclose(w[:, :D] - w[:, :D].mean(axis=0), sklearns.coef_, atol=SOLVER)
    if intercept:
        np.testing.assert_allclose(
            w[:, D] - w[:, D].mean(), sklearns.intercept_ - sklearns.intercept_.mean(), atol=1e-5
        )
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.distance < 1e-6


def test_the_hessian_of_softmax_is_the_derivative_of_its_gradient():
    x, y = random_samples(2)[2]
    w, step = np.random.default_rng(0).standard_normal(C * D), 1e-6
    for rows in (x, csr_array(x)):
        shard, loss = Shard("a", ClassRows(rows, y, C)), Softmax(C - 1)
        numeric = [
            (shard.combine(loss.slope(shard.margins(w - e))) - shard.combine(loss.slope(shard.margins(w + e))))
            / 2
            / step
            for e in np.eye(w.size) * step
        ]
        np.testing.assert_allclose(hessian(shard, loss, shard.margins(w)), numeric, rtol=1e-6, atol=1e-6)


def test_auto_finds_the_hard_margin_or_else_the_minimiser():
    apart = against(random_samples(7), C)
    run = train(InProcess(apart), auto(), n_rounds=150, reference=max_margin(stacked(apart)).direction)
    assert run.history[-1].true_angle_deg <= 1e-3
    rng = np.random.default_rng(0)
    mixed = against([(rng.standard_normal((n, D)), rng.integers(0, C, n)) for n in (40, 80)], C)
    run = train(InProcess(mixed), auto(), n_rounds=150)
    np.testing.assert_allclose(run.w, pooled_direction(mixed, "num-examples"), rtol=SOLVER, atol=SOLVER)


def test_certify_takes_models_of_many_classes_from_elsewhere_to_order():
    shards = against(random_samples(7), C)
    exact = max_margin(stacked(shards)).direction
    found = certify(exact, InProcess(shards), goal=Angle(1.0))
    assert found.verdict is Status.CERTIFIED
    assert found.angle_deg_max <= 1.0
    off = exact + 0.2 * np.eye(C * D)[0]
    apart = certify(off, InProcess(shards), goal=Angle(1.0))
    assert apart.angle_deg_min <= angle_deg(off, exact) <= apart.angle_deg_max
    assert apart.angle_deg_min > 1.0
    problem = Regularised(C=1.0)
    penalised = certify(exact, InProcess(shards), problem=problem)
    least = train(InProcess(shards), newton(), problem=problem)
    assert np.linalg.norm(exact - least.w) <= penalised.distance < 50
    assert 0 < penalised.objective - least.certificate.objective <= penalised.gap
    weights = np.concatenate([np.full(shard.n_samples, 1.0) for shard in shards])
    value = Softmax(C - 1).value(stacked(shards) @ exact) @ weights / len(weights) + exact @ exact / 2 / len(weights)
    assert penalised.objective == pytest.approx(value, rel=1e-9)
