"""The history of a run as a figure and a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from localgd.nets.record import Against, Apart, Distance, Sync
from localgd.report.figure import Line, Panel, figure_of, save
from localgd.run.whole import whole

PHASES = ("pack", "wire", "beside", "apply")

NOWHERE = Apart(math.nan, math.nan, math.nan)


def plot(history: Sequence[Sync]) -> Any:
    """Draw how a run went, sync by sync.

    Distance to synchronous training beside its yardstick, comparisons with synchronous steps (where there are any),
    drift, agreement, bytes, and seconds by phase, over local steps.

    Parameters
    ----------
    history : sequence of Sync
        Such as `LocalSGD.history`.

    Returns
    -------
    matplotlib.figure.Figure
        Shown by a notebook as it is; ``.savefig("run.png")`` writes it.

    Raises
    ------
    ValueError
        If there was no sync yet.

    Examples
    --------
    >>> figure = plot([Sync(k, (8, 8), 0.1, 1.0, 0.9, bytes_up=4000, seconds={"wire": 0.1}) for k in range(3)])
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Ranks apart, over the mean update', 'Agreement of updates', 'Sent by a rank', 'Time of a sync']
    """
    return figure_of(panels(history))


def panels(history: Sequence[Sync]) -> list[Panel]:
    """Return the figure as data."""
    if not history:
        raise ValueError("there was no sync yet, so there is nothing to draw")
    x = list(accumulate(max(sync.steps) for sync in history))
    drawn = []
    if any(sync.distance for sync in history):
        found = [sync.distance or Distance(0, NOWHERE, NOWHERE) for sync in history]
        run, other = ([100 * apart.disagreement for apart in pair] for pair in zip(*map(_pairs, found), strict=True))
        lines = [Line(x, other, "synchronous,\nother batches", 0, "dashed"), Line(x, run, "this run", 2)]
        drawn.append(Panel("Predictions unlike synchronous ones", "local steps", "% of probe inputs", lines))
    if any(sync.against_synchronous for sync in history):
        beside = [sync.against_synchronous or Against(math.nan, math.nan) for sync in history]
        cosine, ratio = [each.cosine for each in beside], [each.ratio for each in beside]
        lines = [Line(x, cosine, "cosine", 1, "line+points"), Line(x, ratio, "length", 2, "line+points")]
        drawn.append(Panel("Mean update over synchronous one", "local steps", "ratio", lines))
    drift, agreement = [sync.relative for sync in history], [sync.agreement for sync in history]
    sent = [n_bytes / 1e6 for n_bytes in accumulate(sync.bytes_up for sync in history)]
    drawn += [
        Panel("Ranks apart, over the mean update", "local steps", "drift / length of update", [Line(x, drift)]),
        Panel("Agreement of updates", "local steps", "|mean| / mean length", [Line(x, agreement)]),
        Panel("Sent by a rank", "local steps", "MB, all so far", [Line(x, sent)]),
    ]
    times = {phase: [1e3 * sync.seconds.get(phase, math.nan) for sync in history] for phase in PHASES}
    lines = [Line(x, y, phase, k) for k, (phase, y) in enumerate(times.items()) if any(ms > 1e-2 for ms in y)]
    if lines:
        drawn.append(Panel("Time of a sync", "local steps", "ms", lines, log_y=True))
    return drawn


def _pairs(distance: Distance) -> tuple[Apart, Apart]:
    return distance.run, distance.yardstick


def write(history: Sequence[Sync], folder: Path) -> None:
    """Write ``history.csv``, a row for each sync, and the figure beside it."""
    drawn, rows = panels(history), [_row(sync) for sync in history]
    with whole(folder / "history.csv") as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    save(drawn, folder / "history")


def _row(sync: Sync) -> dict[str, Any]:
    beside, distance = sync.against_synchronous, sync.distance
    row: dict[str, Any] = {"sync": sync.number, "steps": " ".join(map(str, sync.steps))}
    row |= {name: getattr(sync, name) for name in ("drift", "update", "agreement", "bytes_up", "lr")}
    row["left_out"] = " ".join(map(str, sync.left_out))
    row |= {"cosine": beside.cosine, "ratio": beside.ratio} if beside else {"cosine": "", "ratio": ""}
    for name, apart in (("run", distance and distance.run), ("yardstick", distance and distance.yardstick)):
        row |= {f"{name}_{key}": getattr(apart, key, "") for key in ("disagreement", "parameters", "head_deg")}
    return row | {f"{phase}_s": sync.seconds.get(phase, "") for phase in PHASES}
