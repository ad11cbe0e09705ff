"""Mini-batches: the numbers of a small cell, and a verdict that each of them can overturn."""

from __future__ import annotations

import polars as pl
import pytest

from common import SAME_ORDER, answer, federation
from localgd import local_gd, local_sgd, train
from localgd.experiments.claim import Word
from localgd.experiments.local_sgd import EXPERIMENT, LOCAL_STEPS, cells, run

MINI = pl.col("batch").is_not_null()
EARLY = pl.col("round") <= pl.col("rounds") / 4
ANGLE = pl.col("angle_deg")
REFUTING = {
    "largest excess of the true angle": pl.col("certified_deg") / 4,
    "fewest of the rounds shown": pl.when(pl.col("round") >= 90).then(pl.col("certified_deg")).otherwise(float("nan")),
    "largest excess of the pooled margin": pl.col("high") * 0.95,
    "largest spread": ANGLE * pl.when(MINI).then(0.97 + 0.06 * pl.col("replicate")).otherwise(1.0),
    "final mean angle": ANGLE * pl.when(MINI).then(1.1).otherwise(1.0),
    "final angle as part": ANGLE * pl.when(EARLY).then(0.75).otherwise(1.0),
}


@pytest.fixture(scope="module")
def frame():
    rows = [
        row | params for params in cells(["golub"], [(1, True)], 2, 120) for row in run(params, EXPERIMENT.seed(params))
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def refuted(frame):
    return [check.what for check in EXPERIMENT.verdict(frame).checks if check.limits is None and not check.passes]


@pytest.mark.parametrize("batch", [None, 4])
def test_a_cell_is_a_run_beside_the_pooled_answer(batch):
    rows = run({"data": "golub", "batch": batch, "replacement": False, "rounds": 15}, 5)
    method = local_sgd(local_steps=LOCAL_STEPS, batch_size=4, seed=5) if batch else local_gd(local_steps=LOCAL_STEPS)
    known = train(federation("golub"), method, n_rounds=15, reference=answer("golub").direction)
    expected = [known.history[row["round"]].true_angle_deg for row in rows]
    assert [row["angle_deg"] for row in rows] == pytest.approx(expected, rel=SAME_ORDER)
    assert all(row["low"] <= 1 <= row["high"] for row in rows)


def test_other_seeds_draw_other_batches(frame):
    ends = frame.filter(MINI, pl.col("round") == pl.col("rounds"))
    assert ends["angle_deg"].n_unique() == ends.height == 2


def test_the_claim_holds_and_says_that_it_is_slow(frame):
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED
    assert "degrees are left after 120 rounds" in str(verdict)


@pytest.mark.parametrize("about", REFUTING)
def test_each_number_can_refute_it(frame, about):
    expression = REFUTING[about]
    column = "certified_deg" if about.startswith("fewest") else expression.meta.root_names()[0]
    found = refuted(frame.with_columns(expression.alias(column)))
    assert len(found) == 1, found
    assert found[0].startswith(about)


@pytest.mark.parametrize("column", ["low", "high"])
@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_bracket_with_one_end_missing_is_no_bracket(frame, column, value):
    once = (pl.col("round") == 1) & ~MINI
    found = refuted(frame.with_columns(pl.when(once).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)))
    assert found == ["largest excess of the pooled margin over its bracket, as part of it"]


def test_nothing_measured_proves_nothing(frame):
    assert refuted(frame.with_columns(angle_deg=pl.lit(float("nan"))))


def test_the_figure_can_be_drawn(frame):
    (panel,) = EXPERIMENT.draw(frame)
    assert [line.label for line in panel.lines] == ["all rows", "1 row, with repl.", "certified"]
