"""``localgd compare``: one table and one figure."""

from __future__ import annotations

import json
import os

import numpy as np
import polars as pl

from command import localgd, spawned
from common import federation
from localgd import consensus, local_gd
from localgd.cli.compare import PENALISED
from localgd.report.compare import compare, milestones, panels

GOLUB = ("golub", "--partition", "by_label", "--n-nodes", "5")


def test_it_prints_a_table_that_fits_a_terminal_and_writes_rows_and_figure(tmp_path):
    done = localgd(
        "compare", *GOLUB, "--n-rounds", "60", "--pooled", "--out", tmp_path / "C", env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    for name in ("local-gd", "modified-local-gd", "normalised-local-gd", "consensus", "auto"):
        assert name in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80 + len(str(tmp_path))
    rows = pl.read_csv(tmp_path / "C" / "compare.csv")
    assert rows.height == 5 * 4
    tight = rows.filter((pl.col("method") == "consensus") & (pl.col("certified_deg") == 0.001))
    assert 0 < tight["rounds"][0] <= 40
    assert (tmp_path / "C" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "C" / "compare.svg").exists()


def test_json_and_a_penalised_comparison():
    words = ("--methods", "newton,scaffold,local-gd", "--C", "1.0", "--local-steps", "10", "--n-rounds", "60", "--json")
    done = spawned("compare", "heart", *words)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["method"] for row in rows} == {"newton", "scaffold", "local-gd"}
    assert next(row for row in rows if row["method"] == "newton" and row["certified_deg"] == 0.001)["rounds"] <= 10
    assert next(row for row in rows if row["method"] == "local-gd" and row["certified_deg"] == 0.001)["rounds"] is None


def test_a_penalised_comparison_has_methods_of_its_own():
    done = localgd("compare", "heart", "--C", "1", "--n-rounds", "20", "--json")
    assert done.returncode == 0, done.stderr
    assert list(dict.fromkeys(row["method"] for row in json.loads(done.stdout))) == list(PENALISED)
    refused = localgd("compare", "heart", "--C", "1", "--methods", "newton,consensus")
    assert refused.returncode == 2
    assert "newton, at most" not in refused.stderr, "it is refused before anything is trained"
    assert "consensus: it has no meaning with C=1.0" in refused.stderr


def test_bad_names_are_refused():
    assert "did you mean 'consensus'" in localgd("compare", *GOLUB, "--methods", "consensos").stderr
    assert localgd("compare", *GOLUB, "--methods", ",").returncode == 2


def test_milestones_are_the_first_rows_that_prove_the_angle_and_a_stop_ends_it_all():
    runs = compare(federation("golub"), {"a": local_gd(), "b": consensus()}, n_rounds=50)
    rows = milestones(runs)
    for row in rows:
        history = runs[row["method"]].history
        proved = [entry.round for entry in history if entry.angle_deg_max <= row["certified_deg"]]
        assert np.isnan(row["rounds"]) if not proved else row["rounds"] == proved[0] + 1
    assert len(panels(runs)) == 2
    stopped = compare(
        federation("golub"), {"a": local_gd(), "b": consensus()}, on_round=lambda info: info.row.round >= 3
    )
    assert list(stopped) == ["a"]
