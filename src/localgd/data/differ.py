"""Columns that some nodes have and others lack, in the words of an error message."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from localgd.data.spelling import key
from localgd.data.table import Table
from localgd.errors import MOST_NAMED, listing, shown, told_apart

_BETWEEN = re.compile(r"(?<=[^\W\d_])[\s._]+|[\s._]+(?=[^\W\d_])")
"""What one program writes between words of a name, and another does not."""


def node_of(table: Table) -> str:
    """Return where a table came from, and its node."""
    node = f" (node {table.node_id!r})"
    return table.source.removesuffix(node) + node


def differ(tables: Sequence[Table], names: Sequence[str], own: Collection[str]) -> str:
    """Return which tables have these columns, and which lack them, for an error message; no default fills their own."""
    held = {table.node_id: set(table.names) for table in tables}
    if spelled := respelled(names, held.values()):
        apart = listing(" and ".join(_placed(group, held)) for group in spelled[:MOST_NAMED])
        others = [name for name in names if not any(name in group for group in spelled)]
        more = f"; {differ(tables, others, own)}" if others else ""
        return f"columns differ in spelling: {apart}; {RENAME}{more}"
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


RENAME = "rename them, so that what is one column has one name at all nodes; what are two need names less alike"
"""What to do about names that differ in spelling."""


def respelled(names: Iterable[str], held: Collection[Collection[str]] = ()) -> list[list[str]]:
    """Return the groups of names that differ in case, blanks, points and underscores only; none that a node has two of.

    Examples
    --------
    >>> respelled(["RR sys", "Krea", "rr_sys", "krea", "1.0", "10"], held=[["RR sys", "Krea"], ["rr_sys", "krea"]])
    [['RR sys', 'rr_sys'], ['Krea', 'krea']]
    >>> respelled(["Krea", "krea"], held=[["Krea"], ["Krea", "krea"]])
    []
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(_BETWEEN.sub("", name)), []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    return [group for group in several if not any(sum(name in columns for name in group) > 1 for columns in held)]


def _placed(group: Sequence[str], held: Mapping[str, Collection[str]]) -> list[str]:
    """Return names, and at which nodes each is."""
    where = [listing(shown(node) for node, columns in held.items() if name in columns) for name in group]
    return [f"{name} (at {nodes})" for name, nodes in zip(told_apart(*group), where, strict=True)]


def _column(name: str) -> str:
    return shown(name) if name.strip() else "a column without a name"


def _where(name: str, held: Mapping[str, Collection[str]]) -> str:
    """Return which nodes lack a column, or which alone have it, whichever are fewer."""
    have = [shown(node) for node, columns in held.items() if name in columns]
    lack = [shown(node) for node, columns in held.items() if name not in columns]
    return f"only at {listing(have)}" if len(have) < len(lack) else f"not at {listing(lack)}"
