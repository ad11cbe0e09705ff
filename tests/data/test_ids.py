"""A column of ids is to be dropped, whatever is advised of columns of other kinds that look as it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from localgd import InProcess, from_arrays, load, prepare

N = 60


def frame(pid, **more) -> pl.DataFrame:
    x = np.random.default_rng(N).normal(size=len(pid)).round(2)
    return pl.DataFrame({"pid": pid, "x": x, **more, "y": np.arange(len(pid)) % 2})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_here_and_text_there_that_nearly_all_differ_are_to_be_dropped_first(tmp_path, kind):
    for name, pid in (("a", [70000 + i for i in range(N)]), ("b", [f"B{i:05d}" for i in range(N)])):
        getattr(frame(pid), f"write_{kind}")(tmp_path / f"{name}.{kind}")
    said = r"numbers in .*; nearly every value .*: if it is an id, leave it out with .*--drop pid.*; else .*--categ"
    with pytest.raises(ValueError, match=said):
        load(tmp_path, label="y")
    assert load(tmp_path, label="y", drop=["pid"])[0].names == ("x",)


def test_nodes_that_read_their_own_files_say_the_same():
    parts = ([70000 + i for i in range(N)], [f"B{i:05d}" for i in range(N)])
    nodes = [from_arrays(frame(pid).drop("y"), frame(pid)["y"])[0] for pid in parts]
    with pytest.raises(ValueError, match=r"in more than one way .*; nearly every value .*--drop pid.*; else code it"):
        prepare(InProcess([nodes[0], replace(nodes[1], node_id="b")]))


@pytest.mark.parametrize("codes", [[i % 7 for i in range(N)], [i + 0.25 for i in range(N)]], ids=["codes", "a lab"])
def test_of_codes_and_measured_numbers_nothing_is_said_of_ids(tmp_path, codes):
    frame(codes).write_csv(tmp_path / "a.csv")
    frame([f"C{i % 7}" for i in range(N)]).write_csv(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"numbers in .* but text in .*; code it alike, or declare") as refused:
        load(tmp_path, label="y")
    assert "if it is an id" not in str(refused.value)


def test_categories_most_of_which_are_in_a_row_each_are_said(tmp_path):
    ward = {"ward": [f"w{i % 9}" for i in range(N)]}
    frame([70000 + i for i in range(N)], **ward).write_csv(tmp_path / "a.csv")
    frame([f"B{i:05d}" for i in range(N)], **ward).write_csv(tmp_path / "b.csv")
    tables = load(tmp_path, label="y", categorical=["pid"])
    _, recipe = prepare(InProcess(tables), categorical=["pid"])
    said = (
        "column 'pid': 120 categories in 120 rows, most in a row each: if it is an id, leave it out with drop=['pid']"
    )
    assert [note for note in recipe.notes if "categories in" in note] == [f"{said} (--drop pid)"]
    table = from_arrays(frame(list(range(N))).drop("y"), np.arange(N) % 2)[0]  # numbers, as of arrays
    _, recipe = prepare(InProcess([table]), categorical=["pid"])
    assert any(note.startswith("column 'pid': 60 categories in 60 rows, most") for note in recipe.notes)
