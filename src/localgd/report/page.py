"""One page with every claim, its figure, its verdict and the checks behind it; it needs no network and no server."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

SYMBOLS = {"holds": "✔", "holds with limits": "◐", "does not hold": "✘", "failed": "⚠", "skipped": "–"}
"""Every outcome has a sign and a colour: neither alone carries the meaning."""

SEEDS = (
    "Seed of a cell: the first four bytes of the SHA-256 of experiment, data and replicate, so cells that differ in "
    "anything else are compared on equal terms."
)


class CheckLike(Protocol):
    """What the page reads of a check."""

    @property
    def what(self) -> str:
        """The number in plain words."""

    @property
    def measured(self) -> float:
        """Its value."""

    @property
    def limit(self) -> float:
        """What it is held against."""

    @property
    def sense(self) -> str:
        """Which side of the limit is right: "at most" or "at least"."""

    @property
    def limits(self) -> str | None:
        """The words a failure stands for, if it does not refute the claim."""

    @property
    def passes(self) -> bool:
        """Whether the number is on the right side."""

    @property
    def refutes(self) -> bool:
        """Whether it overturns the claim."""


@dataclass(frozen=True)
class Entry:
    """What the page shows of an experiment.

    Parameters
    ----------
    name, title, claim, source, caption : str
        As the experiment says them.
    word : str
        One of `SYMBOLS`.
    text : str
        The verdict in one sentence, or why there is none.
    checks : sequence of CheckLike
        The numbers behind the verdict.
    n_cells : int
        How many cells were measured.
    svg : Path, optional
        The figure.
    trace : str
        Where a failed experiment failed.
    quick : bool
        Whether the cells are the quick ones.
    earlier : bool
        Whether an earlier run into the same folder measured it.
    """

    name: str
    title: str
    claim: str
    source: str
    caption: str
    word: str
    text: str
    checks: Sequence[CheckLike] = ()
    n_cells: int = 0
    svg: Path | None = None
    trace: str = ""
    quick: bool = False
    earlier: bool = False

    def __post_init__(self) -> None:
        """Refuse a word the page has no sign for."""
        if self.word not in SYMBOLS:
            raise ValueError(f"word must be one of {', '.join(map(repr, SYMBOLS))}, got {self.word!r}")

    @property
    def symbol(self) -> str:
        """The sign of the outcome."""
        return SYMBOLS[self.word]

    @property
    def figure(self) -> str:
        """The figure as a data address, so that the page is one file."""
        held = b"" if self.svg is None else self.svg.read_bytes()
        return f"data:image/svg+xml;base64,{base64.b64encode(held).decode('ascii')}"


def page(entries: Sequence[Entry], facts: Mapping[str, str], path: Path, *, command: str) -> None:
    """Write the page.

    Parameters
    ----------
    entries : sequence of Entry
        In the order they are shown.
    facts : mapping
        Names and values for the foot of the page: versions, machine, date.
    path : Path
        HTML to write. Links to rows and figures are relative to it.
    command : str
        The command line that makes the page again.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  only this page pays for it

    source = files("localgd.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    rooms = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    rooms.filters["number"] = number
    shown = {"entries": entries, "facts": facts, "command": command, "seeds": SEEDS}
    counts = {word: sum(entry.word == word for entry in entries) for word in SYMBOLS}
    html = rooms.from_string(source).render(**shown, counts=counts, symbols=SYMBOLS)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.write_text(html, encoding="utf-8")
    fresh.replace(path)


def number(value: float) -> str:
    """Return a number to four digits, or say that there is none.

    Examples
    --------
    >>> number(0.123456), number(-20000.0), number(float("nan"))
    ('0.1235', '−20,000', 'no number')
    """
    if math.isnan(value):
        return "no number"
    shown = f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return shown.replace("-", "−")
