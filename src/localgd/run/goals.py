"""Goals: what must be proved before a run may end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from localgd.core import Problem
from localgd.problems.certificate import Certificate
from localgd.problems.own_model import OwnModel
from localgd.rounding import is_number


class Goal(Protocol):
    """What must be proved. A frozen dataclass, so that a run folder can keep it."""

    def met(self, certificate: Certificate) -> bool:
        """Return whether the certificate proves it."""


@dataclass(frozen=True)
class Angle:
    """The model is within `deg` degrees of the pooled one.

    Parameters
    ----------
    deg : float, 0 to 90
        Degrees.

    Raises
    ------
    ValueError
        If it is not between 0 and 90.

    Examples
    --------
    >>> Angle(1.0).met(Certificate(angle_deg_max=0.3))
    True
    """

    deg: float

    def __post_init__(self) -> None:
        """Check the angle once."""
        if not (is_number(self.deg) and 0 < self.deg < 90):
            raise ValueError(f"angle_tol_deg must be between 0 and 90 degrees, got {self.deg!r}")

    def __str__(self) -> str:
        return f"within {self.deg:g}° of the pooled model"

    def met(self, certificate: Certificate) -> bool:
        """Return whether the certificate proves it."""
        return certificate.angle_deg_max <= self.deg


@dataclass(frozen=True)
class MarginRatio:
    """The model's margin is at least `ratio` times the pooled margin.

    Parameters
    ----------
    ratio : float, 0 to 1
        Share of the pooled margin.

    Raises
    ------
    ValueError
        If it is not between 0 and 1.

    Examples
    --------
    >>> MarginRatio(0.9).met(Certificate(margin=0.5, margin_high=0.52))
    True
    """

    ratio: float

    def __post_init__(self) -> None:
        """Check the share once."""
        if not (is_number(self.ratio) and 0 < self.ratio < 1):
            raise ValueError(f"margin_ratio must be between 0 and 1, got {self.ratio!r}")

    def __str__(self) -> str:
        return f"a margin of at least {self.ratio:g} of the pooled one"

    def met(self, certificate: Certificate) -> bool:
        """Return whether the certificate proves it."""
        return certificate.margin_ratio >= self.ratio


@dataclass(frozen=True)
class Gap:
    """The objective is within `share` of itself of its least value.

    Parameters
    ----------
    share : float > 0
        Largest gap, as a part of the objective.

    Raises
    ------
    ValueError
        If it is not positive.

    Examples
    --------
    >>> Gap(1e-6).met(Certificate(objective_low=2.0, gap=1e-6))
    True
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share once."""
        if not (is_number(self.share) and self.share > 0):
            raise ValueError(f"gap must be a positive share of the objective, got {self.share!r}")

    def __str__(self) -> str:
        return f"an objective within {self.share:g} of itself of its least"

    def met(self, certificate: Certificate) -> bool:
        """Return whether the certificate proves it."""
        return certificate.gap <= self.share * certificate.objective_low


def check_meaning(goal: Goal, problem: Problem) -> None:
    """Refuse a goal that no certificate of this problem could ever prove."""
    if isinstance(problem, OwnModel):
        raise ValueError(  # noqa: TRY004  a problem of another kind is a bad value
            f"{goal}: nothing is proved about a {problem.kind}; leave the goal out"
        )
    if isinstance(goal, Angle | MarginRatio) and not problem.by_margins:
        raise ValueError(f"{goal}: real targets have no margins and no angle; give Gap(…), or leave it out")
    if not problem.certified:
        raise ValueError(f"{goal}: nothing is proved yet about the minimiser of this loss; leave the goal out")
    if isinstance(goal, MarginRatio) and problem.kind != "max-margin":
        raise ValueError(f"{goal}: the {problem.kind} model is not about margins; give Angle(…) or Gap(…)")
