"""A linear model as it is kept: coefficients, classes, and how rows are prepared for it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localgd.data.encodings import Unseen
from localgd.data.recipe import Recipe
from localgd.data.spelling import listed
from localgd.data.table import Table
from localgd.rounding import FloatArray, frozen


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model, and how rows are prepared for it.

    The class of x is the sign of x·coef + intercept, or for C >= 3 classes the one for which that is largest. A model
    without classes predicts x·coef + intercept itself.

    Parameters
    ----------
    coef : (d,) or (C, d) float64 array
        One coefficient per prepared column, the bias excluded; for C >= 3 classes one row per class.
    intercept : float or (C,) float64 array
        0 if none was fitted.
    classes : tuple
        The labels; of two, the second is the positive side. Empty if it predicts numbers, None if not known (a model
        from elsewhere).
    recipe : Recipe or None
        The preparation; None for a model from elsewhere.
    names : tuple of str or None
        Columns that the coefficients belong to, if a model from elsewhere says so.

    Examples
    --------
    >>> Model.from_vector(np.array([1.0, 2.0, 0.5]), fit_intercept=True).intercept
    0.5
    """

    coef: FloatArray
    intercept: float | FloatArray = 0.0
    classes: tuple[Any, ...] | None = None
    recipe: Recipe | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def from_vector(
        cls,
        w: FloatArray,
        *,
        fit_intercept: bool,
        classes: tuple[Any, ...] | None = None,
        recipe: Recipe | None = None,
    ) -> Model:
        """Return the model of a vector whose last entry (of each part, for C >= 3 classes) is the bias if fitted."""
        if classes is not None and len(classes) > 2:
            each = frozen(w).reshape(len(classes), -1)
            last = each.shape[1] - fit_intercept
            return cls(each[:, :last], each[:, last] if fit_intercept else np.zeros(len(classes)), classes, recipe)
        if fit_intercept:
            return cls(frozen(w[:-1]), float(w[-1]), classes, recipe)
        return cls(frozen(w), 0.0, classes, recipe)

    def aligned(self, recipe: Recipe, source: str) -> FloatArray:
        """Return the model as a vector for rows prepared by `recipe`: columns in its order, positive for its class.

        For C >= 3 classes it is W.ravel(), in the order of its classes, less the mean over the classes: what all share
        changes no prediction and no margin, but would make the model look longer than it is.

        Raises
        ------
        ValueError
            If columns or classes do not match.
        """
        names = recipe.feature_names[: len(recipe.feature_names) - recipe.intercept]
        width = self.coef.shape[-1]
        if width != len(names):
            few = ", ".join(names[:5])
            raise ValueError(f"{source} has {width} coefficients, but the rows have {len(names)} ({few}, …)")
        coef, intercept = np.asarray(self.coef), self.intercept
        if self.names is not None and self.names != names:
            strange = sorted(set(self.names) - set(names))
            if strange or len(set(self.names)) != len(names):
                raise ValueError(
                    f"{source}: feature_names {strange[:5]} are not among the rows' ({', '.join(names[:5])}, …)"
                )
            coef = coef[..., [self.names.index(name) for name in names]]
        if coef.ndim == 2 or len(recipe.classes) > 2:
            return self._of_many(coef, recipe, source)
        if self.classes is not None and self.classes != recipe.classes:
            if self.classes != recipe.classes[::-1]:
                raise ValueError(f"{source} has classes {list(self.classes)}, but the rows have {list(recipe.classes)}")
            coef, intercept = -coef, -intercept
        return np.append(coef, intercept) if recipe.intercept else coef

    def _of_many(self, coef: FloatArray, recipe: Recipe, source: str) -> FloatArray:
        known, n_given = recipe.classes if self.classes is None else self.classes, len(np.atleast_2d(coef))
        if n_given != len(recipe.classes) or set(known) != set(recipe.classes):
            raise ValueError(
                f"{source} has {n_given} row{'s' * (n_given > 1)} of coefficients for classes {listed(known)}, but the "
                f"rows have {len(recipe.classes)} classes, {listed(recipe.classes)}"
            )
        each = np.column_stack([coef, self.intercept]) if recipe.intercept else coef
        each = each[[known.index(value) for value in recipe.classes]]
        return np.asarray((each - each.mean(axis=0)).ravel())

    def predict(self, table: Table, *, unseen: Unseen | None = None) -> list[Any]:
        """Return the predicted label, or number, of every row.

        Raises
        ------
        ValueError
            If the model brings no preparation, a column is missing, or a category was never seen in training.
        """
        if self.classes != () and not (self.coef.any() or np.any(self.intercept)):
            raise ValueError("this model is 0 in every entry: its run never found one (see its certificate.json)")
        if self.recipe is None or self.classes is None:
            raise ValueError("this model says nothing of columns and classes; only a run's own model.json can predict")
        rows = self.recipe.matrix(table, unseen=unseen)
        w = self.aligned(self.recipe, "this model")
        if len(self.recipe.classes) > 2:
            largest = np.asarray(rows @ w.reshape(len(self.recipe.classes), -1).T).argmax(axis=1)
            return [self.recipe.classes[at] for at in largest]
        if not self.classes:
            return [float(score) for score in np.asarray(rows @ w)]
        return [self.classes[int(score > 0)] for score in np.asarray(rows @ w)]

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of ``model.json``."""
        return {
            "coef": self.coef.tolist(),
            "intercept": np.asarray(self.intercept, dtype=np.float64).tolist(),
            "classes": None if self.classes is None else list(self.classes),
            "feature_names": None if self.recipe is None else list(self.recipe.feature_names[: self.coef.shape[-1]]),
            "scaling": None if self.recipe is None else self.recipe.to_dict(),
        }


def read_model(path: Path) -> Model:
    """Read a model: a run folder, its ``model.json``, or any JSON or NPZ with ``coef`` and ``intercept``.

    Raises
    ------
    ValueError
        If the file cannot be read or holds no finite coefficients; it names the file and the remedy.
    """
    path = path / "model.json" if path.is_dir() else path
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                entries: dict[str, Any] = {name: held[name] for name in held.files}
        else:
            entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such model file; give a run folder, a model.json or an .npz with coef") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable model ({error}); expected JSON or NPZ with coef, intercept"
        ) from error
    if not isinstance(entries, dict) or "coef" not in entries:
        raise ValueError(f"{path} has no 'coef'; expected JSON or NPZ with coef (d numbers) and intercept (one number)")
    coef, intercept = _coefficients(entries, path)
    classes = entries.get("classes")
    recipe = Recipe.from_dict(entries["scaling"]) if entries.get("scaling") else None
    known = None if classes is None else tuple(np.asarray(classes).tolist())
    names = entries.get("feature_names")
    named = None if names is None else tuple(str(name) for name in np.asarray(names).ravel())
    return Model(coef, intercept, known, recipe, named)


def _coefficients(entries: Mapping[str, Any], path: Path) -> tuple[FloatArray, float | FloatArray]:
    """Return ``coef`` and ``intercept`` of a file: (d,) and a number for two classes, (C, d) and (C,) for more."""
    try:
        coef = np.asarray(entries["coef"], dtype=np.float64)
        given = entries.get("intercept")
        intercept = np.asarray(0.0 if given is None or np.size(given) == 0 else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: coef and intercept must be numbers ({error})") from error
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise ValueError(f"{path}: coef and intercept must be finite")
    # scikit-learn writes coef_ as (1, d) and intercept_ as (1,) for two classes
    if coef.size == max(coef.shape, default=0) and intercept.size == 1:
        return frozen(coef.ravel()), float(intercept.ravel()[0])
    if coef.ndim != 2 or len(coef) < 3 or intercept.size not in {1, len(coef)}:
        raise ValueError(
            f"{path}: coef has shape {coef.shape} and intercept {intercept.shape}; expected one row of coefficients "
            "and a number for two classes (that of the second less that of the first), or one of each per class"
        )
    return frozen(coef), frozen(np.broadcast_to(intercept.ravel(), len(coef)))
