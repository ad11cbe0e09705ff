"""No command writes over what it reads, nor over what is there unless it is told to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from command import TRAIN, localgd, patients, write_sites
from localgd.cli.demo import METHODS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    sites = write_sites(folder / "sites")
    how = (*TRAIN, "--holdout", "0.2")
    patients(n=300).write_csv(folder / "all.csv")
    assert localgd("train", folder / "all.csv", *how, "--out", folder / "RUN").returncode == 0
    patients(seed=1).write_csv(folder / "new.csv")
    return sites.parent


@pytest.fixture
def place(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "here"))


def all_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands(place: Path) -> dict[str, tuple[object, ...]]:
    rows = (place / "sites", "--label", "outcome", "--node", "")
    return {
        "evaluate": ("evaluate", place / "RUN", *rows),
        "calibrate": ("calibrate", place / "RUN", *rows),
        "predict": ("predict", place / "RUN", place / "new.csv"),
        "export": ("export", place / "RUN", "--to", "csv"),
    }


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "predict", "export"])
def test_what_a_command_reads_is_never_replaced(place, name):
    before = all_of(place)
    outs = [place / "RUN" / file for file in ("model.json", "history.csv", "metrics.json", "config.json")]
    outs += {"predict": [place / "new.csv"], "export": []}.get(name, [place / "sites" / "north.csv"])
    for out in outs:
        for more in ((), ("--force",)):
            done = localgd(*commands(place)[name], "--out", out, *more)
            assert done.returncode == 2, done.stdout
            assert f"error: --out {out} " in done.stderr
            assert "choose another" in done.stderr
    copy = place / "copy.json"
    copy.write_text((place / "RUN" / "model.json").read_text())
    link = place / "link.json"
    link.symlink_to(copy)
    words = list(commands(place)[name])
    words[1] = copy
    assert "as part of the model" in localgd(*words, "--out", link, "--force").stderr
    copy.unlink(), link.unlink()
    assert all_of(place) == before


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "predict", "export"])
def test_what_is_there_is_replaced_with_force_only(place, name):
    other = place / "raw_copy.csv"
    other.write_text("x,y\n1,0\n")
    done = localgd(*commands(place)[name], "--out", other)
    assert done.returncode == 2
    assert f"--out {other} exists already; choose another name, or replace it with --force" in done.stderr
    assert other.read_text() == "x,y\n1,0\n"
    done = localgd(*commands(place)[name], "--out", other, "--force")
    assert done.returncode == 0, done.stderr
    assert other.read_text() != "x,y\n1,0\n"
    folder = localgd(*commands(place)[name], "--out", place, "--force")
    assert folder.returncode == 2
    assert f"error: --out {place} is a folder; give the name of a file" in folder.stderr


def test_a_new_file_is_no_node_of_the_folder_that_is_read(place):
    done = localgd(*commands(place)["evaluate"], "--out", place / "sites" / "found.csv")
    assert f"would be a node of the folder {place / 'sites'}" in done.stderr
    assert localgd(*commands(place)["evaluate"], "--out", place / "sites" / "found.json").returncode == 0


def test_metrics_that_evaluate_left_in_a_run_are_no_part_of_it(place):
    (place / "RUN" / "metrics.json").unlink()
    words = (*commands(place)["evaluate"], "--out", place / "RUN" / "metrics.json")
    assert localgd(*words).returncode == 0
    assert "exists already; choose" in localgd(*words).stderr
    assert localgd(*words, "--force").returncode == 0
    assert json.loads((place / "RUN" / "metrics.json").read_text())["n_rows"] > 0


def test_the_demo_replaces_no_figure_that_is_there(tmp_path):
    drawn = ("demo", "--n-rounds", "1", "--out", tmp_path / "figures")
    assert localgd(*drawn).returncode == 0
    before = all_of(tmp_path)
    assert before.keys() == {f"figures/{name}.png" for name in METHODS}
    (tmp_path / "figures" / "local-gd.png").write_bytes(b"mine")
    done = localgd(*drawn)
    assert done.returncode == 2
    assert "local-gd.png exists already; choose another name, or replace it with --force" in done.stderr
    assert (tmp_path / "figures" / "local-gd.png").read_bytes() == b"mine"
    assert localgd(*drawn, "--force").returncode == 0
    assert (tmp_path / "figures" / "local-gd.png").read_bytes() != b"mine"
    assert "--force replaces the file of --out" in localgd("demo", "--force").stderr


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "predict", "export"])
def test_the_root_is_a_folder_and_a_folder_on_the_way_is_made(place, name):
    done = localgd(*commands(place)[name], "--out", "/", "--force")
    assert (done.returncode, "--out / is a folder; give the name of a file" in done.stderr) == (2, True), done.stderr
    assert localgd(*commands(place)[name], "--out", place / "a" / "b" / "out.json").returncode == 0
    assert (place / "a" / "b" / "out.json").is_file()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where nobody can write, not even root")
@pytest.mark.parametrize("name", ["train", "tune", "demo", "compare", "reproduce", "evaluate", "predict", "export"])
def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(place, name):
    words = {
        "train": ("train", "heart", "--n-rounds", "3"),
        "tune": ("tune", "heart"),
        "compare": ("compare", "heart"),
        "demo": ("demo",),
        "reproduce": ("reproduce", "rate-law", "--quick"),
    }
    for out in ("/proc/x", "/proc/x/y"):
        done = localgd(*(words.get(name) or commands(place)[name]), "--out", out)
        assert done.returncode == 1, done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: --out {out}")
        assert "nothing can be written (" in line
        assert line.endswith("in /proc; choose another place")


def test_a_comparison_replaces_no_other_and_goes_beside_no_nodes(place):
    words = ("compare", place / "sites", "--label", "outcome", "--methods", "local-gd,auto", "--n-rounds", "5")
    assert localgd(*words, "--out", place / "C").returncode == 0
    (place / "C" / "compare.csv").write_text("of before\n")
    done = localgd(*words, "--out", place / "C")
    assert done.returncode == 2
    assert "compare.csv exists already; choose another name, or replace it with --force" in done.stderr
    assert (place / "C" / "compare.csv").read_text() == "of before\n"
    assert localgd(*words, "--out", place / "C", "--force").returncode == 0
    assert (place / "C" / "compare.csv").read_text() != "of before\n"
    before = all_of(place)
    shutil.copytree(place / "sites", place / "others")
    for folder in ("sites", "RUN", "others"):
        done = localgd(*words, "--out", place / folder, "--force")
        assert (done.returncode, "choose another folder" in done.stderr) == (2, True), done.stderr
    shutil.rmtree(place / "others")
    assert all_of(place) == before
