"""Categories that only rows have which a model is judged by: read as none, and said."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, Regularised, auto, from_arrays, hold_out, leave_one_node_out, load, prepare, train
from localgd.data.unmet import unmet
from localgd.run.tune import tune

N = 240
READ = ("--label", "y", "--node", "site")


def rows(*, n_own: int = 40) -> pl.DataFrame:
    """Three sites: c has a ward of its own in so many rows, b 3 blank beds, and another spelling of wards."""
    rng, at = np.random.default_rng(0), np.arange(N)
    x, site = rng.standard_normal(N), np.array(["a", "b", "c"])[at % 3]
    ward = np.where(rng.random(N) < 0.5, "u", "v").astype(object)
    ward[(site == "c") & (at < 3 * n_own)] = "own"
    ward[site == "b"] = [value.upper() for value in ward[site == "b"]]
    bed = np.where(rng.random(N) < 0.5, "p", "q").astype(object)
    bed[(site == "b") & (at < 9)] = None
    labels = np.where(x + rng.standard_normal(N) > 0, "yes", "no")
    return pl.DataFrame({"x": x, "ward": ward, "bed": bed, "site": site, "y": labels})


@pytest.fixture
def table(tmp_path):
    rows().write_csv(tmp_path / "rows.csv")
    return tmp_path / "rows.csv"


def tables(frame):
    return from_arrays(frame.drop("site", "y"), frame["y"], frame["site"])


def refused(recipe, part):
    """How many rows a recipe refuses for what they hold in each column, asked row by row."""
    counts = {}
    for name, known in (("ward", {"bed": "p"}), ("bed", {"ward": "u"})):
        for row in part.iter_slices(1):
            try:
                recipe.matrix(row.with_columns(pl.lit(value).alias(other) for other, value in known.items()))
            except ValueError:
                counts[name] = counts.get(name, 0) + 1
    return counts


def test_the_rows_that_are_told_are_those_that_would_be_refused():
    frame = rows()
    _, recipe = prepare(InProcess(tables(frame.filter(pl.col("site") == "a"))))
    found = unmet(InProcess(tables(frame)), recipe)
    expected = {site: refused(recipe, frame.filter(site=site)) for site in ("a", "b", "c")}
    assert found == {site: counts for site, counts in expected.items() if counts}
    assert found == {"b": {"bed": 3}, "c": {"ward": 40}}  # 'U' is 'u' in another spelling
    assert [name for name in expected if expected[name]] == ["b", "c"]
    assert unmet(InProcess(tables(frame)), recipe, 4) == {"b": {"bed": None}, "c": {"ward": 40}}


def fit(others):
    federation, recipe = prepare(others, scale="standard")
    return train(federation, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)


def test_what_only_the_node_left_out_has_is_told_with_how_it_does():
    found = leave_one_node_out(InProcess(tables(rows())), fit)
    assert found.unmet == {"b": {"bed": 3}, "c": {"ward": 40}}
    assert json.loads(json.dumps(found.to_dict()))["unmet"] == found.unmet
    assert leave_one_node_out(InProcess(tables(rows(n_own=3))), fit, min_group=4).unmet == {
        "b": {"bed": None},
        "c": {"ward": None},
    }


def test_what_only_rows_of_a_fold_have_is_told_by_node():
    nodes = InProcess(tables(rows()))
    found = tune(nodes, prepare, Cs=[1.0], cv="leave-one-node-out")
    assert found.unmet == {"b": {"bed": 3}, "c": {"ward": 40}}
    assert tune(InProcess(tables(rows())[:1]), prepare, Cs=[1.0], cv=2).unmet == {}
    alone = tune(InProcess(tables(rows(n_own=1))), prepare, Cs=[1.0], cv=2)
    assert alone.unmet == {"c": {"ward": 1}}  # in the one fold that holds the row out


def test_the_command_says_it_in_a_line(table, tmp_path):
    said = "what training never met is read as none: of 'bed' in 3 rows of 'b', of 'ward' in 40 rows of 'c'"
    done = localgd("train", table, *READ, "--C", "1", "--leave-one-node-out", "--out", tmp_path / "RUN")
    assert said in done.stdout
    assert json.loads((tmp_path / "RUN" / "metrics.json").read_text())["unmet"]["c"] == {"ward": 40}
    words = ("--Cs", "1.0", "--cv", "leave-one-node-out")
    assert said in localgd("tune", table, *READ, *words).stdout
    some = localgd("tune", table, *READ, *words, "--min-group", "4").stdout
    assert "of 'bed' in some of 'b', of 'ward' in 40 rows of 'c'; where one is another spelling" in some
    pl.read_csv(table).filter(pl.col("site") == "a").write_csv(tmp_path / "a.csv")
    assert "never met" not in localgd("tune", tmp_path / "a.csv", *READ, "--Cs", "1.0", "--cv", "2").stdout


def test_rows_set_aside_are_looked_at_before_the_training(tmp_path):
    rows(n_own=1).write_csv(tmp_path / "rows.csv")
    nodes = InProcess(load(tmp_path / "rows.csv", label="y", node="site"))
    odd = next(  # a seed that sets the one row aside that has a ward of its own
        seed for seed in range(99) if "own" in hold_out(nodes, 0.2, seed=seed)[1].shards["c"].features["ward"].to_list()
    )
    words = ("train", tmp_path / "rows.csv", *READ, "--C", "1", "--holdout", "0.2", "--seed", odd)
    assert "read as none: of 'ward' in 1 row of 'c'" in localgd(*words).stderr
    assert "of 'ward' in some of 'c'" in localgd(*words, "--min-group", "2").stderr


def test_commands_on_a_model_say_it_where_they_are_told_to_take_zeros(table, tmp_path):
    whole = pl.read_csv(table)
    whole.filter(pl.col("site") == "a").write_csv(tmp_path / "a.csv")
    whole.filter(pl.col("site") == "c").write_csv(tmp_path / "c.csv")
    run = tmp_path / "RUN"
    assert localgd("train", tmp_path / "a.csv", *READ, "--C", "1", "--out", run).returncode == 0
    said = "read as none: of 'ward' in 40 rows of 'c'"
    refusal = localgd("evaluate", run, tmp_path / "c.csv")
    assert (refusal.returncode, "unseen in training" in refusal.stderr) == (2, True)
    assert said in localgd("evaluate", run, tmp_path / "c.csv", "--unseen", "zeros").stderr
    assert said in localgd("predict", run, tmp_path / "c.csv", "--unseen", "zeros").stderr
    out = ("--out", tmp_path / "calibrated.json")
    assert said in localgd("calibrate", run, tmp_path / "c.csv", "--unseen", "zeros", *out).stderr
    entries = json.loads((run / "model.json").read_text())
    entries["scaling"]["unseen"] = "zeros"  # as of a training with --min-group
    (run / "model.json").write_text(json.dumps(entries))
    assert said in localgd("certify", run, tmp_path / "c.csv").stderr
