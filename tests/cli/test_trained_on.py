"""Rows that a model was trained on are known by their files when they are taken to judge it, or for probabilities."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from command import localgd, patients, write_sites

FLATTERED, TOO_SURE = "which flatter it; judge by others", "of which it is too sure, so its probabilities will be"


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    place = write_sites(tmp_path_factory.mktemp("rows") / "sites")
    words = ("--label", "outcome", "--C", "1")
    assert localgd("train", place, *words, "--out", place.parent / "RUN").returncode == 0
    assert localgd("train", place, *words, "--holdout", "0.2", "--out", place.parent / "PART").returncode == 0
    return place


def said(command, run, data, place):
    """What a command says of rows that it is given, beside how they are read."""
    more = () if command != "calibrate" else ("--out", place / "calibrated.json", "--force")
    more = (*more, "--C", "1") if command == "certify" else more
    done = localgd(command, run, data, *more)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "trained on" in line or "all rows count" in line]


@pytest.mark.parametrize(("command", "means"), [("evaluate", FLATTERED), ("calibrate", TOO_SURE)])
def test_a_file_of_the_training_is_known_wherever_it_lies(sites, tmp_path, command, means):
    run = sites.parent / "RUN"
    copy = shutil.copy(sites / "north.csv", tmp_path / "other-name.csv")
    for rows in (sites, sites / "north.csv", copy):
        assert [line for line in said(command, run, rows, tmp_path) if means in line and "these rows" in line], rows
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(sites / "south.csv", new)
    patients(seed=1).drop("site").write_csv(new / "east.csv")
    assert [line for line in said(command, run, new, tmp_path) if f"the rows of 'south.csv', {means}" in line]
    assert said(command, run, new / "east.csv", tmp_path) == []
    assert said("certify", run, sites, tmp_path) == []


def test_of_rows_set_aside_among_those_of_the_training_each_command_says_what_it_means(sites, tmp_path):
    run, north = sites.parent / "PART", sites / "north.csv"
    beginning = "all rows count here, those that the run set aside (--holdout 0.2), too"
    assert said("certify", run, north, tmp_path) == [beginning]
    assert said("evaluate", run, north, tmp_path) == [f"{beginning}: of what they say alone, see its metrics.json"]
    (line,) = said("calibrate", run, north, tmp_path)
    assert line.startswith(f"{beginning}; the others are rows {TOO_SURE}")


def test_a_file_that_has_changed_since_is_called_that(sites, tmp_path):
    shutil.copytree(sites, tmp_path / "sites")
    north = tmp_path / "sites" / "north.csv"
    assert localgd("train", tmp_path / "sites", "--label", "outcome", "--out", tmp_path / "RUN").returncode == 0
    frame = pl.read_csv(north)
    pl.concat([frame, frame.head(1)]).write_csv(north)
    expected = f"'north.csv' changed since the model was trained on the rows there, {FLATTERED}"
    assert said("evaluate", tmp_path / "RUN", north, tmp_path) == [expected]
    assert said("certify", tmp_path / "RUN", north, tmp_path) == []


def test_a_run_folder_keeps_a_digest_of_each_file_and_none_of_its_rows(sites, tmp_path):
    kept = json.loads((sites.parent / "RUN" / "config.json").read_text())["files"]
    assert kept.keys() == {"north.csv", "south.csv", "west.csv"}
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in kept.values())
    assert localgd("tune", sites, "--label", "outcome", "--Cs", "0.1,1", "--out", tmp_path / "RUN").returncode == 0
    assert json.loads((tmp_path / "RUN" / "config.json").read_text())["files"] == kept
    assert localgd("train", "heart", "--C", "1", "--out", tmp_path / "HEART").returncode == 0
    assert json.loads((tmp_path / "HEART" / "config.json").read_text())["files"] == {}


def test_without_its_digests_a_run_folder_knows_rows_by_their_path_only(sites, tmp_path):
    shutil.copytree(sites.parent / "RUN", tmp_path / "RUN")
    path = tmp_path / "RUN" / "config.json"
    path.write_text(json.dumps({name: of for name, of in json.loads(path.read_text()).items() if name != "files"}))
    assert said("evaluate", tmp_path / "RUN", sites, tmp_path) == [f"the model was trained on these rows, {FLATTERED}"]
    assert said("evaluate", tmp_path / "RUN", sites / "north.csv", tmp_path) == []


def test_that_rows_are_those_of_the_run_is_said(tmp_path):
    whole, part = tmp_path / "WHOLE", tmp_path / "PART"
    for run, more in ((whole, ()), (part, ("--holdout", "0.2"))):
        assert localgd("train", "heart", "--C", "1", "--out", run, *more).returncode == 0
    assert "trained on these rows, which flatter it" in localgd("evaluate", whole, "heart").stderr
    assert "set aside (--holdout 0.2), too: of what" in localgd("evaluate", part, "heart").stderr
    assert "flatter" not in localgd("certify", whole, "heart").stderr
    assert "all rows count here" in localgd("certify", part, "heart").stderr
