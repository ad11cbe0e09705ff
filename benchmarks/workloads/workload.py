"""A workload: rows, contenders that do the same to them, and the ratio that localgd must not exceed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[], Any]
"""What is timed. Its answer is compared with localgd's."""

Contender = Callable[[Any], Run]
"""Given the rows, lays them out as a program would before it trains, and returns what is timed."""


@dataclass(frozen=True)
class Limit:
    """localgd may take `ratio` times the seconds of a contender, or of the fastest of several."""

    ratio: float
    contenders: tuple[str, ...]
    ours: str = "localgd"


@dataclass(frozen=True)
class Workload:
    """One line of work that several programs do.

    Parameters
    ----------
    name : str
        W1, W2, …
    what : str
        Sizes, in words.
    rows : callable
        Makes the rows, from a seed: the same in every process.
    contenders : mapping from name to Contender
        Who takes part; one whose library is not there is left out by its ImportError.
    limits : sequence of Limit
        What localgd is held to.
    apart : callable
        How far two answers are apart, a number of at least 0.
    tolerance : float
        How far they may be.
    slow : set of str
        Contenders that run once, and only if asked for.
    """

    name: str
    what: str
    rows: Callable[[], Any]
    contenders: Mapping[str, Contender]
    limits: tuple[Limit, ...] = ()
    apart: Callable[[Any, Any], float] = field(default=lambda ours, theirs: 0.0)  # noqa: ARG005
    tolerance: float = 1e-10
    slow: frozenset[str] = frozenset()
