"""Reports that lack a quantity, hold one too many, or one that is no number: whose fault it is, what comes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from common import METHODS, random_rows, stacked
from localgd import InProcess, Regularised, Report, local_gd, newton, train
from localgd.reference.max_margin import max_margin

NODE = "node-2"


@pytest.mark.parametrize("kept", [(), ("sums", "duals"), ("lows", "duals"), ("sums", "lows")], ids=" and ".join)
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
    """An engine, some of whose nodes send another value (None: nothing) for a quantity, the first times in a round."""

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
                        sums, lows, duals = dict(found.sums), dict(found.lows), dict(found.duals)
                        part = lows if quantity in lows else duals if quantity in duals else sums
                        shape = np.shape(found.arrays.get(quantity, 0.0))
                        part.pop(quantity, None)
                        if value is not None:
                            part[quantity] = np.full(shape, value)
                        answers[node] = Report(1, found.n_rows, sums, lows, found.counts, duals)
                return answers

            self.nodes.run = some

    return Spoiled(random_rows(4))


def test_a_model_that_leaves_float64_at_one_node_blames_it():
    """A broken node whose steps are not numbers: without a policy the run ends, and its status names the node."""
    run = train(spoiled("update", np.nan), local_gd(local_steps=5, lr=0.1), n_rounds=9)
    assert run.certificate.status == (
        "diverged: round 3 left float64 (only node node-2 sent what is not finite, in round 3); lower lr"
    )
    with pytest.raises(ValueError, match=r"round 2: .*\(only node node-2 sent what is not finite, in round 2\)"):
        train(spoiled("curvature", np.nan, rounds=(2,)), newton(), problem=Regularised(C=1.0), n_rounds=9)


@pytest.mark.parametrize("on_failure", ["raise", "skip"])
@pytest.mark.parametrize(("quantity", "value"), [("update", np.inf), ("margin", np.nan), ("loss", None), ("more", 1.0)])
def test_what_one_node_sends_amiss_is_asked_for_again(on_failure, quantity, value):
    method = local_gd(local_steps=5, lr=0.1)
    engine = spoiled(quantity, value, rounds=range(9), times=2, on_failure=on_failure, retries=2)
    run, calm = train(engine, method, n_rounds=9), train(InProcess(random_rows(4)), method, n_rounds=9)
    np.testing.assert_array_equal(run.w, calm.w)
    assert {(failure.node_id, failure.outcome) for failure in run.failures} == {(NODE, "asked again")}


def test_a_node_that_sends_more_than_the_others_is_at_fault_not_they():
    run = train(spoiled("more", 1.0, rounds=(2,), on_failure="skip"), local_gd(local_steps=5, lr=0.1), n_rounds=5)
    assert [(failure.node_id, failure.error) for failure in run.failures] == [
        (NODE, "ValueError: its report has more, which most nodes did not send")
    ]
    assert [row.n_nodes for row in run.history][:5] == [4, 4, 3, 4, 4]


@pytest.mark.parametrize("on_failure", ["raise", "skip"])
@pytest.mark.parametrize("quantity", ["margin", "loss", "update"])
def test_a_quantity_that_no_node_sends_is_named(on_failure, quantity):
    engine = spoiled(quantity, None, nodes=InProcess(random_rows(4)).node_ids, on_failure=on_failure)
    with pytest.raises(ValueError, match=rf"round 3: .*{quantity}"):
        train(engine, local_gd(local_steps=5, lr=0.1), n_rounds=9)


def test_more_nodes_than_there_are_cannot_be_asked_for():
    with pytest.raises(ValueError, match="min_nodes=5: the number of nodes is 4; give at most that"):
        InProcess(random_rows(4), on_failure="skip", min_nodes=5)
