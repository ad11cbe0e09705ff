"""What a model file says, checked part by part."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from localgd.data.probabilities import Probabilities
from localgd.data.recipe import Recipe
from localgd.errors import plain
from localgd.rounding import FloatArray, frozen
from localgd.stored import arrays_of, content_of, parsed


def parts_of(path: Path) -> dict[str, Any]:
    """Return the parts of the model in a run folder, a ``model.json``, or any JSON or NPZ with ``coef``.

    Raises
    ------
    ValueError
        If the file cannot be read, or a part is not what it has to be; names file, part and remedy.
    """
    path = path / "model.json" if path.is_dir() else path
    try:
        content = content_of(path)
    except FileNotFoundError:
        run = path.parent if path.name == "model.json" else path
        begun = run.parent / f"{run.name}.partial"
        if run.name and begun.is_dir():
            raise ValueError(
                f"{path}: no such model file, as the run is at work, or was cut short: {begun} is what there is of it; "
                f"`localgd resume {shlex.quote(str(run))}` goes on with it and writes the model"
            ) from None
        raise ValueError(f"{path}: no such model file; give a run folder, a model.json or an .npz with coef") from None
    try:
        entries = arrays_of(content, path) if path.suffix == ".npz" else parsed(content, path)
    except ValueError as error:
        raise ValueError(f"not a readable model: {error}; expected JSON or NPZ with coef, intercept") from error
    if not isinstance(entries, dict) or "coef" not in entries:
        raise ValueError(f"{path} has no 'coef'; expected JSON or NPZ with coef (d numbers) and intercept (one number)")
    try:
        return _parts(entries)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(plain(f"{path}: {why:.500}")) from error


def _parts(entries: Mapping[str, Any]) -> dict[str, Any]:
    coef, intercept = _coefficients(entries)
    names, scaling = entries.get("feature_names"), entries.get("scaling")
    return {
        "coef": coef,
        "intercept": intercept,
        "classes": _classes(entries.get("classes"), len(np.atleast_2d(coef))),
        "recipe": None if scaling is None else Recipe.from_dict(scaling),
        "names": None if names is None else tuple(map(str, _listed("feature_names", names))),
        "probabilities": _probabilities(entries.get("probabilities"), coef),
    }


def _listed(name: str, values: Any) -> list[Any]:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    plain_values = isinstance(listed, list) and all(isinstance(value, str | int | float) for value in listed)
    if not plain_values or len(set(listed)) < len(listed):
        raise ValueError(f"{name} must be a list of distinct texts or numbers, got {values!r:.100}")
    return listed  # type: ignore[no-any-return]


def _classes(values: Any, n_parts: int) -> tuple[Any, ...] | None:
    """Return the labels of a file: None if it says nothing of them, none if it predicts numbers."""
    if values is None:
        return None
    listed = _listed("classes", values)
    if len(listed) not in ({0, 2} if n_parts == 1 else {n_parts}) or not all(
        isinstance(value, str) or isfinite(value) for value in listed
    ):
        raise ValueError(f"classes are {listed!r:.100}, but coef has {n_parts} row{'s' * (n_parts > 1)}")
    return tuple(listed)


def _probabilities(given: Any, coef: FloatArray) -> Probabilities | None:
    """Return what a file says of probabilities."""
    if given is None:
        return None
    try:
        found = Probabilities.from_dict(given)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"probabilities must hold lists of numbers, slope and offset ({error})") from error
    if len(found.slope) not in {0, len(np.atleast_2d(coef))}:
        raise ValueError(f"probabilities have {len(found.slope)} slopes; give one per row of coef, or none")
    return found


def _numbers(name: str, values: Any) -> FloatArray:
    """Return an array of numbers; texts, which would become such, are none."""
    array = np.asarray(values)
    if array.dtype.kind not in "iufO" or array.size == 0:
        raise ValueError(f"coef and intercept must be numbers, got {name} {values!r:.100}")
    return frozen(array)


def _coefficients(entries: Mapping[str, Any]) -> tuple[FloatArray, float | FloatArray]:
    """Return ``coef`` and ``intercept`` of a file: (d,) and a number for two classes, (C, d) and (C,) for more."""
    given = entries.get("intercept")
    try:
        coef = _numbers("coef", entries["coef"])
        intercept = _numbers("intercept", 0.0 if given is None or np.size(given) == 0 else given)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"coef and intercept must be numbers ({error})") from error
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise ValueError("coef and intercept must be finite")
    # scikit-learn writes coef_ as (1, d) and intercept_ as (1,) for two classes
    if coef.size == max(coef.shape, default=0) and intercept.size == 1:
        return frozen(coef.ravel()), float(intercept.ravel()[0])
    if coef.ndim != 2 or len(coef) < 3 or intercept.size not in {1, len(coef)}:
        raise ValueError(
            f"coef has shape {coef.shape} and intercept {intercept.shape}; expected one row of coefficients "
            "and a number for two classes (that of the second less that of the first), or one of each per class"
        )
    return frozen(coef), frozen(np.broadcast_to(intercept.ravel(), len(coef)))
