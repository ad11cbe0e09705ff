"""Preparation by rounds equals preparation of the pooled rows, whatever the split, and sends only sums."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from common import examples
from localgd import Message, NodeError
from localgd.data.arrays import from_arrays
from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.data.survey import Tally
from localgd.data.table import Table
from localgd.engine.inprocess import InProcess

SAME = 1e-12


class Listening(InProcess):
    """A server that keeps the names of all counts."""

    keys: list[str]

    def round(self, task: Any, message: Any, nodes: Any = None) -> Any:
        report = super().round(task, message, nodes)
        self.keys = [*getattr(self, "keys", []), *report.counts]
        return report


def halves(n_rows: int, n_nodes: int = 3) -> tuple[Any, Any]:
    return np.arange(n_rows) % n_nodes, np.arange(n_rows) % 2


def pooled(tables: list[Table]) -> Any:
    """All rows as one table, in the order of the nodes."""
    frames = [t.features for t in sorted(tables, key=lambda t: t.node_id)]
    return pl.concat(frames) if isinstance(frames[0], pl.DataFrame) else np.vstack(frames)


def unsigned(engine: InProcess, recipe: Recipe, tables: list[Table]) -> Any:
    """The encoded rows of all nodes, signs taken off again, as one dense array."""
    parts = []
    for table in sorted(tables, key=lambda t: t.node_id):
        rows = engine.shards[table.node_id].rows
        dense = rows.toarray() if issparse(rows) else rows
        parts.append(dense * (2.0 * recipe.codes(table) - 1)[:, None])
    return np.vstack(parts)


@settings(max_examples=examples(40))
@given(seed=st.integers(0, 10**6), power=st.integers(-150, 150), n_nodes=st.integers(1, 5), offset=st.floats(-10, 10))
def test_scaling_equals_the_pooled_scaler_at_any_magnitude(seed: int, power: int, n_nodes: int, offset: float) -> None:
    X = np.random.default_rng(seed).standard_normal((20, 3)) + offset
    groups, y = halves(20, n_nodes)
    tables = from_arrays(X * 10.0**power, y, groups)
    engine, recipe = prepare(InProcess(tables), scale="standard", intercept=False)
    expected = StandardScaler().fit_transform(pooled(from_arrays(X, y, groups)))
    np.testing.assert_allclose(unsigned(engine, recipe, tables), expected, rtol=SAME, atol=100 * SAME)


def test_scaling_equals_the_pooled_scaler_closely() -> None:
    X = np.random.default_rng(0).standard_normal((50, 4)) * [1, 10, 1e3, 1e-3] + [0, 1, -5, 0]
    groups, y = halves(50)
    tables = from_arrays(X, y, groups)
    engine, recipe = prepare(InProcess(tables), scale="standard", intercept=False)
    scaler = StandardScaler().fit(pooled(tables))
    np.testing.assert_allclose([c.center for c in recipe.columns], scaler.mean_, rtol=SAME)
    np.testing.assert_allclose([c.scale for c in recipe.columns], scaler.scale_, rtol=SAME)
    np.testing.assert_allclose(unsigned(engine, recipe, tables), scaler.transform(pooled(tables)), atol=SAME)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e150, 1e-150])
def test_a_constant_column_keeps_scale_one(value: float) -> None:
    groups, y = halves(30)
    _, recipe = prepare(InProcess(from_arrays(np.full((30, 1), value), y, groups)), scale="standard")
    assert recipe.columns[0].scale == 1.0
    np.testing.assert_allclose(recipe.columns[0].center, value, rtol=SAME)


@pytest.mark.parametrize("scale", [None, "standard"])
def test_imputation_equals_the_pooled_imputer(scale: Any) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 3)) + 3
    X[rng.random(X.shape) < 0.3] = np.nan
    X[np.arange(40) % 3 == 1, 2] = np.nan  # one node has never measured this column
    groups, y = halves(40)
    tables = from_arrays(pl.DataFrame(X, schema=["a", "b", "c"]), y, groups)
    engine, recipe = prepare(InProcess(tables), scale=scale, intercept=False)
    expected = SimpleImputer().fit_transform(pooled(tables).to_numpy())
    if scale:
        expected = StandardScaler().fit_transform(expected)
    np.testing.assert_allclose(unsigned(engine, recipe, tables), expected, atol=SAME)


def test_sparse_rows_are_scaled_but_not_centered() -> None:
    rng = np.random.default_rng(2)
    X = csr_array(rng.standard_normal((30, 6)) * (rng.random((30, 6)) < 0.3) * 1e150)
    groups, y = halves(30)
    tables = from_arrays(X, y, groups)
    engine, recipe = prepare(InProcess(tables), scale="standard", intercept=False)
    order = np.argsort(groups, kind="stable")
    expected = StandardScaler(with_mean=False).fit_transform(X * 1e-150).toarray()[order]
    assert recipe.sparse
    assert all(issparse(shard.rows) for shard in engine.shards.values())
    np.testing.assert_allclose(unsigned(engine, recipe, tables), expected, rtol=1e-11)


def test_one_hot_equals_the_pooled_encoder() -> None:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({name: rng.choice(list("pqrs"), 60) for name in ("u", "v")})
    groups, y = halves(60)
    tables = from_arrays(frame, y, groups)
    engine, recipe = prepare(InProcess(tables), intercept=False)
    expected = OneHotEncoder(sparse_output=False).fit(frame.to_numpy())
    np.testing.assert_array_equal(unsigned(engine, recipe, tables), expected.transform(pooled(tables).to_numpy()))
    assert recipe.feature_names[:5] == ("u=p", "u=q", "u=r", "u=s", "v=p")


def test_tfidf_equals_the_pooled_vectorizer_on_the_sentences() -> None:
    tables = load_dataset("sentences")
    engine, recipe = prepare(InProcess(tables), intercept=False, **DATASETS["sentences"].options)
    vectorizer = TfidfVectorizer()
    expected = vectorizer.fit_transform(pooled(tables)["sentence"].to_list())
    assert expected.shape == (3000, 5155)
    assert recipe.columns[0].vocabulary == tuple(vectorizer.get_feature_names_out())
    np.testing.assert_allclose(recipe.columns[0].idf, vectorizer.idf_, rtol=SAME)
    np.testing.assert_allclose(unsigned(engine, recipe, tables), expected.toarray(), atol=SAME)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=examples(20))
def test_the_split_does_not_change_the_recipe(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"size": rng.integers(0, 9, 40).astype(float), "town": rng.choice(list("abc"), 40)})
    y = rng.permutation(40) % 2
    one, many = (
        prepare(InProcess(from_arrays(frame, y, groups)), scale="standard")[1]
        for groups in (None, rng.integers(0, 6, 40))
    )
    assert one.feature_names == many.feature_names
    assert one.classes == many.classes
    np.testing.assert_allclose(one.matrix(frame), many.matrix(frame), atol=SAME)


def test_signed_rows_and_the_bias_column() -> None:
    tables = from_arrays([[1.0], [2.0], [3.0]], ["no", "yes", "yes"], groups=["a", "b", "b"])
    engine, recipe = prepare(InProcess(tables))
    np.testing.assert_array_equal(engine.shards["a"].rows, [[-1.0, -1.0]])
    np.testing.assert_array_equal(engine.shards["b"].rows, [[2.0, 1.0], [3.0, 1.0]])
    np.testing.assert_array_equal(recipe.matrix(tables[0]), [[1.0, 1.0]])


def test_nodes_whose_labels_are_stored_differently_agree() -> None:
    one = Table("a", np.eye(2), np.array([0.0, 1.0]))
    two = Table("b", np.eye(2), np.array([0, 0], dtype=np.int8))
    _, recipe = prepare(InProcess([one, two]))
    assert recipe.classes == (0, 1)


@pytest.mark.parametrize("missing", ["category", "zeros", "most-frequent"])
def test_missing_categories(missing: Any) -> None:
    frame = pl.DataFrame({"town": ["a", None, "b", "a"], "full": ["p", "q", "p", "q"]})
    engine, recipe = prepare(InProcess(from_arrays(frame, [0, 1, 0, 1], [0, 0, 1, 1])), missing=missing)
    width = 3 if missing == "category" else 2
    assert recipe.columns[0].missing == missing
    assert recipe.columns[1].missing == "unseen"
    assert recipe.feature_names[width:] == ("full=p", "full=q", "(bias)")
    town = engine.shards["0"].rows[1, :width]
    expected = {"category": [0, 0, 1], "zeros": [0, 0], "most-frequent": [1, 0]}
    np.testing.assert_array_equal(town, expected[missing])


def test_declared_categories_may_be_numbers() -> None:
    frame = pl.DataFrame({"code": [1.0, 2.0, 2.5, 1.0]})
    _, recipe = prepare(InProcess(from_arrays(frame, [0, 1, 0, 1], [0, 0, 1, 1])), categorical=["code"])
    assert recipe.columns[0].categories == ("1", "2", "2.5")


def test_many_categories_make_sparse_rows_at_every_node() -> None:
    frame = pl.DataFrame({"town": [f"t{i % 40}" for i in range(100)]})
    engine, recipe = prepare(InProcess(from_arrays(frame, np.arange(100) % 2, np.arange(100) % 7)))
    assert recipe.sparse
    assert all(issparse(shard.rows) for shard in engine.shards.values())
    assert len(recipe.feature_names) == 41


@pytest.mark.parametrize("name", ["heart", "mushroom", "sentences"])
def test_a_recipe_survives_json(name: str) -> None:
    tables = load_dataset(name)
    engine, recipe = prepare(InProcess(tables), **DATASETS[name].options)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    rows = again(tables[0]).rows
    held = engine.shards[tables[0].node_id].rows
    assert (rows != held).sum() == 0


@pytest.mark.parametrize(("n_rows", "n_nodes"), [(300, 1), (120, 1), (120, 4), (24, 1)])
def test_no_value_of_an_identifying_column_leaves_its_node(n_rows: int, n_nodes: int) -> None:
    frame = pl.DataFrame({"name": [f"secret {i}" for i in range(n_rows)]})
    engine = Listening(from_arrays(frame, np.arange(n_rows) % 2, np.arange(n_rows) % n_nodes))
    with pytest.raises(ValueError, match=r"column 'name' has more than 20 distinct values.*--drop name.*--text name"):
        prepare(engine)
    assert engine.keys
    assert not any("secret" in f"{key}" for key in engine.keys)


@pytest.mark.parametrize("n_nodes", [1, 3])
def test_no_label_of_an_identifying_column_leaves_its_node(n_nodes: int) -> None:
    labels = [f"secret {i}" for i in range(90)] + ["ill"] * 20
    engine = Listening(from_arrays(np.eye(110), labels, np.arange(110) % n_nodes))
    with pytest.raises(ValueError, match="label: more than 20 distinct values in 110 rows: it looks like"):
        prepare(engine)
    assert engine.keys
    assert not any("secret" in f"{key}" for key in engine.keys)


def test_a_node_does_not_tell_more_labels_than_any_classes_would_be() -> None:
    tables = from_arrays(np.eye(500), np.arange(500) % 201)
    with pytest.raises(NodeError, match="label: 201 distinct values in 500 rows"):
        InProcess(tables).round(Tally((), (), ()), Message())
    tables = from_arrays(np.eye(30), np.arange(30))
    with pytest.raises(NodeError, match="label: 30 distinct values in 30 rows"):
        InProcess(tables).round(Tally((), (), ()), Message())


def test_a_node_of_ids_is_enough_to_ask_no_more() -> None:
    """Most rows are at nodes that are too small to tell, but one of them can."""
    groups = np.minimum(np.arange(380) // 20, 14)
    engine = Listening(from_arrays(np.eye(380), [f"secret {i}" for i in range(380)], groups))
    with pytest.raises(ValueError, match="label: 100 distinct values in 100 rows: it looks like"):
        prepare(engine)
    assert engine.keys
    assert not any("secret" in f"{key}" for key in engine.keys)


def test_a_small_node_may_have_many_of_the_classes_of_all() -> None:
    labels = np.random.default_rng(0).integers(62, size=1000)
    tables = from_arrays(np.eye(1000), labels, np.arange(1000) < 50)
    _, recipe = prepare(InProcess(tables), n_classes=62)
    assert len(recipe.classes) == 62


def test_values_spread_over_many_nodes_are_recognised_as_ids_too() -> None:
    frame = pl.DataFrame({"id": [f"P{i:04d}" for i in range(120)]})
    tables = from_arrays(frame, np.arange(120) % 2, np.arange(120) % 10)
    with pytest.raises(ValueError, match="column 'id' has 120 distinct values"):
        prepare(InProcess(tables))
    _, recipe = prepare(InProcess(tables), categorical=["id"])
    assert len(recipe.feature_names) == 121


def test_a_node_where_ids_are_few_among_many_rows_is_refused_too() -> None:
    frame = pl.DataFrame({"id": [f"patient {i}" for i in range(210)] + ["none"] * 600})
    with pytest.raises(ValueError, match="column 'id' has more than 200 distinct values"):
        prepare(InProcess(from_arrays(frame, np.arange(810) % 2, np.arange(810) < 210)))


def test_small_tables_may_have_many_categories() -> None:
    small = pl.DataFrame({"town": list("abcdefabcd")})
    assert len(prepare(InProcess(from_arrays(small, np.arange(10) % 2)))[1].feature_names) == 7
    # One small node meets many of the towns of all: no id, although it could be one there.
    towns = pl.DataFrame({"town": [f"town {i % 50}" for i in range(530)]})
    assert len(prepare(InProcess(from_arrays(towns, np.arange(530) % 2, np.arange(530) < 30)))[1].feature_names) == 51


def test_what_was_missing_is_counted_over_all_nodes() -> None:
    frame = pl.DataFrame(
        {"a": [1.0, None, None, 4.0], "b": [1.0, 2.0, 3.0, 4.0], "t": ["p", None, "q", "p"], "w": ["good day"] * 4}
    )
    _, recipe = prepare(InProcess(from_arrays(frame, [0, 1, 0, 1], [0, 0, 1, 1])), text=["w"])
    assert [getattr(column, "n_missing", 0) for column in recipe.columns] == [2, 0, 1, 0]
    assert recipe.n_missing == 3
    assert recipe.summary == ("2 numbers, 1 column of 2 categories, 1 text column of 2 words; 3 missing values filled")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("sparse", [False, True])
def test_the_rows_handed_over_are_the_recipes_own_and_not_copied(sparse: bool) -> None:
    features = csr_array(np.eye(3)) if sparse else np.eye(3)
    tables = from_arrays(features, [0, 1, 1])
    engine, _ = prepare(InProcess(tables), intercept=False)
    rows = engine.shards["node-0"].rows
    np.testing.assert_array_equal(rows.toarray() if sparse else rows, np.diag([-1.0, 1, 1]))
    assert (tables[0].features != features).sum() == 0
    assert sparse or (rows.flags.c_contiguous and rows.base is None)


def test_thousands_of_columns_are_prepared_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of polars per column would take a minute where rows are genes."""
    X = np.random.default_rng(0).standard_normal((6, 3000))
    frame = pl.DataFrame(X, schema=[f"g{j}" for j in range(3000)])
    monkeypatch.setattr(pl.DataFrame, "__getitem__", None)
    engine, recipe = prepare(InProcess(from_arrays(frame, np.arange(6) % 2)), intercept=False)
    np.testing.assert_array_equal(recipe.matrix(frame), X)
    assert engine.shards["node-0"].rows.shape == (6, 3000)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1], "label: all 3 rows of all nodes are 1; two classes are needed"),
        (list(range(30)), r"label: 30 distinct values in 30 rows \(0, 1, .* 9, …\): it looks like a number to predict"),
        (list(range(90)), r"label: more than 20 distinct values in 90 rows: it looks like a number to predict"),
    ],
)
def test_two_classes_are_needed_and_not_as_many_as_rows(labels: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(InProcess(from_arrays(np.eye(len(labels)), labels, np.arange(len(labels)) % 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "minmax"}, "scale must be one of"),
        ({"missing": "drop"}, "missing must be one of"),
        ({"text": ["twon"]}, r"text='twon' is not a column .* did you mean 'town'"),
        ({"text": ["size"]}, "text='size' is a column of numbers"),
        ({"text": ["town"], "categorical": ["town"]}, "is said to be free text .* and a category"),
        ({"text": ["town"]}, "column 'town' has no word of two letters"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    frame = pl.DataFrame({"size": [1.0, 2.0], "town": ["a", "b"]})
    with pytest.raises(ValueError, match=message):
        prepare(InProcess(from_arrays(frame, [0, 1])), **options)


def test_a_column_missing_everywhere() -> None:
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [None, None]})
    with pytest.raises(ValueError, match="column 'b' is missing in all rows of all nodes; drop it"):
        prepare(InProcess(from_arrays(frame, [0, 1])))


def test_columns_that_differ_between_nodes() -> None:
    tables = [
        Table("p", pl.DataFrame({"a": [1.0]}), np.array([0])),
        Table("q", pl.DataFrame({"b": [1.0]}), np.array([1])),
    ]
    with pytest.raises(ValueError, match=r"column 'a' .* is at 1 of 2 nodes"):
        prepare(InProcess(tables))


def test_columns_without_names_are_those_of_the_same_place_elsewhere():
    """Nodes of arrays tell how many columns they have, others the name of each: both are understood together."""
    x = np.arange(12.0).reshape(6, 2)
    arrays = [Table(name, x[rows], np.arange(3) % 2) for name, rows in (("a", slice(3)), ("b", slice(3, 6)))]
    named = [arrays[0], Table("b", pl.DataFrame({"x0": x[3:, 0], "x1": x[3:, 1]}), np.arange(3) % 2)]
    assert prepare(InProcess(named), scale="standard")[1] == prepare(InProcess(arrays), scale="standard")[1]
    wider = [arrays[0], Table("b", np.ones((3, 3)), np.arange(3) % 2)]
    with pytest.raises(ValueError, match=r"column 'x2' \(place 2, number\) is at 1 of 2 nodes only"):
        prepare(InProcess(wider), scale=None)
    mixed = [arrays[0], Table("b", csr_array(np.ones((3, 2))), np.arange(3) % 2)]
    with pytest.raises(ValueError, match=r"column 'x0' is stored in more than one way"):
        prepare(InProcess(mixed), scale=None)
