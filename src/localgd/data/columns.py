"""Decide, over all nodes together, what every column is: the same answer for every node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.data.files import Sheet
from localgd.data.table import IntArray, Table
from localgd.data.values import (
    as_numbers,
    as_text,
    finite_numbers,
    is_number_type,
    lookalike,
    not_numbers,
    picked,
    spelled_labels,
)

_STRAY = 0.05
"""A column of text may hold this share of number-like values at nodes that hold nothing else."""


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``; did you mean 'x'? known are …`` for an error message about an unknown name.

    Examples
    --------
    >>> nearest("clas", ["class", "odor"])
    "; did you mean 'class'? Known are: class, odor"
    """
    near = get_close_matches(name, list(known), n=1)
    listed = ", ".join(list(known)[:20]) + (", …" if len(known) > 20 else "")
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" Known are: {listed}"


def option(parameter: str, column: str) -> str:
    """Return how to say something about a column, in Python and on the command line.

    Examples
    --------
    >>> option("drop", "id")
    "drop=['id'] (--drop id)"
    """
    return f"{parameter}=[{column!r}] (--{parameter} {column})"


def _tally(sheet: Sheet, names: Sequence[str]) -> IntArray:
    """Return how many numbers, and how many texts, every column holds: shape (2, number of columns)."""
    columns = picked(sheet.frame, names)
    if sheet.as_written:
        numbers = as_numbers(columns)
        return np.array([(~np.isnan(numbers)).sum(axis=0), not_numbers(columns, numbers).sum(axis=0)])
    tally = np.zeros((2, len(names)), dtype=np.int64)
    for j, column in enumerate(columns):
        spelled = not is_number_type(column.dtype)
        if spelled and column.dtype not in {pl.String, pl.Categorical, pl.Enum}:
            raise ValueError(
                f"{sheet.source}: column {column.name!r} holds {column.dtype}; turn it into numbers or text, or drop "
                f"it with {option('drop', column.name)}"
            )
        tally[int(spelled), j] = column.len() - column.null_count()
    return tally


def _number_names(names: Sequence[str], sheets: Sequence[Sheet]) -> frozenset[str]:
    """Return the columns that hold numbers at all nodes; raise if a column's values contradict each other."""
    tallies = np.array([_tally(sheet, names) for sheet in sheets])
    texts = tallies[:, 1].sum(axis=0)
    return frozenset(
        name for j, name in enumerate(names) if texts[j] == 0 or _is_number(name, sheets, tallies[:, :, j])
    )


def _is_number(name: str, sheets: Sequence[Sheet], tallies: IntArray) -> bool:
    """Return whether a column that also holds text is meant as numbers, which raises: the text is a mistake."""
    numbers, texts = (int(total) for total in tallies.sum(axis=0))
    present = numbers + texts
    pure = [s for s, (n, t) in zip(sheets, tallies, strict=True) if n and not t]
    text = [s for s, (n, t) in zip(sheets, tallies, strict=True) if t and not n]
    declare = f"declare it with {option('categorical', name)}"
    if pure and text and numbers > _STRAY * present:
        raise ValueError(
            f"column {name!r} holds numbers in {pure[0].source} (node {pure[0].node_id!r}) but text in "
            f"{text[0].source} (node {text[0].node_id!r}); code it alike, or {declare}"
        )
    columns = [as_text(sheet.frame[name]) for sheet in sheets]
    if found := lookalike(columns):
        raise ValueError(
            f"{sheets[found.part].place(found.row)}: column {name!r} holds {columns[found.part][found.row]!r}, and "
            f"most of its values look like {found.what}; {found.remedy}, drop the column with {option('drop', name)}, "
            f"or {declare}"
        )
    if numbers <= present / 2:
        return False
    sheet, row = next((s, row) for s in sheets if (row := _first_text(s, name)) is not None)
    raise ValueError(
        f"{sheet.place(row)}: column {name!r} holds {sheet.frame[name][row]!r} but {numbers} of {present} values are "
        f"numbers; correct the value or leave it blank; or, if the column is no number, {declare}"
    )


def _first_text(sheet: Sheet, name: str) -> int | None:
    columns = [sheet.frame[name].cast(pl.String)]
    rows = np.flatnonzero(not_numbers(columns, as_numbers(columns)))
    return int(rows[0]) if rows.size else None


def split_sheet(sheet: Sheet, node: str) -> list[Sheet]:
    """Return one sheet per entry of the node column, named by it, in sorted order, without that column.

    Raises
    ------
    ValueError
        If there is no such column, or a row has no entry in it.
    """
    check_known("node", (node,), sheet.frame.columns, sheet.source)
    names = as_text(sheet.frame[node])
    if names.null_count():
        row = int(names.is_null().arg_true()[0])
        raise ValueError(f"{sheet.place(row)}: no node in column {node!r}; fill it in or remove the row")
    parts = []
    for node_id in sorted(names.unique().to_list()):
        index = (names == node_id).to_numpy().nonzero()[0]
        source = f"{sheet.source} (node {node_id!r})"
        frame = sheet.frame.drop(node)[index]
        parts.append(Sheet(node_id, frame, source, sheet.row_numbers[index], sheet.as_written))
    return parts


def _labels(name: str, sheets: Sequence[Sheet]) -> list[NDArray[Any]]:
    """Return every sheet's labels: bools, numbers if all are, else text."""
    columns = [sheet.frame[name] for sheet in sheets]
    for sheet, column in zip(sheets, columns, strict=True):
        plain = as_text(column)
        gaps = plain.is_null() if sheet.as_written else plain.is_null() | plain.is_in(["NaN", "inf", "-inf"])
        rows = gaps.arg_true()
        if rows.len():
            raise ValueError(f"{sheet.place(int(rows[0]))}: no label in column {name!r}; fill it in or remove the row")
    if all(column.dtype == pl.Boolean for column in columns):
        return [column.to_numpy() for column in columns]
    return spelled_labels([as_text(column) for column in columns])


def _differ(a: Any, b: Any) -> str:
    """Return how the columns of two sheets or tables differ, for an error message."""
    ours, theirs = _names(a), _names(b)
    only = [sorted(set(one) - set(other)) for one, other in ((ours, theirs), (theirs, ours))]
    parts = [
        f"only {part.source} (node {part.node_id!r}) has {', '.join(map(repr, names[:8]))}"
        for part, names in zip((a, b), only, strict=True)
        if names
    ]
    return f"the columns of {a.source} and {b.source} differ: {'; '.join(parts)}; give every node the same columns"


def _names(part: Sheet | Table) -> list[str]:
    return part.frame.columns if isinstance(part, Sheet) else list(part.names)


def check_known(
    parameter: str, names: Collection[str], known: Sequence[str], source: str, what: str = "a column"
) -> None:
    """Raise a ValueError that suggests the nearest name if one of `names` is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{parameter}={name!r} is not {what} of {source}{nearest(name, known)}")


def tables_of_sheets(
    sheets: Sequence[Sheet], label: str | None, drop: Collection[str] = (), categorical: Collection[str] = ()
) -> list[Table]:
    """Return one table per sheet, with the types of all columns decided over all sheets together.

    Parameters
    ----------
    sheets : sequence of Sheet
        At least one.
    label : str or None
        The label column; None for rows without labels.
    drop : collection of str
        Columns to leave out.
    categorical : collection of str
        Columns to keep as text although they may look like numbers.

    Raises
    ------
    ValueError
        If columns differ or contradict each other between nodes, are unknown, or hold what they should not.
    """
    first = sheets[0]
    for sheet in sheets[1:]:
        if set(sheet.frame.columns) != set(first.frame.columns):
            raise ValueError(_differ(first, sheet))
    known = first.frame.columns
    check_known("label", () if label is None else (label,), known, first.source)
    check_known("drop", drop, known, first.source)
    check_known("categorical", categorical, known, first.source)
    names = [name for name in known if name != label and name not in set(drop)]
    if not names:
        raise ValueError(f"{first.source}: no column is left for the features; drop fewer of {known[:20]}")
    numbers = _number_names([name for name in names if name not in set(categorical)], sheets)
    labels = _labels(label, sheets) if label is not None else [np.zeros(0)] * len(sheets)
    return [
        Table(sheet.node_id, _typed(sheet, names, numbers), y, source=sheet.source, row_numbers=sheet.row_numbers)
        for sheet, y in zip(sheets, labels, strict=True)
    ]


def _typed(sheet: Sheet, names: Sequence[str], numbers: Collection[str]) -> pl.DataFrame:
    """Return a sheet's columns as Float64 where they are numbers, else as String; null where missing."""
    columns = {column.name: column for column in picked(sheet.frame, names)}
    chosen = [columns[name] for name in names if name in numbers]
    for column, values in zip(chosen, finite_numbers(chosen, sheet.place).T, strict=True):
        columns[column.name] = pl.Series(column.name, values, nan_to_null=True)
    return pl.DataFrame([column if name in numbers else as_text(column) for name, column in columns.items()])


def tables_alike(tables: Sequence[Table], drop: Collection[str] = ()) -> list[Table]:
    """Return tables of arrays with their columns in the same order, less those dropped.

    Raises
    ------
    ValueError
        If columns differ between nodes, one node is dense and another sparse, or a column to drop is unknown.
    """
    first = tables[0]
    for table in tables[1:]:
        if set(table.names) != set(first.names):
            raise ValueError(_differ(first, table))
        if issparse(table.features) != issparse(first.features):
            dense, sparse = (table, first) if issparse(first.features) else (first, table)
            raise ValueError(f"{dense.source} is dense but {sparse.source} is sparse; store all nodes alike")
    check_known("drop", drop, first.names, first.source)
    names = tuple(name for name in first.names if name not in set(drop))
    return [select(table, names) for table in tables]


def select(table: Table, names: tuple[str, ...]) -> Table:
    """Return a table of arrays with these columns, in this order."""
    if names == table.names:
        return table
    return replace(table, features=table.columns(names), names=names)


def same_width(tables: Sequence[Table]) -> list[Table]:
    """Return svmlight tables with the columns of all of them; ``x0`` goes if no file numbers columns from 0."""
    width = max(table.features.shape[1] for table in tables)
    wide = []
    for table in tables:
        features: Any = table.features
        grown = csr_array((features.data, features.indices, features.indptr), shape=(table.n_rows, width))
        wide.append(replace(table, features=grown, names=()))
    one_based = width > 1 and all((table.features.indices > 0).all() for table in wide)  # type: ignore[union-attr]
    names = tuple(f"x{j}" for j in range(int(one_based), width))
    return [select(table, names) for table in wide]
