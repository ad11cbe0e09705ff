"""Losses: functions of the margin m = z·w, safe for every exponent.

A loss says its value ℓ(m), its slope −ℓ'(m) >= 0 (the coefficient a row gets in a gradient step) and a bound on its
curvature ℓ''. ``loss_id`` is the integer compiled kernels know it by; they only know losses of one margin. One whose
conjugate ℓ*(−a) = sup_m −a m − ℓ(m) is known well enough for a duality gap is `Conjugated`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from scipy.special import expit

from localgd.errors import check_kind
from localgd.rounding import UNIT_ROUNDOFF, FloatArray


@runtime_checkable
class Loss(Protocol):
    """A convex decreasing function ℓ of the margins m = z·w of a sample's rows.

    `versus` margins next to each other make one value; the mean over a node's rows is over so many times fewer values.
    """

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def loss_id(self) -> int:
        """Number it goes by in compiled kernels."""

    @property
    def versus(self) -> int:
        """How many margins one value is made of; 1 if ℓ is elementwise."""

    def value(self, margin: FloatArray) -> FloatArray:
        """Return ℓ(m) >= 0, one for every `versus` margins."""

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return −∂ℓ/∂m >= 0, the coefficient of each row in a gradient step."""

    @property
    def curvature(self) -> float:
        """Bound on ℓ'' used for the step size; a multiple of I − 11ᵀ/(1 + versus) where versus > 1."""


class Conjugated(Loss, Protocol):
    """A loss of which a duality gap can be bounded: see `localgd.problems.duality_gap`.

    With a dual point a >= 0 in place of the slope, a sample adds d(a, m) = ℓ(m) + ℓ*(−a) + a m to the gap: 0 at the
    slope itself.
    """

    smoothness: ClassVar[float]
    """L: the slope at scores that are off by x adds at most L x²/2."""

    self_concordant: ClassVar[bool]
    """Whether the third derivative along a line is at most the second times how far scores move."""

    def apart(self, error: Any) -> Any:
        """Return how far off scores are, and what is made of them, where margins are off by `error`."""

    def unsure(self, slope: FloatArray) -> FloatArray:
        """Return what the rounding of slopes adds, beside that."""

    def steepness(self, risk: float) -> float:
        """Return a bound on the mean of the slopes, given the mean of ℓ."""

    def repair(self, margin: FloatArray) -> FloatArray:
        """Return g with d((1 − u)a, m) <= u² g for the slope a at m and any share u, 0 to 1, and a² <= 4 L g.

        Of one margin; what several cost, `localgd.problems.balance` knows.
        """


SURE = 1 - 2.0**-20
"""A slope above this is 1 as far as its complement can be told from it by float64."""

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
    versus: ClassVar[int] = 1
    curvature: ClassVar[float] = 0.25
    smoothness: ClassVar[float] = 0.25
    self_concordant: ClassVar[bool] = True

    def value(self, margin: FloatArray) -> FloatArray:
        """Return log(1 + e^(−m))."""
        return np.logaddexp(0.0, -margin)

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return 1/(1 + e^m)."""
        return np.asarray(expit(-margin))

    def bend(self, margin: FloatArray) -> FloatArray:
        """Return ℓ''(m)."""
        return self.slope(margin) * self.slope(-margin)

    def apart(self, error: Any) -> Any:
        """Return the error of the margins."""
        return error

    def unsure(self, slope: FloatArray) -> FloatArray:
        """Return 2⁻⁵⁰ for a slope whose complement is all rounding."""
        return np.asarray(np.where(slope > SURE, 2.0**-50, 0.0))

    def steepness(self, risk: float) -> float:  # noqa: ARG002  whatever the loss
        """Return 1."""
        return 1.0

    def repair(self, margin: FloatArray) -> FloatArray:
        """Return e^(−m): d is the divergence between two coins, KL((1 − u)a, a) <= u² e^(−m)."""
        return np.exp(-margin)


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
    versus: ClassVar[int] = 1
    curvature: ClassVar[float] = 1.0

    def value(self, margin: FloatArray) -> FloatArray:
        """Return e^(−m)."""
        return np.exp(np.minimum(-margin, LARGEST_EXPONENT))

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return e^(−m)."""
        return self.value(margin)

    def bend(self, margin: FloatArray) -> FloatArray:
        """Return ℓ''(m) = e^(−m)."""
        return self.value(margin)


@dataclass(frozen=True)
class SquaredHinge:
    """Squared hinge loss ℓ(m) = max(0, 1 − m)², slope 2 max(0, 1 − m), curvature at most 2: LinearSVC's.

    It is 0 from m = 1 on, so without a penalty any plane that separates the rows is as good as another. The conjugate
    is ℓ*(−a) = a²/4 − a for a >= 0, and d(a, m) = (max(0, 1 − m) − a/2)² + a max(0, m − 1).

    Examples
    --------
    >>> SquaredHinge().value(np.array([-1.0, 0.5, 3.0])).tolist(), SquaredHinge().slope(np.array([-1.0, 3.0])).tolist()
    ([4.0, 0.25, 0.0], [4.0, 0.0])
    """

    name: ClassVar[str] = "squared_hinge"
    loss_id: ClassVar[int] = -1  # none: kernels are for the hard margin, which it does not lead to
    versus: ClassVar[int] = 1
    curvature: ClassVar[float] = 2.0
    smoothness: ClassVar[float] = 2.0
    self_concordant: ClassVar[bool] = False

    def value(self, margin: FloatArray) -> FloatArray:
        """Return max(0, 1 − m)²."""
        return np.square(np.maximum(1.0 - margin, 0.0))

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return 2 max(0, 1 − m)."""
        return 2.0 * np.maximum(1.0 - margin, 0.0)

    def bend(self, margin: FloatArray) -> FloatArray:
        """Return 2 where m < 1, else 0: one of the second derivatives that there are at m = 1."""
        return np.where(margin < 1.0, 2.0, 0.0)

    def apart(self, error: Any) -> Any:
        """Return the error of 1 − m: its own rounding is below that of m, or of 1."""
        return 2 * error + 4 * UNIT_ROUNDOFF

    def unsure(self, slope: FloatArray) -> FloatArray:
        """Return 0."""
        return np.zeros_like(slope)

    def steepness(self, risk: float) -> float:
        """Return 2 √ of the mean of ℓ, as the slope is 2 √ℓ."""
        return 2.0 * math.sqrt(risk) * (1 + 1e-9)

    def repair(self, margin: FloatArray) -> FloatArray:
        """Return ℓ: d((1 − u)a, m) = u² ℓ(m)."""
        return self.value(margin)


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy ℓ = log(1 + Σ_c exp(−m_c)) of C classes, in the margins m_c against the C − 1 wrong ones.

    The slope of row c is p_c = exp(−m_c)/(1 + Σ_c exp(−m_c)), the probability the model gives class c. The Hessian
    diag(p) − ppᵀ is at most ½ (I − 11ᵀ/C): with z_c = (e_y − e_c)⊗x that is ½ (I − 11ᵀ/C)⊗xxᵀ. Two classes make it
    `Logistic`.

    Parameters
    ----------
    versus : int, at least 1
        C − 1.

    Examples
    --------
    >>> loss = Softmax(versus=2)
    >>> loss.slope(np.array([0.0, 0.0, 0.0, -1000.0])).round(4).tolist()
    [0.3333, 0.3333, 0.0, 1.0]
    >>> loss.value(np.array([0.0, 0.0, 0.0, -1000.0])).round(4).tolist()
    [1.0986, 1000.0]
    """

    name: ClassVar[str] = "softmax"
    loss_id: ClassVar[int] = -1  # none: no compiled kernel knows it
    versus: int
    curvature: ClassVar[float] = 0.5
    smoothness: ClassVar[float] = 0.25  # along a line of scores, by how far any two of them move apart
    self_concordant: ClassVar[bool] = True

    def value(self, margin: FloatArray) -> FloatArray:
        """Return log(1 + Σ_c exp(−m_c)) for every sample, shape (n/versus,)."""
        against = -margin.reshape(-1, self.versus)
        most = against.max(axis=1, initial=0.0)
        odds = np.exp(against - most[:, None]) @ np.ones(self.versus)
        return np.asarray(most + np.log1p(odds + np.expm1(-most)))

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return p_c for every row, shape (n,)."""
        against = -margin.reshape(-1, self.versus)
        own: Any = 1.0
        if margin.min(initial=0.0) < -LARGEST_EXPONENT / 2:  # no sum of e^350 overflows
            most = against.max(axis=1, initial=0.0, keepdims=True)
            against, own = against - most, np.exp(-most)
        odds = np.exp(against)
        return np.asarray((odds / (own + odds @ np.ones((self.versus, 1)))).ravel())

    def apart(self, error: Any) -> Any:
        """Return twice the error of the margins: two wrong classes may be off against each other."""
        return 2 * error

    def unsure(self, slope: FloatArray) -> FloatArray:
        """Return 2⁻⁵⁰ for a slope whose complement is all rounding."""
        return np.asarray(np.where(slope > SURE, 2.0**-50, 0.0))

    def steepness(self, risk: float) -> float:  # noqa: ARG002  whatever the loss
        """Return 1."""
        return 1.0


def among(loss: Loss, versus: int) -> Loss:
    """Return the loss for samples that `versus` rows speak for: logistic means softmax where that is more than one.

    The exponential loss stays one of single margins, Σ_c exp(−m_c) up to a factor C − 1.

    Examples
    --------
    >>> among(Logistic(), 1), among(Logistic(), 3)
    (Logistic(), Softmax(versus=3))
    """
    if type(loss) in (Logistic, Softmax):  # what is derived from one is another loss
        return Logistic() if versus == 1 else Softmax(versus)
    return loss


LOSSES: dict[str, Loss] = {"logistic": Logistic(), "exponential": Exponential(), "squared_hinge": SquaredHinge()}
"""The losses by name."""

ELEMENTWISE = (Logistic, Exponential, SquaredHinge)
"""Losses of which each margin has one of its own, in arrays of any shape."""


def conjugated(loss: Loss) -> Any:
    """Return the loss as one that is `Conjugated`, None if it is not: what others derive is another loss.

    Examples
    --------
    >>> conjugated(SquaredHinge()), conjugated(Exponential())
    (SquaredHinge(), None)
    """
    return loss if type(loss) in (Logistic, Softmax, SquaredHinge) else None


def bend(loss: Loss, margin: FloatArray) -> FloatArray:
    """Return ℓ''(m) of a loss of one margin; of one that does not say it, its slope, as of the exponential loss."""
    known: Any = loss
    return np.asarray(known.bend(margin) if type(loss) in ELEMENTWISE else loss.slope(margin))


def loss_named(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss given."""
    if not isinstance(loss, str):
        check_kind("loss", loss, Loss, "the name of a loss, or one such as Logistic()")
        return loss
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; known are {', '.join(LOSSES)}")
    return LOSSES[loss]
