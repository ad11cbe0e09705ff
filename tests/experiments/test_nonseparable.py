"""Rows that cannot be separated: one cell against the first-order law, and a verdict that the numbers can overturn."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from localgd.experiments.claim import Word
from localgd.experiments.measure import pooled_minimiser
from localgd.experiments.nonseparable import EXPERIMENT, FULL, QUICK, draw, gaussian_nodes, mean_loss, nodes_of
from verdicts import measured, refuted

SMALL = {"data": "unlike-gauss", "noise": 0.1, "replicate": 0, "alike": False, "start": "minimiser"}
CELLS = [
    SMALL | {"local_steps": 1, "factor": 1.0, "n_rounds": 600, "start": "zero"},
    SMALL | {"local_steps": 10, "factor": 0.03, "n_rounds": 2000},
    SMALL | {"local_steps": 10, "factor": 0.05, "n_rounds": 1200},
    SMALL | {"local_steps": 10, "factor": 0.05, "n_rounds": 1200, "alike": True},
    SMALL | {"local_steps": 10, "factor": 0.05, "n_rounds": 2000, "start": "zero"},
    SMALL | {"local_steps": 100, "factor": 1.0, "n_rounds": 50},
]
REFUTING = 7


@cache
def rows():
    return measured(EXPERIMENT, CELLS)


def failed(frame):
    return refuted(EXPERIMENT, frame)


def scaled(condition, column, factor):
    return pl.when(condition).then(factor * pl.col(column)).otherwise(pl.col(column)).alias(column)


MORE, WALKED = pl.col("local_steps") == 10, ~pl.col("alike") & (pl.col("start") == "minimiser")


def test_a_cell_stops_where_first_order_says():
    one, three, five = rows().head(3).iter_rows(named=True)
    assert one["drift"] == 0
    assert one["predicted"] == 0
    assert three["predicted"] * 5 == pytest.approx(five["predicted"] * 3)
    for row in (three, five):
        assert row["distance"] == pytest.approx(row["predicted"], rel=row["first_order_error"])
        assert row["excess"] > 0


def test_the_minimiser_is_where_the_loss_is_lowest():
    shards = gaussian_nodes(0.1, 3)
    best, rng = pooled_minimiser(shards), np.random.default_rng(0)
    lowest = mean_loss(shards, best)
    assert all(mean_loss(shards, best + 1e-3 * rng.standard_normal(best.size)) > lowest for _ in range(20))


def test_dealing_anew_keeps_the_rows():
    cell = CELLS[3]
    own, alike = nodes_of(cell | {"alike": False}, 1), nodes_of(cell, 1)
    together = [np.vstack([shard.rows for shard in shards]) for shards in (own, alike)]
    assert not np.array_equal(*together)
    np.testing.assert_array_equal(*(part[np.lexsort(part.T)] for part in together))


def test_every_quick_cell_is_a_full_one():
    assert all(cell in FULL for cell in QUICK)


def test_the_verdict_stands_within_limits():
    verdict = EXPERIMENT.verdict(rows())
    assert verdict.word is Word.LIMITED
    assert sum(check.limits is None for check in verdict.checks) == REFUTING
    assert "small ηL" in str(verdict)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        (0, pl.when(pl.col("local_steps") == 1).then(0.01).otherwise(pl.col("distance")).alias("distance")),
        (1, pl.when(MORE).then(0.06 * pl.col("distance")).otherwise(pl.col("unsettled")).alias("unsettled")),
        (2, scaled(MORE, "first_order_error", 10)),
        (3, scaled(MORE & (pl.col("factor") == 0.03), "distance", 1.15)),
        (4, scaled(MORE & (pl.col("factor") == 0.03), "excess", 1.3)),
        (5, scaled(pl.col("alike"), "distance", 5)),
        (6, scaled(~WALKED & ~pl.col("alike") & MORE, "distance", 1.02)),
    ],
)
def test_each_check_can_refute(check, change):
    assert failed(rows()) == []
    assert failed(rows().with_columns(change)) == [check]


def test_nothing_passes_on_nan():
    broken = rows().with_columns(scaled(pl.col("alike"), "distance", np.nan))
    assert 5 in failed(broken)


def test_a_drift_that_is_not_a_number_stays_among_the_small_ones():
    broken = rows().with_columns(scaled(MORE & WALKED & (pl.col("factor") == 0.03), "drift", np.nan))
    assert failed(broken) == [3, 4]
    assert failed(broken.with_columns(pl.col("drift").fill_nan(None))) == [3, 4]


@pytest.mark.parametrize("excess", [0.0, -1e-9])
def test_a_loss_below_its_minimum_refutes_it(excess):
    where = MORE & WALKED & (pl.col("factor") == 0.03)
    assert failed(rows().with_columns(pl.when(where).then(excess).otherwise("excess").alias("excess"))) == [4]


def test_data_with_one_point_has_no_slope():
    assert failed(rows().filter(pl.col("factor") != 0.03)) == [3, 4]


def test_a_pair_without_its_other_half_refutes_it():
    assert {5, 6} <= set(failed(rows().filter(~(MORE & WALKED & (pl.col("factor") == 0.05)))))


def test_every_line_of_the_figure_has_a_name_of_its_own():
    for panel in draw(rows()):
        labels = [line.label for line in panel.lines]
        assert len(set(labels)) == len(labels)


def test_the_figure_shows_distance_and_loss():
    assert [panel.log_y for panel in draw(rows())] == [True, True]
