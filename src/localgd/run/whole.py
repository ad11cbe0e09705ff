"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BEGUN: set[Path] = set()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file to write beside `path`, which takes its place when all is written and is gone if anything fails.

    Folders on the way to it are made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "a.txt")) as fresh:
    ...         _ = fresh.write_text("all of it")
    ...     Path(folder, "a.txt").read_text()
    'all of it'
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    _BEGUN.add(fresh)
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
        _BEGUN.discard(fresh)


def check_place(path: Path, flag: str = "--out") -> None:
    """Refuse a file or folder that cannot be made where it is to be, before any work is done.

    Raises
    ------
    FileExistsError, PermissionError
        If what lies on the way to it is no folder, or one that may not be written.

    Examples
    --------
    >>> check_place(Path(__file__, "A"))
    Traceback (most recent call last):
    FileExistsError: --out ...: ...whole.py is a file, not a folder; choose another name
    """
    place = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    if not place.is_dir():
        raise FileExistsError(f"{flag} {path}: {place} is a file, not a folder; choose another name")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{flag} {path}: no permission to write in {place}")


def discard_begun() -> None:
    """Take away what is not whole yet: the process is about to end in the middle of it."""
    for fresh in tuple(_BEGUN):
        fresh.unlink(missing_ok=True)
