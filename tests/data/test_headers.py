"""Columns are called alike whatever kind of file, or frame, they come from."""

from __future__ import annotations

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
