"""Rows of extreme size are trained on in another unit: settings go there, models come back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from localgd.methods.method import Method
from localgd.problems.regularised import Appraise, Curvature
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray
from localgd.rules.descent import ControlVariates, Descending
from localgd.rules.local import GradientSteps
from localgd.rules.penalised import PenalisedSteps


def into_unit(method: Method, divisor: float) -> Method:
    """Carry settings for the user's rows over to rows divided by `divisor`: η and C scale as |z|², prox as 1/|z|²."""
    task, merge = method.task, method.merge
    if divisor == 1.0 or not isinstance(task, GradientSteps | PenalisedSteps | Curvature | Appraise):
        return method
    doubled = 2 * (math.frexp(divisor)[1] - 1)
    changes: dict[str, Any] = {}
    C = math.inf if method.penalty is None else method.penalty.C
    settings = (
        ("lr", getattr(task, "lr", 0), doubled),
        ("prox", getattr(task, "prox", 0), -doubled),
        ("C", C, doubled),
    )
    for name, value, exponent in settings:
        if isinstance(value, str) or value in (0, math.inf):
            continue
        try:
            changes[name] = math.ldexp(value, exponent)
        except OverflowError:
            changes[name] = math.inf
        if not 0 < changes[name] < math.inf:
            raise ValueError(
                f"{name}={value!r} does not fit rows of size {divisor:.0e}; leave it out or scale the rows"
            )
    if "C" in changes and method.penalty is not None:
        penalty = changes["penalty"] = replace(method.penalty, C=changes.pop("C"))
        merge = replace(merge, penalty=penalty) if isinstance(merge, Descending | ControlVariates) else merge
    return replace(method, task=replace(task, **changes), merge=merge)


def out_of_unit(w: FloatArray, divisor: float) -> FloatArray:
    """Undo the division of the rows; a model that float64 cannot hold is given at length about 1 instead."""
    with np.errstate(over="ignore", under="ignore"):
        out = w / divisor
    largest = np.abs(out).max(initial=0.0)
    if divisor == 1.0 or not w.any() or TINY / UNIT_ROUNDOFF < largest < np.inf:
        return out
    return np.ldexp(w, -int(np.frexp(np.abs(w).max())[1]))


def start_in_unit(w0: FloatArray, divisor: float) -> FloatArray:
    """Return a start for the user's rows as one for rows divided by `divisor`."""
    w0 = np.asarray(w0, dtype=np.float64)
    if w0.ndim != 1 or not np.isfinite(w0).all():
        raise ValueError(f"w0 must be a finite vector, got shape {w0.shape}")
    return w0 * divisor
