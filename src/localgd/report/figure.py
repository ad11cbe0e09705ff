"""Figures as data: panels of lines with direct labels, drawn to PNG and SVG. Rows in, pictures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from localgd.rounding import FloatArray
from localgd.run.whole import whole

PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
"""Okabe-Ito, safe for colour-blind readers, with black first and ochre for its yellow, which paper swallows."""

LABEL_GAP = 7.0
"""Points between the axes and the labels beside them."""

BESIDE: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}

KEY_GAP = 11.0
"""Points between a label and the mark before it, of a series without a line that could lead there."""

MOST_WHOLE = 8
"""A logarithmic axis that spans fewer whole numbers shows all of them."""

Style: TypeAlias = Literal["line", "dashed", "dotted", "points", "rings", "hollow", "line+points"]
_MARKS: dict[str, dict[str, Any]] = {
    "line": {"ls": "-"},
    "dashed": {"ls": (0, (5, 2))},
    "dotted": {"ls": (0, (1, 1.5))},
    "points": {"ls": "", "marker": "o", "ms": 4.5},
    "rings": {"ls": "", "marker": "o", "ms": 8.0, "mfc": "none", "mew": 1.3},
    "hollow": {"ls": "", "marker": "o", "ms": 4.5, "mfc": "white", "mew": 1.2, "zorder": 3},
    "line+points": {"ls": "-", "marker": "o", "ms": 3.5},
}


@dataclass(frozen=True)
class Line:
    """A series of points.

    Parameters
    ----------
    x, y : (n,) arrays
        Points that are not finite are left out.
    label : str
        Written beside the end of the line, or, of points that no line joins, behind one of their marks; empty for none.
    color : int
        Place in `PALETTE`.
    style : str
        "line", "dashed", "dotted", "points", "rings" (inside which a point is seen), "hollow" (which hides a point) or
        "line+points".
    low, high : (n,) arrays, optional
        A band around y, such as the spread over seeds.
    notes : sequence of str
        Written above the points, one each; none if it is empty.
    """

    x: ArrayLike
    y: ArrayLike
    label: str = ""
    color: int = 0
    style: Style = "line"
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    notes: Sequence[str] = ()


class _Label(NamedTuple):
    """What is to be written in a column right of the axes, where it belongs, and the mark of points without a line."""

    place: tuple[float | None, float]
    text: str
    color: str
    key: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Parameters
    ----------
    title : str
        What is seen, in a few words.
    xlabel, ylabel : str
        Quantities with their units.
    lines : sequence of Line
        At least one with a finite point.
    log_x, log_y : bool
        Logarithmic axes (only if all values are above 0).
    levels : sequence of (value, text)
        Horizontal lines to compare with.
    categories : sequence of str
        Names for y = 0, 1, 2, … from the top instead of a numeric axis.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    levels: Sequence[tuple[float, str]] = ()
    categories: Sequence[str] = ()


def canvas(width: float, height: float, down: int, across: int) -> tuple[Any, list[Any]]:
    """Return a matplotlib figure that no window shows, and its axes, bare but for a faint grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  half a second that only figures pay
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in grid:
        axes.grid(visible=True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def plain_axis(axis: Any, values: FloatArray, *, log: bool) -> None:
    """Give an axis plain numbers: whole ones where its values are counts, such as rounds.

    With `log` it is scaled by the logarithm where its values allow it, with numbers at 1, 2 and 5.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator  # noqa: PLC0415

    whole = _counts(values)
    if whole:
        axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if not log or values.size < 2 or not values.min() > 0 or values.max() == values.min():
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = np.log10(values.max() / values.min())
    plain = LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,), numticks=12 if decades < 6 else 7)
    if whole and decades < 2:
        low, high = int(values.min()), int(values.max())
        few = [digit * 10**power for power in range(10) for digit in (1, 2, 5) if low <= digit * 10**power <= high]
        steps = MaxNLocator(5, integer=True).tick_values(low, high) if len(few) < 2 else few
        axis.set_major_locator(FixedLocator(list(range(low, high + 1)) if high - low < MOST_WHOLE else steps))
    else:
        axis.set_major_locator(plain)
    axis.set_minor_locator(NullLocator())
    powers = values.min() < 1e-4 or values.max() > 1e6
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value) if powers else f"{value:g}"))


def _counts(values: FloatArray) -> bool:
    """Return whether all are whole numbers, and not just the ends of a share.

    Examples
    --------
    >>> [_counts(np.array(values)) for values in ([1.0], [0.0, 3.0], [0.0, 1.0], [1.0, 2.5])]
    [True, True, False, False]
    """
    return bool((values == np.floor(values)).all() and (values.min() >= 1 or values.max() > 1))


def _power(value: float) -> str:
    """Return 10ᵏ, or 2·10ᵏ and 5·10ᵏ between."""
    exponent = int(np.floor(np.log10(value) + 1e-9))
    digit = round(value / 10.0**exponent)
    return f"{'' if digit == 1 else f'{digit}·'}$10^{{{exponent}}}$"


def figure_of(panels: Sequence[Panel]) -> Any:
    """Return a matplotlib figure of the panels, at most three in a row.

    Raises
    ------
    ValueError
        If there is no panel, or one shows nothing.
    """
    if not panels:
        raise ValueError("a figure needs at least one panel")
    across = 2 if len(panels) in (2, 4) else min(3, len(panels))
    down = -(-len(panels) // across)
    figure, grid = canvas(4.7 * across, 3.7 * down, down, across)
    labels = [_draw(axes, panel) for axes, panel in zip(grid, panels, strict=False)]
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.draw_without_rendering()  # settles the layout, so that labels can be moved apart in pixels
    figure.set_layout_engine("none")
    for axes, written in zip(grid, labels, strict=False):
        _apart(figure, axes, written)
    return figure


def save(panels: Sequence[Panel], stem: Path) -> tuple[Path, Path]:
    """Draw the panels to ``stem.png`` and ``stem.svg`` and return both paths."""
    from matplotlib import rc_context  # noqa: PLC0415  as above

    figure = figure_of(panels)
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with whole(png) as fresh:
        figure.savefig(fresh, dpi=130, format="png", metadata={"Software": None})
    # Fixed salt and no date: the same rows give the same bytes.
    with rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}), whole(svg) as fresh:
        figure.savefig(fresh, format="svg", metadata={"Date": None})
    return png, svg


def _draw(axes: Any, panel: Panel) -> list[tuple[Any, _Label]]:
    """Draw a panel; return its labels, for `_apart` to move, and what they are of."""
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    labels = [label for line in panel.lines if (label := _plot(axes, line))]
    if not axes.lines:
        raise ValueError(f"panel {panel.title!r} shows nothing: none of its lines has a finite point")
    points = np.concatenate([np.asarray(line.get_xydata()) for line in axes.lines])
    plain_axis(axes.xaxis, points[:, 0], log=panel.log_x)
    plain_axis(axes.yaxis, points[:, 1], log=panel.log_y)
    for value, text in panel.levels:
        axes.axhline(value, color="#777777", lw=0.9, ls=(0, (2, 2)), zorder=1)
        labels.append(_Label((None, value), text, "#555555"))
    if panel.categories:
        axes.set_yticks(range(len(panel.categories)), panel.categories)
        axes.set_ylim(len(panel.categories) - 0.5, -0.5)
    right, written = float(axes.get_xlim()[1]), []
    for label in (label for label in labels if label.text):
        (x, y), look = label.place, {"va": "center", "color": label.color, "fontsize": 8.5}
        text = axes.annotate(label.text, (right if x is None else x, y), xytext=(LABEL_GAP, 0), **BESIDE, **look)
        text.set_in_layout(False)  # `_apart` makes the room
        written.append((text, label))
    return written


def _plot(axes: Any, line: Line) -> _Label | None:
    """Draw the finite part of a line; return its label, if there is any of it."""
    from matplotlib.patheffects import withStroke  # noqa: PLC0415  as above

    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return None
    color = PALETTE[line.color % len(PALETTE)]
    marks = dict(_MARKS[line.style])
    key = {} if marks["ls"] else {**marks, "color": color}
    if finite.sum() == 1 and "marker" not in marks:
        marks |= {"marker": "o", "ms": 4.5}  # a single point has no line to show
    axes.plot(x[finite], y[finite], color=color, lw=1.7, **marks)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, dtype=float)[finite], np.asarray(line.high, dtype=float)[finite]
        axes.fill_between(x[finite], low, high, color=color, alpha=0.15, lw=0)
    for place, note in enumerate(line.notes):
        if finite[place]:
            above = {"xytext": (0, 5), "ha": "center", "color": color, "fontsize": 7.5}
            around = [withStroke(linewidth=2.5, foreground="white")]  # where it lies on a line
            axes.annotate(note, (x[place], y[place]), path_effects=around, **BESIDE, **above)
    last = int(np.argmax(np.where(finite, x, -np.inf)))
    return _Label((float(x[last]), float(y[last])), line.label, color, key)


def _apart(figure: Any, axes: Any, written: Sequence[tuple[Any, _Label]]) -> None:
    """Put the labels in a column right of the axes, as near their lines as fits, and make room for that column.

    A thin line leads from a label to the end of its line. One to points would run through others, so their label has
    their mark before it.
    """
    if not written:
        return
    from matplotlib.lines import Line2D  # noqa: PLC0415  as above
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415  as above

    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text, _ in written]
    place = axes.get_position()
    indent = KEY_GAP if any(label.key for _, label in written) else 0.0
    need = max(box.width for box in boxes) + (LABEL_GAP + indent) * figure.dpi / 72 + 4
    axes.set_position([place.x0, place.y0, place.width - need / figure.bbox.width, place.height])
    edge = axes.get_window_extent(renderer)
    ends = [axes.transData.transform(text.xy) for text, _ in written]
    centres = _spread([end[1] for end in ends], [1.1 * box.height for box in boxes], edge.y0)
    points = 72 / figure.dpi
    for (text, label), end, centre in zip(written, ends, centres, strict=True):
        right, up = (edge.x1 - end[0]) * points + LABEL_GAP, (centre - end[1]) * points
        text.set_position((right + (KEY_GAP if label.key else 0.0), up))
        if label.key:
            beside = axes.transAxes + ScaledTranslation((LABEL_GAP + 4) / 72, 0, figure.dpi_scale_trans)
            height = (centre - edge.y0) / edge.height
            axes.add_artist(Line2D([1], [height], transform=beside, clip_on=False, **label.key))
        elif right > 2 * LABEL_GAP or abs(up) > 3:  # a thin line back to the end of the series
            line = {"arrowstyle": "-", "color": text.get_color(), "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2}
            axes.annotate("", text.xy, xytext=(right - 1, up), arrowprops=line, **BESIDE)


def _spread(wanted: Sequence[float], heights: Sequence[float], floor: float) -> FloatArray:
    """Return centres as near as possible to those wanted (least squares), above `floor`, so that none overlap."""
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  as above

    order = np.argsort(wanted, kind="stable")
    tall = np.asarray(heights)[order]
    offsets = np.concatenate([[0.0], np.cumsum((tall[1:] + tall[:-1]) / 2)])
    centres = isotonic_regression(np.asarray(wanted)[order] - offsets).x + offsets
    centres += max(0.0, floor + tall[0] / 2 - centres[0])
    out = np.empty(len(wanted))
    out[order] = centres
    return out
