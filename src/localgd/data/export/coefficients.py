"""Coefficients on the scale of the rows as given: the preparation undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from localgd.data.encodings import Category, Encoding, Number
from localgd.rounding import FloatArray

if TYPE_CHECKING:
    from localgd.data.model import Model

INTERCEPT = "(intercept)"


def of_rows(model: Model) -> tuple[FloatArray, FloatArray]:
    """Return coefficients (C, d) and intercepts (C,) for rows as they are given, one row for two classes or numbers.

    A number x became (x − center)/scale, so its coefficient c becomes c/scale, and c·center/scale leaves the intercept.
    """
    coef, intercept = np.atleast_2d(model.coef), np.atleast_1d(np.asarray(model.intercept, dtype=np.float64))
    if model.recipe is None:
        return coef, intercept
    center, scale = np.zeros(coef.shape[1]), np.ones(coef.shape[1])
    for place, number in numbers_of(model.recipe.columns):
        center[place], scale[place] = number.center, number.scale
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float64 is infinite
        return coef / scale, intercept - coef @ (center / scale)


def numbers_of(columns: tuple[Encoding, ...]) -> list[tuple[int, Number]]:
    """Return the columns of numbers, each with its place among the prepared ones."""
    starts = np.cumsum([0, *(len(column.feature_names) for column in columns)])
    return [(int(at), column) for at, column in zip(starts, columns, strict=False) if isinstance(column, Number)]


def coefficients(model: Model) -> pl.DataFrame:
    """Return one row per coefficient, the intercept first: see `Model.coefficients`."""
    coef, intercept = of_rows(model)
    columns, levels = zip((INTERCEPT, None), *_names(model), strict=True)
    per_sd = np.full(coef.shape, np.nan)
    for place, number in numbers_of(() if model.recipe is None else model.recipe.columns):
        if (number.center, number.scale) != (0.0, 1.0):  # else nobody measured how far the column spreads
            per_sd[:, place] = np.atleast_2d(model.coef)[:, place]
    classes = model.classes or ()
    parts = []
    for one, part in enumerate(coef):
        values = np.append(intercept[one], part)
        spread = np.append(np.nan, per_sd[one])
        frame = {"column": columns, "level": levels, "coefficient": values, "per_sd": spread}
        if (slope := _slope(model)) is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # of a separating model they may be beyond float64
                frame["odds_ratio"] = np.exp(slope * values)
        named = {"class": [str(classes[one]) if classes else str(one)] * values.size} if len(coef) > 1 else {}
        parts.append(pl.DataFrame({**named, **frame}, schema_overrides={"level": pl.String}, nan_to_null=True))
    return pl.concat(parts)


def _names(model: Model) -> list[tuple[str, str | None]]:
    """Return column and level of every coefficient."""
    if model.recipe is None:
        given = model.names or tuple(f"x{place}" for place in range(model.coef.shape[-1]))
        return [(name, None) for name in given]
    found: list[tuple[str, str | None]] = []
    for column in model.recipe.columns:
        match column:
            case Number():
                found.append((column.name, None))
            case Category():
                found += [(column.name, level) for level in column.levels]
            case _:
                found += [(column.name, word) for word in column.vocabulary]
    return found


def _slope(model: Model) -> float | None:
    """Return what a score is times to be log-odds; None where it is none."""
    likely: Any = model.probabilities
    if likely is None:
        return None
    if not likely.slope:
        return 1.0
    return likely.slope[0] if len(likely.slope) == 1 else None  # each against the rest: divided by their sum
