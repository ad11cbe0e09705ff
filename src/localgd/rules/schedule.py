"""How a step size goes down from round to round, said in a word, so that it can be sent and written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

SCHEDULES = "constant, inverse-sqrt, inverse-time, step:ROUNDS[:GAMMA], cosine:ROUNDS[:ALPHA]"
"""The schedules, as they are written."""

LEAST = 2.0**-100
"""No factor is smaller: a step of 0 would pass for a gradient of 0."""


def factor(schedule: str, round_: int) -> float:
    """Return what the step size is multiplied with in a round.

    k counts the rounds from 0.

    ========================  ==============================================================
    ``constant``              1
    ``inverse-sqrt``          1/√(k + 1)
    ``inverse-time``          1/(k + 1)
    ``step:ROUNDS:GAMMA``     γ to the number of whole times that ROUNDS fits into k (γ = 0.1)
    ``cosine:ROUNDS:ALPHA``   α + (1 − α)(1 + cos(π k/ROUNDS))/2 up to ROUNDS, then α (α = 0)
    ========================  ==============================================================

    Parameters
    ----------
    schedule : str
        One of these.
    round_ : int, at least 0
        The round k.

    Returns
    -------
    float in (0, 1]
        The factor, but 2⁻¹⁰⁰ where it is less.

    Raises
    ------
    ValueError
        If there is no such schedule, or one of its numbers is out of range.

    Notes
    -----
    The names are those of PyTorch (``StepLR``) and optax (``cosine_decay_schedule``).

    Examples
    --------
    >>> factor("inverse-sqrt", 3), factor("step:30:0.5", 60), factor("cosine:100", 50)
    (0.5, 0.25, 0.5)
    """
    if not isinstance(schedule, str):
        raise ValueError(f"lr_schedule must be one of {SCHEDULES}, got {schedule!r}")  # noqa: TRY004  a bad value
    return min(max(_read(schedule)(round_), LEAST), 1.0)


def spent(task: Any, round_: int) -> str:
    """Return why a task takes no step from a round on, if that is so: its factors have come down to nothing.

    Examples
    --------
    >>> from localgd.rules.local import GradientSteps
    >>> [spent(GradientSteps(lr_schedule="cosine:10"), round_) for round_ in (9, 10)]
    ['', "lr_schedule='cosine:10' leaves no step after round 10: let it end later, or above 0"]
    """
    schedule = getattr(task, "lr_schedule", "constant")
    if factor(schedule, round_) > LEAST:  # and no factor is larger than one before it
        return ""
    return f"lr_schedule={schedule!r} leaves no step after round {round_}: let it end later, or above 0"


@cache
def _read(schedule: str) -> Callable[[int], float]:
    """Return a schedule as a function of the round."""
    name, *numbers = schedule.split(":")
    match name, numbers:
        case "constant", []:
            return lambda _: 1.0
        case "inverse-sqrt", []:
            return lambda k: 1 / math.sqrt(k + 1)
        case "inverse-time", []:
            return lambda k: 1 / (k + 1)
        case "step", [rounds, *more] if len(more) <= 1:
            every, gamma = _rounds(schedule, rounds), _share(schedule, *more, default=0.1)
            if gamma == 0:
                raise ValueError(f"lr_schedule={schedule!r}: GAMMA must be above 0")
            return lambda k: gamma ** (k // every)
        case "cosine", [rounds, *more] if len(more) <= 1:
            last, alpha = _rounds(schedule, rounds), _share(schedule, *more, default=0.0)
            return lambda k: alpha + (1 - alpha) * (1 + math.cos(math.pi * min(k, last) / last)) / 2
    raise ValueError(f"lr_schedule must be one of {SCHEDULES}, got {schedule!r}")


def _rounds(schedule: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"lr_schedule={schedule!r}: ROUNDS must be a whole number of at least 1, got {text!r}")
    return int(text)


def _share(schedule: str, text: str = "", *, default: float) -> float:
    """Return a number from 0 to 1."""
    try:
        share = float(text) if text else default
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"lr_schedule={schedule!r}: GAMMA and ALPHA must be numbers from 0 to 1, got {text!r}")
    return share
