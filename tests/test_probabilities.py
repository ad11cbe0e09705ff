"""Probabilities of classes: those of scikit-learn for the same coefficients, and none where scores are no log-odds."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from command import localgd
from common import SAME_ORDER
from localgd import InProcess, LocalGDClassifier, Regularised, auto, load, prepare, train
from localgd.data.model import Model
from localgd.data.probabilities import Probabilities


def rows(n_classes, n=200, d=4):
    rng = np.random.default_rng(n_classes)
    X = rng.standard_normal((n, d))
    noisy = X @ rng.standard_normal((d, n_classes)) + rng.gumbel(size=(n, n_classes))
    return X, np.array([f"class {code}" for code in noisy.argmax(axis=1)]), np.arange(n) % 3


def like(clf):
    """scikit-learn's model of the same coefficients."""
    pooled = LogisticRegression()
    pooled.classes_, pooled.coef_, pooled.intercept_ = clf.classes_, clf.coef_, clf.intercept_
    return pooled


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_they_are_scikit_learns_for_the_same_coefficients(n_classes):
    X, y, groups = rows(n_classes)
    clf = LocalGDClassifier(C=1.0).fit(X, y, groups=groups)
    np.testing.assert_allclose(clf.predict_proba(X), like(clf).predict_proba(X), rtol=SAME_ORDER, atol=SAME_ORDER)
    np.testing.assert_allclose(clf.predict_log_proba(X), like(clf).predict_log_proba(X), rtol=1e-11, atol=SAME_ORDER)
    np.testing.assert_allclose(clf.decision_function(X), like(clf).decision_function(X), rtol=SAME_ORDER)
    assert (clf.classes_[clf.predict_proba(X).argmax(axis=1)] == clf.predict(X)).all()


def test_each_class_against_the_rest_is_divided_by_the_sum_as_in_scikit_learn():
    X, y, groups = rows(4)
    clf = LocalGDClassifier(C=1.0, multi_class="ovr").fit(X, y, groups=groups)
    pooled = OneVsRestClassifier(LogisticRegression(tol=1e-10, max_iter=1000)).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), pooled.predict_proba(X), atol=1e-6)


def test_probabilities_beyond_float64_have_logarithms():
    logs = Probabilities().log_of(np.array([-1000.0, 1000.0]))
    assert logs.tolist() == [[0.0, -1000.0], [-1000.0, 0.0]]
    assert Probabilities().log_of(np.array([[0.0, 2000.0, 1.0]])).tolist() == [[-2000.0, 0.0, -1999.0]]


def test_a_max_margin_model_has_none_and_says_what_to_do():
    X, y, groups = rows(2)
    wide = np.hstack([X, np.eye(len(X))])  # some plane separates these
    clf = LocalGDClassifier().fit(wide, y, groups=groups)
    assert clf.probabilities_ is None
    assert not hasattr(clf, "predict_proba")
    with pytest.raises(AttributeError) as caught:
        clf.predict_proba(wide)
    assert "no probabilities: give C" in str(caught.value.__cause__)
    assert "or calibration='sigmoid'" in str(caught.value.__cause__)


def test_a_method_that_minimises_the_logistic_loss_has_them_without_c_too():
    X, y, groups = rows(2)  # no plane separates these, so auto minimises the loss
    assert LocalGDClassifier().fit(X, y, groups=groups).probabilities_ == Probabilities()
    plain = LocalGDClassifier("newton").fit(X, y, groups=groups)
    np.testing.assert_allclose(plain.predict_proba(X), like(plain).predict_proba(X), rtol=1e-11)
    exponential = Regularised(loss="exponential", C=1.0)
    engine = prepare(InProcess(load("heart")))[0]
    assert train(engine, auto(), problem=exponential, n_rounds=3).probabilities is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heart")
    assert localgd("train", "heart", "--C", "1", "--out", folder / "RUN").returncode == 0
    return folder / "RUN"


def test_a_saved_model_gives_the_probabilities_of_its_run(run):
    table = load("heart")[0]
    model = Model.load(run)
    pooled = LogisticRegression()
    pooled.classes_, pooled.intercept_ = np.array(model.classes), np.array([model.intercept])
    pooled.coef_ = model.coef[None]
    x = model.recipe.matrix(table)[:, :-1]
    np.testing.assert_allclose(model.predict_proba(table), pooled.predict_proba(x), rtol=SAME_ORDER)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(table)), model.predict_proba(table), rtol=SAME_ORDER)
    again = Model(model.coef, model.intercept, model.classes, model.recipe, None, Probabilities((0.5,), (1.0,)))
    (run.parent / "again.json").write_text(json.dumps(again.to_dict()))
    assert Model.load(run.parent / "again.json").probabilities == Probabilities((0.5,), (1.0,))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predict_writes_id_label_probabilities_and_score_of_every_row(run, tmp_path, ending):
    table = load("heart")[0]
    patients = pl.Series([f"p{row}" for row in range(table.n_rows)])
    frame = table.features.with_columns(visit=pl.lit("first"), patient=patients, other=pl.lit(7))
    frame.write_csv(tmp_path / "new.csv")
    out = tmp_path / f"labels.{ending}"
    words = ("--proba", "--threshold", "0.2", "--id", "patient", "--id", "visit")
    done = localgd("predict", run, tmp_path / "new.csv", *words, "--out", out)
    assert done.returncode == 0, done.stderr
    written = pl.read_csv(out) if ending == "csv" else pl.read_parquet(out)
    assert written.columns == ["patient", "visit", "prediction", "probability_0", "probability_1", "score"]
    assert written["patient"].to_list() == frame["patient"].to_list()
    assert set(written["visit"]) == {"first"}
    likely = Model.load(run).predict_proba(table)
    np.testing.assert_allclose(written["probability_1"], likely[:, 1], rtol=SAME_ORDER)
    assert written["prediction"].to_list() == (likely[:, 1] > 0.2).astype(int).tolist()


def test_what_has_no_meaning_is_refused_in_words(run, tmp_path):
    load("heart")[0].features.write_csv(tmp_path / "new.csv")

    def refused(*words):
        done = localgd("predict", *words)
        assert done.returncode == 2
        return done.stderr

    assert "threshold must be a probability, 0 to 1" in refused(run, tmp_path / "new.csv", "--threshold", "1.5")
    assert "did you mean 'age'" in refused(run, tmp_path / "new.csv", "--id", "aged")
    assert "did you mean 'age'" in refused(run, tmp_path / "new.csv", "--id", "sex", "--id", "aged")
    localgd("train", "heart", "--loss", "squared_hinge", "--C", "1", "--out", tmp_path / "HINGE")
    hinge = refused(tmp_path / "HINGE", tmp_path / "new.csv", "--proba")
    assert "and the logistic loss (`localgd train --C 1`), or fit some" in hinge
    localgd("train", "mushroom", "--n-rounds", "3", "--out", tmp_path / "HARD")
    load("mushroom")[0].features.write_csv(tmp_path / "mushroom.csv")
    assert "no probabilities: train with a penalty and the logistic loss (`localgd train --C 1`)" in refused(
        tmp_path / "HARD", tmp_path / "mushroom.csv", "--proba"
    )
