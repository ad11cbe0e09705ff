"""Run folders: what a run leaves on disk, written whole or not at all.

RUN/config.json        method, data, seed, versions: how to do it again
    history.csv        one row per round (`localgd.train.Row`)
    model.json         coefficients, intercept, classes, feature names, preparation
    certificate.json   what is proved about the model
    convergence.png    margin bounds and certified angle against rounds (written by `localgd.report.plots`)
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from localgd.core import frozen
from localgd.data.recipe import Recipe, Unseen, listed
from localgd.data.table import Table
from localgd.history import Row, Run
from localgd.rounding import FloatArray

FILES = ("config.json", "history.csv", "model.json", "certificate.json")
FIGURE = "convergence.png"


@dataclass(frozen=True, eq=False)
class Model:
    """A linear classifier, and how rows are prepared for it.

    The class of x is the sign of x·coef + intercept, or for C >= 3 classes the one for which that is largest.

    Parameters
    ----------
    coef : (d,) or (C, d) float64 array
        One coefficient per prepared column, the bias excluded; for C >= 3 classes one row per class.
    intercept : float or (C,) float64 array
        0 if none was fitted.
    classes : tuple
        The labels; of two, the second is the positive side. None if not known (a model from elsewhere).
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

    def predict(self, table: Table, *, unseen: Unseen = "error") -> list[Any]:
        """Return the predicted label of every row.

        Raises
        ------
        ValueError
            If the model brings no preparation, a column is missing, or a category was never seen in training.
        """
        if not (self.coef.any() or np.any(self.intercept)):
            raise ValueError("this model is 0 in every entry: its run never found one (see its certificate.json)")
        if self.recipe is None or self.classes is None:
            raise ValueError("this model says nothing of columns and classes; only a run's own model.json can predict")
        rows = self.recipe.matrix(table, unseen=unseen)
        w = self.aligned(self.recipe, "this model")
        if len(self.recipe.classes) > 2:
            largest = np.asarray(rows @ w.reshape(len(self.recipe.classes), -1).T).argmax(axis=1)
            return [self.recipe.classes[at] for at in largest]
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


def write(
    folder: Path,
    run: Run,
    model: Model,
    config: Mapping[str, Any],
    *,
    draw: Callable[[Mapping[str, list[Any]], Path], None] | None = None,
    force: bool = False,
) -> None:
    """Write a run folder: all files into a hidden neighbour first, which then takes the name in one step.

    Parameters
    ----------
    folder : Path
        Where to; its parent must exist.
    run, model, config
        What to write.
    draw : callable, optional
        Draws ``convergence.png`` from the history's columns.
    force : bool
        Replace a run folder that is there already.

    Raises
    ------
    FileExistsError
        If the folder is there and `force` is off, or it is no run folder.
    OSError
        If the disk is full or not writable; the old folder, if any, is untouched.
    """
    check_free(folder, force=force)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_json(fresh / "config.json", {**config, "method": _described(run)})
        pl.DataFrame(run.columns()).write_csv(fresh / "history.csv")
        _write_json(fresh / "model.json", model.to_dict())
        _write_json(fresh / "certificate.json", run.certificate.to_dict())
        if draw is not None:
            draw(run.columns(), fresh / FIGURE)
        fresh.chmod(0o755)  # mkdtemp makes private folders
        _swap(fresh, folder, force=force)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that must not be written, before any work is done.

    Raises
    ------
    FileExistsError
        If the folder is there and `force` is off, or it is there and is no run folder.
    FileNotFoundError
        If the folder it is to be made in is not there.
    """
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"--out {folder}: the folder {folder.parent} does not exist; make it first")
    if not os.access(folder.parent, os.W_OK):
        raise PermissionError(f"--out {folder}: no permission to write in {folder.parent}")
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise FileExistsError(f"--out {folder} exists already; choose another name, or replace it with --force")
    if not folder.is_dir() or folder.is_symlink() or not all((folder / name).is_file() for name in FILES):
        raise FileExistsError(
            f"--out {folder} is not a run folder, so --force will not replace it; choose another name"
        )
    strange = {path.name for path in folder.iterdir()} - {*FILES, FIGURE}
    if strange:
        raise FileExistsError(
            f"--out {folder} also holds {min(strange)}, which --force would delete; move it away first"
        )


def _swap(fresh: Path, folder: Path, *, force: bool) -> None:
    if not (force and folder.exists()):
        fresh.rename(folder)  # refused by the system if another run took the name meanwhile
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    try:
        fresh.rename(folder)
    except OSError:
        (old / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, entries: Mapping[str, Any]) -> None:
    # no NaN or Infinity: other languages' JSON readers refuse them
    path.write_text(json.dumps(entries, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _described(run: Run) -> dict[str, Any]:
    """Return the method as data: a rule is its own configuration."""

    def plain(value: Any) -> Any:
        return (
            {"rule": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
            if hasattr(value, "__dataclass_fields__")
            else repr(value)  # JSON knows no infinity
            if isinstance(value, float) and not math.isfinite(value)
            else value
        )

    method = run.method
    return {"name": method.name, "why": method.why, "task": plain(method.task), "merge": plain(method.merge)}


def read_history(folder: Path) -> tuple[Row, ...]:
    """Return the history of a run folder."""
    frame = pl.read_csv(folder / "history.csv")
    return tuple(Row(**row) for row in frame.iter_rows(named=True))


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
