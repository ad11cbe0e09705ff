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


def test_fewer_than_three_values_of_l_are_no_collapse(frame):
    missing = (pl.col("kind") == "collapse") & (pl.col("local_steps") == 10) & (pl.col("factor") == SMALL)
    assert EXPERIMENT.verdict(frame.filter(~missing.fill_null(value=False))).word is Word.FAILS
