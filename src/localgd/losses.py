"""Losses: functions of the margin m = z·w, safe for every exponent.

A loss says its value ℓ(m), its slope −ℓ'(m) >= 0 (the coefficient a row gets in a gradient step) and a bound on its
curvature ℓ''. ``loss_id`` is the integer compiled kernels know it by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from localgd.core import Loss
from localgd.rounding import FloatArray

LARGEST_EXPONENT = 700.0
"""Exponential slopes stop growing at e^700, short of float64's e^709: finite, and still a non-negative coefficient."""


@dataclass(frozen=True)
class Logistic:
    """Logistic loss ℓ(m) = log(1 + e^(−m)), slope 1/(1 + e^m), curvature at most 1/4.

    Examples
    --------
    >>> loss = Logistic()
    >>> float(loss.slope(np.array([0.0]))[0]), loss.curvature
    (0.5, 0.25)
    >>> float(loss.value(np.array([-1000.0]))[0])
    1000.0
    """

    name: ClassVar[str] = "logistic"
    loss_id: ClassVar[int] = 0
    curvature: ClassVar[float] = 0.25

    def value(self, margin: FloatArray) -> FloatArray:
        """Return log(1 + e^(−m))."""
        return np.logaddexp(0.0, -margin)

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return 1/(1 + e^m)."""
        return np.asarray(expit(-margin))


@dataclass(frozen=True)
class Exponential:
    """Exponential loss ℓ(m) = e^(−m), slope e^(−m).

    Its curvature has no global bound; 1 is the bound wherever the loss is at most 1, which is where gradient descent
    from 0 with step 1/β stays. The exponent is capped at 700 so that a bad step gives a huge number, not an infinity.

    Examples
    --------
    >>> Exponential().slope(np.array([0.0, 1.0])).round(4).tolist()
    [1.0, 0.3679]
    """

    name: ClassVar[str] = "exponential"
    loss_id: ClassVar[int] = 1
    curvature: ClassVar[float] = 1.0

    def value(self, margin: FloatArray) -> FloatArray:
        """Return e^(−m)."""
        return np.exp(np.minimum(-margin, LARGEST_EXPONENT))

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return e^(−m)."""
        return self.value(margin)


LOSSES: dict[str, Loss] = {"logistic": Logistic(), "exponential": Exponential()}
"""The losses by name."""


def loss_named(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss given."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; known are {', '.join(LOSSES)}")
    return LOSSES[loss]
