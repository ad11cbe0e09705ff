"""What is said of linear models over groups: pooled ones pass, others are told how far they are off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from localgd import LocalGDClassifier
from localgd.testing import assert_matches_pooled
from localgd.testing.ranks import found

ROOT = Path(__file__).parents[2]


def iris(n_classes=2):
    X, y = load_iris(return_X_y=True)
    some = y < n_classes
    return X[some], np.array(["setosa", "versicolor", "virginica"])[y[some]], np.arange(some.sum()) % 3


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y, np.arange(len(y)) % 4


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_federated_max_margin_model_is_the_pooled_one(fit_intercept):
    X, y, groups = iris()
    fitted = LocalGDClassifier(fit_intercept=fit_intercept).fit(X, y, groups=groups)
    certificate = assert_matches_pooled(fitted, X, y, groups, angle_tol_deg=0.1)
    assert certificate.angle_deg_max <= 0.1
    array = np.append(fitted.coef_, fitted.intercept_ if fit_intercept else [])
    assert assert_matches_pooled(array, csr_array(X), y == "versicolor", angle_tol_deg=0.1).angle_deg_max <= 0.1


def test_few_rounds_are_told_how_far_they_are_off_and_what_to_do():
    X, y, groups = iris()
    fitted = LocalGDClassifier("local-gd", n_rounds=5).fit(X, y, groups=groups)
    with pytest.raises(AssertionError, match=r"is at least [\d.]+° \(and at most [\d.]+°\) from the pooled max-margin"):
        assert_matches_pooled(fitted, X, y, groups, angle_tol_deg=0.5)


@pytest.mark.parametrize("C", [0.1, 1.0])
def test_a_logistic_regression_is_the_pooled_one_for_its_own_c(C):
    X, y, groups = cancer()
    fitted = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, y)
    assert assert_matches_pooled(fitted, X, y, groups, C=C, angle_tol_deg=0.01).angle_deg_max <= 0.01
    words = r"is at least [\d.]+° \(and at most [\d.]+°\) from the pooled minimiser for C=50, and 1° is asked for"
    with pytest.raises(AssertionError, match=words):
        assert_matches_pooled(fitted, X, y, groups, C=50.0)


def test_many_classes_are_those_of_softmax():
    X, y, groups = iris(3)
    fitted = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(X, y)
    assert assert_matches_pooled(fitted, X, y, groups, C=1.0, angle_tol_deg=0.01)
    alone = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(X[::7], y[::7])
    with pytest.raises(AssertionError, match="from the pooled minimiser for C=1"):
        assert_matches_pooled(alone, X, y, groups, C=1.0)


def test_rows_that_no_plane_separates_have_no_max_margin_model():
    X, y, groups = cancer()
    y = np.where(np.arange(len(y)) % 5 == 0, 1 - y, y)
    fitted = LogisticRegression().fit(X, y)
    with pytest.raises(AssertionError, match=r"no plane is proved to separate all rows, .*: give C, as of the loss"):
        assert_matches_pooled(fitted, X, y, groups, n_rounds=50)


MISFITS = {
    "a pipeline": (object(), {}, TypeError, "of a pipeline give the last step"),
    "columns": (np.ones(7), {}, ValueError, r"coefficients of shape \(1, 7\), and X has 4 columns"),
    "classes": (np.ones((3, 4)), {}, ValueError, "the model tells 3 classes apart, and there are 2"),
    "labels": (np.ones(4), {"y": [0, 1]}, ValueError, r"X has 100 rows, and y the shape \(2,\)"),
    "an angle": (np.ones(4), {"angle_tol_deg": 90}, ValueError, "must be between 0 and 90"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused_in_words(name):
    model, options, kind, words = MISFITS[name]
    X, y, groups = iris()
    with pytest.raises(kind, match=words):
        assert_matches_pooled(model, **({"X": X, "y": y, "groups": groups} | options))


def test_a_label_that_the_model_does_not_know_is_named():
    X, y, groups = iris(3)
    fitted = LogisticRegression().fit(X[:100], y[:100])
    with pytest.raises(ValueError, match="y holds 'virginica', which is no class of the model"):
        assert_matches_pooled(fitted, X, y, groups)


def in_pytest(folder, *words):
    """Run pytest as a user's project has it, with this plugin and no other."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "localgd.testing.plugin", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


OWN = """
import sys

def test_the_plugin_brings_nothing_that_nobody_asked_for():
    assert not {"numpy", "torch", "sklearn"} & set(sys.modules)

def test_ranks_are_started_by_a_fixture(localgd_ranks, assert_matches_ddp):
    assert (localgd_ranks.__name__, assert_matches_ddp.__name__) == ("in_ranks", "assert_matches_ddp")

def test_it_is_pooled(assert_matches_pooled):
    X, y = [[2.0, 0.3], [1.0, -0.2], [-2.0, 0.1], [-1.0, -0.4]], [1, 1, 0, 0]
    assert_matches_pooled([1.0, 0.5], X, y, groups=["a", "b", "a", "b"])
"""


def test_the_plugin_gives_its_fixtures_to_any_project(tmp_path):
    (tmp_path / "test_own.py").write_text(OWN)
    said = in_pytest(tmp_path)
    assert "1 failed, 2 passed" in said, said
    assert re.search(r"AssertionError: the model is at least 26\.\d° .* from the pooled max-margin", said), said


def test_pytest_finds_the_plugin_where_localgd_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (module,) = project["entry-points"]["pytest11"].values()
    assert module == "localgd.testing.plugin"
    assert found(sys.modules["localgd"])


@pytest.mark.processes
def test_the_page_is_a_file_of_tests_that_pass(tmp_path):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks))
    said = in_pytest(tmp_path)
    assert re.search(r"\d passed", said), said
    assert "failed" not in said, said
