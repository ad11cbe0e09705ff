"""Columns are called alike whatever kind of file, or frame, they come from."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

from localgd import InProcess, from_arrays, load, prepare

AS_WRITTEN = ["blood\npressure", " heart  rate\t(1/min) ", "ward\r\nno", "outcome"]
CALLED = ("blood pressure", "heart rate (1/min)", "ward no")


def frame() -> pl.DataFrame:
    columns = [[120.5, 130.0, 110.0, 99.5], [60, 70, 80, 90], ["a", "b", "a", "b"], [0, 1, 0, 1]]
    return pl.DataFrame(dict(zip(AS_WRITTEN, columns, strict=True)))


def write(folder, kind: str) -> None:
    path = folder / f"{kind}.{kind}"
    if kind == "csv":
        frame().write_csv(path)
    else:
        frame().write_parquet(path)


def test_a_site_of_csv_and_one_of_parquet_have_the_same_columns(tmp_path):
    for kind in ("csv", "parquet"):
        write(tmp_path, kind)
    tables = load(tmp_path, label="outcome")
    assert [table.names for table in tables] == [CALLED] * 2
    assert tables[0].features.equals(tables[1].features)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_may_be_named_as_the_header_has_them_or_as_they_are_called(tmp_path, kind):
    write(tmp_path, kind)
    given, called = (
        load(tmp_path, label="outcome", categorical=[name], drop=[other])[0]
        for name, other in (AS_WRITTEN[:2], CALLED[:2])
    )
    assert given.names == called.names == ("blood pressure", "ward no")
    assert given.features.equals(called.features)
    path = tmp_path / f"{kind}.{kind}"
    assert [table.node_id for table in load(path, label="outcome", node=AS_WRITTEN[2])] == ["a", "b"]


@pytest.mark.parametrize("make", [lambda frame: frame, lambda frame: pd.DataFrame(frame.to_dict(as_series=False))])
def test_frames_in_memory_have_the_names_of_files_and_stay_as_they_were(make):
    rows = make(frame().drop("outcome"))
    tables = from_arrays(rows, [0, 1, 0, 1], categorical=[AS_WRITTEN[1]])
    assert tables[0].names == CALLED
    assert list(rows.columns) == AS_WRITTEN[:3]
    _, recipe = prepare(InProcess(tables), category_map={AS_WRITTEN[2]: {"b": "a", "a": "b"}})
    assert tuple(column.name for column in recipe.columns) == CALLED
    assert recipe.matrix(rows).shape == (4, 8)  # a number, four rates, two wards, the bias


def test_arrays_with_names_for_their_columns_have_those_too(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1], columns=AS_WRITTEN[:2])
    assert load(tmp_path / "a.npz")[0].names == CALLED[:2]


def test_names_in_either_unicode_form_are_one(tmp_path):
    for node, name in {"a": f"gr{chr(0xF6)}sse", "b": f"gro{chr(0x308)}sse"}.items():
        pl.DataFrame({name: [1.0, 2.0], "y": [0, 1]}).write_csv(tmp_path / f"{node}.csv")
        assert load(tmp_path / f"{node}.csv", label="y", categorical=[name])[0].names == (f"gr{chr(0xF6)}sse",)
    assert [table.names for table in load(tmp_path, label="y", missing_values={f"gro{chr(0x308)}sse": [9]})] == [
        (f"gr{chr(0xF6)}sse",)
    ] * 2


def test_two_headers_that_differ_in_a_line_break_only_are_one_name(tmp_path):
    twice = pl.DataFrame({"a\nb": [1.0], "a b": [2.0], "y": [0]})
    twice.write_parquet(tmp_path / "rows.parquet")
    for make in (lambda: load(tmp_path / "rows.parquet", label="y"), lambda: from_arrays(twice, [0])):
        with pytest.raises(ValueError, match="two columns are called 'a b'; rename one"):
            make()


def sites(folder, **headers: str):
    for name, header in headers.items():
        rows = "".join(f"{place}.5,{place % 3},{place % 2}\n" for place in range(6))
        (folder / f"{name}.csv").write_text(f"{header},y\n{rows}")


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("other", ["krea", "KREA", "Kr ea", "kr_ea", "KR.EA"])
def test_columns_of_nodes_that_differ_in_case_or_blanks_are_to_be_renamed(tmp_path, other, *, fill):
    sites(tmp_path, a="Krea,age", b=f"{other},age", c="Krea,age")
    with pytest.raises(ValueError, match="columns differ in spelling: ") as refused:
        load(tmp_path, label="y", fill_missing_columns=fill)
    said = f"columns differ in spelling: 'Krea' (at 'a', 'c') and '{other}' (at 'b'); rename them, so that what is one"
    assert str(refused.value).startswith(said)
    assert "fill" not in str(refused.value)
    (tmp_path / "c.csv").unlink()
    nodes = [load(tmp_path, label="y", nodes=[name])[0] for name in "ab"]  # each reads its own file
    with pytest.raises(ValueError, match=rf"from those of others: .*'{re.escape(other)}'.*; rename them"):
        prepare(InProcess(nodes))


def test_what_else_differs_is_said_behind_and_what_one_node_tells_apart_is_two_columns(tmp_path):
    sites(tmp_path, a="Krea,age", b="krea,weight")
    with pytest.raises(ValueError, match=r"in spelling: 'Krea' .*; the columns of .* differ: only .*'age'.* fill them"):
        load(tmp_path, label="y")
    sites(tmp_path, a="Krea,krea", b="krea,age")
    with pytest.raises(ValueError, match=r"the columns of .* differ: only .*'Krea'.* fill them"):
        load(tmp_path, label="y")
    assert load(tmp_path, label="y", fill_missing_columns=True)[1].names == ("Krea", "krea", "age")
    sites(tmp_path, a="x1,1.0", b="x1,10")  # numbers are no spellings of each other
    assert len(load(tmp_path, label="y", fill_missing_columns=True)) == 2


def test_so_is_a_label_that_a_node_spells_apart(tmp_path):
    sites(tmp_path, a="x,age", b="x,age")
    (tmp_path / "b.csv").write_text((tmp_path / "b.csv").read_text().replace("age,y", "age,Y"))
    for fill in (False, True):
        with pytest.raises(ValueError, match=r"in spelling: 'y' \(at 'a'\) and 'Y' \(at 'b'\); rename them"):
            load(tmp_path, label="y", fill_missing_columns=fill)
