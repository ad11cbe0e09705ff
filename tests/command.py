"""Running the command, in this process or in one of its own, and a table to run it on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from localgd import cli

LOCALGD = [str(Path(sys.executable).with_name("localgd"))]

FILES = {"config.json", "history.csv", "model.json", "coefficients.csv", "certificate.json"}
OPEN = FILES | {"checkpoint"}
"""What a run leaves that was interrupted, or ended because its rounds were used up: it can go on."""
TRAIN = ("--label", "outcome", "--node", "site", "--n-rounds", "60", "--method", "local-gd", "--local-steps", "20")


def localgd(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, and return its exit code and what it printed; nothing of it stays."""
    argv = [str(word) for word in words]
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        if cwd is not None:
            patch.chdir(cwd)
        if env is not None:
            for name in os.environ.keys() - env.keys():
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
        code = cli.main(argv)
    told = [stream.buffer.getvalue().decode() for stream in (out, errors)]
    return subprocess.CompletedProcess(["localgd", *argv], code, *told)


def instead(words: Sequence[str], **values: object) -> tuple[str, ...]:
    """Return the words of a command with other values of its flags: `n_rounds=5` is of ``--n-rounds``."""
    out = list(words)
    for name, value in values.items():
        out[out.index(f"--{name.replace('_', '-')}") + 1] = str(value)
    return tuple(out)


def found_in(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what a command found, from its JSON: all of it but what is noted of how the rows were named and asked."""
    assert done.returncode == 0, done.stderr
    return {name: value for name, value in json.loads(done.stdout).items() if name not in {"notes", "goal_met"}}


def spawned(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, where that process is what is asked about."""
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
