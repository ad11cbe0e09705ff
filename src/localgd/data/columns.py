"""Decide, over all nodes together, what every column is: the same answer for every node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import issparse

from localgd.data.table import IntArray, Table
from localgd.data.values import (
    as_numbers,
    as_text,
    finite_numbers,
    is_number_type,
    lookalike,
    not_numbers,
    spelled_labels,
)
from localgd.errors import nearest
from localgd.rounding import FloatArray

_STRAY = 0.05
"""A column of text may hold this share of number-like values at nodes that hold nothing else."""


def option(parameter: str, column: str) -> str:
    """Return how to say something about a column, in Python and on the command line.

    Examples
    --------
    >>> option("drop", "id")
    "drop=['id'] (--drop id)"
    """
    return f"{parameter}=[{column!r}] (--{parameter} {column})"


def _tally(table: Table, names: Sequence[str]) -> IntArray:
    """Return how many numbers, and how many texts, every column holds: shape (2, number of columns)."""
    columns = table.series(names)
    if table.as_written:
        numbers = as_numbers(columns)
        return np.array([(~np.isnan(numbers)).sum(axis=0), not_numbers(columns, numbers).sum(axis=0)])
    tally = np.zeros((2, len(names)), dtype=np.int64)
    for j, column in enumerate(columns):
        spelled = not is_number_type(column.dtype)
        if spelled and column.dtype not in {pl.String, pl.Categorical, pl.Enum}:
            raise ValueError(
                f"{table.source}: column {column.name!r} holds {column.dtype}; turn it into numbers or text, or drop "
                f"it with {option('drop', column.name)}"
            )
        tally[int(spelled), j] = column.len() - column.null_count()
    return tally


def _number_names(names: Sequence[str], tables: Sequence[Table]) -> frozenset[str]:
    """Return the columns that hold numbers at all nodes; raise if a column's values contradict each other."""
    tallies = np.array([_tally(table, names) for table in tables])
    texts = tallies[:, 1].sum(axis=0)
    return frozenset(
        name for j, name in enumerate(names) if texts[j] == 0 or _is_number(name, tables, tallies[:, :, j])
    )


def _is_number(name: str, tables: Sequence[Table], tallies: IntArray) -> bool:
    """Return whether a column that also holds text is meant as numbers, which raises: the text is a mistake."""
    numbers, texts = (int(total) for total in tallies.sum(axis=0))
    present = numbers + texts
    pure = [table for table, (n, t) in zip(tables, tallies, strict=True) if n and not t]
    text = [table for table, (n, t) in zip(tables, tallies, strict=True) if t and not n]
    declare = f"declare it with {option('categorical', name)}"
    if pure and text and numbers > _STRAY * present:
        raise ValueError(
            f"column {name!r} holds numbers in {pure[0].source} (node {pure[0].node_id!r}) but text in "
            f"{text[0].source} (node {text[0].node_id!r}); code it alike, or {declare}"
        )
    columns = [table.series([name])[0] for table in tables]
    texts_of = [as_text(column) for column in columns]
    if found := lookalike(texts_of):
        part, row, what = found
        raise ValueError(
            f"{tables[part].place(row)}: column {name!r} holds {texts_of[part][row]!r}, and most of its values look "
            f"like {what}, drop the column with {option('drop', name)}, or {declare}"
        )
    if numbers <= present / 2:
        return False
    for table, column in zip(tables, columns, strict=True):
        plain = [column.cast(pl.String)]
        wrong = not_numbers(plain, as_numbers(plain)).ravel()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{table.place(row)}: column {name!r} holds {column[row]!r} but {numbers} of {present} values are "
                f"numbers; correct the value or leave it blank; or, if the column is no number, {declare}"
            )
    return True


def _labels(name: str, tables: Sequence[Table]) -> list[NDArray[Any]]:
    """Return every table's labels: bools, numbers if all are, else text."""
    columns = [table.series([name])[0] for table in tables]
    texts = [as_text(column) for column in columns]
    for table, text in zip(tables, texts, strict=True):
        gaps = text.is_null() if table.as_written else text.is_null() | text.is_in(["NaN", "inf", "-inf"])
        table.refuse_gaps(gaps, f"no label in column {name!r}")
    if all(column.dtype == pl.Boolean for column in columns):
        return [column.to_numpy() for column in columns]
    return spelled_labels(texts)


def check_known(
    parameter: str, names: Collection[str], known: Sequence[str], source: str, what: str = "a column"
) -> None:
    """Raise a ValueError that suggests the nearest name if one of `names` is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{parameter}={name!r} is not {what} of {source}{nearest(name, known)}")


def alike(
    tables: Sequence[Table],
    label: str | None = None,
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    weight: str | None = None,
) -> list[Table]:
    """Return tables with the same columns in the same order, less those to `drop`.

    Frames lose their `label` column to the labels, that of the `weight` to the weights, and the types of all others are
    decided over all tables together; those declared `categorical` stay text although they may look like numbers.

    Raises
    ------
    ValueError
        If columns differ or contradict each other between nodes, are unknown, or hold what they should not.
    """
    first = tables[0]
    for table in tables[1:]:
        if set(table.names) != set(first.names):
            raise ValueError(_differ(first, table))
        if issparse(table.features) != issparse(first.features):
            dense, sparse = (table, first) if issparse(first.features) else (first, table)
            raise ValueError(f"{dense.source} is dense but {sparse.source} is sparse; store all nodes alike")
    framed = isinstance(first.features, pl.DataFrame)
    if categorical and not framed:
        given = list(categorical)
        raise ValueError(
            f"categorical={given}: {first.source} holds arrays, which have none; use CSV or Parquet for it"
        )
    if weight is not None and (not framed or weight == label):
        why = "that is the label" if framed else f"{first.source} holds arrays; use CSV or Parquet for it"
        raise ValueError(f"weight={weight!r} must be a column of its own: {why}")
    asked = {"label": () if label is None else (label,), "drop": drop, "categorical": categorical}
    asked["weight"] = () if weight is None else (weight,)
    for parameter, columns in asked.items():
        check_known(parameter, columns, first.names, first.source)
    names = tuple(name for name in first.names if name not in {label, weight, *drop})
    if not framed:
        return [_selected(table, names) for table in tables]
    if not names:
        raise ValueError(f"{first.source}: no column is left for the features; drop fewer of {list(first.names[:20])}")
    numbers = _number_names([name for name in names if name not in set(categorical)], tables)
    labels = [table.labels for table in tables] if label is None else _labels(label, tables)
    weights = [table.weights if weight is None else _weights(weight, table) for table in tables]
    return [
        replace(table, features=_typed(table, names, numbers), labels=y, weights=s, as_written=False)
        for table, y, s in zip(tables, labels, weights, strict=True)
    ]


def _weights(name: str, table: Table) -> FloatArray:
    """Return the weights of a table's rows."""
    column = table.series([name])[0]
    numbers = as_numbers([column]).ravel()
    if np.isnan(numbers).any():
        row = int(np.argmax(np.isnan(numbers)))
        raise ValueError(f"{table.place(row)}: the weight in column {name!r} is {column[row]!r}; give a number")
    return numbers


def _differ(a: Table, b: Table) -> str:
    """Return how the columns of two tables differ, for an error message."""
    parts = [
        f"only {one.source} (node {one.node_id!r}) has {', '.join(map(repr, only[:8]))}"
        for one, other in ((a, b), (b, a))
        if (only := sorted(set(one.names) - set(other.names)))
    ]
    return f"the columns of {a.source} and {b.source} differ: {'; '.join(parts)}; give every node the same columns"


def _typed(table: Table, names: Sequence[str], numbers: Collection[str]) -> pl.DataFrame:
    """Return a frame's columns as Float64 where they are numbers, else as String; null where missing."""
    columns = {column.name: column for column in table.series(names)}
    chosen = [columns[name] for name in names if name in numbers]
    for column, values in zip(chosen, finite_numbers(chosen, table.place).T, strict=True):
        columns[column.name] = pl.Series(column.name, values, nan_to_null=True)
    return pl.DataFrame([column if name in numbers else as_text(column) for name, column in columns.items()])


def _selected(table: Table, names: tuple[str, ...]) -> Table:
    return table if names == table.names else replace(table, features=table.columns(names), names=names)


def same_width(tables: Sequence[Table]) -> list[Table]:
    """Return svmlight tables with the columns of all of them; ``x0`` goes if no file numbers columns from 0."""
    width = max((len(table.names) for table in tables), default=0)
    arrays: list[Any] = [table.features for table in tables]
    one_based = width > 1 and all((rows.indices > 0).all() for rows in arrays)
    names = tuple(f"x{j}" for j in range(int(one_based), width))
    return [_selected(table, names) for table in tables]
