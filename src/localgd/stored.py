"""Files that anybody may have written or damaged: read whole as JSON or arrays, or refused in words."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MOST_BYTES = 2**32
"""A file beyond, or arrays that unpack to more, are no model and no checkpoint of anybody's."""

MOST_DEPTH = 50
"""Lists and objects in each other, in JSON that anybody means."""


def content_of(path: Path) -> bytes:
    """Return what is in a file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no plain file, such as a pipe that would keep the reader waiting, or cannot be read, or is too large.

    Examples
    --------
    >>> content_of(Path("/dev/null"))
    Traceback (most recent call last):
    ValueError: /dev/null is no plain file; give one that can be read from its beginning to its end
    """
    try:
        with ExitStack() as opened:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would not open
            opened.callback(os.close, handle)
            held = os.fstat(handle)
            if not stat.S_ISREG(held.st_mode):
                raise ValueError(f"{path} is no plain file; give one that can be read from its beginning to its end")
            if held.st_size > MOST_BYTES:
                raise ValueError(f"{path} has {held.st_size:,} bytes, which nobody means to read into memory")
            with open(handle, "rb", closefd=False) as file:
                return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


def parsed(content: bytes | str, source: object) -> Any:
    """Return what JSON says, where every key of an object is said once, and every number is one.

    Raises
    ------
    ValueError
        If it is no JSON, says a key twice, NaN or Infinity, or is nested too deeply; names the source.

    Examples
    --------
    >>> parsed('{"C": 1, "C": 2}', "model.json")
    Traceback (most recent call last):
    ValueError: model.json is damaged: it says 'C' twice
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return _of_depth(json.loads(text, object_pairs_hook=_said_once, parse_constant=_no_number))
    except RecursionError:
        raise ValueError(f"{source} is damaged: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is no JSON ({error})") from error
    except ValueError as error:
        raise ValueError(f"{source} is damaged: {error}") from error


def _of_depth(tree: Any) -> Any:
    """Return what nobody nests too deeply, as recursion further on would not survive it."""
    level = [tree]
    for _ in range(MOST_DEPTH):
        inside = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [part for parts in inside for part in parts if isinstance(part, dict | list)]
        if not level:
            return tree
    raise ValueError("it is nested too deeply")


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r:.80} twice")
    return entries


def _no_number(name: str) -> Any:
    raise ValueError(f"it says {name} where a finite number is meant")


def read_json(path: Path) -> Any:
    """Return what a JSON file says; errors are those of `content_of` and `parsed`."""
    return parsed(content_of(path), path)


def write_json(path: Path, entries: Any) -> None:
    """Write a JSON file whole or not at all: to a neighbour first, which then takes the name.

    There is no NaN and no Infinity in it, which other languages' JSON readers refuse.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(entries, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def arrays_of(content: bytes, source: object) -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file by name, from its content; nothing is unpickled.

    Raises
    ------
    ValueError
        If it is damaged, holds what is no array of numbers or texts, or an array claims more than there is.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = packed.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("it holds two arrays of one name")  # noqa: TRY301  all of it is told as one kind
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise ValueError("its arrays unpack to more than anybody means to read into memory")  # noqa: TRY301
            return {entry.filename.removesuffix(".npy"): _array(packed.read(entry)) for entry in entries}
    except Exception as error:  # zipfile and NumPy raise whatever goes wrong inside
        raise ValueError(f"{source} cannot be read ({error}); it is damaged, or of another format") from error


def _array(content: bytes) -> NDArray[Any]:
    """Return the array of an NPY file, which has to be as long as its header says."""
    file = io.BytesIO(content)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, fortran, dtype = readers[npy.read_magic(file)](file)
    rest = memoryview(content)[file.tell() :]
    count = 1
    for size in shape:
        count *= size
    if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize != len(rest):
        raise ValueError(f"an array claims to hold {shape} of {dtype}, and {len(rest)} bytes are there")
    array = np.frombuffer(rest, dtype=dtype, count=count).reshape(shape, order="F" if fortran else "C")
    return array.copy()
