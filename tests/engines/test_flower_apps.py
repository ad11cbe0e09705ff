"""The ready apps: rows from the node's own configuration, jobs from the run-config, run folders that go on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import Context, RecordDict

from engines.flower_grid import LocalGrid
from localgd import InProcess, load, local_gd, prepare, train
from localgd.data.datasets import DATASETS
from localgd.engine.flower import RefusedError
from localgd.flower import server as app
from localgd.flower.client import client, rows
from localgd.flower.server import KEYS, RunConfig, main

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


@pytest.mark.parametrize(
    ("config", "message"),
    [
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
