"""Nodes that raise, send nonsense, are lost and come back: named, asked again or left out; no proof is wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from common import METHODS, PENALISED, SOLVER, penalised, random_rows, stacked, with_bias
from cut import CutError, cut_at
from localgd import (
    InProcess,
    Message,
    NodeError,
    Report,
    certify,
    consensus,
    interior_point,
    lbfgs,
    local_gd,
    modified_local_gd,
    newton,
    newton_cg,
    scaffold,
    train,
)
from localgd.core import Field
from localgd.engine.policy import Policy
from localgd.reference.max_margin import max_margin
from localgd.run.checkpoint import Checkpoints

NODE = "node-2"


@dataclass(frozen=True)
class Misbehave:
    """Do something wrong on one node, in the first of so many attempts that the node remembers."""

    how: str
    rounds: tuple[int, ...] = (0, 1, 2)

    state_type: ClassVar[type] = int

    def schema(self, message):  # noqa: ARG002
        return {"total": Field("sum", (3,)), "sent": Field("sum")}

    def init(self, shard):  # noqa: ARG002
        return 0

    def run(self, message, shard, state):
        step = np.full(3, 1.0)
        if shard.node_id == NODE and message.round in self.rounds:
            if self.how == "raise":
                raise RuntimeError("the disk of this node is gone")
            if self.how == "nonsense":
                return "a report", state
            step = {"nan": np.full(3, np.nan), "inf": np.array([1.0, np.inf, 0.0]), "shape": np.ones(4)}[self.how]
        return Report(1, shard.n_rows, {"total": step, "sent": state + 1.0}), state + 1


WRONGS = {
    "raise": "RuntimeError: the disk of this node is gone",
    "nonsense": "TypeError: Misbehave.run must return a Report",
    "nan": "ValueError: its report's total is not finite",
    "inf": "ValueError: its report's total is not finite",
    "shape": r"ValueError: its report's total has the shape \(4,\), but Misbehave declares \(3,\)",
}


@pytest.mark.parametrize("how", WRONGS)
def test_a_failing_node_is_left_out_named_and_comes_back(how):
    engine = InProcess(random_rows(1), on_failure="skip")
    for round_ in range(4):
        report = engine.round(Misbehave(how), Message(round_, np.zeros(3)))
        assert report.n_nodes == (4 if round_ == 3 else 3)
        assert report.sums["total"].tolist() == [report.n_nodes] * 3
    assert [(failure.round, failure.node_id, failure.outcome) for failure in engine.failures] == [
        (round_, NODE, "left out") for round_ in range(3)
    ]
    assert all(np.array([failure.error for failure in engine.failures]) == engine.failures[0].error)
    with pytest.raises(NodeError, match=WRONGS[how]):
        InProcess(random_rows(1), on_failure="skip", min_nodes=4).round(Misbehave(how), Message(0, np.zeros(3)))
    if how == "raise":
        assert "in run" in engine.failures[0].trace


@pytest.mark.parametrize("how", WRONGS)
def test_without_a_policy_it_ends_the_run(how):
    with pytest.raises(NodeError, match=f"round 1, node 'node-2': {WRONGS[how]}"):
        InProcess(random_rows(1)).round(Misbehave(how), Message(1, np.zeros(3)))


def test_too_few_nodes_are_told_with_their_number():
    engine = InProcess(random_rows(1), on_failure="skip", min_nodes=4)
    with pytest.raises(NodeError) as caught:
        engine.round(Misbehave("raise"), Message(0, np.zeros(3)))
    assert caught.value.__notes__ == ["3 nodes reported, and min_nodes=4 are needed to go on"]


@pytest.mark.parametrize(("field", "value"), [("on_failure", "ignore"), ("min_nodes", 0), ("retries", -1)])
def test_bad_policies_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        Policy(**{field: value})


def test_a_least_number_of_nodes_without_leave_to_skip_is_refused():
    with pytest.raises(ValueError, match="min_nodes=3 has no meaning where a node that fails ends the run; give"):
        InProcess(random_rows(1), min_nodes=3)


class Lossy(InProcess):
    """A federation whose network loses answers after the node has sent them: (attempt, node) says which."""

    def __init__(self, shards, lost, **options):
        super().__init__(shards, **options)
        run, self.attempts = self.nodes.run, 0

        def lossy(task, message, nodes):
            self.attempts += 1
            answers = run(task, message, nodes)
            gone = TimeoutError("no answer within 1 s")
            return {node: gone if lost(self.attempts, node) else answer for node, answer in answers.items()}

        self.nodes.run = lossy


def at_random(share, seed=0):
    rng = np.random.default_rng(seed)
    return lambda attempt, node: attempt > 4 and rng.random() < share  # noqa: ARG005


def for_rounds(first, last):
    return lambda attempt, node: first <= attempt < last and node == NODE


def exact(shards):
    return max_margin(stacked(shards))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.whole_rounds])
def test_what_is_proved_holds_when_every_tenth_report_is_lost(name):
    shards = random_rows(4)
    answer = exact(shards)

    def check(info):
        row = info.row
        assert row.low <= answer.margin_high
        assert answer.margin_low <= row.high
        if not math.isnan(row.angle_deg_max):
            assert row.true_angle_deg <= row.angle_deg_max
        assert info.certificate.margin_low == row.low

    engine = Lossy(shards, at_random(0.1), on_failure="skip")
    run = train(engine, METHODS[name], n_rounds=500, reference=answer.direction, on_round=check)
    if run.n_rounds == 500:
        missing = sum(len(shards) - row.n_nodes for row in run.history)
        assert 100 < missing <= len(run.failures)  # the last look may have been taken again


@pytest.mark.parametrize("method", [consensus(), interior_point()], ids=["consensus", "interior-point"])
@pytest.mark.parametrize("retries", [0, 2])
def test_exact_methods_reach_the_same_model_when_every_tenth_report_is_lost(method, retries):
    """A round that is not whole is run again from the same states, so the answers are those of a calm network."""
    shards = random_rows(4)
    engine = Lossy(shards, at_random(0.1, seed=2), on_failure="skip", retries=retries)
    run = train(engine, method, n_rounds=100)
    calm = train(InProcess(shards), method, n_rounds=sum(row.n_nodes == 4 for row in run.history[:-1]))
    np.testing.assert_array_equal(run.w, calm.w)
    assert run.failures
    if not retries:
        assert "repeated, as nodes were missing" in run.certificate.reason
        assert any(row.n_nodes < 4 for row in run.history)


@pytest.mark.parametrize("method", [newton(), newton_cg(), lbfgs(), scaffold()], ids=lambda method: method.name)
def test_minimisers_are_reached_when_every_tenth_report_is_lost(method):
    shards = with_bias(random_rows(4), noise=0.1)
    method = penalised(method, 1.0)
    run = train(Lossy(shards, at_random(0.1, seed=3), on_failure="skip"), method, n_rounds=100)
    calm = train(InProcess(shards), method, n_rounds=sum(row.n_nodes == 4 for row in run.history[:-1]))
    np.testing.assert_array_equal(run.w, calm.w)
    assert run.certificate.distance < SOLVER


@pytest.mark.parametrize("name", [name for name in PENALISED if "," in name])
def test_a_penalised_certificate_is_silent_unless_every_node_spoke(name):
    shards = with_bias(random_rows(4), noise=0.1)
    exact_w = train(InProcess(shards), newton(), problem=PENALISED[name].problem).w

    def check(info):
        if not math.isnan(info.certificate.angle_deg_max):
            proved.append(info.row)
            assert info.row.true_angle_deg <= info.certificate.angle_deg_max + SOLVER

    proved = []
    engine = Lossy(shards, at_random(0.2), on_failure="skip")
    run = train(engine, PENALISED[name], n_rounds=60, on_round=check, reference=exact_w)
    assert len(proved) < len(run.history)
    if "," not in name:  # the bias is left out of the distance where it is free
        assert not np.linalg.norm(run.w - exact_w) > run.certificate.distance + SOLVER


@pytest.mark.parametrize(
    "method", [local_gd(local_steps=10), modified_local_gd(), consensus()], ids=lambda method: method.name
)
def test_a_node_lost_for_ten_rounds_comes_back(method):
    shards = random_rows(4)
    answer = exact(shards)
    engine = Lossy(shards, for_rounds(8, 18), on_failure="skip")
    run = train(engine, method, n_rounds=120, reference=answer.direction)
    assert sum(row.n_nodes == 3 for row in run.history) >= 9
    assert run.certificate.margin_low <= answer.margin_high
    assert answer.margin_low <= run.certificate.margin_high
    assert run.history[-1].true_angle_deg <= run.history[-1].angle_deg_max
    assert {failure.node_id for failure in run.failures} == {NODE}
    if method.name == "consensus":
        assert run.certificate.angle_deg_max < 0.01


def test_a_node_that_lost_its_memory_starts_an_exact_method_again():
    shards = random_rows(4)
    for method in (consensus(), interior_point()):
        engine = InProcess(shards)
        restarts = []

        def forget(info, engine=engine, restarts=restarts):
            if info.row.round == 5:  # the node's process was ended and started again
                for kept in engine.nodes._kept.values():
                    kept.pop(NODE, None)
                restarts.append(info.row)

        run = train(engine, method, n_rounds=100, on_round=forget)
        assert restarts
        assert run.certificate.angle_deg_max < 0.01
        assert "1 round was repeated" in run.certificate.reason


@pytest.mark.parametrize("cut", range(6, 14))
def test_no_checkpoint_is_written_of_a_round_that_will_be_repeated(cut, tmp_path):
    """The nodes that ran it are ahead of the server: to go on from there would run it a second time."""
    shards, checkpoints = random_rows(4), Checkpoints(tmp_path, every_rounds=1)
    engine = Lossy(shards, for_rounds(8, 12), on_failure="skip")
    with pytest.raises(CutError):
        train(engine, consensus(), n_rounds=40, checkpoints=checkpoints, on_round=cut_at(cut))
    run = train(InProcess(shards), consensus(), n_rounds=40, checkpoints=checkpoints)
    calm = train(InProcess(shards), consensus(), n_rounds=sum(row.n_nodes == 4 for row in run.history[:-1]))
    np.testing.assert_array_equal(run.w, calm.w)


class Tampered(InProcess):
    """A federation of which only one node can be reached from a round on, and says something else."""

    def __init__(self, shards, change, since=3):
        super().__init__(shards, on_failure="skip")
        run = self.nodes.run

        def tampered(task, message, nodes):
            answers = run(task, message, nodes)
            if message.round < since or NODE not in answers:
                return answers
            found = answers[NODE]
            sums, duals = change(dict(found.sums), dict(found.duals))
            alone = replace(found, sums=sums, duals=duals)
            return {node: alone if node == NODE else TimeoutError("no answer within 1 s") for node in answers}

        self.nodes.run = tampered


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sums, _: (sums, {"update": np.ones(4)}),
            r"update has the shape \(4,\), but GradientSteps",
        ),
        (lambda sums, duals: (sums | {"loss": np.ones(2)}, duals), r"loss has the shape \(2,\), but GradientSteps"),
        (lambda sums, duals: ({"loss": sums["loss"]}, duals), "lacks correct, update_sq_norm, weight, which"),
        (lambda sums, _: (sums, {}), "lacks update, which"),
    ],
)
def test_what_the_only_node_left_sends_must_be_what_its_task_declares(change, message):
    """Nobody else is there to be compared with."""
    engine = Tampered(random_rows(4), change)
    with pytest.raises(NodeError, match="round 3"):
        train(engine, local_gd(local_steps=5, lr=0.1), n_rounds=9)
    (failure,) = [failure for failure in engine.failures if failure.node_id == NODE]
    assert re.search(message, failure.error)


def test_a_round_in_which_no_rows_have_a_weight_is_refused():
    engine = Tampered(random_rows(4), lambda sums, duals: (sums | {"weight": 0.0}, duals))
    with pytest.raises(ValueError, match="weigh nothing in the mean"):
        train(engine, local_gd(local_steps=5, lr=0.1), n_rounds=9)


class Infinite(InProcess):
    """A federation of which one node has an infinite number in its reports, for some rounds."""

    def __init__(self, shards, name):
        super().__init__(shards, on_failure="skip")
        run = self.nodes.run

        def tampered(task, message, nodes):
            answers = run(task, message, nodes)
            found = answers.get(NODE)
            if isinstance(found, Report) and 3 <= message.round < 9:
                sums, mins = (
                    {k: np.inf if k == name else v for k, v in part.items()} for part in (found.sums, found.mins)
                )
                answers[NODE] = replace(found, sums=sums, mins=mins)
            return answers

        self.nodes.run = tampered


@pytest.mark.parametrize("name", ["margin", "loss", "weight", "correct", "update_sq_norm"])
@pytest.mark.parametrize("method", [local_gd(local_steps=10), consensus(), interior_point()], ids=lambda m: m.name)
def test_an_infinite_number_is_a_failure_of_its_node(method, name):
    shards = random_rows(4)
    answer = exact(shards)
    engine = Infinite(shards, name)
    run = train(engine, method, n_rounds=40, reference=answer.direction)
    assert {failure.node_id for failure in run.failures} <= {NODE}
    assert run.failures
    assert all(row.low <= answer.margin_high for row in run.history)
    assert all(answer.margin_low <= row.high for row in run.history)
    assert all(math.isfinite(row.loss) and row.loss > 0 for row in run.history)
    if run.failures and method.name == "local-gd":
        assert "without some nodes, as they failed" in run.certificate.reason


def test_nodes_that_were_left_out_are_not_blamed_for_a_model_that_leaves_float64():
    def change(sums, _):
        return sums, {"update": np.full(5, np.nan)}

    run = train(Tampered(random_rows(4), change), local_gd(local_steps=5, lr=0.1), n_rounds=9)
    assert run.certificate.status == "diverged: round 3 left float64 (1 of 4 nodes had reported); lower lr"


def test_rounds_that_need_every_node_say_so_instead_of_going_on():
    shards = random_rows(4)
    for lost in (1, 2):
        engine = Lossy(shards, for_rounds(lost, lost + 1), on_failure="skip")
        with pytest.raises(NodeError, match=r"node-2.*no answer") as caught:
            train(engine, local_gd(), n_rounds=5)
        assert "needs every node" in caught.value.__notes__[-1]
    engine = Lossy(shards, for_rounds(2, 3), on_failure="skip")
    with pytest.raises(NodeError, match="node-2"):  # a margin without this node's rows would prove too much
        certify(np.ones(5), engine)
