"""One number for a model: what a choice between several is made by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np

from localgd.core import Engine, Message
from localgd.errors import from_all
from localgd.evaluation.auc import ranked
from localgd.evaluation.counting import Standings
from localgd.evaluation.measures import Decision, Interval
from localgd.evaluation.names import Scoring
from localgd.evaluation.scored import ODDS
from localgd.rounding import FloatArray

OF_TWO = ("f1", "roc_auc")
"""What is about the second of two classes."""

CLOSE = 1e-9
"""Bounds on an area are brought so near to each other, if rounds of histograms can."""

MOST_ROUNDS, N_CUTS = 12, 1000


class Scores(NamedTuple):
    """What came of scoring several models on the same rows.

    Parameters
    ----------
    values : (n,) float64 array
        The score of each; NaN where it has no meaning, as an area among rows that lack a class.
    doubt : float
        How far a value may be from that of the pooled rows: half the width of the bounds on an area, else 0.
    weights : (C,) float64 array
        The weight of each class among the rows.
    """

    values: FloatArray
    doubt: float
    weights: FloatArray


def check_scoring(scoring: str, n_classes: int) -> None:
    """Refuse a name that is none, or has no meaning for so many classes."""
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring must be one of {', '.join(get_args(Scoring))}, got {scoring!r}")
    if n_classes > 2 and scoring in OF_TWO:
        of_many = {"f1": "f1_macro", "roc_auc": "roc_auc_ovr"}[scoring]
        raise ValueError(f"scoring={scoring!r} is about two classes, and there are {n_classes}; take {of_many}")


def scores(engine: Engine, models: Sequence[FloatArray], scoring: Scoring, n_classes: int) -> Scores:
    """Score models of a logistic loss, or softmax, on the rows of a federation, which have a bias column.

    Counts and losses take one round for all models. Areas are what rounds of histograms say, model by model: the middle
    of two bounds that come within `CLOSE` of each other, as soon as no two rows of unlike class share a bin.

    Parameters
    ----------
    engine : Engine
        The federation.
    models : sequence of (d,) float64 arrays
        The bias last, of each class.
    scoring : str
        What by: a name of scikit-learn's.
    n_classes : int
        How many classes there are.
    """
    extra = {ODDS: np.zeros((0, 2)), "n_classes": np.asarray(float(n_classes))}
    report = from_all(engine, Standings(len(models)), Message(0, np.concatenate(models), extra))
    tables, total = report.sums["tables"], float(report.sums["tables"][0].sum())
    weights = tables[0].sum(axis=1)
    if scoring == "neg_log_loss":
        return Scores(-report.sums["loss"] / total, 0.0, weights)
    if scoring not in ("roc_auc", "roc_auc_ovr"):
        return Scores(np.array([_decided(table, scoring) for table in tables]), 0.0, weights)
    if np.count_nonzero(weights) < n_classes:
        return Scores(np.full(len(models), np.nan), 0.0, weights)
    areas = [_area(engine, Message(0, w, {ODDS: extra[ODDS]}), 1 if n_classes == 2 else n_classes) for w in models]
    middles = np.array([(area.low + area.high) / 2 for area in areas])
    return Scores(middles, max(area.width for area in areas) / 2, weights)


def _decided(table: FloatArray, scoring: Scoring) -> float:
    weights = table.sum(axis=1)
    decision = Decision(math.nan, table, table, weights)
    if scoring == "accuracy":
        return decision.accuracy.low
    if scoring == "balanced_accuracy":
        there = weights > 0
        return float((np.diag(table)[there] / weights[there]).mean())
    found = decision.macro_f1.low if scoring == "f1_macro" else decision.f1(1).low
    return 0.0 if math.isnan(found) else found  # as scikit-learn has it where nothing is positive


def _area(engine: Engine, message: Message, n_heads: int) -> Interval:
    """Return bounds on the area under the ROC curve, for many classes on the mean of those against the rest."""
    limits = {"width": CLOSE, "n_rounds": MOST_ROUNDS, "n_cuts": N_CUTS, "min_group": 1}
    found, _ = ranked(engine, message, n_heads, **limits)  # type: ignore[arg-type]
    low, high = (float(np.mean(side)) for side in zip(*(one.area for one in found), strict=True))
    return Interval(low, high)
