"""Decide, over all nodes together, what every column is: the same answer for every node."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import issparse

from localgd.data.differ import differ, node_of, respelled
from localgd.data.gaps import Gaps, remedy
from localgd.data.spelling import plain_names
from localgd.data.table import IntArray, Table
from localgd.data.values import (
    as_days,
    as_numbers,
    as_text,
    finite_numbers,
    is_date_type,
    is_number_type,
    like_ids,
    lookalike,
    loses_digits,
    not_numbers,
    refuse_odd,
    spelled_labels,
    stand_ins,
)
from localgd.errors import cut, nearest, shown
from localgd.rounding import FloatArray

_ROW_NUMBERS = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)*|\.\.\.1")
"""What pandas calls an index when it writes it to a file, and when it reads it back, and what readr of R does."""

_STRAY = 0.05
"""A column of text may hold this share of number-like values at nodes that hold nothing else."""


_ROLES = {
    "label": "the label (--label)",
    "node": "the node (--node)",
    "weight": "the weight (--weight)",
    "drop": "dropped (--drop)",
    "dates": "a date (--dates)",
    "text": "free text (--text)",
    "categorical": "a category (--categorical)",
    "category_map": "a category (--category-map)",
}
"""What a column can be, by the parameter that says so."""


def one_role(said: Mapping[str, Collection[str]], may_lack: Collection[str] = ()) -> list[list[str]]:
    """Return the columns of each role, by its parameter; of those that rows `may_lack`, the first role counts.

    Raises
    ------
    ValueError
        If a column has two.

    Examples
    --------
    >>> one_role({"label": ["ill"], "drop": ["id", "ill"]}, may_lack=["ill"])
    [['ill'], ['id']]
    >>> one_role({"label": ["ill"], "drop": ["id", "ill"]})
    Traceback (most recent call last):
    ValueError: column 'ill' is said to be the label (--label) and dropped (--drop); keep one of them
    """
    first: dict[str, str] = {}
    left: list[list[str]] = []
    for role, names in said.items():
        own = [name for name in names if name not in first or name not in may_lack]
        for name in own:
            if (other := first.setdefault(name, role)) != role:
                both = f"{_ROLES[other]} and {_ROLES[role]}"
                raise ValueError(f"column {shown(name)} is said to be {both}; keep one of them")
        left.append(own)
    return left


def option(parameter: str, column: str) -> str:
    """Return how to say something about a column, in Python and on the command line.

    Examples
    --------
    >>> option("drop", "id")
    "drop=['id'] (--drop id)"
    """
    return f"{parameter}=[{shown(column)}] (--{parameter} {shlex.quote(cut(column))})"


def if_id(name: str) -> str:
    """Return what to do first about a column of which nearly every value is another.

    Examples
    --------
    >>> if_id("pid")
    "nearly every value is another: if it is an id, leave it out with drop=['pid'] (--drop pid); else "
    """
    return f"nearly every value is another: if it is an id, leave it out with {option('drop', name)}; else "


def _tally(table: Table, names: Sequence[str], freed: Collection[str]) -> IntArray:
    """Return how many numbers, and how many texts, every column holds: shape (2, number of columns).

    Texts that spell numbers are numbers in files without types, and in columns that are `freed` of other texts.
    """
    columns = table.series(names)
    if table.as_written:
        numbers = as_numbers(columns)
        return np.array([(~np.isnan(numbers)).sum(axis=0), not_numbers(columns, numbers).sum(axis=0)])
    tally = np.zeros((2, len(names)), dtype=np.int64)
    for j, column in enumerate(columns):
        spelled = not is_number_type(column.dtype)
        if spelled and not isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
            date = is_date_type(column.dtype)
            days = f"take it as days since 1970 with {option('dates', column.name)}" if date else ""
            what = days or "turn it into numbers or text"
            away = f"drop it with {option('drop', column.name)}"
            raise ValueError(f"{table.source}: column {column.name!r} holds {column.dtype}; {what}, or {away}")
        tally[int(spelled), j] = column.len() - column.null_count()
        if spelled and column.name in freed:
            plain = [column.cast(pl.String)]
            numbers = as_numbers(plain)
            tally[:, j] = (~np.isnan(numbers)).sum(), not_numbers(plain, numbers).sum()
    return tally


def _number_names(names: Sequence[str], tables: Sequence[Table], freed: Collection[str]) -> frozenset[str]:
    """Return the columns that hold numbers at all nodes; raise if a column's values contradict each other."""
    tallies = np.array([_tally(table, names, freed) for table in tables])
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
    split = pure and text and numbers > _STRAY * present
    suspects = text if split else tables
    texts_of = [as_text(table.series([name])[0]) for table in suspects]
    if found := lookalike(texts_of):
        part, row, what = found
        raise ValueError(
            f"{suspects[part].place(row)}: column {name!r} holds {shown(texts_of[part][row])}, and most of its values "
            f"look like {what}, drop the column with {option('drop', name)}, or {declare}"
        )
    if split:
        words = {word for text in texts_of for word in text.drop_nulls().unique()}
        none = f", or, if that stands for a missing value, say so with {remedy(*words)}" if len(words) == 1 else ""
        first = if_id(name) if like_ids([table.series([name])[0] for table in tables]) else ""
        mapped = f"--category-map {shlex.quote(cut(name))}:…=…"
        raise ValueError(
            f"column {name!r} holds numbers in {node_of(pure[0])} but text in {node_of(text[0])}; {first}code it "
            f"alike, or {declare}, and say what means the same: {mapped}{none}"
        )
    if numbers <= present / 2:
        return False
    for table in tables:
        column = table.series([name])[0]
        plain = [column.cast(pl.String)]
        wrong = not_numbers(plain, as_numbers(plain)).ravel()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{table.place(row)}: column {name!r} holds {shown(column[row])} but {numbers} of {present} values are "
                f"numbers; correct the value or leave it blank; if it stands for a missing value, say so with "
                f"{remedy(plain[0][row])}; or, if the column is no number, {declare}"
            )
    return True


def _labelled(name: str, tables: Sequence[Table]) -> list[Table]:
    """Return every table with its labels: bools, numbers if all are, else text."""
    columns = [table.series([name])[0] for table in tables]
    texts = [as_text(column) for column in columns]
    for table, text in zip(tables, texts, strict=True):
        gaps = text.is_null() if table.as_written else text.is_null() | text.is_in(["NaN", "inf", "-inf"])
        table.refuse_gaps(gaps, f"no label in column {name!r}")
    if all(column.dtype == pl.Boolean for column in columns):
        return [replace(table, labels=column.to_numpy()) for table, column in zip(tables, columns, strict=True)]
    labels = spelled_labels(texts)
    pointed = [labels[0].dtype.kind != "U" and text.str.contains(r"^[-+]?\d+\.0*$").any() for text in texts]
    notes = ["whole labels are written with a decimal point"] if len({*pointed}) == 2 else []
    return [
        replace(table, labels=y, notes=(*table.notes, *notes) if point else table.notes)
        for table, y, point in zip(tables, labels, pointed, strict=True)
    ]


def check_known(
    parameter: str, names: Collection[str], known: Sequence[str], source: str, what: str = "a column"
) -> None:
    """Raise a ValueError that suggests the nearest name if one of `names` is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{parameter}={shown(name)} is not {what} of {source}{nearest(name, known)}")


def alike(
    tables: Sequence[Table],
    label: str | None = None,
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    weight: str | None = None,
    *,
    dates: Collection[str] = (),
    fill_missing_columns: bool = False,
    may_lack: Collection[str] = (),
    gaps: Gaps = (),
) -> list[Table]:
    """Return tables with the same columns in the same order, less those to `drop` and those that number the rows.

    Frames lose their `label` column to the labels, that of the `weight` to the weights, and the types of all others are
    decided over all tables together; those declared `categorical` stay text although they may look like numbers, and
    those of `dates` become days since 1970. With
    `fill_missing_columns` a column that some frames lack is missing in all of their rows; so are values that `gaps`
    names (`localgd.data.gaps`). Of `drop`, `categorical`, `dates` and the columns of `gaps`, those that the tables
    `may_lack` are passed over where no table has them.

    Raises
    ------
    ValueError
        If columns differ or contradict each other between nodes, are unknown, have two roles, or hold what they should
        not.
    """
    first, framed = tables[0], isinstance(tables[0].features, pl.DataFrame)
    drop, categorical, dates, may_lack = map(plain_names, (drop, categorical, dates, may_lack))
    label, weight = (None if name is None else plain_names([name])[0] for name in (label, weight))
    own = [name for name in (label, weight) if name is not None]
    if (categorical or dates or gaps or fill_missing_columns) and not framed:
        given = f"categorical={list(categorical)}" if categorical else f"dates={list(dates)}" if dates else ""
        given = given or ("missing_values" if gaps else "fill_missing_columns=True")
        raise ValueError(f"{given}: {first.source} holds arrays, which have none; use CSV or Parquet for it")
    if weight is not None and not framed:
        raise ValueError(f"weight={weight!r} must be a column: {first.source} holds arrays; use CSV or Parquet for it")
    everywhere = list(dict.fromkeys(name for table in tables for name in table.names))
    absent = set(may_lack).difference(everywhere)
    roles: dict[str, Collection[str]] = {"label": [label] if label else [], "weight": [weight] if weight else []}
    roles |= {"drop": drop, "dates": dates, "categorical": categorical}
    *_, drop, dates, categorical = ([n for n in names if n not in absent] for names in one_role(roles, may_lack))
    for parameter, columns in {
        "label": [label] if label else [],
        "drop": drop,
        "categorical": categorical,
        "dates": dates,
        "missing_values": [column for column, _ in gaps if column and column not in may_lack],
    }.items():
        check_known(parameter, columns, everywhere, first.source)
    check_known("weight", own[1 if label else 0 :], everywhere, first.source)
    free = [table.blanked(gaps) for table in tables]
    freed = {name for pair in zip(tables, free, strict=True) if gaps for name in _fewer(*pair)}
    tables = [_without(table, drop, {*own, *categorical, *dates}) for table in free]
    tables = _same_columns(tables, own, fill=fill_missing_columns)
    for table in tables if framed else ():
        refuse_odd(table.series([*own, *categorical]), table.source)
    names = tuple(name for name in tables[0].names if name not in own)
    if not framed:
        return [_selected(table, names) for table in tables]
    if not names:
        raise ValueError(f"{first.source}: no column is left for the features; drop fewer of {everywhere[:20]}")
    tables = [_dated(table, dates) for table in tables]
    numbers = _number_names([name for name in names if name not in {*categorical, *dates}], tables, freed).union(dates)
    if label is not None:
        tables = _labelled(label, tables)
    weights = [table.weights if weight is None else _weights(weight, table) for table in tables]
    return [_typed(replace(table, weights=s), names, numbers) for table, s in zip(tables, weights, strict=True)]


def _fewer(before: Table, after: Table) -> list[str]:
    """Return the columns of which values were taken away."""
    pairs = zip(before.series(before.names), after.series(before.names), strict=True)
    return [old.name for old, new in pairs if new.null_count() > old.null_count()]


def _without(table: Table, drop: Collection[str], asked: Collection[str]) -> Table:
    """Return a table without the columns to drop, and without those that number its rows or hold nothing."""
    dropped = set(drop)
    left = tuple(name for name in table.names if name not in dropped)
    found = [name for name in left if name not in asked and _ROW_NUMBERS.fullmatch(name)]
    for name in left:
        if name not in asked and not name.strip():
            found += [name] if name == table.names[0] or _blank(table, name) else []
    empty = {name for name in found if not name.strip() and _blank(table, name)}
    notes = [
        "a column is left out, as it has neither a name nor a value"
        if name in empty
        else f"column {name!r} is left out, as by its name it numbers the rows"
        if name.strip()
        else "the first column is left out, as without a name it numbers the rows"
        for name in found
    ]
    kept = tuple(name for name in left if name not in found) if found else left
    return replace(_selected(table, kept), notes=(*table.notes, *notes))


def _blank(table: Table, name: str) -> bool:
    frame: Any = table.features
    return isinstance(frame, pl.DataFrame) and frame[name].null_count() == table.n_rows


def _dated(table: Table, dates: Collection[str]) -> Table:
    """Return a table whose dates are days since 1970."""
    if not dates:
        return table
    frame: Any = table.features
    columns = table.series(list(dates))
    days = [as_days(column, table.place).alias(column.name) for column in columns]
    found = [(c.name, stand_ins(c, day)) for c, day in zip(columns, days, strict=True)]
    notes = [
        f"column {name!r} holds {' and '.join(map(shown, odd))}, which seldom is a date: if it stands for a missing "
        f"value, say so with {remedy(*odd)}"
        for name, odd in found
        if odd
    ]
    return replace(table, features=frame.with_columns(days), dates=tuple(dates), notes=(*table.notes, *notes))


def _same_columns(tables: Sequence[Table], own: Collection[str], *, fill: bool) -> list[Table]:
    """Return tables, with columns of nothing for those that some lack if they are to be filled."""
    first, same = tables[0], []
    everywhere = tuple(dict.fromkeys(name for table in tables for name in table.names))
    lacks: list[list[str]] = []
    for table in tables:
        if issparse(table.features) != issparse(first.features):
            dense, sparse = (table, first) if issparse(first.features) else (first, table)
            raise ValueError(f"{dense.source} is dense but {sparse.source} is sparse; store all nodes alike")
        lacking = list[str]()
        if len(table.names) < len(everywhere):
            here = set(table.names)
            lacking = [name for name in everywhere if name not in here]
        lacks.append(lacking)
    away = dict.fromkeys(name for lacking in lacks for name in lacking)
    spelled = respelled(away, [table.names for table in tables]) if away else []  # filled, they would be two columns
    refused = {name for name in away if not fill or name in own}.union(*spelled)
    if refused:
        raise ValueError(differ(tables, [name for name in everywhere if name in refused], own))
    for table, lacking in zip(tables, lacks, strict=True):
        if not lacking:
            same.append(table)
            continue
        frame: Any = table.features
        blank = pl.lit(None, pl.String if table.as_written else pl.Null)
        frame = frame.with_columns(blank.alias(name) for name in lacking)
        said = (f"column {name!r} is not there, so its values are filled" for name in lacking)
        same.append(replace(table, features=frame, names=(), notes=(*table.notes, *said)))
    return same


def _weights(name: str, table: Table) -> FloatArray:
    """Return the weights of a table's rows."""
    column = table.series([name])[0]
    numbers = as_numbers([column]).ravel()
    if np.isnan(numbers).any():
        row = int(np.argmax(np.isnan(numbers)))
        raise ValueError(f"{table.place(row)}: the weight in column {name!r} is {shown(column[row])}; give a number")
    return numbers


def _typed(table: Table, names: Sequence[str], numbers: Collection[str]) -> Table:
    """Return a table whose columns are Float64 where they are numbers, else String; null where missing."""
    columns = {column.name: column for column in table.series(names)}
    chosen = [columns[name] for name in names if name in numbers]
    codes = {column.name: as_text(column) for column in chosen if loses_digits(column)}
    for column, values in zip(chosen, finite_numbers(chosen, table.place).T, strict=True):
        columns[column.name] = pl.Series(column.name, values, nan_to_null=True)
    frame = pl.DataFrame([column if name in numbers else as_text(column) for name, column in columns.items()])
    return replace(table, features=frame, names=(), as_written=False, codes=codes)


def _selected(table: Table, names: tuple[str, ...]) -> Table:
    if names == table.names:
        return table
    frame: Any = table.features
    framed = isinstance(frame, pl.DataFrame)
    return replace(table, features=frame.select(names) if framed else table.columns(names), names=names)
