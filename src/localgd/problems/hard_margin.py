"""The certificate: how far a model is from the pooled max-margin model, proved without pooling a row.

Write γ* = max_{|u|=1} min_i z_i·u for the pooled margin and u* for its direction. For any q >= 0 with Σ q_i = mass and
s = Σ q_i z_i, and any model w,

    min_i z_i·w/|w| <= γ* <= |s|/mass,        cos∠(s, u*) >= γ*·mass/|s|,        cos∠(w, u*) >= min_i z_i·w/(|w| γ*).

The first cosine falls and the second rises as γ* shrinks inside its bracket, so the worse of the best of both is a
bound on the angle; for s = w it is acos sqrt(low/high). Every quantity enters with its rounding error against us.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from localgd.core import Report
from localgd.rounding import (
    TINY,
    UNIT_ROUNDOFF,
    FloatArray,
    acos_above,
    angle_above,
    at_least,
    at_most,
    norm,
    norm_above,
)
from localgd.rows import Dual

TELLING_DEG = 89.9
"""A bound above this is as good as none: written to three digits it would be 90°."""


class Status(StrEnum):
    """What became of a run, in words."""

    CERTIFIED = "certified"
    SEPARABLE = "separable, not yet certified"
    UNDECIDED = "undecided"
    NOT_SEPARABLE = "not separable"
    FINITE = "finite minimiser, not yet certified"
    FARTHER = "farther than asked"
    STALLED = "stalled by underflow"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Certificate:
    """What is proved about a model, in the space and the unit of the rows it was trained on.

    Parameters
    ----------
    margin_low, margin_high : float
        Bounds on the pooled margin γ*; −inf and inf where nothing is proved. Unit: that of the rows.
    angle_deg : float
        Upper bound in degrees on the angle to the pooled max-margin direction; NaN if there is none below 90.
    angle_deg_min : float
        Lower bound in degrees on that angle; 0 where nothing is proved.
    margin : float
        Lower bound on the model's own margin min z_i·w/|w|; negative if a row is wrong, NaN if not all nodes spoke.
    verdict : Status
        The verdict in a word.
    reason : str
        The verdict in a sentence.
    kind : str
        What the model is compared with: "max-margin", or "minimiser" of a penalised loss.
    objective : float
        F(w) of a penalised loss, rounded up; NaN for max-margin.
    gap : float
        Upper bound on F(w) − min F; inf if nothing is proved, NaN for max-margin.
    distance : float
        Upper bound on |w − w*|, the bias left out where it is free of the penalty; inf and NaN likewise.
    unpenalised : bool
        Whether that loss has no penalty, so that a minimiser exists only if no plane separates the rows.
    """

    margin_low: float = -math.inf
    margin_high: float = math.inf
    angle_deg: float = math.nan
    margin: float = math.nan
    verdict: Status = Status.UNDECIDED
    reason: str = "nothing measured yet"
    kind: str = "max-margin"
    objective: float = math.nan
    gap: float = math.nan
    distance: float = math.nan
    unpenalised: bool = False
    angle_deg_min: float = 0.0

    @property
    def separable(self) -> bool | None:
        """True if proved; False if the loss is proved to have a minimiser, or rows cancel to rounding; None if open."""
        if self.margin_low > 0:
            return True
        proved = self.verdict is Status.NOT_SEPARABLE or (self.unpenalised and self.distance < math.inf)
        return False if proved else None

    @property
    def margin_ratio(self) -> float:
        """Proved share of the pooled margin that the model itself has: margin/margin_high."""
        return self.margin / self.margin_high if self.margin_high > 0 else math.nan

    @property
    def status(self) -> str:
        """Verdict and reason in one line of plain words."""
        return f"{self.verdict}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of ``certificate.json``; numbers that are not known are None."""
        known = {
            "margin_low": self.margin_low,
            "margin_high": self.margin_high,
            "angle_deg_max": self.angle_deg,
            "angle_deg_min": self.angle_deg_min,
            "margin": self.margin,
            "objective": self.objective,
            "gap": self.gap,
            "distance": self.distance,
        }
        numbers = {name: value if math.isfinite(value) else None for name, value in known.items()}
        return {"kind": self.kind, **numbers, "separable": self.separable, "status": self.status}


Rule: TypeAlias = Callable[[Certificate], bool]
"""A stop rule: true once the certificate is good enough."""


def until_angle(deg: float) -> Rule:
    """Stop once the model is proved to be within `deg` degrees of the pooled one.

    Parameters
    ----------
    deg : float, 0 to 90
        Angle in degrees that must be proved.

    Returns
    -------
    callable
        A stop rule for `localgd.train`.

    Raises
    ------
    ValueError
        If `deg` is not between 0 and 90.

    Examples
    --------
    >>> until_angle(1.0)(Certificate(angle_deg=0.3))
    True
    """
    if not 0 < deg < 90:
        raise ValueError(f"angle_tol_deg must be between 0 and 90 degrees, got {deg!r}")
    return lambda certificate: certificate.angle_deg <= deg


def until_margin_ratio(ratio: float) -> Rule:
    """Stop once the model's margin is proved to be at least `ratio` times the pooled margin.

    Parameters
    ----------
    ratio : float, 0 to 1
        Share of the pooled margin that must be proved.

    Returns
    -------
    callable
        A stop rule for `localgd.train`.

    Raises
    ------
    ValueError
        If `ratio` is not between 0 and 1.

    Examples
    --------
    >>> until_margin_ratio(0.9)(Certificate(margin=0.5, margin_high=0.52))
    True
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must be between 0 and 1, got {ratio!r}")
    return lambda certificate: certificate.margin_ratio >= ratio


def until_gap(share: float) -> Rule:
    """Stop once a penalised objective is proved to be within `share` of itself of its least value.

    Parameters
    ----------
    share : float > 0
        Largest duality gap, as a part of the objective.

    Returns
    -------
    callable
        A stop rule for `localgd.train`.

    Raises
    ------
    ValueError
        If `share` is not positive.

    Examples
    --------
    >>> until_gap(1e-6)(Certificate(objective=2.0, gap=1e-6))
    True
    """
    if not share > 0:
        raise ValueError(f"gap must be a positive share of the objective, got {share!r}")
    return lambda certificate: certificate.gap <= share * certificate.objective


def angle_bound(w: FloatArray, margin: float, dual: Dual, low: float, high: float) -> float:
    """Upper bound in degrees on ∠(w, u*), given γ* in [low, high], w's own margin and one dual vector.

    max over γ in [low, high] of min(acos(margin/γ), ∠(w, s) + acos(γ·mass/|s|)). The first rises and the second falls
    with γ, so at any split the larger of the two is a bound; bisection finds the split where they meet.

    Parameters
    ----------
    w : (d,) float64 array
        The model.
    margin : float
        Lower bound on min z_i·w/|w|.
    dual : Dual
        Any dual vector, w itself included.
    low, high : float
        Bounds on γ*.

    Returns
    -------
    float
        Degrees; 90 or more says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([1.0, 0.0])
    >>> round(angle_bound(w, 0.5, Dual.proved(w, 1.0, 0.0), 0.5, 1.0), 9)  # acos(sqrt(0.5/1))
    45.0
    """
    if not 0 < low <= high:
        return math.inf
    apart = 0.0 if dual.vector is w else angle_above(w, dual.vector)

    def by_margin(gamma: float) -> float:
        return acos_above(margin, gamma) if margin > 0 else math.pi

    def by_dual(gamma: float) -> float:
        return apart + dual.angle(gamma)

    left, right = low, high
    if by_dual(low) <= by_margin(low):
        return math.degrees(by_dual(low))
    if math.isinf(high) or by_margin(high) <= by_dual(high):
        return math.degrees(by_margin(high)) if math.isfinite(high) else math.inf
    for _ in range(60):
        middle = 0.5 * (left + right)
        left, right = (left, middle) if by_dual(middle) <= by_margin(middle) else (middle, right)
    return math.degrees(max(by_margin(right), by_dual(right)))


def certificate(
    w: FloatArray,
    margin: float,
    duals: Sequence[Dual],
    *,
    before: Certificate | None = None,
    node_high: float = math.inf,
    cancels: bool = False,
    stop: Sequence[Rule] = (),
) -> Certificate:
    """Return what is proved about w.

    Parameters
    ----------
    w : (d,) float64 array
        The model.
    margin : float
        Lower bound on min z_i·w over all rows of all nodes; NaN if not all nodes spoke.
    duals : sequence of Dual
        Dual vectors of the same rows.
    before : Certificate, optional
        What is proved of the same rows already.
    node_high : float
        Smallest upper bound on γ* that a single node found for its own rows.
    cancels : bool
        Whether a node's own rows cancel to within rounding.
    stop : sequence of rules
        What was asked for; without any, every angle below 90 degrees counts as certified.

    Raises
    ------
    ArithmeticError
        If the bounds cross: a fault of a node, the proof or this program, and nothing of it is published.
    """
    before = Certificate() if before is None else before
    length = norm(w)
    own = math.nan
    if 0 < length < math.inf:
        own = margin / (norm_above(w) if margin > 0 else length * (1 - (2 * w.size + 16) * UNIT_ROUNDOFF))
        own = own * (1 - math.copysign(4 * UNIT_ROUNDOFF, own)) - TINY
    low = before.margin_low if math.isnan(own) else max(before.margin_low, own)
    high = min([before.margin_high, node_high, *(dual.margin_upper for dual in duals)])
    if low > high:
        raise ArithmeticError(
            f"margin bounds crossed ({low!r} > {high!r}): a node said what is not so of its rows, or this is a "
            "bug; please report it, with the data"
        )
    bounds = [angle_bound(w, own, dual, low, high) for dual in duals] if length > 0 else []
    angle = min([angle for angle in bounds if angle <= TELLING_DEG], default=math.nan)
    cancels = cancels or before.verdict is Status.NOT_SEPARABLE or any(dual.cancels for dual in duals)
    return judged(Certificate(low, high, angle, own), stop, cancels=cancels)


def judged(found: Certificate, stop: Sequence[Rule] = (), *, cancels: bool) -> Certificate:
    """Return the certificate with its verdict: what is proved, in words."""
    low, high, angle = found.margin_low, found.margin_high, found.angle_deg
    within = f"within {at_most(angle)}° of the pooled max-margin model"
    if low > 0 and not math.isnan(angle) and all(rule(found) for rule in stop):
        verdict, reason = Status.CERTIFIED, within
    elif low > 0:
        verdict = Status.SEPARABLE
        so_far = "no bound on the angle below 90° so far" if math.isnan(angle) else f"{within} so far"
        reason = f"{so_far}; the pooled margin is at least {at_least(low)}"
    elif cancels:
        verdict = Status.NOT_SEPARABLE
        reason = f"no direction separates the rows by more than rounding ({at_most(high, 2)})"
    else:
        verdict = Status.UNDECIDED
        reason = "no model so far is proved to get every row right"
        reason += f"; the pooled margin, if any, is at most {at_most(high)}" if math.isfinite(high) else ""
    return replace(found, verdict=verdict, reason=reason)


def round_dual(report: Report) -> Dual | None:
    """Return the round's own update Σ p_m (v_m − w) as a dual vector; None if there is none, or it proves nothing.

    Late updates lean on the rows nearest to the boundary only, so |update|/mass is often the tightest bound; where the
    data cannot be separated the update tends to 0 while its mass does not, which is Gordan's proof of that.
    """
    update = report.duals.get("update")
    return update if update is not None and update.parts[0] > 0 else None


def in_unit(found: Certificate, divisor: float, stop: Sequence[Rule] = ()) -> Certificate:
    """Return the certificate of rows divided by `divisor` (a power of two) in the unit of the rows themselves."""
    if divisor == 1.0:
        return found
    low, margin = (math.nextafter(value * divisor, -math.inf) for value in (found.margin_low, found.margin))
    high = math.nextafter(found.margin_high * divisor, math.inf)
    distance = math.nextafter(found.distance / divisor, math.inf)  # as w scales against the rows
    scaled = replace(found, margin_low=low, margin_high=high, margin=margin, distance=distance)
    if found.kind == "minimiser":
        return scaled
    return judged(scaled, stop, cancels=found.verdict is Status.NOT_SEPARABLE)
