"""Real processes, really killed: what the command leaves, and what `localgd resume` makes of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import numpy as np
import polars as pl
import pytest

from command import LOCALGD, localgd, patients

METHODS = {
    "local-gd": ["--method", "local-gd", "--local-steps", "3"],
    "projections": ["--method", "modified-local-gd"],
    "consensus": ["--method", "consensus", "--n-rounds", "60"],
}


@pytest.fixture
def sites(tmp_path):
    folder = tmp_path / "sites"
    folder.mkdir()
    for name, part in patients(n=300).partition_by("site", as_dict=True, include_key=False).items():
        part.write_csv(folder / f"{name[0]}.csv")
    return folder


def outcome(run):
    """The model, and the history but for its seconds."""
    model = json.loads((run / "model.json").read_text())
    return model["coef"], model["intercept"], pl.read_csv(run / "history.csv").drop("seconds")


def assert_same(run, expected):
    found, wanted = outcome(run), outcome(expected)
    assert found[:2] == wanted[:2]
    assert found[2].equals(wanted[2])


def killed(words, after):
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(after)
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(method, sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--n-rounds", "300", *METHODS[method]]
    begin = time.perf_counter()
    assert localgd(*words, "--out", tmp_path / "CALM").returncode == 0
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
        assert_same(run, tmp_path / "CALM")
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
    assert "it can go on: localgd resume" in output
    assert pl.read_csv(run / "history.csv").height < 1000
    assert localgd("predict", run, sites / "north.csv").returncode == 0
    resumed = localgd("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(run, tmp_path / "CALM")


def test_a_run_out_of_rounds_goes_on_and_a_finished_one_says_that_it_is(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome"]
    plain = [*words, "--method", "local-gd", "--n-rounds"]
    assert localgd(*plain, "25", "--out", tmp_path / "CALM").returncode == 0
    assert localgd(*plain, "10", "--out", tmp_path / "RUN").returncode == 0
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "25").returncode == 0
    assert_same(tmp_path / "RUN", tmp_path / "CALM")
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


def test_a_second_run_into_a_folder_at_work_is_refused(sites, tmp_path):
    words = ["train", str(sites), "--label", "outcome", "--method", "local-gd", "--n-rounds", "5"]
    (tmp_path / "RUN.partial").mkdir()
    done = localgd(*words, "--out", tmp_path / "RUN")
    assert done.returncode == 2
    assert "localgd resume" in done.stderr
    assert localgd(*words, "--out", tmp_path / "RUN", "--force").returncode == 0
