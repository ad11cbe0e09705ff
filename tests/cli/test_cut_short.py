"""Disks that are full, signals, readers that go away: the command loses nothing."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time

import polars as pl
import pytest

from command import LOCALGD, OPEN, TRAIN, instead, spawned
from localgd.data.model import Model

pytestmark = pytest.mark.processes


def small_files():
    """No file above 2 kB can be written: what a full disk does to the history and the figure."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_loses_neither_the_old_run_nor_the_new_model(run, table):
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    done = spawned("train", table, *TRAIN, "--lr", "0.01", "--out", run, "--force", preexec_fn=small_files)
    assert done.returncode == 1
    assert "could not write" in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before
    assert {path.name for path in run.parent.iterdir()} == {"patients.csv", "RUN"}
    printed = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert len(printed["coef"]) == 5


def test_ctrl_c_finishes_the_round_and_writes_the_run(table, tmp_path):
    words = [*LOCALGD, "train", str(table), *instead(TRAIN, n_rounds=1_000_000, local_steps=10)]
    words += ["--out", str(tmp_path / "RUN")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("round 50:"):
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "written to" in output
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN


def test_ctrl_c_while_nodes_are_left_out_keeps_the_run_and_judges_nothing(table, tmp_path):
    words = [*LOCALGD, "train", str(table), *instead(TRAIN, n_rounds=300, local_steps=2000), "--leave-one-node-out"]
    with subprocess.Popen([*words, "--out", str(tmp_path / "RUN")], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("training once without each of 3 nodes"):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN


def test_sigterm_writes_the_run_too(table, tmp_path):
    words = [*LOCALGD, "train", str(table), *instead(TRAIN, n_rounds=1_000_000)]
    with subprocess.Popen([*words, "--out", str(tmp_path / "RUN")], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("round 20:"):
                break
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN


def test_an_interrupt_in_the_first_round_keeps_that_round(table, tmp_path):
    words = [*LOCALGD, "train", str(table), *instead(TRAIN, local_steps=300_000)]
    with subprocess.Popen([*words, "--out", str(tmp_path / "RUN")], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "nodes," in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert pl.read_csv(tmp_path / "RUN" / "history.csv")["round"][-1] >= 1
    assert Model.load(tmp_path / "RUN").coef.any()


def test_a_reader_that_goes_away_does_not_lose_the_run(table, tmp_path):
    line = f"{LOCALGD[0]} train {table} {' '.join(TRAIN)} --out {tmp_path / 'RUN'} 2>&1 | head -1"
    subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, timeout=120)
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN


def test_two_runs_at_once_into_one_folder_overwrite_nothing(table, tmp_path):
    words = [*LOCALGD, "train", str(table), *TRAIN, "--out", str(tmp_path / "RUN")]
    pair = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate(timeout=120), process.returncode) for process in pair]
    codes = sorted(code for _, code in ends)
    assert codes[0] == 0
    assert codes[1] in (1, 2), "the second must say that it did not write there"
    loser = next(errors for (_, errors), code in ends if code != 0)
    told = ("exists already", "at work", "could not write")  # before it began, meanwhile, at its end
    assert any(words in loser for words in told), loser
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN
