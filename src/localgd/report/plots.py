"""Figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

LOW, HIGH, ANGLE, TRUE = "#0072B2", "#D55E00", "#000000", "#009E73"  # Okabe–Ito: safe for colour-blind readers


def convergence(columns: Mapping[str, list[Any]], path: Path) -> None:
    """Draw what is proved against rounds: bounds on the pooled margin, certified (and true) angle, loss.

    Parameters
    ----------
    columns : mapping
        The columns of a history (`localgd.train.Run.columns`).
    path : Path
        PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  half a second that only figures pay
    from matplotlib.figure import Figure  # noqa: PLC0415

    rounds = np.asarray(columns["round"], dtype=float)
    late = rounds >= 1
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    margins, angles, losses = figure.subplots(1, 3)
    _line(margins, rounds[late], _array(columns, "high")[late], HIGH, "at most")
    _line(margins, rounds[late], np.maximum(_array(columns, "low")[late], 0.0), LOW, "at least")
    margins.set(title="Pooled margin, proved", ylabel="margin (unit of the rows)")
    margins.set_yscale("symlog", linthresh=_smallest(_array(columns, "low")[late]))
    proved = _line(angles, rounds[late], _array(columns, "angle_deg_max")[late], ANGLE, "proved: at most")
    true = _line(angles, rounds[late], _array(columns, "true_angle_deg")[late], TRUE, "true")
    angles.set(title="Angle to the pooled model", ylabel="angle (degrees)")
    angles.set_yscale("log" if proved or true else "linear")
    if not (proved or true):
        angles.text(0.5, 0.5, "no bound below 90°", ha="center", va="center", transform=angles.transAxes)
    _line(losses, rounds[late], _array(columns, "loss")[late], ANGLE, "")
    losses.set(title="Training loss", ylabel="mean loss per row")
    if (_array(columns, "loss")[late] > 0).all():
        losses.set_yscale("log")
    for axes in (margins, angles, losses):
        axes.set_xlabel("rounds")
        if late.sum() > 1:
            axes.set_xscale("log")
        axes.grid(visible=True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def _array(columns: Mapping[str, list[Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(columns[name], dtype=np.float64)


def _smallest(low: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    positive = low[low > 0]
    return float(positive.min()) if positive.size else 1e-3


def _line(axes: Any, x: Any, y: Any, color: str, label: str) -> bool:
    """Draw the finite part of a line; return whether there was any."""
    finite = np.isfinite(y)
    if not finite.any():
        return False
    axes.plot(x[finite], y[finite], color=color, lw=1.8, marker="o" if finite.sum() == 1 else None, label=label or None)
    return True
