"""How far a linear model is from the ridge or least-squares solution on all rows, proved without pooling one.

F(w) = |y − Xw|² + α|w|² with its intercept, free of α, taken out (`localgd.problems.reduced`): h is half the way
down, C half the curvature, g_b the sum of the residuals, and μ > 0 a lower bound on the least eigenvalue of C, as α is.
Then

    |w − w*| <= q/√μ,        F(w) − min F <= g_b²/N + q²,        q = |C^(−1/2)h| <= |h|/√μ.

An error e of the residuals changes h by X_cᵀe (X_c less the mean), and |C^(−1/2)X_cᵀ| <= 1, so that q is at most
|ĥ|/√μ + |e| for the computed ĥ.

With fewer rows than columns and α = 0 there are many solutions. If the N-th largest eigenvalue σ² of XᵀX is proved to
be positive, the rows are independent: min F = 0, and the solution of least norm is the one in the span of the rows, so
|w − w*| <= |y − Xw|/σ + (distance of w from that span). The driver makes w of sums Xᵀa that nodes formed, so that
distance is their rounding error. A penalty far below σ² changes little: w* lies in that span, where C is at least σ² (α
included), and the part of h in it is the h of the part of w in it. So |w − w*| <= |h|/σ² + (distance from that span),
and the gap is α times the square of that distance more. Otherwise no distance is proved, but
vᵀXᵀy = vᵀXᵀXw* <= |XᵀXv||w*| for every v, which bounds |w*| from below.

With no coefficient allowed below 0, of w or of w*, and p what is left of h where w is 0 and h < 0 are left out: as
(w* − w)ᵀC(w* − w) <= p·(w* − w), what is said of h above holds of p, where μ > 0.

Distances leave the intercept out. Every quantity enters with its rounding error against us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from localgd.core import Report
from localgd.problems.certificate import Certificate, Status
from localgd.problems.reduced import SURE, Reduced
from localgd.problems.spectrum import Spectrum
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, at_least, at_most, norm, norm_above, within_range

CLOSE = 0.5
"""A bound above this part of the solution's length is stated, but not called a certificate."""

BELOW = "a coefficient is below 0, so it is none of the models that the solution is looked for among"


@dataclass(frozen=True)
class SquaresCertificate(Certificate):
    """What is proved about a model of squared loss, in the unit of the rows and targets it was fitted to.

    `kind` is what the model is compared with: "ridge", "least-squares" (one solution) or "minimum-norm" (the shortest);
    `objective` is F(w), and `distance` leaves an intercept out. It is certified within half of the solution's length.

    Parameters
    ----------
    residual : float
        |y − Xw|, rounded up.
    slope : float
        Upper bound on the norm of the gradient of F with the intercept at its best.
    length_low : float
        Lower bound on |w*|, an intercept left out; 0 if nothing is proved.
    """

    kind: str = "least-squares"
    residual: float = math.nan
    slope: float = math.nan
    length_low: float = 0.0

    @property
    def relative(self) -> float:
        """Upper bound on |w − w*|/|w*|; inf if nothing is proved."""
        return self.distance / self.length_low * SURE if self.length_low > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of ``certificate.json``; numbers that are not known are None."""
        return super().to_dict() | self.finite("residual", "slope", "length_low", "relative")


@np.errstate(over="ignore", invalid="ignore")  # a model beyond float64: then nothing is proved of it
def squares_certificate(
    w: FloatArray,
    report: Report,
    first: Report | None,
    reduced: Reduced,
    known: Spectrum | None = None,
    *,
    astray: float = math.inf,
    positive: bool = False,
) -> SquaresCertificate:
    """Return what is proved about w, shape (d,), its intercept last if there is one: distance, gap, and a sentence.

    The report holds the residuals of w, by every node; `first` those of a model that is 0 but for its intercept:
    without them the length of w* has no bound of its own. `known` is the spectrum, if nodes have sent what that takes,
    and `astray` an upper bound on the distance of w, its intercept left out, from the span of the (centred) rows.
    If `positive`, w and the solution it is compared with have no coefficient below 0.
    """
    v, h = reduced.free(w), reduced.downhill(w, report)
    if positive:
        h, astray, first = reduced.inward(w, h), math.inf, None  # its solution need not lie in the span of the rows
    seen = (norm_above(h) + reduced.downhill_error(w, report)) * SURE
    steep = (seen + reduced.blurred(report)) * SURE
    blur = math.sqrt(float(report.sums["blur"])) * SURE
    off = reduced.offset(report)
    square = float(report.sums["square"]) * (1 + 2 * (report.n_rows + 8) * UNIT_ROUNDOFF) + report.n_rows * TINY
    residual = (math.sqrt(square) + blur) * SURE
    length = norm_above(v)
    # not **, which raises beyond float64
    objective = (residual * residual + reduced.alpha * length * length) * SURE + TINY
    shortest = max(math.sqrt(float(report.sums["square"])) * (1 - 2 * (report.n_rows + 8) * UNIT_ROUNDOFF) - blur, 0.0)
    penalty = reduced.alpha * norm(v) * norm(v)
    least = within_range((shortest * shortest + penalty) * (1 - (2 * v.size + 32) * UNIT_ROUNDOFF))
    distance, gap, kind = math.inf, math.inf, "ridge" if reduced.alpha > 0 else "minimum-norm"
    curved = reduced.alpha if known is None else known.curved
    if curved > 0:
        kind = kind if reduced.alpha > 0 else "least-squares"
        q = min(seen / math.sqrt(curved) + blur, steep / math.sqrt(curved)) * SURE
        distance = q / math.sqrt(curved) * SURE + TINY
        gap = (off * off / reduced.total + q * q) * SURE + TINY
        if known is not None and known.independent and astray < math.inf:
            q = min(seen / math.sqrt(known.spread) + blur, steep / math.sqrt(known.spread)) * SURE
            distance = min(distance, (q / math.sqrt(known.spread) + astray) * SURE + TINY)
            gap = min(gap, (off * off / reduced.total + q * q + reduced.alpha * astray * astray) * SURE + TINY)
    elif known is not None and known.independent and not positive:
        distance = (residual / math.sqrt(known.spread) + astray) * SURE + TINY
        gap = objective
    # beyond float64, where a NaN may be what is left of an infinity
    bounds = (distance, gap, objective, residual, steep)
    distance, gap, objective, residual, steep = (min(math.inf, one) for one in bounds)
    low = norm(v) * (1 - (2 * v.size + 16) * UNIT_ROUNDOFF) - distance - TINY if distance < math.inf else -math.inf
    low = max(within_range(low), 0.0 if first is None else _length_below(v, report, first, reduced, steep))
    kind = f"non-negative {'ridge' if reduced.alpha > 0 else 'least-squares'}" if positive else kind
    if positive and (v < 0).any():
        return SquaresCertificate(kind=kind, objective=objective, objective_low=least, reason=BELOW)
    found = SquaresCertificate(kind=kind, distance=distance, gap=gap, objective=objective, objective_low=least)
    return _judged(replace(found, residual=residual, slope=2 * steep, length_low=low), known)


def near_solution(
    own: SquaresCertificate, before: SquaresCertificate, model: FloatArray, w: FloatArray, *, intercept: bool
) -> SquaresCertificate:
    """Return what is proved of w, given its `own` certificate and one of another model (d,) of the same rows.

    Distances, which leave the intercept out, add, and so do gap and difference of the objectives.
    """
    if math.isinf(before.distance):
        return own
    apart = norm_above((w - model)[:-1] if intercept else w - model)
    distance = min(own.distance, (before.distance + apart) * SURE)
    gap = min(own.gap, (before.gap + max(own.objective - before.objective_low, 0.0)) * SURE)
    low = max(own.length_low, before.length_low)
    return _judged(replace(own, kind=before.kind, distance=distance, gap=gap, length_low=low), None)


def _judged(found: SquaresCertificate, known: Spectrum | None) -> SquaresCertificate:
    """Return the certificate with its verdict: what is proved, in words."""
    low = found.length_low
    if found.distance < math.inf:
        share = f", {at_most(found.relative, 2)} of its length" if low > 0 else ""
        name = "shortest least-squares" if found.kind == "minimum-norm" else found.kind
        where = f"within {at_most(found.distance)} of the pooled {name} solution{share}"
        reason = f"{where}; objective within {at_most(found.gap)} of its least"
        return replace(found, verdict=Status.CERTIFIED if found.relative <= CLOSE else Status.FINITE, reason=reason)
    doubt = "the rank of the rows is in doubt within rounding"
    doubt = "there is no penalty and XᵀX is not known" if known is None else doubt
    at_least_so_long = f", and |w*| is at least {at_least(low)}" if low > 0 else ""
    reason = f"no bound on the distance, as {doubt}; the residuals have norm {at_most(found.residual)}, the gradient "
    return replace(found, reason=f"{reason}{at_most(found.slope)}{at_least_so_long}")


def _length_below(v: FloatArray, report: Report, first: Report, reduced: Reduced, steep: float) -> float:
    """Return the lower bound v·b/|Cv| on |w*|, as Cw* = b and C is symmetric; 0 if there is none."""
    aim, error = reduced.of(first.sums["pull"]), reduced.error(first) + reduced.blurred(first)
    down = reduced.of(report.sums["pull"]) - reduced.alpha * v
    length, size = norm_above(v), norm_above(aim)
    along = float(v @ aim) - length * error - 2 * (v.size + 8) * UNIT_ROUNDOFF * length * size - TINY
    image = norm_above(aim - down) + error + (steep - norm(down)) + 4 * UNIT_ROUNDOFF * (size + steep)
    return within_range(along / (image * SURE + TINY) * (1 - 16 * UNIT_ROUNDOFF))
