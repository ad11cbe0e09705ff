"""A model as a graph of ONNX: what onnxruntime says of raw rows is what the model says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from export.models import KINDS, model_of, raw
from localgd import LocalGDClassifier, Model

pytest.importorskip("onnx", reason="localgd[onnx] is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def answered(model, frame, path):
    """What the runtime says of rows, by the names of what comes out."""
    model.to_onnx(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if isinstance(frame, np.ndarray):
        given = {"X": frame}
    else:
        given = {
            name: np.array([["" if v is None else v] for v in frame[name]], dtype=object)
            if frame[name].dtype == pl.String
            else frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()[:, None]
            for name in frame.columns
        }
    return dict(zip([out.name for out in session.get_outputs()], session.run(None, given), strict=True))


def same(model, frame, path):
    found = answered(model, frame, path)
    if not model.classes:
        np.testing.assert_allclose(found["prediction"], model.predict(frame), atol=1e-9)
        return
    assert found["label"].tolist() == model.predict(frame)
    np.testing.assert_allclose(found["score"], model.decision_function(frame), atol=1e-9)
    assert ("probabilities" in found) == (model.probabilities is not None)
    if model.probabilities is not None:
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(frame), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_model_says(kind, tmp_path):
    same(model_of(kind), raw(), tmp_path / "model.onnx")


@pytest.mark.parametrize("missing", ["category", "zeros", "most-frequent"])
def test_missing_values_and_spellings_count_as_in_training(missing, tmp_path):
    frame = raw().head(4).with_columns(smoker=pl.Series([None, "YES", "Former", "no"]), age=pl.Series([None, 1, 2, 3]))
    same(model_of("two", missing=missing, scale=None), frame, tmp_path / "model.onnx")


def test_unknown_categories_are_refused_or_zeros_as_for_the_model(tmp_path):
    strange = raw().head(2).with_columns(smoker=pl.Series(["never", "yes"]))
    with pytest.raises(Exception, match="smoker, unseen in training"):
        answered(model_of("two"), strange, tmp_path / "model.onnx")
    same(model_of("two", unseen="zeros"), strange, tmp_path / "model.onnx")


@pytest.mark.parametrize("labels", [[False, True], [3, 5], [0.5, 1.0], ["b", "a"], [2, 10, 1]])
def test_arrays_are_one_input_and_labels_keep_their_type(labels, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    codes = (X[:, :1] > np.linspace(-0.5, 0.5, len(labels) - 1)).sum(axis=1)
    names = tuple(sorted(labels))
    fitted = LocalGDClassifier(C=1.0).fit(X, codes).model_
    recipe = type(fitted.recipe)(fitted.recipe.columns, names, True, False)
    same(Model(fitted.coef, fitted.intercept, names, recipe, None, fitted.probabilities), X, tmp_path / "model.onnx")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_without_a_score_are_refused(n_classes, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = LocalGDClassifier(C=1.0).fit(X, np.arange(60) % n_classes).model_
    X[3, 1] = np.nan
    with pytest.raises(Exception, match=r"label(.|\n)*out of data bounds"):
        answered(model, X, tmp_path / "model.onnx")


def test_what_has_no_place_in_a_graph_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="column 'note' is a text"):
        model_of("two", text=True).to_onnx(tmp_path / "model.onnx")
    model = LocalGDClassifier(C=1.0).fit(pd.DataFrame({"score": [1.0, 2.0], "b": [0.0, 1.0]}), [0, 1]).model_
    with pytest.raises(ValueError, match="column 'score' has the name of what comes out"):
        model.to_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
