"""Penalised losses: the pooled minimiser whatever the number of nodes, and what is proved about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from common import PENALISED, as_csr, examples, penalised, random_rows, shards_of, squared_hinge_fit, stacked, with_bias
from localgd import Angle, ClassRows, Gap, InProcess, SampledNodes, Shard, Status, local_gd, newton, scaffold, train
from localgd.losses import Exponential, SquaredHinge
from localgd.problems.duality_gap import minimiser_certificate
from localgd.problems.regularised import Appraise, Regularised
from localgd.reference.max_margin import minimiser

every_penalised = pytest.mark.parametrize("method", PENALISED.values(), ids=PENALISED)

EXACT = 1e-8
"""What the issue of every pooled fit is compared to: scikit-learn's newton-cholesky at tol 1e-12."""


def pooled_fit(shards, problem):
    """scikit-learn or Newton's method on all rows; rows are signed, so labels are made up and put back."""
    z = stacked(shards)
    if type(problem.loss) is SquaredHinge:
        return squared_hinge_fit(z, np.ones(len(z)), problem.C, problem.pull(np.ones(z.shape[1])))
    y = np.sign(z[:, -1]) if problem.intercept else np.where(np.arange(len(z)) % 2 == 0, 1.0, -1.0)
    x = (z * y[:, None])[:, :-1] if problem.intercept else z * y[:, None]
    model = LogisticRegression(
        C=problem.C, solver="newton-cholesky", tol=1e-12, max_iter=10_000, fit_intercept=problem.intercept
    ).fit(x, y)
    return np.append(model.coef_[0], model.intercept_) if problem.intercept else model.coef_[0]


def shifted(n_nodes, seed=0, n=700, d=12):
    """Rows of nodes whose features have unlike means and scales, with noisy labels and a bias."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)
    shards = []
    for m, size in enumerate(np.diff(np.linspace(0, n, n_nodes + 1).astype(int))):
        x = rng.standard_normal((size, d)) * rng.uniform(0.3, 2.0, d) + rng.standard_normal(d)
        y = np.where(rng.random(size) < 1 / (1 + np.exp(-x @ w)), 1.0, -1.0)
        shards.append(Shard(f"n{m:03d}", np.hstack([x, np.ones((size, 1))]) * y[:, None]))
    return shards


def split_again(shards, n_nodes):
    """The same rows over another number of nodes."""
    z = stacked(shards)
    order = np.random.default_rng(1).permutation(len(z))
    return [Shard(f"n{m:03d}", z[part]) for m, part in enumerate(np.array_split(order, n_nodes))]


@pytest.mark.parametrize("n_nodes", [1, 7, 100])
@pytest.mark.parametrize("data", ["heart", "shifted"])
@pytest.mark.parametrize(
    "method",
    [
        penalised(newton(), 1.0, intercept=True),
        penalised(scaffold(local_steps=1), 1.0, intercept=True),
        penalised(scaffold(local_steps=100), 1.0, intercept=True),
    ],
    ids=["newton", "scaffold, L=1", "scaffold, L=100"],
)
def test_coefficients_are_those_of_a_pooled_fit_whatever_the_number_of_nodes(method, data, n_nodes):
    shards = split_again(shards_of("heart"), n_nodes) if data == "heart" else shifted(n_nodes)
    run = train(InProcess(shards), method, n_rounds=500)
    expected = pooled_fit(shards, method.problem)
    np.testing.assert_allclose(run.w, expected, rtol=0, atol=EXACT)
    assert run.certificate.verdict is Status.CERTIFIED
    assert np.linalg.norm((run.w - expected)[:-1]) <= run.certificate.distance + 1e-11


def test_plain_local_gd_stops_beside_the_pooled_minimiser_and_says_how_far_at_most():
    """FedAvg's bias: more local steps on unlike nodes, farther from the pooled model; control variates have none."""
    shards = shifted(7)
    expected = pooled_fit(shards, Regularised(C=1.0, intercept=True))
    off = {}
    for local_steps in (10, 100):
        run = train(InProcess(shards), penalised(local_gd(local_steps=local_steps), 1.0, intercept=True), n_rounds=600)
        off[local_steps] = np.linalg.norm((run.w - expected)[:-1])
        assert off[local_steps] <= run.certificate.distance
    assert 0.01 < off[10] < off[100]


@every_penalised
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("storage", [list, as_csr], ids=["dense", "csr"])
@pytest.mark.parametrize("seed", range(3))
def test_gap_distance_and_angle_hold_at_every_round(method, noise, storage, seed):
    shards = with_bias(random_rows(seed), seed, noise)
    expected = pooled_fit(shards, method.problem)
    kept = slice(None, -1) if method.problem.intercept else slice(None)
    z, lam = stacked(shards), method.problem.strength(len(stacked(shards)))

    def least(w):
        return method.problem.loss.value(z @ w).mean() + lam / 2 * (w[kept] @ w[kept])

    def check(w, found):
        assert least(w) - least(expected) <= found.gap + 1e-15
        assert least(w) <= found.objective
        assert np.linalg.norm((w - expected)[kept]) <= found.distance + 1e-9
        if not math.isnan(found.angle_deg_max):
            a, b = w[kept], expected[kept]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert math.degrees(math.acos(min(1.0, cosine))) <= found.angle_deg_max + 2e-6

    run = train(InProcess(storage(shards)), method, n_rounds=60, on_round=lambda info: check(info.w, info.certificate))
    check(run.w, run.certificate)
    early = train(InProcess(storage(shards)), method, n_rounds=1)
    check(early.w, early.certificate)


@given(
    seed=st.integers(0, 10**6),
    C=st.sampled_from([1e-3, 1.0, 1e3]),
    intercept=st.booleans(),
    length=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3]),
)
@settings(max_examples=examples(120))
def test_any_vector_gets_a_gap_that_holds(seed, C, intercept, length):
    """Not only iterates: the bound is about w alone. Far off, e^(-m) leaves float64 and the gap is infinite."""
    shards = with_bias(random_rows(seed), seed, 0.2)
    problem = Regularised(C=C, intercept=intercept)
    z = stacked(shards)
    if intercept and len(np.unique(np.sign(z[:, -1]))) < 2:
        return
    w = length * np.random.default_rng(seed).standard_normal(z.shape[1])
    report = InProcess(shards).round(Appraise(problem), message(w))
    found = minimiser_certificate(w, report, problem)
    best = train(InProcess(shards), newton(), problem=problem, n_rounds=100)
    kept = slice(None, -1) if intercept else slice(None)
    lam = problem.strength(len(z))

    def value(v):
        return np.logaddexp(0, -z @ v).mean() + lam / 2 * (v[kept] @ v[kept])

    assert value(w) - value(best.w) <= found.gap * (1 + 1e-9) + 1e-13
    assert np.linalg.norm((w - best.w)[kept]) <= found.distance * (1 + 1e-9) + 1e-7


def message(w):
    from localgd.core import Message

    return Message(0, w)


@pytest.mark.parametrize("seed", range(5))
def test_without_a_penalty_the_curvature_proves_the_minimiser_and_that_nothing_separates_the_rows(seed):
    shards = with_bias(random_rows(seed, n=20), seed, 0.3)
    z = stacked(shards)
    expected = minimiser(z, np.full(len(z), 1 / len(z)))
    for rounds in (1, 2, 3, 60):
        run = train(InProcess(shards), newton(), n_rounds=rounds)
        assert np.linalg.norm(run.w - expected) <= run.certificate.distance + 1e-9
    np.testing.assert_allclose(run.w, expected, rtol=1e-8)
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.distance < 1e-9
    assert run.certificate.separable is False


def test_columns_that_depend_on_each_other_but_for_rounding_leave_nothing_proved_without_a_penalty():
    given = with_bias(random_rows(3, n=20), 3, 0.3)
    shards = [Shard(s.node_id, np.hstack([s.rows, s.rows[:, :1] / 3 + s.rows[:, 1:2]])) for s in given]
    run = train(InProcess(shards), newton(), n_rounds=60)
    assert run.certificate.status.startswith(
        "undecided: no bound on the distance to a minimiser, as the curvature is singular"
    )
    assert math.isinf(run.certificate.distance)
    assert math.isfinite(train(InProcess(shards), penalised(newton(), 1.0), n_rounds=60).certificate.distance)


def test_without_a_penalty_separable_rows_have_no_minimiser_and_newton_says_so():
    run = train(InProcess(random_rows(1)), newton(), n_rounds=60)
    assert run.n_rounds < 60
    assert run.certificate.separable


def test_no_certificate_for_another_loss():
    shards, problem = with_bias(random_rows(3), 3, 0.3), Regularised(Exponential(), C=1.0)
    report = InProcess(shards).round(Appraise(problem), message(np.zeros(6)))
    found = minimiser_certificate(np.zeros(6), report, problem)
    assert "no certificate, as the loss is exponential" in found.status


def test_goals_and_refusals():
    engine = InProcess(with_bias(random_rows(2), 2, 0.2))
    method = penalised(scaffold(local_steps=10), 1.0)
    assert train(engine, method, goal=[Gap(1e-3)]).n_rounds < train(engine, method, goal=[Gap(1e-9)]).n_rounds
    assert train(engine, method, goal=[Angle(1.0)]).certificate.angle_deg_max <= 1.0
    for refused in (method, penalised(newton(), 1.0)):
        with pytest.raises(ValueError, match="every node in every round"):
            train(engine, refused, nodes=SampledNodes(0.5))
    with pytest.raises(ValueError, match="C must be a positive number"):
        Regularised(C=0.0)
    with pytest.raises(ValueError, match="MB a node and round"):
        train(engine, penalised(newton(max_mb=1e-6), 1.0))
    with pytest.raises(ValueError, match="the late direction is no model, and a penalised loss has"):
        train(engine, penalised(local_gd().late(), 1.0))


@pytest.mark.parametrize("factor", [2.0**90, 2.0**-90])
def test_rows_of_extreme_size_give_the_same_model_if_c_is_in_their_unit(factor):
    """C multiplies a sum of losses, so it goes with 1/|z|²."""
    shards = with_bias(random_rows(4), 4, 0.2)
    plain = train(InProcess(shards), penalised(newton(), 1.0), n_rounds=30)
    scaled = [Shard(s.node_id, s.rows * factor) for s in shards]
    run = train(InProcess(scaled), penalised(newton(), 1.0 / factor / factor), n_rounds=30)
    np.testing.assert_allclose(run.w * factor, plain.w, rtol=1e-9)
    assert run.certificate.distance * factor == pytest.approx(plain.certificate.distance, rel=1e-6)


def test_partial_participation_of_penalised_local_gd():
    engine = InProcess(with_bias(random_rows(2), 2, 0.2))
    run = train(engine, penalised(local_gd(local_steps=5), 1.0), n_rounds=30, nodes=SampledNodes(0.5, seed=1))
    assert run.certificate.kind == "minimiser"
    expected = pooled_fit(list(engine.shards.values()), Regularised(C=1.0))
    assert np.linalg.norm(run.w - expected) <= run.certificate.distance


def test_partial_participation_of_penalised_local_gd_on_three_classes():
    """Rounds of some nodes prove nothing; the last look asks all of them, free intercepts or not."""
    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    for free in (False, True):
        rows = np.hstack([X, np.ones((len(X), 1))]) if free else X
        engine = InProcess(Shard(f"{m}", ClassRows(rows[m::4], y[m::4], 3)) for m in range(4))
        problem = Regularised(C=0.1, intercept=free)
        run = train(engine, local_gd(local_steps=5), problem=problem, n_rounds=60, nodes=SampledNodes(0.5, seed=1))
        pooled = LogisticRegression(C=0.1, fit_intercept=free, solver="newton-cholesky", tol=1e-12).fit(X, y)
        off = np.linalg.norm(run.w.reshape(3, -1)[:, : X.shape[1]] - pooled.coef_)
        assert 0 < off <= run.certificate.distance < math.inf
        assert not any(math.isfinite(row.gap) for row in run.history[:-1])


def test_a_round_without_all_nodes_never_shows_the_proof_of_an_earlier_model():
    """Every third round asks all nodes: the rows between must not carry its gap on."""
    shards = with_bias(random_rows(2), 2, 0.2)
    engine = InProcess(shards)

    def nodes(round_, node_ids):
        return node_ids if round_ % 3 == 0 else node_ids[:1]

    run = train(engine, penalised(local_gd(local_steps=5), 1.0), n_rounds=12, nodes=nodes)
    assert [math.isfinite(row.gap) for row in run.history] == [k % 3 == 0 for k in range(13)]
