"""What is done with the mean update of all ranks: the outer step of DiLoCo, SlowMo, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localgd.errors import check_flag, check_positive


@dataclass(frozen=True)
class Outer:
    """Gradient descent with momentum, whose gradient is minus the mean update Δ̄ of a sync.

    ``u ← μ·u + Δ̄``, then ``x ← anchor + lr·u``, or ``x ← anchor + lr·(Δ̄ + μ·u)`` after Nesterov.

    Parameters
    ----------
    lr : float > 0
        Length of the step: 1 takes the mean update as it is.
    momentum : float in [0, 1)
        μ. Above 0 it takes one more copy of the parameters, u.
    nesterov : bool
        Whether the step looks ahead.

    Examples
    --------
    >>> Outer(lr=0.7, momentum=0.9, nesterov=True) == diloco()
    True
    """

    lr: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_positive("momentum", self.momentum, or_zero=True)
        check_flag("nesterov", self.nesterov)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, or updates never fade; got {self.momentum!r}")

    def move(self, anchor: Any, total: Any, memory: Any, factor: float) -> None:
        """Take the outer step of a sum of updates, of which the mean is `factor` times as long; u and x, in place."""
        if not self.momentum:
            anchor.add_(total, alpha=self.lr * factor)
            return
        memory.mul_(self.momentum).add_(total, alpha=factor)
        if self.nesterov:
            anchor.add_(total, alpha=self.lr * factor).add_(memory, alpha=self.lr * self.momentum)
        else:
            anchor.add_(memory, alpha=self.lr)


def average() -> Outer:
    """Return the outer step of Local-SGD (FedAvg): the mean of the models.

    Examples
    --------
    >>> average()
    Outer(lr=1.0, momentum=0.0, nesterov=False)
    """
    return Outer()


def slowmo(*, lr: float = 1.0, momentum: float = 0.5) -> Outer:
    """Return SlowMo's outer step: heavy-ball momentum over the mean updates, at a constant inner step size.

    The paper divides updates by the inner step size and multiplies the step by it; of a constant one nothing is left.

    References
    ----------
    Wang, Tantia, Ballas, Rabbat 2020, arXiv 1910.00643, algorithm 1.

    Examples
    --------
    >>> slowmo().momentum
    0.5
    """
    return Outer(lr, momentum)


def diloco(*, lr: float = 0.7, momentum: float = 0.9) -> Outer:
    """Return DiLoCo's outer step: Nesterov's momentum over the mean updates, which torch's SGD with `nesterov` takes.

    References
    ----------
    Douillard et al. 2023, arXiv 2311.08105, algorithm 1.

    Examples
    --------
    >>> diloco(lr=0.5).lr
    0.5
    """
    return Outer(lr, momentum, nesterov=True)
