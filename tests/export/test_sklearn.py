"""A model as a pipeline of scikit-learn: the same labels, scores and probabilities of the same raw rows."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

from export.models import KINDS, model_of, raw
from localgd import InProcess, LocalGDClassifier, Model, Regularised, auto, from_arrays, prepare, train


def as_pandas(frame):
    return pd.DataFrame(frame.to_dict(as_series=False))


def same(model, fitted, frame, given=None):
    given = frame if given is None else given
    if not model.classes:
        np.testing.assert_allclose(fitted.predict(given), model.predict(frame), atol=1e-9)
    else:
        assert fitted.predict(given).tolist() == model.predict(frame)
        np.testing.assert_allclose(fitted.decision_function(given), model.decision_function(frame), atol=1e-9)
    if model.probabilities is not None:
        np.testing.assert_allclose(fitted.predict_proba(given), model.predict_proba(frame), atol=1e-12)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_model_says_of_frames_of_either_kind(kind, text):
    model, frame = model_of(kind, text=text), raw(text=text)
    fitted = model.to_sklearn()
    same(model, fitted, frame)
    same(model, fitted, frame, as_pandas(frame))
    reordered = as_pandas(frame).assign(more=1)[["more", *reversed(frame.columns)]]
    same(model, fitted, frame, reordered)


@pytest.mark.parametrize("missing", ["category", "zeros", "most-frequent"])
@pytest.mark.parametrize("scale", ["standard", None])
def test_missing_values_count_as_in_training(missing, scale):
    model = model_of("two", missing=missing, scale=scale)
    gaps = pl.DataFrame(
        {"age": [None, 50.0], "marker": [5.0, None], "smoker": [None, " "], "ward": ["1", "2"]}, strict=False
    )
    same(model, model.to_sklearn(), gaps)
    same(model, model.to_sklearn(), gaps, as_pandas(gaps).replace({None: np.nan}))


def test_categories_are_known_in_other_spellings_and_types():
    model = model_of("two")
    frame = raw().head(4).with_columns(smoker=pl.Series(["YES", " no ", "Former", "yes"]), ward=pl.Series([1, 2, 3, 1]))
    same(model, model.to_sklearn(), frame)
    same(model, model.to_sklearn(), frame, as_pandas(frame).assign(ward=[1.0, 2.0, 3.0, 1.0]))


def test_categories_that_differ_in_case_alone_stay_apart():
    frame = pl.DataFrame({"gene": ["A", "a", "None", "A", "a", "None"]})
    mapping = {"gene": {"A": "A", "a": "a"}}
    tables = from_arrays(frame, [0, 1, 0, 0, 1, 1], list("mnmnmn"))
    engine, recipe = prepare(InProcess(tables), category_map=mapping)
    model = train(engine, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)
    same(model, model.to_sklearn(), frame, as_pandas(frame))


def test_unknown_categories_are_an_error_or_zeros_as_for_the_model():
    strange = raw().head(2).with_columns(smoker=pl.Series(["never", "yes"]))
    with pytest.raises(ValueError, match="unknown categories"):
        model_of("two").to_sklearn().predict(strange)
    model = model_of("two", unseen="zeros")
    same(model, model.to_sklearn(), strange)
    unseen = raw().head(2).with_columns(ward=pl.Series([None, "1"]))  # training met no gap here
    with pytest.raises(ValueError, match="unseen in training"):
        model_of("two").predict(unseen)
    with pytest.raises(ValueError, match="unknown categories"):
        model_of("two").to_sklearn().predict(unseen)
    same(model, model.to_sklearn(), unseen)


@pytest.mark.parametrize("labels", [[False, True], [3, 5], ["b", "a"], [2, 10, 1], ["x", "10", "9"]])
def test_arrays_go_by_place_and_labels_keep_their_type(labels):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = [labels[place] for place in (X[:, :1] > np.linspace(-0.5, 0.5, len(labels) - 1)).sum(axis=1)]
    model = LocalGDClassifier(C=1.0, calibration="sigmoid", random_state=0).fit(X, y).model_
    fitted = model.to_sklearn()
    same(model, fitted, X)
    X[0, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(X)


def test_sparse_rows_stay_sparse():
    from scipy.sparse import random_array

    X = random_array((50, 30), density=0.1, format="csr", rng=np.random.default_rng(1))
    engine, recipe = prepare(InProcess(from_arrays(X, np.arange(50) % 2, np.arange(50) % 3)), scale="standard")
    model = train(engine, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)
    fitted = model.to_sklearn()
    same(model, fitted, X)
    assert fitted["prepare"].transform(X).format == "csr"


def test_it_is_unpickled_where_there_is_no_localgd(tmp_path):
    model, frame = model_of("many", text=True), raw(text=True).head(5)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model.to_sklearn()))
    as_pandas(frame).to_pickle(tmp_path / "rows.pkl")
    program = """
import pickle, sys
sys.modules["localgd"] = None
with open("model.pkl", "rb") as model, open("rows.pkl", "rb") as rows:
    print(pickle.load(model).predict(pickle.load(rows)).tolist())
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{model.predict(frame)}"


def test_a_model_from_elsewhere_is_refused():
    with pytest.raises(ValueError, match="says nothing of columns and classes"):
        Model(np.ones(2)).to_sklearn()
