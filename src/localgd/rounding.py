"""What float64 can be trusted with: norms, sums and angles rounded to the safe side.

A relative error bound says nothing once numbers underflow, so every bound also carries an absolute part, `TINY`, the
smallest normal number; and norms are those of vectors scaled by a power of two, so that no square is lost.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2
"""Largest relative error of one float64 operation, 2⁻⁵³."""

SMALLEST = math.ulp(0.0)
TINY = float(np.finfo(np.float64).tiny)
"""Smallest normal float64: more than underflow can take from a sum of fewer than 2⁵⁰ terms."""

COMFORTABLE_EXPONENT = 100
"""Rows of norm 2⁻¹⁰⁰ to 2¹⁰⁰ leave float64 room for every square and product in localgd."""

LEAST_SQUARE = 2.0**-800
"""A sum of squares from here to its inverse has lost none to underflow that counts, and none to overflow."""

CANCELS = 8.0
"""A combination of rows shorter than this many times its own rounding error is said to cancel."""


def frozen(array: Any, dtype: Any = np.float64) -> FloatArray:
    """Return `array` as read-only float64; a copy if it, or what it is a view of, can be written to."""
    out = np.asarray(array, dtype=dtype)
    return read_only(out.copy(), dtype) if writable(out) else out


def writable(array: NDArray[Any]) -> bool:
    """Return whether an array, or what it is a view of, can be written to."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return bool(array.flags.writeable or owner.flags.writeable)


def real_array(name: str, values: Any, dtype: Any = np.float64) -> FloatArray:
    """Return what users gave for an array as `frozen` does; refuse what holds anything but real numbers, by name.

    Examples
    --------
    >>> real_array("weights", ["1", "2"])
    Traceback (most recent call last):
    ValueError: weights must be an array of real numbers, got ['1', '2']
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind in "biufO":  # of objects, those that become numbers; texts, which would, are none
            return frozen(given, dtype)
    except (TypeError, ValueError):  # rows of unlike lengths, or objects that are no numbers
        pass
    raise ValueError(f"{name} must be an array of real numbers, got {reprlib.repr(values)}")


def vector(name: str, values: Any) -> FloatArray:
    """Return what users gave for a vector, read-only; refuse by name what is none, or not finite."""
    given = real_array(name, values)
    if given.ndim != 1 or not np.isfinite(given).all():
        what = f"shape {given.shape}" if given.ndim != 1 else "NaN or infinite entries"
        raise ValueError(f"{name} must be a finite vector, got {what}")
    return given


def is_number(value: Any) -> bool:
    """Return whether a setting is a real number, and no truth value, which Python counts with, too.

    Examples
    --------
    >>> is_number(0.5), is_number(np.int64(2)), is_number(True), is_number("0.5")
    (True, True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any, least: int = 0) -> bool:
    """Return whether a setting is a whole number, and at least so large.

    Examples
    --------
    >>> is_whole(np.int64(2), least=1), is_whole(2.0), is_whole(True)
    (True, False, False)
    """
    if type(value) is int:  # of each report; an abstract class takes long to ask
        return value >= least
    return isinstance(value, Integral) and is_number(value) and int(value) >= least


def read_only(array: Any, dtype: Any = np.float64) -> FloatArray:
    """Make an array of our own read-only float64 in place, without a copy."""
    out = np.asarray(array, dtype=dtype)
    out.flags.writeable = False
    return out


def norm(vector: FloatArray) -> float:
    """Return |v| to about size·2⁻⁵³, whatever its magnitude, and to the same bits on any number of threads.

    Examples
    --------
    >>> f"{norm(np.array([3e-200, 4e-200])):.12g} {norm(np.array([3e200, 4e200])):.12g}"
    '5e-200 5e+200'
    """
    with np.errstate(over="ignore"):  # what has no square, or no norm, in float64 is scaled, or infinite
        total = float(np.add.reduce(np.square(vector)))
        if LEAST_SQUARE <= total <= 1 / LEAST_SQUARE:
            return math.sqrt(total)
        largest = float(np.abs(vector).max(initial=0.0))
        if largest == 0.0 or not math.isfinite(largest):
            return largest
        exponent = math.frexp(largest)[1]
        squares = np.square(np.ldexp(vector, -exponent))
        return float(np.ldexp(np.sqrt(np.add.reduce(squares)), exponent))


def norm_above(vector: FloatArray) -> float:
    """Return an upper bound on |v|."""
    out: float = length_above(norm(vector), vector.size)
    return out


def length_above(length: Any, size: int) -> Any:
    """Return an upper bound on |v|, given the computed one of so many entries."""
    return length * (1 + (2 * size + 16) * UNIT_ROUNDOFF) + TINY


def norms(vectors: FloatArray) -> FloatArray:
    """Return the norm of every row of (k, d), or of one vector, with the bits of `norm`."""
    if vectors.ndim == 1:
        return np.asarray(norm(vectors))
    with np.errstate(over="ignore"):
        totals = np.add.reduce(np.square(vectors), axis=-1)
        plain = (totals >= LEAST_SQUARE) & (totals <= 1 / LEAST_SQUARE)
        lengths: FloatArray = np.sqrt(totals)
    for place in np.flatnonzero(~plain):
        lengths[place] = norm(vectors[place])
    return lengths


def norms_above(squares: Any, exponents: Any, terms: int) -> FloatArray:
    """Return upper bounds on norms, given the computed squares of vectors of so many entries over 2^exponent each."""
    with np.errstate(over="ignore"):  # a norm beyond float64 is infinite, and says so
        return read_only(np.ldexp(np.sqrt(squares) * (1 + (2 * terms + 16) * UNIT_ROUNDOFF), exponents) + TINY)


def below(total: Any, terms: int) -> Any:
    """Return a lower bound on the exact sum of so many non-negative numbers, given the computed one."""
    return total * (1 - 2 * (terms + 4) * UNIT_ROUNDOFF) - TINY


def within_range(low: float) -> float:
    """Return a lower bound on a number of at least 0, as computed: 0 where that left float64, or is below it.

    Of a product that is infinite one factor may be far below 1 yet, so an infinity bounds nothing from below.

    Examples
    --------
    >>> within_range(2.0), within_range(-1.0), within_range(math.inf), within_range(math.nan)
    (2.0, 0.0, 0.0, 0.0)
    """
    return low if 0 < low < math.inf else 0.0


def margin_above(length: Any, mass: Any, error: Any) -> Any:
    """Return an upper bound on γ* by a dual: (|s| + error)/Σ q_i, given bounds on the three."""
    return (length + error) / mass * (1 + 8 * UNIT_ROUNDOFF) + TINY


def acos_above(along: float, length: float) -> float:
    """Return the angle whose cosine is along/length, rounded up and accurate near 0; 0 where along >= length.

    Examples
    --------
    >>> round(math.degrees(acos_above(1.0, 2.0)), 9), acos_above(1.0, 1.0)
    (60.0, 0.0)
    """
    if along >= length:
        return 0.0
    # Two roots, not the root of a product that may vanish or overflow.
    opposite = math.sqrt(length - along) * math.sqrt(length + max(along, -length))
    return math.atan2(opposite, along) * (1 + 1e-14)


def angle_above(a: FloatArray, b: FloatArray, lengths: tuple[float, float] | None = None) -> float:
    """Return the angle in radians between two vectors, rounded up (Kahan's formula); inf if one is 0 or not finite.

    The `lengths` are their norms, as `norm` computes them, if they are known.
    """
    lengths = (norm(a), norm(b)) if lengths is None else lengths
    if not all(0 < length < math.inf for length in lengths):
        return math.inf
    if not all(LEAST_SQUARE < length < 1 / LEAST_SQUARE for length in lengths):
        a, b = (np.ldexp(v, -math.frexp(length)[1]) for v, length in zip((a, b), lengths, strict=True))
        lengths = norm(a), norm(b)
    a, b = a / lengths[0], b / lengths[1]
    return 2 * math.atan2(norm(a - b), norm(a + b)) + (4 * a.size + 32) * UNIT_ROUNDOFF


def angle_deg(a: FloatArray, b: FloatArray) -> float:
    """Return the angle between two vectors in degrees, accurate to the last digits near 0 and 180 too.

    ``2 atan2(|a/|a| − b/|b||, |a/|a| + b/|b||)``; nan if either is the zero vector.

    Parameters
    ----------
    a, b : (d,) float64 array
        Two vectors of any length.

    Returns
    -------
    float
        Degrees in [0, 180], or nan.

    Notes
    -----
    Kahan (2006), *How futile are mindless assessments of roundoff in floating-point computation?*, section 12.

    Examples
    --------
    >>> angle_deg(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    45.0
    >>> float(f"{angle_deg(np.array([1.0, 0.0]), np.array([1.0, 1e-12])):.6e}")
    5.729578e-11
    """
    if not (np.any(a) and np.any(b)):
        return float("nan")
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that no square under- or overflows
    a, b = a / norm(a), b / norm(b)
    return float(np.degrees(2.0 * np.arctan2(norm(a - b), norm(a + b))))


def where_they_meet(
    rising: Callable[[float], float], falling: Callable[[float], float], left: float, right: float
) -> float:
    """Return about the value at which the two are the same, from above: the smallest larger one of any split tried.

    Regula falsi, where an end that stays weighs half the next time (Illinois). Of two that do not meet it is the most
    that the smaller one gets to.

    Examples
    --------
    >>> where_they_meet(lambda x: x, lambda x: 2 - x, 0.5, 2.0)
    1.0
    >>> where_they_meet(lambda x: x, lambda x: 2 - x, 0.5, 0.75), where_they_meet(lambda x: x, lambda x: -x, 1.0, 2.0)
    (0.75, -1.0)
    """
    bound, over = rising(right), falling(left) - rising(left)
    if over <= 0:
        return falling(left)
    under = bound - falling(right)
    if under <= 0:
        return bound
    side, middle = 0, math.sqrt(left) * math.sqrt(right)  # where they do for the model itself
    for _ in range(60):
        least, most = math.nextafter(left, right), math.nextafter(right, left)
        if least >= right:
            break
        middle = min(max(middle, least), most)
        up, down = rising(middle), falling(middle)
        bound = min(bound, max(up, down))
        if abs(down - up) <= UNIT_ROUNDOFF * bound:
            break
        if down > up:
            left, over, under, side = middle, down - up, under / 2 if side > 0 else under, 1
        else:
            right, over, under, side = middle, over / 2 if side < 0 else over, up - down, -1
        middle = left + (right - left) * (over / (over + under))
    return bound


def at_most(value: float, digits: int = 3) -> str:
    """Write an upper bound to so many digits, rounded up: what is shown is proved, too.

    Examples
    --------
    >>> at_most(28.2401), at_most(1e-12), at_most(0.5)
    ('28.3', '1e-12', '0.5')
    """
    return _digits(value, digits, ROUND_CEILING)


def at_least(value: float, digits: int = 3) -> str:
    """Write a lower bound to so many digits, rounded down.

    Examples
    --------
    >>> at_least(0.118699), at_least(2.0)
    ('0.118', '2')
    """
    return _digits(value, digits, ROUND_FLOOR)


def _digits(value: float, digits: int, rounding: str) -> str:
    near = f"{value:.{digits}g}"
    if float(near) >= value if rounding == ROUND_CEILING else float(near) <= value:
        return near  # decimals take long, and half of the numbers need none
    return f"{float(Context(prec=digits, rounding=rounding).create_decimal(repr(float(value)))):.{digits}g}"
