"""Models of every kind, and raw rows for them: every kind of column, and every meaning of scores."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from localgd import InProcess, LeastSquares, Regularised, auto, from_arrays, prepare, train
from localgd.data.probabilities import Probabilities

N = 240
KINDS = ("two", "many", "numbers", "hard", "hard of many", "calibrated", "calibrated of many")
CALIBRATED = Probabilities((0.7,), (0.3,)), Probabilities((0.7, 1.1, 0.4), (0.3, -0.2, 0.1))


@cache
def rows():
    """Numbers of unlike sizes, categories, codes of digits, a text, gaps in all of them; and a score."""
    rng = np.random.default_rng(3)
    words = ["cough", "fever", "rash"]
    columns = {
        "age": rng.normal(60, 10, N).round(1),
        "marker": rng.normal(5, 1e-4, N),
        "smoker": rng.choice(["yes", "no", "former"], N),
        "ward": rng.choice(["1", "2", "3"], N),
        "note": [" ".join(rng.choice(words, 3)) for _ in range(N)],
    }
    score = 0.1 * (columns["age"] - 60) + 1e4 * (columns["marker"] - 5) + (columns["smoker"] == "yes")
    gap = pl.Series(rng.random(N) < 0.1)
    frame = pl.DataFrame(columns).with_columns(
        pl.when(gap).then(None).otherwise(pl.col(name)).alias(name) for name in ("age", "smoker", "note")
    )
    return frame, score + 0.5 * rng.logistic(size=N)


@cache
def _trained(many, numbers, text, missing, scale):
    frame, score = rows()
    frame = frame if text else frame.drop("note")
    codes = np.digitize(score, [-1.0, 1.0]) if many else (score > 0).astype(int)
    labels = score if numbers else np.array(["low", "middle", "high"])[codes]
    tables = from_arrays(frame, labels, np.arange(N) % 3, categorical=["ward"])
    how = {"scale": scale, "missing": missing, "text": ["note"] if text else []}
    engine, recipe = prepare(InProcess(tables), classes=not numbers, **how)
    problem = LeastSquares(1.0, intercept=True) if numbers else Regularised(C=1.0, intercept=True)
    return train(engine, auto(), problem=problem).model(recipe)


def model_of(kind, *, text=False, missing="category", scale="standard", unseen="error"):
    """Return a model of a kind; the scores of some mean other things than those that it was trained for."""
    model = _trained("many" in kind, kind == "numbers", text, missing, scale)
    if kind.startswith("hard"):
        model = replace(model, probabilities=None)
    if kind.startswith("calibrated"):
        model = replace(model, probabilities=CALIBRATED["many" in kind])
    return replace(model, recipe=replace(model.recipe, unseen=unseen))


def raw(*, text=False):
    """Return the rows as they are given to a model."""
    frame, _ = rows()
    return frame if text else frame.drop("note")
