"""Rows that a node sets aside: chosen by a keyed hash of its name and their numbers, so they are always the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localgd.core import Engine
from localgd.data.prepare import AnyEngine
from localgd.data.spelling import plain_label
from localgd.data.table import IntArray, Table
from localgd.errors import check_flag, check_kind, check_whole
from localgd.rounding import is_number


class Shuffled(NamedTuple):
    """The rows of a node in an order of chance, the rows of each class by themselves.

    Parameters
    ----------
    codes : (n,) int array
        The class of each row as the node spells it: 0, 1, …
    counts : (n,) bool array
        Whether the row has a weight above 0; one that has none is as good as not there.
    ranks : (n,) int array
        The place of each row among those of its class that count, or do not, 0, 1, …
    offsets : (n,) float64 array in [0, 1)
        A number of chance for its class at this node: what rounding leaves over is spread over nodes by it.
    """

    codes: NDArray[np.intp]
    counts: NDArray[np.bool_]
    ranks: IntArray
    offsets: NDArray[np.float64]


def shuffled(table: Table, seed: int, *, classes: bool = True) -> Shuffled:
    """Return the rows of a node in an order that follows from seed, node and row numbers alone.

    Examples
    --------
    >>> table = Table("a", np.eye(4), np.array(["no", "no", "yes", "no"]))
    >>> found = shuffled(table, seed=0)
    >>> found.codes.tolist(), found.ranks.tolist()
    ([0, 0, 1, 0], [1, 2, 0, 0])
    """
    key = blake2b(table.node_id.encode("utf-8", "surrogatepass"), key=f"{seed}".encode()[:64]).digest()
    numbers: Any = table.row_numbers
    labels = table.labels if classes and table.labels.size else np.zeros(table.n_rows)
    values, codes = np.unique(labels, return_inverse=True)
    counts = np.ones(table.n_rows, dtype=np.bool_) if table.weights is None else table.weights > 0
    strata = 2 * codes + counts
    order = np.lexsort((_mixed(numbers.astype(np.uint64), int.from_bytes(key[:8], "little")), strata))
    sizes = np.bincount(strata)
    ranks = np.empty(table.n_rows, dtype=np.int64)
    ranks[order] = np.arange(table.n_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Shuffled(codes, counts, ranks, np.array([_uniform(f"{plain_label(value)}", key) for value in values])[codes])


def _told(rows: Shuffled, chosen: NDArray[np.bool_], min_group: int) -> bool:
    """Return whether there are rows among those chosen that count, and not too few of any class to tell of them."""
    sizes = np.bincount(rows.codes[chosen & rows.counts])
    return bool(sizes.any() and not ((sizes > 0) & (sizes < min_group)).any())


def _mixed(numbers: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Return 64 bits for each number, by the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(text: str, key: bytes) -> float:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2.0**48


def set_aside(
    table: Table, share: float, *, seed: int = 0, min_group: int = 1, classes: bool = True
) -> NDArray[np.bool_]:
    """Return which rows of a node are set aside: this share of each class, rounded by chance.

    None are if no row would be left, or fewer than `min_group` rows of a class would be set aside (but some).

    Examples
    --------
    >>> table = Table("a", np.eye(10), np.array([0, 1] * 5))
    >>> aside = set_aside(table, 0.4)
    >>> sorted(table.labels[aside].tolist())
    [0, 0, 1, 1]
    """
    rows = shuffled(table, seed, classes=classes)
    aside = np.floor(share * (rows.ranks + 1) + rows.offsets) > np.floor(share * rows.ranks + rows.offsets)
    if not (_told(rows, aside, min_group) and _told(rows, ~aside, 1)):
        return np.zeros(table.n_rows, dtype=np.bool_)
    return np.asarray(aside, dtype=np.bool_)


def fold_of(table: Table, n_folds: int, *, seed: int = 0, classes: bool = True) -> IntArray:
    """Return which fold each row of a node is of, 0 to n_folds − 1: as many of each class in each, to within one.

    Examples
    --------
    >>> np.bincount(fold_of(Table("a", np.eye(10), np.array([0, 1] * 5)), 5)).tolist()
    [2, 2, 2, 2, 2]
    """
    rows = shuffled(table, seed, classes=classes)
    return np.asarray((rows.ranks + np.floor(n_folds * rows.offsets).astype(np.int64)) % n_folds)


def folds(table: Table, n_folds: int, *, seed: int = 0, min_group: int = 1) -> list[tuple[Table | None, Table | None]]:
    """Return what a node has to train on and to be judged by, for each fold: None where that is no row.

    Nor is it judged by fewer than `min_group` rows of a class (but some), as it would say of few what they are.

    Examples
    --------
    >>> inside, outside = folds(Table("a", np.eye(10), np.array([0, 1] * 5)), 5)[0]
    >>> inside.n_rows, outside.n_rows
    (8, 2)
    """
    own, rows = fold_of(table, n_folds, seed=seed), shuffled(table, seed)

    def part(chosen: NDArray[np.bool_], least: int) -> Table | None:
        return table.take(np.flatnonzero(chosen)) if _told(rows, chosen, least) else None

    return [(part(own != fold, 1), part(own == fold, min_group)) for fold in range(n_folds)]


def left_out(item: Any, nodes: Sequence[str]) -> list[tuple[Any, Any]]:
    """Return the same where each fold holds one node out: what it holds is one of both, and the other None."""
    return [(None, item) if item.node_id == node else (item, None) for node in nodes]


def hold_out(
    engine: AnyEngine, share: float = 0.2, *, seed: int = 0, min_group: int = 1, classes: bool = True
) -> tuple[AnyEngine, AnyEngine]:
    """Split the rows of every node into those to train on and those to judge by; no row leaves its node.

    Each node sets a share of the rows of each of its classes aside, chosen by a keyed hash of seed, node and row
    number: the same rows over any engine, in any process. What is too few for a whole row is rounded up or down by
    chance, so that over many small nodes the share is kept.

    Parameters
    ----------
    engine : Engine
        Its nodes hold `Table`s, not yet prepared: means, scales and categories are to come from training rows only.
    share : float in (0, 1)
        Of the rows.
    seed : int, at least 0
        Another one sets other rows aside.
    min_group : int, at least 1
        A node that would set fewer rows of a class aside (but some) keeps all of its rows for training, as it would
        refuse to say how those are decided.
    classes : bool, default True
        The labels are classes; else real targets.

    Returns
    -------
    training, held_out : Engine
        Views of the same nodes. Those that set no row aside are no nodes of the second.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or no node sets a row aside, or keeps one if it does.

    Examples
    --------
    >>> from localgd import InProcess, Regularised, auto, evaluate, load, prepare, train
    >>> training, held_out = hold_out(InProcess(load("heart")), 0.2)
    >>> federation, recipe = prepare(training, scale="standard", missing="most-frequent")
    >>> run = train(federation, auto(), problem=Regularised(C=1.0, intercept=True))
    >>> found = evaluate(run.model(recipe), held_out)
    >>> found.n_rows, round(found.majority, 3)
    (183, 0.552)
    """
    check_kind("engine", engine, Engine, "an engine such as InProcess(tables)")
    if not (is_number(share) and 0 < share < 1):
        raise ValueError(f"share must be a share of the rows, above 0 and below 1, got {share!r}")
    check_whole("seed", seed, 0)
    check_whole("min_group", min_group, 1)
    check_flag("classes", classes)

    def part(held: bool, least: int = min_group) -> Callable[[Any], Table | None]:
        def taken(table: Any) -> Table | None:
            check_kind("engine", table, Table, "one whose nodes hold tables, not yet prepared")
            aside = set_aside(table, float(share), seed=seed, min_group=least, classes=classes)
            rows = np.flatnonzero(aside == held)
            return table.take(rows) if rows.size else None

        return taken

    training = engine.map(part(False))
    try:
        return training, engine.map(part(True))
    except ValueError as error:
        smaller = ""
        with suppress(ValueError):
            engine.map(part(True, least=1))
            smaller = ", a smaller min_group"  # there are some, too few to be told of
        if share > 0.5 and not smaller:
            raise ValueError(f"share={share} leaves no node a row to train on; give a smaller share") from error
        raise ValueError(
            f"share={share} sets no row of any node aside; give a larger share{smaller}, or leave whole nodes out "
            "instead (leave_one_node_out, --leave-one-node-out)"
        ) from error
