"""A file that lies in a folder twice would count twice: that is said, in whatever format it lies there."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from localgd import InProcess, load, prepare

SAID = "nodes 'a', 'a copy' hold the same rows, and each of them counts: if one is a copy, leave it out"


def rows(seed: int, n: int = 40) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    age = pl.Series(rng.integers(20, 90, n)).set(pl.Series(np.arange(n) == 3), None)  # one is missing
    ward = [None if place == 5 else str(one) for place, one in enumerate(rng.choice(["n", "s"], n))]
    return pl.DataFrame({"age": age, "ward": ward, "y": np.arange(n) % 2})


@pytest.mark.parametrize("kind", ["csv", "parquet", "one table"])
def test_a_copy_is_said(tmp_path, kind):
    parts = {"a": rows(0), "a copy": rows(0), "b": rows(1)}
    if kind == "one table":
        frame = pl.concat(part.with_columns(site=pl.lit(name)) for name, part in parts.items())
        frame.write_csv(tmp_path / "rows.csv")
        tables = load(tmp_path / "rows.csv", label="y", node="site")
    else:
        parts["a"].write_csv(tmp_path / "a.csv")
        (parts["a copy"].write_csv if kind == "csv" else parts["a copy"].write_parquet)(tmp_path / f"a copy.{kind}")
        parts["b"].write_csv(tmp_path / "b.csv")
        tables = load(tmp_path, label="y")
    assert [table.notes for table in tables] == [(SAID,), (SAID,), ()]
    assert f"{SAID} (at 2 of 3 nodes)" in prepare(InProcess(tables))[1].notes


def test_a_copy_of_arrays_is_said(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2
    for name, scale in (("a", 1.0), ("a copy", 1.0), ("b", 2.0)):
        np.savez(tmp_path / f"{name}.npz", X=X * scale, y=y)
    assert [table.notes for table in load(tmp_path)] == [(SAID,), (SAID,), ()]
    for name, scale in (("a", 1), ("a copy", 1), ("b", 2)):
        (tmp_path / f"{name}.npz").unlink()
        lines = [f"{label} 1:{scale} {2 + place}:{place + 1}" for place, label in enumerate(y)]
        (tmp_path / f"{name}.svm").write_text("\n".join(lines))
    assert [SAID in table.notes for table in load(tmp_path)] == [True, True, False]


def test_rows_that_differ_in_a_label_or_a_cell_or_are_few_are_no_copy(tmp_path):
    frame = rows(0)
    frame.write_csv(tmp_path / "a.csv")
    for changed in (
        frame.with_columns(y=1 - pl.col("y")),
        frame.with_columns(age=pl.Series([*frame["age"][:-1], 19])),
        frame.with_columns(ward=pl.col("ward").fill_null("n")),
        frame.head(30),
    ):
        changed.write_csv(tmp_path / "b.csv")
        assert [table.notes for table in load(tmp_path, label="y")] == [(), ()]
    for name in "ab":
        frame.head(20).write_csv(tmp_path / f"{name}.csv")
    assert [table.notes for table in load(tmp_path, label="y")] == [(), ()]
