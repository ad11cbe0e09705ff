"""Centralized without knowing it: one cell against known answers, and a verdict that the numbers can overturn."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from localgd.experiments.centralized import EXPERIMENT, HARD_MARGIN, OURS, draw, estimators, fitted
from localgd.experiments.claim import Word
from localgd.experiments.measure import federation, pooled, stacked
from localgd.rounding import angle_deg

CELLS = [{"data": "golub", "n_rounds": 60}, {"data": "gauss-400", "n_rounds": 300}]
REFUTING = 5


@cache
def rows():
    return pl.DataFrame([{**cell, **row} for cell in CELLS for row in EXPERIMENT.run(cell, EXPERIMENT.seed(cell))])


def failed(frame):
    return [k for k, check in enumerate(EXPERIMENT.verdict(frame).checks) if not check.passes and check.limits is None]


def where(condition, column, value):
    return pl.when(condition).then(value).otherwise(pl.col(column)).alias(column)


def test_a_cell_measures_nine_models():
    golub = rows().filter(pl.col("data") == "golub")
    assert golub["model"].to_list() == [*estimators(0), OURS]
    assert golub["accuracy"].is_between(0.9, 1).all()
    hard = golub.row(by_predicate=pl.col("model") == HARD_MARGIN, named=True)
    assert hard["accuracy"] == 1
    assert hard["angle_deg"] < 0.1  # libsvm is another solver of the same problem
    ours = golub.row(by_predicate=pl.col("model") == OURS, named=True)
    assert 0 < ours["angle_deg"] <= ours["certified_deg"] < 90
    assert golub.filter(pl.col("model") != OURS)["certified_deg"].is_nan().all()


@pytest.mark.parametrize("name", ["LogisticRegression, C = 1", "RidgeClassifier"])
def test_which_class_a_row_is_given_as_does_not_matter(name):
    signed = stacked(list(federation("golub", "by_label", 5).shards.values()))
    w, warning = fitted(name, estimators(0)[name], signed)
    other, _ = fitted(name, estimators(0)[name], signed[::-1])
    assert not warning
    assert angle_deg(w, other) < 0.1


def test_a_fit_that_warns_is_recorded():
    signed = stacked(list(federation("hard").shards.values()))
    estimator = estimators(0)["LogisticRegression, C = 1e6"].set_params(max_iter=2)
    w, warning = fitted("LogisticRegression, C = 1e6", estimator, signed)
    assert warning == "ConvergenceWarning"
    assert angle_deg(w, pooled("hard").direction) > 1


def test_the_verdict_stands_within_limits():
    verdict = EXPERIMENT.verdict(rows())
    assert verdict.word is Word.LIMITED
    assert sum(check.limits is None for check in verdict.checks) == REFUTING
    assert "gauss-400" in str(verdict)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        (0, where((pl.col("model") == "SGDClassifier, hinge") & (pl.col("data") == "gauss-400"), "accuracy", 0.999)),
        (1, where((pl.col("data") == "gauss-400") & (pl.col("angle_deg") > 15), "angle_deg", 15.0)),
        (2, where(pl.col("model").str.contains("SGD|Perceptron"), "warning", pl.lit("ConvergenceWarning"))),
        (3, where(pl.col("model") == HARD_MARGIN, "angle_deg", 0.2)),
        (4, where(pl.col("model") == OURS, "angle_deg", 3 * pl.col("certified_deg"))),
    ],
)
def test_each_check_can_refute(check, change):
    assert failed(rows()) == []
    assert failed(rows().with_columns(change)) == [check]


def test_nothing_passes_on_nan():
    broken = rows().with_columns(where(pl.col("model") == OURS, "angle_deg", np.nan))
    assert failed(broken) == [4]


def test_the_figure_has_a_panel_for_each_set():
    panels = draw(rows())
    assert len(panels) == 2
    assert all(panel.lines for panel in panels)
