"""Modified Local-GD: what a cell measures, and that every check of the verdict can be overturned."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from localgd.experiments.claim import Word
from localgd.experiments.measure import pooled
from localgd.experiments.modified import ANCHORED, EXPERIMENT, PROXIMAL, UNANCHORED, draw, outside, run
from localgd.rounding import norm

DATA, N, PROX_ROUNDS = "gauss-400", 600, 200
PLAIN = "plain mean"


def cell(method, n_rounds, prox=None, local_steps=None):
    params = {"data": DATA, "method": method, "prox": prox, "local_steps": local_steps, "n_rounds": n_rounds}
    return [{**row, **params} for row in run(params, 0)]


def made(method, angle, prox=None, local_steps=None, n_rounds=N):
    """Rows of a made-up cell whose angle at round k is angle(k)."""
    fixed = {"data": DATA, "method": method, "prox": prox, "local_steps": local_steps, "n_rounds": n_rounds}
    anchored = method == ANCHORED
    return [
        {
            "round": k,
            "angle_deg": angle(k),
            "certified_deg": 1.5 * angle(k),
            "distance": angle(k) / 30,
            "bracket_error": -1e-3,
            "move_length": 1 / (k + 1),
            "move_bound": 2 / (k + 1) if anchored else None,
            **fixed,
        }
        for k in (1, 100, 200, 300, 600)
        if k <= n_rounds
    ]


@pytest.fixture(scope="module")
def frame():
    """What the numbers look like, without the training."""
    rows = made(ANCHORED, lambda k: 1000 / k)
    for method in UNANCHORED:
        rows += made(method, lambda _: 9.0)
    for prox in (1e-2, 1e-3):
        for local_steps in (10, 100):
            rows += made(PROXIMAL, lambda k, prox=prox: 300 * prox**0.1 / k**0.3, prox, local_steps, PROX_ROUNDS)
    return pl.DataFrame(rows, infer_schema_length=None)


def changed(frame, where, **values):
    return frame.with_columns(
        **{name: pl.when(where).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items()}
    )


def failing(frame):
    return [at for at, check in enumerate(EXPERIMENT.verdict(frame).checks) if not check.passes]


LIMIT = 9
"""Place of the check that limits the claim; those before it refute."""

IS = {name: pl.col("method") == name for name in (ANCHORED, PROXIMAL, PLAIN)}
END = pl.col("round") == pl.col("n_rounds")
ANGLE, DISTANCE = pl.col("angle_deg"), pl.col("distance")
OVERTURNED = {
    "no 1/k": (0, IS[ANCHORED] & END, {"angle_deg": ANGLE * 1.15}),
    "too fast for 1/k": (0, IS[ANCHORED] & END, {"angle_deg": ANGLE * 0.85}),
    "direction only": (1, IS[ANCHORED] & END, {"distance": DISTANCE * 1.15}),
    "not stuck": (2, IS[PLAIN] & END, {"angle_deg": ANGLE * 0.98}),
    "not another point": (3, IS[PLAIN], {"angle_deg": ANGLE * 0.5}),
    "bound broken": (4, IS[ANCHORED] & END, {"move_length": pl.col("move_length") * 2.1}),
    "bracket broken": (5, IS[PLAIN] & END, {"bracket_error": pl.lit(1e-9)}),
    "certificate broken": (6, IS[PLAIN] & END, {"certified_deg": ANGLE * 0.99}),
    "more local steps worse": (7, IS[PROXIMAL] & (pl.col("local_steps") == 100), {"angle_deg": ANGLE * 1.06}),
    "no gain from λ": (8, IS[PROXIMAL] & (pl.col("prox") == 1e-3), {"angle_deg": ANGLE * 1.2}),
}


def test_the_claim_holds_within_limits_on_what_the_theory_says(frame):
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED
    assert failing(frame) == [LIMIT]
    assert "exact projections at 5.0°" in str(verdict)


@pytest.mark.parametrize("name", OVERTURNED)
def test_each_check_is_overturned_alone(frame, name):
    at, where, values = OVERTURNED[name]
    assert failing(changed(frame, where, **values)) == [at, LIMIT]
    assert EXPERIMENT.verdict(changed(frame, where, **values)).word is Word.FAILS


def test_a_proximal_form_like_1_over_k_lifts_the_limit(frame):
    faster = {"angle_deg": 3000 * pl.col("prox") ** 0.1 / pl.col("round")}
    faster["certified_deg"] = 2 * faster["angle_deg"]
    assert EXPERIMENT.verdict(changed(frame, IS[PROXIMAL], **faster)).word is Word.HOLDS


def test_every_cell_counts(frame):
    """A missing number, or a mean of projections without its anchored twin, is no pass."""
    assert 0 in failing(changed(frame, IS[ANCHORED] & END, angle_deg=pl.lit(np.nan)))
    assert {0, 3, 4} <= set(failing(frame.filter(~IS[ANCHORED])))
    assert {2, 3} <= set(failing(frame.filter(~pl.col("method").is_in(list(UNANCHORED)))))


@pytest.mark.parametrize(("low", "high"), [(0.5, np.nan), (np.nan, 2.0)])
def test_a_bracket_with_one_end_missing_is_outside(frame, low, high):
    """Whichever end it is; Python's own `max` would keep the other."""
    error = outside(low, high, pooled(DATA))
    assert np.isnan(error)
    assert 5 in failing(changed(frame, IS[PLAIN] & END, bracket_error=pl.lit(error)))


def test_a_cell_obeys_the_identities_of_halperns_iteration():
    rows = {row["round"]: row for row in cell(ANCHORED, 40)}
    assert {1, 20, 40} <= set(rows)
    for k, row in rows.items():
        assert row["move_length"] <= 2 / (k + 1)
        assert row["move_bound"] == pytest.approx(2 / (k + 1))
        assert row["bracket_error"] <= 0
        assert np.sin(np.radians(row["angle_deg"])) <= row["distance"] * (1 + 1e-12)  # the sine is the nearest it gets
    assert rows[40]["angle_deg"] < rows[20]["angle_deg"] < rows[1]["angle_deg"]
    assert any(row["angle_deg"] <= row["certified_deg"] for row in cell(PLAIN, 100))  # NaN is no certificate


def test_the_first_round_is_half_the_mean_projection_of_0():
    """w_1 = T(0)/2, and without the anchor w_1 = T(0): same angle, other length."""
    anchored, plain = (cell(method, 2)[0] for method in (ANCHORED, PLAIN))
    assert anchored["round"] == plain["round"] == 1
    assert anchored["angle_deg"] == pytest.approx(plain["angle_deg"], rel=1e-9)
    # |c·T(0) − ŵ|² for c = 1/2 and c = 1 give the length of T(0), and with the angle they must agree.
    cosine = np.cos(np.radians(plain["angle_deg"]))
    length = 2 * anchored["distance"] ** 2 - plain["distance"] ** 2  # 1 − |T(0)|²/2, in units of |ŵ|
    length = np.sqrt(2 * (1 - length))
    assert plain["distance"] ** 2 == pytest.approx(1 - 2 * length * cosine + length**2, rel=1e-9)
    assert norm(pooled(DATA).direction) == pytest.approx(1)


def test_the_proximal_form_ends_alike_for_any_number_of_steps_once_it_is_solved():
    ends = [cell(PROXIMAL, 30, 0.1, steps)[-1] for steps in (50, 500)]
    assert ends[0]["angle_deg"] == pytest.approx(ends[1]["angle_deg"], rel=1e-6)
    assert ends[0]["move_bound"] is None


def test_the_figure_draws(frame):
    assert [len(panel.lines) for panel in draw(frame)] == [4, 2, 3, 3]
