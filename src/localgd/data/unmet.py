"""Values that training never met, in columns of categories or such as were empty: read as none, in how many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from localgd.core import CountKey, Engine, Field, Message, Report, Schema
from localgd.data.encodings import Category
from localgd.data.gaps import Gaps
from localgd.data.recipe import Recipe
from localgd.data.survey import tallies
from localgd.data.table import Table
from localgd.errors import from_all

ByColumn: TypeAlias = "Mapping[str, Mapping[str, int | None]]"
"""Rows by node and column; None for some, but too few to be told."""


@dataclass(frozen=True)
class Unmet:
    """Tell in how many rows each column holds a value that is none of its categories; of no value, which it is.

    So is any value of a column that training left out, as it was `empty`. Tallies ``unmet`` by node and column, and
    ``few`` in place of a number below `min_group`.
    """

    columns: tuple[Category, ...]
    min_group: int = 1
    gaps: Gaps = ()
    empty: tuple[str, ...] = ()

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the tallies."""
        return dict.fromkeys(("unmet", "few"), Field("count"))

    def run(self, message: Message, shard: Table, state: None) -> tuple[Report, None]:  # noqa: ARG002
        """Return the node's tallies."""
        shard, counts = shard.blanked(self.gaps), dict[CountKey, int]()
        frame = shard.features
        held = set(shard.names) if isinstance(frame, pl.DataFrame) else set()
        met_nowhere = {
            column.name: int(column.codes(shard.series([column.name])[0], shard)[1].sum())
            for column in self.columns
            if column.name in held  # what reads the rows has words for others
        }
        values = shard.series([name for name in self.empty if name in held])
        met_nowhere |= {column.name: column.len() - column.null_count() for column in values}
        for name, n_rows in met_nowhere.items():
            if n_rows >= self.min_group:
                counts["unmet", shard.node_id, name] = n_rows
            elif n_rows:
                counts["few", shard.node_id, name] = 1
        return Report(1, shard.n_rows, counts=counts), None


def unmet(engine: Engine, recipe: Recipe | None, min_group: int = 1) -> dict[str, dict[str, int | None]]:
    """Return in how many rows of each node, by column, is a value that a recipe does not know: a round, if any may be.

    Parameters
    ----------
    engine : Engine
        Its nodes hold `Table`s.
    recipe : Recipe or None
        What training learned; None of rows that were prepared elsewhere, of which nothing can be told.
    min_group : int, at least 1
        Fewer rows than this are not told, but that there are some: None.

    Examples
    --------
    >>> from localgd import InProcess, from_arrays, prepare
    >>> wards = [pl.DataFrame({"ward": ward}) for ward in (["a", "b"], ["a", "c"])]
    >>> _, recipe = prepare(InProcess(from_arrays(wards[0], [0, 1])))
    >>> unmet(InProcess(from_arrays(wards[1], [0, 1])), recipe), unmet(InProcess(from_arrays(wards[0], [0, 1])), recipe)
    ({'node-0': {'ward': 1}}, {})
    """
    columns = () if recipe is None else tuple(column for column in recipe.columns if isinstance(column, Category))
    gaps, empty = ((), ()) if recipe is None else (recipe.gaps, recipe.empty)
    if not (columns or empty):
        return {}
    report = from_all(engine, Unmet(columns, min_group, gaps, empty), Message())
    found: dict[str, dict[str, int | None]] = {}
    for what in ("unmet", "few"):
        for (node, column), n_rows in tallies(report, what):
            found.setdefault(node, {})[column] = n_rows if what == "unmet" else None
    return found


def together(parts: Sequence[ByColumn]) -> dict[str, dict[str, int | None]]:
    """Return what several parts of the rows make in all: some where some part has some.

    Examples
    --------
    >>> together([{"north": {"ward": 3, "bed": 5}}, {"north": {"ward": 4, "bed": None}}])
    {'north': {'ward': 7, 'bed': None}}
    """
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        for node, by_column in part.items():
            own = found.setdefault(node, {})
            for column, n_rows in by_column.items():
                before = own.get(column, 0)
                own[column] = None if before is None or n_rows is None else before + n_rows
    return found
