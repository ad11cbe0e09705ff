"""The hard margin: the pooled max-margin model, and how far a model is from it, proved without pooling a row.

Write γ* = max_{|u|=1} min_i z_i·u for the pooled margin and u* for its direction. For any q >= 0 with Σ q_i = mass and
s = Σ q_i z_i, and any model w,

    min_i z_i·w/|w| <= γ* <= |s|/mass,        cos∠(s, u*) >= γ*·mass/|s|,        cos∠(w, u*) >= min_i z_i·w/(|w| γ*).

The first cosine falls and the second rises as γ* shrinks inside its bracket, so the worse of the best of both is a
bound on the angle; for s = w it is acos sqrt(low/high). Every quantity enters with its rounding error against us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from localgd.core import Report, Task
from localgd.duals.dual import Dual
from localgd.losses import Logistic, Loss, SquaredHinge, among
from localgd.problems.certificate import TELLING_DEG, Certificate, Status
from localgd.problems.metrics import ByMargins, Evaluate, Weighting
from localgd.rounding import (
    TINY,
    UNIT_ROUNDOFF,
    FloatArray,
    acos_above,
    angle_above,
    at_least,
    at_most,
    length_above,
    norm,
    where_they_meet,
)

CLOSE_DEG = 45.0
"""A bound above this is stated, but not called a certificate."""


@dataclass(frozen=True, eq=False)
class MarginProof:
    """What is proved of a run's model so far, and the last dual vector of a round, which speaks of the rows."""

    certificate: Certificate = field(default_factory=Certificate)
    dual: Dual | None = None


@dataclass(frozen=True)
class HardMargin(ByMargins):
    """The pooled max-margin model: argmin |w| subject to z·w >= 1 for every row of every node.

    Local steps go down a loss, whose limit direction it is: logistic or exponential, uniform over nodes by default.

    Examples
    --------
    >>> HardMargin().kind
    'max-margin'
    """

    kind: ClassVar[str] = "max-margin"
    begin: ClassVar[type[MarginProof]] = MarginProof

    certified: ClassVar[bool] = True

    def among(self, versus: int) -> HardMargin:  # noqa: ARG002  margins of rows are all it knows
        """Return it: more than two classes are more rows."""
        return self

    def strength(self, n_samples: float) -> float:  # noqa: ARG002
        """Return λ = 0: a loss that local steps go down for its direction has no penalty."""
        return 0.0

    def loss_for(self, chosen: Loss | None, versus: int) -> Loss:
        """Return the loss that a method goes down: the one it was given, for samples that `versus` rows speak for."""
        if type(chosen) is SquaredHinge:
            raise ValueError(
                "loss='squared_hinge' leads to any plane that separates the rows, as it is 0 from margins of 1 on; "
                "give C (--C 1), as LinearSVC has one, or leave it out for the widest margin"
            )
        return among(Logistic() if chosen is None else chosen, versus)

    def weighting_for(self, chosen: Weighting | None) -> Weighting:
        """Return how a method weighs the nodes: as it was told, else all alike."""
        return "uniform" if chosen is None else chosen

    def look(self, task: Any) -> Task:
        """Return the task of a round that only looks, for a method of this task."""
        return Evaluate(task.loss, task.weighted_by)

    def prove(
        self, proof: MarginProof, state: Any, report: Report, duals: Sequence[Dual], *, whole: bool
    ) -> MarginProof:
        """Return what is proved of the model that a round began with, from the round's report.

        Dual vectors of the same rows from elsewhere may help.
        """
        # Late updates Σ p_m (v_m − w) lean on the rows nearest to the boundary only, so |update|/mass is often the
        # tightest bound; where nothing separates the rows, they tend to 0 while their mass does not: Gordan's proof.
        update = report.duals.get("update")
        last = update if update is not None and update.parts[0] > 0 else proof.dual
        model = state.readout
        found = certificate(
            model.vector,
            float(report.mins.get("margin", math.nan)) if whole else math.nan,
            [model, *([] if last is None else [last]), *duals],
            before=proof.certificate,
            node_high=float(report.mins.get("margin_upper", math.inf)),
            cancels=report.flags.get("cancels", 0) > 0,
        )
        if whole and found.verdict is not Status.CERTIFIED and report.flags.get("underflow", 0) >= report.n_nodes:
            found = replace(found, verdict=Status.STALLED, reason=f"every gradient is 0 in float64; {found.reason}")
        return MarginProof(found, last)

    def unproved(self, proof: MarginProof, state: Any) -> bool:
        """Return whether no dual vector is known, so that the last look is worth a round for some."""
        known = [dual for dual in (state.readout, proof.dual) if dual is not None and dual.known]
        return not known and bool(state.readout.vector.any())


def angle_bound(w: FloatArray, margin: float, duals: Sequence[Dual], low: float, high: float) -> float:
    """Upper bound in degrees on ∠(w, u*), given γ* in [low, high], w's own margin and dual vectors s.

    max over γ in [low, high] of min(acos(margin/γ), ∠(w, s) + acos(γ·mass/|s|)), the least over all s. The first rises
    and the second falls with γ, so at any split the larger of the two is a bound; regula falsi (Illinois) finds the
    split where they meet.

    It takes the model (d,), a lower bound on its own margin min z_i·w/|w|, and any dual vectors, w itself included; 90
    or more says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([1.0, 0.0])
    >>> round(angle_bound(w, 0.5, [Dual.proved(w, 1.0, 0.0)], 0.5, 1.0), 9)  # acos(sqrt(0.5/1))
    45.0
    """
    if not 0 < low <= high:
        return math.inf
    length = _length(w, duals)
    known = [
        (0.0 if dual.vector is w else angle_above(w, dual.vector, (length, dual.length)), dual)
        for dual in duals
        if dual.known
    ]

    def by_margin(gamma: float) -> float:
        return acos_above(margin, gamma) if margin > 0 else math.pi

    def by_duals(gamma: float) -> float:
        return min([apart + dual.angle(gamma) for apart, dual in known], default=math.inf)

    if math.isinf(high):
        return math.degrees(by_duals(low))
    return math.degrees(where_they_meet(by_margin, by_duals, low, high))


def _length(w: FloatArray, duals: Sequence[Dual]) -> float:
    """Return |w|, which a dual that is w itself has computed, or will."""
    return next((dual.length for dual in duals if dual.vector is w), None) or norm(w)


def certificate(
    w: FloatArray,
    margin: float,
    duals: Sequence[Dual],
    *,
    before: Certificate | None = None,
    node_high: float = math.inf,
    cancels: bool = False,
) -> Certificate:
    """Return what is proved about w, a model of length (d,), and the rows.

    `margin` is a lower bound on min z_i·w over all rows of all nodes, NaN if not all nodes spoke; the duals are of the
    same rows, of which `before` is proved already. `node_high` is the smallest upper bound on γ* that a single node
    found for its own rows; `cancels` says that those of a node cancel to within rounding. Bounds that cross are a fault
    of a node, the proof or this program: an ArithmeticError, and nothing of it is published.
    """
    before = Certificate() if before is None else before
    length = _length(w, duals)
    own = math.nan
    if 0 < length < math.inf:
        least = length * (1 - (2 * w.size + 16) * UNIT_ROUNDOFF)
        own = margin / (length_above(length, w.size) if margin > 0 else least)
        own = own * (1 - math.copysign(4 * UNIT_ROUNDOFF, own)) - TINY
    low = before.margin_low if math.isnan(own) else max(before.margin_low, own)
    high = min([before.margin_high, node_high, *(dual.margin_upper for dual in duals)])
    if low > high:
        raise ArithmeticError(
            f"margin bounds crossed ({low!r} > {high!r}): a node said what is not so of its rows, or this is a "
            "bug; please report it, with the data"
        )
    bound = angle_bound(w, own, duals, low, high) if length > 0 else math.inf
    angle = bound if bound <= TELLING_DEG else math.nan
    cancels = cancels or before.verdict is Status.CANCELS or any(dual.cancels for dual in duals)
    return Certificate(low, high, angle, own, *verdict(low, high, angle, cancels=cancels))


def near_max_margin(own: Certificate, before: Certificate, model: FloatArray, w: FloatArray) -> Certificate:
    """Return what is proved of w, given its `own` certificate and one of another model (d,) of the same rows.

    Bounds on the pooled margin hold whatever the model, and the angle is at most that of the other and the one between
    both.
    """
    low, high = max(own.margin_low, before.margin_low), min(own.margin_high, before.margin_high)
    apart = (before.angle_deg_max + math.degrees(angle_above(model, w))) * (1 + 8 * UNIT_ROUNDOFF)
    angle = float(np.fmin(own.angle_deg_max, apart if apart <= TELLING_DEG else math.nan))
    found = replace(own, margin_low=low, margin_high=high, angle_deg_max=angle)
    return judged(found, cancels=Status.CANCELS in {own.verdict, before.verdict})


def judged(found: Certificate, *, cancels: bool) -> Certificate:
    """Return the certificate with its verdict: what is proved, in words."""
    said, reason = verdict(found.margin_low, found.margin_high, found.angle_deg_max, cancels=cancels)
    return replace(found, verdict=said, reason=reason)


def verdict(low: float, high: float, angle: float, *, cancels: bool) -> tuple[Status, str]:
    """Return what bounds on the margin and the angle say, in a word and in a sentence."""
    within = f"within {at_most(angle)}° of the pooled max-margin model"
    if low > 0 and angle <= CLOSE_DEG:
        return Status.CERTIFIED, within
    if low > 0:
        so_far = "no bound on the angle below 90° so far" if math.isnan(angle) else f"{within} so far"
        return Status.SEPARABLE, f"{so_far}; the pooled margin is at least {at_least(low)}"
    if cancels:
        return Status.CANCELS, f"no direction separates the rows by more than {at_most(high, 2)}"
    at_most_so = f"; the pooled margin, if any, is at most {at_most(high)}" if math.isfinite(high) else ""
    return Status.UNDECIDED, f"no model so far is proved to get every row right{at_most_so}"
