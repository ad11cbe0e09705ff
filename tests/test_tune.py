"""C by cross-validation as rounds: the scores, and the choice, of scikit-learn on the pooled rows of the same folds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from localgd import InProcess, NodeError
from localgd.data.classes import signed
from localgd.run.tune import path, tune


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
    return tune(engine, split, len(folds), intercept=True, **{"Cs": path(), **options})


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


def test_every_model_of_the_path_is_proved():
    X, y, groups = data()
    found = tuned(X, y, groups, list(StratifiedKFold(3).split(X, y)), Cs=path(4))
    for run in [*found.runs, *(run for runs in found.fold_runs for run in runs)]:
        assert run.certificate.gap <= 1e-12 * run.certificate.objective


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scoring": "f2"}, ValueError, "scoring must be one of accuracy, neg_log_loss, got 'f2'"),
        ({"Cs": np.array([0.0, 1.0])}, ValueError, "Cs must be"),
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
        tune(engine, split, 1, Cs=path(2), intercept=False)
