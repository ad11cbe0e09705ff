"""Nodes of one shape are worked on at once: to the bit as one by one, whatever the method, and never a stranger's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from common import METHODS, PENALISED, as_csr, random_rows, with_bias
from cut import assert_same_run
from localgd import InProcess, Message, NodeError, Regularised, SampledNodes, Shard, local_gd, local_sgd, train
from localgd.duals.dual import Dual
from localgd.engine import held
from localgd.engine.nodes import Nodes
from localgd.limits import Limits
from localgd.losses import Logistic
from localgd.many.duals import Duals, fold
from localgd.many.reports import Reports
from localgd.many.stack import Stack
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Appraise
from localgd.rounding import read_only
from localgd.rules.local import GradientSteps
from localgd.rules.probes import Sizes, Smoothness

N_ROUNDS = 4


def one_shape(seed=1):
    return random_rows(seed, n_nodes=9, n=7)[:1] + [replace(s, data=s.data.take(np.arange(7))) for s in more_rows(seed)]


def more_rows(seed):
    return random_rows(seed, n_nodes=9)[2:]


def weighted(seed=1):
    rng = np.random.default_rng(seed)
    return [Shard(s.node_id, s.data, weights=rng.random(s.n_rows) + 0.1) for s in one_shape(seed)]


def three_shapes(seed=1):
    shards = one_shape(seed)
    return [replace(s, data=s.data.take(np.arange(5 + m % 3))) if m else s for m, s in enumerate(shards)]


KINDS = {
    "one shape": one_shape,
    "three shapes": three_shapes,
    "weights": weighted,
    "sparse ones between them": lambda: [*one_shape()[::2], *as_csr(one_shape()[1::2])],
    "another order": lambda: one_shape()[::-1],
    "nothing separates": lambda: with_bias(one_shape(), noise=0.3),
    "alike but for their size": lambda: [Shard(s.node_id, 10.0**m * s.data.x) for m, s in enumerate(one_shape())],
    "single numbers": lambda: [Shard(s.node_id, s.data.x[:, :1].copy()) for s in one_shape()],
}
TABLE = METHODS | PENALISED


@pytest.fixture
def asked(monkeypatch):
    """What was asked at once, and what was not, by the name of the task."""
    seen = Counter()
    original = Nodes.at_once

    def spied(self, task, message, nodes):
        reports = original(self, task, message, nodes)
        seen[type(task).__name__, reports is not None] += 1
        return reports

    monkeypatch.setattr(Nodes, "at_once", spied)
    return seen


class OneByOne(InProcess):
    """An engine that asks every node by itself."""

    def round(self, task, message, nodes=None):
        self.nodes.at_once = lambda *_: None
        return super().round(task, message, nodes)


def run(engine, method, **more):
    """The run, or how it failed."""
    try:
        return train(engine, method, n_rounds=N_ROUNDS, **more)
    except (ValueError, NodeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TABLE)
def test_at_once_is_one_by_one_to_the_bit(name, kind):
    found, expected = (run(make(KINDS[kind]()), TABLE[name]) for make in (InProcess, OneByOne))
    if isinstance(expected, str):
        assert found == expected
    else:
        assert_same_run(found, expected)


@pytest.mark.parametrize(
    ("problem", "tasks"),
    [
        (None, {"Sizes", "Smoothness", "GradientSteps", "Evaluate"}),
        (Regularised(intercept=True), {"Sizes", "Smoothness", "GradientSteps", "Appraise"}),
    ],
)
def test_no_round_of_local_gd_asks_node_by_node(asked, problem, tasks):
    train(InProcess(three_shapes()), local_gd(local_steps=20), problem=problem, n_rounds=3)
    assert {name for name, at_once in asked if at_once} == tasks
    assert all(at_once for _, at_once in asked)


def test_threads_and_a_share_of_the_nodes_change_no_bit(monkeypatch):
    monkeypatch.setattr(held, "PART", 70)  # two nodes at a time
    wish = {"nodes": SampledNodes(0.5)}
    engines = [InProcess(three_shapes()), InProcess(three_shapes(), n_jobs=3), OneByOne(three_shapes())]
    first, *others = (run(engine, local_gd(local_steps=20), **wish) for engine in engines)
    for other in others:
        assert_same_run(first, other)
    assert len({engine.floats_up for engine in engines}) == 1


def test_grams_that_are_not_kept_are_made_anew(monkeypatch):
    monkeypatch.setattr(held, "MOST_KEPT", 10)
    assert_same_run(*(run(make(one_shape()), METHODS["local-gd"]) for make in (InProcess, OneByOne)))


def test_stacks_of_several_blocks_are_one_federation(monkeypatch):
    monkeypatch.setattr(held, "BLOCK", 100)
    engine = InProcess(one_shape())
    assert len(engine.nodes.shards.stacks) == 2
    assert_same_run(run(engine, METHODS["local-gd"]), run(OneByOne(one_shape()), METHODS["local-gd"]))


def test_a_step_far_too_large_leaves_float64_in_the_same_words():
    steps = local_gd(local_steps=50, lr=1e300, loss="exponential")
    found, expected = (run(make(one_shape()), steps) for make in (InProcess, OneByOne))
    assert found.certificate.reason == expected.certificate.reason
    assert str(found.certificate.verdict) == "diverged"


@dataclass(frozen=True)
class Backwards(GradientSteps):
    """A stranger's: it steps the other way, and has never heard of many nodes."""

    def run(self, message, shard, state):
        assert type(shard) is Shard
        return super().run(message, shard, state)


class Odd(Logistic):
    """A stranger's loss, of the rows of one node."""

    def slope(self, margin):
        assert margin.ndim == 1
        return super().slope(margin)


def test_what_strangers_derive_is_asked_node_by_node(asked):
    train(InProcess(one_shape()), replace(local_gd(), task=Backwards(lr=0.1)), n_rounds=2)
    train(InProcess(one_shape()), local_gd(lr=0.1, loss=Odd()), n_rounds=2)
    assert asked["Backwards", True] == 0 < asked["Backwards", False]
    assert asked["GradientSteps", True] == 0 < asked["GradientSteps", False]


def test_batches_are_drawn_by_every_node_itself(asked):
    train(InProcess(one_shape()), local_sgd(batch_size=3, lr=0.1), n_rounds=2)
    assert asked["GradientSteps", True] == 0


def test_nodes_with_limits_other_orders_in_memory_and_larger_ones_lie_in_no_stack(monkeypatch):
    assert not InProcess(
        [Shard(s.node_id, read_only(np.asfortranarray(s.data.x))) for s in one_shape()]
    ).nodes.shards.stacks
    assert not InProcess([replace(s, limits=Limits()) for s in one_shape()]).nodes.shards.stacks
    monkeypatch.setattr(held, "MOST_ROWS", 30)
    assert not InProcess(one_shape()).nodes.shards.stacks


def test_the_node_that_fails_is_named_as_ever():
    wrong = Message(0, np.zeros(3))
    texts = []
    for make in (InProcess, OneByOne):
        with pytest.raises(NodeError) as caught:
            make(one_shape()).round(Evaluate(), wrong)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "node 'node-0'" in texts[0]


def test_what_nodes_hold_is_there_by_name_and_rows_are_there_once():
    shards = three_shapes()
    engine = InProcess(shards)
    assert list(engine.shards) == sorted(shard.node_id for shard in shards)
    for shard in shards:
        np.testing.assert_array_equal(engine.shards[shard.node_id].rows, shard.rows)
        assert engine.shards[shard.node_id] is engine.shards[shard.node_id]
    stack = engine.nodes.shards.stacks[0]
    assert np.shares_memory(engine.shards[stack.node_ids[0]].rows, stack.data.x)
    assert "node-99" not in engine.shards


@pytest.mark.parametrize("d", [1, 2, 3, 50])
def test_a_fold_adds_from_the_first_to_the_last(d):
    values = np.random.default_rng(d).standard_normal((5000, d)) * np.logspace(-9, 9, 5000)[:, None]
    total = values[0]
    for value in values[1:]:
        total = total + value
    np.testing.assert_array_equal(fold(values), total)
    np.testing.assert_array_equal(fold(values[:, 0]), total[0])


def test_duals_say_what_each_of_them_says():
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((200, 4)) * 10.0 ** rng.integers(-310, 300, (200, 1))
    vectors[:20] = 0.0
    mass, error = 10.0 ** rng.uniform(-320, 300, 200), 10.0 ** rng.uniform(-320, 300, 200)
    mass[::7], error[::11], mass[::13] = np.nan, np.inf, 0.0
    with np.errstate(over="ignore"):
        every = Duals(vectors, mass, error)
        each = [Dual.proved(v.copy(), m, e) for v, m, e in zip(vectors, mass, error, strict=True)]
        np.testing.assert_array_equal(every.length, [dual.length for dual in each])
        np.testing.assert_array_equal(every.known, [dual.known for dual in each])
        np.testing.assert_array_equal(every.cancels, [dual.cancels for dual in each])
        uppers = np.where(every.known, every.margin_upper, np.inf)
        np.testing.assert_array_equal(uppers, [dual.margin_upper for dual in each])


LOOKS = [Evaluate(), Evaluate(weighted_by="num-examples"), Appraise(), Appraise(Regularised(intercept=True)), Sizes()]


@pytest.mark.parametrize("kind", ["one shape", "weights", "nothing separates", "single numbers"])
@pytest.mark.parametrize("task", [*LOOKS, Smoothness()], ids=repr)
def test_reports_of_a_stack_are_those_of_its_nodes(task, kind):
    shards = sorted(KINDS[kind]()[1:], key=lambda shard: shard.node_id)
    message = Message(0, np.linspace(-1.0, 1.0, shards[0].n_features))
    reports, _ = task.run(message, Stack.of(shards), None)
    each = [task.run(message, shard, None)[0] for shard in shards]
    assert isinstance(reports, Reports)
    assert reports.n_floats == sum(report.n_floats for report in each)
    for part, values in reports.parts.items():
        for name, found in values.items():
            np.testing.assert_array_equal(found, [getattr(report, part)[name] for report in each])
    total, expected = reports.total(), sum(each[1:], each[0])
    assert (total.n_nodes, total.n_rows, total.flags) == (expected.n_nodes, expected.n_rows, expected.flags)
    for part in ("sums", "maxs", "mins"):
        assert getattr(total, part).keys() == getattr(expected, part).keys()
        for name, value in getattr(total, part).items():
            np.testing.assert_array_equal(value, getattr(expected, part)[name])
            assert value.dtype == getattr(expected, part)[name].dtype
