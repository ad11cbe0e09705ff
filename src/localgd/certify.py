"""Certify a model from anywhere: a round of tempered duals, then consensus rounds until the angle is proved."""

from __future__ import annotations

import math

import numpy as np

from localgd.certificate import Certificate, certificate, in_unit, merged_dual, until_angle
from localgd.core import Engine, Message
from localgd.rounding import FloatArray, norm
from localgd.rules.probes import Evaluate, TemperedDual, comfortable

TAUS = np.geomspace(1.0, 1e5, 21)
"""Sharpnesses tried for a model from elsewhere, in units of 1/largest row."""


def certify(w: FloatArray, engine: Engine, *, angle_tol_deg: float | None = None) -> Certificate:
    """Certify a linear model from anywhere against the rows of a federation, in three rounds.

    The model brings no mass, so the dual vectors are Σ q_i z_i with q_i ∝ exp(−τ z_i·w/|w|) for several τ, summed over
    the nodes in one round. The tightest of them gives the bracket and the angle.

    Parameters
    ----------
    w : (d,) float64 array
        The model, bias last if the rows have a bias column.
    engine : Engine
        The federation; its nodes hold signed rows.
    angle_tol_deg : float, optional
        Degrees asked for; only the words of the verdict depend on it.

    Returns
    -------
    Certificate
        What is proved about the model.

    Raises
    ------
    ValueError
        If w is zero, not finite, or of another length than the rows.

    Examples
    --------
    >>> from localgd.core import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> certify(np.array([1.0, 0.0]), federation).angle_deg < 1e-3
    True
    """
    w = np.asarray(w, dtype=np.float64)
    if w.ndim != 1 or not np.isfinite(w).all() or not np.any(w):
        raise ValueError(f"the model must be a finite vector other than zero, got shape {w.shape}")
    rows = comfortable(engine, w.size)
    w = np.ldexp(w, -math.frexp(float(np.abs(w).max()))[1])
    w = w / norm(w)
    low = float(rows.engine.round(Evaluate(), Message(0, w)).lows["margin"])
    stop = [] if angle_tol_deg is None else [until_angle(angle_tol_deg)]
    message = Message(0, w, {"low": np.asarray(low), "tau": TAUS / rows.radius})
    report = rows.engine.round(TemperedDual(), message)
    parts = (report.sums["dual"], report.sums["mass"], report.sums["drift"])
    duals = [merged_dual(*part, report.n_nodes) for part in zip(*parts, strict=True)]
    return in_unit(certificate(w, low, duals, stop=stop), rows.divisor, stop)
