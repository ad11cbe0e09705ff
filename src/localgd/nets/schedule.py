"""When ranks sync: how many local steps come before the next time, decided at a sync, in all ranks alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from localgd.errors import check_positive, check_whole


class Period(Protocol):
    """How many local steps come before the next sync."""

    def next(self, before: int, lr: float, drift: float) -> int:
        """Return the number of steps, after a period of `before` (0: none yet), at this step size.

        `drift` is the RMS distance of the ranks' models from their mean, over the mean update's length (0 at first).
        """


@dataclass(frozen=True)
class Every:
    """Sync after the same number of steps each time."""

    steps: int

    def __post_init__(self) -> None:
        check_whole("sync_every", self.steps, 1)

    def next(self, before: int, lr: float, drift: float) -> int:  # noqa: ARG002
        """Return that number."""
        return self.steps


@dataclass(frozen=True)
class Quadratic:
    """``max(base, ⌊(coefficient/lr)²⌋)`` steps."""

    base: int
    coefficient: float

    def __post_init__(self) -> None:
        check_whole("base", self.base, 1)
        check_positive("coefficient", self.coefficient)

    def next(self, before: int, lr: float, drift: float) -> int:  # noqa: ARG002
        """Return the number of steps at this step size."""
        return self.base if lr <= 0 else max(self.base, int((self.coefficient / lr) ** 2))


@dataclass(frozen=True)
class UntilDrift:
    """Twice the steps after a sync that saw less than half the wanted drift, half of them after one that saw more."""

    target: float
    least: int
    most: int

    def __post_init__(self) -> None:
        check_positive("target", self.target)
        check_whole("least", self.least, 1)
        check_whole("most", self.most, self.least)

    def next(self, before: int, lr: float, drift: float) -> int:  # noqa: ARG002
        """Return the number of steps, after a period that ended with this drift."""
        if before == 0:
            return self.least
        following = before // 2 if drift > self.target else before * 2 if drift < self.target / 2 else before
        return min(max(following, self.least), self.most)


def qsr(base: int, coefficient: float) -> Quadratic:
    """Return the quadratic synchronisation rule: the period grows as the step size falls, with 1/lr².

    Parameters
    ----------
    base : int ≥ 1
        Fewest steps between two syncs.
    coefficient : float > 0
        α: there are ``(α/lr)²`` steps where that is more. `lr` is the largest of the optimizer's groups, at the sync.

    References
    ----------
    Gu, Lyu, Arora, Zhang, Huang 2024, arXiv 2310.14423.

    Examples
    --------
    >>> [qsr(4, 0.02).next(4, lr, 0.0) for lr in (0.1, 0.005, 0.002)]
    [4, 16, 100]
    """
    return Quadratic(base, coefficient)


def until_drift(target: float, *, least: int = 1, most: int = 512) -> UntilDrift:
    """Return a period that follows the drift: models may part by `target` times the length of their mean update.

    Parameters
    ----------
    target : float > 0
        Wanted RMS distance of the ranks' models from their mean, over the length of the mean update.
    least, most : int
        Bounds on the steps between two syncs.

    Examples
    --------
    >>> rule = until_drift(0.5, most=64)
    >>> rule.next(0, 0.1, 0.0), rule.next(32, 0.1, 0.1), rule.next(32, 0.1, 0.4), rule.next(32, 0.1, 0.9)
    (1, 64, 32, 16)
    """
    return UntilDrift(target, least, most)
