"""The engine contract, one suite for every engine."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from common import OTHER_ORDER, random_rows
from cut import assert_same_run
from engines import over_flower
from engines.flower_grid import flower
from engines.tasks import WRONGS, Broken, CountRounds, Doubled, EveryKind, FailOn, FailOnce, ShakySteps, Vandal
from localgd import (
    Angle,
    InProcess,
    Int4,
    Message,
    Method,
    NodeError,
    Shard,
    consensus,
    interior_point,
    load,
    local_gd,
    modified_local_gd,
    train,
)
from localgd.errors import RemoteError
from localgd.problems.metrics import Evaluate
from localgd.rules.probes import measured
from localgd.rules.server import mean

MEMORIES, N_MEMORISED = [modified_local_gd(), consensus(), interior_point(), local_gd().compressed(Int4())], 3
"""Methods whose nodes have memory, and how many rounds they are to remember."""

ENGINES = {
    "in-process": InProcess,
    "in-process, threads": lambda shards, **options: InProcess(shards, n_jobs=3, **options),
    "flower": flower,
}
N_NODES, SAME_REPORT = 4, 0.0

if "RANK" in os.environ:  # this is one of the processes that test_torch.py starts, each with its part of the nodes
    from engines.spread import spread

    ENGINES, SAME_REPORT = {"torch": spread}, OTHER_ORDER

if over_flower.GRIDS:  # this is the server of a Flower app that is deployed or simulated
    ENGINES, N_NODES = {"over_flower": partial(over_flower.federation, over_flower.GRIDS[0])}, over_flower.N_NODES
    MEMORIES, N_MEMORISED = [consensus()], 1  # a deployed round takes seconds

engines = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)

STEPS = local_gd(local_steps=5, lr=0.1)
"""A method that takes one round before its first: a deployed one takes seconds."""


def rows(seed):
    return random_rows(seed, n_nodes=N_NODES)


def of_all(engine, path):
    """One path, where the test runs in many processes."""
    return Path(engine.shared(f"{path}".encode()).decode())


def beside(engine, make, shards):
    """Another engine of the same nodes: those that are elsewhere are reached again, not made anew."""
    return engine.again() if hasattr(engine, "again") else make(shards)


@engines
def test_a_round_runs_every_node_once_and_keeps_its_state(make):
    engine = make(rows(1))
    for expected in (1, 2, 3):
        report = engine.round(CountRounds(), Message(expected - 1))
        assert float(report.sums["runs"]) == expected * N_NODES
        assert report.n_nodes == N_NODES


@engines
def test_round_zero_starts_node_states_afresh(make):
    engine = make(rows(1))
    for round_ in (0, 1, 0):
        report = engine.round(CountRounds(), Message(round_))
    assert float(report.sums["runs"]) == N_NODES


@engines
def test_only_the_named_nodes_take_part(make):
    engine = make(rows(1))
    assert engine.round(CountRounds(), Message(0, session="by name"), ["node-2"]).n_nodes == 1
    assert float(engine.round(CountRounds(), Message(1, session="by name")).sums["runs"]) == N_NODES + 1
    with pytest.raises(ValueError, match="nowhere"):
        engine.round(CountRounds(), Message(0), ["nowhere"])
    with pytest.raises(ValueError, match="nodes"):
        engine.round(CountRounds(), Message(0), [])


@engines
def test_floats_are_counted_from_what_is_sent(make):
    engine = make(rows(1))
    engine.round(CountRounds(), Message(0, np.zeros(5), {"more": np.zeros(2)}))
    assert engine.floats_down == N_NODES * 7
    assert engine.floats_up == N_NODES * (2 + 1 + 5)


@engines
def test_a_failing_node_is_named_with_its_own_traceback(make):
    engine = make(rows(1))
    with pytest.raises(NodeError, match="round 3, node 'node-1': RuntimeError: the disk") as caught:
        engine.round(FailOn("node-1"), Message(3))
    assert (caught.value.round, caught.value.node_id) == (3, "node-1")
    assert "in run" in "".join(traceback.format_exception(caught.value.__cause__))


@engines
def test_asking_one_node_again_in_round_zero_leaves_the_others_states_alone(make, tmp_path):
    engine = make(rows(1), retries=1)
    task = FailOnce("node-1", str(of_all(engine, tmp_path / "asked")))
    for expected in (1, 2, 3):
        assert float(engine.round(task, Message(expected - 1)).sums["runs"]) == expected * N_NODES


@engines
def test_debug_lets_the_nodes_own_error_through_with_its_arguments(make):
    engine = make(rows(1), debug=True)
    with pytest.raises(RuntimeError, match="the disk") as caught:
        engine.round(FailOn("node-1"), Message(3))
    assert_bare(engine, caught.value, "round 3, node 'node-1', task FailOn(node_id='node-1'), ", "in run")
    assert engine.round(CountRounds(), Message(0)).n_nodes == N_NODES  # all of them know that it is over


@engines
def test_debug_lets_through_what_an_encoder_raised(make):
    engine = make(rows(1), debug=True)
    with pytest.raises((AttributeError, RemoteError), match="has no attribute 'nothing'") as caught:
        engine.map(Broken()).round(Evaluate(), Message(0, np.ones(5)))
    assert_bare(engine, caught.value, "node 'node-0', ", "in __call__")


def assert_bare(engine, error, words, place):
    """It is the node's own error where the node lives, else what it said of it; with arguments and traceback."""
    node = "node-1" if "node-1" in words else "node-0"
    here = node in getattr(engine, "shards", ())
    assert not isinstance(error, NodeError)
    assert isinstance(error, RemoteError) is not here
    last = error.__notes__[-1]
    assert words in f"{last}, "
    assert ("Shard of shape (" in last) is here
    if "RANK" in os.environ and not here:
        assert f"process {int(node[-1]) % int(os.environ['WORLD_SIZE'])}" in last
    assert place in "".join(traceback.format_exception(error))


@engines
def test_debug_leaves_nobody_out_and_asks_nobody_again(make):
    for options in ({"on_failure": "skip"}, {"retries": 1}):
        with pytest.raises(ValueError, match=r"debug=True lets the first failure through, so .* has no meaning"):
            make(rows(1), debug=True, **options)


@engines
def test_messages_cannot_be_written_to(make):
    with pytest.raises(NodeError, match="read-only"):
        make(rows(1)).round(Vandal(), Message(0, np.zeros(2)))


@engines
def test_every_engine_reports_what_in_process_reports(make):
    shards = rows(2)
    w = np.arange(5.0)
    expected = InProcess(shards).round(Evaluate(), Message(0, w))
    found = make(shards).round(Evaluate(), Message(0, w))
    assert_same_report(found, expected)


def assert_same_report(found, expected):
    """The same fields of the same dtypes; sums to the bit, or, where another order adds them, but for rounding."""
    assert (found.n_nodes, found.n_rows) == (expected.n_nodes, expected.n_rows)
    assert (found.counts, found.flags) == (expected.counts, expected.flags)
    parts = {part: (getattr(found, part), getattr(expected, part)) for part in ("sums", "maxs", "mins")}
    parts |= {f"per_node {name}": (found.per_node.get(name), values) for name, values in expected.per_node.items()}
    assert found.per_node.keys() == expected.per_node.keys()
    assert found.duals.keys() == expected.duals.keys()
    for name, dual in expected.duals.items():
        parts[f"dual {name}"] = ({"vector": found.duals[name].vector}, {"vector": dual.vector})
        np.testing.assert_allclose(found.duals[name].parts, dual.parts, rtol=SAME_REPORT)
    for one, other in parts.values():
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name].dtype == value.dtype
            assert not one[name].flags.writeable
            close = max(SAME_REPORT, 1e-6) if value.dtype == np.float32 and SAME_REPORT else SAME_REPORT
            np.testing.assert_allclose(one[name], value, rtol=close, atol=0)


@engines
def test_fields_of_every_kind_and_dtype_come_back_as_in_process(make):
    shards = rows(2)
    engine = make(shards)
    for nodes in (None, ["node-1"], ["node-0", "node-2"]):
        expected = InProcess(shards).round(EveryKind(), Message(), nodes)
        assert_same_report(engine.round(EveryKind(), Message(), nodes), expected)
    assert expected.per_node["seed"] == {"node-0": 2**53, "node-2": 2**53 - 2}
    assert expected.sums["n"].dtype == np.int64


@engines
@pytest.mark.parametrize("wrong", WRONGS)
def test_what_a_task_does_not_declare_is_refused_by_the_name_of_its_node(make, wrong):
    words = {
        "undeclared": "holds 'row', which EveryKind does not declare",
        "kind": "least is of the kind sum, but EveryKind declares a min",
        "shape": r"total has the shape \(3,\), but EveryKind declares \(2,\)",
        "dtype": "n is of float64, but EveryKind declares int64",
        "nan": "total is not finite, while other nodes' are",
    }
    with pytest.raises(NodeError, match=f"round 3, node 'node-1': ValueError: its report.*{words[wrong]}"):
        make(rows(1)).round(EveryKind("node-1", wrong), Message(3))


@engines
def test_sessions_keep_their_states_apart_until_they_are_released(make):
    engine = make(rows(1))

    def runs(session, round_):
        return float(engine.round(CountRounds(), Message(round_, session=session)).sums["runs"]) / N_NODES

    assert [runs("one", 0), runs("one", 1), runs("one", 1), runs("one", 2)] == [1, 2, 2, 3]
    assert runs("two", 5) == 1  # it has never heard of the other one
    engine.release("one")
    assert [runs("two", 6), runs("one", 3)] == [2, 1]


@engines
def test_the_same_round_again_runs_from_the_state_before_it_whoever_made_the_message(make):
    engine = make(rows(1))
    for round_ in (0, 0, 1, 1, 1, 0, 1):
        runs = float(engine.round(CountRounds(), Message(round_, np.zeros(2))).sums["runs"])
        assert runs == (round_ + 1) * N_NODES


@engines
def test_map_encodes_every_node_and_carries_the_count_of_floats_on(make):
    engine = make(rows(2))
    engine.round(CountRounds(), Message(0, np.zeros(5)))
    doubled = engine.map(Doubled())
    assert doubled.node_ids == engine.node_ids
    assert doubled.floats_up == engine.floats_up
    w = np.ones(5)
    low, twice = (float(held.round(Evaluate(), Message(0, w)).mins["margin"]) for held in (engine, doubled))
    assert twice == pytest.approx(2 * low)
    with pytest.raises(NodeError, match="node-0"):
        engine.map(Broken()).round(Evaluate(), Message(0, w))


@engines
def test_a_second_training_is_to_the_bit_the_first_one(make):
    engine = make(rows(5))
    first, second = (train(engine, STEPS, n_rounds=1) for _ in range(2))
    assert_same_run(second, first)


@engines
def test_a_run_does_not_tell_of_the_failures_of_the_run_before_it(make, tmp_path):
    engine = make(rows(5), retries=1)
    steps = ShakySteps(local_steps=5, lr=0.1, node_id="node-1", mark=str(of_all(engine, tmp_path / "asked")))
    shaky = train(engine, Method("shaky", steps, mean()), n_rounds=1)
    assert [(failure.round, failure.node_id) for failure in shaky.failures] == [(0, "node-1")]
    assert train(engine, STEPS, n_rounds=0).failures == ()


class Logged:
    """An engine that somebody has wrapped: whatever it does not do itself, the engine inside does."""

    def __init__(self, engine, log):
        self.engine, self.log = engine, log

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def round(self, task, message, nodes=None):
        self.log.append((type(task).__name__, message.round))
        return self.engine.round(task, message, nodes)

    def map(self, encode):
        return Logged(self.engine.map(encode), self.log)


@engines
def test_an_engine_may_be_wrapped(make):
    shards, log = rows(5), []
    expected = train(make(shards).map(Doubled()), STEPS, n_rounds=1)
    assert_same_run(train(Logged(make(shards), log).map(Doubled()), STEPS, n_rounds=1), expected)
    assert log == [("Sizes", 0), ("GradientSteps", 0), ("Evaluate", 1)]


def rounds(engine, method, state, number):
    """So many rounds of a method from a state of its server: what was sent and what came back, and the state then."""
    seen = []
    for _ in range(number):
        message = method.merge.message(state)
        report = engine.round(method.task, message)
        seen.append((message, report))
        state = method.merge.step(state, report)
    return seen, state


FORGETS = pytest.mark.xfail(
    strict=True,
    raises=(AssertionError, NodeError),  # the latter of a node without a secret
    reason="Flower's nodes keep no states of before: in another session they have forgotten",
)


@engines
@pytest.mark.parametrize("method", MEMORIES, ids=lambda method: method.name)
def test_another_engine_recalls_the_states_that_were_kept(make, method, tmp_path, request):
    if "flower" in request.node.callspec.id:
        request.applymarker(FORGETS)
    shards = rows(6)
    engine = make(shards)
    method, folder = method.bind(method.problem, engine, measured(engine)), of_all(engine, tmp_path)
    _, state = rounds(engine, method, method.merge.init(np.zeros(5)), N_MEMORISED)
    engine.keep(method.task, folder, N_MEMORISED)
    seen, _ = rounds(engine, method, state, N_MEMORISED)
    other = beside(engine, make, shards)
    other.recall(method.task, folder, N_MEMORISED, "another")
    for message, expected in seen:
        found = other.round(method.task, replace(message, session="another"))
        tallies = ("n_nodes", "n_rows", "counts", "flags")
        assert [getattr(found, part) for part in tallies] == [getattr(expected, part) for part in tallies]
        for part in ("sums", "maxs", "mins"):
            one, same = getattr(found, part), getattr(expected, part)
            assert one.keys() == same.keys()
            for name, value in same.items():
                np.testing.assert_array_equal(one[name], value)


def test_a_run_counts_the_floats_of_its_rounds():
    shards = random_rows(3)
    run = train(InProcess(shards), local_gd(local_steps=2, lr=0.1), n_rounds=10)
    d, nodes = shards[0].n_features, len(shards)
    down = np.diff([row.floats_down for row in run.history])
    assert Counter(down.tolist()) == {d * nodes: 10}
    assert (np.diff([row.floats_up for row in run.history[:-1]]) >= nodes * d).all()


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "needs at least one node"),
        ([Shard("a", [[1.0]]), Shard("a", [[2.0]])], "two nodes are called 'a'"),
    ],
)
def test_bad_federations_are_refused(shards, message):
    with pytest.raises(ValueError, match=message):
        InProcess(shards)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, 3)), "has no rows"),
        ([[1.0, float("nan")]], "NaN or infinite"),
        ([1.0, 2.0], r"data of node 'a': .* must be a table"),
    ],
)
def test_bad_shards_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Shard("a", rows)


def test_nodes_of_unlike_width_are_refused():
    with pytest.raises(ValueError, match="differ in their number of features"):
        train(InProcess([Shard("a", [[1.0]]), Shard("b", [[1.0, 2.0]])]), local_gd())


def test_rows_of_zeros_only_are_refused_and_some_zeros_work():
    with pytest.raises(ValueError, match="every entry of every row is zero"):
        train(InProcess([Shard("a", [[0.0, 0.0]])]), local_gd())
    run = train(InProcess([Shard("a", [[0.0, 0.0], [1.0, 0.0]])]), local_gd(local_steps=3), n_rounds=20)
    assert not run.certificate.separable  # a row of zeros is on nobody's right side


def test_misuse_from_a_session_is_answered_in_words():
    engine = InProcess(random_rows(1))
    with pytest.raises(TypeError, match="method must be a Method such as auto"):
        train(engine, "local-gd")
    with pytest.raises(NodeError, match="call prepare"):
        train(InProcess(load("golub")), local_gd())
    assert train(engine, local_gd(), n_rounds=3, goal=Angle(89.0)).n_rounds <= 3
