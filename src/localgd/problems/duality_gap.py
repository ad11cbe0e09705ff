"""How far a model is from the minimiser of a penalised loss, proved by duality without pooling a row.

F(w) = (1/N) Σ ℓ(z_i·w) + (λ/2)|w|², for a loss whose conjugate ℓ* is known (`localgd.losses.Conjugated`). For any
α where ℓ*(−α) is finite, [0, 1] for the logistic loss, all α >= 0 for squared hinge, and s = (1/N) Σ α_i z_i,

    F(w) − min F <= |λw − s|²/(2λ) + (1/N) Σ d_i,        d_i = ℓ(m_i) + ℓ*(−α_i) + α_i m_i,  m_i = z_i·w.

With α_i = −ℓ'(m_i) every d_i is 0 and λw − s is the gradient, so one d-vector a node proves it. A bias that is free of
the penalty asks for Σ α_i y_i = 0: the α of one class are all multiplied by 1 − u, which costs d_i <= u² g(m_i), with
g = e^(−m) for the logistic loss and g = ℓ for squared hinge. Then |w − w*| <= sqrt(2 gap/λ), as F is λ-strongly convex.
Margins that are off by x_i add at most L x_i²/2, L the smoothness of ℓ, and u α_i x_i where α is repaired: with
B = (1/N) Σ L x_i²/2, W = (1/N) Σ g(m_i) and α² <= 4 L g that is no more than (u √W + √(2B))² in all.

Where the nodes have sent the curvature H of a self-concordant loss too, F need not be penalised. Along a line the third
derivative of the logistic loss is at most R|v| times the second, R the largest row norm (Bach 2010, *Self-concordant
analysis for logistic regression*). So ∇F(w + v)·v >= ∇F(w)·v + vᵀHv (1 − e^(−t))/t with t = R|v|, which is positive
wherever 1 − e^(−t) > q = R|∇F(w)|/μ, μ the least eigenvalue of H. If q < 1 there is a minimiser, and |w − w*| is at
most −log(1 − q)/R: that also proves that no plane separates the rows of an unpenalised F. Along directions that no
margin sees (`localgd.problems.quotient`) F is the same, and has no curvature: μ is the least eigenvalue at a right
angle to them, and the distance that to the nearest minimiser. Columns of unlike sizes are brought to one unit first.

Softmax is the same with α_ic the probability of a wrong class: its third derivative along a line is the third cumulant
of the scores, at most their range times the second, and R is again the largest row norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from localgd.core import Report
from localgd.losses import conjugated
from localgd.problems.balance import balanced
from localgd.problems.certificate import TELLING_DEG, Certificate, Status
from localgd.problems.metrics import total
from localgd.problems.quotient import basis, unseen
from localgd.problems.triangle import symmetric, triangle
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, at_most, norm_above, within_range

if TYPE_CHECKING:
    from localgd.problems.regularised import Regularised


@np.errstate(over="ignore", invalid="ignore")  # a model beyond float64: then nothing is proved of it
def minimiser_certificate(
    w: FloatArray, report: Report, problem: Regularised, asked: Mapping[str, FloatArray] | None = None
) -> Certificate:
    """Return what is proved about w, shape (d,): objective, gap, distance and angle, given an appraisal by every node.

    The report is the sum of `localgd.problems.regularised.appraisal` over all nodes; if it is one of `Curvature`, the
    message may have `asked` for what `localgd.problems.quotient.asked_of` says. Losses that are not `Conjugated` are
    not certified.
    """
    low, length = float(report.mins["margin"]), norm_above(w)
    margin = low / length * (1 - 8 * UNIT_ROUNDOFF) if low > 0 and length > 0 else math.nan
    proved = margin if margin > 0 else -math.inf
    found = Certificate(proved, margin=margin, kind="minimiser", gap=math.inf, distance=math.inf)
    found = replace(found, unpenalised=not problem.penalised)
    if conjugated(problem.loss) is None:
        return replace(found, reason=f"no certificate, as the loss is {type(problem.loss).__name__.lower()}")
    off = _moved(report, problem)
    value, rounding = problem.objective(report, w), 4 * (report.n_rows + w.size + 16) * UNIT_ROUNDOFF
    least, value = within_range((value - off) * (1 - rounding)), (value + off) * (1 + rounding)
    found = replace(found, objective=value, objective_low=least)
    steep = norm_above(problem.gradient(report, w)) + gradient_error(w, report, problem)
    dual = duality_gap(w, report, problem) if problem.penalised else math.inf
    flat = unseen(problem, report, (asked or {}).get("dependent"), w.size)
    distance = curved_distance(w, report, problem, steep, flat)
    gap = distance * steep + TINY  # by convexity
    if asked and "units" in asked and "unit_radius" in report.maxs and not problem.penalised:
        gap, distance = np.minimum((gap, distance), _in_units(w, report, problem, asked["units"], flat)).tolist()
    if problem.penalised:
        gap = min(gap, dual)
        distance = min(distance, math.sqrt(2 * gap / problem.strength(total(report)) + TINY) * (1 + 8 * UNIT_ROUNDOFF))
    if math.isinf(distance):
        why = "the curvature is singular to within rounding, as with columns that depend on others, or tell a class"
        why = why if "curvature" in report.sums else "there is no penalty"
        why = "rounding takes more than there is, as with a model far too long" if problem.penalised else why
        reason = (
            f"no bound on the distance to a minimiser, as {why}; the gradient of the loss has norm {at_most(steep)}"
        )
        return replace(found, reason=reason)
    found = replace(found, gap=gap, distance=distance)
    if problem.penalised or not len(flat):
        return _judged(found, norm_above(problem.pull(w)))
    kept = problem.pull(w)
    along = basis(np.array([problem.pull(one) for one in flat]))
    found = _judged(found, norm_above(kept - along @ (along.T @ kept)) - 1e-12 * norm_above(kept))
    n_known = len(flat) if problem.n_blocks == 1 else (len(flat) - w.size // problem.n_blocks) // problem.n_blocks
    if not n_known:
        return found
    words = "dependency of columns, which changes" if n_known == 1 else "dependencies of columns, which change"
    return replace(found, reason=f"{found.reason}, but for {n_known} exact {words} no margin")


def near_minimiser(
    own: Certificate, before: Certificate, model: FloatArray, w: FloatArray, problem: Regularised
) -> Certificate:
    """Return what is proved of w, given its `own` certificate and one of another model (d,) of the same rows.

    The distance is at most that of the other and the one between both, the gap that of the other and the difference of
    the objectives. Without a penalty its own holds, which knows the curvature.
    """
    if not (problem.penalised and before.distance < math.inf):
        return own
    apart = norm_above(problem.pull(w - model))
    distance = min(own.distance, (before.distance + apart) * (1 + 8 * UNIT_ROUNDOFF))
    gap = min(own.gap, (before.gap + max(own.objective - before.objective_low, 0.0)) * (1 + 8 * UNIT_ROUNDOFF))
    return _judged(replace(own, distance=distance, gap=gap), norm_above(problem.pull(w)))


def _apart(report: Report, problem: Regularised) -> float:
    """Return a bound on the root mean square of how far off scores are."""
    smoothness: float = conjugated(problem.loss).smoothness
    return math.sqrt(2 / smoothness * float(report.sums["blur"]) / total(report))


def _moved(report: Report, problem: Regularised) -> float:
    """Return a bound on what scores that are off change the mean of the losses by: slope · x + L x²/2."""
    known, off = conjugated(problem.loss), _apart(report, problem)
    steep = known.steepness(float(report.sums["risk"]) / total(report))
    return float(steep * off + known.smoothness * off * off / 2)


def _judged(found: Certificate, length: float) -> Certificate:
    """Return the certificate with its angle and verdict, given the length of the penalised part of the model."""
    size = length * (1 - 1e-12)
    sine = found.distance / size if found.distance < size else math.nan
    angle = math.degrees(math.asin(sine)) * (1 + 8 * UNIT_ROUNDOFF) if sine < 1 else math.nan
    angle = angle if angle <= TELLING_DEG else math.nan
    within = "" if math.isnan(angle) else f"within {at_most(angle)}° of the pooled minimiser, "
    reason = f"{within}objective within {at_most(found.gap)} of its least"
    verdict = Status.FINITE if math.isnan(angle) else Status.CERTIFIED
    return replace(found, angle_deg_max=angle, verdict=verdict, reason=reason)


def gradient_error(w: FloatArray, report: Report, problem: Regularised) -> float:
    """Return a bound on the rounding error of the gradient, that of the slopes included."""
    n, mass, known = total(report), norm_above(report.sums["pull"]), conjugated(problem.loss)
    # the slopes of a sample are within so many roundings of the exact ones
    steep, radius = known.steepness(float(report.sums["risk"]) / n), float(report.maxs["radius"])
    steps: float = (31 + problem.loss.versus) * UNIT_ROUNDOFF * radius * steep
    drift = float(report.sums["drift"]) * (2 + report.n_nodes)
    blurred: float = _apart(report, problem) * known.smoothness * radius
    own = 8 * UNIT_ROUNDOFF * (problem.strength(n) * norm_above(problem.pull(w)) + mass / n)
    return drift / n + steps + blurred + own


def curved_distance(w: FloatArray, report: Report, problem: Regularised, steep: float, flat: FloatArray) -> float:
    """Return an upper bound on the distance of w from a minimiser, inf if there is none.

    From the curvature at w, a bound on the gradient, and directions (m, d) that F is the same along.
    """
    if "curvature" not in report.sums or not conjugated(problem.loss).self_concordant:
        return math.inf
    curvature = symmetric(report.sums["curvature"]) / total(report)
    curvature[np.diag_indices(w.size)] += problem.strength(total(report)) * problem.pull(np.ones(w.size))
    if not np.isfinite(curvature).all():
        return math.inf
    radius = float(report.maxs["radius"])
    # sums of so many terms, eigenvalues of so large a matrix, and slopes that margins a little off have changed
    off = max(2.0**12, 4 * (w.size + 2) * radius * norm_above(w))
    doubt = (report.n_rows + 16 * w.size + off) * UNIT_ROUNDOFF * float(np.trace(curvature))
    if problem.loss.versus > 1:  # p_c − p_c² of softmax cancels where p_c is almost 1
        doubt += 16 * UNIT_ROUNDOFF * radius * radius
    least = _least(curvature, flat, doubt)
    share = radius * steep / least if least > 0 else math.inf
    return -math.log1p(-share) / radius * (1 + 1e-12) if share < 1 else math.inf


def _in_units(
    w: FloatArray, report: Report, problem: Regularised, units: FloatArray, flat: FloatArray
) -> tuple[float, float]:
    """Return gap and distance without a penalty by the curvature of columns over units, powers of two.

    Nothing but the bounds on rounding changes: they no longer rest on the largest column alone.
    """
    each = np.tile(units, problem.n_blocks)
    curvature = symmetric(report.sums["curvature"]) / each / each[:, None]
    sums = {"drift": report.sums["unit_drift"], "blur": report.sums["unit_blur"], "curvature": triangle(curvature)}
    sums = {**report.sums, **sums, "pull": report.sums["pull"] / each}
    scaled = replace(report, sums=sums, maxs={**report.maxs, "radius": report.maxs["unit_radius"]})
    steep = norm_above(problem.gradient(scaled, w * each)) + gradient_error(w * each, scaled, problem)
    distance = curved_distance(w * each, scaled, problem, steep, flat * each)
    return distance * steep + TINY, distance / float(units.min())


def _least(curvature: FloatArray, flat: FloatArray, doubt: float) -> float:
    """Return a lower bound on the least eigenvalue at a right angle to what is flat, less a bound on rounding."""
    if len(flat):
        along = basis(flat)
        curvature = curvature + float(np.trace(curvature)) / len(curvature) * (along @ along.T)
    return float(np.linalg.eigvalsh(curvature)[0]) - doubt


def duality_gap(w: FloatArray, report: Report, problem: Regularised) -> float:
    """Return an upper bound on F(w) − min F, rounding included."""
    n, strength = total(report), problem.strength(total(report))
    pull, drift = report.sums["pull"], float(report.sums["drift"]) * (2 + report.n_nodes)
    blur = float(report.sums["blur"]) / n
    share = 0.0
    if report.flags.get("far", 0):
        return math.inf
    if problem.intercept and problem.loss.versus > 1:
        pull, drift, spent = balanced(report, pull, drift)
        if math.isinf(drift):
            return math.inf
        blur += spent / n
    elif problem.intercept:
        positive, odds = report.sums["positive"], report.sums["odds"]
        above = float(pull[-1])  # the positive class outweighs the negative one by this much
        side, weight = (positive, float(odds[1])) if above > 0 else (pull - positive, float(odds[0]))
        mass = abs(float(side[-1])) - drift
        if not mass > 0:
            return math.inf
        share = min(1.0, abs(above) / mass)
        off = share * side
        pull = np.subtract(pull, off, out=off)
        doubt = drift / mass * (1 + share)  # the exact share is this near to the one used
        drift += doubt * norm_above(side) + drift
        blur = ((share + doubt) * math.sqrt(weight * (1 + 1e-9) / n) + math.sqrt(2 * blur)) ** 2
    sizes = strength * norm_above(problem.pull(w)) + norm_above(pull) / n  # the bias is free of the penalty
    slope = problem.pull(w)
    slope *= strength
    slope -= pull / n
    if problem.intercept:
        slope = slope.reshape(problem.n_blocks, -1)[:, :-1].ravel()
    length = norm_above(slope) + drift / n + 8 * UNIT_ROUNDOFF * sizes
    return (length * length / (2 * strength) + blur) * (1 + 16 * UNIT_ROUNDOFF) + TINY
