"""Cells: one point of an experiment's grid, kept on disk under a name that says exactly what made it.

The name is a digest of experiment, params, seed, every file of this package and the versions of what it computes with.
So a cell is either there, made by this very code, or it is computed again: results of other code are never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.linalg  # noqa: F401  loaded before its threads are limited
from threadpoolctl import threadpool_limits

from localgd.experiments.claim import Experiment, Params, Rows
from localgd.run import folder
from localgd.run.whole import whole

LEFTOVER_SECONDS = 60.0
"""A half-written file that has not grown for so long belongs to a run that was killed."""


@dataclass(frozen=True)
class Cell:
    """One point of an experiment's grid, and the file its rows are kept in, which is named by the cell's key."""

    experiment: Experiment
    params: Params
    path: Path

    def __str__(self) -> str:
        """Return the experiment and the params, as error messages and the progress bar name it."""
        return f"{self.experiment.name} ({', '.join(f'{name}={value}' for name, value in self.params.items())})"

    @property
    def seed(self) -> int:
        """The seed of the cell."""
        return self.experiment.seed(self.params)

    def read(self) -> pl.DataFrame | None:
        """Return the rows kept on disk; None if there are none, or the file is damaged."""
        try:
            frame = pl.read_parquet(self.path)
        except (OSError, pl.exceptions.PolarsError):
            return None
        return frame if frame.height else None


def cells(experiment: Experiment, grid: Sequence[Params], store: Path) -> list[Cell]:
    """Return the cells of a grid, in its order.

    Raises
    ------
    ValueError
        If the grid is empty or names a cell twice.
    """
    folder = store / experiment.name
    found = [Cell(experiment, params, folder / f"{key(experiment, params)}.parquet") for params in grid]
    if not found:
        raise ValueError(f"experiment {experiment.name!r} has no cells")
    twice = [cell for i, cell in enumerate(found) if cell.path in {other.path for other in found[:i]}]
    if twice:
        raise ValueError(f"{twice[0]} is in its grid twice")
    return found


def key(experiment: Experiment, params: Params) -> str:
    """Return the name under which a cell's rows are kept."""
    made = [experiment.name, dict(params), experiment.seed(params), code_digest(), versions(experiment.module)]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:32]


def digest_now() -> str:
    """Return a digest of every file of the package: code, compiled kernels' sources and bundled data."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


code_digest = cache(digest_now)
"""The digest of the package as it was when first asked for in this process."""


@cache
def versions(module: str | None = None) -> Mapping[str, str]:
    """Return the versions of everything the numbers depend on; `module` is that of an extra."""
    more = [module] if module else []
    return folder.versions("localgd", "numpy", "scipy", "numba", "polars", "scikit-learn", *more)


def made_here() -> dict[str, str]:
    """Return what computes, which may change last bits and how long all takes, and date and time to the second."""
    on = {"machine": platform.platform(), "processor": platform.machine(), "cores": str(os.cpu_count())}
    return on | {"date": datetime.now(UTC).isoformat(timespec="seconds")}


def measure(run: Callable[[Any, int], Rows], params: Params, seed: int, path: Path, code: str) -> str | None:
    """Run a cell on one thread and keep its rows; return the traceback if it fails, for another process to show.

    Raises
    ------
    OSError
        If the rows cannot be written: no fault of the experiment, and a reason to stop.
    """
    try:
        with threadpool_limits(limits=1):
            rows = run(params, seed)
        if digest_now() != code:
            raise RuntimeError("the source of localgd changed during the run; start it again")  # noqa: TRY301
        frame = tabled(params, seed, rows)
    except Exception:  # noqa: BLE001  whatever an experiment raises must not end the others
        return traceback.format_exc()
    with whole(path) as fresh:
        frame.write_parquet(fresh)
    return None


def tabled(params: Params, seed: int, rows: Rows) -> pl.DataFrame:
    """Return rows as a table with every param, and the seed, as a further column.

    Raises
    ------
    ValueError
        If there are no rows, or a row has a key that is a param's name.

    Examples
    --------
    >>> tabled({"eta": 0.5}, 7, [{"round": 1, "angle": None}, {"round": 2, "angle": 3.5}]).rows()
    [(0.5, 7, 1, None), (0.5, 7, 2, 3.5)]
    """
    if "seed" in params:
        raise ValueError("a param is named 'seed', but that column holds the cell's seed; rename it")
    if not rows:
        raise ValueError("the cell measured nothing: it returned no rows")
    given = {**params, "seed": seed}
    clashes = sorted({name for row in rows for name in row} & set(given))
    if clashes:
        raise ValueError(f"rows have {clashes}, but params (or the seed) have that name already; rename the row's key")
    plain = [
        given | {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
        for row in rows
    ]
    return pl.DataFrame(plain, infer_schema_length=None)


def prune(folder: Path, keep: set[Path]) -> None:
    """Delete cells that other code made, and what killed runs left half written; nothing else."""
    for path in folder.glob("*.parquet"):
        if path not in keep and _is_key(path.stem):
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        if _is_key(path.name[1:33]) and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
            path.unlink(missing_ok=True)


def _is_key(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")
