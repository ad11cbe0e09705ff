"""Decide, over all nodes together, what every column is: the same answer for every node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.data.files import Sheet
from localgd.data.table import Table

MISSING_NUMBERS = ("", "NA", "N/A", "nan", "NaN", "null", "?")
"""What stands for a missing value in a column of numbers written as text; in other columns only the blank does."""

_STRAY = 0.05
"""A column of text may hold this share of number-like values at nodes that hold nothing else."""


class _Tally(NamedTuple):
    present: int
    numbers: int


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


def as_numbers(column: pl.Series) -> pl.Series:
    """Return a column as Float64: null where missing or not a number, ``true``/``false`` as 1/0.

    Examples
    --------
    >>> as_numbers(pl.Series(["1.5", "True", "NA", "abc"])).to_list()
    [1.5, 1.0, None, None]
    """
    if column.dtype != pl.String:
        return column.cast(pl.Float64).fill_nan(None)
    plainly = column.cast(pl.Float64, strict=False)
    if _all_finite(plainly):  # the common case, ten times as fast
        return plainly
    plain = column.str.strip_chars()
    words = plain.str.to_lowercase()
    numbers = plain.cast(pl.Float64, strict=False).fill_nan(None)
    as_bool = pl.select(pl.when(words == "true").then(1.0).when(words == "false").then(0.0)).to_series()
    return numbers.fill_null(as_bool).rename(column.name)


def _all_finite(numbers: pl.Series) -> bool:
    return bool(np.isfinite(numbers.to_numpy()).all())


def as_text(column: pl.Series) -> pl.Series:
    """Return a column as String: null where blank, whole numbers without a decimal point.

    Examples
    --------
    >>> as_text(pl.Series([1.0, 2.5, None])).to_list(), as_text(pl.Series([" a", ""])).to_list()
    (['1', '2.5', None], ['a', None])
    """
    if column.dtype.is_numeric():
        values = [None if v is None else str(int(v)) if v == int(v) else repr(v) for v in as_numbers(column).to_list()]
        return pl.Series(column.name, values, dtype=pl.String)
    plain = column.cast(pl.String).str.strip_chars()
    return plain.set(plain == "", None)


def _present(column: pl.Series) -> pl.Series:
    """Return where a column written as text holds something."""
    plain = column.str.strip_chars()
    return plain.is_not_null() & ~plain.is_in(MISSING_NUMBERS)


def _tally(sheet: Sheet, name: str) -> _Tally:
    column = sheet.frame[name]
    dtype = column.dtype
    if not sheet.as_written:
        present = column.len() - column.null_count()
        if dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}:
            return _Tally(present, present)
        if dtype in {pl.String, pl.Categorical, pl.Enum}:
            return _Tally(present, 0)
        raise ValueError(f"{sheet.source}: column {name!r} holds {dtype}; drop it, or save it as numbers or text")
    numbers = as_numbers(column)
    if _all_finite(numbers):
        return _Tally(column.len(), column.len())
    return _Tally(int(_present(column).sum()), column.len() - numbers.null_count())


def _is_number(name: str, sheets: Sequence[Sheet]) -> bool:
    """Return whether a column holds numbers at all nodes; raise if the nodes contradict each other."""
    tallies = [_tally(sheet, name) for sheet in sheets]
    present = sum(tally.present for tally in tallies)
    numbers = sum(tally.numbers for tally in tallies)
    if numbers == present:
        return True
    pure = [s for s, t in zip(sheets, tallies, strict=True) if 0 < t.present == t.numbers]
    text = [s for s, t in zip(sheets, tallies, strict=True) if t.present > t.numbers == 0]
    if pure and text and numbers > _STRAY * present:
        raise ValueError(
            f"column {name!r} holds numbers in {pure[0].source} (node {pure[0].node_id!r}) but text in "
            f"{text[0].source} (node {text[0].node_id!r}); code it alike, or declare it categorical"
        )
    if numbers <= present / 2:
        return False
    sheet, row = next((s, row) for s in sheets if (row := _first_text(s, name)) is not None)
    raise ValueError(
        f"{sheet.place(row)}: column {name!r} holds {sheet.frame[name][row]!r} but {numbers} of {present} values are "
        "numbers; correct the value, or declare the column categorical"
    )


def _first_text(sheet: Sheet, name: str) -> int | None:
    column = sheet.frame[name]
    if column.dtype != pl.String:
        return None
    rows = (_present(column) & as_numbers(column).is_null()).arg_true()
    return int(rows[0]) if rows.len() else None


def number_column(column: pl.Series, place: Callable[[int], str]) -> pl.Series:
    """Return a column as finite Float64, null where missing.

    Parameters
    ----------
    column : polars Series
        Numbers, bools, or text that spells them.
    place : callable
        Turns a row's index into words for the error message.

    Raises
    ------
    ValueError
        If an entry is text or infinite; names row and value.
    """
    numbers = as_numbers(column)
    if _all_finite(numbers):
        return numbers
    wrong = numbers.is_infinite().fill_null(value=False)
    if column.dtype == pl.String:
        wrong |= _present(column) & numbers.is_null()
    rows = wrong.arg_true()
    if rows.len():
        row = int(rows[0])
        raise ValueError(
            f"{place(row)}: column {column.name!r} holds {column[row]!r}, no finite number; correct or blank it"
        )
    return numbers


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
    """Return every sheet's labels: whole numbers if all are, else numbers, else text or bools."""
    columns = [sheet.frame[name] for sheet in sheets]
    for sheet, column in zip(sheets, columns, strict=True):
        plain = as_text(column)
        gaps = plain.is_null() if sheet.as_written else plain.is_null() | plain.is_in(["NaN", "inf", "-inf"])
        rows = gaps.arg_true()
        if rows.len():
            raise ValueError(f"{sheet.place(int(rows[0]))}: no label in column {name!r}; fill it in or remove the row")
    if all(column.dtype == pl.Boolean for column in columns):
        return [column.to_numpy() for column in columns]
    texts = [as_text(column) for column in columns]
    numbers = [text.cast(pl.Float64, strict=False) for text in texts]
    if all(number.is_finite().fill_null(value=False).all() for number in numbers):
        whole = all((number == number.round()).all() for number in numbers)
        return [number.cast(pl.Int64 if whole else pl.Float64).to_numpy() for number in numbers]
    return [np.array(text.to_list(), dtype=np.str_) for text in texts]


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


def check_known(parameter: str, names: Collection[str], known: Sequence[str], source: str) -> None:
    """Raise a ValueError that suggests the nearest column if one of `names` is not a column."""
    for name in names:
        if name not in known:
            raise ValueError(f"{parameter}={name!r} is not a column of {source}{nearest(name, known)}")


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
    number = {name: name not in set(categorical) and _is_number(name, sheets) for name in names}
    labels = _labels(label, sheets) if label is not None else [np.zeros(0)] * len(sheets)
    return [
        Table(
            sheet.node_id,
            pl.DataFrame(
                [number_column(sheet.frame[n], sheet.place) if number[n] else as_text(sheet.frame[n]) for n in names]
            ),
            y,
            source=sheet.source,
            row_numbers=sheet.row_numbers,
        )
        for sheet, y in zip(sheets, labels, strict=True)
    ]


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
    at = {name: j for j, name in enumerate(table.names)}
    features: Any = table.features
    chosen = features[:, [at[name] for name in names]]
    return Table(table.node_id, chosen, table.labels, names, table.source, table.row_numbers)


def same_width(tables: Sequence[Table]) -> list[Table]:
    """Return svmlight tables with the columns of all of them; ``x0`` goes if no file numbers columns from 0."""
    width = max(table.features.shape[1] for table in tables)
    wide = []
    for table in tables:
        features: Any = table.features
        grown = csr_array((features.data, features.indices, features.indptr), shape=(table.n_rows, width))
        wide.append(Table(table.node_id, grown, table.labels, (), table.source, table.row_numbers))
    one_based = width > 1 and all((table.features.indices > 0).all() for table in wide)  # type: ignore[union-attr]
    names = tuple(f"x{j}" for j in range(int(one_based), width))
    return [select(table, names) for table in wide]
