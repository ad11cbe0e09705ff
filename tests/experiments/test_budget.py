"""Budgets: the numbers of a small cell, and a verdict that each of them can overturn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from common import stacked
from localgd import local_gd, train
from localgd.experiments.budget import EXPERIMENT, ROUNDS, STEPS, cells, held_out, run
from localgd.experiments.claim import Word
from localgd.experiments.measure import federation

DATA = "gauss-400-shifted"
MORE = pl.col("local_steps") > 1


def among(lr, budget):
    return (pl.col("lr") == lr) & (pl.col("budget") == budget) & MORE


REFUTING = {
    f"η = 1/(βL), {ROUNDS} rounds": (among("paper", "rounds"), 1.05),
    f"η = 1/β, {ROUNDS} rounds": (among("auto", "rounds"), 3.0),
    f"η = 1/β, {STEPS} steps, 100 rounds or more": (among("auto", "steps") & (pl.col("rounds") >= 100), 1.05),
    f"η = 1/(βL), {STEPS} steps": (among("paper", "steps"), 0.35),
}


@pytest.fixture(scope="module")
def frame():
    rows = [row | params for params in cells({DATA: (1, 10, 100)}, 1) for row in run(params, 0)]
    return pl.DataFrame(rows, infer_schema_length=None)


def refuted(frame):
    return [check.what for check in EXPERIMENT.verdict(frame).checks if check.limits is None and not check.passes]


def test_held_out_rows_and_kept_rows_are_all_rows():
    engine, _, out = held_out(DATA, 3)
    rows = np.vstack([stacked(engine.shards), out])
    assert len(out) == 60
    assert np.array_equal(np.sort(rows, axis=0), np.sort(stacked(federation(DATA).shards), axis=0))


def test_a_cell_is_a_run_on_the_kept_rows():
    (row,) = run({"data": DATA, "lr": "auto", "budget": "steps", "local_steps": 50}, 3)
    engine, direction, out = held_out(DATA, 3)
    known = train(engine, local_gd(local_steps=50), n_rounds=20, reference=direction)
    last = known.history[-1]
    assert (row["rounds"], row["angle_deg"], row["loss"]) == (20, last.true_angle_deg, last.loss)
    assert row["held_out"] == np.mean(out @ known.w > 0)


def test_one_local_step_is_the_same_at_either_step_size(frame):
    one = frame.filter(pl.col("local_steps") == 1)
    assert one.group_by("budget").agg(pl.col("angle_deg").n_unique())["angle_deg"].to_list() == [1, 1]


def test_the_claim_holds_as_long_as_there_are_many_rounds(frame):
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED
    assert "fewer than 100 rounds" in str(verdict)


@pytest.mark.parametrize("about", REFUTING)
def test_each_number_can_refute_it(frame, about):
    where, factor = REFUTING[about]
    found = refuted(frame.with_columns(angle_deg=pl.col("angle_deg") * pl.when(where).then(factor).otherwise(1.0)))
    assert len(found) == 1, found
    assert found[0].startswith(about)


def test_one_number_of_local_steps_alone_proves_nothing(frame):
    assert len(refuted(frame.filter(~MORE))) == len(REFUTING)


def test_the_figure_can_be_drawn(frame):
    assert [len(panel.lines) for panel in EXPERIMENT.draw(frame)] == [2, 2, 2]
