"""Real processes, really killed: what the command leaves, and what `localgd resume` makes of it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from command import LOCALGD, assert_same_outcome, localgd, spawned

METHODS = {
    "local-gd": ["--method", "local-gd", "--local-steps", "3"],
    "projections": ["--method", "modified-local-gd"],
    "consensus": ["--method", "consensus"],
}


def killed(words, after):
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(after)
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.processes
@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(method, sites, tmp_path):
    n_rounds = "60" if method == "consensus" else "300"
    words = ["train", str(sites), "--label", "outcome", "--n-rounds", n_rounds, *METHODS[method]]
    begin = time.perf_counter()
    assert spawned(*words, "--out", tmp_path / "CALM").returncode == 0
    whole = time.perf_counter() - begin
    rng = np.random.default_rng(len(method))
    cuts = 0
    for _ in range(2):
        run = tmp_path / "RUN"
        command = [*LOCALGD, *words, "--out", str(run), "--checkpoint-rounds", "3"]
        while not run.is_dir():
            cuts += killed(command, rng.uniform(0.3, 1.0) * whole)
            if run.is_dir():
                break
            started = (tmp_path / "RUN.partial" / "checkpoint" / "recipe.json").is_file()
            command = [*LOCALGD, "resume", str(run)] if started else [*command, "--force"]
            if cuts % 3 == 0:
                subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert_same_outcome(run, tmp_path / "CALM")
        assert not (tmp_path / "RUN.partial").exists()
        shutil.rmtree(run)
    assert cuts


def test_an_interrupted_run_is_whole_and_can_go_on(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--local-steps", "3"]
    assert localgd(*words, "--n-rounds", "1000", "--out", tmp_path / "CALM").returncode == 0
    run = tmp_path / "RUN"
    command = [*LOCALGD, *words, "--n-rounds", "1000", "--out", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("round 20:"):
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"it can go on: localgd resume {run}\n" in output
    assert pl.read_csv(run / "history.csv").height < 1000
    assert localgd("predict", run, sites / "north.csv").returncode == 0
    resumed = localgd("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(run, tmp_path / "CALM")


def test_a_run_out_of_rounds_goes_on_and_a_finished_one_says_that_it_is(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome"]
    plain = [*words, "--method", "local-gd", "--n-rounds"]
    assert localgd(*plain, "25", "--out", tmp_path / "CALM").returncode == 0
    assert localgd(*plain, "10", "--out", tmp_path / "RUN").returncode == 0
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "25").returncode == 0
    assert_same_outcome(tmp_path / "RUN", tmp_path / "CALM")
    assert localgd(*words, "--out", tmp_path / "EXACT", "--angle-tol-deg", "1").returncode == 0
    done = localgd("resume", tmp_path / "EXACT")
    assert done.returncode == 2
    assert "is finished: it ended by itself" in done.stderr
    done = localgd("resume", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "is no run folder" in done.stderr


def test_rows_that_changed_since_are_refused(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--n-rounds", "5"]
    assert localgd(*words, "--out", tmp_path / "RUN").returncode == 0
    lines = (sites / "south.csv").read_text().splitlines()
    (sites / "south.csv").write_text("\n".join(lines[:-1]) + "\n")
    done = localgd("resume", tmp_path / "RUN", "--n-rounds", "9")
    assert done.returncode == 2
    assert "'south'" in done.stderr
    assert "rows are not those of the checkpoint" in done.stderr


def test_a_run_that_was_cut_short_before_it_began_is_named(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--n-rounds", "5"]
    (tmp_path / "RUN.partial").mkdir()
    done = localgd(*words, "--out", tmp_path / "RUN")
    assert done.returncode == 2
    assert "localgd resume" in done.stderr
    (tmp_path / "RUN.partial" / "mine.txt").write_text("of somebody else")
    for other in ([*words, "--out", tmp_path / "RUN", "--force"], ["resume", tmp_path / "RUN"]):
        assert localgd(*other).returncode == 2
        assert (tmp_path / "RUN.partial" / "mine.txt").is_file()
    (tmp_path / "RUN.partial" / "mine.txt").unlink()
    assert localgd(*words, "--out", tmp_path / "RUN", "--force").returncode == 0


def test_a_run_at_work_is_left_alone(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--out", str(tmp_path / "RUN")]
    command = [*LOCALGD, *words, "--n-rounds", "100000", "--checkpoint-rounds", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("round 20:"):
                break
        for other in (["resume", str(tmp_path / "RUN")], words, [*words, "--force"]):
            done = localgd(*other)
            assert done.returncode == 2, done
            assert "another run is at work on it" in done.stderr
            assert "go on with" not in done.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "no checkpoint could be written" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {"sites", "RUN"}


@pytest.mark.parametrize("damage", ["server", "nodes"])
def test_a_damaged_checkpoint_leaves_the_run_as_it_was(damage, sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "consensus", "--n-rounds", "3"]
    assert localgd(*words, "--out", tmp_path / "RUN").returncode == 0
    path = next((tmp_path / "RUN" / "checkpoint").glob(f"{damage}*.npz"))
    path.write_bytes(path.read_bytes()[:-100])
    done = localgd("resume", tmp_path / "RUN", "--n-rounds", "9")
    assert done.returncode == 2
    assert f"{path.name} cannot be read" in done.stderr
    assert "start the run afresh" in done.stderr
    assert "go on with" not in done.stderr
    assert not (tmp_path / "RUN.partial").exists()
    assert localgd("predict", tmp_path / "RUN", sites / "north.csv").returncode == 0


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("config.json", "[]", "config.json does not say how the run was begun"),
        ("config.json", '{"flags": {}}', "its config.json lacks"),
        ("checkpoint/recipe.json", "{}", "recipe.json is missing or damaged"),
    ],
)
def test_a_damaged_run_folder_is_named_and_left_as_it_was(path, content, message, sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--n-rounds", "3"]
    assert localgd(*words, "--out", tmp_path / "RUN").returncode == 0
    (tmp_path / "RUN" / path).write_text(content)
    done = localgd("resume", tmp_path / "RUN", "--n-rounds", "9")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"sites", "RUN"}


def test_a_run_that_is_being_written_is_left_alone(sites, tmp_path):
    """Training is over, but its folder is not whole yet."""
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--out", str(tmp_path / "RUN")]
    slow = "job.convergence = lambda *_: (print('WRITING', flush=True), input())"
    program = f"import sys; from localgd.cli import job, main; {slow}; sys.exit(main())"
    command = [sys.executable, "-c", program, *words, "--n-rounds", "5", "--plot"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "WRITING\n"
        for other in (["resume", str(tmp_path / "RUN")], words, [*words, "--force"]):
            done = localgd(*other)
            assert done.returncode == 2, done
            assert "another run is at work on it" in done.stderr
        output, _ = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert "it can go on" in output
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "9").returncode == 0
    fewer = localgd("resume", tmp_path / "RUN", "--n-rounds", "4")
    assert "it had done 9 rounds already, so --n-rounds 4 adds none" in fewer.stdout


def test_a_run_without_a_checkpoint_says_that_it_begins_at_round_0(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--n-rounds"]
    assert localgd(*words, "9", "--out", tmp_path / "CALM").returncode == 0
    assert localgd(*words, "5", "--out", tmp_path / "RUN").returncode == 0
    (tmp_path / "RUN" / "checkpoint" / "server.npz").unlink()
    done = localgd("resume", tmp_path / "RUN", "--n-rounds", "9")
    assert done.returncode == 0, done.stderr
    assert "it holds no whole checkpoint, so it begins at round 0" in done.stderr
    assert_same_outcome(tmp_path / "RUN", tmp_path / "CALM")
