"""Split one table over nodes: shuffled, by label, Dirichlet, by size, by a feature; always from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any, Protocol

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from localgd.data.columns import check_known
from localgd.data.table import IntArray, Table
from localgd.errors import check_kind, check_whole
from localgd.rounding import is_whole

_ATTEMPTS = 100


class Partitioner(Protocol):
    """A way to split n rows into `n_nodes` non-empty, disjoint index sets that cover all rows."""

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""


@dataclass(frozen=True)
class Iid:
    """Shuffle the rows, then cut: every node sees the same distribution, sizes differ by at most one."""

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""
        return list(np.array_split(rng.permutation(table.n_rows), n_nodes))


@dataclass(frozen=True)
class ByLabel:
    """Sort the rows by label, then cut: most nodes hold a single class."""

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""
        _, codes = np.unique(table.labels, return_inverse=True)
        return _sorted_blocks(codes, n_nodes, rng)


@dataclass(frozen=True)
class ByFeature:
    """Sort the rows by one column, then cut: each node holds a range of its values.

    Parameters
    ----------
    column : str
        Name of a column; missing values come last.
    """

    column: str

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""
        check_known("column", (self.column,), table.names, table.source)
        if isinstance(table.features, pl.DataFrame):
            keys = table.series([self.column])[0].rank("dense").fill_null(table.n_rows + 1).to_numpy()
        else:
            keys = csr_array(table.columns([self.column])).toarray().ravel()
        return _sorted_blocks(keys, n_nodes, rng)


@dataclass(frozen=True)
class BySize:
    """Shuffle the rows, then cut into blocks whose sizes fall as ``(k+1)^-power``; each has at least one row.

    Parameters
    ----------
    power : float, default 1.0
        Exponent, at least 0; at 0 all sizes are equal.

    Raises
    ------
    ValueError
        If `power` is negative or not finite.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        """Check the exponent."""
        if not (isfinite(self.power) and self.power >= 0):
            raise ValueError(f"power must be a finite number of at least 0, got {self.power}")

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""
        shares = np.arange(1, n_nodes + 1) ** -float(self.power)
        ends = np.round(np.cumsum(shares) / shares.sum() * (table.n_rows - n_nodes)).astype(np.int64)
        return list(np.split(rng.permutation(table.n_rows), (ends + np.arange(1, n_nodes + 1))[:-1]))


@dataclass(frozen=True)
class Dirichlet:
    """Deal every class over the nodes in proportions drawn from Dirichlet(alpha, …, alpha).

    Draws again, from the same seed, while a node is empty.

    Parameters
    ----------
    alpha : float, default 0.5
        Concentration, above 0: small for nodes with few classes, large for equal nodes.

    Raises
    ------
    ValueError
        If `alpha` is not positive and finite.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Check the concentration."""
        if not (isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha must be a finite number above 0, got {self.alpha}")

    def blocks(self, table: Table, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
        """Return the row indices of every node."""
        _, codes = np.unique(table.labels, return_inverse=True)
        for _attempt in range(_ATTEMPTS):
            node_of = np.empty(table.n_rows, dtype=np.int64)
            for code in range(codes.max() + 1):
                rows = rng.permutation(np.flatnonzero(codes == code))
                shares = np.cumsum(rng.dirichlet(np.full(n_nodes, self.alpha)))
                ends = np.round(shares[:-1] * rows.size).astype(np.int64)
                for node, block in enumerate(np.split(rows, ends)):
                    node_of[block] = node
            if np.bincount(node_of, minlength=n_nodes).all():
                return [np.flatnonzero(node_of == node) for node in range(n_nodes)]
        raise ValueError(
            f"n_nodes={n_nodes} with alpha={self.alpha} left a node without rows in each of {_ATTEMPTS} draws from "
            f"{table.n_rows} rows; take fewer nodes or a larger alpha"
        )


def _sorted_blocks(keys: Any, n_nodes: int, rng: np.random.Generator) -> list[IntArray]:
    # Shuffled before the stable sort, so that rows with equal keys are dealt by the seed, not by file order.
    shuffled = rng.permutation(len(keys))
    return list(np.array_split(shuffled[np.argsort(keys[shuffled], kind="stable")], n_nodes))


def partitioner(spec: str) -> Partitioner:
    """Return the partitioner a short text asks for, as on a command line.

    Parameters
    ----------
    spec : str
        ``iid``, ``by_label``, ``dirichlet`` or ``dirichlet:0.1``, ``by_size`` or ``by_size:2``, ``by_feature:age``.

    Raises
    ------
    ValueError
        If the text names no partitioner, or its option does not fit.

    Examples
    --------
    >>> partitioner("dirichlet:0.1"), partitioner("by_feature:age")
    (Dirichlet(alpha=0.1), ByFeature(column='age'))
    """
    name, colon, option = spec.partition(":")
    plain: dict[str, Partitioner] = {"iid": Iid(), "by_label": ByLabel(), "dirichlet": Dirichlet(), "by_size": BySize()}
    if name in plain and not colon:
        return plain[name]
    if name == "by_feature" and option:
        return ByFeature(option)
    if name in {"dirichlet", "by_size"}:
        try:
            number = float(option)
        except ValueError:
            raise ValueError(f"{spec!r}: {option!r} is not a number; write for example {name}:0.5") from None
        return Dirichlet(number) if name == "dirichlet" else BySize(number)
    near = get_close_matches(name.replace("-", "_"), [*plain, "by_feature"], n=1)
    meant = f"did you mean {near[0]!r}? Write" if near and near[0] != name else "write"
    raise ValueError(
        f"{spec!r} is no partitioner; {meant} iid, by_label, dirichlet[:alpha], by_size[:power] or by_feature:column"
    )


def partition(table: Table, how: Partitioner | str, n_nodes: int, *, seed: int = 0) -> list[Table]:
    """Split a table's rows over nodes called ``node-0``, ``node-1``, … (padded with zeros to sort by number).

    Parameters
    ----------
    table : Table
        The rows to split.
    how : Partitioner or str
        `Iid`, `ByLabel`, `Dirichlet`, `BySize`, `ByFeature`, or a text for `partitioner`.
    n_nodes : int
        Number of nodes, from 1 to the number of rows.
    seed : int, at least 0, default 0
        The same seed gives the same split.

    Returns
    -------
    list of Table
        Disjoint, together all rows, none empty; rows keep the order of the source.

    Raises
    ------
    ValueError
        If `n_nodes` is below 1 or above the number of rows, or the partitioner's own options do not fit.

    Examples
    --------
    >>> table = Table("all", np.eye(5), np.array([0, 1, 0, 1, 0]))
    >>> [(node.node_id, node.n_rows) for node in partition(table, "iid", 2)]
    [('node-0', 3), ('node-1', 2)]
    """
    check_kind("table", table, Table, "a Table")
    parts = [table.take(block, name) for name, block in dealt(table, how, n_nodes, seed=seed)]
    return [replace(part, drawn=True) for part in parts]


def dealt(table: Any, how: Partitioner | str, n_nodes: int, *, seed: int) -> list[tuple[str, IntArray]]:
    """Return the name of each node and its rows, in the order of the source; the table is one, or has what `how` needs.

    A ValueError, if the number of nodes is out of its range.
    """
    check_whole("seed", seed, 0)
    if not (is_whole(n_nodes, least=1) and n_nodes <= table.n_rows):
        raise ValueError(f"n_nodes={n_nodes!r} must be from 1 to the {table.n_rows} rows of {table.source}")
    chosen = partitioner(how) if isinstance(how, str) else how
    check_kind("how", chosen, "blocks", "a Partitioner, or a text such as 'iid'")
    blocks = chosen.blocks(table, n_nodes, np.random.default_rng(seed))
    width = len(str(n_nodes - 1))
    return [(f"node-{node:0{width}d}", np.sort(block)) for node, block in enumerate(blocks)]
