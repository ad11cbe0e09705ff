"""Values as JSON and arrays, and back: for checkpoints and for messages between processes. Nothing is ever unpickled.

What is written says names of fields only; what it becomes is decided by the type that the reader asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from localgd.duals.dual import Dual
from localgd.duals.kept import Kept, Share
from localgd.limits import RefusedError
from localgd.losses import LOSSES, Loss, Softmax
from localgd.rounding import FloatArray
from localgd.stored import arrays_of

Kind = TypeVar("Kind")

PLACE = "array"
"""An entry ``{"array": "3"}`` of the JSON stands for the array of that name."""


@dataclass(frozen=True)
class Packed:
    """A value taken apart: its JSON, and its arrays by name."""

    text: str
    arrays: dict[str, NDArray[Any]]


def _is_array(kind: Any) -> bool:
    return kind is np.ndarray or get_origin(kind) is np.ndarray


def _array(value: Any, kind: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fi":
        raise TypeError(f"expected an array of numbers for {kind}, got {type(value).__name__}")
    value.flags.writeable = False
    return value


def _loss(value: Any, _: Any) -> Loss:
    return Softmax(int(value["versus"])) if value["name"] == Softmax.name else LOSSES[value["name"]]


def _parts_of_dual(dual: Dual) -> dict[str, Any]:
    kept = {"kept": [*map(list, dual.kept.shares)], "forgotten": dual.kept.forgotten} if dual.kept else {}
    mark = {"of": dual.of} if isinstance(dual.of, str) else {}
    return {"vector": dual.vector, "proved": dual.parts, "n_folded": dual.n_folded, **kept, **mark}


def _dual(value: Any, _: Any) -> Dual:
    (mass, error), n_folded = map(float, value["proved"]), int(value["n_folded"])
    shares = tuple(Share(*map(float, share)) for share in value.get("kept", ()))
    kept = Kept(shares, float(value.get("forgotten", 0.0)))
    return Dual.proved(_array(value["vector"], FloatArray), mass, error, n_folded, value.get("of"), kept=kept)


def _nothing(value: Any, _: Any) -> None:
    if value is not None:
        raise TypeError(f"expected nothing, got {value!r}")


def _either(kind: Any) -> bool:
    """Whether it is one dataclass or another, which the names of their fields tell apart."""
    return isinstance(kind, UnionType) and all(is_dataclass(one) for one in get_args(kind))


def _one_of(value: Any, kind: Any) -> Any:
    one = next((one for one in get_args(kind) if {field.name for field in fields(one)} == value.keys()), None)
    if one is None:
        raise TypeError(f"expected the fields of one of {kind}, got {', '.join(value)}")
    return _converter().structure(value, one)


def _speaks_for_itself(kind: Any) -> bool:
    """Whether a class brings its own way to JSON and back, as a recipe does."""
    return hasattr(kind, "to_dict") and hasattr(kind, "from_dict")


@cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter  # noqa: PLC0415  a run that writes nothing does without

    converter = make_converter(forbid_extra_keys=True)
    converter.register_structure_hook(type(None), _nothing)
    converter.register_structure_hook_func(_either, _one_of)
    for fits, there, back in (
        (_is_array, lambda array: array, _array),
        (lambda kind: kind is Loss, lambda loss: {"name": loss.name, "versus": loss.versus}, _loss),
        (lambda kind: kind is Dual, _parts_of_dual, _dual),
        (_speaks_for_itself, lambda value: value.to_dict(), lambda value, kind: kind.from_dict(value)),
    ):
        converter.register_unstructure_hook_func(fits, there)
        converter.register_structure_hook_func(fits, back)
    return converter


def pack(value: Any, kind: Any = None) -> Packed:
    """Take a value apart: dataclasses, named tuples, containers, numbers, text and arrays.

    Anything else in it is a TypeError. `kind` is the type to write it as, where that is wider than its own.

    Examples
    --------
    >>> packed = pack(Dual.proved(np.array([3.0, 4.0]), 10.0, 0.0))
    >>> packed.text
    '{"vector": {"array": "0"}, "proved": [10.0, 0.0], "n_folded": 0}'
    >>> unpack(packed, Dual).mass
    10.0
    """
    arrays: dict[str, NDArray[Any]] = {}

    def aside(found: Any) -> dict[str, str]:
        if not isinstance(found, np.ndarray | np.generic):
            raise TypeError(f"{type(found).__name__} cannot be written")
        arrays[str(len(arrays))] = np.asarray(found)
        return {PLACE: str(len(arrays) - 1)}

    tree = _converter().unstructure(value, unstructure_as=kind)
    return Packed(json.dumps(tree, default=aside), arrays)


def unpack(packed: Packed, kind: type[Kind]) -> Kind:
    """Put a value of type `kind` together again; a ValueError if what was written is no such value."""

    def back(entry: dict[str, Any]) -> Any:
        return packed.arrays[entry[PLACE]] if entry.keys() == {PLACE} else entry

    try:
        return _converter().structure(json.loads(packed.text, object_hook=back), kind)  # type: ignore[no-any-return]
    except Exception as error:  # cattrs raises groups of whatever went wrong inside
        if refused := _refusal(error):
            raise refused from error
        raise ValueError(f"no {getattr(kind, '__name__', kind)}: {type(error).__name__}: {error}") from error


def _refusal(error: BaseException) -> RefusedError | None:
    """Return what a class refused in words, if that is what an error came of."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _refusal(each))), None)
    return error if isinstance(error, RefusedError) else None


DIGEST = "digest"
"""What a file's other arrays come to: whoever changed one of them changed the proofs that a run goes on from."""


def digest_of(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a digest of arrays, their names, types and shapes.

    Examples
    --------
    >>> digest_of({"a": np.zeros(2)}).size, bool((digest_of({}) == digest_of({"a": np.zeros(2)})).all())
    (32, False)
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def write(path: Path, parts: Mapping[str, Packed]) -> None:
    """Write values into one NPZ file, whole or not at all: to a neighbour first, which then takes the name."""
    held: dict[str, NDArray[Any]] = {}
    for name, packed in parts.items():
        held[name] = np.frombuffer(packed.text.encode(), dtype=np.uint8)
        held |= {f"{name}/{place}": array for place, array in packed.arrays.items()}
    held[DIGEST] = digest_of(held)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            np.savez(file, **held)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def digest_in(path: Path) -> str:
    """Return the digest that a file says it has, a text; none of one that is damaged, which `read` refuses."""
    try:
        with path.open("rb") as file, np.load(file) as held:  # NumPy would leave a damaged one open
            return bytes(held[DIGEST]).hex()
    except Exception:  # noqa: BLE001  zipfile and NumPy raise whatever goes wrong inside
        return ""


def read(content: bytes, source: str) -> dict[str, Packed]:
    """Return what `write` wrote, from the content of its file; a ValueError, of this `source`, if it is damaged."""
    again = "start the run afresh"
    try:
        arrays = arrays_of(content, source)
    except ValueError as error:
        raise ValueError(f"{error}: {again}") from error
    digest = arrays.pop(DIGEST, None)
    if digest is None or not np.array_equal(digest, digest_of(arrays)):
        raise ValueError(f"{source} was changed since it was written, or is of another version of localgd: {again}")
    try:
        parts = {name: Packed(bytes(text).decode(), {}) for name, text in arrays.items() if "/" not in name}
        for name, array in arrays.items():
            part, slash, place = name.partition("/")
            if slash:
                parts[part].arrays[place] = array
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{source} cannot be read ({error}); it is of another format: {again}") from error
    return parts
