"""How far a model is from the minimiser of a penalised loss, proved by duality without pooling a row.

F(w) = (1/N) Σ ℓ(z_i·w) + (λ/2)|w|² with the logistic loss. For any α in [0, 1], s = (1/N) Σ α_i z_i,

    F(w) − min F <= |λw − s|²/(2λ) + (1/N) Σ d_i,        d_i = ℓ(m_i) + ℓ*(−α_i) + α_i m_i,  m_i = z_i·w.

With α_i = −ℓ'(m_i) every d_i is 0 and λw − s is the gradient, so one d-vector a node proves it. A bias that is free of
the penalty asks for Σ α_i y_i = 0: the α of one class are all multiplied by 1 − u, and as d_i is the divergence between
two coins, KL((1 − u)α, α) <= u² e^(−m_i). Then |w − w*| <= sqrt(2 gap/λ), because F is λ-strongly convex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from localgd.certificate import Certificate, Rule, Status
from localgd.core import Loss, Report
from localgd.losses import Logistic
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, at_most, norm_above
from localgd.rules.penalised import Penalty, gradient, objective


def minimiser_certificate(
    w: FloatArray, report: Report, penalty: Penalty, loss: Loss, stop: Sequence[Rule] = ()
) -> Certificate:
    """Return what is proved about w, given an appraisal of it by every node.

    Parameters
    ----------
    w : (d,) float64 array
        The model.
    report : Report
        Sum of `localgd.rules.penalised.appraisal` over all nodes.
    penalty : Penalty
        The objective.
    loss : Loss
        Its loss; only the logistic one is certified.
    stop : sequence of rules
        What was asked for; without any, every angle below 90 degrees counts as certified.

    Returns
    -------
    Certificate
        Of kind "minimiser", with objective, gap, distance and angle.
    """
    low, length = float(report.lows["margin"]), norm_above(w)
    margin = low / length * (1 - 8 * UNIT_ROUNDOFF) if low > 0 and length > 0 else math.nan
    value = objective(report, w, penalty) * (1 + (report.n_rows + w.size + 16) * UNIT_ROUNDOFF)
    found = Certificate(max(margin, -math.inf), margin=margin, kind="minimiser", objective=value)
    if not (math.inf > penalty.C and isinstance(loss, Logistic)):
        steep = norm_above(gradient(report, w, penalty))
        why = "there is no penalty" if isinstance(loss, Logistic) else f"the loss is {loss.name}"
        reason = f"no certificate, as {why}; the gradient of the objective has norm {at_most(steep)}"
        return replace(found, verdict=Status.UNDECIDED, reason=reason)
    gap = duality_gap(w, report, penalty)
    distance = math.sqrt(2 * gap / penalty.strength(report.n_rows)) * (1 + 8 * UNIT_ROUNDOFF)
    size = norm_above(penalty.pull(w)) * (1 - (4 * w.size + 32) * UNIT_ROUNDOFF)
    angle = math.degrees(math.asin(distance / size)) * (1 + 8 * UNIT_ROUNDOFF) if distance < size else math.nan
    within = "" if math.isnan(angle) else f"within {at_most(angle)}° of the pooled minimiser, "
    reason = f"{within}objective within {at_most(gap)} of its least"
    found = replace(found, gap=gap, distance=distance, angle_deg=angle, verdict=Status.FINITE, reason=reason)
    proved = all(rule(found) for rule in stop) if stop else not math.isnan(angle)
    return replace(found, verdict=Status.CERTIFIED) if proved else found


def duality_gap(w: FloatArray, report: Report, penalty: Penalty) -> float:
    """Return an upper bound on F(w) − min F, rounding included."""
    n, strength = report.n_rows, penalty.strength(report.n_rows)
    pull, drift = report.sums["pull"], float(report.sums["drift"]) * (2 + report.n_nodes)
    blur = float(report.sums["blur"]) / n
    share = 0.0
    if penalty.intercept:
        positive, odds = report.sums["positive"], report.sums["odds"]
        above = float(pull[-1])  # the positive class outweighs the negative one by this much
        side, weight = (positive, float(odds[1])) if above > 0 else (pull - positive, float(odds[0]))
        mass = abs(float(side[-1])) - drift
        if not mass > 0:
            return math.inf
        share = min(1.0, abs(above) / mass)
        pull = pull - share * side
        doubt = drift / mass * (1 + share)  # the exact share is this near to the one used
        drift += doubt * norm_above(side) + drift
        blur += (share + doubt) ** 2 * weight * (1 + 1e-9) / n
    slope = strength * penalty.pull(w) - pull / n
    if penalty.intercept:
        slope = slope[:-1]
    length = norm_above(slope) + drift / n + 8 * UNIT_ROUNDOFF * (strength * norm_above(w) + norm_above(pull) / n)
    return (length * length / (2 * strength) + blur) * (1 + 16 * UNIT_ROUNDOFF) + TINY
