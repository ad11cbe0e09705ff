"""A recipe on rows it has not seen: what it accepts, what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array, issparse
from sklearn.datasets import dump_svmlight_file

import localgd.data.kinds as limits
from localgd import Model, Regularised, auto, train
from localgd.data.arrays import from_arrays
from localgd.data.encodings import Category, Number, Words
from localgd.data.load import load, load_unlabelled
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.data.table import Table
from localgd.engine.inprocess import InProcess

RECIPE = Recipe(
    (Number("age", 50.0, 40.0, 10.0), Category("town", ("hull", "york"))), ("no", "yes"), intercept=True, sparse=False
)


def test_a_csv_file_with_other_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("ill,town,age\nyes,york,60\nno,hull,\n")
    np.testing.assert_array_equal(RECIPE.matrix(load_unlabelled(path)), [[2, 0, 1, 1], [1, 1, 0, 1]])


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_frames(frame: Any) -> None:
    rows = RECIPE.matrix(frame({"town": ["york"], "age": [60], "more": [1]}))
    np.testing.assert_array_equal(rows, [[2, 0, 1, 1]])


@pytest.mark.parametrize("sparse", [False, True])
def test_storage_is_the_recipes(sparse: bool) -> None:
    recipe = Recipe(RECIPE.columns, RECIPE.classes, intercept=False, sparse=sparse)
    assert issparse(recipe.matrix(pl.DataFrame({"town": ["york"], "age": [60.0]}))) is sparse


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "age,town\n1,hull\n2,leeds\n",
            r"new\.csv, row 3: column 'town' holds 'leeds', unseen .*known: hull, york.*--unseen zeros",
        ),
        ("age,town\n1,\n", r"new\.csv, row 2: column 'town' holds nothing, unseen"),
        ("age,town\n1,hull\nold,york\n", r"new\.csv, row 3: column 'age' holds 'old', no finite number"),
        ("age;town\n40,5;hull\n", r"holds '40,5', no finite number; if commas .* \(--decimal ,\)"),
        ("age,town\ninf,hull\n", r"new\.csv, row 2: column 'age' holds 'inf', no finite number"),
        (
            "town\nhull\n",
            r"new\.csv: column 'age' was used in training but not found .* given as label or node, or dropped\?",
        ),
    ],
)
def test_faults_in_new_rows(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "new.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        RECIPE.matrix(load_unlabelled(path))


def test_unseen_categories_as_zeros() -> None:
    frame = pl.DataFrame({"town": ["leeds", None, "york"], "age": [50.0] * 3})
    np.testing.assert_array_equal(RECIPE.matrix(frame, unseen="zeros")[:, 1:3], [[0, 0], [0, 0], [0, 1]])
    with pytest.raises(ValueError, match="unseen must be 'error' or 'zeros'"):
        RECIPE.matrix(frame, unseen="ignore")  # type: ignore[arg-type]


def test_arrays_go_by_position_and_must_fit() -> None:
    recipe = Recipe((Number("p", 0, 1, 2), Number("q")), (0, 1), intercept=True, sparse=False)
    np.testing.assert_array_equal(recipe.matrix([[3.0, 4.0]]), [[1, 4, 1]])
    np.testing.assert_array_equal(recipe.matrix(csr_array([[3.0, 4.0]])), [[1, 4, 1]])
    with pytest.raises(ValueError, match="3 columns where the recipe has 2"):
        recipe.matrix(np.ones((1, 3)))
    with pytest.raises(ValueError, match="an array, but the recipe has categories or text"):
        RECIPE.matrix(np.ones((1, 2)))


def test_npz_columns_go_by_name(tmp_path: Path) -> None:
    recipe = Recipe((Number("p"), Number("q")), (0, 1), intercept=False, sparse=False)
    np.savez(tmp_path / "new.npz", X=[[1.0, 2.0, 3.0]], columns=["r", "q", "p"])
    np.testing.assert_array_equal(recipe.matrix(load_unlabelled(tmp_path / "new.npz")), [[3, 2]])
    np.savez(tmp_path / "new.npz", X=[[1.0]], columns=["q"])
    with pytest.raises(ValueError, match=r"new\.npz: column 'p' was used"):
        recipe.matrix(load_unlabelled(tmp_path / "new.npz"))


@pytest.mark.parametrize("zero_based", [False, True])
def test_svmlight_columns_keep_their_index(tmp_path: Path, zero_based: bool) -> None:
    """A file to predict on may lack the first or last columns, and may hold more."""
    dump_svmlight_file(np.eye(4), [0, 1, 0, 1], str(tmp_path / "train.svm"), zero_based=zero_based)
    _, recipe = prepare(InProcess(load(tmp_path / "train.svm")), intercept=False)
    dump_svmlight_file([[0, 5, 0]], [0], str(tmp_path / "new.svm"), zero_based=zero_based)
    np.testing.assert_array_equal(recipe.matrix(load_unlabelled(tmp_path / "new.svm")).toarray(), [[0, 5, 0, 0]])
    dump_svmlight_file([[0, 5, 0, 0, 7]], [0], str(tmp_path / "new.svm"), zero_based=zero_based)
    np.testing.assert_array_equal(recipe.matrix(load_unlabelled(tmp_path / "new.svm")).toarray(), [[0, 5, 0, 0]])


def test_unknown_words_and_empty_texts_are_zero_rows() -> None:
    recipe = Recipe((Words("t", ("bad", "good"), (1.0, 2.0)),), (0, 1), intercept=False, sparse=True)
    rows = recipe.matrix(pl.DataFrame({"t": ["Good bad", "strange", None]})).toarray()
    np.testing.assert_allclose(rows, [[1 / 5**0.5, 2 / 5**0.5], [0, 0], [0, 0]])
    assert recipe.feature_names == ("t:bad", "t:good")


def test_labels_must_be_the_classes() -> None:
    (table,) = from_arrays(pl.DataFrame({"age": [1.0, 2.0], "town": ["hull", "york"]}), ["yes", "maybe"])
    with pytest.raises(
        ValueError, match=r"the arrays given, row 2: label 'maybe' is none of the classes \('no', 'yes'\)"
    ):
        RECIPE(table)
    with pytest.raises(ValueError, match="the rows have no labels"):
        RECIPE(load_unlabelled_like(table))


def load_unlabelled_like(table: Any) -> Any:
    return type(table)(table.node_id, table.features, np.zeros(0))


@pytest.mark.parametrize(
    "values", [{}, {"columns": [{"kind": "colour"}]}, {"columns": [{"kind": "number", "size": 1}]}]
)
def test_values_that_are_no_recipe(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="values is no recipe"):
        Recipe.from_dict(values)


def test_every_feature_has_a_name_of_its_own(tmp_path: Path) -> None:
    """A category that is spelled like a missing value, and columns whose names and levels make the same words."""
    frame = pl.DataFrame(
        {
            "a": ["x", "?", None, "(missing)"] * 10,
            "b=c": (["d"] * 20 + ["e"] * 20),
            "b": (["c=d"] * 10 + ["f"] * 30),
            "(bias)": np.arange(40.0) % 7,
        }
    )
    engine, recipe = prepare(InProcess(from_arrays(frame, np.arange(40) % 3 % 2, np.arange(40) % 2)))
    made = ("a=(missing)", "a=?", "a=x", "a=((missing))", "b=c=d", "b=c=e", "b=c=d (2)", "b=f", "(bias)", "(bias) (2)")
    assert recipe.feature_names == made
    assert recipe.matrix(frame)[:4, :4].tolist() == np.eye(4)[[2, 1, 3, 0]].tolist()
    run = train(engine, auto(), problem=Regularised(C=1.0, intercept=True))
    run.save(tmp_path / "RUN", recipe)
    model = Model.load(tmp_path / "RUN")
    assert model.predict(frame) == run.model(recipe).predict(frame)
    table = model.coefficients()
    assert table.filter(column="a")["level"].to_list() == ["(missing)", "?", "x", "((missing))"]
    pipeline = model.to_sklearn()
    np.testing.assert_allclose(pipeline.decision_function(frame), model.scores(frame), atol=1e-12)


def test_nodes_that_read_their_own_files_agree_on_kinds():
    """A column that is blank at a node is what the others say; one that two nodes store unlike is refused by name."""

    def nodes(*columns):
        frames = [pl.DataFrame({"a": column, "b": [1.0, 2.0, 3.0]}) for column in columns]
        return InProcess([Table(f"{k}", frame, np.array([0, 1, 1])) for k, frame in enumerate(frames)])

    blank = pl.Series([None] * 3, dtype=pl.Float64)
    text, numbers = pl.Series(["x", "y", None]), pl.Series([1.0, 2.0, None])
    _, recipe = prepare(nodes(blank, text))
    assert recipe.feature_names == ("a=x", "a=y", "a=?", "b", "(bias)")
    federation, recipe = prepare(nodes(blank.cast(pl.String), numbers))
    assert recipe.columns[0] == Number("a", fill=1.5, n_missing=4)
    assert federation.shards["0"].rows[:, 0].tolist() == [-1.5, 1.5, 1.5]
    with pytest.raises(ValueError, match=r"column 'a' is stored in more than one way.*number at 1, text at 1"):
        prepare(nodes(text, numbers))


SVM = {"a": "1 1:1 2:2 4:1\n0 1:-1\n", "b": "1 1:1 2:2\n0 2:-3\n", "c": "1 3:5\n0 1:1\n"}


@pytest.mark.parametrize("first", ["1 1:1\n0 2:1\n", "1 0:1\n0 2:1\n"], ids=["from 1", "from 0"])
@pytest.mark.parametrize("drop", [(), ("x2",)])
def test_nodes_that_read_svmlight_files_by_themselves_need_not_reach_the_same_column(first, drop, tmp_path):
    for name, text in (SVM | {"d": first}).items():
        (tmp_path / f"{name}.svm").write_text(text)
    together, expected = prepare(InProcess(load(tmp_path, drop=drop)), scale="standard")
    alone = [load(tmp_path, nodes=[name], drop=drop)[0] for name in "abcd"]
    assert len({table.names for table in alone}) > 1
    engine, recipe = prepare(InProcess(alone), scale="standard")
    assert recipe == expected
    for name, shard in engine.shards.items():
        np.testing.assert_array_equal(shard.rows.toarray(), together.shards[name].rows.toarray())


def test_svmlight_nodes_among_others_and_slips_in_numbers_are_refused(tmp_path, monkeypatch):
    assert limits.MOST_COLUMNS == 10**7, "as many take half a minute to read"
    monkeypatch.setattr(limits, "MOST_COLUMNS", 10**4)
    for name, text in (SVM | {"d": f"1 {10**4}:1\n0 1:1\n"}).items():
        (tmp_path / f"{name}.svm").write_text(text)
    tables = {name: load(tmp_path, nodes=[name])[0] for name in "abcd"}
    with pytest.raises(ValueError, match=r"numbers its columns from 1 to 10000; number them .* than 10,000"):
        prepare(InProcess([tables["a"], tables["d"]]))
    with pytest.raises(ValueError, match="column 'x2' is left out at 1 of 2 nodes that reach it"):
        prepare(InProcess([tables["b"], load(tmp_path, nodes=["c"], drop=["x2"])[0]]))
    with pytest.raises(ValueError, match="some nodes hold svmlight files and others do not"):
        prepare(InProcess([tables["a"], *from_arrays([[1.0], [2.0]], [0, 1])]))
