"""Runs that are stopped or killed: what is done is kept, no process lives on, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toys
from localgd.experiments.reproduce import Interrupted
from toys import Silent, grid, kept, run, toy


class Impatient(Silent):
    """Asks to stop after the first cell."""

    def advance(self):
        super().advance()
        self.interrupted = signal.SIGTERM


def test_a_wish_to_stop_ends_what_runs_and_keeps_what_is_done(tmp_path):
    sleepy = toy("toy", toys.sleeper, quick=grid(1, 2, 3, 4))
    with pytest.raises(Interrupted, match=r"stopped: [1-3] of 4 cells are kept; the same command goes on"):
        run(tmp_path / "OUT", sleepy, n_jobs=2, watcher=Impatient())
    n_kept = len(kept(tmp_path / "OUT"))
    assert n_kept >= 1
    results, watcher = run(tmp_path / "OUT", toy(quick=grid(1, 2, 3, 4)))
    assert watcher.counts == (4, n_kept)
    assert results[0].word == "holds with limits"


def test_a_wish_to_stop_in_one_process_keeps_the_cell_that_is_done(tmp_path):
    with pytest.raises(Interrupted, match="stopped: 1 of 4 cells are kept; the same command goes on"):
        run(tmp_path / "OUT", toy(quick=grid(1, 2, 3, 4)), watcher=Impatient())
    assert len(kept(tmp_path / "OUT")) == 1


N_SLOW = 12


def started(out):
    """A real run of slow cells in its own group, a few of them done."""
    words = [sys.executable, toys.__file__, str(out), str(N_SLOW)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while len(kept(out, "slow")) < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_stop_cleanly_and_say_how_to_go_on(tmp_path, number):
    process = started(tmp_path / "OUT")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the workers too
    else:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert errors.splitlines()[0] == f"{N_SLOW} cells, none kept from before"
    assert f"of {N_SLOW} cells are kept; the same command goes on from there" in errors
    assert output == ""
    assert not (tmp_path / "OUT" / "slow").exists()


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the workers")
def test_after_kill_9_no_worker_lives_on_and_the_next_run_goes_on(tmp_path):
    process = started(tmp_path / "OUT")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    process.kill()
    process.wait(timeout=60)
    for stream in (process.stdout, process.stderr):
        stream.close()
    end = time.monotonic() + 30
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.1)
    n_kept = len(kept(tmp_path / "OUT", "slow"))
    done = subprocess.run(
        [sys.executable, toys.__file__, str(tmp_path / "OUT"), str(N_SLOW)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"{N_SLOW} cells, {n_kept} of them kept from before" in done.stderr
    assert done.stdout.startswith("holds with limits")
    assert len(kept(tmp_path / "OUT", "slow")) == N_SLOW


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
