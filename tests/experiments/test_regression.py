"""Linear regression: what a cell measures, and that every check of the verdict can be overturned."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.linalg import subspace_angles

from localgd.experiments.claim import Word
from localgd.experiments.regression import ANGLED, EXPERIMENT, GAUSSIAN, angled, draw, run
from localgd.theory import projection_rate


def cell(data=ANGLED, theta_deg=60.0, n_nodes=2, local_steps=None, n_rounds=3000):
    params = {
        "data": data,
        "theta_deg": theta_deg,
        "n_nodes": n_nodes,
        "local_steps": local_steps,
        "n_rounds": n_rounds,
    }
    return [{**row, **params} for row in run(params, 0)]


@pytest.fixture(scope="module")
def frame():
    rows = [row for local_steps in (1, 10, None) for row in cell(local_steps=local_steps)]
    rows += cell(theta_deg=30.0) + cell(GAUSSIAN, None, 2, 10) + cell(GAUSSIAN, None, 2)
    return pl.DataFrame(rows, infer_schema_length=None)


def failing(frame):
    return [at for at, check in enumerate(EXPERIMENT.verdict(frame).checks) if not check.passes]


END = pl.col("round") == pl.col("rounds_run")
EXACT, THETA = pl.col("local_steps").is_null(), pl.col("theta_deg")
RATE = pl.col("rate_measured")
OVERTURNED = {
    "not solved": (0, END & EXACT & (THETA == 30), {"error": pl.lit(2e-9)}),
    "few cells compared": (1, ~EXACT, {"n_rounds": pl.lit(10)}),
    "slower": (2, EXACT & (THETA == 30), {"rate_measured": RATE**0.98}),
    "faster": (2, EXACT & (THETA == 30), {"rate_measured": RATE**1.02}),
    "slower steps": (3, pl.col("local_steps") == 1, {"rate_measured": RATE**0.98}),
    "a round worse than the bound": (4, THETA == 30, {"factor_worst": pl.col("rate_predicted") * (1 + 1e-5)}),
    "another solution": (5, THETA == 30, {"outside": pl.lit(1e-9)}),
}


def test_the_claim_holds(frame):
    assert EXPERIMENT.verdict(frame).word is Word.HOLDS


@pytest.mark.parametrize("name", OVERTURNED)
def test_each_check_is_overturned_alone(frame, name):
    at, where, values = OVERTURNED[name]
    bent = frame.with_columns(**{key: pl.when(where).then(value).otherwise(key) for key, value in values.items()})
    assert failing(bent) == [at]
    assert EXPERIMENT.verdict(bent).word is Word.FAILS


def test_cells_too_short_to_solve_do_not_pass_unseen(frame):
    assert failing(frame.with_columns(n_rounds=pl.lit(10)))[:2] == [0, 1]


def test_more_local_steps_being_slower_is_seen(frame):
    """Even where the prediction says the same."""
    ten = (pl.col("local_steps") == 10) & (pl.col("data") == ANGLED)
    rates = [pl.when(ten).then(0.999).otherwise(name).alias(name) for name in ("rate_measured", "rate_predicted")]
    assert failing(frame.with_columns(rates, n_rounds=pl.lit(100_000))) == [6]


@pytest.mark.parametrize(("theta_deg", "n_nodes"), [(20.0, 2), (60.0, 3), (90.0, 5)])
def test_row_spaces_make_the_angle_asked_for_and_the_rate_has_a_closed_form(theta_deg, n_nodes):
    blocks = angled(np.random.default_rng(1), theta_deg, n_nodes)
    smallest = np.degrees(subspace_angles(blocks[0].T, blocks[-1].T).min())
    assert smallest == pytest.approx(theta_deg, abs=1e-9)
    assert projection_rate(blocks).value == pytest.approx(1 - (1 - np.cos(np.radians(theta_deg))) / n_nodes, abs=1e-12)


def test_a_cell_of_nodes_at_right_angles_loses_half_the_error_each_round():
    rows = cell(theta_deg=90.0)
    assert [row["round"] for row in rows[:3]] == [0, 1, 2]
    for row in rows:
        assert row["error"] == pytest.approx(0.5 ** row["round"], rel=0.05)
        assert row["outside"] <= 1e-12
    assert rows[-1]["rate_predicted"] == pytest.approx(0.5)


def test_many_local_steps_have_the_rate_of_the_exact_solution():
    many, exact = (cell(local_steps=local_steps)[-1] for local_steps in (10**5, None))
    assert many["rate_predicted"] == pytest.approx(exact["rate_predicted"], rel=1e-9)
    assert many["rate_measured"] == pytest.approx(exact["rate_measured"], rel=1e-3)


def test_the_figure_draws(frame):
    assert [len(panel.lines) for panel in draw(frame)] == [3, 3, 2]
