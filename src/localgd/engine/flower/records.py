"""Questions and answers as Flower records: a JSON head beside float64 arrays, checked in every particular."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from localgd import serialize
from localgd.core import Message, Report
from localgd.rounding import Dual, FloatArray

VERSION = 1
"""Of this protocol: a head of another one is refused."""

QUERY = "query.localgd"
"""Type of the messages: `localgd` is the action that a ClientApp registers."""

MAX_MB = 256.0
"""Largest message or report, in megabytes."""

ARRAYS, HEAD, JSON = "arrays", "head", "json"

RAW = "float64-le"
"""How an array's bytes are written: as they are, so that there is no header to be wrong."""

MOST_DIMS, MOST_COUNT, MOST_TEXT = 4, 2**53, 20_000

Kind = TypeVar("Kind")


class RefusedError(ValueError):
    """What came over the network, or a node's own configuration, is not fit for use: says why, and nothing of any row.

    Parameters
    ----------
    why : str
        What is wrong.
    """


class Opened(NamedTuple):
    """What came in: the JSON head, and the arrays by name."""

    head: dict[str, Any]
    arrays: dict[str, FloatArray]


def closed(head: Mapping[str, Any], arrays: Mapping[str, FloatArray] | None = None) -> RecordDict:
    """Return head and arrays as what Flower carries."""
    given = {name: np.asarray(array, dtype="<f8") for name, array in (arrays or {}).items()}
    raw = {name: Array("float64", array.shape, RAW, array.tobytes()) for name, array in given.items()}
    text = json.dumps({"version": VERSION, **head}, ensure_ascii=False)
    return RecordDict({ARRAYS: ArrayRecord(raw), HEAD: ConfigRecord({JSON: text})})


def n_bytes(content: RecordDict) -> int:
    """Return how many bytes head, arrays and their names take."""
    return sum(record.count_bytes() for record in content.values())


def opened(content: Any, max_mb: float) -> Opened:
    """Return what `closed` closed.

    Raises
    ------
    RefusedError
        If it is anything else, or larger than `max_mb` megabytes.
    """
    if not isinstance(content, RecordDict) or set(content) != {ARRAYS, HEAD}:
        raise RefusedError("it is no message of localgd: it must hold the records 'arrays' and 'head', nothing else")
    arrays, head = content[ARRAYS], content[HEAD]
    if not isinstance(arrays, ArrayRecord) or not isinstance(head, ConfigRecord) or set(head) != {JSON}:
        raise RefusedError("it is no message of localgd: 'arrays' must hold arrays, and 'head' one text, 'json'")
    if (size := n_bytes(content) / 1e6) > max_mb:
        raise RefusedError(f"it has {size:.3g} MB, more than max_mb={max_mb:g}")
    try:
        entries = json.loads(str(head[JSON]))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"its head is no JSON ({type(error).__name__})") from error
    if not isinstance(entries, dict):
        raise RefusedError("its head is no JSON object")
    version = entries.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise RefusedError(
            f"it speaks version {version!r:.20} of the protocol, this side {VERSION}; install the same localgd on both"
        )
    return Opened(entries, {text(name, "a name", 500): _array(name, array) for name, array in arrays.items()})


def _array(name: str, array: Array) -> FloatArray:
    shape, data = tuple(array.shape), array.data
    if array.dtype != "float64" or array.stype != RAW:
        raise RefusedError(f"its array {name!r} is {array.dtype!r:.40} as {array.stype!r:.40}, not float64 as {RAW}")
    if len(shape) > MOST_DIMS or not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError(f"its array {name!r} has the shape {shape!r:.80}")
    if len(data) != 8 * math.prod(shape):
        raise RefusedError(f"its array {name!r} has {len(data)} bytes, but the shape {shape!r:.80}")
    try:
        return np.frombuffer(data, dtype="<f8").reshape(shape).astype(np.float64, copy=False)
    except (ValueError, OverflowError) as error:  # no numbers at all, in more rows than can be counted
        raise RefusedError(f"its array {name!r} has the shape {shape!r:.80}") from error


def keys(head: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a head with other entries than these."""
    if set(head) != set(names):
        raise RefusedError(f"its head has the entries {sorted(head)!r:.200}, expected {sorted(names)}")


def text(value: Any, what: str, most: int = MOST_TEXT) -> str:
    """Return a text that can be written anywhere, no longer than `most`.

    Raises
    ------
    RefusedError
        If it is anything else.
    """
    if not isinstance(value, str) or len(value) > most or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise RefusedError(f"{what} is {value!a:.80}, not a text of at most {most} characters")
    return value


def whole(value: Any, what: str) -> int:
    """Return a number from 0 that float64 can hold.

    Raises
    ------
    RefusedError
        If it is anything else.
    """
    if type(value) is not int or not 0 <= value < MOST_COUNT:  # True is an int, too
        raise RefusedError(f"{what} is {value!r:.80}, not a whole number from 0 to 2^53")
    return value


def name_of(kind: type) -> str:
    """Return what a task goes by: its room and its name, as two rooms may have a task of one name.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> name_of(Shard)
    'rows.Shard'
    """
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}"


def told(thing: Any) -> dict[str, str]:
    """Return a task, or an encoder, as its name and its fields.

    Raises
    ------
    TypeError
        If it is no dataclass of plain fields: only data is sent.
    """
    if isinstance(thing, type) or not is_dataclass(thing):
        raise TypeError(
            f"Flower's nodes are sent data, not code: give a frozen dataclass that they know, not {thing!r}"
        )
    packed = serialize.pack(thing)
    if packed.arrays:
        raise TypeError(f"{name_of(type(thing))} has a field that is an array; only plain fields can be sent")
    return {"name": name_of(type(thing)), "fields": packed.text}


def made(entry: Any, kinds: Iterable[type[Kind]], what: str) -> Kind:
    """Return the task, or the encoder, that is told of, if it is of a kind on the list.

    Raises
    ------
    RefusedError
        If it is not, or its fields are not what they should be.
    """
    if not isinstance(entry, dict) or set(entry) != {"name", "fields"}:
        raise RefusedError(f"{what} must be told as a name and fields")
    name, fields = text(entry["name"], f"the name of {what}", 200), entry["fields"]
    known = {name_of(kind): kind for kind in kinds}
    if name not in known:
        raise RefusedError(f"{what} {name!r} is not on the list of this node ({', '.join(sorted(known))})")
    if not isinstance(fields, str):
        raise RefusedError(f"the fields of {name} are no text")
    try:
        return serialize.unpack(serialize.Packed(fields, {}), known[name])
    except ValueError as error:
        raise RefusedError(f"the fields of {name} are not what they should be: {error}") from error


def sent(message: Message) -> dict[str, FloatArray]:
    """Return the arrays of a message by the names that they travel under."""
    return {"w": message.w, **{f"extra/{name}": array for name, array in message.extra.items()}}


def received(round_: int, arrays: Mapping[str, FloatArray]) -> Message:
    """Return the message of these arrays.

    Raises
    ------
    RefusedError
        If they are not those of a message.
    """
    extra = {name.removeprefix("extra/"): array for name, array in arrays.items() if name.startswith("extra/")}
    if "w" not in arrays or len(extra) != len(arrays) - 1 or arrays["w"].ndim != 1:
        raise RefusedError(f"its arrays are {sorted(arrays)!r:.200}, expected a vector 'w' and 'extra/…'")
    return Message(round_, arrays["w"], extra)


REPORT = ("says", "n_nodes", "n_rows", "counts", "rows")


def reported(report: Report, rows: str) -> RecordDict:
    """Return a report as what Flower carries, with the keyed digest of the node's rows."""
    arrays = {f"sums/{name}": array for name, array in report.sums.items()}
    arrays |= {f"lows/{name}": array for name, array in report.lows.items()}
    arrays |= {f"duals/{name}": dual.vector for name, dual in report.duals.items()}
    proved = {name: dual.parts for name, dual in report.duals.items() if not math.isnan(dual.parts[0])}
    arrays |= {f"proofs/{name}": np.array(parts) for name, parts in proved.items()}
    head = {"says": "report", "n_nodes": report.n_nodes, "n_rows": report.n_rows, "counts": dict(report.counts)}
    return closed({**head, "rows": rows}, arrays)


def report_of(came: Opened) -> Report:
    """Return the report of one node.

    Raises
    ------
    RefusedError
        If it speaks for other than one node, or a number or a name is not what it should be.
    """
    head, arrays = came
    keys(head, REPORT)
    text(head["rows"], "the digest of its rows", 64)
    n_nodes, n_rows = (whole(head[name], f"its {name}") for name in ("n_nodes", "n_rows"))
    if not isinstance(head["counts"], dict):
        raise RefusedError("its counts are no JSON object")
    counts = {
        text(name, "a name among its counts"): whole(n, f"its count of {name!r:.80}")
        for name, n in head["counts"].items()
    }
    parts: dict[str, dict[str, FloatArray]] = {"sums": {}, "lows": {}, "duals": {}, "proofs": {}}
    for place, array in arrays.items():
        part, _, name = place.partition("/")
        if part not in parts or not name:
            raise RefusedError(f"its array {place!r:.80} is none of its sums, lows, duals or proofs")
        parts[part][name] = array
    lost = not n_nodes and not n_rows and not arrays and counts == {"forgotten": 1}
    if not lost and (n_nodes != 1 or n_rows < 1):
        raise RefusedError(f"it speaks for {n_nodes} nodes and {n_rows} rows; a node speaks for itself only")
    duals = {name: _dual(name, vector, parts["proofs"].pop(name, None)) for name, vector in parts["duals"].items()}
    if parts["proofs"]:
        raise RefusedError(f"its proof {min(parts['proofs'])!r:.80} is of no dual that it sent")
    return Report(n_nodes, n_rows, parts["sums"], parts["lows"], counts, duals)


def _dual(name: str, vector: FloatArray, proof: FloatArray | None) -> Dual:
    if vector.ndim != 1 or (proof is not None and proof.shape != (2,)):
        raise RefusedError(f"its dual {name!r:.80} is no vector with a mass and an error")
    return Dual(vector) if proof is None else Dual.proved(vector, proof[0], proof[1], 1)
