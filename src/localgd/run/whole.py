"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

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
        If what lies on the way to it is no folder, or one that cannot be written.

    Examples
    --------
    >>> check_place(Path(__file__, "A"))
    Traceback (most recent call last):
    FileExistsError: --out ...: ...whole.py is a file, not a folder; choose another name
    """
    above = path.absolute().parents or [Path(path.absolute().anchor)]  # nothing is above /
    place = next(folder for folder in above if folder.exists() or folder.is_symlink())
    if not place.is_dir():
        raise FileExistsError(f"{flag} {path}: {place} is a file, not a folder; choose another name")
    try:
        with TemporaryFile(dir=place):  # what is allowed may be impossible still, as in /proc
            pass
    except OSError as error:
        allowed = os.access(place, os.W_OK)
        why = f"nothing can be written ({error.strerror})" if allowed else "no permission to write"
        raise PermissionError(f"{flag} {path}: {why} in {place}; choose another place") from error


def discard_begun() -> None:
    """Take away what is not whole yet: the process is about to end in the middle of it."""
    for fresh in tuple(_BEGUN):
        fresh.unlink(missing_ok=True)
