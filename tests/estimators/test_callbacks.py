"""Callbacks of scikit-learn are told of every round."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from localgd import LocalGDClassifier, LocalGDClassifierCV, LocalGDRegressor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
THREE = np.argmax(X[:, :3], axis=1)


class Kept:
    """Keeps what it is told, and stops after so many rounds."""

    def __init__(self, stop_after=None):
        self.began, self.rounds, self.ended, self.stop_after = 0, [], 0, stop_after

    def setup(self, **_):
        self.began += 1

    def teardown(self, **_):
        self.ended += 1

    def on_fit_task_begin(self, *_):
        pass

    def on_fit_task_end(self, _, context, *, X=None, metadata=None, fitted_estimator=None):
        if context.task_name == "round":
            self.rounds.append((context.task_id, fitted_estimator.predict(X), fitted_estimator.certificate_, metadata))
            return self.stop_after is not None and len(self.rounds) >= self.stop_after
        return None


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        (LocalGDClassifier("local-gd", n_rounds=4), X[:, 0] > 0),
        (LocalGDClassifier(C=1.0), THREE),
        (LocalGDRegressor(), X[:, 0]),
    ],
    ids=str,
)
def test_a_callback_gets_the_model_of_every_round_and_its_certificate(estimator, y):
    kept = Kept()
    estimator.set_callbacks(kept).fit(X, y, groups=np.arange(60) % 3)
    assert (kept.began, kept.ended) == (1, 1)
    assert [number for number, *_ in kept.rounds] == list(range(estimator.n_iter_ + 1))
    np.testing.assert_array_equal(kept.rounds[-1][1], estimator.predict(X))
    assert kept.rounds[-1][2].angle_deg_max == pytest.approx(estimator.certificate_.angle_deg_max, nan_ok=True)
    assert list(kept.rounds[0][3]) == ["groups"]


def test_each_class_against_the_rest_and_each_target_has_its_rounds():
    kept = Kept()
    clf = LocalGDClassifier("local-gd", n_rounds=4, multi_class="ovr").set_callbacks(kept).fit(X, THREE)
    assert len(kept.rounds) == 3 * 5
    np.testing.assert_array_equal(kept.rounds[-1][1], clf.predict(X))
    kept = Kept()
    reg = LocalGDRegressor().set_callbacks(kept).fit(X, X[:, :2])
    assert len(kept.rounds) == sum(map(len, reg.history_))
    np.testing.assert_array_equal(kept.rounds[-1][1], reg.predict(X))


def test_a_true_answer_ends_the_rounds():
    kept = Kept(stop_after=2)
    clf = LocalGDClassifier("local-gd", n_rounds=50).set_callbacks(kept).fit(X, X[:, 0] > 0)
    assert clf.n_iter_ == 2


def test_without_callbacks_it_is_the_same_model_and_they_are_torn_down_after_an_error():
    kept = Kept()
    told, plain = LocalGDClassifier(C=1.0).set_callbacks(kept), LocalGDClassifier(C=1.0)
    assert np.array_equal(told.fit(X, THREE).coef_, plain.fit(X, THREE).coef_)
    with pytest.raises(ValueError, match="NaN"):
        told.fit(X * np.nan, THREE)
    assert (kept.began, kept.ended) == (2, 2)


def test_a_progress_bar_works_in_a_pipeline_and_beside_a_search():
    for estimator in (make_pipeline(StandardScaler(), LocalGDClassifier(C=1.0)), LocalGDClassifierCV(Cs=2, cv=2)):
        assert estimator.set_callbacks(ProgressBar()).fit(X, THREE).score(X, THREE) > 0.8
