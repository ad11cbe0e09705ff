"""A model as a fitted pipeline of scikit-learn. Nothing in it is of this library, so it is unpickled without."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from localgd.data.encodings import Category, Number, Words
from localgd.data.export.levels import levels, positional
from localgd.data.probabilities import Probabilities
from localgd.errors import extra
from localgd.rounding import FloatArray

if TYPE_CHECKING:
    from localgd.data.model import Model


def pipeline(model: Model) -> Any:
    """Return a fitted Pipeline of a preparation and a linear model: see `Model.to_sklearn`."""
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415  heavy, and only whoever asks needs it
    from sklearn.pipeline import Pipeline  # noqa: PLC0415

    recipe, coef = model.preparation, np.atleast_2d(model.coef)
    if positional(recipe):
        whole = _numbers(recipe.columns, sparse=recipe.sparse)
        whole.fit(np.array([[_example(column) for column in recipe.columns]]))
        _set(whole, recipe.columns)
        return Pipeline([("prepare", whole), ("model", _linear(model, coef))])
    starts = np.cumsum([0, *(len(column.feature_names) for column in recipe.columns)])
    numbers = [(place, column) for place, column in enumerate(recipe.columns) if isinstance(column, Number)]
    names = [column.name for _, column in numbers]
    parts: list[tuple[str, Any, Any]] = []
    if numbers:
        parts.append(("numbers", _numbers([column for _, column in numbers], sparse=recipe.sparse), names))
    blocks = [coef[:, [starts[place] for place, _ in numbers]]]
    for start, column in zip(starts, recipe.columns, strict=False):
        if isinstance(column, Category):
            encoder, chosen = _category(column, recipe.unseen)
            wide = np.hstack([coef[:, start : start + len(column.levels)], np.zeros((len(coef), 1))])
            parts.append((_called(column), encoder, [column.name]))
            blocks.append(wide[:, chosen])
        elif isinstance(column, Words):
            parts.append((_called(column), _words(column), [column.name]))
            blocks.append(coef[:, start : start + len(column.vocabulary)])
    prepare = ColumnTransformer(parts, sparse_threshold=1.0 if recipe.sparse else 0.0)
    prepare.fit(pl.DataFrame({column.name: [_example(column)] for column in recipe.columns}))
    fitted = prepare.named_transformers_
    if numbers:
        _set(fitted["numbers"], [column for _, column in numbers])
    for column in recipe.columns:
        if isinstance(column, Words):
            fitted[_called(column)][-1].idf_ = np.array(column.idf)
    return Pipeline([("prepare", prepare), ("model", _linear(model, np.hstack(blocks)))])


def write_skops(model: Model, path: Path) -> None:
    """Write the pipeline as a file of skops, which can be read without running what is in it."""
    with extra("skops", "skops"):
        import skops  # noqa: PLC0415  a module in it would not say that it is all of it that is missing
        import skops.io  # noqa: PLC0415

    skops.io.dump(pipeline(model), path)


def _numbers(numbers: Sequence[Any], *, sparse: bool) -> Any:
    """Return what fills, centers and scales numbers; the row that it is fitted on holds what fills them."""
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.pipeline import Pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    refuses = any(number.fill is None for number in numbers)
    centered = any(number.center for number in numbers) or not sparse
    steps = [] if refuses else [("fill", SimpleImputer())]
    return Pipeline([*steps, ("scale", StandardScaler(with_mean=centered))])


def _texts() -> list[tuple[str, Any]]:
    """Return the steps after which every value is a text, and a missing one blank."""
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.preprocessing import FunctionTransformer  # noqa: PLC0415

    def blank(missing: Any) -> Any:
        return SimpleImputer(strategy="constant", fill_value="", missing_values=missing)

    objects, texts = (FunctionTransformer(partial(np.asarray, dtype=dtype)) for dtype in ("O", "U"))
    return [("objects", objects), ("nan", blank(np.nan)), ("none", blank(None)), ("texts", texts)]


def _category(column: Category, unseen: str) -> tuple[Any, list[int]]:
    """Return the encoder of a column, one place for every text that it knows, and the level that each counts as."""
    from sklearn.pipeline import Pipeline  # noqa: PLC0415
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder  # noqa: PLC0415

    nothing = len(column.levels)
    known = {text: nothing if place is None else place for text, place in levels(column).items()}
    folded = {text.lower(): place for text, place in known.items()}
    steps = [("strip", FunctionTransformer(np.char.strip))]
    if all(folded[text.lower()] == place for text, place in known.items()):  # no two differ in case alone
        known = folded
        steps.append(("lower", FunctionTransformer(np.char.lower)))
    handle = "error" if unseen == "error" else "ignore"
    encoder = OneHotEncoder(categories=[sorted(known)], handle_unknown=handle)
    return Pipeline([*_texts(), *steps, ("encode", encoder)]), [known[text] for text in sorted(known)]


def _words(column: Words) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
    from sklearn.pipeline import Pipeline  # noqa: PLC0415
    from sklearn.preprocessing import FunctionTransformer  # noqa: PLC0415

    words = TfidfVectorizer(
        vocabulary=list(column.vocabulary), strip_accents=partial(unicodedata.normalize, "NFC"), dtype=np.float64
    )
    return Pipeline([*_texts(), ("flat", FunctionTransformer(np.ravel)), ("weigh", words)])


def _example(column: Number | Category | Words) -> Any:
    """Return a value that a column may hold, to fit what takes it."""
    match column:
        case Number():
            return 0.0 if column.fill is None else column.fill
        case Category():
            return column.categories[0] if column.categories else ""
    return column.vocabulary[0] if column.vocabulary else ""


def _called(column: Category | Words) -> str:
    """Return the name of a column's step, in which scikit-learn bears no two underscores next to each other."""
    name = column.name.replace("__", "_ _")
    return f"{'category' if isinstance(column, Category) else 'text'} {name}"


def _set(fitted: Any, numbers: Sequence[Any]) -> None:
    """Give what was fitted on one row the centers and scales of training."""
    scaler = fitted[-1]
    scaler.scale_ = np.array([number.scale for number in numbers])
    scaler.var_ = scaler.scale_**2
    if scaler.with_mean:
        scaler.mean_ = np.array([number.center for number in numbers])


def _linear(model: Model, coef: FloatArray) -> Any:
    """Return the linear model that scores, and says of probabilities, what the model does."""
    from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: PLC0415
    from sklearn.multiclass import OneVsRestClassifier  # noqa: PLC0415
    from sklearn.preprocessing import LabelBinarizer  # noqa: PLC0415
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    intercept, likely = np.atleast_1d(np.asarray(model.intercept, dtype=np.float64)), model.probabilities
    if not model.classes:
        return _with(LinearRegression(), coef_=coef[0], intercept_=float(intercept[0]))
    classes = np.array(model.classes)
    if classes.tolist() != list(model.classes):  # texts and numbers
        classes = np.array(model.classes, dtype=object)
    if likely is None:
        return _with(LinearSVC(), coef_=coef, intercept_=intercept, classes_=classes, n_iter_=0)
    slope, offset = _sigmoids(likely, len(coef))
    coef, intercept = slope[:, None] * coef, slope * intercept + offset
    if not likely.slope or len(coef) == 1:
        return _with(LogisticRegression(), coef_=coef, intercept_=intercept, classes_=classes, n_iter_=np.zeros(1, int))
    ones = {"classes_": np.array([0, 1]), "n_iter_": np.zeros(1, int)}
    each = [
        _with(LogisticRegression(), coef_=part[None], intercept_=bias[None], **ones)
        for part, bias in zip(coef, intercept, strict=True)
    ]
    together = OneVsRestClassifier(LogisticRegression())
    together.estimators_, together.classes_, together.n_features_in_ = each, classes, coef.shape[1]
    together.label_binarizer_ = LabelBinarizer().fit(np.arange(len(classes)))  # it says that a row is of one class
    return together


def _sigmoids(likely: Probabilities, n_parts: int) -> tuple[FloatArray, FloatArray]:
    """Return slope and offset of every part of the model; 1 and 0 if its scores are log-odds as they are."""
    if not likely.slope:
        return np.ones(n_parts), np.zeros(n_parts)
    return np.array(likely.slope), np.array(likely.offset)


def _with(estimator: Any, **fitted: Any) -> Any:
    """Return an estimator with what a fit would have left."""
    for name, value in fitted.items():
        setattr(estimator, name, value)
    estimator.n_features_in_ = np.atleast_2d(fitted["coef_"]).shape[1]
    return estimator
