"""The real command on a table whose label is a number."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from command import assert_same_outcome, localgd
from localgd import InProcess, Samples, from_arrays, prepare
from localgd.data.recipe import Recipe

WORDS = ("--label", "progression", "--node", "site", "--task", "regression")
BUNCH = load_diabetes(scaled=False)
X, Y = StandardScaler().fit_transform(BUNCH.data), BUNCH.target


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("diabetes") / "diabetes.csv"
    columns = {name: BUNCH.data[:, j] for j, name in enumerate(BUNCH.feature_names)}
    site = [f"site-{m % 5}" for m in range(len(Y))]
    pl.DataFrame({**columns, "site": site, "progression": Y}).write_csv(path)
    return path


def model_of(folder):
    entries = json.loads((folder / "model.json").read_text())
    return np.append(entries["coef"], entries["intercept"])


@pytest.mark.parametrize(
    ("words", "pooled"),
    [
        ((), Ridge(1.0)),
        (("--alpha", "20", "--method", "conjugate-gradients"), Ridge(20.0)),
        (("--alpha", "0"), LinearRegression()),
        (("--alpha", "3", "--no-fit-intercept"), Ridge(3.0, fit_intercept=False)),
    ],
    ids=str,
)
def test_a_table_of_numbers_trains_certifies_and_predicts(words, pooled, table, tmp_path):
    done = localgd("train", table, *WORDS, *words, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert "442 rows, 10 columns" in done.stderr
    assert "numbers to fit" in done.stderr
    assert "certified: within" in done.stdout
    pooled.fit(X, Y)
    w = model_of(tmp_path / "RUN")
    np.testing.assert_allclose(w, np.append(pooled.coef_, pooled.intercept_), rtol=1e-7, atol=1e-9)
    found = json.loads((tmp_path / "RUN" / "certificate.json").read_text())
    assert np.linalg.norm(w[:-1] - pooled.coef_) <= found["distance"] + 1e-9
    history = pl.read_csv(tmp_path / "RUN" / "history.csv")
    assert history["loss"][-1] <= found["objective"]
    for name in ("predict", "evaluate"):
        refused = localgd(name, tmp_path / "RUN", table, "--threshold", "0.5")
        assert refused.returncode == 2
        assert "this model predicts numbers; leave" in refused.stderr
    predicted = localgd("predict", tmp_path / "RUN", table, "--json")
    np.testing.assert_allclose(json.loads(predicted.stdout), pooled.predict(X), rtol=1e-7)


def test_a_model_of_numbers_is_certified_against_the_pooled_solution(table, tmp_path):
    assert localgd("train", table, *WORDS, "--out", tmp_path / "RUN").returncode == 0
    told = ("--label", "progression", "--node", "site")
    own = localgd("certify", tmp_path / "RUN", table, *told)
    assert own.stdout.startswith("certified: within ")
    assert " of the pooled ridge solution, " in own.stdout
    other = json.loads(localgd("certify", tmp_path / "RUN", table, *told, "--alpha", "20", "--json").stdout)
    apart = np.linalg.norm(Ridge(20.0).fit(X, Y).coef_ - Ridge(1.0).fit(X, Y).coef_)
    assert apart <= other["distance"] < 2 * apart
    pooled = LinearRegression().fit(BUNCH.data, Y)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps({"coef": pooled.coef_.tolist(), "intercept": pooled.intercept_}))
    exact = localgd("certify", elsewhere, table, *told, "--alpha", "0")
    assert exact.stdout.startswith("certified: within ")
    assert " of the pooled least-squares solution, " in exact.stdout
    refused = localgd("certify", tmp_path / "RUN", table, *told, "--C", "1")
    assert refused.returncode == 2
    assert "predicts numbers: --C, --loss and --angle-tol-deg are for classes; there is --alpha" in refused.stderr


@pytest.mark.parametrize("method", ["normal-equations", "conjugate-gradients"])
def test_a_run_out_of_rounds_is_resumed_to_the_same_bits(method, table, tmp_path):
    words = ("train", table, *WORDS, "--method", method)
    assert localgd(*words, "--out", tmp_path / "WHOLE").returncode == 0
    cut = localgd(*words, "--n-rounds", "3", "--out", tmp_path / "CUT")
    assert cut.returncode == 0
    assert "it can go on: localgd resume" in cut.stdout
    assert localgd("resume", tmp_path / "CUT", "--n-rounds", "500").returncode == 0
    assert_same_outcome(tmp_path / "CUT", tmp_path / "WHOLE")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label", "site", "--task", "regression"), "label 'site-0' is no number to fit"),
        ((*WORDS, "--method", "local-gd"), "it is for signed rows, and cannot look for the ridge solution"),
        ((*WORDS, "--C", "1"), "C is for classes; for real targets there is alpha"),
        ((*WORDS, "--angle-tol-deg", "1"), "within 1° of the pooled model: real targets have no margins and no angle"),
        ((*WORDS, "--compare", "pooled"), "--compare is for classes"),
        ((*WORDS, "--alpha", "-1"), "--alpha must be a number from 0"),
        ((*WORDS, "--fraction", "0.5"), "needs every node in every round"),
        ((*WORDS[:4], "--alpha", "1"), "alpha is for real targets: say so, by the task regression"),
        ((*WORDS[:4], "--method", "normal-equations"), "normal-equations fits real targets, not classes"),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(words, said, table):
    done = localgd("train", table, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_targets_do_not_leave_their_nodes():
    sent = []

    class Overheard(InProcess):
        def round(self, task, message, nodes=None):
            report = super().round(task, message, nodes)
            sent.extend(report.counts)
            return report

    federation, recipe = prepare(Overheard(from_arrays(X, Y, np.arange(len(Y)) % 5)), classes=False)
    assert recipe.classes == ()
    assert all(isinstance(node, Samples) for node in federation.shards.values())
    assert not [key for key in sent if key[0] == "label"]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
