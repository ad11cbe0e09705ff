"""How well a model decides, as tables, sentences and figures that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table as Grid

from localgd.errors import plain
from localgd.evaluation.left_out import LeftOut
from localgd.evaluation.measures import Calibration, ClassMetrics, Curve, Decision, Interval, NumberMetrics
from localgd.report import text
from localgd.report.figure import Line, Panel

MOST_NODES = 50
"""Lines of a table of nodes; the file has all of them."""

MOST_DRAWN = 40
"""Nodes of a figure, for the same reason."""

FEW = 10
"""Bins of a calibration with fewer rows are drawn otherwise: chance alone may move their share by 0.16 and more."""

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
        ways = "(`localgd train --C 1` or `localgd calibrate`)"
        yield f"no log loss, Brier score or calibration: scores are no log-odds {ways}"
    if found.calibration is not None:
        yield _calibration(found.calibration)
        yield _in_short(found.calibration)
    if found.nodes:
        yield _nodes(found, "Node by node")
    yield from _doubts(found)


def _introduction(found: ClassMetrics) -> str:
    rows, nodes = text.counted(found.n_rows, "row"), text.counted(found.n_nodes, "node")
    weight = f" of weight {found.weights.sum():,.6g}" if _weighted(found) else ""
    positive = f"; positive is {name(found.classes[1])}" if len(found.classes) == 2 else ""
    return f"{rows}{weight} at {nodes}, in {found.n_rounds} rounds{positive}"


def _weighted(found: ClassMetrics) -> bool:
    return bool(found.weights.sum() != found.n_rows)


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


def set_aside(found: ClassMetrics | NumberMetrics) -> Iterator[Grid]:
    """Yield the table of nodes, each judged by the rows that it set aside, where there are several."""
    if isinstance(found, ClassMetrics) and len(found.nodes) > 1:
        yield _nodes(found, "Each node, by the rows that it set aside")


def _nodes(found: ClassMetrics, title: str) -> Grid:
    cut = found.decisions[0].threshold
    title += f", at {cut:g}" if len(found.classes) == 2 else ""
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


def shares(bounds: Interval) -> str:
    """Return bounds on a share in percent, rounded to the safe side.

    Examples
    --------
    >>> shares(Interval(0.9497, 0.9497)), shares(Interval(0.8119, 0.8185)), shares(Interval(math.nan, math.nan))
    ('94.97 %', '81.19 to 81.85 %', '–')
    """
    if math.isnan(bounds.low):
        return "–"
    if bounds.width < SAME:
        return text.percent(round(bounds.low, 12))
    low, high = math.floor(bounds.low * 1e4) / 1e2, math.ceil(bounds.high * 1e4) / 1e2
    return f"{low:.2f} to {high:.2f} %"


def in_short(found: ClassMetrics | NumberMetrics | LeftOut) -> str:
    """Return how well a model does in a line: accuracy beside that of the most frequent class, or the errors."""
    if isinstance(found, NumberMetrics):
        return f"R² {number(found.r2)}, RMSE {found.rmse:.6g}, MAE {found.mae:.6g}"
    if isinstance(found, LeftOut) and not found.of_classes:
        return f"RMSE {found.rmse:.6g}, MAE {found.mean('mae'):.6g}"
    if isinstance(found, LeftOut):
        weights, log_loss = found.weights, found.mean("log_loss")
        area = "AUC – (one class only)" if math.isnan(found.auc.low) else f"mean AUC {between(found.auc)}"
    else:
        weights, log_loss = dict(zip(found.classes, found.weights.tolist(), strict=True)), found.log_loss
        area = "AUC – (one class only)" if math.isnan(found.auc.low) else f"AUC {between(found.auc)}"
    decided = found.accuracy if isinstance(found, LeftOut) else found.decisions[0].accuracy
    most = max(weights, key=lambda label: weights[label])
    always = f"always {plain(str(most))!r}: {shares(Interval(found.majority, found.majority))}"
    loss = "no log loss: scores are no log-odds" if math.isnan(log_loss) else f"log loss {number(log_loss)}"
    return f"accuracy {shares(decided)} ({always}), {area}, {loss}"


def left_out(found: LeftOut) -> Iterator[Grid | str]:
    """Yield the table of nodes, each judged by the model of all others, and why there is none of some."""
    yield _left_out(found)
    for node, why in list(found.missing.items())[:MOST_NODES]:
        yield f"nothing is told of {plain(node)!r}: {why}"
    yield from text.unmet(found.unmet)


def _left_out(found: LeftOut) -> Grid:
    if found.of_classes:
        likely = not math.isnan(found.mean("log_loss"))
        names = ["rows", "majority", "accuracy", "AUC", *(["log loss", "Brier"] if likely else [])]
    else:
        names = ["weight", "R²", "RMSE", "MAE"]
    grid = _columns(Grid(title="Each node, by the model of all others", title_justify="left"), names, "node")
    for node, one in list(found.nodes.items())[:MOST_NODES]:
        if isinstance(one, NumberMetrics):
            cells = [f"{one.weight:,.6g}", number(one.r2), f"{one.rmse:.6g}", f"{one.mae:.6g}"]
        else:
            losses = [number(one.log_loss), number(one.brier)] if likely else []
            accuracy = between(one.decisions[0].accuracy)
            cells = [f"{one.weights.sum():,.6g}", number(one.majority), accuracy, between(one.auc), *losses]
        grid.add_row(plain(node), *cells)
    return grid


def panels(found: ClassMetrics | NumberMetrics | LeftOut) -> list[Panel]:
    """Return the figure of an evaluation: curves and calibration for two classes, and the nodes beside each other."""
    out: list[Panel] = []
    if isinstance(found, ClassMetrics) and found.curve is not None and not math.isnan(found.auc.low):
        out.append(_roc(found.curve, found.auc))
        if found.calibration is not None:
            out.append(_reliability(found.calibration, weighted=_weighted(found)))
    nodes = dict(list(found.nodes.items())[:MOST_DRAWN])
    if not nodes:
        return out
    if all(isinstance(one, NumberMetrics) for one in nodes.values()):
        errors = {"model": [one.rmse for one in nodes.values()], "the node's mean": [*map(_of_mean, nodes.values())]}
        return [*out, _beside("Error by node", "RMSE", nodes, errors)]
    cut = {"accuracy": [_middle(one.decisions[0].accuracy) for one in nodes.values()]}
    most = [float(one.decisions[0].weights.max() / one.decisions[0].weights.sum()) for one in nodes.values()]
    out.append(_beside("Accuracy by node", "share of rows", nodes, {**cut, "most frequent class": most}))
    areas = [
        _middle(one.auc) if isinstance(one, ClassMetrics) else np.mean([*one.areas.values()]) for one in nodes.values()
    ]
    if np.isfinite(areas).any():
        why = [_without(one, area) for one, area in zip(nodes.values(), areas, strict=True)]
        out.append(_beside("AUC by node", "area under the ROC curve", nodes, {"": areas}, why))
    return out


def _without(of: Any, area: float) -> str:
    """Return why a node has no area under the curve, if it has none."""
    if np.isfinite(area):
        return ""
    return " (one class)" if int((of.decisions[0].weights > 0).sum()) == 1 else " (no AUC)"


def _of_mean(of: NumberMetrics) -> float:
    """Return the error of whoever always says the mean of the node's targets: R² is what a model is better by."""
    return of.rmse / math.sqrt(1 - of.r2) if of.r2 < 1 else math.nan


def _middle(bounds: Interval) -> float:
    return (bounds.low + bounds.high) / 2


def _roc(curve: Curve, area: Interval) -> Panel:
    columns = curve.columns()
    order = slice(None, None, -1)  # scores rise, so shares of positives fall
    right, true = (
        [np.concatenate([[start], columns[f"{name}_{end}"][order], [stop]]) for end in ("low", "high")]
        for name, start, stop in (("specificity", 1.0, 0.0), ("sensitivity", 0.0, 1.0))
    )
    line = Line(1 - (right[0] + right[1]) / 2, (true[0] + true[1]) / 2, f"AUC {between(area, 3)}", 1)
    chance = Line([0, 1], [0, 1], style="dotted")
    return Panel("ROC curve", "1 − specificity", "sensitivity", [line, chance])


def _reliability(of: Calibration, *, weighted: bool) -> Panel:
    """Return a panel of what happens against what is said; bins of few rows are hollow, with what they hold above."""
    perfect = Line([0, 1], [0, 1], style="dotted")
    told = Line(of.predicted, of.observed, "", 1, style="line+points")
    few = (of.weights > 0) & (of.weights < FEW)
    label, held = (
        f"weight below {FEW}" if weighted else f"fewer than {FEW} rows",
        [f"{one:.3g}" for one in of.weights[few]],
    )
    small = Line(of.predicted[few], of.observed[few], label, 1, style="hollow", notes=held)
    return Panel("Calibration", "mean probability", "share positive", [told, perfect, small])


def _beside(
    title: str, xlabel: str, nodes: Sequence[str] | Any, values: dict[str, Any], why: Sequence[str] | None = None
) -> Panel:
    """Return a panel with a line of the names of nodes: points of the first quantity, rings of what it is held to.

    `why` is said behind each name: of a node without a point, why it has none.
    """
    names = [plain(node)[:24] + said for node, said in zip(nodes, why or [""] * len(nodes), strict=True)]
    lines = [
        Line(of, range(len(names)), label, 1 - place, style="rings" if place else "points")
        for place, (label, of) in enumerate(values.items())
    ]
    return Panel(title, xlabel, "", lines, categories=names)
