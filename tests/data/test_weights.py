"""A column of weights: from files, arrays, the command line and a node's own configuration to the model."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from command import localgd
from engines.flower_grid import LocalGrid
from localgd import InProcess, Regularised, from_arrays, load, newton, prepare, train
from localgd.flower import FlowerEngine
from localgd.flower.client import client


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2))
    ill = np.where(x @ [1.0, -2.0] + rng.standard_normal(60) > 0, "yes", "no")
    weights = np.round(rng.random(60) * 3, 2) * (rng.random(60) < 0.9)
    columns = {"a": x[:, 0], "b": x[:, 1], "ill": ill, "w": weights, "site": rng.choice(["n", "s", "w"], 60)}
    return pl.DataFrame(columns | {"dose": x @ [1.0, -2.0] + 3 + rng.standard_normal(60)})


@pytest.fixture
def file(frame, tmp_path):
    frame.write_csv(tmp_path / "rows.csv")
    return tmp_path / "rows.csv"


def exact(frame, C=1.0):
    x, y = frame.select("a", "b").to_numpy(), frame["ill"].to_numpy()
    model = LogisticRegression(C=C, tol=1e-12, solver="newton-cholesky").fit(x, y, sample_weight=frame["w"].to_numpy())
    return np.append(model.coef_, model.intercept_)


def test_a_column_of_weights_is_no_feature_and_trains_the_weighted_model(frame, file):
    tables = load(file, label="ill", node="site", drop=["dose"], weight="w")
    assert [table.names for table in tables] == [("a", "b")] * 3
    engine, _ = prepare(InProcess(tables))
    assert sum(shard.n_rows for shard in engine.shards.values()) == (frame["w"] > 0).sum()
    run = train(engine, newton(), problem=Regularised(C=1.0, intercept=True))
    np.testing.assert_allclose(run.w, exact(frame), atol=1e-6)


def test_arrays_take_sample_weight(frame):
    x = frame.select("a", "b").to_numpy()
    tables = from_arrays(x, frame["ill"].to_list(), frame["site"].to_list(), sample_weight=frame["w"].to_numpy())
    engine, _ = prepare(InProcess(tables))
    run = train(engine, newton(), problem=Regularised(C=1.0, intercept=True))
    np.testing.assert_allclose(run.w, exact(frame), atol=1e-6)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\) for 60 rows"):
        from_arrays(x, frame["ill"].to_list(), sample_weight=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"the arrays given, row 1: the weight is -1\.0; give a number of at least 0"):
        from_arrays(x[:2], ["a", "b"], sample_weight=[-1.0, 2.0])


def test_the_command_line_takes_the_column_keeps_it_and_goes_on_with_it(frame, file, tmp_path):
    out, data = tmp_path / "RUN", (file, "--label", "ill", "--node", "site", "--drop", "dose", "--weight", "w")
    done = localgd("train", *data, "--C", 1, "--scale", "none", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads((out / "model.json").read_text())
    np.testing.assert_allclose(np.append(model["coef"], model["intercept"]), exact(frame), atol=1e-6)
    assert json.loads((out / "config.json").read_text())["flags"]["weight"] == "w"
    found = json.loads(localgd("certify", out, *data, "--json").stdout)
    x, y, w = frame.select("a", "b").to_numpy(), frame["ill"].to_numpy() == "yes", frame["w"].to_numpy()
    right = (x @ np.ravel(model["coef"]) + model["intercept"] > 0) == y
    assert found["accuracy"] == pytest.approx((w * right).sum() / w.sum())
    assert found["distance"] < 1e-6
    labels = localgd("predict", out, file)  # the column does no harm
    assert labels.returncode == 0, labels.stderr
    compared = localgd("compare", *data, "--C", 1, "--methods", "newton", "--n-rounds", 20, "--json")
    assert compared.returncode == 0, compared.stderr


def test_accuracy_is_said_to_go_by_the_weights_where_it_does(file, tmp_path):
    out, data = tmp_path / "RUN", (file, "--label", "ill", "--node", "site", "--drop", "dose")
    for words, by in ((("--weight", "w"), True), (("--drop", "w"), False)):
        trained = localgd("train", *data, *words, "--method", "local-gd", "--n-rounds", 2, "--out", out, "--force")
        assert ("accuracy on all training rows, by their weights, " in trained.stdout) is by
        assert ("53 rows with weights" in trained.stderr) is by
        certified = localgd("certify", out, *data, *words)
        assert f"accuracy on all {'53 rows, by their weights,' if by else '60 rows'} " in certified.stdout
        methods = ("--methods", "local-gd,modified-local-gd", "--local-steps", "n=5,s=7,w=9", "--seed", 3)
        compared = localgd("compare", *data, *words, *methods, "--n-rounds", 2)
        assert ("accuracy goes by the weights of the rows" in compared.stdout) is by


def test_numbers_are_fitted_by_weight(frame, file, tmp_path):
    out = tmp_path / "RUN"
    words = ("--label", "dose", "--drop", "ill", "--drop", "site", "--weight", "w", "--task", "regression")
    done = localgd("train", file, *words, "--alpha", 0.5, "--scale", "none", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads((out / "model.json").read_text())
    ridge = Ridge(alpha=0.5).fit(frame.select("a", "b").to_numpy(), frame["dose"], sample_weight=frame["w"].to_numpy())
    np.testing.assert_allclose(np.ravel(model["coef"]), ridge.coef_, atol=1e-8)
    np.testing.assert_allclose(model["intercept"], ridge.intercept_, atol=1e-8)


def test_a_node_of_flower_names_its_own_column(frame, tmp_path):
    configs = []
    for (site,), part in frame.sort("site").group_by(["site"], maintain_order=True):
        part.drop("site", "dose").write_csv(tmp_path / f"{site}.csv")
        own = {"data-path": str(tmp_path / f"{site}.csv"), "label": "ill", "weight": "w", "node-name": site}
        configs.append(own | {"min-rows": 1, "min-group": 1})
    engine, _ = prepare(FlowerEngine(LocalGrid(client, configs), n_nodes=3, timeout=5.0, poll=1e-4))
    run = train(engine, newton(), problem=Regularised(C=1.0, intercept=True))
    np.testing.assert_allclose(run.w, exact(frame), atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (["1", "x", "2"], "row 3: the weight in column 'w' is 'x'; give a number"),
        (["1", "", "2"], "row 3: the weight in column 'w' is None; give a number"),
        (["1", "-2", "2"], "row 3: the weight is -2.0; give a number of at least 0"),
        (["1", "inf", "2"], "row 3: the weight is inf; give a number of at least 0"),
        (["0", "0", "0"], "node 'rows' has no sample of a weight above 0; leave the node out"),
    ],
)
def test_weights_that_are_none_are_refused_with_their_row(weights, words, tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"{k},{'ab'[k % 2]},{weight}" for k, weight in enumerate(weights)]
    path.write_text("\n".join(["x,y,w", *lines]) + "\n")
    with pytest.raises(ValueError, match=words):
        prepare(InProcess(load(path, label="y", weight="w"), debug=True))


def test_a_column_that_cannot_be_the_weight_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match=r"weight='W' is not a column of .*rows.csv"):
        load(file, label="ill", weight="W")
    with pytest.raises(ValueError, match=r"column 'ill' is said to be the label .* and the weight"):
        load(file, label="ill", weight="ill")
    np.savez(tmp_path / "rows.npz", X=np.eye(2), y=[0, 1])
    with pytest.raises(ValueError, match=r"weight='w' must be a column: .*holds arrays; use CSV or Parquet"):
        load(tmp_path / "rows.npz", weight="w")
    with pytest.raises(ValueError, match=r"is bundled with its own columns; leave weight out"):
        load("heart", weight="w")
