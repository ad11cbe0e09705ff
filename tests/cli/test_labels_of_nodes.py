"""``--label-map NODE:1=0,2=1`` is of one node, and what a run learned of it holds for the commands on the run."""

from __future__ import annotations

import json
import re
import shlex

import polars as pl
import pytest

from command import localgd, write_sites

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
    expected = localgd("evaluate", folder / "PLAIN", folder / "plain", "--json").stdout
    for again in ((), flags, flags[:2]):
        found = localgd("evaluate", folder / "MIXED", folder / "mixed", *again, "--json")
        assert (found.returncode, found.stdout) == (0, expected), found.stderr


def test_a_node_that_is_not_there_is_refused_with_the_one_that_may_be_meant(made):
    folder, names = made
    done = localgd("train", folder / "mixed", *READ, "--label-map", f"{names[1]}x:1=0,2=1")
    assert done.returncode == 2
    assert f"--label-map names '{names[1]}x', which is no node; did you mean '{names[1]}'?" in done.stderr
