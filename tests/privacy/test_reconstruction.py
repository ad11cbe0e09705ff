"""What a curious server can ask of a node: without limits it gets a row, with them a refusal.

Every attack is a task and messages that a node runs for anyone, and what the server makes of the last answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from common import against, as_csr
from engines.flower_grid import LocalGrid
from localgd import (
    Message,
    NodeError,
    Regularised,
    Samples,
    Shard,
)
from localgd.engine import nodes
from localgd.flower import FlowerEngine, answer
from localgd.limits import Limits, RefusedError
from localgd.losses import Exponential
from localgd.problems.least_squares import Squares
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Appraise, Curvature
from localgd.problems.triangle import symmetric
from localgd.rules.consensus import DualPart
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.probes import TemperedDual
from localgd.rules.project import Project

GUARD = Limits()
N, D = 120, 6
RNG = np.random.default_rng(0)
ROWS = np.hstack([RNG.standard_normal((N, D - 1)), np.ones((N, 1))])  # one class; the last column is its bias
V = RNG.standard_normal(D - 1)
CHOSEN = int(np.argmin(ROWS[:, :-1] @ V))
LOW, NEXT = np.sort(ROWS[:, :-1] @ V)[:2]
PAST = np.append(V, -(LOW + NEXT) / 2) * 2 / (NEXT - LOW)
"""A model with one row at the margin −1, and all others at 1 or more."""
AT = np.append(V, -LOW) / (NEXT - LOW)
"""A model with one row at the margin 0, and all others at 1 or more."""
FAR = 40 * PAST

NODE = Shard("a", ROWS)
LONELY = Shard("a", np.where(np.arange(N)[:, None] == CHOSEN, 1.0, -1.0) * ROWS)
"""A node with one row of the positive class."""

REAL = Samples("a", np.hstack([ROWS, np.eye(N)[:, [CHOSEN]]]), np.zeros(N))
ALONG = np.eye(D + 1)[-1]
"""The last column is a category that one row is of."""

THREE = against([(ROWS, np.where(np.arange(N) == CHOSEN, 2, np.arange(N) % 2))], 3)[0]
APART = np.vstack([np.zeros((2, D)), -40 * np.eye(D)[-1]]).ravel()
"""A class that one sample is of, and a model that takes no sample for one of it."""

C, FREE = Regularised(C=1.0), Regularised(C=1.0, intercept=True)
BOTH = ("pull", "expected")
STEP = GradientSteps(local_steps=1, lr=1.0)
PULLED = replace(STEP, problem=C, n_samples=N)


@dataclass(frozen=True)
class Attack:
    """A task, messages of a run (later ones may need the answer before), the node, and the row from the last answer."""

    task: Any
    message: Message
    row: Any
    node: Shard = NODE
    then: Any = None


def by_mass(report):
    """A dual that is a row times its mass."""
    (dual,) = report.duals.values()
    return dual.vector / dual.parts[0]


def by_last(report):
    """A dual that is a row times a number: the row's last entry is 1."""
    vector = report.duals["update"].vector
    return vector / vector[-1]


def by_square(report):
    """A second moment c z zᵀ."""
    last = symmetric(report.sums["curvature"])[-1]
    return last / last[-1]


def mixed(report):
    """Project from `PAST`, as the sum of the parts less a thousandth of the node's own."""
    mix = np.array([[0.0], [1e-3]])
    return Message(1, PAST + 1e-3 * report.duals["update"].vector, {"mix": mix})


ATTACKS = {
    "a batch of one": Attack(replace(STEP, batch_size=1, seed=1), Message(0, np.zeros(D)), by_mass),
    "a batch of one, penalised": Attack(replace(PULLED, batch_size=1), Message(0, np.zeros(D)), by_last),
    "a sharp dual": Attack(TemperedDual(), Message(0, PAST, {"low": -1.0, "tau": [40.0]}), by_mass),
    "exponential loss, far away": Attack(replace(STEP, loss=Exponential()), Message(0, 20 * PAST), by_mass),
    "logistic loss, far away": Attack(STEP, Message(0, FAR), by_mass),
    "penalised step, far away": Attack(PULLED, Message(0, FAR), lambda report: report.duals["update"].vector + FAR),
    "gradient, far away": Attack(Appraise(C), Message(0, FAR), lambda report: report.sums["pull"]),
    "curvature, far away": Attack(Curvature(C), Message(0, 40 * AT), by_square),
    "a class of one row": Attack(Appraise(FREE), Message(0, np.zeros(D)), lambda got: 2 * got.sums["positive"], LONELY),
    "a class of one row, of three": Attack(
        Appraise(C.among(2)), Message(0, APART), lambda report: report.sums["pull"][2 * D :], THREE
    ),
    "a class of one row, of three, by what the model expects": Attack(
        Appraise(FREE.among(2)), Message(0, np.zeros(3 * D)), lambda got: sum(map(got.sums.get, BOTH))[-D:], THREE
    ),
    "a projection that one row needs": Attack(Project(), Message(0, PAST), by_mass),
    "a mix of parts": Attack(DualPart(), Message(0, np.zeros(D)), by_mass, then=mixed),
    "a rare category, along": Attack(
        Squares(), Message(0, extra={"along": ALONG}), lambda report: report.sums["along_pull"], REAL
    ),
    "a rare category, residuals": Attack(
        Squares(), Message(0, -1e3 * ALONG), lambda report: report.sums["pull"] / 1e3, REAL
    ),
    "a rare category, a step": Attack(SquaresSteps(local_steps=1, lr=1.0), Message(0, -1e3 * ALONG), by_last, REAL),
}
SENT = [name for name, attack in ATTACKS.items() if not isinstance(attack.task, GradientSteps)]


def run(attack, limits):
    """What the attack finds on a node with these limits."""
    shard = replace(attack.node, limits=limits)
    report, kept = nodes.answer(attack.task, attack.message, shard, None)
    if attack.then is not None:
        report, _ = nodes.answer(attack.task, attack.then(report), shard, kept)
    return attack.row(report)


def is_a_row(found, node):
    """Whether it is a row of the node, to 1e-6."""
    rows = -ROWS if node is LONELY else node.rows
    held = ROWS if node is THREE else np.vstack([rows, -rows])
    return np.abs(held - found).max(axis=1).min() < 1e-6


@pytest.mark.parametrize("name", ATTACKS)
def test_a_row_is_reconstructed_without_limits_and_refused_with_them(name):
    attack = ATTACKS[name]
    assert is_a_row(run(attack, None), attack.node)
    assert is_a_row(run(attack, Limits(min_rows=1, min_batch=1)), attack.node)
    sparse = as_csr([attack.node])[0]
    for node in (attack.node, sparse):
        with pytest.raises(RefusedError, match=r"fewer than min-rows=8 of its rows.*its operator may set min-rows"):
            run(replace(attack, node=node), GUARD)


def over_flower(node, **config):
    """One node of a Flower app, with this node-config."""
    app = answer(ClientApp(), lambda context: node)  # noqa: ARG005
    return FlowerEngine(LocalGrid(app, [{"node-name": "a", **config}]), timeout=5.0, poll=1e-4)


@pytest.mark.parametrize("name", SENT)
def test_a_node_of_flower_refuses_by_default_and_its_operator_may_allow(name):
    attack = ATTACKS[name]
    with pytest.raises(NodeError, match=r"RefusedError: it sends no sum.*fewer than min-rows=8"):
        over_flower(attack.node).round(attack.task, attack.message)
    engine = over_flower(attack.node, **{"min-rows": 1})
    report = engine.round(attack.task, attack.message)
    if attack.then is not None:
        report = engine.round(attack.task, attack.then(report))
    assert is_a_row(attack.row(report), attack.node)


def test_a_refusal_says_nothing_of_any_row():
    """Two nodes whose rows differ refuse in the same words."""
    said = []
    for node in (NODE, replace(NODE, data=3 * ROWS)):
        with pytest.raises(RefusedError) as error:
            run(replace(ATTACKS["a sharp dual"], node=node), GUARD)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert re.findall(r"\d+", said[0]) == ["8"]


def test_a_small_node_sends_no_sum_at_all():
    node = replace(NODE, data=ROWS[:7], limits=GUARD)
    for task in (STEP, Appraise(C), Curvature(C)):
        with pytest.raises(RefusedError):
            nodes.answer(task, Message(0, np.zeros(D)), node, None)
    real = Samples("a", ROWS[:7], np.ones(7), limits=GUARD)
    with pytest.raises(RefusedError):
        nodes.answer(Squares(), Message(0, extra={"moments": np.array(D)}), real, None)


def test_long_rows_do_not_hide_a_short_one():
    """Ten rows a million times longer, with coefficients a million times smaller, would leave it as it is."""
    long = np.arange(N) < 10
    node = Shard("a", np.hstack([ROWS, 1e6 * long[:, None]]))
    a = np.where(long, 1e-9, 0.0)
    a[CHOSEN] = 1e-3
    assert np.abs(node.combine(a)[:D] / 1e-3 - ROWS[CHOSEN]).max() < 1e-4
    with pytest.raises(RefusedError):
        replace(node, limits=GUARD).combine(a)


def test_sums_of_nothing_pass():
    """A projection that no row needs moves nothing."""
    report, _ = nodes.answer(Project(), Message(0, 2 * AT + np.eye(D)[-1] * 9), replace(NODE, limits=GUARD), None)
    assert not report.duals["update"].vector.any()


def test_numbers_that_are_not_finite_are_refused():
    shard = replace(NODE, limits=GUARD)
    for wrong in (np.inf, np.nan):
        with pytest.raises(RefusedError):
            shard.combine(np.where(np.arange(N) == 0, wrong, 1.0))


# what is still told, as docs/privacy.md says


def test_smallest_margins_of_many_models_tell_one_row():
    """d + 1 looks, each of which tells the margin of one row: no sum, so no limit holds it back."""
    shard = replace(NODE, limits=GUARD)

    def low(w):
        return float(nodes.answer(Evaluate(), Message(0, w), shard, None)[0].mins["margin"])

    step = 1e-4
    found = np.array([(low(AT + step * unit) - low(AT)) / step for unit in np.eye(D)])
    assert np.abs(found - ROWS[CHOSEN]).max() < 1e-6


def test_two_sums_that_differ_in_one_row_tell_it():
    """At one model all rows have the slope 1, at the other all but the one that is at the greatest margin."""
    shard = replace(NODE, limits=GUARD)
    high, below = np.sort(ROWS[:, :-1] @ V)[[-1, -2]]
    all_but_one = np.append(V, -(high + below) / 2) * 80 / (high - below)
    everyone = -1e3 * np.eye(D)[-1]
    sums = [nodes.answer(Appraise(C), Message(0, w), shard, None)[0].sums["pull"] for w in (everyone, all_but_one)]
    assert is_a_row(sums[0] - sums[1], NODE)


# honest training
