"""A model and rows as what nodes are asked about."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from localgd.core import Engine, Message
from localgd.data.spelling import listed
from localgd.errors import check_kind
from localgd.evaluation.scored import ODDS
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray
from localgd.rules.probes import measured

if TYPE_CHECKING:
    from localgd.data.model import Model


def check_model(model: Any, engine: Any) -> None:
    """Refuse what is no model, or no federation."""
    check_kind("model", model, "aligned", "a Model, such as run.model(recipe) or Model.load(path)")
    check_kind("engine", engine, "round", "an engine such as InProcess(tables)")


def placed(model: Model, engine: Engine) -> tuple[Engine, FloatArray, DataSizes]:
    """Return the federation of rows with a bias column, the model as a vector for them, and their sizes."""
    if model.recipe is None:
        columns = np.column_stack([np.atleast_2d(model.coef), np.atleast_1d(model.intercept)])
        federation, w = engine, columns.ravel()
    else:
        recipe = replace(model.recipe.unweighted, intercept=True)  # a bias says which class a row is of
        federation, w = engine.map(recipe), model.aligned(recipe, "this model")
    sizes = measured(federation, w.size, zeros=True)
    sizes.check(w)
    return federation, w, sizes


def question(model: Model, engine: Engine) -> tuple[Engine, Message, tuple[Any, ...]]:
    """Return the federation of rows with a bias column, the model as a message, and the classes."""
    federation, w, sizes = placed(model, engine)
    known = model.classes if model.recipe is None else model.recipe.classes
    classes = tuple(range(sizes.versus + 1)) if known is None else known
    if len(classes) != sizes.versus + 1:
        raise ValueError(
            f"the model has {len(classes)} classes, but the rows have {sizes.versus + 1}; give its own rows"
        )
    extra: dict[str, FloatArray] = {}
    if (likely := model.probabilities) is not None:
        if likely.slope and model.classes not in (None, classes):
            raise ValueError(f"the model's classes {listed(model.classes or ())} are not those of its recipe, in order")
        extra[ODDS] = np.column_stack([likely.slope, likely.offset]).reshape(-1, 2)
    return federation, Message(0, w, extra), classes
