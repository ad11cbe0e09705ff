"""Which node holds a row: one rule for the groups of arrays, frames and estimators."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from localgd.data.values import MISSING
from localgd.errors import shown


def plain_values(values: Any) -> list[Any]:
    """Return values as a list of Python objects, None where missing.

    Examples
    --------
    >>> plain_values(["a", float("nan"), np.int64(1)])
    ['a', None, 1]
    """
    if hasattr(values, "notna"):  # pandas, whose missing values come in several kinds
        return [_python(value) if there else None for value, there in zip(values, values.notna(), strict=True)]
    # An array of a list would turn the NaN among texts into the text 'nan'.
    return [_python(value) for value in (values.tolist() if isinstance(values, np.ndarray) else list(values))]


def _python(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    missing = type(plain).__name__ in {"NAType", "NaTType"} or (isinstance(plain, float) and np.isnan(plain))
    return None if missing else plain


def refuse_masked(what: str, values: Any) -> None:
    """Raise a ValueError if values are masked somewhere, or bytes or complex: all of these would be taken for numbers.

    Examples
    --------
    >>> refuse_masked("X", np.array([1j]))
    Traceback (most recent call last):
    ValueError: X holds complex128: Complex data not supported; give numbers, truth values or texts
    """
    if np.ma.is_masked(values):
        row = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(f"{what} is masked in row {row + 1}; fill the value in, or leave the row out")
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "cSVmM":
        why = ": Complex data not supported" if dtype.kind == "c" else ""  # in scikit-learn's own words
        raise ValueError(f"{what} holds {dtype}{why}; give numbers, truth values or texts")


def one_per_row(what: str, values: Any, n_rows: int) -> list[Any]:
    """Return values as a list, None where missing, if there is one per row; else a ValueError.

    Examples
    --------
    >>> one_per_row("y", np.array(["a", float("nan")]), 2)
    ['a', None]
    """
    refuse_masked(what, values)
    if issparse(values):
        raise ValueError(f"{what} is a sparse array; give one entry per row, as a list or an array")
    shape = getattr(values, "shape", (len(values),) if hasattr(values, "__len__") else ())
    if shape != (n_rows,):
        raise ValueError(f"{what} has shape {shape} for {n_rows} rows; give one entry per row")
    listed = plain_values(values)
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":  # of a NaN among texts NumPy makes a text
        return [None if value == "nan" else value for value in listed]
    return listed


def node_names(groups: Any, n_rows: int, place: Callable[[int], str] = lambda row: f"row {row}") -> NDArray[np.str_]:
    """Return the name of every row's node: texts without outer blanks, whole numbers without a point.

    Parameters
    ----------
    groups : (n,) array-like
        Texts, numbers or truth values: an array, a list, a Series, a Categorical.
    n_rows : int
        How many rows there are.
    place : callable
        How error messages call a row, from its index.

    Returns
    -------
    (n,) array of str

    Raises
    ------
    ValueError
        If there is not one group per row, or one is missing, blank, or of another kind than those before it; names the
        row.

    Examples
    --------
    >>> node_names([2.0, 1.0, 2.0], 3).tolist(), node_names([" north", "south"], 2).tolist()
    (['2', '1', '2'], ['north', 'south'])
    """
    named: dict[tuple[type, Any], str] = {}
    kinds: dict[str, Any] = {}
    names = []
    for row, value in enumerate(one_per_row("groups", groups, n_rows)):
        own = (type(value), value) if value.__hash__ else (type(value), repr(value))
        name = named.get(own)
        if name is None:
            if value is None or (isinstance(value, str) and not value.strip()):
                raise ValueError(f"groups has no value in {place(row)}; say which node holds it, or remove the row")
            kind, name = _named(value, place(row))
            if kind == "text" and name.lower() in MISSING:
                raise ValueError(missing_node(place(row), name, "groups"))
            kinds.setdefault(kind, value)
            if len(kinds) > 1:
                first, other = kinds.items()
                raise ValueError(
                    f"groups holds {shown(other[1])}, a {other[0]}, in {place(row)}, but before that {first[1]!r}, a "
                    f"{first[0]}; give all nodes names of one kind"
                )
            named[own] = name
        names.append(name)
    return np.array(names, dtype=np.str_)


def missing_node(place: str, name: str, where: str, way: str = ", in other words") -> str:
    """Return the error of a name that stands for a missing value: rows of unlike places would be one node.

    Examples
    --------
    >>> missing_node("a.csv, row 3", "NA", "column 'site'")
    "a.csv, row 3: column 'site' holds 'NA', no name of a node; say which node it is, in other words, or remove the row"
    """
    what = f"{place}: {where} holds {shown(name)}, no name of a node"
    return f"{what}; say which node it is{way}, or remove the row"


def _named(value: Any, place: str) -> tuple[str, str]:
    """Return the kind and the name of a group."""
    if isinstance(value, bool):
        return "truth value", str(value).lower()
    if isinstance(value, int | float) and isfinite(value):
        return "number", str(int(value)) if float(value).is_integer() else repr(value)
    if isinstance(value, str):
        return "text", value.strip()
    if isinstance(value, date):
        return "date", str(value)
    raise ValueError(
        f"groups holds {shown(value)} ({type(value).__name__}) in {place}; name nodes by texts or finite numbers"
    )


def blocks(names: NDArray[np.str_]) -> list[tuple[str, NDArray[np.intp]]]:
    """Return every node's name, sorted, and the places of its rows, in one pass over the rows.

    Examples
    --------
    >>> [(name, places.tolist()) for name, places in blocks(np.array(["b", "a", "b"]))]
    [('a', [1]), ('b', [0, 2])]
    """
    distinct, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    places = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    return list(zip(distinct.tolist(), places, strict=True))
