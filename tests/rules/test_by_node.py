"""Steps, step sizes and weights by node, and step sizes by round: identities, refusals, and certificates that hold."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import (
    SAME_ORDER,
    SCHEDULES,
    SOLVER,
    against,
    as_csr,
    examples,
    penalised,
    pooled_gd,
    random_rows,
    random_samples,
    stacked,
    with_bias,
)
from cut import CutError, assert_same_run, cut_at
from engines.flower_grid import flower
from localgd import (
    InProcess,
    LeastSquares,
    LocalGDClassifier,
    Message,
    Method,
    NodeError,
    SampledNodes,
    Samples,
    Shard,
    fedexp,
    fedprox,
    local_gd,
    local_sgd,
    mean,
    modified_local_gd,
    newton,
    normalised_local_gd,
    scaffold,
    slowmo,
    train,
    update_report,
)
from localgd.engine import serialize
from localgd.losses import Logistic
from localgd.methods.options import NAMES as NAMED
from localgd.methods.options import taken
from localgd.methods.table import method_named
from localgd.problems.metrics import Evaluate, node_weight
from localgd.reference.max_margin import max_margin, pooled_direction
from localgd.rounding import angle_deg
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.project import Project
from localgd.run.checkpoint import Checkpoints

NAMES = [f"node-{place}" for place in range(4)]
UNLIKE = {
    "local_steps": dict(zip(NAMES, (3, 40, 1, 11), strict=True)),
    "lr": dict(zip(NAMES, (0.3, 0.02, 1.5, 0.1), strict=True)),
    "weighted_by": dict(zip(NAMES, (0.5, 2.0, 0.0, 1e-3), strict=True)),
    "lr_schedule": "cosine:12:0.1",
}
TAKERS = {
    "local-gd": local_gd,
    "local-sgd": lambda **options: local_sgd(batch_size=3, **options),
    "fedexp": fedexp,
    "fedprox": lambda **options: fedprox(prox=0.1, **options),
    "slowmo": slowmo,
    "modified": lambda **options: modified_local_gd(form="proximal", prox=0.01, **options),
    "normalised": normalised_local_gd,
}
takers = pytest.mark.parametrize("make", TAKERS.values(), ids=TAKERS)


def everywhere(value):
    return dict.fromkeys(NAMES, value)


@takers
@pytest.mark.parametrize("lr", [0.2, "auto", "paper"])
def test_a_mapping_of_equal_values_is_that_value_to_the_last_bit(make, lr):
    engine = InProcess(random_rows(2))
    plain = train(engine, make(local_steps=7, lr=lr, weighted_by="uniform"), n_rounds=8)
    size = everywhere(lr) if isinstance(lr, float) else lr
    told = make(local_steps=everywhere(7), lr=size, weighted_by=everywhere(1), lr_schedule="constant")
    assert_same_run(train(engine, told, n_rounds=8), plain)


def test_likewise_with_control_variates_and_for_projections():
    engine = InProcess(with_bias(random_rows(5), noise=0.1))
    one, other = (
        penalised(scaffold(local_steps=steps, lr=lr), 1.0) for steps, lr in ((7, 0.2), (everywhere(7), everywhere(0.2)))
    )
    assert_same_run(train(engine, other, n_rounds=9), train(engine, one, n_rounds=9))
    engine = InProcess(random_rows(2))
    one, other = (modified_local_gd(weighted_by=weights) for weights in ("uniform", everywhere(1.0)))
    assert_same_run(train(engine, other, n_rounds=9), train(engine, one, n_rounds=9))


def test_weights_by_number_of_samples_may_be_told_as_a_mapping():
    shards = random_rows(3)
    sizes = {shard.node_id: shard.n_rows for shard in shards}
    one, other = (local_gd(local_steps=7, weighted_by=weights) for weights in ("num-examples", sizes))
    assert_same_run(train(InProcess(shards), other, n_rounds=9), train(InProcess(shards), one, n_rounds=9))


def test_a_local_step_each_under_weights_and_step_sizes_by_node_is_descent_on_the_sum_that_they_weigh():
    shards = random_rows(4)
    weights, rates = (list(UNLIKE[name].values()) for name in ("weighted_by", "lr"))
    method = local_gd(local_steps=1, lr=UNLIKE["lr"], weighted_by=UNLIKE["weighted_by"])
    found = train(InProcess(shards), method, n_rounds=50).w
    sizes = [shard.n_rows for shard in shards]
    shares = [rate * weight / sum(weights) for rate, weight in zip(rates, weights, strict=True)]
    rows = np.repeat(np.array(shares) / sizes, sizes)
    assert np.linalg.norm(found - pooled_gd(stacked(shards), rows, Logistic(), 1.0, 50)) <= SAME_ORDER * 100


def test_the_step_size_of_the_paper_goes_by_the_steps_of_each_node():
    engine, steps = InProcess(random_rows(4)), UNLIKE["local_steps"]
    auto, paper = (
        train(engine, local_gd(local_steps=steps, lr=lr), n_rounds=1).method.task.lr for lr in ("auto", "paper")
    )
    assert {name: paper.at(name) for name in NAMES} == {name: auto / n_steps for name, n_steps in steps.items()}


@pytest.mark.parametrize("steps", [UNLIKE["local_steps"], everywhere(1)])
def test_control_variates_come_to_the_pooled_minimiser_whatever_the_steps_of_a_node(steps):
    engine = InProcess(with_bias(random_rows(5), noise=0.1))
    exact = train(engine, penalised(newton(), 1.0)).w
    found = train(engine, penalised(scaffold(local_steps=steps, lr=UNLIKE["lr"]), 1.0))
    assert np.linalg.norm(found.w - exact) <= SOLVER * np.linalg.norm(exact)
    assert found.certificate.distance >= np.linalg.norm(found.w - exact) * (1 - SOLVER)


def test_a_node_of_weight_0_is_looked_at_all_the_same():
    shards = [Shard("a", [[1.0, 0.2]]), Shard("b", [[0.2, 1.0]]), Shard("c", [[1.0, -5.0]])]
    weights = {"a": 1.0, "b": 1.0, "c": 0.0}
    run = train(InProcess(shards), local_gd(local_steps=5, weighted_by=weights), n_rounds=30)
    alone = train(InProcess(shards[:2]), local_gd(local_steps=5, lr=run.method.task.lr), n_rounds=30)
    np.testing.assert_array_equal(run.w, alone.w)
    assert run.certificate.margin_low < 0 < alone.certificate.margin_low
    assert run.history[-1].accuracy < 1


@takers
def test_a_run_by_node_and_by_round_is_resumed_to_the_last_bit(make, tmp_path):
    shards, method, kept = random_rows(7), make(**UNLIKE), Checkpoints(tmp_path / "kept", every_rounds=2)
    with pytest.raises(CutError):
        train(InProcess(shards), method, n_rounds=9, checkpoints=kept, on_round=cut_at(5))
    found = train(InProcess(shards), method, n_rounds=9, checkpoints=kept)
    assert_same_run(found, train(InProcess(shards), method, n_rounds=9))


@takers
def test_flower_and_threads_have_the_bits_of_one_process(make):
    shards = random_rows(8)
    here = train(InProcess(shards), make(**UNLIKE), n_rounds=9)
    assert_same_run(train(InProcess(shards[::-1], n_jobs=3), make(**UNLIKE), n_rounds=9), here)
    assert_same_run(train(flower(shards), make(**UNLIKE), n_rounds=9), here)


KINDS = {
    "dense": random_rows,
    "csr": lambda seed: as_csr(random_rows(seed)),
    "classes": lambda seed: against(random_samples(seed, n_nodes=4), 4),
}
settings_of_a_node = st.tuples(st.integers(1, 60), st.floats(1e-3, 3.0), st.one_of(st.just(0.0), st.floats(1e-3, 1e3)))


@settings(max_examples=examples(200), deadline=None)
@given(
    seed=st.integers(0, 49),
    kind=st.sampled_from(list(KINDS)),
    name=st.sampled_from([*TAKERS, "projection"]),
    of_nodes=st.lists(settings_of_a_node, min_size=4, max_size=4),
    schedule=st.sampled_from(SCHEDULES),
    fraction=st.sampled_from([None, 0.5]),
)
def test_certificates_hold_whatever_the_steps_and_weights(*, seed, kind, name, of_nodes, schedule, fraction):
    steps, rates, weights = (dict(zip(NAMES, each, strict=True)) for each in zip(*of_nodes, strict=True))
    weights["node-3"] += 0.1
    shards = KINDS[kind](seed)
    exact = max_margin(stacked(shards))
    if name == "projection":
        method = modified_local_gd(weighted_by=weights)
    else:
        method = TAKERS[name](local_steps=steps, lr=rates, weighted_by=weights, lr_schedule=schedule)
    sampled = None if fraction is None or method.whole_rounds else SampledNodes(fraction, seed)
    nodes = None if sampled is None else lambda k, ids: {*sampled(k, ids), "node-3"}
    seen = []
    train(InProcess(shards), method, n_rounds=12, nodes=nodes, on_round=seen.append)
    for info in seen:
        found = info.certificate
        assert found.margin_low <= exact.margin_high
        assert found.margin_high >= exact.margin_low
        assert np.isnan(found.angle_deg_max) or angle_deg(info.w, exact.direction) <= found.angle_deg_max


def test_the_sum_over_the_nodes_is_that_of_exact_fractions():
    shards, weights = random_rows(9), UNLIKE["weighted_by"]
    task, message = GradientSteps(local_steps=5, lr=0.3, weighted_by=weights), Message(0, np.ones(5))
    exact = [Fraction(0)] * 5
    for shard in shards:
        alone = InProcess([shard]).round(replace(task, weighted_by="uniform"), message).duals["update"].vector
        exact = [x + Fraction(weights[shard.node_id]) * Fraction(y) for x, y in zip(exact, alone, strict=True)]
    report = InProcess(shards).round(task, message)
    found = report.duals["update"]
    assert max(abs(float(x - Fraction(y))) for x, y in zip(exact, found.vector, strict=True)) <= 1e-15 * found.length
    assert float(report.sums["weight"]) == sum(weights.values())


def test_an_update_of_a_task_of_ones_own_may_weigh_by_node():
    shard = Shard("a", [[3.0, 4.0]])
    report = update_report(shard, shard.combination(np.ones(1)), {"a": 2.5, "b": 1.0})
    assert float(report.sums["weight"]) == 2.5
    assert report.duals["update"].vector.tolist() == [7.5, 10.0]


def test_a_setting_by_node_can_be_compared_written_and_read_in_any_order():
    one = local_gd(**UNLIKE).task
    other = local_gd(
        **{name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in UNLIKE.items()}
    ).task
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)
    assert serialize.unpack(serialize.pack(one), GradientSteps) == one
    assert local_gd(local_steps={"array": np.int64(3)}).task.local_steps.at("array") == 3
    told = local_gd(local_steps={"array": np.int64(3)}).task
    assert serialize.unpack(serialize.pack(told), GradientSteps) == told


BAD = [
    ({"local_steps": {"node-0": 1.5}}, "local_steps of node 'node-0' must be a whole number of at least 1, got 1.5"),
    ({"local_steps": {"node-0": True}}, "local_steps of node 'node-0' must be a whole number"),
    ({"local_steps": {"node-0": 0}}, "local_steps of node 'node-0' must be a whole number"),
    ({"local_steps": True}, "local_steps must be a whole number of at least 1, got True"),
    ({"local_steps": "many"}, "local_steps must be a whole number of at least 1, got 'many'"),
    ({"local_steps": {}}, "local_steps must have a number for each node's name"),
    ({"local_steps": {3: 5}}, "local_steps must have a number for each node's name, a text, got the names"),
    ({"lr": {"node-0": -1.0}}, "lr of node 'node-0' must be a positive number, got -1.0"),
    ({"lr": {"node-0": float("nan")}}, "lr of node 'node-0' must be a positive number, got nan"),
    ({"lr": {"node-0": float("inf")}}, "lr of node 'node-0' must be a positive number, got inf"),
    ({"lr": {"node-0": "auto"}}, "lr of node 'node-0' must be a positive number, got 'auto'"),
    ({"lr": True}, "lr must be a positive number, got True"),
    ({"weighted_by": {"node-0": -1.0}}, "weighted_by of node 'node-0' must be a number of at least 0, got -1.0"),
    ({"weighted_by": {"node-0": "big"}}, "weighted_by of node 'node-0' must be a number of at least 0, got 'big'"),
    ({"weighted_by": everywhere(0)}, "weighted_by is 0 for every node"),
    ({"lr_schedule": "linear"}, "lr_schedule must be one of constant, inverse-sqrt, inverse-time, step:ROUNDS"),
    ({"lr_schedule": 0.5}, "lr_schedule must be one of"),
    ({"lr_schedule": "step:0"}, "ROUNDS must be a whole number of at least 1, got '0'"),
    ({"lr_schedule": "cosine:-3"}, "ROUNDS must be a whole number of at least 1, got '-3'"),
    ({"lr_schedule": "step:3:0"}, "GAMMA must be above 0"),
    ({"lr_schedule": "cosine:3:two"}, "must be numbers from 0 to 1, got 'two'"),
    ({"lr_schedule": "inverse-sqrt:3"}, "lr_schedule must be one of"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_settings_are_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        local_gd(**options)


@pytest.mark.parametrize("name", ["local_steps", "lr", "weighted_by"])
def test_names_are_held_against_the_nodes_before_the_first_round(name):
    engine, value = InProcess(random_rows(1)), 2
    with pytest.raises(ValueError, match=f"local-gd: {name} names 'nod-3', which is no node; did you mean 'node-3'"):
        train(engine, local_gd(**{name: {**everywhere(value), "nod-3": value}}))
    with pytest.raises(ValueError, match=f"local-gd: {name} has no value for node 'node-0'; give one for each node"):
        train(engine, local_gd(**{name: {"node-1": value, "node-2": value, "node-3": value}}))
    with pytest.raises(NodeError, match="'node-0': ValueError: a setting by node names node-1, but not 'node-0'"):
        engine.round(GradientSteps(**{"lr": 0.1, name: {"node-1": value}}), Message(0, np.ones(5)))


def test_projections_know_their_nodes_too():
    with pytest.raises(ValueError, match="weighted_by names 'b', which is no node"):
        train(InProcess(random_rows(1)), modified_local_gd(weighted_by={**everywhere(1), "b": 1}))
    assert node_weight(random_rows(1)[1], Project(weighted_by={"node-1": 3}).weighted_by) == 3.0


def test_steps_on_squares_and_a_look_weigh_by_node_too():
    engine = InProcess([Samples(name, [[1.0, 2.0]], [float(place)]) for place, name in enumerate("ab")])
    one, other = (
        train(engine, Method("m", SquaresSteps(5, 0.1, weighted_by=weights), mean(), LeastSquares()), n_rounds=5)
        for weights in ("uniform", {"a": 3, "b": 3})
    )
    np.testing.assert_array_equal(one.w, other.w)
    with pytest.raises(ValueError, match="weighted_by has no value for node 'b'"):
        train(engine, Method("m", SquaresSteps(weighted_by={"a": 1}), mean(), LeastSquares()), n_rounds=5)
    look = InProcess(random_rows(1)).round(Evaluate(weighted_by=UNLIKE["lr"]), Message(0, np.ones(5)))
    assert float(look.sums["weight"]) == sum(UNLIKE["lr"].values())


def test_what_has_no_meaning_is_refused():
    engine = InProcess(with_bias(random_rows(5), noise=0.1))
    with pytest.raises(ValueError, match="a weight for each node has no meaning with C"):
        train(engine, penalised(local_gd(weighted_by=everywhere(1)), 1.0))
    with pytest.raises(ValueError, match="lr_schedule='inverse-sqrt' has no meaning with control variates"):
        GradientSteps(variates=True, lr_schedule="inverse-sqrt")
    with pytest.raises(ValueError, match="lr_schedule has no meaning for form='projection'"):
        modified_local_gd(lr_schedule="inverse-sqrt")
    with pytest.raises(ValueError, match="lr of node 'node-0'·prox must be at most 1"):
        fedprox(prox=10.0, lr=everywhere(0.5))


def test_a_round_of_nodes_that_weigh_nothing_is_refused_by_its_number():
    weights = {**everywhere(0.0), "node-3": 1.0}
    with pytest.raises(ValueError, match="round 0: 1 nodes reported, and weigh nothing"):
        train(InProcess(random_rows(1)), local_gd(weighted_by=weights, lr=0.1), nodes=lambda *_: ["node-1"])


def test_an_option_may_be_told_by_node_in_a_text():
    for name in ("local_steps", "lr", "weighted_by"):
        for method in (method for method in NAMED if name in taken(method) and method != "modified-local-gd"):
            assert method_named(method, **{name: "b=2, a = 1"}) == method_named(method, **{name: {"a": 1, "b": 2}})
    assert method_named("local-gd", lr="x=y=0.5").task.lr.at("x=y") == 0.5
    for text, words in (
        ("a=1,a=2", "local-steps by node is NODE=NUMBER,NODE=NUMBER, each node once, got 'a=1,a=2'"),
        ("a=1,b", "local-steps by node is NODE=NUMBER"),
        ("=1", "local-steps by node is NODE=NUMBER"),
        ("a=1.5", "local-steps of node 'a' must be a whole number, got '1.5'"),
    ):
        with pytest.raises(ValueError, match=words):
            method_named("local-gd", local_steps=text)


def test_groups_of_the_estimator_may_have_their_own():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    groups = np.arange(40) % 2
    given = {"method": "local-gd", "n_rounds": 5}
    one = LocalGDClassifier(**given, local_steps=7).fit(x, x[:, 0] > 0, groups=groups)
    same = LocalGDClassifier(**given, local_steps={"0": 7, "1": 7}).fit(x, x[:, 0] > 0, groups=groups)
    other = LocalGDClassifier(**given, local_steps={"0": 7, "1": 70}).fit(x, x[:, 0] > 0, groups=groups)
    np.testing.assert_array_equal(one.coef_, same.coef_)
    assert not np.allclose(one.coef_, other.coef_)


def test_the_pooled_model_of_overlapping_rows_weighs_as_it_is_told():
    shards = with_bias(random_rows(5), noise=0.3)
    uniform, told, other = (
        pooled_direction(shards, weights.task.weighted_by or "uniform")
        for weights in (local_gd(), local_gd(weighted_by=everywhere(3)), local_gd(weighted_by=UNLIKE["lr"]))
    )
    np.testing.assert_allclose(uniform, told, rtol=SOLVER)
    assert not np.allclose(uniform, other, rtol=1e-3)
