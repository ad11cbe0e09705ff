"""Which files of a folder are no nodes, and might be meant as such, is said."""

from __future__ import annotations

import json

import pytest

from command import TRAIN, localgd, write_sites
from localgd import load

SAID = "files beside those of the nodes are not read, as they are of other kinds: "
READ = ("--label", "outcome")


@pytest.fixture
def sites(tmp_path):
    folder = write_sites(tmp_path / "sites")
    for name in ("README.md", "ReadMe.txt", ".hidden.xlsx", "metrics.json", "figure.png", "figure.svg", "notes.md"):
        (folder / name).write_text("?")
    return folder


def commands(sites):
    run = sites.parent / "RUN"
    return {
        "train": ("train", sites, *READ, *TRAIN[4:], "--out", run),
        "evaluate": ("evaluate", run, sites),
        "calibrate": ("calibrate", run, sites, "--out", sites.parent / "calibrated.json"),
        "certify": ("certify", run, sites),
        "compare": ("compare", sites, *READ, "--n-rounds", "3", "--methods", "local-gd"),
        "tune": ("tune", sites, *READ, "--Cs", "1.0", "--cv", "2"),
    }


def test_every_command_on_a_folder_says_what_it_does_not_read_once_and_nothing_else(sites):
    for name, words in commands(sites).items():
        done = localgd(*words)
        assert done.returncode in {0, 3}, done.stderr
        assert SAID not in done.stderr + done.stdout, name
    (sites / "berlin.txt").write_text("age;marker")
    (sites / "extra.xlsx").write_bytes(b"PK")
    for name, words in commands(sites).items():
        done = localgd(*words, *(("--force",) if name in {"train", "calibrate"} else ()))
        assert done.returncode in {0, 3}, done.stderr
        assert (done.stderr + done.stdout).count(f"{SAID}'berlin.txt', 'extra.xlsx'") == 1, name


def test_at_most_eight_are_named_and_tables_know_them(sites):
    for number in range(11):
        (sites / f"ward {number:02}.ods").write_text("?")
    named = ", ".join(f"'ward {number:02}.ods'" for number in range(8))
    tables = load(sites, label="outcome")
    assert [table.notes for table in tables] == [(f"{SAID}{named}, and 3 more",)] * 3


def test_a_model_from_elsewhere_is_told_too(sites):
    (sites / "berlin.xls").write_text("?")
    columns = ["age", "marker", "smoker=former", "smoker=no", "smoker=yes"]
    model = sites.parent / "other.json"
    model.write_text(json.dumps({"coef": [0.1] * 5, "intercept": -6.0, "feature_names": columns}))
    for name in ("evaluate", "certify"):
        done = localgd(name, model, sites, *READ)
        assert done.returncode == 0, done.stderr
        assert (done.stderr + done.stdout).count(f"{SAID}'berlin.xls'") == 1, name


def test_sub_folders_that_hold_tables_are_named_by_every_command_and_none_trains_without_them(sites):
    assert localgd(*commands(sites)["train"]).returncode in {0, 3}
    said = "sub-folders are not read; put the files of all nodes into the folder itself: 'berlin', 'north east'"
    for name in ("berlin/2024", "north east", "empty", "figures", ".git"):
        (sites / name).mkdir(parents=True)
    (sites / "berlin" / "2024" / "rows.csv").write_text("age,outcome\n1,0\n")
    (sites / "north east" / "rows.xlsx").write_bytes(b"PK")
    (sites / "figures" / "one.png").write_bytes(b"?")
    (sites / ".git" / "rows.csv").write_text("?")
    refused = (
        "sub-folders are not read, and hold tables: 'berlin', 'north east'; a node is one file of the folder itself"
    )
    for name, words in commands(sites).items():
        done = localgd(*words)
        if name in {"train", "tune"}:  # a model of fewer nodes than are there
            assert done.returncode == 2, name
            assert refused in done.stderr
            assert "('berlin.csv')" in done.stderr
            continue
        assert done.returncode in {0, 3}, done.stderr
        assert (done.stderr + done.stdout).count(said) == 1, name


def test_what_the_refusal_of_sub_folders_says_mends_it(sites):
    parts = [sites / "berlin" / f"{year}.csv" for year in (2023, 2024)]
    rows = (sites / "north.csv").read_text().splitlines(keepends=True)
    parts[0].parent.mkdir()
    for place, path in enumerate(parts):
        path.write_text("".join([rows[0], *rows[1 + place :: 2]]))
    words = commands(sites)
    assert localgd(*words["train"]).returncode == 2
    (sites / "berlin.csv").write_text("".join([rows[0], *rows[1::2], *rows[2::2]]))
    parts[0].parent.rename(sites.parent / "berlin")
    done = localgd(*words["train"])
    assert done.returncode in {0, 3}, done.stderr
    assert "4 nodes, " in done.stderr
    within = localgd(*words["train"][:-1], sites / "RUN")  # a run in the folder is no node
    assert within.returncode in {0, 3}, within.stderr
    assert localgd(*words["tune"]).returncode == 0


def test_a_folder_of_nothing_but_sub_folders_says_so(tmp_path):
    (tmp_path / "berlin").mkdir()
    (tmp_path / "berlin" / "rows.csv").write_text("age,outcome\n1,0\n")
    with pytest.raises(
        ValueError, match=r"no node files \(sub-folders are not read: 'berlin'\); put one file per node"
    ):
        load(tmp_path, label="outcome")
