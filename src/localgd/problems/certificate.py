"""What is proved about a model, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

TELLING_DEG = 89.9
"""A bound above this is as good as none: written to three digits it would be 90°."""


class Status(StrEnum):
    """What became of a run, in words."""

    CERTIFIED = "certified"
    SEPARABLE = "separable, not yet certified"
    UNDECIDED = "undecided"
    CANCELS = "not separable to within rounding"
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
    angle_deg_max : float
        Upper bound in degrees on the angle to the pooled max-margin direction; NaN if there is none below 90.
    angle_deg_min : float
        Lower bound in degrees on that angle; 0 where nothing is proved.
    margin : float
        Lower bound on the model's own margin min z_i·w/|w|; negative if a row is wrong, NaN if not all nodes spoke.
    verdict : Status
        The verdict in a word: what is proved, whatever was asked for.
    reason : str
        The verdict in a sentence.
    kind : str
        What the model is compared with: "max-margin", or "minimiser" of a penalised loss.
    objective : float
        F(w) of a penalised loss, rounded up; NaN for max-margin.
    gap : float
        Upper bound on F(w) − min F; inf if nothing is proved, NaN for max-margin.
    distance : float
        Upper bound on |w − w*|, w* the nearest minimiser, the bias left out where it is free of the penalty; inf and
        NaN likewise.
    objective_low : float
        Lower bound on the F(w) that `objective` is an upper bound on; NaN likewise.
    unpenalised : bool
        Whether that loss has no penalty, so that a minimiser exists only if no plane separates the rows.
    """

    margin_low: float = -math.inf
    margin_high: float = math.inf
    angle_deg_max: float = math.nan
    margin: float = math.nan
    verdict: Status = Status.UNDECIDED
    reason: str = "nothing measured yet"
    kind: str = "max-margin"
    objective: float = math.nan
    gap: float = math.nan
    distance: float = math.nan
    unpenalised: bool = False
    angle_deg_min: float = 0.0
    objective_low: float = math.nan

    @property
    def separable(self) -> bool | None:
        """True if proved; False if the unpenalised loss is proved to have a minimiser; None if open.

        Rows that cancel to within rounding are no proof: those are "not separable to within rounding", and open.
        """
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
        known = self.finite("margin_low", "margin_high", "angle_deg_max", "angle_deg_min", "margin")
        known |= self.finite("objective", "gap", "distance")
        return {"kind": self.kind, **known, "separable": self.separable, "status": self.status}

    def finite(self, *names: str) -> dict[str, float | None]:
        """Return numbers by name; those that are not known are None."""
        values = {name: getattr(self, name) for name in names}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}
