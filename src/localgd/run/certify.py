"""Certify a model from anywhere: a round of tempered duals, then more rounds until the angle is proved or refuted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from localgd.core import Engine, Message
from localgd.errors import from_all
from localgd.methods.auto import auto
from localgd.methods.exact import scaffold
from localgd.methods.unit import into_unit, start_in_unit
from localgd.problems.duality_gap import minimiser_certificate
from localgd.problems.hard_margin import Certificate, Rule, Status, certificate, in_unit, judged, until_angle
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Penalty
from localgd.rounding import FloatArray, at_least, at_most, norm
from localgd.rules.probes import Comfortable, comfortable, tempered_duals
from localgd.run.history import Row
from localgd.run.loop import train

FIRM = 0.05
"""A distance that is larger than asked is narrowed down to this part of itself."""

LARGEST = 1e150
"""Margins up to here can be squared."""

SLACK_DEG = 1e-9
"""What the rounding of a measured angle and of a sum of two may amount to, in degrees, with room to spare."""


def certify(
    w: FloatArray,
    engine: Engine,
    *,
    angle_tol_deg: float | None = None,
    C: float | None = None,
    intercept: bool = False,
    n_rounds: int = 500,
) -> Certificate:
    """Certify a linear model from anywhere against the rows of a federation.

    The model brings no mass, so the dual vectors are Σ q_i z_i with q_i ∝ exp(−τ z_i·w/|w|) for several τ, summed over
    the nodes in one round; the tightest of them gives the bracket and the angle. If that does not prove the angle asked
    for, the pooled model is looked for by `localgd.auto`: with a model v that is certified to be within φ of it,
    ∠(w, v) − φ <= ∠(w, u*) <= ∠(w, v) + φ, until the angle is proved, or proved to be larger.

    Parameters
    ----------
    w : (d,) float64 array
        The model, bias last if the rows have a bias column.
    engine : Engine
        The federation; its nodes hold signed rows.
    angle_tol_deg : float, optional
        Degrees that are to be proved. Without it, three rounds give what they give.
    C : float > 0, optional
        Certify against the minimiser of the penalised logistic loss instead (`localgd.newton`), in one round; nothing
        is proved yet about that of softmax, for more than two classes.
    intercept : bool
        With `C`: the last column is a bias, and free of the penalty.
    n_rounds : int, at least 0
        Most rounds to look for the pooled model.

    Returns
    -------
    Certificate
        What is proved about the model; ``angle_deg_min`` is above 0 where it is known to be apart.

    Raises
    ------
    ValueError
        If w is zero, not finite, or of another length than the rows.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> certify(np.array([1.0, 0.0]), federation).angle_deg < 1e-3
    True
    >>> certify(np.array([1.0, 0.1]), federation, angle_tol_deg=1.0).angle_deg_min > 5.7
    True
    """
    w = np.asarray(w, dtype=np.float64)
    if w.ndim != 1 or not np.isfinite(w).all() or not np.any(w):
        got = f"shape {w.shape}" if w.ndim != 1 else "only zeros" if not np.any(w) else "NaN or infinite entries"
        raise ValueError(f"the model must be a finite vector other than zero, got {got}")
    rows = comfortable(engine, w.size)
    stop = [] if angle_tol_deg is None else [until_angle(angle_tol_deg)]
    if C is not None:
        Penalty(C)  # refuses it by the user's own number
        task = into_unit(scaffold(C=C, intercept=intercept), rows.divisor).among(rows.versus).look
        return _penalised(start_in_unit(w, rows.divisor), rows, task, stop)
    w = np.ldexp(w, -math.frexp(float(np.abs(w).max()))[1])
    w = w / norm(w)
    low = float(from_all(rows.engine, Evaluate(), Message(0, w)).mins["margin"])
    duals = tempered_duals(rows.engine, w, low, rows.radius)
    found = in_unit(certificate(w, low, duals, stop=stop), rows.divisor, stop)
    if angle_tol_deg is None or found.verdict is Status.CERTIFIED:
        return found
    return _to_order(w, engine, found, angle_tol_deg, n_rounds)


def _penalised(w: FloatArray, rows: Comfortable, task: Any, stop: Sequence[Rule]) -> Certificate:
    """Certify against the minimiser of a penalised loss, in one round."""
    if not np.isfinite(w).all() or not norm(w) * rows.radius < LARGEST:
        raise ValueError("the model is too large for these rows: margins would leave float64; give it in their unit")
    report = from_all(rows.engine, task, Message(0, w))
    return in_unit(minimiser_certificate(w, report, task.penalty, task.loss, stop), rows.divisor, stop)


def _to_order(w: FloatArray, engine: Engine, found: Certificate, tol: float, n_rounds: int) -> Certificate:
    """Look for the pooled model until w is proved to be within `tol` degrees of it, or to be farther."""
    most = math.inf if math.isnan(found.angle_deg) else found.angle_deg
    best = [0.0, most]

    def narrowed(row: Row, known: Certificate) -> bool:
        """Take over what this round says; stop once the question is settled."""
        if known.kind == "max-margin" and not math.isnan(known.angle_deg):
            best[0] = max(best[0], row.true_angle_deg - known.angle_deg - SLACK_DEG)
            best[1] = min(best[1], row.true_angle_deg + known.angle_deg + SLACK_DEG)
        return best[1] <= tol or best[1] - best[0] <= FIRM * best[0] > FIRM * tol

    run = train(engine, auto(), n_rounds=n_rounds, on_round=narrowed, reference=w)
    known = run.certificate
    angle = best[1] if best[1] < 90 else math.nan
    low, high = max(found.margin_low, known.margin_low), min(found.margin_high, known.margin_high)
    found = replace(found, margin_low=low, margin_high=high, angle_deg=angle, angle_deg_min=best[0])
    if known.kind == "minimiser" and not low > 0:
        verdict = Status.NOT_SEPARABLE if known.separable is False else Status.UNDECIDED
        reason = "as far as float64 can tell no plane separates the rows"
        reason += f" (by more than {at_most(high, 2)})" if math.isfinite(high) else ""
        reason += ", so there is no max-margin model to compare with; give C to compare with a penalised minimiser"
        return replace(found, verdict=verdict, reason=reason)
    if best[0] > tol:
        at_all = "" if math.isnan(angle) else f" and at most {at_most(angle, 4)}°"
        reason = f"at least {at_least(best[0], 4)}°{at_all} from the pooled max-margin model"
        return replace(found, verdict=Status.FARTHER, reason=reason)
    found = judged(found, [until_angle(tol)], cancels=known.verdict is Status.NOT_SEPARABLE)
    apart = f", and at least {at_least(best[0], 3)}° from it" if best[0] > 0 else ""
    return replace(found, reason=f"{found.reason}{apart}")
