"""Networks: one cell against an independent run, and a verdict that each number can overturn."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from localgd.experiments.claim import Word
from localgd.experiments.networks import (
    ALIKE,
    CELL,
    CONSTANT,
    DATA,
    EXPERIMENT,
    FALLING,
    LOOKS,
    N_NODES,
    OTHER_START,
    POOLED,
    STEPS,
    UNLIKE,
    dealt,
    draw,
    rows_of,
)
from verdicts import measured, refuted

UNTIL = {CONSTANT: 80.0, FALLING: 1.6}
CELLS = [
    {"data": data, "replicate": 0, "step": step, "until": until}
    for data in ("relu-10", "linear-10")
    for step, until in UNTIL.items()
]


@cache
def rows():
    return measured(EXPERIMENT, CELLS)


@pytest.mark.parametrize("data", DATA)
def test_rows_have_both_labels_and_are_dealt_alike_and_by_label(data):
    X, y, held_out, labels = rows_of(data, np.random.default_rng(3))
    assert len(X) == N_NODES * DATA[data].n_rows
    assert y.sum() == 0
    assert set(labels) == {-1.0, 1.0}
    assert held_out.shape == (len(labels), X.shape[1])
    nodes, signs = dealt(X, y, np.random.default_rng(4))
    for deal in nodes:
        np.testing.assert_array_equal(np.sort(deal.reshape(X.shape), axis=0), np.sort(X, axis=0))
    assert np.abs(signs[0].sum(axis=1)).max() < DATA[data].n_rows, "alike"
    assert np.abs(signs[1].sum(axis=1)).tolist() == [DATA[data].n_rows] * N_NODES, "a label each"


def test_a_cell_compares_at_the_same_number_of_gradient_steps():
    for step, until in UNTIL.items():
        for data in ("relu-10", "linear-10"):
            for local_steps in STEPS[step]:
                one = rows().filter(data=data, step=step, local_steps=local_steps)
                assert one["model"].to_list() == [POOLED, OTHER_START, ALIKE, UNLIKE] * LOOKS
                looks = [until * k / LOOKS for k in range(1, LOOKS + 1)]
                assert one["time"].unique().sort().to_list() == pytest.approx(looks)
                pooled = one.filter(model=POOLED)
                assert (pooled["differ_percent"] == 0).all()
                assert pooled["angle_deg"].max() < 1e-5
                assert pooled["loss"].diff().max() < 0
    assert rows().filter(model=UNLIKE)["differ_percent"].max() > 0


def test_a_cell_is_the_same_whenever_it_is_measured():
    again = measured(EXPERIMENT, CELLS[-1:])
    assert again.equals(rows().filter(**CELLS[-1]).select(again.columns), null_equal=True)


def made_up():
    """All as claimed, as if the margins were the same and the models, too."""
    last = (pl.col("time") == pl.col("time").max().over(CELL)).alias("last")
    beside = pl.when(pl.col("data").str.starts_with("linear")).then(0.2).otherwise(float("nan"))
    return rows().with_columns(
        last,
        margin=pl.lit(0.1),
        residual=pl.lit(0.05),
        differ_percent=0.1 / pl.col("time"),
        best_margin=beside,
    )


LOCAL = pl.col("model") == UNLIKE
REFUTING = {
    0: pl.when(LOCAL & (pl.col("step") == FALLING)).then(0.095).otherwise(pl.col("margin")).alias("margin"),
    1: pl.when(LOCAL & (pl.col("step") == CONSTANT)).then(0.08).otherwise(pl.col("margin")).alias("margin"),
    2: (pl.col("best_margin") / 3).alias("best_margin"),
}


def test_the_claim_can_hold():
    assert EXPERIMENT.verdict(made_up()).word is Word.HOLDS


@pytest.mark.parametrize("check", REFUTING)
def test_each_check_can_refute(check):
    assert refuted(EXPERIMENT, made_up().with_columns(REFUTING[check])) == [check]


def test_models_that_differ_are_a_limit_in_words():
    apart = pl.when(LOCAL).then(3.0).otherwise(0.1).alias("differ_percent")
    verdict = EXPERIMENT.verdict(made_up().with_columns(apart))
    assert verdict.word is Word.LIMITED
    assert "two-layer ReLU network is another model than the pooled run's" in str(verdict)
    assert "more rounds hardly mend that" in str(verdict)


def test_a_pooled_run_that_separates_nothing_proves_nothing():
    assert 0 in refuted(EXPERIMENT, made_up().with_columns(margin=pl.lit(-0.1)))


def test_the_figure_can_be_drawn():
    assert [len(panel.lines) for panel in draw(rows())] == [4, 4, 3] * 2
