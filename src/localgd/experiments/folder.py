"""What ``localgd reproduce`` leaves on disk; every file is written whole or not at all.

OUT/index.html                     all claims, figures and verdicts on one page
    reproduce.json                 says that this folder is reproduce's own
    cells/NAME/KEY.parquet         one file per cell, to go on from
    NAME/rows.csv, rows.parquet    the rows of all cells with their params
    NAME/figure.png, figure.svg
    NAME/verdict.json              the verdict and every check behind it
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from localgd.experiments.cells import Cell, code_digest, made_here, versions
from localgd.experiments.claim import Experiment, Result, Verdict
from localgd.report import figure
from localgd.run.whole import check_place, whole

MARKER = "reproduce.json"
MAKER = {"made by": "localgd reproduce"}
FILES = ("rows.csv", "rows.parquet", "figure.png", "figure.svg", "verdict.json")


def take(out: Path) -> None:
    """Make the folder ours, or go on in one that is.

    Raises
    ------
    FileExistsError
        If it holds something else, or a file lies on the way to it.
    PermissionError
        If it may not be made where it is to be; folders on the way to it are.
    """
    check_place(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; choose another name")
    out.mkdir(parents=True, exist_ok=True)
    marker, ours = out / MARKER, False
    with suppress(OSError, ValueError):
        ours = json.loads(marker.read_text(encoding="utf-8")) == MAKER
    if not ours:
        if any(out.iterdir()):
            raise FileExistsError(
                f"--out {out} holds something that localgd reproduce did not write ({min(out.iterdir()).name}); "
                "choose a new or empty folder"
            )
        _write_json(marker, MAKER)


def write(out: Path, experiment: Experiment, cells: list[Cell], frame: pl.DataFrame, *, quick: bool) -> Verdict:
    """Judge and draw the rows of an experiment, write its folder and return the verdict."""
    verdict = experiment.verdict(frame)
    folder = out / experiment.name
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fresh-", dir=folder) as made:
        fresh = Path(made)
        frame.write_csv(fresh / "rows.csv")
        facts = {"experiment": experiment.name, **made_here(), **versions(experiment.module)}
        frame.write_parquet(fresh / "rows.parquet", metadata=facts)
        figure.save(experiment.draw(frame), fresh / "figure")
        _write_json(fresh / "verdict.json", _verdict(experiment, verdict, cells, quick=quick))
        for name in FILES:
            (fresh / name).replace(folder / name)
    return verdict


def kept(out: Path, experiment: Experiment) -> Result | None:
    """Return what an earlier run of this very code found, judged anew from its rows; None if there is nothing."""
    folder = out / experiment.name
    try:
        found = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        if found.get("code") != code_digest():
            return None
        frame = pl.read_parquet(folder / "rows.parquet")
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None
    n_cells, quick = int(found["cells"]), bool(found["quick"])
    return Result(experiment, n_cells, experiment.verdict(frame), quick=quick, earlier=True)


def write_failure(out: Path, experiment: Experiment, fault: str, *, quick: bool, word: str = "failed") -> None:
    """Say on disk that the experiment failed or was skipped, and take away what an earlier run found."""
    folder = out / experiment.name
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    _write_json(folder / "verdict.json", _named(experiment) | {"word": word, "text": fault, "quick": quick})


def _named(experiment: Experiment) -> dict[str, Any]:
    return {name: getattr(experiment, name) for name in ("name", "title", "claim", "source")}


def _verdict(experiment: Experiment, verdict: Verdict, cells: list[Cell], *, quick: bool) -> dict[str, Any]:
    names = ("what", "measured", "limit", "sense", "passes", "limits")
    checks = [{name: _plain(getattr(check, name)) for name in names} for check in verdict.checks]
    made = {"quick": quick, "cells": len(cells), "seeds": sorted({cell.seed for cell in cells}), "code": code_digest()}
    said = {"word": str(verdict.word), "text": str(verdict), "checks": checks}
    return _named(experiment) | said | made | {"versions": dict(versions(experiment.module))}


def _plain(value: Any) -> Any:
    """Return a value that JSON knows: no NaN or infinity, no NumPy scalar."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, entries: Mapping[str, Any]) -> None:
    with whole(path) as fresh:
        fresh.write_text(json.dumps(entries, indent=1, allow_nan=False) + "\n", encoding="utf-8")
