"""What is looked for: every method on every problem it has a meaning for, and words for the others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from common import OTHER_ORDER, against, penalised, random_rows, stacked, with_bias
from localgd import (
    Angle,
    Certificate,
    Exponential,
    HardMargin,
    InProcess,
    LeastSquares,
    Logistic,
    Regularised,
    Samples,
    SquaredHinge,
    Status,
    certify,
    consensus,
    interior_point,
    lbfgs,
    local_gd,
    local_sgd,
    modified_local_gd,
    newton,
    newton_cg,
    normalised_local_gd,
    scaffold,
    train,
)
from localgd.methods.method import Fallback
from localgd.methods.table import METHODS, method_named
from localgd.problems.hard_margin import judged
from localgd.reference.max_margin import max_margin
from localgd.rounding import norm
from localgd.rules.server import End

MAX_MARGIN_ONLY = {
    "modified-local-gd": "an anchor at 0 takes the model away from a finite minimiser",
    "normalised-local-gd": "the least value of a penalised loss is not 0, so it is nothing to divide by",
    "consensus": "its projections look for the max-margin model",
    "interior-point": "its rounds look for the max-margin model",
}
AVERAGING = {"local-gd", "local-sgd", "fedexp", "fedprox", "slowmo"}
MINIMISERS_ONLY = {"newton", "newton-cg", "lbfgs", "scaffold"}
NUMBERS_ONLY = {"normal-equations", "conjugate-gradients"}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("loss", [Logistic(), SquaredHinge()], ids=lambda loss: loss.name)
def test_a_method_finds_the_minimiser_or_refuses_in_words(name, loss):
    engine, problem = InProcess(with_bias(random_rows(2), 2, 0.2)), Regularised(loss, 1.0, intercept=True)
    if name in MAX_MARGIN_ONLY:
        with pytest.raises(ValueError, match=f"{name}: it has no meaning with C=1.0: {MAX_MARGIN_ONLY[name]}; take"):
            train(engine, method_named(name), problem=problem, n_rounds=1)
        return
    if name in NUMBERS_ONLY:
        with pytest.raises(ValueError, match=f"{name}: it fits real targets, and cannot look for the minimiser model"):
            train(engine, method_named(name), problem=problem, n_rounds=1)
        return
    options = {"local_steps": 1} if name in AVERAGING else {}  # more of them end beside it
    run = train(engine, method_named(name, **options), problem=problem, n_rounds=100)
    assert run.method.problem == problem
    assert run.certificate.kind == "minimiser"
    extrapolates = name == "fedexp"  # beyond the minimiser, again and again
    assert run.certificate.verdict in (Status.CERTIFIED, *([Status.FINITE] if extrapolates else []))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_the_hard_margin_or_refuses_in_words(name):
    engine = InProcess(random_rows(2))
    if name in MINIMISERS_ONLY:
        with pytest.raises(ValueError, match=rf"{name}: it goes down a loss .* take another method"):
            train(engine, method_named(name), problem=HardMargin(), n_rounds=1)
        return
    if name in NUMBERS_ONLY:
        with pytest.raises(ValueError, match=f"{name}: it fits real targets, and cannot look for the max-margin model"):
            train(engine, method_named(name), problem=HardMargin(), n_rounds=1)
        return
    run = train(engine, method_named(name), problem=HardMargin(), n_rounds=100)
    assert run.certificate.kind == "max-margin"
    assert run.certificate.separable


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_method_fits_real_targets_or_refuses_in_words(name, alpha):
    nodes = [Samples(shard.node_id, shard.rows, np.arange(float(shard.n_rows))) for shard in random_rows(2)]
    engine, problem = InProcess(nodes), LeastSquares(alpha)
    if name not in NUMBERS_ONLY | {"auto"}:
        with pytest.raises(ValueError, match=f"{name}: it is for signed rows, and cannot look for"):
            train(engine, method_named(name), problem=problem, n_rounds=1)
        return
    run = train(engine, method_named(name), problem=problem, n_rounds=100)
    assert run.end is End.DONE
    assert run.certificate.kind == problem.kind or name == "conjugate-gradients"
    assert run.certificate.verdict is Status.CERTIFIED or (name, alpha) == ("conjugate-gradients", 0.0)
    x, y = stacked(nodes), np.concatenate([node.targets for node in nodes])
    exact = np.linalg.solve(x.T @ x + alpha * np.eye(5), x.T @ y)
    np.testing.assert_allclose(run.w, exact, rtol=OTHER_ORDER)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (modified_local_gd(form="proximal"), "an anchor at 0 takes the model away from a finite minimiser"),
        (local_gd(lr="paper"), "lr='paper' is a step size for the hard margin"),
        (local_gd().late(), "the late direction is no model"),
        (local_gd(loss="exponential"), r"a matter of the problem here: Regularised\(loss='exponential'\)"),
        (local_gd(weighted_by="uniform"), "weighted_by='uniform' has no meaning with C"),
        (
            method_named("normalised-local-gd", lr="auto", loss="logistic").late(False),
            "the least value of a penalised loss is not 0",
        ),
    ],
)
def test_settings_for_the_hard_margin_are_refused_in_words_for_a_minimiser(method, message):
    with pytest.raises(ValueError, match=f"{method.name}: .*{message}"):
        train(InProcess(random_rows(2)), method, problem=Regularised(C=1.0), n_rounds=1)


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (normalised_local_gd(), ("nothing to divide by", "lr='paper'", "loss='exponential'")),
        (local_gd(lr="paper", loss="exponential", weighted_by="uniform"), ("lr='paper'", "loss=", "weighted_by=")),
        (local_gd(lr="paper").late(), ("leave late out (late=False, --no-late)", "lr='paper'")),
    ],
)
def test_all_that_has_no_meaning_for_a_minimiser_is_named_at_once(method, named):
    with pytest.raises(ValueError, match=f"^{method.name}: ") as caught:
        train(InProcess(random_rows(2)), method, problem=Regularised(C=1.0), n_rounds=1)
    assert all(part in f"{caught.value}" for part in named)


def test_who_asks_for_the_late_direction_of_local_gd_is_not_told_to_take_local_gd():
    with pytest.raises(ValueError, match=r"leave late out \(late=False, --no-late\)$"):
        train(InProcess(random_rows(2)), local_gd().late(), problem=Regularised(C=1.0), n_rounds=1)


def test_a_loss_that_is_not_the_problems_is_refused():
    """Not even the logistic one passes in silence, though it is what both begin with."""
    for given, problem in (("logistic", Regularised("exponential", C=1.0)), ("exponential", Regularised(C=1.0))):
        with pytest.raises(ValueError, match=f"loss='{given}' is a matter of the problem here"):
            train(InProcess(random_rows(2)), local_gd(loss=given), problem=problem, n_rounds=1)


def exponential_minimiser(shards, C):
    """The minimiser of the pooled objective, by scipy: a sum over rows, for every sample's worth of which N counts."""
    z, n = stacked(shards), sum(shard.n_samples for shard in shards)

    def objective(w):
        falls = np.exp(-z @ w)
        return falls.sum() / n + w @ w / (2 * C * n), w / (C * n) - z.T @ falls / n

    return minimize(objective, np.zeros(z.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-12}).x


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("method", "n_rounds"),
    [(newton(), 12), (newton_cg(), 80), (lbfgs(), 40), (scaffold(local_steps=5), 200), (local_gd(local_steps=1), 3000)],
    ids=lambda given: getattr(given, "name", None),
)
def test_every_method_finds_the_minimiser_of_an_exponential_loss(method, n_rounds, n_classes):
    rng = np.random.default_rng(1)
    samples = [(rng.standard_normal((20, 4)), rng.integers(0, n_classes, 20)) for _ in range(3)]
    shards = against(samples, n_classes)
    run = train(InProcess(shards), method, problem=Regularised(Exponential(), C=1.0), n_rounds=n_rounds)
    np.testing.assert_allclose(run.w, exponential_minimiser(shards, 1.0), rtol=0, atol=1e-7)


def test_local_sgd_under_a_penalty_hovers_around_the_minimiser():
    """Mini-batches leave noise that falls with the step size; the mean of the last models has little of it."""
    engine, problem = InProcess(with_bias(random_rows(4, n_nodes=3, n=60), 4, 0.2)), Regularised(C=1.0)
    best = train(engine, newton(), problem=problem).w
    off = []
    for lr in (0.1, 0.01):
        seen = []
        method = local_sgd(local_steps=1, batch_size=8, lr=lr)
        run = train(
            engine, method, problem=problem, n_rounds=4000, on_round=lambda info, seen=seen: seen.append(info.w)
        )
        off.append(np.sqrt(np.mean([norm(w - best) ** 2 for w in seen[2000:]])) / norm(best))
        assert norm(np.mean(seen[2000:], axis=0) - best) <= 0.1 * norm(best)
        assert norm(run.w - best) <= run.certificate.distance
    assert 4 * off[1] > off[0] > 2.5 * off[1]  # as √10
    assert off[1] < 0.2


@pytest.mark.parametrize("intercept", [False, True])
def test_batches_of_all_rows_under_a_penalty_are_local_gd_to_the_bit(intercept):
    engine, problem = InProcess(with_bias(random_rows(4), 4, 0.2)), Regularised(C=0.7, intercept=intercept)
    full = train(engine, local_gd(local_steps=7), problem=problem, n_rounds=20)
    batches = train(engine, local_sgd(local_steps=7, batch_size=1000), problem=problem, n_rounds=20)
    smaller = train(engine, local_sgd(local_steps=7, batch_size=3), problem=problem, n_rounds=20)
    assert np.array_equal(full.w, batches.w)
    assert not np.allclose(full.w, smaller.w, rtol=OTHER_ORDER)


def test_a_seed_draws_the_batches_under_a_penalty():
    engine, problem = InProcess(with_bias(random_rows(4), 4, 0.2)), Regularised(C=0.7)
    ends = [train(engine, local_sgd(batch_size=3, seed=seed), problem=problem, n_rounds=3).w for seed in (0, 0, 1)]
    assert np.array_equal(ends[0], ends[1])
    assert not np.allclose(ends[0], ends[2])


@pytest.mark.parametrize(("angle", "verdict"), [(44.9, Status.CERTIFIED), (45.0, Status.CERTIFIED)])
def test_a_max_margin_model_is_certified_up_to_45_degrees(angle, verdict):
    assert judged(Certificate(0.1, 1.0, angle), cancels=False).verdict is verdict


@pytest.mark.parametrize("angle", [45.1, 89.0, math.nan])
def test_a_max_margin_model_beyond_45_degrees_is_only_called_separable(angle):
    found = judged(Certificate(0.1, 1.0, angle), cancels=False)
    assert found.verdict is Status.SEPARABLE
    assert "so far" in found.reason


def test_the_verdict_is_the_same_whatever_was_asked_for():
    engine = InProcess(random_rows(1))
    plain = train(engine, local_gd(local_steps=20), n_rounds=30)
    asked = train(engine, local_gd(local_steps=20), n_rounds=30, goal=Angle(1e-3))
    assert plain.certificate == asked.certificate
    assert plain.certificate.verdict is Status.CERTIFIED
    assert asked.end is End.OUT_OF_ROUNDS
    w = max_margin(stacked(random_rows(1))).direction
    found = certify(w, engine, goal=Angle(70.0))
    assert found.angle_deg_max <= 70.0
    assert found.verdict is certify(w, engine).verdict is Status.SEPARABLE


def test_any_angle_short_of_90_degrees_certifies_a_minimiser():
    engine = InProcess(with_bias(random_rows(2), 2, 0.2))
    seen = []
    train(engine, penalised(lbfgs(), 1.0), on_round=lambda info: seen.append(info.certificate))
    known = [found for found in seen if not math.isnan(found.angle_deg_max)]
    assert any(found.angle_deg_max > 45 for found in known)
    assert all(found.verdict is Status.CERTIFIED and found.angle_deg_max < 89.9 for found in known)
    assert all(found.verdict is Status.FINITE for found in seen if math.isnan(found.angle_deg_max))


@pytest.mark.parametrize(
    "method",
    [local_gd(local_steps=5), local_gd(local_steps=5).late(), consensus(), penalised(newton(), 1.0)],
    ids=["local-gd", "late", "consensus", "newton"],
)
def test_on_round_is_told_the_model_that_row_and_certificate_are_about(method):
    engine, seen = InProcess(random_rows(3)), []
    run = train(engine, method, n_rounds=8, on_round=seen.append)
    assert [info.row for info in seen] == list(run.history)
    assert np.array_equal(seen[-1].w, run.w)
    assert not seen[0].w.any()
    for rounds, info in enumerate(seen[:-1]):
        assert np.array_equal(info.w, train(engine, method, n_rounds=rounds).w)
        assert info.row.angle_deg_max == info.certificate.angle_deg_max or math.isnan(info.row.angle_deg_max)


@pytest.mark.parametrize(
    ("end", "method", "options"),
    [
        (End.OUT_OF_ROUNDS, local_gd(local_steps=5), {"n_rounds": 3}),
        (End.OUT_OF_ROUNDS, local_gd(local_steps=5), {"n_rounds": 200}),
        (End.DONE, local_gd(local_steps=5), {"goal": Angle(30.0)}),
        (End.DONE, interior_point(), {}),
        (End.DONE, penalised(newton(), 1.0), {}),
        (End.STOPPED, local_gd(local_steps=5), {"on_round": lambda info: info.row.round == 2}),
        (End.STOPPED, local_gd(local_steps=5), {"max_seconds": 1e-9}),
        (End.DIVERGED, penalised(local_gd(local_steps=50, lr=1e200), 1.0), {}),
    ],
)
def test_a_run_says_how_it_came_to_its_end(end, method, options):
    assert train(InProcess(random_rows(3)), method, **options).end is end


def test_who_asks_to_stop_is_not_handed_on_to_another_method():
    """Asked once, at the last round before the method would hand over."""
    method = replace(local_gd(local_steps=1), fallbacks={End.STALLED: Fallback(consensus())})
    for asked in (59, 60):
        run = train(InProcess(random_rows(3)), method, on_round=lambda info, at=asked: info.row.round == at)
        assert run.n_rounds <= asked + 1
        assert run.method.name == "local-gd"


def test_a_run_on_rows_that_nothing_separates_ends_as_inseparable():
    engine = InProcess([replace(shard, data=np.vstack([shard.rows, -shard.rows])) for shard in random_rows(3)])
    assert train(engine, consensus()).end is End.INSEPARABLE


def test_a_run_whose_gradients_underflow_ends_as_stalled():
    engine = InProcess(random_rows(3))
    run = train(engine, local_gd(local_steps=1, lr=1.0), w0=1e6 * max_margin(stacked(random_rows(3))).direction)
    assert run.certificate.verdict in (Status.STALLED, Status.CERTIFIED)
    assert run.end is End.STALLED
