"""Step sizes by round: the field's own schedules, a round with each, and where they leave no step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common import SCHEDULES, random_rows, with_bias
from localgd import InProcess, Message, Regularised, Status, local_gd, train
from localgd.rules.local import GradientSteps
from localgd.rules.schedule import LEAST, factor


def test_schedules_are_the_fields_own():
    torch = pytest.importorskip("torch")
    held = [torch.nn.Parameter(torch.zeros(1))]
    optimiser = torch.optim.SGD(held, lr=1.0)
    kinds = torch.optim.lr_scheduler
    for name, make in (
        ("step:3", lambda it: kinds.StepLR(it, 3)),
        ("step:2:0.7", lambda it: kinds.StepLR(it, 2, 0.7)),
        ("cosine:9", lambda it: kinds.CosineAnnealingLR(it, 9)),
        ("cosine:9:0.2", lambda it: kinds.CosineAnnealingLR(it, 9, 0.2)),
        ("inverse-sqrt", lambda it: kinds.LambdaLR(it, lambda j: (j + 1) ** -0.5)),
        ("inverse-time", lambda it: kinds.LambdaLR(it, lambda j: 1 / (j + 1))),
    ):
        optimiser = torch.optim.SGD(held, lr=1.0)
        scheduler = make(optimiser)
        for k in range(9):
            assert factor(name, k) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
            optimiser.step()
            scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_begins_at_1_never_grows_and_never_ends_at_0(schedule):
    factors = [factor(schedule, k) for k in (*range(20), 10_000)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] >= LEAST > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scheduled_round_is_a_round_with_that_step_size(schedule):
    engine, task = InProcess(random_rows(6)), GradientSteps(local_steps=5, lr=0.3, lr_schedule=schedule)
    for k in (0, 4):
        plain = replace(task, lr=0.3 * factor(schedule, k), lr_schedule="constant")
        one, other = (engine.round(its, Message(k, np.ones(5))) for its in (task, plain))
        np.testing.assert_array_equal(one.duals["update"].vector, other.duals["update"].vector)


@pytest.mark.parametrize(("schedule", "last"), [("cosine:10", 10), ("step:1:0.01", 16)])
@pytest.mark.parametrize("problem", [None, Regularised(C=1.0)])
def test_a_run_ends_where_its_schedule_leaves_no_step(schedule, last, problem):
    shards, method = with_bias(random_rows(5), noise=0.1), local_gd(local_steps=3, lr_schedule=schedule)
    cut = train(InProcess(shards), method, problem=problem, n_rounds=last)
    run = train(InProcess(shards), method, problem=problem, n_rounds=100)
    assert run.n_rounds == last
    assert not run.unfinished
    np.testing.assert_array_equal(run.w, cut.w)
    assert f"it ended, as lr_schedule='{schedule}' leaves no step after round {last}" in run.certificate.status


def test_a_schedule_that_ends_above_0_runs_on():
    assert train(InProcess(random_rows(5)), local_gd(lr_schedule="cosine:2:0.1"), n_rounds=5).n_rounds == 5


def test_a_late_direction_of_rows_that_no_plane_separates_says_that_it_is_no_model():
    engine = InProcess(with_bias(random_rows(5), noise=0.1))
    late, plain = (train(engine, method, n_rounds=30).certificate for method in (local_gd().late(), local_gd()))
    assert late.verdict in (Status.UNDECIDED, Status.CANCELS)
    assert "the late direction is handed out, no model where no plane separates the rows" in late.status
    assert "late" not in plain.status
