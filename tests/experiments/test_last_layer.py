"""Last layer: one cell against bounds, and a verdict that the numbers can overturn."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from localgd.experiments.claim import Word
from localgd.experiments.last_layer import (
    ALONE,
    EXPERIMENT,
    FEDERATED,
    HELD_OUT,
    MODIFIED,
    POOLED,
    draw,
    embedded,
    split,
)
from verdicts import measured, refuted

pytest.importorskip("wordllama")

CELLS = [
    {"data": "sentences", "n_sentences": n, "n_rounds": rounds, "replicate": 0}
    for n, rounds in ((300, 300), (1500, 150))
]
REFUTING = 8


@cache
def rows():
    return measured(EXPERIMENT, CELLS)


def failed(frame):
    return refuted(EXPERIMENT, frame)


def changed(condition, column, value):
    return pl.when(condition).then(value).otherwise(pl.col(column)).alias(column)


def test_embeddings_have_length_one_and_a_bias():
    sites = embedded()
    assert list(sites) == ["amazon", "imdb", "yelp"]
    for signed in sites.values():
        assert signed.shape == (1000, 257)
        np.testing.assert_allclose(np.linalg.norm(signed[:, :-1], axis=1), 1, atol=1e-6)
        assert set(signed[:, -1]) == {-1.0, 1.0}


def test_held_out_sentences_are_not_trained_on():
    training, held_out = split(300, seed=5)
    assert [shard.n_rows for shard in training] == [100, 100, 100]
    assert len(held_out) == 3 * HELD_OUT
    larger, same = split(600, seed=5)
    np.testing.assert_array_equal(held_out, same)
    np.testing.assert_array_equal(training[0].rows, larger[0].rows[:100])


def test_a_cell_measures_every_head():
    one = rows().filter(pl.col("n_sentences") == 300)
    ends = one.filter(pl.col("last"))
    assert ends["head"].to_list() == [POOLED, *(ALONE + site for site in embedded()), FEDERATED, MODIFIED]
    assert ends["held_out_percent"].is_between(50, 100).all()
    assert one.filter(~pl.col("last"))["held_out_percent"].is_nan().all()  # it is the last model's
    assert ends["angle_deg"][0] == 0
    assert one["separable"].all()
    known = one.filter(pl.col("low").is_not_nan())
    assert (known["low"] <= known["margin"] * (1 + 1e-9)).all()
    assert (known["margin"] <= known["high"] * (1 + 1e-9)).all()
    many = rows().filter(pl.col("n_sentences") == 1500)
    assert not many["separable"].any()
    assert MODIFIED not in many["head"].to_list()


def test_the_verdict_stands_within_limits():
    verdict = EXPERIMENT.verdict(rows())
    assert verdict.word is Word.LIMITED
    assert sum(check.limits is None for check in verdict.checks) == REFUTING
    assert "from the pooled head, and falling" in str(verdict)
    assert "beside the pooled head" in str(verdict)


OURS, ANCHORED = (pl.col("last") & (pl.col("head") == head) for head in (FEDERATED, MODIFIED))


@pytest.mark.parametrize(
    ("check", "change"),
    [
        (0, [changed(pl.col("n_sentences") == 1500, "n_sentences", 600)]),
        (1, [changed(pl.col("separable"), "low", 1.01 * pl.col("margin"))]),
        (2, [changed(pl.col("certified_deg").is_not_nan(), "certified_deg", pl.col("certified_deg") / 10)]),
        (5, [changed(pl.col("last") & pl.col("head").str.starts_with(ALONE), "angle_deg", 15.0)]),
        (3, [changed(OURS, "held_out_percent", pl.col("held_out_percent") - 10)]),
        (6, [changed(ANCHORED, "angle_deg", 50.0), changed(ANCHORED, "certified_deg", np.nan)]),
        (7, [changed(~pl.col("last") & pl.col("separable"), "angle_deg", 0.6 * pl.col("angle_deg"))]),
        (8, [changed(OURS & ~pl.col("separable"), "angle_deg", 12.0)]),
    ],
)
def test_each_check_can_refute(check, change):
    assert failed(rows()) == []
    assert failed(rows().with_columns(change)) == [check]


def test_nothing_passes_on_nan():
    assert failed(rows().with_columns(changed(OURS, "held_out_percent", np.nan))) == [3]


def test_the_figure_has_three_panels():
    assert len(draw(rows())) == 3
