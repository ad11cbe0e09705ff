"""Weights of samples: one of weight 2 is two of weight 1, one of weight 0 is not there, and nothing false is proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression, Ridge

from common import METHODS, PENALISED, SOLVER, examples, random_rows, random_samples, stacked, with_bias
from cut import assert_same_run
from engines.flower_grid import flower
from localgd import (
    ClassRows,
    InProcess,
    LeastSquares,
    NodeError,
    Regularised,
    Samples,
    Shard,
    auto,
    certify,
    conjugate_gradients,
    newton,
    normal_equations,
    train,
)
from localgd.core import Message
from localgd.engine.nodes import fingerprint
from localgd.losses import Exponential, Logistic
from localgd.methods.method import Method
from localgd.problems.least_squares import Squares
from localgd.problems.metrics import Evaluate, total
from localgd.problems.regularised import Appraise, Curvature
from localgd.reference.max_margin import max_margin, pooled_direction
from localgd.rounding import angle_deg
from localgd.rules.compressed import Compressed
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.probes import largest_eigenvalue, measured
from localgd.rules.server import mean
from localgd.theory.laws import flow

EXACT = 1e-12


def counts(rng, n):
    """0 to 3 of each, not all of them 0."""
    out = rng.integers(0, 4, n)
    out[rng.integers(n)] = 2
    return out


def repeated(shard, n_times):
    return replace(shard, data=shard.data.take(np.repeat(np.arange(shard.n_samples), n_times)))


def both(shards, seed):
    """Federations of the same samples: with weights, and written out."""
    rng = np.random.default_rng(seed)
    times = [counts(rng, shard.n_samples) for shard in shards]
    weighted = [replace(shard, weights=n.astype(float)) for shard, n in zip(shards, times, strict=True)]
    return InProcess(weighted), InProcess([repeated(s, n) for s, n in zip(shards, times, strict=True)])


def two_classes(seed):
    return with_bias(random_rows(seed), seed, noise=0.1)


def four_classes(seed):
    return [Shard(f"node-{m}", ClassRows(x, y, 4)) for m, (x, y) in enumerate(random_samples(seed))]


def of_targets(seed, intercept=True):
    rng = np.random.default_rng(seed)
    out = []
    for m in range(3):
        x = np.hstack([rng.standard_normal((6 + m, 3)), np.ones((6 + m, 1))])
        out.append((f"node-{m}", x if intercept else x[:, :3], x @ [1.0, -2.0, 0.5, 3.0] + rng.standard_normal(6 + m)))
    return out


def squares(seed, **options):
    """The same rows and targets, with weights and written out."""
    rng = np.random.default_rng(seed)
    nodes = of_targets(seed, **options)
    times = [counts(rng, len(y)) for _, _, y in nodes]
    one = InProcess(Samples(k, x, y, weights=n) for (k, x, y), n in zip(nodes, times, strict=True))
    other = InProcess(
        Samples(k, np.repeat(x, n, axis=0), np.repeat(y, n)) for (k, x, y), n in zip(nodes, times, strict=True)
    )
    return one, other


def assert_alike(one, other):
    """The sums of two reports, those that only tell of weights apart; bounds on rounding may differ."""
    names = set(one.sums) - {"total", "n_weighted", "drift", "blur", "drift_last", "blur_pull", "blur_last"}
    names = {name for name in names if not name.startswith("along_drift")}
    assert names >= {"weight"} or names >= {"pull"}
    for name in names:
        np.testing.assert_allclose(one.sums[name], other.sums[name], rtol=EXACT, atol=EXACT, err_msg=name)
    assert total(one) == pytest.approx(other.n_rows)


LOOKS = {
    "standing": (Evaluate(weighted_by="num-examples"), two_classes),
    "exponential": (Evaluate(Exponential()), two_classes),
    "gradient": (Appraise(Regularised(C=1.0)), two_classes),
    "gradient, free bias": (Appraise(Regularised(C=1.0, intercept=True)), two_classes),
    "curvature": (Curvature(Regularised(C=1.0)), two_classes),
    "curvature, exponential": (Curvature(Regularised(Exponential(), C=1.0)), two_classes),
    "gradient, four classes": (Appraise(Regularised(C=1.0, intercept=True).among(3)), four_classes),
    "curvature, four classes": (Curvature(Regularised(C=1.0).among(3)), four_classes),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOOKS)
def test_sums_are_those_of_repeated_samples(name, seed):
    task, make = LOOKS[name]
    one, other = both(make(seed), seed)
    w = np.random.default_rng(seed).standard_normal(measured(one).n_features)
    assert_alike(one.round(task, Message(0, w)), other.round(task, Message(0, w)))


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_squared_loss_are_those_of_repeated_rows(seed):
    one, other = squares(seed)
    rng = np.random.default_rng(seed)
    asked = Message(0, rng.standard_normal(4), {"along": rng.standard_normal(4), "moments": np.asarray(4.0)})
    assert_alike(one.round(Squares(intercept=True), asked), other.round(Squares(intercept=True), asked))


@pytest.mark.parametrize("make", [two_classes, four_classes])
def test_constants_are_those_of_repeated_samples(make):
    one, other = both(make(3), 3)
    sizes, written_out = measured(one), measured(other)
    assert sizes.total == written_out.n_samples == written_out.total
    assert sizes.n_samples == sum(shard.n_samples for shard in one.shards.values()) < written_out.n_samples
    assert (sizes.radius, sizes.versus) == (written_out.radius, written_out.versus)
    for name, shard in one.shards.items():
        again = other.shards[name]
        found = [largest_eigenvalue(node, shard.versus) for node in (shard, again)]
        assert found[0] == pytest.approx(found[1], rel=1e-5)  # a power iteration


SAMPLED = {name for name in {**METHODS, **PENALISED} if name.startswith("local-sgd")}
CODED = {name for name, method in {**METHODS, **PENALISED}.items() if isinstance(method.task, Compressed)}
"""Codes are step functions: two sums that differ by their rounding may have codes a step apart."""

BY_COUNTS = {"interior-point", "consensus"}
"""Methods whose path depends on how many rows there are, or magnifies rounding: they end at the same model."""


@pytest.mark.parametrize("name", sorted({*METHODS, *PENALISED} - SAMPLED - BY_COUNTS - CODED))
@pytest.mark.parametrize("make", [two_classes, four_classes], ids=["two classes", "four classes"])
def test_every_full_batch_method_goes_the_way_of_repeated_samples(name, make):
    """But for the step size that a power iteration finds, to 1e-6: so the methods are told theirs."""
    method = {**METHODS, **PENALISED}[name]
    shards = random_rows(1) if name in METHODS and make is two_classes else make(1)
    one, other = both(shards, 1)
    if "squared hinge" in name and make is four_classes:
        with pytest.raises(ValueError, match="squared_hinge is a loss of two classes; for more, each class against"):
            train(one, method, n_rounds=1)
        return
    if hasattr(method.task, "lr"):
        method = replace(method, task=replace(method.task, lr=0.05))
    runs = [train(engine, method, n_rounds=10) for engine in (one, other)]
    w = [run.w.reshape(4, -1) if make is four_classes else run.w for run in runs]
    shifted = make is four_classes and getattr(method.problem, "intercept", False)
    if shifted:  # biases are unique up to a common shift, which changes the length
        w = [np.hstack([each[:, :-1], each[:, -1:] - each[:, -1].mean()]) for each in w]
    np.testing.assert_allclose(*w, rtol=1e-9, atol=1e-9)
    for a, b in zip(runs[0].history, runs[1].history, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-9, nan_ok=True)
        assert a.accuracy == pytest.approx(b.accuracy, rel=EXACT, nan_ok=True)
        assert shifted or a.low == pytest.approx(b.low, rel=1e-9)


@pytest.mark.parametrize("method", [normal_equations(), conjugate_gradients()], ids=lambda method: method.name)
@pytest.mark.parametrize("problem", [LeastSquares(0.7, intercept=True), LeastSquares(intercept=True)], ids=repr)
def test_least_squares_is_that_of_repeated_rows_and_of_scikit_learn(method, problem):
    one, other = squares(2)
    found, again = (train(engine, method, problem=problem, n_rounds=50) for engine in (one, other))
    np.testing.assert_allclose(found.w, again.w, rtol=SOLVER)
    assert found.certificate.objective == pytest.approx(again.certificate.objective, rel=1e-9)
    x, y, s = (
        np.concatenate(parts)
        for parts in zip(*((n.rows, n.targets, n.weigh(np.ones(n.n_rows))) for n in one.shards.values()), strict=True)
    )
    exact = Ridge(alpha=problem.alpha or 1e-12, tol=1e-14).fit(x[:, :3], y, sample_weight=s)
    assert np.linalg.norm(found.w[:3] - exact.coef_) <= found.certificate.distance + SOLVER
    np.testing.assert_allclose(np.append(exact.coef_, exact.intercept_), found.w, rtol=1e-6)


@pytest.mark.parametrize("intercept", [False, True])
def test_a_penalised_model_is_scikit_learns_with_sample_weight_and_within_its_certificate(intercept):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shards = [replace(s, weights=rng.random(s.n_rows) * 3) for s in with_bias(random_rows(seed), seed, noise=0.2)]
        run = train(InProcess(shards), newton(), problem=Regularised(C=0.5, intercept=intercept), n_rounds=30)
        z = stacked(shards)
        y, s = np.sign(z[:, -1]), np.concatenate([shard.weights for shard in shards])
        x = z * y[:, None]
        exact = LogisticRegression(C=0.5, fit_intercept=intercept, tol=1e-12, solver="newton-cholesky", max_iter=1000)
        exact.fit(x[:, :-1] if intercept else x, y, sample_weight=s)
        w = np.append(exact.coef_, exact.intercept_) if intercept else exact.coef_.ravel()
        assert np.linalg.norm(run.w - w) <= run.certificate.distance + 1e-6
        np.testing.assert_allclose(run.w, w, atol=1e-6)
        for far in (1.5 * w, w + rng.standard_normal(w.size)):  # models from elsewhere
            found = certify(far, InProcess(shards), problem=Regularised(C=0.5, intercept=intercept))
            assert np.linalg.norm(far - w) <= found.distance * (1 + 1e-9)


def test_a_hard_margin_knows_only_which_samples_there_are():
    for seed in range(examples(40)):
        rng = np.random.default_rng(seed)
        shards, absent = random_rows(seed), 0
        weighted = []
        for shard in shards:
            weights = 10.0 ** rng.uniform(-4, 4, shard.n_rows) * (rng.random(shard.n_rows) < 0.7)
            weights[0] = 1.0
            absent += int((weights == 0).sum())
            weighted.append(replace(shard, weights=weights))
        assert sum(s.n_rows for s in weighted) == sum(s.n_rows for s in shards) - absent
        exact = max_margin(stacked(weighted))
        for name in ("local-gd", "local-sgd", "modified, projection", "slowmo"):
            run = train(InProcess(weighted), METHODS[name], n_rounds=15)
            found = run.certificate
            assert found.margin_low <= exact.margin_high
            assert found.margin_high >= exact.margin_low
            assert np.isnan(found.angle_deg_max) or angle_deg(run.w, exact.direction) <= found.angle_deg_max + SOLVER
        run = train(InProcess(weighted), auto(), n_rounds=300)
        assert angle_deg(run.w, exact.direction) <= max(run.certificate.angle_deg_max, SOLVER)


def test_interior_points_and_consensus_end_at_the_model_of_repeated_samples():
    one, other = both(random_rows(4), 4)
    for name in BY_COUNTS:
        found, again = (train(engine, METHODS[name], n_rounds=200) for engine in (one, other))
        assert angle_deg(found.w, again.w) <= 1e-3
        assert found.certificate.angle_deg_max <= 0.1


def test_mini_batches_are_drawn_uniformly_and_their_gradients_weighted():
    """The mean of many rounds of one step is the full-batch step."""
    rng = np.random.default_rng(0)
    shard = replace(random_rows(2)[2], weights=rng.random(9) + 0.1)
    task = replace(METHODS["local-sgd"].task, local_steps=1, lr=0.1, loss=Logistic(), weighted_by="uniform")
    message = Message(0, np.zeros(shard.n_features))
    steps = [task.run(replace(message, round=k), shard, None)[0].duals["update"].vector for k in range(3000)]
    exact = 0.1 * shard.own_sum(shard.weigh(np.full(9, 0.5))) / shard.total
    spread = np.std(steps, axis=0) / np.sqrt(len(steps))
    assert (np.abs(np.mean(steps, axis=0) - exact) <= 5 * spread).all()


def test_newton_hands_out_the_biases_that_add_up_to_zero():
    for seed in range(3):
        for method in (newton(), PENALISED["lbfgs, free bias"]):
            run = train(InProcess(four_classes(seed)), method, problem=Regularised(C=1.0, intercept=True), n_rounds=60)
            assert abs(run.w.reshape(4, -1)[:, -1].sum()) <= 1e-9


def test_the_reference_for_rows_that_nothing_separates_is_weighted():
    rng = np.random.default_rng(0)
    shards = [replace(s, weights=rng.random(s.n_rows) + 0.2) for s in with_bias(random_rows(0), noise=0.4)]
    w = pooled_direction(shards, "num-examples")
    slope = sum(s.own_sum(s.weigh(Logistic().slope(s.margins(w)))) for s in shards)
    assert np.abs(slope).max() <= 1e-9


def test_weights_travel_as_the_rows_do():
    shards = [replace(s, weights=np.linspace(0.5, 2.0, s.n_rows)) for s in random_rows(2)]
    for method, problem in ((METHODS["local-gd"], None), (newton(), Regularised(C=1.0))):
        here, there = (train(make(shards), method, problem=problem, n_rounds=8) for make in (InProcess, flower))
        assert_same_run(there, here)


def test_weights_that_are_all_one_change_no_bit_and_no_digest():
    shards = random_rows(3)
    ones = [replace(s, weights=np.ones(s.n_rows)) for s in shards]
    runs = [train(InProcess(nodes), METHODS["local-gd"], n_rounds=5) for nodes in (ones, shards)]
    assert_same_run(*runs)
    assert fingerprint(ones[2]) == fingerprint(shards[2])
    assert fingerprint(replace(shards[2], weights=np.linspace(1, 2, shards[2].n_rows))) != fingerprint(shards[2])


def test_only_the_ratio_of_weights_counts_where_there_is_no_penalty():
    rng = np.random.default_rng(5)
    shards = [replace(s, weights=rng.random(s.n_rows) + 0.1) for s in random_rows(5)]
    doubled = [replace(s, weights=2 * s.weights) for s in shards]
    runs = [train(InProcess(nodes), METHODS["local-gd"], n_rounds=5) for nodes in (shards, doubled)]
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-5)
    pairs = ((shards, 1.0), (doubled, 0.5))
    halved = [train(InProcess(nodes), newton(), problem=Regularised(C=c)) for nodes, c in pairs]
    np.testing.assert_allclose(halved[0].w, halved[1].w, rtol=1e-9)


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_samples_of_weight_zero_are_left_out_with_all_that_is_theirs(storage):
    x = np.arange(1.0, 9.0).reshape(4, 2)
    shard = Shard("a", storage(x), weights=[0.0, 2.0, 0.0, 1.0])
    assert (shard.n_rows, shard.total, shard.weights.tolist()) == (2, 3.0, [2.0, 1.0])
    np.testing.assert_array_equal(shard.margins(np.array([1.0, 0.0])), [3.0, 7.0])
    held = Samples("a", storage(x), [1.0, 2.0, 3.0, 4.0], weights=[0.0, 2.0, 0.0, 1.0])
    np.testing.assert_array_equal(held.targets, [2.0, 4.0])
    many = Shard("a", ClassRows(storage(x), [0, 1, 2, 1], 3), weights=[1.0, 0.0, 1.0, 0.0])
    assert (many.n_samples, many.weights, many.data.codes.tolist()) == (2, None, [0, 2])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], r"node 'a' has 3 samples but weights of shape \(1,\); give one each"),
        ([[1.0, 1.0, 1.0]], r"node 'a' has 3 samples but weights of shape \(1, 3\); give one each"),
        ([1.0, -1.0, 1.0], "node 'a' has weights that are not finite, or below 0"),
        ([1.0, np.nan, 1.0], "node 'a' has weights that are not finite, or below 0"),
        ([1.0, np.inf, 1.0], "node 'a' has weights that are not finite, or below 0"),
        ([0.0, 0.0, 0.0], "node 'a' has no sample of a weight above 0; leave the node out"),
        ([1e-13, 1.0, 1.0], "node 'a' has weights from 1e-13 to 1e.00: too far apart"),
        ([1e40, 1e40, 1e40], "node 'a' has weights from 1e.40 to 1e.40: too far apart"),
    ],
)
def test_weights_that_mean_nothing_are_refused_in_words(weights, words):
    with pytest.raises(ValueError, match=words):
        Shard("a", np.eye(3), weights=weights)


def test_what_knows_no_weights_says_so():
    held = Samples("a", np.eye(3), np.ones(3), weights=[1.0, 2.0, 3.0])
    with pytest.raises(NodeError, match="these steps know no weights; take normal-equations"):
        train(InProcess([held]), Method("projections", SquaresSteps(), mean(), LeastSquares()), n_rounds=1)
    with pytest.raises(ValueError, match="these laws hold for samples of one weight"):
        flow([Shard("a", np.eye(3), weights=[1.0, 2.0, 3.0])], [1.0])
