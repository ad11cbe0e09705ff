"""Many classes: softmax by first principles, and every method and certificate on signed rows (e_y − e_c)⊗x."""

from __future__ import annotations

import math
import warnings
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
    SAME_ORDER,
    SOLVER,
    against,
    as_csr,
    examples,
    pooled_gd,
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
    local_sgd,
    modified_local_gd,
    newton,
    scaffold,
    train,
)
from localgd.core import Message
from localgd.kernels import gram, reference
from localgd.kernels.reference import Steps
from localgd.losses import Exponential, Logistic, Softmax, among
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import hessian
from localgd.reference.max_margin import max_margin, pooled_direction
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg
from localgd.rules.probes import largest_eigenvalue

C, D = 4, 5
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def probabilities(scores):
    """The textbook softmax, for scores of moderate size."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradient(w, x, y):
    """∇F of the mean cross-entropy at W, (C, d)."""
    p = probabilities(x @ w.T)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y)


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


margins = st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6).map(np.array)


@given(margins)
def test_two_classes_are_logistic(m):
    np.testing.assert_allclose(Softmax(1).value(m), Logistic().value(m), rtol=1e-15, atol=0)
    np.testing.assert_allclose(Softmax(1).slope(m), Logistic().slope(m), rtol=1e-15, atol=1e-307)
    assert among(Softmax(1), 1) == among(Logistic(), 1) == Logistic()


@given(margins, st.sampled_from([1, 2, 3]))
def test_softmax_is_safe_at_every_margin_and_its_slopes_are_probabilities(m, versus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, slope = Softmax(versus).value(m), Softmax(versus).slope(m)
    assert value.shape == (6 // versus,)
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    assert (slope >= 0).all()
    assert (slope.reshape(-1, versus).sum(axis=1) <= 1 + 1e-15).all()
    scores = np.hstack([np.zeros((6 // versus, 1)), -m.reshape(-1, versus)])
    np.testing.assert_allclose(slope.reshape(-1, versus), probabilities(scores)[:, 1:], rtol=1e-13, atol=1e-300)


def test_slope_is_minus_the_derivative_of_the_value():
    rng = np.random.default_rng(0)
    m, loss, step = rng.normal(0, 3, 30), Softmax(3), 1e-6
    each = np.eye(30) * step
    numeric = [(loss.value(m - e).sum() - loss.value(m + e).sum()) / (2 * step) for e in each]
    np.testing.assert_allclose(loss.slope(m), numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_smoothness_bounds_the_hessian_and_is_half_that_of_the_plain_rows(seed):
    x, y = random_samples(seed)[2]
    shard = Shard("a", ClassRows(x, y, C))
    beta = Softmax(C - 1).curvature * largest_eigenvalue(shard, C - 1)
    assert beta == pytest.approx(np.linalg.eigvalsh(x.T @ x / len(y))[-1] / 2, rel=1e-5)
    rng = np.random.default_rng(seed)
    for size in (0.0, 0.3, 1.0, 3.0):
        w = size * rng.standard_normal((C, D))
        p = probabilities(x @ w.T)
        spread = [np.kron(np.diag(q) - np.outer(q, q), np.outer(z, z)) for q, z in zip(p, x, strict=True)]
        assert np.linalg.eigvalsh(np.mean(spread, axis=0))[-1] <= beta
    pair = 50.0 * np.array([x[0], x[0], -x[0], -x[0]])  # two classes at one half each: the bound is met on one sample
    q = probabilities(x[:1] @ pair.T)[0]
    top = np.linalg.eigvalsh(np.kron(np.diag(q) - np.outer(q, q), np.outer(x[0], x[0])))[-1]
    one = Shard("a", ClassRows(x[:1], y[:1], C))
    assert top == pytest.approx(Softmax(C - 1).curvature * largest_eigenvalue(one, C - 1), rel=1e-5)


@pytest.mark.parametrize("weighted_by", ["uniform", "num-examples"])
def test_one_full_batch_step_is_softmax_gradient_descent_on_the_pooled_rows(weighted_by):
    samples = random_samples(1)
    method = local_gd(local_steps=1, lr=0.3, weighted_by=weighted_by)
    run = train(InProcess(against(samples, C)), method, n_rounds=100)
    sizes = np.array([len(y) for _, y in samples])
    share = sizes / sizes.sum() if weighted_by == "num-examples" else np.full(len(sizes), 1 / len(sizes))
    w = np.zeros((C, D))
    for _ in range(100):
        w = w - 0.3 * sum(p * gradient(w, x, y) for p, (x, y) in zip(share, samples, strict=True))
    assert np.linalg.norm(run.w - w.ravel()) <= SAME_ORDER * np.linalg.norm(w)
    weights = np.repeat(share / sizes / (C - 1), sizes * (C - 1))
    pooled = pooled_gd(stacked(against(samples, C)), weights, Softmax(C - 1), 0.3, 100)
    assert np.linalg.norm(pooled - w.ravel()) <= SAME_ORDER * np.linalg.norm(w)
    assert run.history[-1].loss == pytest.approx(
        sum(
            p * -np.log(probabilities(x @ w.T)[np.arange(len(y)), y]).mean()
            for p, (x, y) in zip(share, samples, strict=True)
        ),
        rel=OTHER_ORDER,
    )


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kernel", [reference.coefficients, gram.coefficients])
def test_local_steps_are_softmax_steps(kernel, batch):
    x, y = random_samples(2)[2]
    shard = Shard("a", ClassRows(x, y, C))
    w0 = np.random.default_rng(0).standard_normal((C, D))
    picks = None if batch is None else np.random.default_rng(1).integers(len(y), size=(7, batch))
    w = w0.copy()
    for step in range(7):
        chosen = slice(None) if picks is None else picks[step]
        w = w0 + 0.9 * (w - w0) - 0.5 * gradient(w, x[chosen], y[chosen])
    a = kernel(shard, w0.ravel(), shard.margins(w0.ravel()), Steps(7, 0.5, Softmax(C - 1), 0.9, picks))
    assert (a >= 0).all()
    np.testing.assert_allclose(w0.ravel() + shard.combine(a), w.ravel(), rtol=1e-11, atol=1e-12)


def test_logistic_means_softmax_where_samples_have_many_rows_and_exponential_stays():
    engine = InProcess(against(random_samples(3), C))
    for method in (local_gd(), local_sgd(), modified_local_gd(), modified_local_gd(form="proximal")):
        assert train(engine, method, n_rounds=1).method.task.loss == Softmax(C - 1)
    run = train(engine, local_gd(loss="exponential"), n_rounds=1)
    assert run.method.task.loss == Exponential()
    assert train(engine, local_gd(loss=Softmax(9)), n_rounds=1).method.task.loss == Softmax(C - 1)


def test_samples_are_counted_not_rows():
    samples = random_samples(4)
    engine, n = InProcess(against(samples, C)), sum(len(y) for _, y in samples)
    w = np.random.default_rng(0).standard_normal((C, D))
    report = engine.round(Evaluate(), Message(0, w.ravel()))
    assert report.n_rows == n
    assert report.sums["correct"] == sum(int(((x @ w.T).argmax(axis=1) == y).sum()) for x, y in samples)
    assert 0 < report.sums["correct"] < n
    by_size = train(engine, local_gd(weighted_by="num-examples", local_steps=2), n_rounds=2)
    assert by_size.history[-1].accuracy == pytest.approx(
        sum(int(((x @ by_size.w.reshape(C, D).T).argmax(axis=1) == y).sum()) for x, y in samples) / n
    )


def test_batches_are_of_samples():
    engine = InProcess(against(random_samples(5), C))
    full = train(engine, local_gd(local_steps=5, lr=0.3), n_rounds=5)
    assert np.array_equal(full.w, train(engine, local_sgd(local_steps=5, lr=0.3, batch_size=45), n_rounds=5).w)
    assert not np.array_equal(full.w, train(engine, local_sgd(local_steps=5, lr=0.3, batch_size=8), n_rounds=5).w)


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
