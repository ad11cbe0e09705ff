"""Running the real command, and a table to run it on."""

from __future__ import annotations

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
