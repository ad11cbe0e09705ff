"""Squared hinge loss, and the names that methods and problems have elsewhere, wherever people say them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale
from sklearn.svm import LinearSVC

from command import localgd
from common import random_rows, squared_hinge_fit, stacked, with_bias
from localgd import (
    HardMargin,
    InProcess,
    LocalGDClassifier,
    Message,
    Method,
    Regularised,
    Shard,
    SquaredHinge,
    auto,
    local_gd,
    mean,
    modified_local_gd,
    newton,
    slowmo,
    train,
)
from localgd.flower.server import RunConfig
from localgd.limits import Limits
from localgd.methods.options import ALIASES, NAMES
from localgd.methods.table import asked, method_named
from localgd.problems.regularised import Appraise

EXACT = {"dual": False, "tol": 1e-12, "max_iter": 100_000}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 4)) + 1
    return X, np.where(X[:, 0] - X[:, 1] + rng.standard_normal(120) > 0, "yes", "no"), np.arange(120) % 3


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_linear_svc_without_an_intercept_with_a_penalised_or_a_free_one(data, weighted):
    X, y, groups = data
    s = np.random.default_rng(1).random(120) * 2 if weighted else None
    how = {"C": 0.7, "loss": "squared_hinge"}
    clf = LocalGDClassifier(**how, fit_intercept=False).fit(X, y, groups, s)
    plain = LinearSVC(C=0.7, fit_intercept=False, **EXACT).fit(X, y, s)
    np.testing.assert_allclose(clf.coef_, plain.coef_, atol=1e-6)
    ones = LocalGDClassifier(**how, fit_intercept=False).fit(np.hstack([X, np.ones((120, 1))]), y, groups, s)
    with_one = LinearSVC(C=0.7, **EXACT).fit(X, y, s)
    np.testing.assert_allclose(ones.coef_[0], np.append(with_one.coef_, with_one.intercept_), atol=1e-6)
    free = LocalGDClassifier(**how).fit(X, y, groups, s)
    scaled = LinearSVC(C=0.7, intercept_scaling=1e4, **EXACT).fit(X, y, s)
    np.testing.assert_allclose(free.coef_, scaled.coef_, atol=1e-5)
    np.testing.assert_allclose(free.intercept_, scaled.intercept_, atol=1e-5)
    for fitted in (clf, ones, free):
        assert fitted.certificate_.distance < 1e-6
        assert not hasattr(fitted, "predict_proba")
    assert LocalGDClassifier(**how, calibration="sigmoid").fit(X, y, groups).predict_proba(X).shape == (120, 2)


@pytest.mark.parametrize("balanced", [None, "balanced"])
def test_classes_weigh_as_in_linear_svc(data, balanced):
    X, y, groups = data
    clf = LocalGDClassifier(C=0.7, loss="squared_hinge", fit_intercept=False, class_weight=balanced).fit(X, y, groups)
    wanted = LinearSVC(C=0.7, fit_intercept=False, class_weight=balanced, **EXACT).fit(X, y)
    np.testing.assert_allclose(clf.coef_, wanted.coef_, atol=1e-6)


def test_several_classes_are_one_against_the_rest_or_refused():
    X, y = load_wine(return_X_y=True)
    X, how = scale(X), {"C": 0.1, "loss": "squared_hinge", "fit_intercept": False}
    clf = LocalGDClassifier(**how, multi_class="ovr").fit(X, y, np.arange(len(y)) % 4)
    wanted = LinearSVC(C=0.1, fit_intercept=False, **EXACT).fit(X, y)
    np.testing.assert_allclose(clf.coef_, wanted.coef_, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), wanted.predict(X))
    assert all(found.distance < 1e-6 for found in clf.certificate_)
    with pytest.raises(ValueError, match=r"squared_hinge is a loss of two classes; .*multi_class='ovr'"):
        LocalGDClassifier(**how).fit(X, y)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Regularised("squared_hinge"), r"loss='squared_hinge' needs a penalty: give C, as 1.0 \(--C 1\)"),
        (lambda: asked("auto", loss="squared_hinge"), "loss='squared_hinge' needs a penalty: give C"),
        (lambda: asked("newton", loss="squared_hinge"), "loss='squared_hinge' needs a penalty: give C"),
        (
            lambda: train(InProcess(random_rows(2)), local_gd(loss="squared_hinge")),
            "local-gd: loss='squared_hinge' leads to any plane that separates the rows.*; give C",
        ),
        (
            lambda: asked("local-gd", loss="hinge"),
            "unknown loss 'hinge'; known are logistic, exponential, squared_hinge",
        ),
        (lambda: asked("auto", problem="svm", loss="logistic"), "problem='svm' says which loss, so loss='logistic'"),
        (lambda: asked("auto", problem="svm", task="regression"), "problem='svm' is one of classes, but the task"),
        (lambda: asked("auto", problem="ridge", C=1.0), "C is for classes; for real targets there is alpha"),
        (lambda: asked("auto", problem="lasso"), "problem must be one of svm, logistic, ridge, got 'lasso'"),
        (lambda: asked("fedavgs"), "unknown method 'fedavgs'; did you mean 'fedavg'"),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(act, words):
    with pytest.raises(ValueError, match=words):
        act()


def test_problems_have_their_names_elsewhere():
    assert asked("auto", problem="svm")[1] == HardMargin()
    assert asked("newton", problem="svm", C=2.0, intercept=True)[1] == Regularised(SquaredHinge(), 2.0, intercept=True)
    assert asked("lbfgs", problem="logistic")[1] == Regularised(C=1.0)
    assert asked("auto", problem="logistic", C=3.0) == asked("auto", C=3.0)
    assert asked("auto", problem="ridge") == asked("auto", task="regression")
    config = RunConfig({"method": "fedavg", "problem": "svm", "C": 2.0, "intercept": False, "local-steps": 5})
    assert config.how() == (local_gd(local_steps=5), Regularised(SquaredHinge(), 2.0))


def test_methods_have_their_names_elsewhere():
    assert set(ALIASES.values()) <= set(NAMES)
    assert method_named("fedavg", local_steps=7) == local_gd(local_steps=7)
    assert method_named("fedavgm", momentum=0.9) == slowmo(momentum=0.9)
    X, y, groups = [[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4]], [1, 1, 0, 0], ["a", "b", "a", "b"]
    runs = [LocalGDClassifier(name, n_rounds=5).fit(X, y, groups=groups).coef_ for name in ("fedavg", "local-gd")]
    np.testing.assert_array_equal(*runs)


def test_fedavgm_is_the_servers_momentum_of_hsu_qi_and_brown():
    """v ← βv + Δ and w ← w + v, Δ the mean move of the nodes: arXiv 1909.06335."""
    nodes, beta = random_rows(3), 0.8
    w, v = np.zeros(5), np.zeros(5)
    method = Method("one round", local_gd(local_steps=10, lr=0.1).task, mean())
    for _ in range(6):
        v = beta * v + (train(InProcess(nodes), method, n_rounds=1, w0=w).w - w)
        w = w + v
    run = train(InProcess(nodes), method_named("fedavgm", momentum=beta, local_steps=10, lr=0.1), n_rounds=6)
    np.testing.assert_allclose(run.w, w, rtol=1e-12)


def test_a_projection_reports_the_loss_that_it_is_told():
    run = train(InProcess(random_rows(2)), modified_local_gd(loss="squared_hinge"), n_rounds=3)
    assert run.history[0].loss == 1.0


def test_newton_and_lbfgs_agree_where_c_is_large_or_small():
    shards = with_bias(random_rows(1, n=20), 1, 0.2)
    z = stacked(shards)
    for C in (1e-6, 1e-2, 1e2, 1e6):
        problem = Regularised(SquaredHinge(), C, intercept=True)
        wanted = squared_hinge_fit(z, np.ones(len(z)), C, problem.pull(np.ones(z.shape[1])))
        for method in (newton(), auto()):
            run = train(InProcess(shards), method, problem=problem)
            np.testing.assert_allclose(run.w, wanted, rtol=1e-6, atol=1e-9)


def test_a_newton_step_too_long_is_cut_where_the_objective_stops_to_fall():
    rng = np.random.default_rng(0)
    x = np.hstack([rng.standard_normal((400, 10)), np.ones((400, 1))])
    y = np.where(x[:, 0] > 0.1 * x[:, 1], 1.0, -1.0)
    nodes = [Shard(f"{m}", x[m::4] * y[m::4, None]) for m in range(4)]
    problem = Regularised(SquaredHinge(), 1e5, intercept=True)
    assert train(InProcess(nodes), newton(), problem=problem).n_rounds < 60
    task, w = Appraise(problem), np.zeros(11)
    line = {"line": np.eye(11)[0], "lengths": np.array([0.0, 3.0])}
    turning = InProcess(nodes).round(task, Message(0, w, line)).sums["turning"]
    rows = stacked(nodes)
    for length, found in zip(line["lengths"], turning, strict=True):
        assert found == pytest.approx(2 * np.maximum(1 - length * rows[:, 0], 0) @ rows[:, 0])
    guarded = InProcess([replace(node, limits=Limits(min_rows=20)) for node in nodes])
    held_back = guarded.round(task, Message(0, w, {**line, "lengths": np.array([0.0, 200.0])}))
    assert (held_back.flags["unturned"], "turning" in held_back.sums) == (4, False)


def test_the_command_line_knows_them_all(tmp_path):
    done = localgd("train", "heart", "--out", tmp_path / "RUN", "--json", "--problem", "svm", "--C", 0.5)
    assert done.returncode == 0, done.stderr
    flags = json.loads((tmp_path / "RUN" / "config.json").read_text())["flags"]
    assert (flags["loss"], flags["C"], flags["task"]) == ("squared_hinge", 0.5, "classification")
    again = json.loads(localgd("certify", tmp_path / "RUN", "heart", "--json").stdout)
    assert again["distance"] == pytest.approx(json.loads(done.stdout)["distance"], rel=0.1)
    held = json.loads((tmp_path / "RUN" / "model.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({"coef": held["coef"], "intercept": held["intercept"]}))
    elsewhere = ("certify", tmp_path / "other.json", "heart", "--scale", "standard", "--json")
    near, far = (
        json.loads(localgd(*elsewhere, "--C", 0.5, *more).stdout)["distance"]
        for more in (("--loss", "squared_hinge"), ())
    )
    assert near < 1e-6
    assert far > 1e-2
    refused = localgd(*elsewhere, "--loss", "logistic")
    assert "--loss logistic is about a penalised loss; give --C, too" in refused.stderr


def test_names_of_the_command_line_mean_what_they_do_elsewhere():
    named, plain = (
        json.loads(localgd("train", "heart", *words, "--json").stdout)["objective"]
        for words in (("--problem", "logistic", "--method", "lbfgs"), ("--C", 1, "--method", "lbfgs"))
    )
    assert named == plain
    shown = "".join(localgd("train", "--help").stdout.split()).replace("│", "")
    assert "fedavgislocal-gd,fedavgmisslowmo" in shown
