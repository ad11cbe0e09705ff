"""Models on disk: one format, written whole, read as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from command import localgd
from export.models import KINDS, model_of, raw
from localgd import LocalGDClassifier, LocalGDRegressor, Model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_read_as_it_was_saved(kind, tmp_path):
    model = model_of(kind, text=True)
    model.save(tmp_path / "model.json")
    again = Model.load(tmp_path / "model.json")
    assert again.to_dict() == model.to_dict()
    assert again.scores(raw(text=True)).tolist() == model.scores(raw(text=True)).tolist()


def test_a_file_is_replaced_and_a_folder_or_another_format_refused(tmp_path):
    Model(np.ones(2)).save(tmp_path / "model.json")
    Model(np.ones(3)).save(str(tmp_path / "model.json"))
    assert Model.load(str(tmp_path)).coef.size == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    for wrong in (tmp_path, tmp_path / "model.npz"):
        with pytest.raises(ValueError, match="must name a JSON file"):
            Model(np.ones(2)).save(wrong)
    for classes in (None, model_of("two").classes[::-1]):
        with pytest.raises(ValueError, match=r"and its recipe .* give it those of its recipe"):
            replace(model_of("two"), classes=classes).save(tmp_path / "odd.json")
    assert not (tmp_path / "odd.json").exists()
    for function in (Model.load, Model(np.ones(2)).save):
        with pytest.raises(TypeError, match="path must be a path"):
            function(3)


def fitted(estimator, y):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(90, 3)), columns=list("abc"))
    return X, estimator.fit(X, y(X["a"] + rng.normal(size=90)), groups=np.arange(90) % 3)


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        (LocalGDClassifier(C=1.0), lambda s: np.where(s > 0, "ill", "well")),
        (LocalGDClassifier(C=1.0, calibration="sigmoid", random_state=0), lambda s: s > 0),
        (LocalGDClassifier(C=1.0, fit_intercept=False), lambda s: np.digitize(s, [-1, 1])),
        (LocalGDClassifier(C=1.0, multi_class="ovr"), lambda s: np.digitize(s, [-1, 1])),
        (LocalGDRegressor(), lambda s: s),
    ],
)
def test_an_estimators_model_goes_to_a_file_and_predicts_from_there(estimator, y, tmp_path):
    X, estimator = fitted(estimator, y)
    estimator.model_.save(tmp_path / "model.json")
    model = Model.load(tmp_path / "model.json")
    np.testing.assert_allclose(model.decision_function(X), estimator_scores(estimator, X), rtol=1e-12, atol=1e-12)
    X.to_csv(tmp_path / "new.csv", index=False)
    labels = json.loads(localgd("predict", tmp_path / "model.json", tmp_path / "new.csv", "--json").stdout)
    np.testing.assert_array_equal(np.array(labels), np.array(estimator.model_.predict(X)))
    if hasattr(estimator, "predict_proba"):
        assert labels == estimator.predict(X).tolist()
        np.testing.assert_allclose(model.predict_proba(X), estimator.predict_proba(X), rtol=1e-12)


def estimator_scores(estimator, X):
    return estimator.decision_function(X) if hasattr(estimator, "decision_function") else estimator.predict(X)


def test_an_estimators_model_refuses_what_is_missing_as_the_estimator_does():
    X, estimator = fitted(LocalGDClassifier(C=1.0), lambda s: s > 0)
    X.loc[4, "b"] = np.nan
    with pytest.raises(ValueError, match="row 5: column 'b' holds nothing"):
        estimator.model_.predict(X)
