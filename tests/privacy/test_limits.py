"""What limits refuse of honest work, and what they let through to the same bits."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from flwr.clientapp import ClientApp

import localgd
from common import penalised
from engines.flower_grid import LocalGrid
from localgd import (
    InProcess,
    Logistic,
    Message,
    Method,
    NodeError,
    Regularised,
    Shard,
    consensus,
    lbfgs,
    local_gd,
    local_sgd,
    mean,
    modified_local_gd,
    newton,
    newton_cg,
    scaffold,
    train,
    update_fields,
    update_report,
)
from localgd.data.survey import Moments, Tally
from localgd.data.table import Table
from localgd.engine.flower.node import limits_of
from localgd.flower import FlowerEngine, answer
from localgd.flower.client import client
from localgd.limits import Limits, RefusedError
from localgd.many.by_node import at
from localgd.problems.regularised import Curvature
from localgd.rules.consensus import DualPart
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.probes import TemperedDual
from localgd.run.certify import certify
from own_methods import PROGRAMS

GUARD = Limits()
D = 6
C = Regularised(C=1.0)


def over_flower(node, **config):
    """One node of a Flower app, with this node-config."""
    app = answer(ClientApp(), lambda context: node)  # noqa: ARG005
    return FlowerEngine(LocalGrid(app, [{"node-name": "a", **config}]), timeout=5.0, poll=1e-4)


def honest(n_nodes=3, n=150, d=5, limits=GUARD, noise=1.0):
    """Nodes of more than a hundred rows, of classes that overlap unless there is no noise."""
    rng = np.random.default_rng(7)
    held = []
    for m in range(n_nodes):
        x = rng.standard_normal((n, d))
        y = np.where(x[:, 0] + noise * rng.standard_normal(n) > 0, 1.0, -1.0)
        held.append(Shard(f"n{m}", np.hstack([x, np.ones((n, 1))]) * y[:, None], limits=limits))
    return held


HONEST = {
    "local-gd": penalised(local_gd(local_steps=20), 1.0, intercept=True),
    "lbfgs": penalised(lbfgs(), 1.0, intercept=True),
    "newton-cg": penalised(newton_cg(), 1.0, intercept=True),
    "newton": penalised(newton(), 1.0, intercept=True),
    "scaffold": penalised(scaffold(local_steps=20), 1.0),
    "local-sgd": penalised(local_sgd(local_steps=20, batch_size=8), 1.0),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_training_with_a_penalty_goes_through_to_the_same_bits(name):
    runs = [train(InProcess(honest(limits=limits)), HONEST[name], n_rounds=40) for limits in (GUARD, None)]
    assert np.array_equal(runs[0].w, runs[1].w)


@pytest.mark.parametrize("name", ["lbfgs", "newton", "newton-cg"])
def test_honest_training_goes_through_over_flower(name):
    held = {f"n{m}": shard for m, shard in enumerate(honest(limits=None))}
    app = answer(ClientApp(), lambda context: held[context.node_config["node-name"]])
    engine = FlowerEngine(LocalGrid(app, [{"node-name": node} for node in held]), timeout=5.0, poll=1e-4)
    assert train(engine, HONEST[name], n_rounds=40).w.any()


def test_local_gd_without_a_penalty_goes_on_until_few_rows_carry_it():
    """On separable rows the sums come to lean on few of them: the node then refuses, in words."""
    held = [replace(shard, data=np.hstack([shard.rows, np.abs(shard.rows[:, :1])])) for shard in honest(noise=0.0)]
    assert train(InProcess(held), local_gd(local_steps=10), n_rounds=5).w.any()
    with pytest.raises(NodeError, match=r"min-rows=8 of its rows.*on separable rows few of them carry the last rounds"):
        train(InProcess(held), local_gd(local_steps=1000, lr=10.0), n_rounds=2000)


@pytest.mark.parametrize("method", [consensus(), modified_local_gd()])
def test_methods_that_lean_on_support_rows_are_refused_at_once(method):
    with pytest.raises(NodeError, match=r"round 0.*min-rows=8"):
        train(InProcess(honest(noise=0.0)), method, n_rounds=5)


def test_certify_keeps_the_sharpnesses_that_rest_on_enough_rows():
    rows = honest(noise=0.0)
    w = np.eye(D)[0]
    found, bare = (certify(w, InProcess([replace(s, limits=limits) for s in rows])) for limits in (GUARD, None))
    assert bare.margin_high <= found.margin_high < np.inf


# other limits


def test_limits_come_from_the_node_config():
    config = {"min-rows": 1, "min-batch": 2, "min-group": 3, "max-local-steps": 4, "max-duals": 5, "max-mb": 6.5}
    assert limits_of(SimpleNamespace(node_config=config)) == Limits(1, 2, 3, 4, 5, 6.5)
    for key, value in [("min-rows", 0), ("min-rows", "8"), ("min-batch", True), ("max-mb", 0.0), ("max-mb", "1")]:
        with pytest.raises(RefusedError, match=f"{key} must be a .*correct its node-config"):
            limits_of(SimpleNamespace(node_config={key: value}))


BEYOND = {
    "batches": ({}, SimpleNamespace(batch_size=7), "no batches of fewer than min-batch=8"),
    "groups": ({}, Tally((), (), (), min_group=7), "of fewer than 8 rows; give min-group=8"),
    "steps": ({}, SquaresSteps(10_001, 1.0), "max-local-steps=10000"),
    "duals": ({"n_duals": 65}, TemperedDual(), "max-duals=64"),
    "report": ({"sizes": {"curvature": 10**9}}, Curvature(), "its report would take 8e.03 MB.*max-mb=256"),
    "memory": ({"n_rows": 10**6}, DualPart(), "the memory would take .* max-mb=256"),
    "draws": ({"n_rows": 10**6}, GradientSteps(10_000, batch_size=10**6), "the batches would take"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_work_beyond_the_limits_is_refused(name):
    sizes, task, words = BEYOND[name]
    steps = at(getattr(task, "local_steps", None), "a") or 1
    with pytest.raises(RefusedError, match=words):
        GUARD.admit(task, **{"sizes": {}, "n_duals": 0, "n_rows": 100, "local_steps": steps, **sizes})


def test_large_sums_are_refused_before_they_are_formed():
    wide = Shard("a", np.ones((20, 6000)), limits=GUARD)
    with pytest.raises(RefusedError, match="a d×d sum of 6000 columns would take 288 MB, more than max-mb=256"):
        wide.second_moment(np.ones(20))
    with pytest.raises(NodeError, match="its report would take"):
        over_flower(replace(wide, limits=None)).round(Curvature(C), Message(0, np.zeros(10_000)))


def test_columns_that_few_rows_have_are_not_summed():
    frame = pl.DataFrame({"x": [1.0] * 7 + [None] * 13, "y": [1.0] * 20})
    table = Table("a", frame, np.arange(20) % 2, limits=GUARD)
    scale = {"exponent": np.zeros(1), "center": np.zeros(1)}
    for task, message in ((Tally(("x",), (), ()), Message()), (Moments(("x",)), Message(extra=scale))):
        with pytest.raises(RefusedError, match="fewer than min-rows=8 of its rows have a value in: drop 'x'"):
            task.run(message, table, None)
        other = replace(task, numbers=("y",))
        assert other.run(message, table, None)[0].n_rows == 20


def test_a_bundled_set_is_public():
    configs = [{"partition-id": m, "data": "heart"} for m in range(4)]
    engine = FlowerEngine(LocalGrid(client, configs), n_nodes=4, timeout=20.0, poll=1e-4)
    assert engine.round(Tally((), (), (), min_group=1), Message()).n_nodes == 4


def test_rows_are_touched_past_the_limits_in_these_places_only():
    """A task that forms a sum by itself slips through: whoever adds one here says why it is none."""
    root = Path(localgd.__file__).parent
    found = Counter()
    for room in ("rules", "problems", "data", "methods"):
        for path in (root / room).rglob("*.py"):
            for word in re.findall(r"shard\.(rows|data|gram|targets|own_sum)\b", path.read_text()):
                found[path.name, word] += 1
    assert found == {
        ("consensus.py", "own_sum"): 1,  # where its projection starts
        ("local.py", "own_sum"): 1,  # its own gradient, for the control variates; what leaves is what `Held` saw
        ("local_squares.py", "gram"): 1,  # its state
        ("probes.py", "data"): 1,  # one eigenvalue
        ("balance.py", "data"): 1,  # margins, by class
        ("regularised.py", "data"): 1,  # lengths of rows in other units
        ("quotient.py", "data"): 3,  # whether all rows are at a right angle to a vector
        ("least_squares.py", "data"): 1,  # coefficients of a sum
        ("least_squares.py", "rows"): 1,  # whether a column is ones
    }


# tasks of one's own


@dataclass(frozen=True)
class FirstRow:
    """Sends the first row alone, by a name that a Shard has for a sum."""

    by: str
    loss: Logistic = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    weighted_by: str = "uniform"

    def schema(self, message):
        return update_fields(message)

    def run(self, message, shard, state):  # noqa: ARG002
        update = getattr(shard, self.by)(np.eye(shard.n_rows)[0])
        return update_report(shard, update, self.weighted_by), state


def test_limits_hold_the_sums_for_others_and_not_the_code_of_a_task():
    """As the pages say: what a task sends of its own sums is for whoever lists the task to know."""
    held = honest()
    for by in ("combine", "combination"):
        with pytest.raises(NodeError, match="min-rows=8 of its rows"):
            train(InProcess(held), Method("leak", FirstRow(by), mean()), n_rounds=1)
    seen = train(InProcess(held[:1]), Method("leak", FirstRow("own_sum"), mean()), n_rounds=1)
    np.testing.assert_array_equal(seen.w, held[0].rows[0])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_of_the_page_send_no_sum_of_few_rows(name):
    """Also those whose updates are bare vectors: all that they are made of may leave the node."""
    runs = [train(InProcess(honest(limits=limits)), PROGRAMS[name].method, n_rounds=2) for limits in (GUARD, None)]
    assert np.array_equal(runs[0].w, runs[1].w)
    few = [replace(shard, data=shard.rows[:7]) for shard in honest()]
    with pytest.raises(NodeError, match="min-rows=8 of its rows"):
        train(InProcess(few), PROGRAMS[name].method, n_rounds=1)
