"""One page with every claim, its figure, its verdict and the checks behind it; it needs no network and no server."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from localgd.experiments.claim import Result
from localgd.run.whole import whole

SYMBOLS = {"holds": "✔", "holds with limits": "◐", "does not hold": "✘", "failed": "⚠", "skipped": "–"}
"""Every outcome has a sign and a colour: neither alone carries the meaning."""

SEEDS = (
    "Seed of a cell: the first four bytes of the SHA-256 of experiment, data and replicate, so cells that differ in "
    "anything else are compared on equal terms."
)


def page(results: Sequence[Result], facts: Mapping[str, str], path: Path, *, command: str) -> None:
    """Write the page to an HTML file, results in the order given; it links to files beside it, and holds the figures.

    `facts` are names and values for its foot: versions, machine, date; `command` is what makes the page again.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  only this page pays for it

    def embedded(result: Result) -> str:
        """Return the figure as a data address, so that the page is one file."""
        held = (path.parent / result.experiment.name / "figure.svg").read_bytes()
        return f"data:image/svg+xml;base64,{base64.b64encode(held).decode('ascii')}"

    source = files("localgd.experiments").joinpath("page.html.j2").read_text(encoding="utf-8")
    rooms = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    rooms.filters |= {"number": number, "embedded": embedded}
    shown = {"results": results, "facts": facts, "command": command, "seeds": SEEDS}
    counts = {word: sum(result.word == word for result in results) for word in SYMBOLS}
    with whole(path) as fresh:
        html = rooms.from_string(source).render(**shown, counts=counts, symbols=SYMBOLS)
        fresh.write_text(html, encoding="utf-8")


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
