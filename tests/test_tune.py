"""C by cross-validation as rounds: the scores, and the choice, of scikit-learn on the pooled rows of the same folds."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, ShuffleSplit, StratifiedKFold, TimeSeriesSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from localgd import InProcess, LocalGDClassifierCV, NodeError, load, prepare, tune
from localgd.data.classes import signed
from localgd.data.holdout import folds
from localgd.run.tune import Tuned, cross_validated, path


def data(n=300):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X[:n, :8])
    rng = np.random.default_rng(0)
    return X + rng.standard_normal(X.shape), y[:n], np.sort(rng.integers(4, size=n))


def tuned(X, y, groups, folds, n_classes=2, **options):
    rows, places = (
        np.hstack([X, np.ones((len(X), 1))]),
        {f"{g}": np.flatnonzero(groups == g) for g in np.unique(groups)},
    )

    def shard(name, index):
        return signed(name, rows[index], y[index], n_classes) if index.size else None

    def split(held):
        own = places[held.node_id]
        return [tuple(shard(held.node_id, np.intersect1d(own, part)) for part in fold) for fold in folds]

    engine = InProcess(shard(name, index) for name, index in places.items())
    return cross_validated(engine, split, len(folds), intercept=True, **{"Cs": path(), **options})


def test_scores_and_choice_are_those_of_pooled_cross_validation_in_eighty_rounds():
    X, y, groups = data()
    folds = list(StratifiedKFold(5).split(X, y))
    found = tuned(X, y, groups, folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pooled = LogisticRegressionCV(Cs=path(), cv=folds, solver="newton-cholesky", tol=1e-10).fit(X, y)
    scores = next(iter(pooled.scores_.values())) if isinstance(pooled.scores_, dict) else pooled.scores_
    np.testing.assert_allclose(found.scores, np.reshape(scores, found.scores.shape), atol=1e-8)
    assert found.Cs[found.best] == pytest.approx(float(np.ravel(pooled.C_)[0]))
    assert found.n_rounds <= 80
    np.testing.assert_allclose(found.runs[found.best].w[:-1], pooled.coef_[0], atol=1e-6)


def test_one_node_at_a_time_can_be_held_out():
    X, y, groups = data()
    folds = list(LeaveOneGroupOut().split(X, y, groups))
    found = tuned(X, y, groups, folds, Cs=np.array([0.01, 1.0]), scoring="neg_log_loss")
    for fold, (inside, outside) in enumerate(folds):
        for place, C in enumerate(found.Cs):
            pooled = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10).fit(X[inside], y[inside])
            score = -log_loss(y[outside], pooled.predict_proba(X[outside]), labels=[0, 1])
            assert found.scores[fold, place] == pytest.approx(score, abs=1e-8)


@pytest.mark.parametrize(("load", "classes"), [(load_breast_cancer, 2), (load_iris, 3)])
def test_the_estimator_does_what_that_of_pooled_rows_does(load, classes):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X[:, :6])
    names = np.array(["north", "south", "west"])[np.arange(len(y)) % 3]
    found = LocalGDClassifierCV(Cs=6).fit(X, y, groups=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pooled = LogisticRegressionCV(Cs=path(6), cv=5, solver="newton-cg", tol=1e-10, max_iter=1000).fit(X, y)
    scores = next(iter(pooled.scores_.values())) if isinstance(pooled.scores_, dict) else pooled.scores_
    np.testing.assert_allclose(found.scores_, np.reshape(scores, found.scores_.shape), atol=1e-8)
    assert pytest.approx(float(np.ravel(pooled.C_)[0])) == found.C_
    np.testing.assert_allclose(found.predict_proba(X), pooled.predict_proba(X), atol=1e-5)
    assert found.coefs_paths_.shape == (5, 6, 1 if classes == 2 else 3, X.shape[1] + 1)
    assert found.n_rounds_ <= 80


def test_more_folds_than_share_their_rounds_come_in_turn():
    X, y, groups = data()
    folds = list(StratifiedKFold(18).split(X, y))
    found = tuned(X, y, groups, folds, Cs=np.array([0.01, 1.0]), scoring="neg_log_loss")
    few = tuned(X, y, groups, [folds[0], folds[17]], Cs=np.array([0.01, 1.0]), scoring="neg_log_loss")
    assert found.scores.shape == (18, 2)
    assert found.scores[[0, 17]].tolist() == few.scores.tolist()
    assert [run.w.tolist() for run in found.runs] == [run.w.tolist() for run in few.runs]


def test_the_estimator_holds_out_a_node_at_a_time():
    X, y, groups = data()
    found = LocalGDClassifierCV(Cs=[1.0, 0.01], cv="leave-one-node-out").fit(X, y, groups=groups)
    expected = tuned(X, y, groups, list(LeaveOneGroupOut().split(X, y, groups)), Cs=np.array([0.01, 1.0]))
    assert found.scores_.tolist() == expected.scores.tolist()
    assert found.Cs_.tolist() == [0.01, 1.0]
    with pytest.raises(ValueError, match="leaves a fold no row to train on"):
        LocalGDClassifierCV(cv="leave-one-node-out").fit(X, y, groups=np.zeros(len(y), int))
    with pytest.raises(ValueError, match="cv must be a number of folds, a splitter, splits or 'leave-one-node-out'"):
        LocalGDClassifierCV(cv="leave-one-out").fit(X, y, groups=groups)


def test_rows_of_weight_zero_are_not_there_and_groups_may_be_asked_for():
    X, y, groups = data(120)
    weights = np.arange(120) % 3 / 1.0
    found = LocalGDClassifierCV(Cs=3, cv=3).fit(X, y, groups=groups, sample_weight=weights)
    there = weights > 0
    alone = LocalGDClassifierCV(Cs=3, cv=3).fit(X[there], y[there], groups=groups[there], sample_weight=weights[there])
    assert found.scores_.tolist() == alone.scores_.tolist()
    with pytest.raises(ValueError, match="nodes='groups', but fit got no groups"):
        LocalGDClassifierCV(nodes="groups").fit(X, y)


@parametrize_with_checks([LocalGDClassifierCV(Cs=2, cv=2)])
def test_scikit_learn_finds_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("load", "scoring"),
    [
        *((load_breast_cancer, name) for name in ("balanced_accuracy", "f1", "neg_log_loss", "roc_auc")),
        *((load_iris, name) for name in ("balanced_accuracy", "f1_macro", "roc_auc_ovr")),
    ],
)
def test_scores_of_every_kind_and_the_choice_are_those_of_pooled_rows(load, scoring, intercept):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X[:, :4]) + 0.5 * np.random.default_rng(0).standard_normal((len(X), 4))
    found = LocalGDClassifierCV(Cs=3, cv=3, scoring=scoring, fit_intercept=intercept)
    found.fit(X, y, groups=np.arange(len(y)) % 3)
    solver = {"solver": "newton-cg", "tol": 1e-11, "max_iter": 1000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pooled = LogisticRegressionCV(Cs=path(3), cv=3, scoring=scoring, fit_intercept=intercept, **solver).fit(X, y)
    scores = next(iter(pooled.scores_.values())) if isinstance(pooled.scores_, dict) else pooled.scores_
    np.testing.assert_allclose(found.scores_, np.reshape(scores, found.scores_.shape), atol=1e-8)
    assert pytest.approx(float(np.ravel(pooled.C_)[0])) == found.C_


def test_columns_are_prepared_by_the_training_rows_of_each_fold():
    sites = [table.take(np.arange(0, table.n_rows, 3)) for table in load("heart")]
    options = {"scale": "standard", "missing": "most-frequent"}
    found = tune(
        InProcess(sites),
        lambda part: prepare(part, **options),
        Cs=[0.01, 1.0],
        cv=3,
        scoring="roc_auc",
        seed=2,
    )
    for fold in range(3):
        inside, outside = zip(*(folds(table, 3, seed=2)[fold] for table in sites), strict=True)
        recipe = prepare(InProcess(inside), **options)[1]
        rows = ([recipe.matrix(part, unseen="zeros")[:, :-1] for part in of] for of in (inside, outside))
        X, X_out = map(np.concatenate, rows)
        y, y_out = (np.concatenate([part.labels for part in of]) for of in (inside, outside))
        for place, C in enumerate(found.Cs):
            pooled = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(X, y)
            area = roc_auc_score(y_out, pooled.decision_function(X_out))
            assert found.scores[fold, place] == pytest.approx(area, abs=1e-8)
    assert found.recipe == prepare(InProcess(sites), **options)[1]
    assert found.doubt < 1e-9


def test_of_scores_that_may_be_the_same_the_strongest_penalty_is_chosen():
    scores = np.array([[0.80, 0.90, 0.9001], [0.81, 0.90, 0.9001], [0.79, 0.90, 0.9001]])
    sure = Tuned(path(3), scores, (), (), 9)
    assert (sure.best, replace(sure, doubt=1e-4).best, replace(sure, doubt=0.1).best) == (2, 1, 0)
    assert sure.strongest == 2
    assert replace(sure, scores=np.array([[0.8, 0.9], [0.8, 0.7], [0.8, 0.9]])).strongest == 0


def test_a_fold_where_a_score_has_no_meaning_does_not_count_and_one_that_has_none_is_refused():
    X, y, groups = data(60)
    order = np.argsort(y)
    with pytest.raises(ValueError, match="'roc_auc' has no meaning on held-out rows that lack a class, and in every"):
        tuned(X, y, groups, [(np.arange(60), order[:5])], Cs=path(2), scoring="roc_auc")
    two = [(np.arange(60), order[:5]), (np.arange(30), np.arange(30, 60))]
    with pytest.warns(UserWarning, match="'roc_auc' has no meaning on 1 of 2 folds"):
        found = LocalGDClassifierCV(Cs=2, cv=two, scoring="roc_auc").fit(X, y, groups=groups)
    alone = LocalGDClassifierCV(Cs=2, cv=two[1:], scoring="roc_auc").fit(X, y, groups=groups)
    assert np.isnan(found.scores_[0]).all()
    assert (found.scores_[1].tolist(), found.C_) == (alone.scores_[0].tolist(), alone.C_)
    iris = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="scoring='f1' is about two classes, and there are 3; take f1_macro"):
        LocalGDClassifierCV(Cs=2, cv=2, scoring="f1").fit(*iris)
    with pytest.raises(ValueError, match="fold 1 holds out no row; take fewer folds"):
        tuned(X, y, groups, [(order, [])], Cs=path(2))


def test_every_model_of_the_path_is_proved():
    X, y, groups = data()
    found = tuned(X, y, groups, list(StratifiedKFold(3).split(X, y)), Cs=path(4))
    for run in [*found.runs, *(run for runs in found.fold_runs for run in runs)]:
        assert run.certificate.gap <= 1e-12 * run.certificate.objective


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scoring": "f2"}, ValueError, "scoring must be one of accuracy, .*, roc_auc_ovr, got 'f2'"),
        ({"scoring": ["f1"]}, ValueError, "scoring must be one of"),
    ],
)
def test_what_has_no_meaning_is_refused(options, error, said):
    X, y, groups = data(60)
    with pytest.raises(error, match=said):
        tuned(X, y, groups, list(StratifiedKFold(2).split(X, y)), **options)


def test_what_a_node_raises_names_the_node():
    X, y, groups = data(60)
    engine = InProcess(signed(f"{g}", X[groups == g], y[groups == g], 2) for g in np.unique(groups))

    def split(held):
        if held.node_id == "0":
            raise KeyError("no folds here")
        return [(held, held)]

    with pytest.raises(NodeError, match="node '0'"):
        cross_validated(engine, split, 1, Cs=path(2), intercept=False)


@pytest.mark.parametrize("cv", [TimeSeriesSplit(3), ShuffleSplit(3, train_size=0.4, test_size=0.3, random_state=0)])
def test_a_fold_trains_on_the_rows_that_its_split_names_and_on_no_others(cv):
    X, y, groups = data()
    pooled = LogisticRegressionCV(
        Cs=[0.1, 10.0], cv=cv, scoring="accuracy", tol=1e-10, max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
    ).fit(X, y)
    found = LocalGDClassifierCV(Cs=[0.1, 10.0], cv=cv).fit(X, y, groups=groups)
    np.testing.assert_allclose(found.scores_, pooled.scores_.reshape(3, 2), atol=1e-8)
    np.testing.assert_allclose(found.coefs_paths_[:, :, 0], pooled.coefs_paths_[:, 0, :, 0], atol=1e-5)


def test_splits_by_place_are_of_the_rows_given_though_some_weigh_nothing():
    X, y, groups = data()
    weights, splits = np.arange(300) % 3 / 1.0, list(StratifiedKFold(3).split(X, y))
    found = LocalGDClassifierCV(Cs=2, cv=splits).fit(X, y, groups=groups, sample_weight=weights)
    there = weights > 0
    places = np.cumsum(there) - 1
    alone = [tuple(places[part[there[part]]] for part in fold) for fold in splits]
    again = LocalGDClassifierCV(Cs=2, cv=alone)
    again.fit(X[there], y[there], groups=groups[there], sample_weight=weights[there])
    assert np.array_equal(found.scores_, again.scores_)
