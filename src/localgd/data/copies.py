"""Nodes that hold the same rows, as where a file lies in a folder twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import issparse

from localgd.data.table import Table
from localgd.errors import listing, shown

BY_CHANCE = 20
"""So few rows may be those of another node by chance."""


def copies_said(tables: Sequence[Table]) -> list[Table]:
    """Return the tables, those that hold the same rows in the same order with a note of it.

    Examples
    --------
    >>> rows, labels = np.arange(42.0).reshape(21, 2), np.arange(21) % 2
    >>> one, other, more = (Table(name, rows + (name == "Rome"), labels) for name in ("Bonn", "copy", "Rome"))
    >>> [len(table.notes) for table in copies_said([one, other, more])]
    [1, 1, 0]
    >>> copies_said([one, other])[0].notes
    ("nodes 'Bonn', 'copy' hold the same rows, and each of them counts: if one is a copy, leave it out",)
    """
    alike: dict[tuple[int, Any], list[list[Table]]] = {}
    for table in tables:
        if table.n_rows > BY_CHANCE:
            groups = alike.setdefault((table.n_rows, _first(table.features)), [])
            group = next((one for one in groups if _same(one[0], table)), None)
            if group is None:
                groups.append([table])
            else:
                group.append(table)
    notes = dict[str, tuple[str]]()
    for group in (one for groups in alike.values() for one in groups if len(one) > 1):
        names = [table.node_id for table in group]
        said = f"nodes {listing(map(shown, names))} hold the same rows, and each of them counts"
        notes |= dict.fromkeys(names, (f"{said}: if one is a copy, leave it out",))
    return [replace(t, notes=(*t.notes, *notes[t.node_id])) if t.node_id in notes else t for t in tables]


def _first(features: Any) -> Any:
    """Return what tells most rows apart, so that few are compared."""
    return features.row(0) if isinstance(features, pl.DataFrame) else float(features[[0]].sum())


def _same(one: Table, other: Table) -> bool:
    left: Any = one.features
    right: Any = other.features
    if one.names != other.names or not np.array_equal(one.labels, other.labels):
        return False
    if isinstance(left, pl.DataFrame):
        return left.equals(right)
    return bool((left != right).nnz == 0 if issparse(left) else np.array_equal(left, right))
