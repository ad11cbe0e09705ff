"""The ready apps: rows from the node's own configuration, jobs from the run-config, run folders that go on."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import Context, RecordDict
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from engines.flower_grid import LocalGrid
from localgd import InProcess, load, local_gd, prepare, train
from localgd.cli.flags import Source
from localgd.data.coding import ClassCounts
from localgd.data.datasets import DATASETS
from localgd.data.encodings import Category, Number
from localgd.data.model import Model
from localgd.data.recipe import Recipe
from localgd.data.survey import Tally
from localgd.data.unmet import Unmet
from localgd.engine.flower import RefusedError
from localgd.engine.flower.records import made, told
from localgd.flower import server as app
from localgd.flower.client import ELSEWHERE, READ, client, rows
from localgd.flower.server import KEYS, RunConfig, main
from localgd.methods.table import asked as method_asked

HEART = [{"partition-id": i, "data": "heart", "secret": "bundled, so no secret"} for i in range(4)]


def context(run_config=(), **node_config):
    config = {name.replace("_", "-"): value for name, value in node_config.items()}
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config=dict(run_config))


def job(**config):
    return RunConfig(
        {"n-nodes": 4, "poll": 1e-4, "data": "heart"} | {k.replace("_", "-"): v for k, v in config.items()}
    )


def test_the_example_has_every_key_and_its_default():
    config = tomllib.loads((Path(__file__).parents[2] / "examples/flower/pyproject.toml").read_text())
    held = config["tool"]["flwr"]["app"]
    assert held["config"] == KEYS | {"data": "heart", "n-nodes": 4}
    assert held["components"] == {"serverapp": "localgd.flower:server", "clientapp": "localgd.flower:client"}
    assert app is not None


def test_a_job_trains_as_in_process_and_leaves_a_run_folder(tmp_path):
    out = tmp_path / "RUN"
    run = job(method="local-gd", local_steps=5, n_rounds=6, out=str(out)).run(LocalGrid(client, HEART))
    here = prepare(InProcess(load("heart")), **DATASETS["heart"].options)[0]
    expected = train(here, local_gd(local_steps=5), n_rounds=6)
    np.testing.assert_array_equal(run.w, expected.w)
    model = json.loads((out / "model.json").read_text())
    np.testing.assert_array_equal(np.append(model["coef"], model["intercept"]), expected.w)
    assert json.loads((out / "config.json").read_text())["flower"]["method"] == "local-gd"
    again = job(method="local-gd", local_steps=5, n_rounds=9, out=str(out)).run(LocalGrid(client, HEART))
    np.testing.assert_array_equal(again.w, train(here, local_gd(local_steps=5), n_rounds=9).w)
    assert again.n_rounds == 9
    assert pl.read_csv(out / "history.csv").height == 10


def test_a_finished_job_is_not_done_again(tmp_path):
    out = tmp_path / "RUN"
    job(C=1.0, n_rounds=50, angle_tol_deg=1.0, out=str(out)).run(LocalGrid(client, HEART))
    with pytest.raises(ValueError, match="is finished"):
        job(C=1.0, n_rounds=50, out=str(out)).run(LocalGrid(client, HEART))


@pytest.fixture
def sites(tmp_path):
    """The nodes of a table whose label is a number."""
    bunch = load_diabetes(scaled=False)
    nodes = []
    for i in range(3):
        columns = {name: bunch.data[i::3, j] for j, name in enumerate(bunch.feature_names)}
        path = tmp_path / f"site-{i}.csv"
        pl.DataFrame({**columns, "progression": bunch.target[i::3]}).write_csv(path)
        nodes.append({"data-path": str(path), "label": "progression", "secret": f"only site {i} knows"})
    return nodes


def numbers(**config):
    """A job over those nodes, which have the limits that rows of users have."""
    return job(task="regression", data="", n_nodes=3, min_group=8, **config)


@pytest.mark.parametrize(
    ("config", "pooled"),
    [
        ({}, Ridge(1.0)),
        ({"alpha": 20.0, "method": "conjugate-gradients"}, Ridge(20.0)),
        ({"alpha": 3, "intercept": False}, Ridge(3.0, fit_intercept=False)),
        ({"alpha": 0}, LinearRegression()),
    ],
    ids=str,
)
def test_a_regression_trains_as_in_process_and_as_pooled(config, pooled, sites, tmp_path):
    out, intercept = tmp_path / "RUN", config.get("intercept", True)
    run = numbers(**config, out=str(out)).run(LocalGrid(client, sites))
    tables = [load(node["data-path"], label="progression")[0] for node in sites]
    here, recipe = prepare(InProcess(tables), scale="standard", min_group=8, intercept=intercept, classes=False)
    chosen = {"task": "regression", "alpha": config.get("alpha"), "intercept": intercept}
    method, problem = method_asked(config.get("method", "auto"), **chosen)
    np.testing.assert_array_equal(run.w, train(here, method, problem=problem, n_rounds=500).w)
    model = Model.load(out / "model.json")
    assert model.recipe == recipe
    X, y = load_diabetes(scaled=False, return_X_y=True)
    expected = pooled.fit(StandardScaler().fit_transform(X), y)
    np.testing.assert_allclose(model.coef, expected.coef_, rtol=1e-7, atol=1e-9)
    assert model.intercept == pytest.approx(expected.intercept_, rel=1e-7)
    assert json.loads((out / "config.json").read_text())["flower"]["task"] == "regression"


def test_a_regression_goes_on_to_the_same_bits(sites, tmp_path):
    whole = numbers(method="conjugate-gradients").run(LocalGrid(client, sites))
    grid, out = LocalGrid(client, sites), str(tmp_path / "RUN")
    cut = numbers(method="conjugate-gradients", n_rounds=3, out=out).run(grid)
    assert cut.unfinished
    grid.new_run()
    again = numbers(method="conjugate-gradients", out=out).run(grid)
    np.testing.assert_array_equal(again.w, whole.w)
    assert again.n_rounds == whole.n_rounds


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"task": "ridge"}, "task must be 'classification' or 'regression', got 'ridge'"),
        ({"alpha": 1.0}, "alpha is for real targets: say so, by the task regression; the penalty for classes is C"),
        ({"alpha": "x", "task": "regression"}, "alpha must be a number, got 'x'"),
        ({"alpha": -1, "task": "regression"}, "alpha must be a number from 0"),
        ({"C": 1.0, "task": "regression"}, "C is for classes; for real targets there is alpha"),
        ({"loss": "logistic", "task": "regression"}, "loss is for classes"),
        ({"angle_tol_deg": 1.0, "task": "regression"}, "real targets have no margins and no angle"),
        ({"method": "normal-equations"}, "normal-equations fits real targets, not classes"),
        ({"method": "local-gd", "task": "regression"}, "cannot look for the ridge solution"),
        ({"method": "local-dg"}, "did you mean 'local-gd'"),
        ({"n_rounds": "many"}, "n-rounds must be a number, got 'many'"),
        ({"C": "x"}, "C must be a number"),
        ({"on_failure": "ignore"}, "on_failure must be"),
        ({"scale": "huge"}, "scale must be one of"),
    ],
)
def test_a_bad_run_config_is_told_by_its_key(config, message):
    with pytest.raises(ValueError, match=message):
        job(**config).run(LocalGrid(client, HEART))


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="unknown local-step; known are"):
        main(LocalGrid(client, HEART), context({"local-step": 1}))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where nobody can write, not even root")
def test_a_place_where_nothing_can_be_written_is_refused_before_any_node_is_asked():
    with pytest.raises(PermissionError, match=r"out /proc/x: nothing can be written \(.*\) in /proc"):
        main(LocalGrid(client, []), context({"out": "/proc/x"}))


# a node's rows


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "names no rows"),
        ({"data": "heart"}, "names no rows"),
        ({"data": "hearts", "partition_id": 0}, "'hearts' is no bundled set; known are mushroom"),
        ({"data": "heart", "partition_id": 4}, "has 4 nodes, so none of partition-id 4"),
        ({"data_path": "/nowhere/rows.csv"}, "its data-path is no file"),
    ],
)
def test_a_configuration_without_rows_is_told(node, message):
    with pytest.raises(RefusedError, match=message):
        rows(context(**node))


def test_nothing_that_the_server_says_leads_to_a_file(tmp_path):
    pl.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]}).write_csv(tmp_path / "rows.csv")
    path = str(tmp_path / "rows.csv")
    for asked, said in (({"data": path}, "is no bundled set"), ({"data-path": path, "label": "y"}, "names no rows")):
        with pytest.raises(RefusedError, match=said):
            rows(context(asked, partition_id=0))
    table = rows(context({"data": "heart"}, data_path=path, label="y", drop="", partition_id=0))
    assert table.names == ("x",)


def test_a_simulated_node_takes_its_part_of_the_apps_own_set():
    found = [rows(context({"data": "heart"}, partition_id=i, num_partitions=4)).n_rows for i in range(4)]
    assert found == [table.n_rows for table in load("heart")]
    assert sum(rows(context({"data": "golub"}, partition_id=i, num_partitions=3)).n_rows for i in range(3)) == 38


def test_the_run_config_says_what_values_mean():
    said = {"label-map": "no=0,yes=1;north:1=0,2=1", "category-map": "ward:N=north;sex:male=m", "n-classes": 2}
    options = RunConfig(said)._preparation()
    assert options["label_map"] == {"no": 0, "yes": 1, "north": {"1": 0, "2": 1}}
    assert options["category_map"] == {"ward": {"N": "north"}, "sex": {"male": "m"}}
    assert options["n_classes"] == 2


def test_a_node_config_has_every_option_on_how_rows_are_read_or_refuses_it_in_words(tmp_path):
    """A new parameter of `load` or `prepare`, or a new flag, belongs in `READ` or `ELSEWHERE`."""
    of_the_server = {"engine", "intercept", "classes", "min-group"}
    names = {*signature(load).parameters, *signature(prepare).parameters, *(field.name for field in fields(Source))}
    known = {name.replace("_", "-").removesuffix("-column") for name in names} - {"source", "data", *of_the_server}
    assert known == READ.keys() | ELSEWHERE.keys()
    assert READ.keys() <= {name.replace("_", "-") for name in signature(load).parameters}
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    for key in ELSEWHERE:
        with pytest.raises(RefusedError, match=f"its node-config says {key}, but {ELSEWHERE[key]}"):
            rows(context(data_path=str(tmp_path / "a.csv"), label="y", **{key: "x"}))
    with pytest.raises(RefusedError, match="says data_path: it is called data-path there"):
        rows(Context(run_id=1, node_id=1, node_config={"data_path": "a"}, state=RecordDict(), run_config={}))
    with pytest.raises(RefusedError, match="says dates, which is about the file of data-path"):
        rows(context(data="heart", partition_id=0, dates="x"))


def test_the_node_config_says_which_columns_are_what(tmp_path):
    (tmp_path / "a.csv").write_text("day,ward,note,of,ill\n02.01.1970,1,n,2,yes\n1970-01-03,2,n,1,no\n")
    own = {"label": "ill", "dates": "day", "categorical": "ward", "drop": "note, ", "weight": "of"}
    table = rows(context(data_path=str(tmp_path / "a.csv"), **own))
    assert table.features["day"].to_list() == [1.0, 2.0]
    assert table.features["ward"].to_list() == ["1", "2"]
    assert (table.names, table.weights.tolist()) == (("day", "ward"), [2.0, 1.0])


def test_what_was_said_of_labels_gaps_and_columns_travels_to_the_nodes():
    maps, gaps = (("north", (("1", 0), ("2", 1))),), (("", "k.a."), ("smoker", "9"))
    for thing in (
        Tally(("x",), ("c",), (), label_maps=maps),
        ClassCounts((0, 1), (), 1, maps),
        Unmet((Category("c", ("a",)),), 1, gaps, ("only",)),
        Recipe((Number("x"),), (0, 1), True, False, gaps=gaps, label_maps=maps, empty=("only",)),
    ):
        assert made(told(thing), [type(thing)], "the task") == thing


def test_the_node_config_says_how_a_file_is_written(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe;krank\n1,5;ja\n2,5;nein\nk.A.;ja\n9;nein\n".encode("latin-1"))
    own = {"data-path": str(tmp_path / "a.csv"), "label": "krank", "decimal": ",", "encoding": "latin-1"}
    own["missing-values"] = "k.A.;größe:9"
    table = rows(Context(run_id=1, node_id=1, node_config=own, state=RecordDict(), run_config={}))
    assert table.features["größe"].to_list() == [1.5, 2.5, None, None]
