"""Columns that some nodes have and others lack, in the words of an error message."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from localgd.data.table import Table
from localgd.errors import MOST_NAMED, listing, shown


def node_of(table: Table) -> str:
    """Return where a table came from, and its node."""
    node = f" (node {table.node_id!r})"
    return table.source.removesuffix(node) + node


def differ(tables: Sequence[Table], names: Sequence[str], own: Collection[str]) -> str:
    """Return which tables have these columns, and which lack them, for an error message; no default fills their own."""
    held = {table.node_id: set(table.names) for table in tables}
    if len(tables) == 2:
        who = " and ".join(table.source for table in tables)
        only = [(one, listing(_column(name) for name in names if name in held[one.node_id])) for one in tables]
        parts = "; ".join(f"only {node_of(one)} has {own}" for one, own in only if own)
    else:
        who = f"{len(tables):,} nodes"
        groups: dict[str, list[str]] = {}
        for name in names[:MOST_NAMED]:
            groups.setdefault(_where(name, held), []).append(_column(name))
        said = [f"{', '.join(own)} {'is' if len(own) == 1 else 'are'} {where}" for where, own in groups.items()]
        said += [f"and {len(names) - MOST_NAMED:,} more columns"] if len(names) > MOST_NAMED else []
        parts = "; ".join(said)
    needed = " and ".join(shown(name) for name in names if name in own)
    ways = [f"a node without {needed} cannot take part: add or rename the column there, or leave that node's file out"]
    ways = ways if needed else ["give every node the same columns"]
    if set(names) - set(own):
        these = "the others" if needed else "them"
        fill = "fill_missing_columns=True (--fill-missing-columns)"
        ways += [f"leave {these} out with drop (--drop), or fill them with {fill}"]
    return f"the columns of {who} differ: {parts}; {'; '.join(ways) if needed else ', '.join(ways)}"


def _column(name: str) -> str:
    return shown(name) if name.strip() else "a column without a name"


def _where(name: str, held: Mapping[str, Collection[str]]) -> str:
    """Return which nodes lack a column, or which alone have it, whichever are fewer."""
    have = [shown(node) for node, columns in held.items() if name in columns]
    lack = [shown(node) for node, columns in held.items() if name not in columns]
    return f"only at {listing(have)}" if len(have) < len(lack) else f"not at {listing(lack)}"
