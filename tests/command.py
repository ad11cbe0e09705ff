"""Running the real command, and a table to run it on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

LOCALGD = [str(Path(sys.executable).with_name("localgd"))]


def localgd(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it printed."""
    options = {"capture_output": True, "text": True, "timeout": 300} | options
    return subprocess.run([*LOCALGD, *map(str, words)], check=False, **options)


def write_sites(folder: Path) -> Path:
    """Write the table of three sites as a file each."""
    folder.mkdir()
    for name, part in patients(n=300).partition_by("site", as_dict=True, include_key=False).items():
        part.write_csv(folder / f"{name[0]}.csv")
    return folder


def outcome(run: Path) -> tuple[Any, pl.DataFrame]:
    """Return the model of a run folder, and its history but for the seconds."""
    model = json.loads((run / "model.json").read_text())
    return np.array([*model["coef"], model["intercept"]]), pl.read_csv(run / "history.csv").drop("seconds")


def assert_same_outcome(run: Path, expected: Path) -> None:
    """Same bits of the model, and the same history."""
    (w, rows), (wanted, others) = outcome(run), outcome(expected)
    assert w.tolist() == wanted.tolist()
    assert rows.equals(others)


def patients(seed: int = 0, n: int = 60) -> pl.DataFrame:
    """Make a separable table of three sites with numbers and categories."""
    rng = np.random.default_rng(seed)
    age, marker = rng.normal(60, 10, n), rng.normal(0, 1, n)
    smoker = rng.choice(["yes", "no", "former"], n)
    score = 0.1 * (age - 60) + 2 * marker + (smoker == "yes")
    columns = {
        "age": age.round(1),
        "marker": marker.round(3),
        "smoker": smoker,
        "site": rng.choice(["north", "south", "west"], n),
        "outcome": np.where(score > 0, "ill", "well"),
    }
    return pl.DataFrame(columns).filter(pl.Series(np.abs(score) > 0.5))
