"""Tables from arrays and data frames in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import issparse

from localgd.data.columns import alike
from localgd.data.gaps import MissingValues, gaps_of
from localgd.data.groups import node_names, one_per_row, plain_values, refuse_masked
from localgd.data.spelling import plain_names
from localgd.data.table import Table, refuse_twice
from localgd.data.values import label_array
from localgd.errors import check_kind, check_names, shown

_LABELS = {str: "texts", int: "numbers or truth values", float: "numbers or truth values", date: "texts"}
JOINED = "join them with node_map={python} (--node-map {flag})"
"""How the nodes that a file names are joined."""

_WEIGHTS = {int: "numbers", float: "numbers"}


def from_arrays(
    X: Any,
    y: Any,
    groups: Any = None,
    *,
    sample_weight: Any = None,
    categorical: Collection[str] = (),
    dates: Collection[str] = (),
    missing_values: MissingValues = (),
    source: str = "the arrays given",
) -> list[Table]:
    """Return one table per group of rows.

    Parameters
    ----------
    X : (n, k) array, sparse array, or pandas or polars DataFrame
        The rows. In a frame, missing values are allowed; in an array they are not.
    y : (n,) array-like
        Labels: numbers, strings or bools.
    groups : (n,) array-like, optional
        The node of every row; without it there is one node ``node-0``.
    sample_weight : (n,) array-like, optional
        What each row counts, at least 0; 1 by default. Rows of weight 0 are left out of training.
    categorical : collection of str
        Columns of a frame to keep as text although their values look like numbers or dates.
    dates : collection of str
        Columns of dates of a frame to take as numbers, days since 1970 (`localgd.load`).
    missing_values : collection of texts and numbers, or mapping from column to such
        What stands for a missing value in a frame, beside what always does (`localgd.load`).
    source : str
        What error messages call the rows.

    Returns
    -------
    list of Table
        In the order of the node names.

    Raises
    ------
    ValueError
        If lengths differ, a label or group is missing, or a value is not finite.

    Examples
    --------
    >>> [table.node_id for table in from_arrays(np.eye(3), [0, 1, 1], groups=["b", "a", "b"])]
    ['a', 'b']
    """
    check_names("categorical", categorical)
    check_names("dates", dates)
    check_kind("source", source, str, "a text")
    rows, gaps = unlabelled(X, source=source), gaps_of(missing_values)
    if isinstance(rows.features, pl.DataFrame) or gaps:
        rows = alike([rows], categorical=categorical, dates=dates, gaps=gaps)[0]
    whole = replace(rows, labels=label_array(_listed(y, rows, "y", _LABELS)))
    if sample_weight is not None:
        weights = _listed(sample_weight, rows, "sample_weight", _WEIGHTS)
        whole = replace(whole, weights=np.array(weights, dtype=np.float64))
    return [whole] if groups is None else split_by(whole, groups)


def split_by(table: Table, groups: Any, node_map: Mapping[str, str] | None = None) -> list[Table]:
    """Return one table per distinct entry of `groups`, named by it, or as `node_map` says, in sorted order.

    Raises
    ------
    ValueError
        If there is not one group per row, or one is missing, blank or of another kind than others.

    Examples
    --------
    >>> table = Table("all", np.eye(3), np.array([0, 1, 1]))
    >>> [(part.node_id, part.n_rows) for part in split_by(table, [2, 1, 2])]
    [('1', 1), ('2', 2)]
    """
    names = node_names(groups, table.n_rows, table.place)
    if node_map is None:
        return table.split(names)
    return table.split(np.array([node_map.get(name, name) for name in names.tolist()], dtype=np.str_), JOINED)


def unlabelled(X: Any, *, source: str = "the rows given") -> Table:
    """Return rows without labels, from an array, a sparse array, or a pandas or polars frame.

    Raises
    ------
    ValueError
        If there is no row, or a value of an array is not finite.

    Examples
    --------
    >>> unlabelled(np.eye(2)).n_rows
    2
    """
    features = X
    refuse_masked(f"{source}: X", X)
    if hasattr(X, "columns"):
        header = plain_names(X.columns)
        refuse_twice(header, source)
        # Column by column: polars' own conversion from pandas needs pyarrow.
        own = X if isinstance(X, pl.DataFrame) else [_series(str(name), X[name]) for name in X.columns]
        features = pl.DataFrame(own)
        features.columns = header
    elif not issparse(X):
        features = np.asarray(X)
    return Table("node-0", features, np.zeros(0), source=source)


def _series(name: str, values: Any) -> pl.Series:
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return pl.Series(name, values.to_numpy(), nan_to_null=True)
    return pl.Series(name, plain_values(values), strict=False)


def _listed(values: Any, table: Table, parameter: str, kinds: Mapping[type, str]) -> list[Any]:
    """Return one value per row; a ValueError names the row where one is missing or of another kind."""
    listed = one_per_row(parameter, values, table.n_rows)
    table.refuse_gaps([value is None for value in listed], f"missing entry in {parameter}")
    odd = next((row for row, value in enumerate(listed) if not isinstance(value, tuple(kinds))), None)
    if odd is not None:
        said = f"{parameter} holds {shown(listed[odd])} ({type(listed[odd]).__name__})"
        raise ValueError(f"{table.place(odd)}: {said}; give {', '.join(dict.fromkeys(kinds.values()))}")
    return listed
