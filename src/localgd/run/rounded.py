"""A model in fewer bits than it was trained in, and what is proved of just those numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from localgd.core import Engine
from localgd.problems.certificate import Certificate
from localgd.problems.duality_gap import near_minimiser
from localgd.problems.hard_margin import near_max_margin
from localgd.problems.least_squares import LeastSquares
from localgd.problems.least_squares_certificate import near_solution
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray
from localgd.run.certify import certify
from localgd.run.history import Run


def rounded(run: Run, engine: Engine, dtype: Any) -> Run:
    """Return the run with its model rounded to a dtype, as float64 numbers, and a certificate of those.

    The nodes look at the rounded model, as `localgd.certify` does; where its distance from the model that was trained,
    added to the bound on that one, is a better bound, that holds. Nothing is asked where rounding changes nothing.

    Raises
    ------
    ValueError
        If a coefficient leaves the range of the dtype.

    Examples
    --------
    >>> from localgd import HardMargin, InProcess, Shard, local_gd, train
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.3]])])
    >>> run = train(federation, local_gd(local_steps=10), n_rounds=20)
    >>> single = rounded(run, federation, np.float32)
    >>> np.array_equal(single.w, run.w.astype(np.float32)), single.certificate.angle_deg_max < 20.0
    (True, True)
    """
    with np.errstate(over="ignore", under="ignore"):
        w = run.w.astype(dtype).astype(np.float64)
    if np.array_equal(w, run.w) or not np.isfinite(run.w).all():
        return replace(run, w=w)
    if not np.isfinite(w).all() or not w.any():
        largest = float(np.abs(run.w).max())
        raise ValueError(
            f"coefficients of up to {largest:.0e} are outside the range of {np.dtype(dtype).name}; give the rows as "
            "float64, or in another unit"
        )
    return with_model(run, w, engine)


def with_model(run: Run, w: FloatArray, engine: Engine) -> Run:
    """Return the run with another model, (d,), that is near its own, and what is proved of that one."""
    found = _certified(run, w, engine)
    return replace(run, w=w, certificate=replace(found, reason="; ".join([found.reason, *run.told])))


def _certified(run: Run, w: FloatArray, engine: Engine) -> Certificate:
    """Return what is proved of a model near that of a run."""
    problem = run.method.problem
    own: Any = certify(w, engine, problem=problem)
    before: Any = run.certificate  # of the kind that the problem has, as the other
    if isinstance(problem, LeastSquares):
        return near_solution(own, before, run.w, w, intercept=problem.intercept)
    if isinstance(problem, Regularised):
        return near_minimiser(own, before, run.w, w, problem)
    return near_max_margin(own, before, run.w, w)
