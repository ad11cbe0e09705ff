"""How well a model decides, as tables that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table as Grid

from localgd.errors import plain
from localgd.evaluation.measures import Calibration, ClassMetrics, Decision, Interval, NumberMetrics
from localgd.report import text

MOST_NODES = 50
"""Lines of a table of nodes; the file has all of them."""

SAME = 1e-9
"""Bounds that are as near as this to each other are shown as one number."""


def between(bounds: Interval, digits: int = 4) -> str:
    """Return bounds in words, rounded to the safe side; one number where they are the same.

    Examples
    --------
    >>> between(Interval(0.81521, 0.81521)), between(Interval(0.90001, 0.90006)), between(Interval(math.nan, math.nan))
    ('0.8152', '0.9000 to 0.9001', '–')
    >>> between(Interval(0.99996, 0.99996)), between(Interval(1.0, 1.0))
    ('0.9999', '1.0000')
    """
    if math.isnan(bounds.low):
        return "–"
    unit = 10**digits
    low, high = math.floor(bounds.low * unit) / unit, math.ceil(bounds.high * unit) / unit
    if bounds.width < SAME:
        shown = f"{bounds.low:.{digits}f}"  # 1 if it is all, and only then
        return f"{low:.{digits}f}" if float(shown) == 1.0 and bounds.high < 1 - SAME else shown
    return f"{low:.{digits}f} to {high:.{digits}f}"


def number(value: float, digits: int = 4) -> str:
    """Return a number, or a dash where it has no meaning."""
    return between(Interval(value, value), digits)


def parts(found: ClassMetrics | NumberMetrics) -> Iterator[Grid | str]:
    """Yield lines and tables, in the order in which they are read."""
    if isinstance(found, NumberMetrics):
        yield _of_numbers(found)
        return
    yield _introduction(found)
    yield _thresholds(found)
    at = f", above {found.decisions[0].threshold:g}" if len(found.classes) == 2 else ""
    yield f"Rows by class (line) and decision (column){at}:"
    yield _confusion(found)
    if len(found.classes) > 2:
        yield _by_class(found)
    yield f"AUC{' (mean of each class against the rest)' if len(found.classes) > 2 else ''}: {between(found.auc, 5)}"
    if not math.isnan(found.log_loss):
        yield f"log loss {number(found.log_loss)}, Brier score {number(found.brier)}"
    else:
        yield "no log loss, Brier score or calibration: scores are no log-odds (--C 1 or localgd calibrate)"
    if found.calibration is not None:
        yield _calibration(found.calibration)
        yield _in_short(found.calibration)
    if found.nodes:
        yield _nodes(found)
    yield from _doubts(found)


def _introduction(found: ClassMetrics) -> str:
    rows, nodes = text.counted(found.n_rows, "row"), text.counted(found.n_nodes, "node")
    weighted = found.weights.sum() != found.n_rows
    weight = f" of weight {found.weights.sum():,.6g}" if weighted else ""
    positive = f"; positive is {name(found.classes[1])}" if len(found.classes) == 2 else ""
    return f"{rows}{weight} at {nodes}, in {found.n_rounds} rounds{positive}"


def name(label: Any) -> str:
    """Return a label as it is shown."""
    return plain(str(label))


def _columns(grid: Grid, names: Sequence[str], first: str) -> Grid:
    grid.add_column(first, overflow="fold")
    for column in names:
        grid.add_column(column, justify="right")
    return grid


def _thresholds(found: ClassMetrics) -> Grid:
    two = len(found.classes) == 2
    kind = "probability" if not math.isnan(found.log_loss) else "score"
    title = f"Decisions: positive above a {kind}" if two else "Decisions: the class of the largest score"
    names = ["accuracy", *(("sensitivity", "specificity", "PPV", "NPV") if two else ("macro F1",))]
    grid = _columns(Grid(title=title, title_justify="left"), names, "above" if two else "")
    for decision in found.decisions:
        measures = [decision.sensitivity, decision.specificity, decision.ppv, decision.npv] if two else []
        shown = [decision.accuracy, *(measures or [decision.macro_f1])]
        grid.add_row(f"{decision.threshold:g}" if two else "model", *map(between, shown))
    grid.add_row("majority", number(found.majority), *[""] * (len(names) - 1))
    return grid


def _confusion(found: ClassMetrics) -> Grid:
    table = _columns(Grid(), [name(label) for label in found.classes], "")
    for line, label in enumerate(found.classes):
        table.add_row(name(label), *(_cell(found.decisions[0], line, column) for column in range(len(found.classes))))
    return table


def _cell(decision: Decision, line: int, column: int) -> str:
    low, high = float(decision.low[line, column]), float(decision.high[line, column])
    return f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"


def _by_class(found: ClassMetrics) -> Grid:
    grid = _columns(Grid(title="Each class against the rest", title_justify="left"), ["F1", "AUC"], "class")
    for place, (label, area) in enumerate(found.areas.items()):
        grid.add_row(name(label), between(found.decisions[0].f1(place)), between(area, 5))
    return grid


def _calibration(of: Calibration) -> Grid:
    title = "Calibration: what is said, and what happens"
    grid = _columns(
        Grid(title=title, title_justify="left"), ["rows", "mean probability", "share positive"], "probability"
    )
    for place, weight in enumerate(of.weights):
        span = f"{place / 10:.1f}–{place / 10 + 0.1:.1f}"
        grid.add_row(span, f"{weight:,.6g}", number(of.predicted[place]), number(of.observed[place]))
    return grid


def _in_short(of: Calibration) -> str:
    if math.isnan(of.slope):
        return "no calibration slope: the scores tell the classes apart, or there is one class only"
    mixed = f"; {of.mixed.sum():,.6g} rows stand in a bin with those of its neighbour" if of.mixed.any() else ""
    intercept = round(of.intercept, 4) + 0.0  # no −0
    return f"calibration intercept {intercept:.4f} (0 is right), slope {of.slope:.4f} (1 is right){mixed}"


def _nodes(found: ClassMetrics) -> Grid:
    cut = found.decisions[0].threshold
    title = "Node by node" + (f", at {cut:g}" if len(found.classes) == 2 else "")
    likely = not math.isnan(found.log_loss)
    names = ["rows", "majority", "accuracy", "AUC", *(["log loss", "Brier"] if likely else [])]
    grid = _columns(Grid(title=title, title_justify="left"), names, "node")
    for node, own in list(found.nodes.items())[:MOST_NODES]:
        decision = own.decisions[0]
        area = sum(own.areas.values()) / len(own.areas)
        losses = [number(own.log_loss), number(own.brier)] if likely else []
        majority = number(float(decision.weights.max() / decision.weights.sum()))
        grid.add_row(plain(node), f"{own.weight:,.6g}", majority, between(decision.accuracy), number(area), *losses)
    if len(found.nodes) > MOST_NODES:
        grid.add_row(f"… {len(found.nodes) - MOST_NODES} more", *[""] * len(names))
    return grid


def _doubts(found: ClassMetrics) -> Iterator[str]:
    """Yield why numbers are bounds."""
    if found.min_group > 1 and not (all(decision.exact for decision in found.decisions) and found.auc.width < 1e-4):
        yield f"bounds are as wide as they are because nodes tell no cell of fewer than {found.min_group} rows"


def _of_numbers(found: NumberMetrics) -> Grid:
    rows = f"{text.counted(found.n_rows, 'row')} in {found.n_rounds} rounds"
    names = ["weight", "R²", "RMSE", "MAE"]
    grid = _columns(Grid(title=f"Predicted numbers: {rows}", title_justify="left"), names, "")
    for node, one in [("all", found), *list(found.nodes.items())[:MOST_NODES]]:
        grid.add_row(plain(node), f"{one.weight:,.6g}", number(one.r2), f"{one.rmse:.6g}", f"{one.mae:.6g}")
    return grid
