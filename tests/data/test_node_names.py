"""Nodes whose names are spelled apart are said, with what joins them."""

from __future__ import annotations

import re
import shlex

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import from_arrays, load
from localgd.errors import told_apart

NODES = ["Berlin"] * 6 + ["berlin"] * 3 + ["NA"] * 4 + ["Rome"] * 5
SAID = "nodes 'Berlin' and 'berlin' differ in spelling only: if they are one node, "


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.normal(size=18), "y": rng.integers(0, 2, 18), "site": NODES})
    frame.write_csv(tmp_path / "rows.csv")
    return tmp_path / "rows.csv"


def test_the_line_names_the_map_that_joins_them_into_the_larger_and_it_does(path):
    with pytest.raises(ValueError, match=r"'NA', no name of a node; .* with node_map=\{'NA': …\} \(--node-map NA=…\)"):
        load(path, label="y", node="site")
    tables = load(path, label="y", node="site", node_map={"NA": "NA"})
    assert [table.node_id for table in tables] == ["Berlin", "NA", "Rome", "berlin"]
    (note,) = tables[0].notes
    assert note == f"{SAID}join them with node_map={{'berlin': 'Berlin'}} (--node-map berlin=Berlin)"
    joined = load(path, label="y", node="site", node_map={"NA": "Namibia", "berlin": "Berlin"})
    assert [(table.node_id, table.n_rows) for table in joined] == [("Berlin", 9), ("Namibia", 4), ("Rome", 5)]
    assert joined[0].notes == ()
    assert joined[0].place(8) == f"{path} (node 'Berlin'), row 10"


def test_the_command_prints_the_flag_takes_it_and_a_run_remembers_it(path):
    asked = ("train", path, "--label", "y", "--node", "site", "--C", "1", "--out", path.parent / "RUN")
    first = localgd(*asked, "--node-map", "NA=NA")
    assert first.returncode == 0, first.stderr
    flag = shlex.split(re.search(r"(--node-map b[^)]*)\)", first.stderr)[1])[1]
    done = localgd(*asked, "--node-map", f"NA=Namibia,{flag}", "--force")
    assert "2 for 2" not in done.stderr
    assert done.stderr.splitlines()[1].startswith("3 nodes, 18 rows")
    found = localgd("evaluate", path.parent / "RUN", path)
    assert "--node-map NA=Namibia,berlin=Berlin" in found.stderr
    assert "Namibia" in found.stdout


def test_files_and_groups_are_said_too(path):
    folder = path.parent / "sites"
    folder.mkdir()
    frame = pl.read_csv(path).drop("site")
    for name in ("Berlin", "berlin", "Rome"):
        frame.write_csv(folder / f"{name}.csv")
    assert load(folder, label="y")[1].notes == (f"{SAID}put their rows in one file",)
    groups = ["Berlin", "berlin"] * 9
    assert from_arrays(frame.drop("y"), frame["y"], groups)[0].notes == (f"{SAID}give them one name",)
    np.savez(path.parent / "rows.npz", X=frame.drop("y").to_numpy(), y=frame["y"].to_numpy(), site=groups)
    assert [table.n_rows for table in load(path.parent / "rows.npz", node="site", node_map={"berlin": "Berlin"})] == [
        18
    ]


def test_a_map_that_names_nobody_or_has_no_column_is_told(path):
    tables = load(path, label="y", node="site", node_map={"NA": "NA", "brlin": "Berlin"})
    assert "node_map: no row is of node 'brlin', which it names" in tables[0].notes
    with pytest.raises(ValueError, match=r"node_map is for nodes that a column names, and node \(--node\)"):
        load(path, label="y", drop=["site"], node_map={"berlin": "Berlin"})
    with pytest.raises(ValueError, match="node_map must be a mapping"):
        load(path, label="y", node="site", node_map="berlin=Berlin")


def test_names_that_look_the_same_are_told_apart_by_their_signs(path):
    composed, apart = f"K{chr(0xF6)}ln", f"Ko{chr(0x308)}ln"
    assert told_apart(composed, "Rom", apart) == [
        f"'{composed}' (in Unicode 'K\\xf6ln')",
        "'Rom'",
        f"'{apart}' (in Unicode 'Ko\\u0308ln')",
    ]
    frame = pl.read_csv(path).with_columns(site=pl.Series([composed, apart, apart] * 6))
    frame.write_csv(path)
    (note,) = load(path, label="y", node="site")[0].notes
    assert "(in Unicode 'K\\xf6ln')" in note
    assert f"node_map={{'{composed}': '{apart}'}}" in note
