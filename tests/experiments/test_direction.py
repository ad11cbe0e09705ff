"""Direction: the numbers of a small cell, and a verdict that follows them."""

from __future__ import annotations

import polars as pl
import pytest

from common import answer, federation
from localgd import local_gd, train
from localgd.experiments.claim import Word
from localgd.experiments.direction import EXPERIMENT, run

AUTO = pl.col("lr") == "auto"
REFUTING = {
    "theorem's step size: distance": pl.col("flow_deg") * 1.2,
    "any step size": pl.when(AUTO).then(2 * pl.col("angle_deg")).otherwise(pl.col("angle_deg")),
    "angle of that flow": pl.col("flow_later_deg") * 1.5,
    "last loss": pl.when(AUTO).then(3 * pl.col("loss_over_bound")).otherwise(pl.col("loss_over_bound")),
    "exponential loss": pl.col("loss_over_bound") * 1.3,
    "true minus certified": pl.lit(1.0).alias("certified_deg"),
    "share of the runs": pl.lit(180.0).alias("certified_deg"),
}
COLUMN = {"any step size": "angle_deg", "last loss": "loss_over_bound"}


@pytest.fixture(scope="module")
def frame():
    cells = [params for params in EXPERIMENT.quick if params["local_steps"] <= 10]
    return pl.DataFrame([row | params for params in cells for row in run(params, 0)], infer_schema_length=None)


def test_a_cell_is_a_run_beside_the_flow():
    params = {"data": "rate-law", "loss": "exponential", "lr": "paper", "local_steps": 10, "n_rounds": 20}
    rows = run(params, 0)
    method = local_gd(local_steps=10, lr="paper", loss="exponential")
    known = train(federation("rate-law"), method, n_rounds=20, reference=answer("rate-law").direction)
    assert [row["angle_deg"] for row in rows] == [known.history[row["round"]].true_angle_deg for row in rows]
    assert all(abs(row["flow_deg"] / row["angle_deg"] - 1) < 0.1 for row in rows)
    assert all(row["loss_value"] <= 1 for row in rows)


def test_the_claim_holds_and_says_that_it_is_slow(frame):
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED
    assert "1/log is slow" in str(verdict)


@pytest.mark.parametrize("about", REFUTING)
def test_other_numbers_refute_it(frame, about):
    expression = REFUTING[about]
    column = COLUMN.get(about) or expression.meta.output_name()
    spoilt = EXPERIMENT.verdict(frame.with_columns(expression.alias(column)))
    assert spoilt.word is Word.FAILS
    assert any(check.what.startswith(about) and not check.passes for check in spoilt.checks)


def test_the_figure_can_be_drawn(frame):
    assert len(EXPERIMENT.draw(frame)) == 6
