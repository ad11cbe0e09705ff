"""All that a node may send, task by task, as the schemas declare it: the table in docs/privacy.md.

    python tests/privacy/declared.py

writes it anew.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from localgd.core import Field, Message, Schema
from localgd.data import survey
from localgd.data.coding import ClassCounts
from localgd.duals.compressors import Int8
from localgd.engine.flower.records import name_of
from localgd.methods.served import TASKS
from localgd.problems.regularised import Appraise, Curvature, Regularised
from localgd.rules.compressed import Compressed
from localgd.rules.local import GradientSteps
from localgd.rules.project import Project

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
BEGIN, END = "<!-- declared: python tests/privacy/declared.py -->\n", "<!-- end of declared -->\n"

KINDS = {
    "sum": "sums",
    "dual": "duals",
    "max": "maxima",
    "min": "minima",
    "count": "tallies",
    "flag": "flags",
    "per_node": "per node",
}

BIASED = Regularised(C=1.0, intercept=True)
MANY = BIASED.among(2)
MADE = {
    ClassCounts: [ClassCounts((0, 1))],
    survey.Tally: [survey.Tally(("x",), (), ())],
    survey.Moments: [survey.Moments(("x",))],
    Appraise: [Appraise(BIASED), Appraise(MANY)],
    Curvature: [Curvature(BIASED), Curvature(MANY)],
    GradientSteps: [GradientSteps(), GradientSteps(problem=BIASED), GradientSteps(problem=MANY)],
    Compressed: [
        Compressed(task, Int8())
        for task in (GradientSteps(), GradientSteps(problem=BIASED), GradientSteps(problem=MANY), Project())
    ],
}
"""Tasks that need to be told something, or report more with a penalty that leaves the bias free."""

VECTORS = ("predict", "correct", "gradient", "along", "readout")
EVALUATED = {
    "thresholds": np.zeros(1),
    "n_classes": np.array(2.0),
    "cuts": np.zeros((1, 2)),
    "sigmoids": np.zeros((1, 1, 2)),
}
ASKED = [
    {},
    {"odds": np.zeros((0, 2))},
    {"moments": np.array(3.0)},
    {"dependent": np.zeros((1, 3))},
    {"units": np.ones(3)},
    {"line": np.zeros(3), "lengths": np.zeros(2)},
    *({name: np.zeros(3)} for name in VECTORS),
]
"""What messages may ask for beside the model."""


def declared(kind: type) -> Schema:
    """Return all fields that a task declares, on any message."""
    w, always = np.zeros(3), {"tau": np.zeros(1), "mix": np.zeros((2, 4)), **EVALUATED}
    found: dict[str, Field] = {}
    for task, extra in product(MADE.get(kind) or [kind()], ASKED):
        for name, field in task.schema(Message(0, w, {**always, **extra})).items():
            found[name] = field if field.optional or field.unless else found.get(name, field)
    return found


def table() -> str:
    """Return a row for each task: its fields by kind, those in brackets that it need not send."""
    lines = [f"| task | {' | '.join(KINDS.values())} |", f"|{'---|' * (len(KINDS) + 1)}"]
    for kind in TASKS:
        cells: dict[str, list[str]] = {name: [] for name in KINDS}
        for name, field in declared(kind).items():
            plain = "dual-0, dual-1, …" if name == "dual-0" else name
            cells[field.kind].append(f"[{plain}]" if field.optional or field.unless else plain)
        lines.append(f"| `{name_of(kind)}` | {' | '.join(', '.join(names) or '–' for names in cells.values())} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
