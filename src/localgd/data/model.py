"""A linear model as it is kept: coefficients, classes, and how rows are prepared for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localgd.data.encodings import Unseen
from localgd.data.model_file import parts_of
from localgd.data.probabilities import Probabilities, none_there
from localgd.data.recipe import Recipe
from localgd.data.spelling import listed
from localgd.errors import check_kind, plain
from localgd.rounding import FloatArray, frozen, real_array
from localgd.stored import write_json

if TYPE_CHECKING:
    import polars as pl


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
    probabilities : Probabilities or None
        How scores become probabilities; None if they mean none, as those of a max-margin model.

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
    probabilities: Probabilities | None = None

    def __post_init__(self) -> None:
        """Check once that each part is of its kind, and that coefficients and intercepts fit each other."""
        for name, kind, what in (
            ("classes", tuple, "a tuple of labels"),
            ("names", tuple, "a tuple of texts"),
            ("recipe", Recipe, "a Recipe, as prepare returns it,"),
            ("probabilities", Probabilities, "Probabilities(…)"),
        ):
            if getattr(self, name) is not None:
                check_kind(name, getattr(self, name), kind, f"{what} or None")
        coef, intercept = real_array("coef", self.coef), real_array("intercept", self.intercept)
        if coef.ndim not in (1, 2) or intercept.shape != coef.shape[:-1] or isinstance(self.intercept, bool):
            raise ValueError(
                f"coef of shape {coef.shape} needs an intercept of shape {coef.shape[:-1]}, a number each, got "
                f"{self.intercept!r}"
            )
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError(f"coef and intercept must be finite, got {self.coef!r:.200} and {self.intercept!r}")
        if self.names is not None and len(self.names) != coef.shape[-1]:
            raise ValueError(f"names has {len(self.names)} entries for {coef.shape[-1]} coefficients; give one each")
        object.__setattr__(self, "coef", coef)

    @classmethod
    def from_vector(
        cls,
        w: FloatArray,
        *,
        fit_intercept: bool,
        classes: tuple[Any, ...] | None = None,
        recipe: Recipe | None = None,
        probabilities: Probabilities | None = None,
    ) -> Model:
        """Return the model of a vector whose last entry (of each part, for C >= 3 classes) is the bias if fitted."""
        n_parts = len(classes) if classes is not None and len(classes) > 2 else 1
        each = frozen(w).reshape(n_parts, -1)
        last = each.shape[1] - fit_intercept
        coef, bias = each[:, :last], each[:, last] if fit_intercept else np.zeros(n_parts)
        if n_parts == 1:
            return cls(coef[0], float(bias[0]), classes, recipe, None, probabilities)
        return cls(coef, bias, classes, recipe, None, probabilities)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model: a run folder, its ``model.json``, or any JSON or NPZ with ``coef`` and ``intercept``.

        Parameters
        ----------
        path : str or Path
            The folder or the file.

        Returns
        -------
        Model
            Without a recipe if it comes from elsewhere.

        Raises
        ------
        ValueError
            If the file cannot be read or holds no model; it names the file and the remedy.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "model.json"
        ...     Model(np.array([1.0, 2.0]), 0.5, ("ill", "well")).save(path)
        ...     Model.load(path).classes
        ('ill', 'well')
        """
        check_kind("path", path, str | Path, "a path")
        parts = parts_of(Path(path))
        try:
            found = cls(**parts)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if found.recipe is not None:
            if found.classes != found.recipe.classes:
                raise ValueError(f"{path} is damaged: its classes are not those of its preparation")
            found.aligned(found.recipe, f"{path}")
        return found

    def save(self, path: str | Path) -> None:
        """Write the model as JSON, whole or not at all; a file that is there is replaced.

        What is written is what a run folder holds as ``model.json``: `load` reads it, and ``localgd predict``,
        ``evaluate`` and ``certify`` do.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        ValueError
            If it is a folder, its name says that it is of another format, or the classes are not the recipe's.
        """
        check_kind("path", path, str | Path, "a path")
        path = Path(path)
        if path.is_dir() or path.suffix == ".npz":
            raise ValueError(f"path={str(path)!r} must name a JSON file, such as model.json")
        if self.recipe is not None and self.classes != self.recipe.classes:
            own = f"classes={self.classes!r:.100}, and its recipe {self.recipe.classes!r:.100}"
            raise ValueError(f"the model has {own}, so no file of it could be read; give it those of its recipe")
        write_json(path, self.to_dict())

    def coefficients(self) -> pl.DataFrame:
        """Return the coefficients on the scale of the rows as given, one row each, the intercept first.

        The preparation is undone: Σ coefficient·x + intercept, a category counting as 1 where it holds, is the score.

        Returns
        -------
        polars DataFrame
            ``class`` (for C >= 3), ``column``, ``level`` (of a category, or a word of a text, whose x is its TF-IDF),
            ``coefficient``, ``per_sd`` (for one standard deviation of the training rows, where numbers were scaled),
            and, where scores are log-odds, ``odds_ratio``, e^coefficient (of a calibrated model e^(slope·coefficient)):
            how many times the odds are larger where x is larger by 1; of C >= 3 classes e^score, so that the ratio of
            two classes' is that of their odds; of C >= 3 calibrated ones there is none.

        Examples
        --------
        >>> from localgd.data.encodings import Number
        >>> recipe = Recipe((Number("age", 50.0, 50.0, 10.0),), ("ill", "well"), True, False)
        >>> Model(np.array([2.0]), 1.0, ("ill", "well"), recipe).coefficients().rows()
        [('(intercept)', None, -9.0, None), ('age', None, 0.2, 2.0)]
        """
        from localgd.data.export.coefficients import coefficients  # noqa: PLC0415  only whoever asks pays for it

        return coefficients(self)

    def to_sklearn(self) -> Any:
        """Return the model as a fitted pipeline of scikit-learn, which predicts what `predict` does from raw rows.

        Its steps are ``prepare``, a ColumnTransformer, and ``model``: a LogisticRegression where scores are log-odds or
        calibrated (one against the rest for C >= 3 calibrated classes), else a LinearSVC; of numbers a
        LinearRegression. It is pickled without anything of this library.

        Rows are a frame of pandas or polars with the columns of training, numbers as numbers; or an array, if training
        had one. Categories are recognised in the spellings that training met, and in other case or blanks. A category
        never seen is an error, or zeros, as for the model.

        Returns
        -------
        sklearn.pipeline.Pipeline

        Raises
        ------
        ValueError
            If the model brings no preparation.

        Examples
        --------
        >>> from localgd.data.encodings import Number
        >>> recipe = Recipe((Number("x0", 50.0, 50.0, 10.0),), ("ill", "well"), True, False)
        >>> Model(np.array([2.0]), 1.0, ("ill", "well"), recipe).to_sklearn().predict([[60.0], [40.0]]).tolist()
        ['well', 'ill']
        """
        from localgd.data.export.pipeline import pipeline  # noqa: PLC0415  only whoever asks pays for it

        return pipeline(self)

    def to_onnx(self, path: str | Path) -> None:
        """Write the model as a graph of ONNX in float64, from raw rows to labels; needs ``localgd[onnx]``.

        It has an input (n, 1) for each column, of doubles for numbers (NaN where missing) and of strings for categories
        ("" where missing); or, where training had an array, one input ``X`` (n, d). Out come ``label``, ``score`` and,
        if there are any, ``probabilities`` (n, C); of numbers ``prediction``. Categories are known in the spellings
        that training met, and in small and capital letters. For one never seen the runtime refuses the rows ("out of
        data bounds", and the column), or counts zeros, as the model does; it refuses rows without a score, too.

        Parameters
        ----------
        path : str or Path
            The file; replaced if it is there.

        Raises
        ------
        ValueError
            If the model brings no preparation, or has a column of text.
        MissingExtraError
            If onnx is not installed.
        """
        from localgd.data.export.graph import write_onnx  # noqa: PLC0415  only whoever asks pays for it

        check_kind("path", path, str | Path, "a path")
        write_onnx(self, Path(path))

    @property
    def balanced(self) -> Model:
        """The model less what C >= 3 classes share: that changes no margin, but makes it look longer than it is."""
        if self.coef.ndim == 1:
            return self
        intercept = np.asarray(self.intercept)
        return replace(self, coef=self.coef - self.coef.mean(axis=0), intercept=intercept - intercept.mean())

    def aligned(self, recipe: Recipe, source: str) -> FloatArray:
        """Return the model as a vector for rows prepared by `recipe`: columns in its order, positive for its class.

        For C >= 3 classes it is W.ravel(), in the order of the recipe's classes.

        Raises
        ------
        ValueError
            If columns or classes do not match.
        """
        names = recipe.feature_names[: len(recipe.feature_names) - recipe.intercept]
        width = self.coef.shape[-1]
        few = ", ".join(map(plain, names[:5]))
        if width != len(names):
            raise ValueError(f"{source} has {width} coefficients, but the rows have {len(names)} ({few}, …)")
        coef, intercept = np.asarray(self.coef), self.intercept
        if self.names is not None and self.names != names:
            strange = sorted(set(self.names) - set(names))
            if strange or len(set(self.names)) != len(names):
                raise ValueError(f"{source}: feature_names {strange[:5]} are not among the rows' ({few}, …)")
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
        return np.asarray(each.ravel())

    def scores(self, table: Any, *, unseen: Unseen | None = None) -> FloatArray:
        """Return x·coef + intercept of every row, (n,): positive for the second of two classes; (n, C) for C >= 3.

        Rows are raw ones, as `Recipe.matrix` takes them: a Table, a frame of polars or pandas, or an array.

        Raises
        ------
        ValueError
            If the model brings no preparation, a column is missing, or a category was never seen in training.
        """
        if self.classes != () and not (self.coef.any() or np.any(self.intercept)):
            raise ValueError("this model is 0 in every entry: its run never found one (see its certificate.json)")
        recipe = self.preparation
        w = self.aligned(recipe, "this model")
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            rows = recipe.matrix(table, unseen=unseen)
            scores = np.asarray(rows @ (w.reshape(len(recipe.classes), -1).T if len(recipe.classes) > 2 else w))
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))[0])
            raise ValueError(f"row {row + 1} has no finite score: its numbers are far too large for this model")
        return scores

    @property
    def preparation(self) -> Recipe:
        """The recipe; a ValueError of a model that has none, as it is from elsewhere."""
        if self.recipe is None or self.classes is None:
            raise ValueError("this model says nothing of columns and classes; only a run's own model.json can predict")
        return self.recipe

    def decision_function(self, table: Any, *, unseen: Unseen | None = None) -> FloatArray:
        """Return what rows are decided by: the log-odds of a calibrated model, the `scores` of any other."""
        scores = self.scores(table, unseen=unseen)
        return scores if self.probabilities is None else self.probabilities.log_odds(scores)

    def labels(self, scores: FloatArray) -> list[Any]:
        """Return the label, or the number, that each of these scores stands for."""
        classes = () if self.recipe is None else self.recipe.classes
        if not classes:
            return [float(score) for score in scores]
        if self.probabilities is not None:
            scores = self.probabilities.log_odds(scores)
        places = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        return [classes[place] for place in places]

    def predict(self, table: Any, *, unseen: Unseen | None = None) -> list[Any]:
        """Return the predicted label, or number, of every row; errors are those of `scores`."""
        return self.labels(self.scores(table, unseen=unseen))

    def predict_proba(self, table: Any, *, unseen: Unseen | None = None) -> FloatArray:
        """Return the probability of each class, (n, C), in the order of `classes`.

        Raises
        ------
        ValueError
            If the model has none, and as `scores`.
        """
        return self.likely.of(self.scores(table, unseen=unseen))

    def predict_log_proba(self, table: Any, *, unseen: Unseen | None = None) -> FloatArray:
        """Return the logarithms of `predict_proba`."""
        return self.likely.log_of(self.scores(table, unseen=unseen))

    @property
    def likely(self) -> Probabilities:
        """How scores become probabilities; a ValueError says what to do if there are none."""
        if self.classes == ():
            raise ValueError("this model predicts numbers, which have no probabilities; leave out what asks for them")
        if self.probabilities is None:
            raise ValueError(
                none_there(
                    "train with a penalty and the logistic loss (`localgd train --C 1`), or fit some on rows that "
                    "it has not seen (`localgd calibrate`)"
                )
            )
        return self.probabilities

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of ``model.json``."""
        return {
            "coef": self.coef.tolist(),
            "intercept": np.asarray(self.intercept, dtype=np.float64).tolist(),
            "classes": None if self.classes is None else list(self.classes),
            "feature_names": None if self.recipe is None else list(self.recipe.feature_names[: self.coef.shape[-1]]),
            "scaling": None if self.recipe is None else self.recipe.to_dict(),
            "probabilities": None if self.probabilities is None else self.probabilities.to_dict(),
        }
