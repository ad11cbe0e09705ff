"""Columns that have numbers for names, as in svmlight files: who counts from 0 and who from 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from localgd.data.table import Table, numbered

_NOTE = "column 0 is used, and elsewhere it is not; if the others count their columns from 1, shift those"


def doubt(spans: Iterable[tuple[int, int]]) -> str:
    """Return what to say where some use column 0 and others do not, of the first and the last column of each.

    Empty where all are alike. Nobody can know whether the others count from 1.

    Raises
    ------
    ValueError
        If those others reach exactly one column further: then they do.

    Examples
    --------
    >>> doubt([(0, 7), (0, 8)]), doubt([(0, 7), (2, 7)])[:31]
    ('', 'column 0 is used, and elsewhere')
    """
    ends = [*spans]
    from_0, others = ([last for first, last in ends if (first == 0) is zero] for zero in (True, False))
    if not (from_0 and others):
        return ""
    if max(others) == max(from_0) + 1:
        raise ValueError(
            f"some number their columns from 0 to {max(from_0)}, and others never from 0, but to {max(others)}: these "
            "seem to count from 1; number all alike; where one does count from 0, an entry 0:0 in a row of it says so"
        )
    return _NOTE


def same_width(tables: Sequence[Table]) -> list[Table]:
    """Return svmlight tables with the columns of all of them; ``x0`` goes if no file numbers columns from 0."""
    width = max((len(table.names) for table in tables), default=0)
    arrays: list[Any] = [table.features for table in tables]
    spans = [(int(rows.indices.min()), int(rows.indices.max())) if rows.nnz else None for rows in arrays]
    try:
        note = doubt(span for span in spans if span is not None)
    except ValueError as error:
        said = [f"{t.source} from {s[0]} to {s[1]}" for t, s in zip(tables, spans, strict=True) if s is not None]
        raise ValueError(f"{error} ({'; '.join(said[:8])}{'; …' if len(said) > 8 else ''})") from None
    zero = [span is not None and span[0] == 0 for span in spans]
    first = int(width > 1 and not any(zero))
    names, wide = numbered(width, first), list[Table]()
    for table, rows, own in zip(tables, arrays, zero, strict=True):
        parts = rows.data, rows.indices - first, rows.indptr  # the numbers themselves are not copied
        features = csr_array(parts, shape=(rows.shape[0], len(names)))
        notes = (*table.notes, note) if note and own else table.notes
        wide.append(replace(table, features=features, names=names, notes=notes))
    return wide


def check_counted(table: Table, names: Sequence[str]) -> None:
    """Refuse rows that use a column 0 where a model with columns of these `names` counts from 1.

    Raises
    ------
    ValueError
        Names the row.

    Examples
    --------
    >>> table = Table("a", csr_array([[0.0, 1.0], [2.0, 0.0]]), np.zeros(0), numbered=True)
    >>> check_counted(table, ["x1", "x2"])
    Traceback (most recent call last):
    ValueError: the arrays given, row 2: column 0 is used, but the model counts its columns from 1; number them ...
    """
    if _used(table)[:1] == (0,) and _numbers(names)[:1] == [1]:
        rows: Any = table.features
        row = int(np.searchsorted(rows.indptr, int(np.argmax(rows.indices == 0)), side="right")) - 1
        raise ValueError(
            f"{table.place(row)}: column 0 is used, but the model counts its columns from 1; number them as in "
            "training, or take that column out"
        )


def shifted(tables: Iterable[Table], names: Sequence[str]) -> list[str]:
    """Return in a line each which rows seem to count their columns from 1 where a model counts from 0.

    They never use column 0, and reach one column further than the model, as those may that hold a column more.

    Examples
    --------
    >>> table = Table("a", csr_array([[0.0, 1.0, 2.0]]), np.zeros(0), numbered=True)
    >>> shifted([table], ["x0", "x1", "x2"]), shifted([table], ["x0", "x1"])[0][:72]
    ([], 'the arrays given: column 0 is never used, and column 2 is one further th')
    """
    own = _numbers(names)
    found = [table for table in tables if _used(table)[:1] > (0,) and own[:1] == [0] and _used(table)[1] == own[-1] + 1]
    return [
        f"{table.source}: column 0 is never used, and column {own[-1] + 1} is one further than the model has: if these "
        "rows count their columns from 1, shift them"
        for table in found
    ]


def _used(table: Table) -> tuple[int, ...]:
    """Return the first and the last column that rows use, if their columns are numbered and they use any."""
    rows = table.features
    if not table.numbered or not isinstance(rows, csr_array) or not rows.nnz:
        return ()
    return int(table.names[rows.indices.min()][1:]), int(table.names[rows.indices.max()][1:])


def _numbers(names: Sequence[str]) -> list[int]:
    return sorted(int(name[1:]) for name in names if name[:1] == "x" and name[1:].isdecimal())
