"""Whether a node's report is what its task's schema declares: the one place where reports are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from localgd.core import DTYPES, Array, Field, Kind, Report, Schema
from localgd.duals.dual import Dual

PARTS: Mapping[Kind, str] = {
    "sum": "sums",
    "max": "maxs",
    "min": "mins",
    "dual": "duals",
    "per_node": "per_node",
    "count": "counts",
    "flag": "flags",
}
"""Where a report holds what is of a kind."""

FORGOTTEN = "forgotten"
"""The flag of a node that has lost its state; such a report speaks for no node, and holds nothing else."""

NAMES = {np.dtype(name): name for name in DTYPES}
"""What dtypes go by, as NumPy takes long to make a name."""

LARGEST = 2**53
"""Whole numbers up to here are float64 numbers, too."""


def misfit(report: Report, schema: Schema, node_id: str, task: str) -> str:
    """Return in words why a report is none that the task of this node declares; "" if it is one.

    Examples
    --------
    >>> schema = {"loss": Field("sum"), "update": Field("dual", (2,))}
    >>> misfit(Report(1, 9, {"loss": [1.0, 2.0]}), schema, "a", "Steps")
    "its report's loss has the shape (2,), but Steps declares ()"
    >>> misfit(Report(1, 9, mins={"loss": 1.0}), schema, "a", "Steps")
    "its report's loss is of the kind min, but Steps declares a sum"
    >>> misfit(Report(1, 9, {"rows": 1.0}), schema, "a", "Steps")
    "its report holds 'rows', which Steps does not declare"
    >>> misfit(Report(1, 9, {"loss": 1.0}), schema, "a", "Steps")
    'its report lacks update, which Steps declares'
    """
    if report.n_nodes == 0:
        lost = not report.n_rows and list(_entries(report)) == [("flag", FORGOTTEN, 1)]
        return "" if lost and FORGOTTEN in schema else "its report speaks for no node"
    if report.n_nodes != 1 or report.n_rows < 1:
        return f"its report speaks for {report.n_nodes} nodes and {report.n_rows} rows; a node speaks for itself only"
    for kind, name, value in _entries(report):
        field = schema.get(name)
        if field is None:
            return f"its report holds {name!r:.80}, which {task} does not declare"
        if field.kind != kind:
            return f"its report's {name} is of the kind {kind}, but {task} declares a {field.kind}"
        if wrong := _unlike(field, value, node_id, task):
            return f"its report's {name} {wrong}"
    missing = sorted(name for name, field in schema.items() if _lacks(report, name, field))
    return f"its report lacks {', '.join(missing)}, which {task} declares" if missing else ""


def _entries(report: Report) -> Iterator[tuple[Kind, str, Any]]:
    """Yield all that a report holds: its kind, the name of its field, and the value (of counts, with its key)."""
    for kind, part in PARTS.items():
        held = getattr(report, part)
        for key in held:
            yield (kind, key[0] if key else "", (key, held[key])) if kind == "count" else (kind, key, held[key])


def _lacks(report: Report, name: str, field: Field) -> bool:
    """Return whether a report must hold a field and does not: it may lack tallies, flags, and what has a reason."""
    if field.optional or field.kind in {"count", "flag"} or name in getattr(report, PARTS[field.kind]):
        return False
    return not report.flags.get(field.unless, 0)


def _unlike(field: Field, value: Any, node_id: str, task: str) -> str:
    """Return in words how a value differs from its field; "" if it does not."""
    if field.kind == "count":
        key, count = value
        return "" if type(count) is int and 0 <= count < LARGEST else f"counts {count!r:.40} of {key!r:.80}"
    if field.kind == "flag":
        return "" if value == 1 else f"is raised {value!r:.40} times; a node raises it once"
    if field.kind == "per_node" and set(value) != {node_id}:
        return f"speaks for the nodes {sorted(value)!r:.80}, not for {node_id!r} alone"
    return _misshapen(field, value[node_id] if field.kind == "per_node" else value, task)


def _misshapen(field: Field, value: Any, task: str) -> str:
    """Return in words how an array, or the vector of a dual, differs from its field; "" if it does not."""
    array = value.vector if isinstance(value, Dual) else value
    if array.shape != field.shape:
        return f"has the shape {array.shape}, but {task} declares {field.shape}"
    if NAMES.get(array.dtype) != field.dtype:
        return f"is of {array.dtype.name}, but {task} declares {field.dtype}"
    if isinstance(value, Dual) and value.kept and (value.kept.ends is None or not field.coded):
        return f"was changed after it was coded, or {task} does not declare the code"
    if field.dtype == "int64" and (np.abs(array) > LARGEST).any():
        return "holds a number beyond 2^53, which not every engine can add"
    return ""


def not_finite(report: Report, schema: Schema) -> str:
    """Return the name of a quantity that is not a number, or infinite where that means nothing; "" if none is.

    A minimum may be −∞, which proves nothing, and an optional one +∞, which is none; a maximum the other way round. A
    dual without a mass proves nothing, so NaN is in order there; an infinite mass is not. A node that raises the flag
    ``overflow`` has moved out of float64, whatever else it moved: the run ends there, and no node is to blame.

    Examples
    --------
    >>> schema = {"loss": Field("sum"), "margin": Field("min"), "margin_upper": Field("min", optional=True)}
    >>> not_finite(Report(1, 1, {"loss": 0.1}, mins={"margin": np.inf, "margin_upper": np.inf}), schema)
    'margin'
    """
    if report.flags.get("overflow", 0):
        return ""
    with np.errstate(over="ignore", invalid="ignore"):
        for kind, name, value in _entries(report):
            values = value.values() if kind == "per_node" else (value,)
            if kind not in {"count", "flag"} and not all(_sound(schema[name], one) for one in values):
                return name
    return ""


def _sound(field: Field, value: Any) -> bool:
    if isinstance(value, Dual):
        return _finite(value.vector) and not math.isinf(value.parts[0])
    if _finite(value) or field.kind not in {"min", "max"}:
        return _finite(value)
    wrong = ~np.isfinite(value) & (value != (-np.inf if field.kind == "min" else np.inf))
    return not (wrong & (np.isnan(value) | (not field.optional))).any()


def _finite(array: Array) -> bool:
    if math.isfinite(array.sum() if array.ndim else array):  # one look at each number, where all is well
        return True
    return bool(np.isfinite(array).all())
