"""What nodes say of one vector is never taken for proof of another: a merge may send what it does not hand out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from localgd import (
    InProcess,
    LeastSquares,
    Method,
    NodeError,
    Regularised,
    Samples,
    Shard,
    auto,
    newton,
    normal_equations,
    train,
)
from localgd.core import Message
from localgd.duals.dual import Dual
from localgd.losses import Logistic
from localgd.problems.metrics import METRICS
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps, moves
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.project import Project
from localgd.rules.server import mean
from targets import problem, spread_over, with_ones

TASKS = {"projections": Project(), "local steps": GradientSteps(local_steps=3, lr=0.5)}


@dataclass(frozen=True)
class Ahead:
    """A merge that has the nodes look at another vector than its model, as some forms of momentum do."""

    merge: Any
    whole_rounds: str = ""

    def bound(self, problem, task):
        return replace(self, merge=self.merge.bound(problem, task))

    def init(self, w0):
        return self.merge.init(w0)

    def message(self, state):
        asked = self.merge.message(state)
        return replace(asked, w=2 * asked.w + np.arange(asked.w.size))

    def step(self, state, report):
        return self.merge.step(state, report)


@dataclass(frozen=True)
class Unaware:
    """A task of somebody who has never heard of the late direction: all that it says is about w."""

    task: Any
    loss: Any = Logistic()  # noqa: RUF009
    weighted_by: str = "uniform"

    def schema(self, message):
        return {**METRICS, **moves(message.w.size)}

    def init(self, shard):
        return self.task.init(shard) if isinstance(self.task, Project) else None

    def run(self, message, shard, state):
        report, state = self.task.run(Message(message.round, message.w), shard, state)
        return replace(report, flags={}), state


MERGES = {"late": Late(mean()), "ahead": Ahead(mean()), "late and ahead": Ahead(Late(mean()))}


@pytest.mark.parametrize("wrapped", [Unaware, lambda task: task], ids=["a stranger's", "ours"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("merge", MERGES)
def test_no_margin_is_that_of_another_vector(merge, task, wrapped):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        u, z = rng.normal(size=2), rng.normal(size=(8, 2))
        z *= np.where(z @ u >= 0, 1.0, -1.0)[:, None]
        answer = max_margin(z)
        told = []
        method = Method("mine", wrapped(TASKS[task]), MERGES[merge])
        run = train(InProcess([Shard("a", z[:4]), Shard("b", z[4:])]), method, n_rounds=3, on_round=told.append)
        for info in told:
            found = info.certificate
            lowest = (z @ info.w).min() / (np.linalg.norm(info.w) or 1.0)
            assert not found.margin > lowest + 1e-9
            assert found.margin_low <= answer.margin_high * (1 + 1e-9)
            assert not found.angle_deg_max + 1e-6 < angle_deg(info.w, answer.direction)
        if run.w.any():  # the last look is at what is handed out
            assert run.certificate.margin == pytest.approx(lowest)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_no_gap_is_that_of_another_vector(C):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 3)) + 0.3
    federation, wanted = InProcess([Shard("a", z[:20]), Shard("b", z[20:])]), Regularised(C=C)
    best = train(federation, newton(), problem=wanted).w
    told = []
    method = Method("mine", GradientSteps(local_steps=2), Ahead(mean()))
    run = train(federation, method, problem=wanted, n_rounds=5, on_round=told.append)
    for info in told:
        assert not np.linalg.norm(info.w - best) > info.certificate.distance * (1 + 1e-6) + 1e-6
    assert run.certificate.distance < np.inf


def test_no_distance_is_that_of_another_vector():
    X, y = problem(12, 3)
    best, told = np.linalg.lstsq(X, y)[0], []
    method = Method("mine", SquaresSteps(), Ahead(mean()), LeastSquares())
    train(spread_over(X, y, 2), method, n_rounds=5, on_round=told.append)
    for info in told:
        assert not np.linalg.norm(info.w - best) > info.certificate.distance * (1 + 1e-6) + 1e-6
        assert not np.linalg.norm(y - X @ info.w) > info.certificate.residual * (1 + 1e-9)


@dataclass(frozen=True)
class Elsewhere:
    """A task of somebody that works, and looks, on rows of its own making, or at another model."""

    task: Any
    length: float = 1.0
    moved: float = 0.0
    loss: Any = None
    weighted_by: str = "num-examples"
    state_type: Any = Any

    def bound(self, wanted, engine, sizes):
        known = wanted if wanted.by_margins else LeastSquares()  # all that steps on squares can look for
        return replace(self, task=self.task.bound(known, engine, sizes))

    def schema(self, message):
        return self.task.schema(message)

    def init(self, shard):
        return self.task.init(self.own(shard)) if hasattr(self.task, "init") else None

    def own(self, shard):
        half = -(-shard.n_rows // 2)
        given = (shard.node_id, self.length * shard.rows[:half])
        return Samples(*given, shard.targets[:half]) if isinstance(shard, Samples) else Shard(*given)

    def run(self, message, shard, state):
        report, state = self.task.run(replace(message, w=message.w + self.moved), self.own(shard), state)
        return replace(report, n_rows=shard.n_samples), state


@pytest.mark.parametrize("length", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("moved", [0.0, 0.1])
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_what_a_strangers_task_says_of_other_rows_proves_nothing_of_a_minimiser(length, moved, C):
    z = np.random.default_rng(0).normal(size=(40, 3)) + 0.3
    federation, wanted = InProcess([Shard("a", z[:20]), Shard("b", z[20:])]), Regularised(C=C)
    best = train(federation, newton(), problem=wanted).w
    task = Elsewhere(GradientSteps(local_steps=2, lr=0.5), length, moved)
    told = []
    run = train(federation, Method("mine", task, mean()), problem=wanted, n_rounds=60, on_round=told.append)
    for info in told:
        assert np.linalg.norm(info.w - best) <= info.certificate.distance * (1 + 1e-6) + 1e-6
    assert run.certificate.distance < np.inf


@pytest.mark.parametrize("length", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("moved", [0.0, 0.1])
@pytest.mark.parametrize("wanted", [LeastSquares(), LeastSquares(1.0), LeastSquares(1.0, intercept=True)], ids=str)
def test_what_a_strangers_task_says_of_other_rows_proves_nothing_of_a_solution(length, moved, wanted):
    X, y = problem(12, 3)
    X = with_ones(X) if wanted.intercept else X
    engine = spread_over(X, y, 2)
    best, told = train(engine, auto(), problem=wanted).w, []
    method = Method("mine", Elsewhere(SquaresSteps(), length, moved), mean(), wanted)
    run = train(engine, method, problem=wanted, n_rounds=60, on_round=told.append)
    for info in told:
        assert np.linalg.norm(info.w - best) <= info.certificate.distance * (1 + 1e-6) + 1e-6
        assert np.linalg.norm(y - X @ info.w) <= info.certificate.residual * (1 + 1e-9)
    assert (run.certificate.distance < np.inf) == (wanted.alpha > 0)


def test_a_combination_of_rows_of_its_own_making_is_refused_at_its_node():
    z = np.random.default_rng(0).normal(size=(8, 2)) + 2.0
    method = Method("mine", Elsewhere(GradientSteps(lr=0.5), 0.5, loss=Logistic()), mean())
    with pytest.raises(NodeError, match=r"update is no combination of its own rows: make it by shard\.combination"):
        train(InProcess([Shard("a", z)]), method, n_rounds=3)


@pytest.mark.parametrize("mass", [-1.0, 0.0, 1e-300, 1.0, np.inf])
def test_a_mass_that_no_shard_vouches_for_is_refused_whatever_it_is(mass):
    """One of 0 adds nothing to what others prove, but its vector would be taken for a sum of rows."""

    @dataclass(frozen=True)
    class Vouching(GradientSteps):
        def run(self, message, shard, state):
            report, state = super().run(message, shard, state)
            own = Dual.proved(np.array([3.0, -1.0]), mass, 0.0)
            return replace(report, duals={"update": own if shard.node_id == "b" else report.duals["update"]}), state

    z = np.random.default_rng(0).normal(size=(8, 2)) + 2.0
    with pytest.raises(NodeError, match="update is no combination of its own rows"):
        train(InProcess([Shard("a", z[:4]), Shard("b", z[4:])]), Method("mine", Vouching(lr=0.5), mean()), n_rounds=3)


@dataclass(frozen=True)
class Boastful:
    """A merge of somebody whose state holds facts that no node has sent: curvature a million times what it is."""

    merge: Any
    whole_rounds: str = "its sums are of all nodes"

    def bound(self, wanted, task):
        return replace(self, merge=self.merge.bound(wanted, task))

    def init(self, w0):
        return self.merge.init(w0)

    def message(self, state):
        return self.merge.message(state)

    def step(self, state, report):
        following = self.merge.step(state, report)
        facts = following.facts
        if facts is None or facts.known is None:
            return following
        steep = replace(facts, known=replace(facts.known, values=1e6 * facts.known.values))
        return replace(following, facts=steep, model=Dual(following.model.vector + 1e-3))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_facts_that_a_strangers_merge_keeps_prove_nothing_of_a_solution(alpha):
    X, y = problem(12, 3)
    engine, wanted = spread_over(X, y, 2), LeastSquares(alpha)
    best, own = train(engine, auto(), problem=wanted).w, normal_equations()
    method, told = Method("mine", own.task, Boastful(own.merge), wanted), []
    train(engine, method, problem=wanted, n_rounds=20, on_round=told.append)
    assert any(1e-4 < np.linalg.norm(info.w - best) < 1e-2 for info in told)
    for info in told:
        assert np.linalg.norm(info.w - best) <= info.certificate.distance * (1 + 1e-6) + 1e-12
