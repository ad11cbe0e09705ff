"""Coefficients on the scale of the rows as given: what they say of a raw row is what the model says of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from command import localgd
from export.models import KINDS, model_of, raw
from localgd import Model, load
from localgd.data.table import Table


def scored(table, frame, idf=None):
    """What coefficients say of raw rows: Σ coefficient·x, where a category that holds counts as 1."""
    total = np.zeros(len(frame))
    for column, level, value in table.select("column", "level", "coefficient").iter_rows():
        if column == "(intercept)":
            total += value
        elif column == "note":
            total += value * idf[level]
        elif level is None:
            total += value * frame[column].fill_null(frame[column].mean()).to_numpy()
        else:
            total += value * (frame[column].fill_null("?") == level).to_numpy()
    return total


@pytest.mark.parametrize("scale", ["standard", None])
@pytest.mark.parametrize("kind", KINDS)
def test_they_score_raw_rows_as_the_model_does(kind, scale):
    model, frame = model_of(kind, scale=scale), raw()
    table = model.coefficients()
    parts = table.partition_by("class", maintain_order=True) if "class" in table.columns else [table]
    found = np.column_stack([scored(part, frame) for part in parts])
    scores = model.scores(Table("new", frame, np.zeros(0)))
    # a marker of 5 ± 1e-4 that is scaled has 1e4 times the coefficient, whose rounding its 5 then meets
    np.testing.assert_allclose(found.ravel(), scores.ravel(), atol=1e-9 if scale else 1e-12)
    if len(parts) > 1:
        assert [part["class"][0] for part in parts] == [str(name) for name in model.classes]


def test_words_of_a_text_count_by_their_tf_idf():
    model, frame = model_of("two", text=True), raw(text=True)
    texts = frame["note"].fill_null("").to_list()
    pooled = TfidfVectorizer().fit(texts)
    idf = dict(zip(pooled.get_feature_names_out(), pooled.transform(texts).toarray().T, strict=True))
    found = scored(model.coefficients(), frame, idf)
    np.testing.assert_allclose(found, model.scores(Table("new", frame, np.zeros(0))), atol=1e-9)


def test_per_standard_deviation_and_odds_are_what_they_say():
    table = model_of("two").coefficients()
    age = table.row(by_predicate=pl.col("column") == "age", named=True)
    filled = raw()["age"].fill_null(raw()["age"].mean()).to_numpy()
    assert age["per_sd"] == pytest.approx(age["coefficient"] * filled.std())
    with np.errstate(over="ignore"):  # of a marker that spreads by 1e-4
        np.testing.assert_allclose(table["odds_ratio"], np.exp(table["coefficient"].to_numpy()))
    assert table.filter(pl.col("level").is_not_null())["per_sd"].is_null().all()
    assert table.filter(pl.col("column") == "smoker")["level"].to_list() == ["former", "no", "yes", "?"]
    assert model_of("two", scale=None).coefficients()["per_sd"].is_null().all()


@pytest.mark.parametrize("kind", ["hard", "numbers", "calibrated of many"])
def test_scores_that_are_no_log_odds_have_no_odds_ratio(kind):
    assert "odds_ratio" not in model_of(kind).coefficients().columns


def test_of_a_calibrated_model_the_odds_are_those_of_its_sigmoid():
    table = model_of("calibrated").coefficients()
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(table["odds_ratio"], np.exp(0.7 * table["coefficient"].to_numpy()))


def test_a_model_from_elsewhere_has_its_own_names():
    assert Model(np.array([1.0, 2.0]), 0.5).coefficients()["column"].to_list() == ["(intercept)", "x0", "x1"]
    named = Model(np.ones((3, 2)), np.zeros(3), names=("a", "b")).coefficients()
    assert named["class"].to_list() == ["0"] * 3 + ["1"] * 3 + ["2"] * 3


def test_a_run_folder_holds_them(tmp_path):
    assert localgd("train", "heart", "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    written = pl.read_csv(tmp_path / "RUN" / "coefficients.csv")
    table = Model.load(tmp_path / "RUN").coefficients()
    assert written["coefficient"].to_list() == table["coefficient"].to_list()
    assert set(written["column"]) == {"(intercept)", *load("heart")[0].names}
