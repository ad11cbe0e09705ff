"""Rate law: the promised accuracy on three problems, and a verdict that follows the numbers."""

from __future__ import annotations

import polars as pl
import pytest

from localgd.experiments.claim import Word
from localgd.experiments.rate_law import EXPERIMENT, SMALL, run

REFUTING = {
    "flow against Local-GD": pl.col("flow_deg") * 1.05,
    "asymptote against flow": pl.col("asymptote_deg") * 1.03,
    "collapse": pl.when(pl.col("local_steps") == 100).then(1.03 * pl.col("angle_deg")).otherwise(pl.col("angle_deg")),
    "problems": pl.lit("rate-law").alias("data"),
}


@pytest.fixture(scope="module")
def frame():
    return pl.DataFrame([row | cell for cell in EXPERIMENT.quick for row in run(cell, 0)], infer_schema_length=None)


def test_flow_asymptote_and_collapse_are_as_close_as_promised(frame):
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED  # the theorem's own step size is outside the flow's regime, and it says so
    flow, problems, asymptote, collapse, _ = verdict.checks
    assert (flow.limit, problems.limit, asymptote.limit, collapse.limit) == (0.03, 3.0, 0.02, 0.02)
    assert all(check.passes for check in (flow, problems, asymptote, collapse))


@pytest.mark.parametrize("about", REFUTING)
def test_other_numbers_refute_it(frame, about):
    expression = REFUTING[about]
    column = "angle_deg" if about == "collapse" else expression.meta.output_name()
    spoilt = EXPERIMENT.verdict(frame.with_columns(expression.alias(column)))
    assert spoilt.word is Word.FAILS
    assert any(check.what.startswith(about) and not check.passes for check in spoilt.checks)


@pytest.mark.parametrize("spoil", ["no row", "nan", "null", "late rows gone", "another time"])
def test_a_value_of_l_that_is_not_measured_did_not_collapse(frame, spoil):
    here = ((pl.col("kind") == "collapse") & (pl.col("local_steps") == 100) & (pl.col("factor") == SMALL)).fill_null(
        value=False
    )
    angle, time, late = pl.col("angle_deg"), pl.col("time"), here & (pl.col("round") > 100)
    spoilt = {
        "no row": frame.filter(~here),
        "nan": frame.with_columns(angle_deg=pl.when(here).then(float("nan")).otherwise(angle)),
        "null": frame.with_columns(angle_deg=pl.when(here).then(None).otherwise(angle)),
        "late rows gone": frame.filter(~late),
        "another time": frame.with_columns(time=pl.when(here).then(10 * time).otherwise(time)),
    }
    assert EXPERIMENT.verdict(spoilt[spoil]).word is Word.FAILS
