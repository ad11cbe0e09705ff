"""One value in several spellings: joined between nodes and said, told apart on one, mapped where somebody says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, Recipe, from_arrays, load, prepare, train
from localgd.data.encodings import Category
from localgd.data.partition import partition
from localgd.data.spelling import places
from localgd.data.table import Table
from localgd.methods.exact import newton
from localgd.problems.regularised import Regularised

CAFE, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def nodes(*columns: Any, **options: Any) -> tuple[InProcess, Recipe]:
    """Prepare nodes with these labels, or with these categories and labels 0 and 1; each read by itself."""
    tables = []
    for number, column in enumerate(columns):
        rng = np.random.default_rng(number)
        tables.append(Table(f"{number}", rng.standard_normal((len(column), 2)), np.array(column)))
    return prepare(InProcess(tables), **options)


def categories(*columns: Any, **options: Any) -> Recipe:
    tables = [
        Table(f"{number}", pl.DataFrame({"c": column}), np.arange(len(column)) % 2)
        for number, column in enumerate(columns)
    ]
    return prepare(InProcess(tables), **options)[1]


@pytest.mark.parametrize(
    ("one", "other", "classes"),
    [
        (["no", "yes"], ["no", " YES "], ("no", "yes")),
        ([0, 1], ["0", "1"], (0, 1)),
        ([0, 1], ["0.0", "1.0"], (0, 1)),
        ([0, 1], [False, True], (0, 1)),
        ([0, 1], ["FALSE", "TRUE"], (0, 1)),
        ([False, True], ["false", "True"], (False, True)),
        (["0", "1"], ["FALSE", "TRUE"], (0, 1)),
        ([1.5, 2.5], ["1.50", "2.5"], (1.5, 2.5)),
        (["inn", CAFE], ["inn", DECOMPOSED], (CAFE, "inn")),
        (["no", "yes"], ["no\u00a0", "\uff59\uff45\uff53"], ("no", "yes")),
        (["no", "yes"], ["no\u200b", "\ufeffyes"], ("no", "yes")),
    ],
    ids=str,
)
def test_labels_that_nodes_spell_apart_are_one_class_and_it_is_said(one: Any, other: Any, classes: Any) -> None:
    engine, recipe = nodes(one, other)
    assert [(type(value), value) for value in recipe.classes] == [(type(value), value) for value in classes]
    for shard in engine.shards.values():
        assert np.sort(shard.rows[:, -1]).tolist() == [-1, 1]
    apart = {str(value) for value in one} != {str(value) for value in other}
    assert ("labels in other spellings: " in recipe.summary) == apart
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


CODES = (["01", "1"], [2**53, 2**53 + 1], ["1e3", "1000"], ["x-1", "x1"], ["m\u00b2", "m2"], ["a b", "ab"])


@pytest.mark.parametrize("values", CODES, ids=str)
def test_codes_are_never_joined(values: list[Any]) -> None:
    assert len(nodes(values, values)[1].classes) == 2
    assert (
        len(categories([str(value) for value in values], [str(value) for value in values]).columns[0].categories) == 2
    )


def test_leading_zeros_in_a_file_are_digits_of_a_code(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,01\n2,1\n3,02\n")
    assert prepare(InProcess(load(tmp_path / "a.csv", label="y")))[1].classes == ("01", "02", "1")


@pytest.mark.parametrize("pair", [["Yes", "yes"], [CAFE, DECOMPOSED], ["a", "a "], ["1.0", "1"]], ids=str)
def test_two_spellings_of_a_label_on_one_node_are_refused_unless_mapped(pair: list[str]) -> None:
    first, last = pair
    labels = [first, last, "no"]
    with pytest.raises(ValueError, match=r"label: a node has both .* --label-map .*=.* for one"):
        nodes(labels)
    assert nodes(labels, label_map={last: first})[1].classes == tuple(sorted([first, "no"], key=str.casefold))
    assert len(nodes(labels, label_map={first: first, last: last})[1].classes) == 3


@pytest.mark.parametrize("pair", [["Yes", "yes"], [CAFE, DECOMPOSED], ["1.0", "1"], ["true", "TRUE"]], ids=str)
def test_two_spellings_of_a_category_on_one_node_are_refused_unless_mapped(pair: list[str]) -> None:
    with pytest.raises(ValueError, match=r"column 'c': a node has both .* --category-map '?c:.*=.* for one"):
        categories([*pair, "no"])
    assert len(categories([*pair, "no"], category_map={"c": {pair[0]: pair[1]}}).columns[0].categories) == 2


def test_a_map_of_categories_joins_them_or_keeps_them_apart() -> None:
    values = ["A", "a", "b"]
    joined = categories(values, ["b", "B"][:1] * 3, category_map={"c": {"a": "A"}}).columns[0]
    assert joined.categories == ("A", "b")
    apart = categories(values, category_map={"c": {"a": "a", "A": "A"}})
    assert apart.columns[0].categories == ("A", "a", "b")
    rows = apart.matrix(pl.DataFrame({"c": ["a", "A", "B"]}))
    assert rows[:, :3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="category_map='d' is not a column of categories"):
        categories(values, category_map={"d": {}})


def test_new_rows_are_folded_as_those_of_training() -> None:
    recipe = categories(["North", "south"], ["north", "south", "north"])
    assert recipe.columns[0].categories == ("north", "south")
    assert "column 'c' in other spellings: 'North' is taken for 'north'" in recipe.summary
    rows = recipe.matrix(pl.DataFrame({"c": ["NORTH", " South ", "North"]}))
    assert rows[:, :2].tolist() == [[1, 0], [0, 1], [1, 0]]
    with pytest.raises(ValueError, match="column 'c' holds 'west', unseen in training"):
        recipe.matrix(pl.DataFrame({"c": ["west"]}))


def test_the_model_of_nodes_that_spell_apart_is_that_of_nodes_that_do_not() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(2, size=60)
    alike = [Table(f"{k}", X[k::3], y[k::3]) for k in range(3)]
    words = [y[0::3], y[1::3] == 1, np.where(y[2::3] == 1, "TRUE", "false")]
    apart = [Table(f"{k}", X[k::3], labels) for k, labels in enumerate(words)]
    found = [train(prepare(InProcess(tables))[0], newton(), problem=Regularised(C=1.0)).w for tables in (alike, apart)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "labels",
    [
        (["yes", "no"], [0, 1]),
        (["yes", "no"], [0, 0]),
        (["yes", "yes"], [0, 0]),
        (["ill", "well"], ["sick", "healthy"]),
        ([1, 2], [3, 4]),
        (["true", "false"], [1, 2]),
    ],
    ids=str,
)
def test_labels_that_no_two_nodes_share_are_refused_until_somebody_says_what_they_are(labels: Any) -> None:
    values = sorted({str(value) for column in labels for value in column})
    with pytest.raises(ValueError, match=r"but none all of these: .*\(--label-map .*=….*\(--n-classes"):
        nodes(*labels)
    assert len(nodes(*labels, n_classes=len(values))[1].classes) == len(values)
    if len(values) == 4:
        meant = {value: place for column in labels for place, value in enumerate(column)}
        assert nodes(*labels, label_map=meant)[1].classes == (0, 1)


def test_that_no_node_has_all_classes_is_said() -> None:
    assert "no node has rows of all 3 classes (0, 1, 5)" in nodes([0, 1], [1, 5])[1].summary
    assert "no node has" not in nodes([0, 1, 5], [1, 5])[1].summary


def test_words_of_either_unicode_form_are_one_word() -> None:
    frames = [pl.DataFrame({"t": [word, "inn"]}) for word in (CAFE, DECOMPOSED)]
    tables = [Table(f"{k}", frame, np.array([0, 1])) for k, frame in enumerate(frames)]
    assert prepare(InProcess(tables), text=["t"])[1].feature_names == (f"t:{CAFE}", "t:inn", "(bias)")


def test_nodes_of_one_class_each_are_no_other_spelling() -> None:
    engine, recipe = nodes(["ill"] * 3, ["well"] * 2)
    assert "nodes of one class only: 2 of 2 ('ill' at 1, 'well' at 1)" in recipe.summary
    assert len(engine.shards) == 2
    whole = from_arrays(np.eye(12), np.arange(12) // 2 % 4)[0]
    assert len(prepare(InProcess(partition(whole, "by_label", 2)))[1].classes) == 4


def test_more_than_thirty_classes_are_asked_for() -> None:
    labels = np.arange(200) % 31
    with pytest.raises(ValueError, match=r"31 classes .*n_classes=31 \(--n-classes 31\)"):
        nodes(labels)
    assert len(nodes(labels, n_classes=31)[1].classes) == 31
    assert len(nodes(labels, label_map={label: label % 2 for label in range(31)})[1].classes) == 2
    with pytest.raises(ValueError, match="n_classes=30, but the labels are 31 classes"):
        nodes(labels, n_classes=30)


def test_a_map_of_labels_that_no_node_has_is_refused() -> None:
    with pytest.raises(ValueError, match="label_map='nein' is no label of any node; there are 'no', 'yes'"):
        nodes(["no", "yes"], label_map={"nein": 0})
    for wrong in ({"no": None}, {"no": float("nan")}, {"no": [1]}, [("no", 0)]):
        with pytest.raises(ValueError, match="label_map m"):
            nodes(["no", "yes"], label_map=wrong)
    with pytest.raises(ValueError, match=r"category_map\['c'\] must be a mapping"):
        categories(["a", "b"], category_map={"c": "a=b"})
    with pytest.raises(ValueError, match="n_classes must be"):
        nodes(["no", "yes"], n_classes=1)
    with pytest.raises(ValueError, match="are for classes"):
        nodes([1.0, 2.0], label_map={1: 0}, classes=False)


def test_what_is_uneven_is_said_without_how_many() -> None:
    assert "more than 9 of 10 rows are of one class at 1 of 2 nodes" in nodes([0] * 19 + [1], [0, 1])[1].summary
    assert "9 of 10" not in nodes([0] * 9 + [1], [0, 1])[1].summary


def test_what_was_said_of_a_spelling_counts_where_no_node_of_training_has_it() -> None:
    said = {"no": 0, "yes": 1, "ja": 1, "nein": 0}
    recipe = nodes(["no", "yes"], [0, 1], label_map=said)[1]
    assert places(["ja", "nein", "TRUE", False, "oui"], recipe.classes, recipe.spellings) == [1, 0, 1, 0, -1]
    column = categories(["0", "1"], ["0", "1"], category_map={"c": {"no": 0, "yes": 1}}).columns[0]
    assert isinstance(column, Category)
    assert places(["no", "YES", "true"], column.categories, column.spellings) == [0, 1, 1]


def test_categories_that_may_be_one_in_two_words_or_none_are_said() -> None:
    summary = categories(["0", "1"], ["No", "yes"], ["FALSE", "true", "NA"]).summary
    assert "column 'c' holds 0 and 1, but also false and true, but also no and yes: where they mean the same" in summary
    assert "column 'c': 'NA' counts as a category" in summary
    for plain in (["0", "1", "2"], ["no", "yes", "perhaps"]):
        assert "column 'c'" not in categories(plain).summary.replace("column 'c' in", "")


def test_places_are_exact_before_they_are_folded() -> None:
    assert places(["a", "A", " a"], ["A", "a"]) == [1, 0, -1]


def test_the_command_line_maps_labels_and_says_so(tmp_path: Path) -> None:
    sites, out = tmp_path / "sites", tmp_path / "RUN"
    sites.mkdir()
    for name, (no, yes) in {"a": ("no", "yes"), "b": ("No", "YES"), "c": ("0", "1")}.items():
        rows = "".join(f"{i % 7},{i % 3},{yes if i % 7 + i % 3 > 4 else no}\n" for i in range(40))
        (sites / f"{name}.csv").write_text("x,z,ill\n" + rows)
    asked = ("train", sites, "--label", "ill", "--C", "1", "--out", out)
    refused = localgd(*asked)
    assert refused.returncode == 2
    assert "--label-map" in refused.stderr
    done = localgd(*asked, "--label-map", "no=0,yes=1")
    assert done.returncode == 0
    assert "labels in other spellings: 'No' is taken for 0" in done.stderr
    assert localgd("predict", out, sites / "a.csv").stdout.split()[1] in {"0", "1"}
    again = localgd("certify", out, sites, "--label", "ill")
    assert again.stdout.startswith("certified")


def test_a_mapped_column_is_one_of_categories_and_a_node_may_lack_one_that_is_filled(tmp_path: Path) -> None:
    sites, out = tmp_path / "sites", tmp_path / "RUN"
    sites.mkdir()
    for name, (no, yes) in {"a": ("0", "1"), "b": ("No", "yes"), "c": ("false", "TRUE")}.items():
        rows = [(f"{i % 7}", yes if i % 3 else no, f"{i % 5}", f"{int(i % 7 > 3)}") for i in range(40)]
        kept = [0, 1, 3] if name == "c" else [0, 1, 2, 3]
        lines = (["age", "smoker", "z", "ill"], *rows)
        (sites / f"{name}.csv").write_text("".join(",".join(row[at] for at in kept) + "\n" for row in lines))
    asked = ("train", sites, "--label", "ill", "--C", "1", "--fill-missing-columns", "--out", out)
    refused = localgd(*asked)
    assert "say what means the same: --category-map smoker:…=…" in refused.stderr
    done = localgd(*asked, "--category-map", "smoker:no=0,yes=1")
    assert done.returncode == 0, done.stderr
    assert "'TRUE' for '1'" in done.stderr
    assert localgd("certify", out, sites).stdout.startswith("certified")
    assert localgd("evaluate", out, sites / "c.csv").returncode == 0
    filled = localgd("predict", out, sites / "c.csv").stderr.splitlines()
    assert filled[0] == "read as for the run: --fill-missing-columns"
    assert filled[1:] == ["column 'z' is not there, so its values are filled"]
    filled = localgd("predict", out, sites / "c.csv", "--fill-missing-columns")
    assert filled.stderr == "column 'z' is not there, so its values are filled\n"
    assert len(filled.stdout.split()) == 41


@pytest.mark.parametrize("more", [[], ["x", "X"]])
def test_two_spellings_that_look_the_same_are_told_apart(more) -> None:
    written = ascii(CAFE), ascii(DECOMPOSED)
    values = [CAFE, DECOMPOSED, *more]
    with pytest.raises(ValueError, match="a node has both") as error:
        prepare(InProcess(from_arrays(pl.DataFrame({"c": values}), [0, 1] * (len(values) // 2))))
    assert all(f"(in Unicode {one})" in str(error.value) for one in written)
    tables = [Table(f"{k}", pl.DataFrame({"c": [word, "inn"]}), np.array([0, 1])) for k, word in enumerate(values[:2])]
    said = f"(in Unicode {written[1]}) is taken for '{CAFE}' (in Unicode {written[0]})"
    assert said in prepare(InProcess(tables))[1].summary


def test_double_blanks_within_a_category_are_another_spelling(tmp_path):
    for name, ward in (("a", "West wing"), ("b", "West  wing"), ("c", "west\u00a0 wing "), ("d", "West wing")):
        pl.DataFrame({"ward": [ward, "Nord"] * 4, "y": [0, 1, 1, 0] * 2}).write_csv(tmp_path / f"{name}.csv")
    tables = load(tmp_path, label="y")
    _, recipe = prepare(InProcess(tables))
    assert recipe.columns[0].categories == ("Nord", "West wing")
    assert "'West  wing' is taken for 'West wing'" in recipe.summary
    rows = [recipe.matrix(pl.DataFrame({"ward": [ward]})) for ward in ("West wing", "WEST   WING")]
    np.testing.assert_array_equal(*rows)
