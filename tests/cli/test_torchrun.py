"""``torchrun -m localgd``: the same command in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import assert_same_outcome, localgd, outcome
from common import OTHER_ORDER
from localgd import load

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(n_processes, *words, **options):
    command = [*TORCHRUN, str(n_processes), "-m", "localgd", *map(str, words)]
    options = {"capture_output": True, "text": True, "timeout": 300, "env": ENVIRONMENT} | options
    return subprocess.run(command, check=False, **options)


@pytest.mark.processes
@pytest.mark.parametrize("method", [["--method", "local-gd"], ["--C", "1"], []], ids=["local-gd", "newton", "auto"])
def test_several_processes_make_the_model_that_one_makes(method, sites, tmp_path):
    words = ["train", sites, "--label", "outcome", "--n-rounds", "60", *method]
    assert localgd(*words, "--out", tmp_path / "ONE").returncode == 0
    done = torchrun(3, *words, "--out", tmp_path / "THREE")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1, "one process speaks for all"
    (w, history), (expected, rows) = (outcome(tmp_path / name) for name in ("THREE", "ONE"))
    np.testing.assert_allclose(w, expected, rtol=1e-6)
    if method:  # of auto's interior point, the last bits of a sum decide whether a step is guessed well
        assert history["floats_up"].to_list() == rows["floats_up"].to_list()
        np.testing.assert_allclose(history["loss"], rows["loss"], rtol=OTHER_ORDER)


def test_a_process_opens_the_files_of_its_own_nodes_only(sites):
    (sites / "south.csv").write_bytes(b"\xff\xfe no table at all")
    tables = load(sites, label="outcome", nodes=["north", "west"])
    assert [table.node_id for table in tables] == ["north", "west"]
    with pytest.raises(ValueError, match=r"nodes='nroth' is not a node of .*did you mean 'north'"):
        load(sites, label="outcome", nodes=["nroth"])


def workers(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.processes
def test_processes_that_are_killed_go_on_with_the_same_bits(sites, tmp_path):
    words = ["train", sites, "--label", "outcome", "--method", "modified-local-gd", "--n-rounds", "400"]
    assert torchrun(2, *words, "--out", tmp_path / "CALM").returncode == 0
    command = [*TORCHRUN, "2", "-m", "localgd", *map(str, words)]
    run, server = tmp_path / "RUN", tmp_path / "RUN.partial" / "checkpoint" / "server.npz"
    with subprocess.Popen(
        [*command, "--out", str(run), "--checkpoint-rounds", "3"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    ) as process:
        until = time.monotonic() + 60
        while not server.is_file() and time.monotonic() < until:
            time.sleep(0.01)
        for pid in [process.pid, *workers(process.pid)]:  # its workers are in sessions of their own
            os.kill(pid, signal.SIGKILL)
    assert server.is_file()
    assert not run.exists()
    resumed = torchrun(2, "resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(run, tmp_path / "CALM")


@pytest.mark.processes
def test_what_is_wrong_at_one_process_is_told_and_ends_all(sites, tmp_path):
    frame = pl.read_csv(sites / "south.csv").with_columns(age=pl.lit("old"))
    frame.write_csv(sites / "south.csv")
    done = torchrun(3, "train", sites, "--label", "outcome", "--out", tmp_path / "RUN", timeout=200)
    assert done.returncode != 0
    assert "error: column 'age'" in done.stderr
    assert not (tmp_path / "RUN.partial").exists()
    done = torchrun(4, "train", sites, "--label", "outcome")
    assert "error: 4 processes for 3 nodes: start at most one process a node" in done.stderr


@pytest.mark.processes
def test_what_process_0_alone_finds_is_said_by_all(sites, tmp_path):
    done = torchrun(2, "resume", tmp_path / "nowhere")
    assert done.stderr.count("nowhere is no run folder") == 2
    assert "another process" not in done.stderr
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "notes.txt").write_text("mine")
    done = torchrun(2, "train", sites, "--label", "outcome", "--out", tmp_path / "RUN")
    assert done.stderr.count("RUN exists already and is not a run folder") == 2
    assert "another process" not in done.stderr


def test_torch_without_torchrun_says_how_to_start(sites):
    done = localgd("train", sites, "--label", "outcome", "--engine", "torch")
    assert done.returncode == 2
    assert "error: --engine torch" in done.stderr
    assert "torchrun --nproc-per-node" in done.stderr


@pytest.mark.processes
def test_several_processes_fit_numbers_as_one_does(sites, tmp_path):
    words = ["train", sites, "--label", "age", "--task", "regression"]
    assert localgd(*words, "--out", tmp_path / "ONE").returncode == 0
    done = torchrun(3, *words, "--out", tmp_path / "THREE")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(outcome(tmp_path / "THREE")[0], outcome(tmp_path / "ONE")[0], rtol=1e-7)
