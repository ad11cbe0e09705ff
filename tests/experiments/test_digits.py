"""Digits: what ranks are dealt, a small cell on real ranks, and a verdict that each number can overturn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from engines.ranks import in_ranks
from localgd.experiments.claim import Word
from localgd.experiments.digits import EXPERIMENT, draw, run
from localgd.experiments.digits_setting import (
    AVERAGE,
    BY_LABEL,
    DILOCO,
    FEW,
    IID,
    LOCAL_STEPS,
    LRS,
    MIDDLE,
    OTHER_BATCHES,
    SLOWMO,
    SPLITS,
    SYNCHRONOUS,
    TEST,
    TUNING,
    WORLD,
    digits,
)
from verdicts import refuted


def test_the_digits_are_dealt_alike_and_by_label_and_none_is_used_twice():
    deals = {split: digits(split, seed=7) for split in SPLITS}
    for held in deals.values():
        images = np.concatenate([*held.x, held.x_tuning, held.x_test]).reshape(-1, 64)
        assert {len(part) for part in held.x} == {(1797 - TEST - TUNING) // WORLD}
        assert len(images) <= 1797
        rows = {image.tobytes() for image in images}
        assert len(rows) == len(images)
    assert np.array_equal(deals[IID].x_test, deals[BY_LABEL].x_test)
    assert min(len(np.unique(labels)) for labels in deals[IID].y) == 10
    assert max(len(np.unique(labels)) for labels in deals[BY_LABEL].y) <= 4


def made_up(**changes):
    """All as claimed: means over nodes that predict as one."""
    kinds = {SYNCHRONOUS: [1], OTHER_BATCHES: [1], FEW: [1], AVERAGE: LOCAL_STEPS, SLOWMO: [MIDDLE], DILOCO: [MIDDLE]}
    found = []
    for split in SPLITS:
        for method, steps in kinds.items():
            for local_steps in steps:
                row = {"split": split, "method": method, "local_steps": local_steps, "replicate": 0, "step": 200}
                row |= {"last": True, "syncs": 200 // local_steps, "megabytes": 10 / local_steps, "lr": LRS[1]}
                row |= {"drift": 0.1, "right_percent": 80.0 if method == FEW else 98.0, "differ_percent": 1.0}
                found.append(row | {"differ_percent": 2.0} if method == OTHER_BATCHES else row)
    return pl.DataFrame(found).with_columns(**changes)


def where(split, method, value, column):
    return pl.when(pl.col("split") == split, pl.col("method") == method).then(value).otherwise(pl.col(column))


def test_the_claim_can_hold():
    assert EXPERIMENT.verdict(made_up()).word is Word.HOLDS


@pytest.mark.parametrize(
    ("check", "split", "method", "column", "value"),
    [
        (0, IID, AVERAGE, "right_percent", 96.0),
        (1, BY_LABEL, FEW, "right_percent", 98.5),
    ],
)
def test_each_check_can_refute(check, split, method, column, value):
    frame = made_up()
    assert refuted(EXPERIMENT, frame.with_columns(where(split, method, value, column).alias(column))) == [check]


def test_other_deals_and_outer_steps_are_limits_in_words():
    frame = made_up(differ_percent=where(BY_LABEL, AVERAGE, 9.0, "differ_percent"))
    frame = frame.with_columns(right_percent=where(BY_LABEL, SLOWMO, 90.0, "right_percent"))
    verdict = EXPERIMENT.verdict(frame)
    assert verdict.word is Word.LIMITED
    assert "it labels 9.0 % (L = 5), 9.0 % (L = 20), 9.0 % (L = 100) of the test digits otherwise" in str(verdict)
    assert "−8.0 (SlowMo, nodes by label)" in str(verdict)


def test_the_figure_can_be_drawn():
    assert len(draw(made_up())) == 4


def test_a_cell_has_every_method_beside_synchronous_training():
    pytest.importorskip("torch")
    frame = pl.DataFrame(run({"split": IID, "steps": 20}, seed=3))
    ends = frame.filter("last")
    assert ends["method"].to_list() == [SYNCHRONOUS, OTHER_BATCHES, FEW, AVERAGE, SLOWMO, DILOCO]
    assert ends["syncs"].to_list() == [20, 20, 1, 4, 1, 1]
    assert (frame.filter(method=SYNCHRONOUS)["differ_percent"] == 0).all()
    assert ends["megabytes"].to_list() == pytest.approx([2 * 4 * 1898e-6 * n for n in ends["syncs"]])
    assert set(frame["lr"]) <= set(LRS)
    assert (frame.filter(pl.col("local_steps") > 1)["drift"] > 0).all()


@pytest.mark.processes
def test_nodes_train_as_the_ranks_of_local_sgd_do():
    pytest.importorskip("torch")
    ended = in_ranks(WORLD, ["tests/experiments/each_rank_digits.py"], seconds=400)
    assert [rank.code for rank in ended] == [0] * WORLD, ended[0].output
