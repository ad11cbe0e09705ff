"""Questions and answers as Flower records: a JSON head beside plain arrays, checked in every particular."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from localgd.core import Array as Numbers
from localgd.core import CountKey, Field, Message, Report, Schema
from localgd.duals.compressors import compressor_named
from localgd.duals.dual import Dual
from localgd.duals.kept import NOTHING, Kept
from localgd.engine import serialize
from localgd.engine.screening import NAMES
from localgd.errors import plain
from localgd.limits import RefusedError
from localgd.rounding import FloatArray

VERSION = 2
"""Of this protocol: a head of another one is refused."""

QUERY = "query.localgd"
"""Type of the messages: `localgd` is the action that a ClientApp registers."""

MAX_MB = 256.0
"""Largest message or report, in megabytes."""

ARRAYS, HEAD, JSON = "arrays", "head", "json"

RAW = "raw-le"
"""How an array's bytes are written: as they are, so that there is no header to be wrong."""

CODES = {"float64": "<f8", "float32": "<f4", "int64": "<i8", "uint8": "|u1"}
"""What arrays may be made of, and NumPy's codes for that; of bytes only those that stand for a vector."""

KINDS = {**NAMES, np.dtype(np.uint8): "uint8"}

MOST_DIMS, MOST_COUNT, MOST_TEXT = 4, 2**53, 20_000

Kind = TypeVar("Kind")


class Opened(NamedTuple):
    """What came in: the JSON head, and the arrays by name."""

    head: dict[str, Any]
    arrays: dict[str, Numbers]


def closed(head: Mapping[str, Any], arrays: Mapping[str, Numbers] | None = None) -> RecordDict:
    """Return head and arrays as what Flower carries."""
    text = json.dumps({"version": VERSION, **head}, ensure_ascii=False)
    return RecordDict({ARRAYS: boxed(arrays or {}), HEAD: ConfigRecord({JSON: text})})


def boxed(arrays: Mapping[str, Numbers]) -> ArrayRecord:
    """Return arrays as what Flower carries, and keeps: their bytes as they are."""

    def raw(array: Numbers) -> Array:
        return Array(kind := KINDS[array.dtype], array.shape, RAW, array.astype(CODES[kind]).tobytes())

    return ArrayRecord({name: raw(array) for name, array in arrays.items()})


def unboxed(record: ArrayRecord) -> dict[str, Numbers]:
    """Return the arrays of a record, read-only; a RefusedError if one of them was not made by `boxed`."""
    return {text(name, "a name", 500): _array(name, array) for name, array in record.items()}


def n_bytes(content: RecordDict) -> int:
    """Return how many bytes head, arrays and their names take."""
    return sum(record.count_bytes() for record in content.values())


def opened(content: Any, max_mb: float) -> Opened:
    """Return what `closed` closed; a RefusedError if it is anything else, or larger than `max_mb` megabytes."""
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
    return Opened(entries, unboxed(arrays))


def _array(name: str, array: Array) -> Numbers:
    shape, data = tuple(array.shape), array.data
    if array.dtype not in CODES or array.stype != RAW:
        known = " or ".join(CODES)
        raise RefusedError(f"its array {name!r} is {array.dtype!r:.40} as {array.stype!r:.40}, not {known} as {RAW}")
    code = np.dtype(CODES[array.dtype])
    if len(shape) > MOST_DIMS or not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError(f"its array {name!r} has the shape {shape!r:.80}")
    if len(data) != code.itemsize * math.prod(shape):
        raise RefusedError(f"its array {name!r} has {len(data)} bytes, but the shape {shape!r:.80}")
    try:
        return np.frombuffer(data, dtype=code).reshape(shape).astype(array.dtype, copy=False)
    except (ValueError, OverflowError) as error:  # no numbers at all, in more rows than can be counted
        raise RefusedError(f"its array {name!r} has the shape {shape!r:.80}") from error


def keys(head: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a head with other entries than these."""
    if set(head) != set(names):
        raise RefusedError(f"its head has the entries {sorted(head)!r:.200}, expected {sorted(names)}")


def text(value: Any, what: str, most: int = MOST_TEXT) -> str:
    """Return a text that can be written anywhere, no longer than `most`; a RefusedError if it is anything else."""
    if not isinstance(value, str) or len(value) > most or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise RefusedError(f"{what} is {value!a:.80}, not a text of at most {most} characters")
    return value


def whole(value: Any, what: str) -> int:
    """Return a number from 0 that float64 can hold; a RefusedError if it is anything else."""
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
    """Return a task, or an encoder, as its name and fields; a TypeError if it is no dataclass of plain ones."""
    if isinstance(thing, type) or not is_dataclass(thing):
        raise TypeError(
            f"Flower's nodes are sent data, not code: give a frozen dataclass that they know, not {thing!r}"
        )
    packed, name = serialize.pack(thing), name_of(type(thing))
    if packed.arrays:
        raise TypeError(f"{name} has a field that is an array; only plain fields can be sent")
    try:
        serialize.unpack(packed, type(thing))
    except ValueError as error:
        held = ", ".join(f"{field.name}={getattr(thing, field.name)!r}" for field in fields(thing))
        raise TypeError(
            f"Flower's nodes read the fields of {name} as they are declared, which these are not: {held:.400}; "
            "a task of your own travels there as it is: leave compressed(…) out"
        ) from error
    return {"name": name, "fields": packed.text}


def made(entry: Any, kinds: Iterable[type[Kind]], what: str) -> Kind:
    """Return the task, or the encoder, that is told of; a RefusedError if it, or a field, is not on the list."""
    if not isinstance(entry, dict) or set(entry) != {"name", "fields"}:
        raise RefusedError(f"{what} must be told as a name and fields")
    name, fields = text(entry["name"], f"the name of {what}", 200), entry["fields"]
    known = {name_of(kind): kind for kind in kinds}
    if name not in known:
        remedy = f"its operator may put it there: localgd.flower.answer(app, {what.rsplit(maxsplit=1)[-1]}s=…)"
        raise RefusedError(f"{what} {name!r} is not on the list of this node ({', '.join(sorted(known))}); {remedy}")
    if not isinstance(fields, str):
        raise RefusedError(f"the fields of {name} are no text")
    try:
        return serialize.unpack(serialize.Packed(fields, {}), known[name])
    except ValueError as error:
        raise RefusedError(f"the fields of {name} are not what they should be: {plain(str(error))}") from None


def sent(message: Message) -> dict[str, FloatArray]:
    """Return the arrays of a message by the names that they travel under."""
    return {"w": message.w, **{f"extra/{name}": array for name, array in message.extra.items()}}


def received(round_: int, session: str, arrays: Mapping[str, Numbers]) -> Message:
    """Return the message of these arrays; a RefusedError if they are not those of a message."""
    extra = {name.removeprefix("extra/"): array for name, array in arrays.items() if name.startswith("extra/")}
    if "w" not in arrays or len(extra) != len(arrays) - 1 or arrays["w"].ndim != 1:
        raise RefusedError(f"its arrays are {sorted(arrays)!r:.200}, expected a vector 'w' and 'extra/…'")
    return Message(round_, arrays["w"], extra, session)


REPORT = ("says", "session", "round", "n_nodes", "n_rows", "counts", "flags", "rows")

ARRAY_KINDS = ("sum", "max", "min", "dual", "code", "proof", "per_node")
"""Kinds whose arrays travel as ``kind/name``.

A code stands for the vector of the dual of that name; a proof is its mass and error, and the ends of what is kept back.
"""


def reported(report: Report, rows: str, message: Message) -> RecordDict:
    """Return a report as what Flower carries, with the keyed digest of the node's rows, and what it answers."""
    duals = report.duals.items()
    parts: dict[str, Mapping[str, Numbers]] = {
        "sum": report.sums,
        "max": report.maxs,
        "min": report.mins,
        "dual": {name: dual.vector for name, dual in duals if dual.coded is None},
        "code": {name: dual.coded for name, dual in duals if dual.coded is not None},
        "proof": {name: _proof(dual) for name, dual in duals if not math.isnan(dual.parts[0])},
        "per_node": {name: array for name, nodes in report.per_node.items() for array in nodes.values()},
    }
    arrays = {f"{kind}/{name}": array for kind, part in parts.items() for name, array in part.items()}
    counts = [[list(key), count] for key, count in report.counts.items()]
    head = {"says": "report", "session": message.session, "round": message.round, "counts": counts}
    head |= {"n_nodes": report.n_nodes, "n_rows": report.n_rows, "flags": dict(report.flags), "rows": rows}
    return closed(head, arrays)


def report_of(came: Opened, node_id: str, message: Message, schema: Schema) -> Report:
    """Return the report of one node on this message; of the schema of its task it takes the codes of duals only.

    A RefusedError if it answers another message, or a number or a name is not what it should be.
    """
    head, arrays = came
    keys(head, REPORT)
    text(head["rows"], "the digest of its rows", 64)
    session, round_ = text(head["session"], "the session", 64), whole(head["round"], "the round")
    if (session, round_) != (message.session, message.round):
        raise RefusedError(f"it answers round {round_} of another session, or another round than {message.round}")
    n_nodes, n_rows = (whole(head[name], f"its {name}") for name in ("n_nodes", "n_rows"))
    if not isinstance(head["flags"], dict):
        raise RefusedError("its flags are no JSON object")
    flags = {text(name, "a flag"): whole(n, f"its flag {name!r:.80}") for name, n in head["flags"].items()}
    parts: dict[str, dict[str, Numbers]] = {kind: {} for kind in ARRAY_KINDS}
    for place, array in arrays.items():
        kind, _, name = place.partition("/")
        if kind not in parts or not name:
            raise RefusedError(f"its array {place!r:.80} is of no kind of field ({', '.join(ARRAY_KINDS)})")
        if (kind == "code") != (array.dtype == np.uint8):
            raise RefusedError(f"its array {place!r:.80} is of {array.dtype.name}; codes, and nothing else, are bytes")
        parts[kind][name] = array
    vectors = parts["dual"] | {name: _decoded(name, code, schema.get(name)) for name, code in parts["code"].items()}
    duals = {
        name: _dual(name, vector, parts["proof"].pop(name, None), parts["code"].get(name))
        for name, vector in vectors.items()
    }
    if parts["proof"]:
        raise RefusedError(f"its proof {min(parts['proof'])!r:.80} is of no dual that it sent")
    listed = {name: {node_id: array} for name, array in parts["per_node"].items()}
    return Report(
        n_nodes, n_rows, parts["sum"], parts["max"], parts["min"], _counts(head["counts"]), flags, duals, listed
    )


def _counts(value: Any) -> dict[CountKey, int]:
    if not isinstance(value, list):
        raise RefusedError("its counts are no JSON list")
    counts: dict[CountKey, int] = {}
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], list) or not entry[0]:
            raise RefusedError(f"its count {entry!r:.80} is no pair of a key and a number")
        key = tuple(text(part, "a key of its counts") if isinstance(part, str) else part for part in entry[0])
        if not all(isinstance(part, str | int | float) for part in key):
            raise RefusedError(f"its count of {entry[0]!r:.80} has a key that is not made of texts and numbers")
        counts[key] = whole(entry[1], f"its count of {entry[0]!r:.80}")
    return counts


def _decoded(name: str, code: Numbers, field: Field | None) -> FloatArray:
    """Return the vector that a code stands for, as the field of its name declares."""
    if field is None or not field.coded:
        raise RefusedError(f"its {name!r:.80} comes in a code that its task does not declare")
    try:
        return compressor_named(field.coded).decoded(code, math.prod(field.shape))
    except ValueError as error:
        raise RefusedError(f"its code of {name!r:.80} stands for no vector: {error}") from None


def _dual(name: str, vector: Numbers, proof: Numbers | None, coded: Numbers | None) -> Dual:
    alike = vector.ndim == 1 and vector.dtype == np.float64
    if not alike or (proof is not None and proof.shape not in {(2,), (6,)}):
        raise RefusedError(f"its dual {name!r:.80} is no vector with a mass and an error")
    mass, error, *ends = (math.nan, math.nan) if proof is None else proof.tolist()
    if not all(0 <= end < math.inf for end in ends):
        raise RefusedError(f"its dual {name!r:.80} keeps back what has no length")
    return Dual.proved(vector, mass, error, 1, kept=Kept.between(*ends) if ends else NOTHING, coded=coded)


def _proof(dual: Dual) -> FloatArray:
    return np.array([*dual.parts, *(dual.kept.ends or ())])
