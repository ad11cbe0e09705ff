"""Columns that some nodes lack, that number the rows, or look like an id or a node: left out, filled or said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, from_arrays, load, prepare

N = 40


def sites(folder: Path, kind: str = "csv", **columns: dict[str, Any]) -> Path:
    """Write a file for each site; all have x and y beside the columns given."""
    rng = np.random.default_rng(0)
    for name, own in columns.items():
        frame = pl.DataFrame({"x": rng.standard_normal(N), "y": rng.integers(2, size=N), **own})
        frame.write_csv(folder / f"{name}.csv") if kind == "csv" else frame.write_parquet(folder / f"{name}.parquet")
    return folder


def test_a_column_that_some_sites_lack_can_be_dropped(tmp_path: Path) -> None:
    sites(tmp_path, a={"z": [1.0] * N}, b={}, c={"comment": ["?"] * N})
    assert {table.names for table in load(tmp_path, label="y", drop=["z", "comment"])} == {("x",)}
    assert load(tmp_path, label="y", nodes=["b"], drop=["z", "comment"])[0].names == ("x",)
    with pytest.raises(ValueError, match=r"differ: .*'comment'.*with drop .*fill_missing_columns=True"):
        load(tmp_path, label="y", drop=["z"])
    with pytest.raises(ValueError, match=r"drop='zz' is not a column of .*; did you mean 'z'"):
        load(tmp_path, label="y", drop=["zz"])
    lenient = load(tmp_path, label="y", drop=["z", "comment", "zz"], categorical=["kind"], may_lack=["zz", "kind"])
    assert {table.names for table in lenient} == {("x",)}
    with pytest.raises(ValueError, match=r"drop='zz' is not a column of"):
        load(tmp_path, label="y", drop=["z", "comment", "zz"], may_lack=["kind"])
    words = ("train", tmp_path, "--label", "y", "--C", "1", "--drop", "z", "--drop", "comment")
    assert localgd(*words).returncode == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_that_sites_lack_are_filled_if_asked_and_it_is_said(tmp_path: Path, kind: str) -> None:
    z, town = np.arange(N) / 7.0, ["hull", "york"] * (N // 2)
    sites(tmp_path, kind, a={"z": z}, b={"town": town}, c={"town": town, "z": z + 1})
    federation, recipe = prepare(InProcess(load(tmp_path, label="y", fill_missing_columns=True)))
    assert recipe.feature_names == ("x", "z", "town=hull", "town=york", "town=?", "(bias)")
    assert recipe.columns[1].fill == pytest.approx(np.mean([z, z + 1]))
    assert federation.shards["b"].rows[:, 1].tolist() == pytest.approx([recipe.columns[1].fill] * N, abs=20)
    for name in ("z", "town"):
        assert f"column {name!r} is not there, so its values are filled (at 1 of 3 nodes)" in recipe.summary
    done = localgd("train", tmp_path, "--label", "y", "--C", "1", "--fill-missing-columns")
    assert done.returncode == 0
    assert "column 'z' is not there" in done.stderr


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("n_nodes", [2, 3])
def test_a_label_or_weight_that_a_node_lacks_is_not_to_be_filled_or_dropped(
    tmp_path: Path, n_nodes: int, *, fill: bool
) -> None:
    w, z = [1.0] * N, [2.0] * N
    whole = {"w": w, "outcome": [0, 1] * (N // 2)}
    sites(tmp_path, **{"a": whole, "b": {"z": z}, "c": whole} if n_nodes == 3 else {"a": whole, "b": {"z": z}})
    with pytest.raises(ValueError, match="a node without 'w' and 'outcome' cannot take part: add or rename") as refused:
        load(tmp_path, label="outcome", weight="w", fill_missing_columns=fill)
    assert ("leave the others out with drop" in str(refused.value)) is not fill  # the only other one is z
    assert "leave them out" not in str(refused.value)


def test_all_columns_that_differ_are_named_at_once_with_the_fewer_nodes(tmp_path: Path) -> None:
    z, town = [1.0] * N, ["hull", "york"] * (N // 2)
    sites(tmp_path, a={"z": z, "town": town, "n": z}, b={"town": town, "n": z}, c={"town": town}, d={"n": z})
    with pytest.raises(ValueError, match="differ") as refused:
        load(tmp_path, label="y")
    wanted = "the columns of 4 nodes differ: 'z' is only at 'a'; 'town' is not at 'd'; 'n' is not at 'c'; give every"
    assert str(refused.value).startswith(wanted)
    assert "(--drop), or fill them with fill_missing_columns=True (--fill-missing-columns)" in str(refused.value)
    sites(tmp_path, c={f"c{j}": z for j in range(10)}, d={})
    with pytest.raises(ValueError, match="'c6', 'c7' are only at 'c'; and 2 more columns; give"):
        load(tmp_path, label="y", drop=["town", "n"], nodes=["b", "c", "d"])
    sites(tmp_path, **{f"n{j}": {"town": town} for j in range(10)})
    with pytest.raises(ValueError, match="differ") as refused:
        load(tmp_path, label="y", drop=[f"c{j}" for j in range(10)])
    assert "'n' is only at 'a', 'b'" in str(refused.value)
    sites(tmp_path, **{f"m{j}": {} for j in range(10)})
    with pytest.raises(ValueError, match=r"'town' is only at 'n0', 'n1', 'n2', .*'n7', and 2 more; give"):
        load(tmp_path, label="y", nodes=["d", *(f"{kind}{j}" for kind in "mn" for j in range(10))])


def test_nodes_that_read_their_own_files_say_all_columns_that_some_lack() -> None:
    columns = {"x": [1.0, 2.0], "z": [0.5, 1.0], "town": ["hull", "york"]}
    parts = [pl.DataFrame({name: columns[name] for name in names}) for names in (["x"], ["x", "z"], columns)]
    nodes = [replace(from_arrays(part, [0, 1])[0], node_id=name) for part, name in zip(parts, "abc", strict=True)]
    said = r"column 'z' \(place 1, number\) is at 2, column 'town' \(place 2, text\) is at 1 of 3 nodes only; give all"
    with pytest.raises(ValueError, match=said):
        prepare(InProcess(nodes))


def test_a_label_is_not_filled_and_arrays_have_nothing_to_fill(tmp_path: Path) -> None:
    sites(tmp_path, a={})
    pl.DataFrame({"x": [1.0, 2.0]}).write_csv(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"differ: only .*a\.csv .*'y'"):
        load(tmp_path, label="y", fill_missing_columns=True)
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1])
    with pytest.raises(ValueError, match=r"fill_missing_columns=True: .*a\.npz holds arrays"):
        load(tmp_path / "a.npz", fill_missing_columns=True)


def test_row_names_and_a_trailing_separator_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"",x,y\nfirst,1,0\nsecond,2,1\n')
    (tmp_path / "b.csv").write_text("x,y,\n1,0,\n3,1,\n")
    assert [table.names for table in load(tmp_path, label="y")] == [("x",)] * 2
    (tmp_path / "b.csv").write_text("x,y,\n1,0,7\n3,1,8\n")
    with pytest.raises(ValueError, match="differ"):
        load(tmp_path, label="y")


def test_an_index_in_a_frame_or_among_the_columns_of_arrays_is_no_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Unnamed: 0": [0, 1], "Unnamed: 0.1": [0, 1], "x": [1.0, 2.0]})
    assert from_arrays(frame, [0, 1])[0].names == ("x",)
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1], columns=["__index_level_0__", "x"])
    assert load(tmp_path / "a.npz")[0].names == ("x",)


def test_an_index_that_somebody_names_is_a_column_like_any_other(tmp_path: Path) -> None:
    sites(tmp_path, "parquet", a={"__index_level_0__": ["p", "q"] * (N // 2)})
    names = prepare(InProcess(load(tmp_path, label="y", categorical=["__index_level_0__"])))[1].feature_names
    assert names[1:3] == ("__index_level_0__=p", "__index_level_0__=q")
    assert load(tmp_path / "a.parquet", label="y", node="__index_level_0__")[0].node_id == "p"


def test_what_looks_like_an_id_is_said_and_stays(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).permutation(N) + 1000
    sites(
        tmp_path,
        a={"nr": ids, "visit": ids // 2, "patient_id": ids // 2},
        b={"nr": ids, "visit": ids // 3, "patient_id": ids // 2},
    )
    recipe = prepare(InProcess(load(tmp_path, label="y")))[1]
    said = [note for note in recipe.notes if "id" in note]
    remedy = "if it is an id, leave it out with drop=[{0!r}] (--drop {0})"
    assert said == [
        f"column 'nr' holds another whole number in every row: {remedy.format('nr')}",
        f"column 'patient_id' has the name of one: {remedy.format('patient_id')}",
    ]
    assert "nr" in recipe.feature_names


def test_a_forgotten_node_column_is_named(tmp_path: Path) -> None:
    rows = np.arange(60)
    frame = pl.DataFrame({"x": rows % 7, "hospital_id": rows % 4, "town": list("abc") * 20, "y": rows % 2})
    frame.write_csv(tmp_path / "all.csv")
    done = localgd("train", tmp_path / "all.csv", "--label", "y", "--C", "1")
    assert "all rows are on one node" in done.stderr
    assert "(--node COLUMN); columns that could say which: 'hospital_id', 'town'" in done.stderr
    several = localgd("train", tmp_path / "all.csv", "--label", "y", "--C", "1", "--node", "hospital_id")
    assert "all rows are on one node" not in several.stderr


def test_labels_with_a_point_at_one_node_are_the_same_numbers_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    (tmp_path / "b.csv").write_text("x,y\n1,0.0\n2,1.0\n")
    recipe = prepare(InProcess(load(tmp_path, label="y")))[1]
    assert recipe.classes == (0, 1)
    assert "whole labels are written with a decimal point (at 1 of 2 nodes)" in recipe.summary


@pytest.mark.parametrize("name", ["...1", " ", ""])
def test_other_names_of_row_numbers(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(f"{name},x,y\n1,5,0\n2,7,1\n")
    (table,) = load(tmp_path / "a.csv", label="y")
    assert table.names == ("x",)
    by_name = f"column {name!r} is left out, as by its name"
    said = by_name if name.strip() else "the first column is left out, as without a name"
    assert table.notes == (f"{said} it numbers the rows",)


def test_names_are_as_they_are_quoted_and_any_separator_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('sep=|\n"the ""old"" | a"|y\n1|0\n2|1\n')
    assert load(tmp_path / "a.csv", label="y")[0].names == ('the "old" | a',)
