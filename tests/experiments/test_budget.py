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
    f"η = 1/β, {STEPS} steps, 100 rounds or more": (among("auto", "steps") & (pl.col("rounds") >= 100), 1.05),
    f"η = 1/(βL), {STEPS} steps": (among("paper", "steps"), 0.35),
}


@pytest.fixture(scope="module")
def frame():
    rows = [row | params for params in cells({DATA: (1, 10, 20, 100)}, 1) for row in run(params, 0)]
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


EACH = f"each L at η = 1/β, {ROUNDS} rounds: "


def bent(frame, where, column, value):
    return frame.with_columns(pl.when(where).then(value).otherwise(pl.col(column)).alias(column))


def test_a_largest_number_that_gains_little_refutes_it(frame):
    found = refuted(bent(frame, among("auto", "rounds"), "angle_deg", 31.0 - 0.001 * pl.col("local_steps")))
    assert found == [f"η = 1/β, {ROUNDS} rounds: angle of the largest L as part of that of L = 1, largest"]


def test_an_angle_that_rises_on_the_way_to_the_largest_number_refutes_it(frame):
    found = refuted(bent(frame, among("auto", "rounds") & (pl.col("local_steps") == 20), "angle_deg", 25.0))
    assert found == [EACH + "angle as part of that of the next smaller L, largest"]


def test_a_loss_that_rises_refutes_it(frame):
    found = refuted(bent(frame, among("auto", "rounds") & (pl.col("local_steps") == 20), "loss", 0.2))
    assert found == [EACH + "training loss as part of that of the next smaller L, largest"]


@pytest.mark.parametrize("column", ["loss", "accuracy", "held_out"])
@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_number_that_is_missing_refutes_it(frame, column, value):
    found = refuted(bent(frame, among("paper", "steps"), column, pl.lit(value)))
    assert found == ["cells in which angle, loss or an accuracy is not a number"]


def test_a_cell_without_its_single_step_refutes_it(frame):
    lost = (pl.col("local_steps") == 1) & (pl.col("lr") == "paper") & (pl.col("budget") == "rounds")
    assert [what.split(":")[0] for what in refuted(frame.filter(~lost))] == [f"η = 1/(βL), {ROUNDS} rounds"]


def test_one_number_of_local_steps_alone_proves_nothing(frame):
    assert len(refuted(frame.filter(~MORE))) == len(REFUTING) + 3


def test_the_figure_can_be_drawn(frame):
    assert [len(panel.lines) for panel in EXPERIMENT.draw(frame)] == [2, 2, 2, 2]
