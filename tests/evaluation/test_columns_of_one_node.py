"""A column that one node alone has, filled elsewhere: the model that is judged there does without it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, Regularised, auto, from_arrays, leave_one_node_out, load, prepare, train

READ = ("--label", "y", "--fill-missing-columns")


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Write three sites, of which one has a number, a category and a text more; and the same without them."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("made")
    for name in "abc":
        x = rng.normal(size=(40, 2))
        frame = pl.DataFrame({"x": x[:, 0], "z": x[:, 1], "y": (x[:, 0] + rng.normal(size=40) > 0).astype(int)})
        more = frame.with_columns(only=pl.col("x") ** 2, ward=pl.Series(["u", "v"] * 20), said=pl.lit("some words"))
        for place, rows in (("with", more if name == "a" else frame), ("without", frame)):
            (folder / place).mkdir(exist_ok=True)
            rows.write_csv(folder / place / f"{name}.csv")
    return folder


def fit(others):
    federation, recipe = prepare(others, scale="standard", text=["said"], empty="leave-out")
    return train(federation, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)


def plain(others):
    federation, recipe = prepare(others, scale="standard")
    return train(federation, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)


def test_it_is_judged_as_if_nobody_had_the_column_and_that_is_told(sites):
    tables = load(sites / "with", label="y", fill_missing_columns=True)
    found = leave_one_node_out(InProcess(tables), fit)
    expected = leave_one_node_out(InProcess(load(sites / "without", label="y")), plain)
    assert found.nodes["a"].to_dict() == expected.nodes["a"].to_dict()
    assert set(found.nodes) == {"a", "b", "c"}
    assert found.unmet == {"a": {"only": 40, "ward": 40, "said": 40}}


def test_the_command_runs_and_says_so_and_tune_likewise(sites):
    run = sites / "RUN"
    done = localgd("train", sites / "with", *READ, "--text", "said", "--C", "1", "--leave-one-node-out", "--out", run)
    assert done.returncode == 0, done.stderr
    said = (
        "what training never met is read as none: of 'only' in 40 rows of 'a', of 'said' in 40 rows of 'a', of 'ward'"
    )
    assert said in done.stdout.replace("\n", " ")
    assert set(json.loads((run / "metrics.json").read_text())["nodes"]) == {"a", "b", "c"}
    tuned = localgd("tune", sites / "with", *READ, "--text", "said", "--Cs", "1.0", "--cv", "leave-one-node-out")
    assert tuned.returncode == 0, tuned.stderr
    assert said in tuned.stdout.replace("\n", " ")


def test_a_column_without_any_value_is_refused_unless_it_is_to_be_left_out():
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [None, None]})
    engine = InProcess(from_arrays(frame, [0, 1]))
    with pytest.raises(ValueError, match=r"column 'b' is missing in all rows of all nodes; .*empty='leave-out'"):
        prepare(engine)
    _, recipe = prepare(engine, empty="leave-out", category_map={"b": {"x": "y"}}, categorical=["b"])
    assert (recipe.empty, [column.name for column in recipe.columns]) == (("b",), ["a"])
    assert "column 'b' is left out, as no row has a value of it" in recipe.summary
    with pytest.raises(ValueError, match="empty must be one of"):
        prepare(engine, empty="zeros")
