"""Nodes that count the same classes from 0 and from 1 are asked about, and one map of a node settles it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from localgd import InProcess, Recipe, auto, from_arrays, load, prepare
from localgd.data.label_maps import said_label_map
from localgd.data.meant import Meant
from localgd.evaluation.evaluate import evaluate
from localgd.evaluation.left_out import leave_one_node_out
from localgd.problems.regularised import Regularised
from localgd.run.loop import train

FROM_1 = {"north": {1: 0, 2: 1}, "east": {"1": 0, "2": 1}}


def tables(*shifted: str, low: int = 0):
    """Return four nodes with classes `low` and 1, those named with 1 and 2."""
    rng = np.random.default_rng(0)
    made = []
    for node in ("north", "south", "east", "west"):
        x = rng.normal(size=(40, 2))
        y = (x[:, 0] + rng.normal(size=40) > 0).astype(int)
        labels = y + 1 if node in shifted else np.where(y == 1, 1, low)
        made.append(replace(from_arrays(x, labels)[0], node_id=node))
    return made


@pytest.fixture(scope="module")
def expected():
    return prepare(InProcess(tables()), scale="standard")[1]


def test_labels_of_one_node_mean_what_is_said_of_that_node(expected):
    mixed = tables("north", "east")
    shards, recipe = prepare(InProcess(mixed), scale="standard", label_map=FROM_1)
    assert (recipe.classes, recipe.columns) == (expected.classes, expected.columns)
    assert dict(recipe.label_maps) == dict.fromkeys(FROM_1, (("1", 0), ("2", 1)))
    assert "labels of node 'north': '1' is taken for 0, '2' for 1" in recipe.summary
    known = Recipe.from_dict(recipe.to_dict())
    for table, plain in zip(mixed, tables(), strict=True):
        np.testing.assert_array_equal(known.codes(table), expected.codes(plain))
    assert known == recipe
    run = train(shards, auto(), problem=Regularised(C=1.0, intercept=True))
    model, without = run.model(known), run.model(expected)
    (found, other) = (evaluate(one, InProcess(rows)) for one, rows in ((model, mixed), (without, tables())))
    assert found.to_dict() == other.to_dict()


def test_balanced_weights_count_what_labels_mean():
    weights = [
        prepare(InProcess(rows), label_map=said, class_weight="balanced")[1].class_weights
        for rows, said in ((tables("north", "east"), FROM_1), (tables(), None))
    ]
    assert weights[0] == weights[1] != ()


@pytest.mark.parametrize(("low", "shifted"), [(0, ("north", "east")), (0, ("west",)), (-1, ("south",))])
def test_the_refusal_names_the_flags_that_settle_it(low, shifted):
    mixed = tables(*shifted, low=low)
    with pytest.raises(ValueError, match="the same classes") as error:
        prepare(InProcess(mixed))
    flags = shlex.split(re.search(r"\((--label-map [^)]*)\)", str(error.value))[1])
    assert flags == [word for node in sorted(shifted) for word in ("--label-map", f"{node}:1={low},2=1")]
    said = said_label_map(flags[1::2], "label-map", [table.node_id for table in mixed])
    python = ", ".join(f"{node!r}: {{1: {low}, 2: 1}}" for node in sorted(shifted))
    assert f"label_map={{{python}}} (" in str(error.value)
    recipe, plain = (prepare(InProcess(rows), label_map=of)[1] for rows, of in ((mixed, said), (tables(low=low), {})))
    assert recipe.classes == plain.classes == (low, 1)
    for table, other in zip(mixed, tables(low=low), strict=True):
        np.testing.assert_array_equal(recipe.codes(table), plain.codes(other))
    assert prepare(InProcess(mixed), n_classes=3)[1].classes == (low, 1, 2)


def test_minus_1_and_0_need_no_map_of_nodes():
    mixed = [*tables(low=-1)[:2], *tables()[2:]]
    with pytest.raises(ValueError, match=r"some nodes have -1, 1 and others 0, 1.*\(--label-map -1=0\)"):
        prepare(InProcess(mixed))
    recipe = prepare(InProcess(mixed), label_map={-1: 0})[1]
    assert recipe.classes == (0, 1)


def test_a_node_left_out_keeps_its_own_labels():
    def fit(others, label_map):
        rows, recipe = prepare(others, scale="standard", label_map=label_map)
        return train(rows, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)

    mixed, plain = (
        leave_one_node_out(InProcess(rows), partial(fit, label_map=said)).to_dict()
        for rows, said in ((tables(*FROM_1), FROM_1), (tables(), None))
    )
    assert mixed == plain
    assert len(mixed["nodes"]) == 4


def test_what_is_said_again_of_the_same_rows_is_done_once(expected):
    recipe = prepare(InProcess(tables(*FROM_1)), label_map=FROM_1)[1]
    for said in ({}, {"no": 0}):
        meant = Meant(said, {}, recipe.label_maps)
        meant.check(recipe)
        found = [recipe.codes(meant(table)).tolist() for table in tables(*FROM_1)]
        assert found == [expected.codes(table).tolist() for table in tables()]


def test_rows_of_which_one_label_is_a_class_are_asked_what_all_of_them_mean(expected):
    (table,) = (table for table in tables("north") if table.node_id == "north")
    with pytest.raises(ValueError, match=r"label 2 is none of .*\(--label-map 'north:1=…,2=…'\)"):
        expected.codes(table)


def test_a_class_that_only_a_node_left_out_has_is_passed_over():
    recipe = prepare(InProcess(tables()), label_map={"elsewhere": {"a": 0, "b": 7}})[1]
    assert recipe.label_maps == (("elsewhere", (("a", 0),)),)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["soth:1=0"], "names 'soth', which is no node; did you mean 'south'"),
        (["grade: II=2"], "of a label that has a colon itself, say :grade: II=…"),
        (["south:1"], "VALUE=MEANING"),
    ],
)
def test_flags_that_mean_nothing_are_refused(texts, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        said_label_map(texts, "label-map", ["north", "south"])


def test_a_label_with_a_colon_in_two_spellings_is_settled_by_the_flag_printed(tmp_path):
    rows = "".join(f"{place},{label}\n" for place, label in enumerate(["grade: ii", "grade: II", "none of it"] * 2))
    (tmp_path / "a.csv").write_text(f"x,y\n{rows}")
    engine = InProcess(load(tmp_path / "a.csv", label="y"))
    with pytest.raises(ValueError, match="two values or one in two spellings") as error:
        prepare(engine)
    text = shlex.split(str(error.value).partition("--label-map ")[2].partition(" for one")[0])[0]
    assert prepare(engine, label_map=said_label_map([text], "label-map", ["a"]))[1].classes == (
        "grade: II",
        "none of it",
    )
