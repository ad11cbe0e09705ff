"""``--label-map NODE:1=0,2=1`` is of one node, and what a run learned of it holds for the commands on the run."""

from __future__ import annotations

import json
import re
import shlex

import polars as pl
import pytest

from command import found_in, localgd, write_sites

READ = ("--label", "outcome", "--C", "1")


def sites(folder, shift):
    """Write three sites with classes 0 and 1, of which some count from 1."""
    write_sites(folder)
    for path in folder.iterdir():
        known = {"ill": 0, "well": 1}
        first = 1 if path.stem in shift else 0
        frame = pl.read_csv(path).with_row_index("row")
        labels = pl.col("outcome").replace_strict(known, return_dtype=pl.Int64)
        flipped = pl.when(pl.col("row") % 7 == 0).then(1 - labels).otherwise(labels)
        frame.with_columns(outcome=flipped + first).drop("row").write_csv(path)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    names = sorted(path.stem for path in sites(folder / "plain", ()).iterdir())
    sites(folder / "mixed", names[1:])
    return folder, names


def test_the_flags_that_the_refusal_prints_make_the_run_and_the_run_remembers_them(made):
    folder, names = made
    refused = localgd("train", folder / "mixed", *READ)
    assert refused.returncode == 2
    flags = shlex.split(re.search(r"(--label-map [^)]*)\)", refused.stderr)[1])
    assert flags[1::2] == [f"{name}:1=0,2=1" for name in names[1:]]
    assert localgd("train", folder / "plain", *READ, "--out", folder / "PLAIN").returncode == 0
    judged = ("--leave-one-node-out",)
    done = localgd("train", folder / "mixed", *READ, *flags, *judged, "--out", folder / "MIXED")
    assert done.returncode == 0, done.stderr
    assert "is not judged" not in done.stderr
    model, plain = (json.loads((folder / run / "model.json").read_text()) for run in ("MIXED", "PLAIN"))
    assert (model["coef"], model["classes"]) == (plain["coef"], plain["classes"])
    expected = localgd("evaluate", folder / "PLAIN", folder / "plain", "--json")
    said = f"read as for the run: --label outcome {' '.join(flags)}"
    for again in ((), flags, flags[:2]):
        found = localgd("evaluate", folder / "MIXED", folder / "mixed", *again, "--json")
        assert found_in(found) == found_in(expected)
        notes = json.loads(found.stdout)["notes"]
        wanted = f"{' '.join(again)} counts before the run's {' '.join(flags)}" if again else said
        assert notes[0] == wanted


def test_a_node_that_is_not_there_is_refused_with_the_one_that_may_be_meant(made):
    folder, names = made
    done = localgd("train", folder / "mixed", *READ, "--label-map", f"{names[1]}x:1=0,2=1")
    assert done.returncode == 2
    assert f"--label-map names '{names[1]}x', which is no node; did you mean '{names[1]}'?" in done.stderr


SAYS = "has labels 0 and 1, and what is said of labels makes both 0, as it takes 1 for 0"


def test_a_map_that_makes_one_class_of_two_is_refused_by_every_command_and_what_is_said_counts_first(made):
    """The rows of a node that once counted from 1 count from 0 now: what the run remembers is about others."""
    folder, names = made
    run, maps = folder / "ONE", [word for name in names[1:] for word in ("--label-map", f"{name}:1=0,2=1")]
    assert localgd("train", folder / "mixed", *READ, *maps, "--out", run).returncode == 0
    wrong = ("--label-map", f"{names[0]}:1=0,2=1")
    commands = {
        "train": ("train", folder / "mixed", *READ, *maps, *wrong),
        "tune": ("tune", folder / "mixed", "--label", "outcome", "--Cs", "1.0", "--cv", "2", *maps, *wrong),
        "evaluate": ("evaluate", run, folder / "plain"),
        "certify": ("certify", run, folder / "plain"),
        "calibrate": ("calibrate", run, folder / "plain", "--out", folder / "calibrated.json"),
    }
    for name, words in commands.items():
        done = localgd(*words)
        assert done.returncode == 2, name
        assert SAYS in done.stderr, name
        node = names[0] if name in {"train", "tune"} else names[1]
        assert f"--label-map {node}:0=0,1=1" in done.stderr, name
    expected = found_in(localgd("evaluate", folder / "ONE", folder / "mixed", "--json"))
    one_each = [word for name in names[1:] for word in ("--label-map", f"{name}:0=0,1=1")]
    for said in (("--label-map", "0=0,1=1"), one_each):
        again = localgd("evaluate", run, folder / "plain", *said, "--json")
        assert found_in(again) == expected
        assert json.loads(again.stdout)["notes"][0] == f"{' '.join(said)} counts before the run's {' '.join(maps)}"
        assert localgd("certify", run, folder / "plain", *said).returncode == 0


def test_a_map_of_all_nodes_that_is_about_some_is_refused_with_what_settles_it(made):
    folder, names = made
    refused = localgd("train", folder / "mixed", *READ, "--label-map", "1=0,2=1")
    assert refused.returncode == 2
    assert "label: a node has 0 and 1, and what is said makes both 0, as it takes 1 for 0" in refused.stderr
    flags = shlex.split(re.search(r"(--label-map [^)]*)\)", refused.stderr)[1])
    assert flags[1::2] == [f"{name}:1=0,2=1" for name in names[1:]]
    assert localgd("train", folder / "mixed", *READ, *flags).returncode == 0
    done = localgd("train", folder / "mixed", *READ, "--label-map", "0=0,1=0,2=1")
    assert done.returncode in {0, 2, 3}
    assert "makes both" not in done.stderr


def test_groups_of_labels_are_printed_as_the_nodes_have_them(made, tmp_path):
    folder, names = made
    sites(tmp_path / "words", names[1:])
    path = tmp_path / "words" / f"{names[2]}.csv"
    words = {1: "no", 2: "yes"}
    frame = pl.read_csv(path)
    frame.with_columns(pl.col("outcome").replace_strict(words, return_dtype=pl.String)).write_csv(path)
    refused = localgd("train", tmp_path / "words", *READ)
    said = "some nodes have '0', '1' and others '1', '2' and others 'no', 'yes', but none all of these"
    assert said in refused.stderr
    assert f"(--label-map {names[1]}:1=0,2=1 --label-map 'no=…,yes=…')" in refused.stderr
    half = localgd("train", tmp_path / "words", *READ, "--label-map", "no=0,yes=1")
    assert "some nodes have 0, 1 and others 1, 2, but none all of these" in half.stderr
    assert f"(--label-map {names[1]}:1=0,2=1)" in half.stderr
    both = ("--label-map", "no=0,yes=1", "--label-map", f"{names[1]}:1=0,2=1", "--out", tmp_path / "RUN")
    assert localgd("train", tmp_path / "words", *READ, *both).returncode == 0
    assert localgd("train", folder / "plain", *READ, "--out", tmp_path / "PLAIN").returncode == 0
    found, plain = (json.loads((tmp_path / run / "model.json").read_text())["coef"] for run in ("RUN", "PLAIN"))
    assert found == plain
