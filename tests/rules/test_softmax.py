"""Softmax by first principles: the loss, and local steps on signed rows (e_y − e_c)⊗x."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import (
    OTHER_ORDER,
    SAME_ORDER,
    against,
    pooled_gd,
    random_samples,
    stacked,
)
from localgd import (
    ClassRows,
    InProcess,
    Shard,
    local_gd,
    local_sgd,
    modified_local_gd,
    train,
)
from localgd.core import Message
from localgd.kernels import gram, reference
from localgd.kernels.reference import Steps
from localgd.losses import Exponential, Logistic, Softmax, among
from localgd.problems.metrics import Evaluate
from localgd.rules.probes import largest_eigenvalue

C, D = 4, 5


def probabilities(scores):
    """The textbook softmax, for scores of moderate size."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradient(w, x, y):
    """∇F of the mean cross-entropy at W, (C, d)."""
    p = probabilities(x @ w.T)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y)


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
