"""The bundled data sets are what their entries say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import issparse

import localgd.data
from localgd.data.datasets import DATASETS, Dataset, load_dataset
from localgd.data.partition import partition
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.engine.inprocess import InProcess


def prepared(dataset: Dataset) -> tuple[InProcess, Recipe]:
    tables = load_dataset(dataset.name)
    if not dataset.nodes:
        tables = partition(tables[0], "iid", 3)
    engine, recipe = prepare(InProcess(tables), **dataset.options)
    assert isinstance(engine, InProcess)
    return engine, recipe


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_entries_are_true(dataset: Dataset) -> None:
    tables = load_dataset(dataset.name)
    assert sum(table.n_rows for table in tables) == dataset.rows
    assert {len(table.names) for table in tables} == {dataset.columns}
    if dataset.nodes:
        assert tuple(table.node_id for table in tables) == dataset.nodes
    readme = Path(localgd.data.__file__).with_name("bundled") / "README.md"
    assert f"`{dataset.file}`" in readme.read_text()
    assert f"| {dataset.licence} |" in readme.read_text()


@pytest.mark.parametrize(
    ("name", "shape", "sparse", "classes", "positive"),
    [
        ("mushroom", (8124, 110), False, ("edible", "poisonous"), 3916),
        ("sentences", (3000, 5156), True, (0, 1), 1500),
        ("heart", (920, 24), False, (0, 1), 509),
        ("bladder", (57, 22284), False, (0, 1), None),
        ("golub", (38, 3052), False, (0, 1), 11),
    ],
)
def test_prepared_shapes(
    name: str, shape: tuple[int, int], sparse: bool, classes: tuple[object, object], positive: int | None
) -> None:
    engine, recipe = prepared(DATASETS[name])
    shards = list(engine.shards.values())
    assert (sum(shard.n_rows for shard in shards), shards[0].n_features) == shape
    assert len(recipe.feature_names) == shape[1]
    assert {issparse(shard.rows) for shard in shards} == {sparse}
    assert recipe.classes == classes
    if positive is not None:
        bias = [shard.margins(np.eye(shape[1])[-1]) for shard in shards]
        assert int(sum((y > 0).sum() for y in bias)) == positive


def test_heart_zeros_that_mean_not_measured_are_imputed() -> None:
    tables = load_dataset("heart")
    blank = {name: sum(table.features[name].null_count() for table in tables) for name in ("chol", "trestbps")}
    assert blank == {"chol": 30 + 172, "trestbps": 59 + 1}
    assert all(table.features["chol"].min() != 0 for table in tables)


def test_mushroom_nodes_include_one_with_a_single_class() -> None:
    waste = next(table for table in load_dataset("mushroom") if table.node_id == "waste")
    assert set(waste.labels.tolist()) == {"edible"}
    assert "habitat" not in waste.names


def test_preparation_sends_less_than_the_rows() -> None:
    engine = InProcess(load_dataset("mushroom"))
    prepare(engine, **DATASETS["mushroom"].options)
    assert 0 < engine.floats_up < 2000


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"name='hart' is no bundled data set; did you mean 'heart'\?"):
        load_dataset("hart")


def test_loading_tables_does_not_import_scikit_learn() -> None:
    code = "import sys; from localgd.data import load, prepare; load.load('heart'); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
