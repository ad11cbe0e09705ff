"""Reports that lack a quantity, hold one too many, or one that is no number: whose fault it is, what comes of it."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from common import METHODS, penalised, random_rows, stacked
from localgd import InProcess, Message, Method, NodeError, Report, local_gd, newton, train
from localgd.core import Field
from localgd.duals.dual import Dual
from localgd.engine.policy import Policy
from localgd.reference.max_margin import max_margin
from localgd.rules.local import GradientSteps
from localgd.rules.server import mean

NODE = "node-2"


@pytest.mark.parametrize(
    "kept", [(), ("sums", "maxs", "duals"), ("maxs", "mins", "duals"), ("sums", "maxs", "mins")], ids=" and ".join
)
@pytest.mark.parametrize("name", ["local-gd", "modified, projection", "consensus", "interior-point"])
def test_a_report_that_lacks_what_others_sent_is_a_failure_of_its_node(name, kept):
    """It would count as rows that agree with everything: a certificate that speaks for rows which never spoke."""

    class Short(InProcess):
        def __init__(self, shards):
            super().__init__(shards, on_failure="skip")
            run = self.nodes.run

            def short(task, message, nodes):
                answers = run(task, message, nodes)
                if NODE in answers and "Sizes" not in repr(task) and "Smoothness" not in repr(task):
                    found = answers[NODE]
                    answers[NODE] = Report(1, found.n_rows, **{part: getattr(found, part) for part in kept})
                return answers

            self.nodes.run = short

    shards = random_rows(4)
    answer = max_margin(stacked(shards))
    run = train(Short(shards), METHODS[name], n_rounds=40, reference=answer.direction)
    assert {failure.node_id for failure in run.failures} == {NODE}
    assert "lacks" in run.failures[0].error
    assert run.certificate.margin_low <= answer.margin_high
    assert answer.margin_low <= run.certificate.margin_high
    assert not run.history[-1].true_angle_deg > run.certificate.angle_deg_max


def spoiled(quantity, value, rounds=(3,), times=1, nodes=(NODE,), **options):
    """An engine, some of whose nodes send another value (None: nothing) for a quantity, the first times in a round.

    The wrong is done on the way: what the node's own check lets through, the server's must not.
    """

    class Spoiled(InProcess):
        def __init__(self, shards):
            super().__init__(shards, **options)
            run, asked = self.nodes.run, Counter()

            def some(task, message, names):
                answers = run(task, message, names)
                for node in {*nodes} & answers.keys():
                    asked[node, message.round] += 1
                    if message.round in rounds and asked[node, message.round] <= times and "loss" in answers[node].sums:
                        found = answers[node]
                        sums, mins, duals = dict(found.sums), dict(found.mins), dict(found.duals)
                        part = mins if quantity in mins else duals if quantity in duals else sums
                        vectors = {name: dual.vector for name, dual in duals.items()}
                        shape = np.shape({**sums, **mins, **vectors}.get(quantity, 0.0))
                        part.pop(quantity, None)
                        if value is not None:
                            part[quantity] = np.full(shape, value)
                        answers[node] = replace(found, sums=sums, mins=mins, duals=duals)
                return answers

            self.nodes.run = some

    return Spoiled(random_rows(4))


@pytest.mark.parametrize(
    "method", [local_gd(local_steps=5, lr=0.1), penalised(newton(), 1.0)], ids=lambda method: method.name
)
def test_what_is_not_finite_at_one_node_ends_the_run_in_its_name(method):
    """A broken node whose numbers are none: it is told at once, not when the model has left float64."""
    quantity = "update" if method.name == "local-gd" else "curvature"
    words = f"round 2, node 'node-2': ValueError: its report's {quantity} is not finite, while other nodes' are"
    with pytest.raises(NodeError, match=words):
        train(spoiled(quantity, np.nan, rounds=(2,)), method, n_rounds=9)


def test_what_is_not_finite_at_all_nodes_is_no_fault_of_a_node():
    run = train(spoiled("update", np.nan, nodes=NODES), local_gd(local_steps=5, lr=0.1), n_rounds=9)
    assert run.certificate.status == "diverged: round 3 left float64; lower lr"
    assert not run.failures


@pytest.mark.parametrize("on_failure", ["raise", "skip"])
@pytest.mark.parametrize(("quantity", "value"), [("update", np.inf), ("margin", np.nan), ("loss", None), ("more", 1.0)])
def test_what_one_node_sends_amiss_is_asked_for_again(on_failure, quantity, value):
    method = local_gd(local_steps=5, lr=0.1)
    engine = spoiled(quantity, value, rounds=range(9), times=2, on_failure=on_failure, retries=2)
    run, calm = train(engine, method, n_rounds=9), train(InProcess(random_rows(4)), method, n_rounds=9)
    np.testing.assert_array_equal(run.w, calm.w)
    assert {(failure.node_id, failure.outcome) for failure in run.failures} == {(NODE, "asked again")}


def test_a_node_that_sends_more_than_its_task_declares_is_at_fault():
    run = train(spoiled("more", 1.0, rounds=(2,), on_failure="skip"), local_gd(local_steps=5, lr=0.1), n_rounds=5)
    assert [(failure.node_id, failure.error) for failure in run.failures] == [
        (NODE, "ValueError: its report holds 'more', which GradientSteps does not declare")
    ]
    assert [row.n_nodes for row in run.history][:5] == [4, 4, 3, 4, 4]


@pytest.mark.parametrize("quantity", ["margin", "loss", "update"])
def test_a_quantity_that_no_node_sends_is_named(quantity):
    """There is no majority that could agree on a shorter report: the schema says what must be there."""
    words = rf"round 3, node 'node-0': ValueError: its report lacks {quantity}, which GradientSteps declares"
    with pytest.raises(NodeError, match=words):
        train(spoiled(quantity, None, nodes=NODES), local_gd(local_steps=5, lr=0.1), n_rounds=9)
    engine = spoiled(quantity, None, nodes=NODES, on_failure="skip")
    with pytest.raises(NodeError, match=words) as caught:
        train(engine, local_gd(local_steps=5, lr=0.1), n_rounds=9)
    assert caught.value.__notes__ == ["0 nodes reported, and min_nodes=1 are needed to go on"]


@dataclass(frozen=True)
class Declared:
    """Report what it is told to, whatever it declares."""

    sends: Report

    def schema(self, message):  # noqa: ARG002
        return SCHEMA

    def run(self, message, shard, state):  # noqa: ARG002
        return self.sends if shard.node_id == NODE else SOUND[shard.node_id], state


SCHEMA = {
    "total": Field("sum", (3,)),
    "n": Field("sum", (), "int64"),
    "most": Field("max"),
    "least": Field("min"),
    "bound": Field("min", optional=True),
    "move": Field("dual", (2,)),
    "told": Field("per_node", (2,), "float32"),
    "hidden": Field("max", unless="late"),
    "late": Field("flag"),
    "colour": Field("count"),
    "forgotten": Field("flag"),
}
ROWS = {shard.node_id: shard.n_rows for shard in random_rows(1)}
NODES = tuple(ROWS)


def sound(node, **changes):
    """A report of that schema, but for these changes: None takes a part's field away."""
    parts = {
        "sums": {"total": np.zeros(3), "n": np.int64(3)},
        "maxs": {"most": 1.0, "hidden": 2.0},
        "mins": {"least": 1.0},
        "counts": {("colour", "red"): 4},
        "flags": {},
        "duals": {"move": np.zeros(2)},
        "per_node": {"told": {node: np.zeros(2, np.float32)}},
    }
    whole = {"n_nodes": 1, "n_rows": ROWS[node]} | {name: value for name, value in changes.items() if name not in parts}
    held = {
        part: {name: value for name, value in (own | changes.get(part, {})).items() if value is not None}
        for part, own in parts.items()
    }
    return Report(**whole, **held)


SOUND = {node: sound(node) for node in NODES}

WRONG = {
    "undeclared sum": ({"sums": {"row": np.ones(5)}}, "holds 'row', which Declared does not declare"),
    "undeclared flag": ({"flags": {"odd": 1}}, "holds 'odd', which Declared does not declare"),
    "undeclared tally": ({"counts": {("word", "x"): 1}}, "holds 'word', which Declared does not declare"),
    "undeclared, with signs": ({"sums": {"\x1b[2J\n": 1.0}}, r"holds '\\x1b\[2J\\n', which Declared does not"),
    "another kind": (
        {"maxs": {"most": None}, "sums": {"most": 1.0}},
        "most is of the kind sum, but",
    ),
    "a dual as a sum": (
        {"duals": {"move": None}, "sums": {"move": np.zeros(2)}},
        "move is of the kind sum, but Declared declares a dual",
    ),
    "another shape": ({"sums": {"total": np.zeros(4)}}, r"total has the shape \(4,\), but Declared declares \(3,\)"),
    "a number": ({"sums": {"total": 1.0}}, r"total has the shape \(\), but Declared declares \(3,\)"),
    "a dual's shape": ({"duals": {"move": np.zeros(3)}}, r"move has the shape \(3,\), but"),
    "a listed value's shape": (
        {"per_node": {"told": {NODE: np.zeros(3, np.float32)}}},
        r"told has the shape \(3,\), but",
    ),
    "float64 for int64": ({"sums": {"n": 3.0}}, "n is of float64, but Declared declares int64"),
    "float64 for float32": (
        {"per_node": {"told": {NODE: np.zeros(2)}}},
        "told is of float64, but",
    ),
    "int64 for float64": ({"maxs": {"most": np.int64(1)}}, "most is of int64, but Declared declares float64"),
    "too large": ({"sums": {"n": np.int64(2**53 + 1)}}, r"n holds a number beyond 2\^53"),
    "for another node": ({"per_node": {"told": {"node-1": np.zeros(2, np.float32)}}}, "told speaks for the nodes"),
    "twice raised": ({"flags": {"late": 2}}, "late is raised 2 times; a node raises it once"),
    "negative tally": ({"counts": {("colour", "red"): -1}}, r"colour counts -1 of \('colour', 'red'\)"),
    "half a tally": ({"counts": {("colour", "red"): 0.5}}, "colour counts 0.5 of"),
    "lacking": ({"sums": {"total": None}, "mins": {"least": None}}, "lacks least, total, which Declared declares"),
    "lacking a dual": ({"duals": {"move": None}}, "lacks move, which Declared declares"),
    "lacking without its reason": ({"maxs": {"hidden": None}}, "lacks hidden, which Declared declares"),
    "lacking what is listed": ({"per_node": {"told": None}}, "lacks told, which Declared declares"),
    "two nodes": ({"n_nodes": 2}, "speaks for 2 nodes and 9 rows; a node speaks for itself only"),
    "no rows": ({"n_rows": 0}, "speaks for 1 nodes and 0 rows"),
    "no node": ({"n_nodes": 0, "n_rows": 0}, "its report speaks for no node"),
    "forgotten, but a number": (
        {"n_nodes": 0, "n_rows": 0, "flags": {"forgotten": 1}},
        "its report speaks for no node",
    ),
}
NOT_FINITE = {
    "total": {"sums": {"total": np.array([0.0, np.inf, 0.0])}},
    "least": {"mins": {"least": np.inf}},
    "most": {"maxs": {"most": -np.inf}},
    "bound": {"mins": {"bound": np.nan}},
    "move": {"duals": {"move": np.array([np.nan, 0.0])}},
    "told": {"per_node": {"told": {NODE: np.array([np.inf, 0.0], np.float32)}}},
}
FINE = {
    "minus infinity of a minimum": {"mins": {"least": -np.inf}},
    "infinity of a maximum": {"maxs": {"most": np.inf}},
    "an optional bound": {"mins": {"bound": 2.0}},
    "an optional bound that is none": {"mins": {"bound": np.inf}},
    "a reason": {"maxs": {"hidden": None}, "flags": {"late": 1}},
    "a tally of anything": {"counts": {("colour", "a\nb", 3): 2}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_node_refuses_to_send_what_its_task_does_not_declare(name):
    changes, words = WRONG[name]
    engine = InProcess(random_rows(1))
    with pytest.raises(NodeError, match=f"round 0, node 'node-2': ValueError: .*{words}") as caught:
        engine.round(Declared(sound(NODE, **changes)), Message())
    assert "in answer" in "".join(traceback.format_exception(caught.value.__cause__))  # the node itself
    assert engine.floats_up == 3 * SOUND[NODE].n_floats


@pytest.mark.parametrize("name", WRONG)
def test_a_server_takes_nothing_that_the_task_does_not_declare(name):
    """On the way from a node that does not check itself: under every policy it is that node's fault."""
    changes, words = WRONG[name]
    answers = {**SOUND, NODE: sound(NODE, **changes)}
    for policy in (Policy(), Policy("skip")):
        ask = lambda nodes: {node: answers[node] for node in nodes}  # noqa: E731
        report, failures, missing = policy.gather(ask, NODES, TASK, Message())
        assert report.n_nodes == 3
        assert [(failure.node_id, failure.outcome) for failure in failures] == [(NODE, "left out")]
        assert re.search(words, str(missing[NODE]))
    tries = iter([answers, SOUND])

    def again(nodes):
        held = next(tries)
        return {node: held[node] for node in nodes}

    report, failures, missing = Policy(retries=1).gather(again, NODES, TASK, Message())
    assert (report.n_nodes, missing) == (4, {})
    assert [(failure.node_id, failure.outcome) for failure in failures] == [(NODE, "asked again")]


@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_is_its_nodes_fault_unless_all_sent_it(name):
    task, message = Declared(sound(NODE, **NOT_FINITE[name])), Message()
    with pytest.raises(NodeError, match=f"node-2.*its report's {name} is not finite, while other nodes' are"):
        InProcess(random_rows(1)).round(task, message)
    assert InProcess(random_rows(1), on_failure="skip").round(task, message).n_nodes == 3
    assert InProcess(random_rows(1)).round(task, message, [NODE]).n_nodes == 1


@pytest.mark.parametrize("name", FINE)
def test_what_a_schema_allows_is_taken(name):
    engine = InProcess(random_rows(1))
    report = engine.round(Declared(sound(NODE, **FINE[name])), Message())
    assert report.n_nodes == 4
    assert not engine.failures
    assert set(report.per_node["told"]) == set(NODES)


def test_a_dual_without_a_mass_is_in_order_and_one_of_infinite_mass_is_not():
    for mass, n_nodes in ((np.nan, 4), (1.0, 4), (np.inf, 3)):
        engine = InProcess(random_rows(1), on_failure="skip")
        move = Dual.proved(np.zeros(2), mass, 0.0, 1, engine.shards[NODE].token)
        report = engine.round(Declared(sound(NODE, duals={"move": move})), Message())
        assert report.n_nodes == n_nodes


def test_a_node_that_has_forgotten_says_so_and_nothing_else():
    engine = InProcess(random_rows(1))
    report = engine.round(Declared(Report(flags={"forgotten": 1})), Message())
    assert (report.n_nodes, report.flags) == (3, {"forgotten": 1})
    with pytest.raises(NodeError, match="speaks for no node"):
        engine.round(Forgetful(), Message())


@dataclass(frozen=True)
class Forgetful:
    """Say that it has forgotten, without having said that it may."""

    def schema(self, message):  # noqa: ARG002
        return {}

    def run(self, message, shard, state):  # noqa: ARG002
        return Report(flags={"forgotten": 1}), state


TASK = Declared(SOUND[NODE])


def test_more_nodes_than_there_are_cannot_be_asked_for():
    with pytest.raises(ValueError, match="min_nodes=5: the number of nodes is 4; give at most that"):
        InProcess(random_rows(4), on_failure="skip", min_nodes=5)


@dataclass(frozen=True)
class Mute(GradientSteps):
    """Somebody's task that leaves some of it unsaid."""

    unsaid: tuple[str, ...] = ()

    def schema(self, message):
        return {name: field for name, field in super().schema(message).items() if name not in self.unsaid}

    def run(self, message, shard, state):
        report, state = super().run(message, shard, state)
        sums, mins = (
            {name: value for name, value in part.items() if name not in self.unsaid}
            for part in (report.sums, report.mins)
        )
        return replace(report, sums=sums, mins=mins), state


def test_a_task_need_not_say_how_the_model_stands():
    engine = InProcess(random_rows(2))
    plain = train(engine, local_gd(local_steps=5), n_rounds=30)
    mute = Mute(5, unsaid=("loss", "correct", "margin", "margin_upper", "update_sq_norm"))
    run = train(engine, Method("mute", mute, mean()), n_rounds=30)
    np.testing.assert_array_equal(run.w, plain.w)
    assert run.certificate.margin == plain.certificate.margin
    assert run.certificate.angle_deg_max <= 90
    assert [row.loss for row in run.history] == [row.loss for row in plain.history]
    with pytest.raises(ValueError, match="round 0: the report does not fit the model: 'weight'"):
        train(engine, Method("mute", Mute(unsaid=("weight",)), mean()))


@dataclass(frozen=True)
class Narrow(Mute):
    """Somebody's task whose update NumPy would stretch."""

    def schema(self, message):
        return super().schema(message) | {"update": Field("dual", (1,))}

    def run(self, message, shard, state):
        report, state = super().run(message, shard, state)
        return replace(report, duals={"update": Dual(np.ones(1))}), state


def test_an_update_of_another_shape_than_the_model_is_refused():
    with pytest.raises(ValueError, match=r"the report does not fit the model: its update has the shape \(1,\)"):
        train(InProcess(random_rows(2)), Method("narrow", Narrow(), mean()))
