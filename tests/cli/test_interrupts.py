"""Ctrl-C and SIGTERM: answered by whoever can, in one line, at any time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from command import LOCALGD, localgd, outcome
from common import random_rows
from localgd import InProcess, local_gd, train
from localgd.report.interrupts import INTERRUPTS
from localgd.report.progress import Progress
from localgd.run.whole import whole

BUSY = """
import sys, numpy as np, signal
from localgd.report.interrupts import INTERRUPTS
from localgd.run.whole import whole
from pathlib import Path
with INTERRUPTS.answered(), whole(Path(sys.argv[1])) as fresh:
    fresh.write_text("half of it")
    rows = np.random.default_rng(0).normal(size=(2500, 2500))
    print("BUSY", flush=True)
    np.linalg.svd(rows)  # seconds, in which Python takes no step
    print("DONE", flush=True)
"""


IN_A_CALLBACK = """
import signal, time, weakref
from localgd.report.interrupts import INTERRUPTS
class Thing: ...
thing = Thing()
seen = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
with INTERRUPTS.answered():
    del thing
    time.sleep(20)
"""


def test_a_signal_where_python_cannot_raise_is_answered_in_a_line():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once_and_is_told(number):
    before = signal.getsignal(number)
    with INTERRUPTS.answered(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert INTERRUPTS.number == number
    assert signal.getsignal(number) == before


def test_who_can_end_in_order_is_asked_first_and_the_second_time_is_the_last():
    asked = []

    def orderly(number):
        asked.append(number)
        return len(asked) == 1

    with INTERRUPTS.answered(), INTERRUPTS.answered(orderly):
        signal.raise_signal(signal.SIGINT)
        assert INTERRUPTS.number is None
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert asked == [signal.SIGINT, signal.SIGTERM]


def test_a_round_is_finished_but_there_is_none_before_the_first():
    with Progress(quiet=True) as progress:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert progress.interrupted is None
    with Progress(quiet=True) as progress:
        progress.begin(10)
        signal.raise_signal(signal.SIGINT)
        assert progress.interrupted == signal.SIGINT


def test_a_signal_in_the_middle_of_a_line_is_said_after_the_round(monkeypatch):
    """Python refuses to write to a stream that is being written to: that must not end the run."""
    said = []

    def print_(line, **_):
        said.append(line)
        if len(said) == 1:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    with Progress() as progress:
        progress.begin(10)
        monkeypatch.setattr(progress._console, "print", print_)
        signal.raise_signal(signal.SIGINT)
        assert progress.interrupted == signal.SIGINT
        run = train(InProcess(random_rows(1)), local_gd(), n_rounds=9, on_round=progress.on_round)
    assert run.n_rounds == 1
    assert [line.partition(":")[0] for line in said] == ["interrupted"] * 2


def test_a_file_is_whole_or_not_there(tmp_path):
    def write():
        with INTERRUPTS.answered(), whole(tmp_path / "a.txt") as fresh:
            fresh.write_text("half of it")
            signal.raise_signal(signal.SIGINT)

    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_a_process_that_takes_no_step_of_python_is_ended_and_leaves_no_half_of_a_file(tmp_path):
    command = [sys.executable, "-c", BUSY, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "BUSY\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A table that takes some time to read, and a model for it."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    X = rng.normal(size=(50_000, 30)).round(3)
    columns = {f"x{j}": X[:, j] for j in range(30)} | {
        "y": (X[:, 0] > 0).astype(int),
        "site": rng.integers(0, 5, 50_000),
    }
    pl.DataFrame(columns).write_csv(folder / "rows.csv")
    pl.DataFrame(columns).head(500).write_csv(folder / "few.csv")
    where = ("--label", "y", "--node", "site", "--C", "1")
    done = localgd("train", folder / "few.csv", *where, "--out", folder / "made" / "on the way" / "RUN")
    assert done.returncode == 0, done.stderr
    assert outcome(folder / "made" / "on the way" / "RUN")[0].size == 31
    return folder


@pytest.mark.processes
@pytest.mark.parametrize("moment", [0.2, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("name", ["train", "compare", "certify", "evaluate", "predict", "demo", "reproduce"])
def test_every_command_answers_at_any_moment(name, moment, many, tmp_path):
    run, rows = str(many / "made" / "on the way" / "RUN"), str(many / "rows.csv")
    where = [rows, "--label", "y", "--node", "site"]
    words = {
        "train": [*where, "--C", "1", "--out", str(tmp_path / "RUN")],
        "compare": [*where, "--C", "1", "--out", str(tmp_path / "COMPARED")],
        "certify": [run, *where],
        "evaluate": [run, *where, "--out", str(tmp_path / "metrics.json")],
        "predict": [run, rows, "--proba", "--out", str(tmp_path / "labels.csv")],
        "demo": [],
        "reproduce": ["rate-law", "--quick", "--n-jobs", "1", "--out", str(tmp_path / "SCIENCE")],
    }[name]
    with subprocess.Popen(
        [*LOCALGD, name, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        return  # it was done before that
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert last_word(errors) in {"interrupted", "stopped"}
    if (metrics := tmp_path / "metrics.json").exists():  # the signal came after the work: what is there is whole
        assert json.loads(metrics.read_text())
        metrics.unlink()
    assert {path.name for path in tmp_path.iterdir()} <= {"SCIENCE", "COMPARED", "RUN", "RUN.partial"}


def last_word(errors: str) -> str:
    """Return the first word of the last line."""
    return errors.splitlines()[-1].partition(":")[0]
