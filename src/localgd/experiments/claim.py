"""What an experiment is: a claim, a grid of cells, rows measured in each, and a verdict computed from the rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import polars as pl

from localgd.report.figure import Panel

Params: TypeAlias = Mapping[str, Any]
"""Plain values by name: text, numbers, whether, or None."""

Rows: TypeAlias = list[dict[str, Any]]
Held: TypeAlias = tuple[float, float, str, str | None]
"""A number, the limit it is held against, the sense, and the words of a limited claim: a `Check` but for `what`."""

Checks: TypeAlias = Mapping[str, Held]
"""What is held against limits, by the number in plain words."""


class Word(StrEnum):
    """What the numbers say about a claim."""

    HOLDS = "holds"
    LIMITED = "holds with limits"
    FAILS = "does not hold"


@dataclass(frozen=True)
class Check:
    """One number computed from the rows, held against a stated limit.

    Parameters
    ----------
    what : str
        The number in plain words, with its unit.
    measured : float
        Its value; NaN never passes.
    limit : float
        What it is held against.
    sense : "at most" or "at least"
        Which side of the limit is right.
    limits : str, optional
        Given for a check of how far the claim reaches: if it fails the claim still stands, within these words. Without
        it a failure refutes the claim, and so does NaN with or without it.

    Examples
    --------
    >>> Check("relative error", 0.02, 0.03).passes, Check("relative error", math.nan, 0.03).passes
    (True, False)
    """

    what: str
    measured: float
    limit: float
    sense: str = "at most"
    limits: str | None = None

    def __post_init__(self) -> None:
        """Refuse a sense nobody knows: it would pass or fail by accident."""
        if self.sense not in ("at most", "at least"):
            raise ValueError(f"sense must be 'at most' or 'at least', got {self.sense!r}")

    @property
    def passes(self) -> bool:
        """Whether the number is on the right side."""
        return self.measured <= self.limit if self.sense == "at most" else self.measured >= self.limit

    @property
    def refutes(self) -> bool:
        """Whether it overturns the claim: a failure without `limits`, or anything that was not measured."""
        return math.isnan(self.measured) or (self.limits is None and not self.passes)


@dataclass(frozen=True)
class Verdict:
    """The checks of a claim and the word they add up to.

    Parameters
    ----------
    checks : tuple of Check
        At least one that can refute the claim.

    Examples
    --------
    >>> verdict = Verdict((Check("error", 0.01, 0.03), Check("at 10 steps", 0.2, 0.03, limits="only up to 5 steps")))
    >>> print(verdict)
    holds with limits: only up to 5 steps
    >>> print(Verdict((Check("error", 0.01, 0.03), Check("at 10 steps", math.nan, 0.03, limits="up to 5 steps"))))
    does not hold: not measured: at 10 steps
    """

    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        """Refuse a verdict that nothing could overturn."""
        if all(check.limits is not None for check in self.checks):
            raise ValueError("a verdict needs at least one check whose failure refutes the claim")

    @property
    def word(self) -> Word:
        """The verdict in one word."""
        if any(check.refutes for check in self.checks):
            return Word.FAILS
        return Word.LIMITED if any(not check.passes for check in self.checks) else Word.HOLDS

    def __str__(self) -> str:
        """Return the word, and the limits or what failed."""
        refuting = [check for check in self.checks if check.refutes]
        reasons = [f"{'not measured: ' * math.isnan(check.measured)}{check.what}" for check in refuting]
        limits = [check.limits for check in self.checks if check.limits is not None and not check.passes]
        said = "; ".join(reasons or limits)
        return f"{self.word}: {said}" if said else str(self.word)


@dataclass(frozen=True)
class Experiment:
    """A claim about Local-GD and everything needed to judge it.

    Parameters
    ----------
    name : str
        What ``localgd reproduce`` calls it.
    title : str
        A heading.
    claim : str
        The statement that is judged, in one or two plain sentences.
    source : str
        Whose claim it is: paper and theorem, or "ours".
    quick, full : sequence of params
        The cells: each a flat mapping of plain values. `quick` takes a minute, `full` what the figures need.
    run : callable
        ``run(params, seed) -> rows``: measure one cell. Rows are flat mappings with the same keys in every cell.
    judge : callable
        ``judge(frame) -> checks``: the verdict's numbers from all rows, by `at_most` and `at_least`.
    draw : callable
        ``draw(frame) -> panels``: the figure from all rows.
    caption : str
        How to read the figure, and what data it shows.
    requires : str, optional
        The extra it needs, such as ``"embed"``.
    module : str, optional
        A module of that extra, to see whether it is there.
    """

    name: str
    title: str
    claim: str
    source: str
    quick: Sequence[Params]
    full: Sequence[Params]
    run: Callable[[Any, int], Rows]
    judge: Callable[[pl.DataFrame], Checks]
    draw: Callable[[pl.DataFrame], Sequence[Panel]]
    caption: str
    requires: str | None = None
    module: str | None = None

    def verdict(self, frame: pl.DataFrame) -> Verdict:
        """Return the verdict on all rows."""
        return Verdict(tuple(Check(what, *held) for what, held in self.judge(frame).items()))

    def seed(self, params: Params) -> int:
        """Return the seed of a cell, from the names of the experiment, the data and the replicate.

        Cells that differ in anything else (method, step size, local steps) share it: they are compared on equal terms.
        """
        named = [self.name, params.get("data"), params.get("replicate")]
        return int.from_bytes(hashlib.sha256(json.dumps(named).encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Result:
    """What became of an experiment: a verdict, or the fault with its traceback, or what it lacks and how to get that.

    `quick` says that its cells are the quick ones, `earlier` that an earlier run into the same folder measured them.
    """

    experiment: Experiment
    n_cells: int = 0
    verdict: Verdict | None = None
    fault: str | None = None
    skipped: str | None = None
    quick: bool = False
    earlier: bool = False

    @property
    def word(self) -> str:
        """The outcome in one word."""
        if self.verdict is not None:
            return str(self.verdict.word)
        return "skipped" if self.fault is None else "failed"

    def __str__(self) -> str:
        """Return the outcome in one sentence."""
        if self.verdict is not None:
            return str(self.verdict)
        said = self.skipped if self.fault is None else self.fault.splitlines()[0]
        return f"{self.word}: {said}"


def worst(values: pl.Series) -> float:
    """Return the largest value; NaN if there is none or any is NaN or missing, so that no check passes on nothing.

    Examples
    --------
    >>> worst(pl.Series([0.1, 0.3])), worst(pl.Series([], dtype=pl.Float64)), worst(pl.Series([0.1, None]))
    (0.3, nan, nan)
    """
    if values.len() == 0 or values.null_count() or values.is_nan().any():
        return math.nan
    return float(values.max())  # type: ignore[arg-type]  # numbers, as just checked


def least(values: pl.Series) -> float:
    """Return the smallest value, on the same terms as `worst`.

    Examples
    --------
    >>> least(pl.Series([0.1, 0.3]))
    0.1
    """
    return -worst(-values)


def at_most(limit: float, values: pl.Series | float, limits: str | None = None) -> Held:
    """Hold a number, or the worst of several, against a limit from above; `limits` as for `Check`.

    Examples
    --------
    >>> Check("relative error", *at_most(0.03, pl.Series([0.01, 0.02])))
    Check(what='relative error', measured=0.02, limit=0.03, sense='at most', limits=None)
    """
    return worst(values) if isinstance(values, pl.Series) else values, limit, "at most", limits


def at_least(limit: float, values: pl.Series | float, limits: str | None = None) -> Held:
    """Hold a number, or the least of several, against a limit from below; `limits` as for `Check`."""
    return least(values) if isinstance(values, pl.Series) else values, limit, "at least", limits
