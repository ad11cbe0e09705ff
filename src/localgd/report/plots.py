"""Figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localgd.report.figure import canvas, plain_axis
from localgd.rounding import FloatArray
from localgd.run.whole import whole

LOW, HIGH, ANGLE, TRUE = "#0072B2", "#D55E00", "#000000", "#009E73"  # Okabe–Ito: safe for colour-blind readers


def convergence(columns: Mapping[str, list[Any]], path: Path) -> None:
    """Draw what is proved against rounds: bounds on the pooled margin (or the duality gap), the angle, the loss.

    `columns` are those of a history (`localgd.run.history.Run.columns`); `path` is the PNG to write.
    """
    rounds = np.asarray(columns["round"], dtype=float)
    late = rounds >= 1
    x = rounds[late]
    low, high, proved, true, loss, gap, accuracy = (
        np.asarray(columns[name], dtype=float)[late]
        for name in ("low", "high", "angle_deg_max", "true_angle_deg", "loss", "gap", "accuracy")
    )
    numbers = not np.isfinite(accuracy).any()  # of real targets there is none
    figure, (margins, angles, losses) = canvas(11, 3.4, 1, 3)
    if np.isfinite(gap).any():
        _line(margins, x, gap, HIGH, "at most", above=True)
        margins.set(title="Objective above its least, proved", ylabel="duality gap")
    else:
        _line(margins, x, high, HIGH, "at most", above=True)
        _line(margins, x, np.where(low > 0, low, np.nan), LOW, "at least", above=False)
        margins.set(title="Pooled margin, proved", ylabel="margin (unit of the rows)")
    drawn = [
        _line(angles, x, proved, ANGLE, "proved", above=True),
        _line(angles, x, true, TRUE, "true", above=False),
    ]
    angles.set(title="Angle to the pooled model", ylabel="angle (degrees)")
    if not any(drawn):
        why = "real targets have none" if numbers else "no bound below 90°"
        angles.text(0.5, 0.5, why, ha="center", va="center", transform=angles.transAxes)
        angles.set(xticks=[], yticks=[])
    _line(losses, x, loss, ANGLE)
    losses.set(title="Training loss", ylabel="objective" if numbers else "mean loss per row")
    for axes in (margins, angles, losses):
        axes.set_xlabel("rounds")
        if axes.lines:
            across, up = np.concatenate([line.get_xydata() for line in axes.lines]).T
            plain_axis(axes.xaxis, across, log=True)
            plain_axis(axes.yaxis, up, log=True)
    with whole(path) as fresh:
        figure.savefig(fresh, dpi=130, format="png")


def _line(axes: Any, x: FloatArray, y: FloatArray, color: str, label: str = "", *, above: bool = True) -> bool:
    """Draw the finite part of a line and name it at its end; return whether there was any."""
    finite = np.isfinite(y)
    if not finite.any():
        return False
    x, y = x[finite], y[finite]
    axes.plot(x, y, color=color, lw=1.8, marker="o" if x.size == 1 else None, ms=4)
    place: dict[str, Any] = {"ha": "left", "va": "bottom" if above else "top", "color": color}
    axes.annotate(label, (x[-1], y[-1]), xytext=(5, 0), textcoords="offset points", **place)
    return True
