"""Which files a run was trained on: its folder keeps their digests, by which rows that come later are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from localgd.data.files import format_of
from localgd.errors import listing, shown
from localgd.run import folder as record

Use = Literal["certify", "evaluate", "calibrate"]
"""What rows are taken for, after the training."""

_MEANS = {
    "evaluate": "which flatter it; judge by others",
    "calibrate": "of which it is too sure, so its probabilities will be optimistic; calibrate on others",
}
"""What it means that a model was trained on the rows that it is judged by, or given probabilities from."""


def config_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run folder keeps of how the run was begun, from anywhere: flags, versions and digests of files."""
    data = str(Path(flags["data"]).resolve()) if Path(flags["data"]).exists() else flags["data"]
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    files = {path.name: digest for path, digest in digests(data).items()}
    return {"flags": {**plain, "data": data}, "files": files, "versions": record.versions("localgd", "numpy")}


def digests(data: str) -> dict[Path, str]:
    """Return a digest of each file of rows that is there by this name: a file, or those in a folder.

    It is of the file as a whole and holds none of its rows. Whoever knows the file knows its digest, and learns from a
    run folder that it was trained on, as the coefficients tell them, too.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for name, content in (("a.csv", "x,y"), ("b.csv", "x,y"), ("c.csv", "x,z"), ("README.md", "x,y")):
    ...         _ = Path(place, name).write_text(content)
    ...     found = {path.name: digest for path, digest in digests(place).items()}
    >>> sorted(found), found["a.csv"] == found["b.csv"] != found["c.csv"], len(found["a.csv"])
    (['a.csv', 'b.csv', 'c.csv'], True, 32)
    """
    place, out = Path(data), {}
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
        if path.is_file() and format_of(path) is not None and not path.name.startswith("."):
            with path.open("rb") as file:
                out[path] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return out


def same_data(data: str, flags: Mapping[str, Any]) -> bool:
    """Return whether rows go by the name of those that a run was trained on."""
    return flags.get("data") in {data, str(Path(data).resolve())}


def doubt(data: str, run: record.Remembered, use: Use) -> list[str]:
    """Return in a line at most what to know of rows of a run when they are taken again.

    Rows are known by their files: another copy of one is told, and part of one, or its rows in another format, are not.
    """
    if not run.flags:
        return []
    here, own = digests(data) if run.files else {}, Path(str(run.flags.get("data")))
    known = [path for path, digest in here.items() if digest in run.files.values()]
    changed = [path for path in here if path not in known and path.resolve() in {own, own / path.name}]
    if known or (same_data(data, run.flags) and not here):
        which = "these rows" if len(known) == len(here) else f"the rows of {_named(known)}"
        return _known(run.flags, which, use)
    if changed and use != "certify":
        return [f"{_named(changed)} changed since the model was trained on the rows there, {_MEANS[use]}"]
    return []


def _known(flags: Mapping[str, Any], which: str, use: Use) -> list[str]:
    """Return what to say of rows that are known; nothing where all is as it was."""
    if flags.get("holdout") is None:
        return [] if use == "certify" else [f"the model was trained on {which}, {_MEANS[use]}"]
    said = f"all rows count here, those that the run set aside (--holdout {flags['holdout']}), too"
    alone = "`localgd train --holdout` tells" if "cv" in flags else "see its metrics.json"  # tune judges by none
    more = {
        "certify": "",
        "evaluate": f": of what they say alone, {alone}",
        "calibrate": f"; the others are rows {_MEANS['calibrate']}",
    }
    return [said + more[use]]


def _named(paths: list[Path]) -> str:
    return listing(shown(path.name) for path in paths)
