"""Evaluate a model over the rows of all nodes, in rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from localgd.core import Engine, Message, Report
from localgd.errors import check_flag, check_positive, check_whole, from_all
from localgd.evaluation.asked import check_model, placed, question
from localgd.evaluation.auc import Ranked, ranked
from localgd.evaluation.counting import Decisions, Residuals
from localgd.evaluation.measures import Calibration, ClassMetrics, Curve, Decision, NodeMetrics, NumberMetrics
from localgd.evaluation.scored import ODDS
from localgd.evaluation.sigmoid import fitted
from localgd.rounding import FloatArray, is_number

if TYPE_CHECKING:
    from localgd.data.model import Model

N_POINTS = 200
"""Most points of a curve that are kept."""


def evaluate(
    model: Model,
    engine: Engine,
    *,
    thresholds: Sequence[float] = (),
    min_group: int = 1,
    width: float = 1e-4,
    n_rounds: int = 3,
    n_cuts: int = 10_000,
    by_node: bool = True,
) -> ClassMetrics | NumberMetrics:
    """Tell how well a model does on the rows of all nodes, from counts and sums.

    Counts, sums of losses and what follows from them are those of the pooled rows. The area under the ROC curve lies
    between two bounds, which rounds of histograms bring together. Where a cell of a table holds fewer than `min_group`
    rows of a class, the node tells it only together with others, and what follows from it is bounded, too.

    Parameters
    ----------
    model : Model
        With a recipe, of a run (`Run.model`) or a file (`Model.load`), on nodes that hold tables; without one
        (`Model.from_vector`) on nodes that hold rows that were prepared with an intercept.
    engine : Engine
        The federation.
    thresholds : sequence of float
        Two classes: above which probability of the second class a row is decided to be of it, 0.5 by default; for a
        model without probabilities, above which score, 0 by default.
    min_group : int, at least 1
        Fewest rows of a class in a cell that is told.
    width : float > 0
        How narrow the bounds on an area are to be.
    n_rounds : int, at least 1
        Most rounds of histograms.
    n_cuts : int, at least 2
        About how many cuts a round adds.
    by_node : bool, default True
        Also ask every node for its own numbers.

    Returns
    -------
    ClassMetrics or NumberMetrics
        The latter for a model that predicts numbers.

    Raises
    ------
    ValueError
        If model and rows do not fit, or a setting is out of its range.
    NodeError
        If a node refuses, as it has fewer than `min_group` rows of a class.

    Examples
    --------
    >>> from localgd import InProcess, Regularised, auto, load, prepare, train
    >>> tables = InProcess(load("heart"))
    >>> federation, recipe = prepare(tables, scale="standard")
    >>> run = train(federation, auto(), problem=Regularised(C=1.0, intercept=True))
    >>> found = evaluate(run.model(recipe), tables)
    >>> round(found.decisions[0].accuracy.low, 4), round(found.auc.low, 4), found.auc.width < 1e-4
    (0.8348, 0.9045, True)
    """
    check_model(model, engine)
    check_flag("by_node", by_node)
    texts = isinstance(thresholds, str | bytes | Mapping) or not isinstance(thresholds, Sequence | np.ndarray)
    if texts or not all(is_number(one) for one in thresholds):
        raise ValueError(f"thresholds must be a list of numbers, got {thresholds!r}")
    for name, value, least in (("min_group", min_group, 1), ("n_rounds", n_rounds, 1), ("n_cuts", n_cuts, 2)):
        check_whole(name, value, least)
    check_positive("width", width)
    if model.classes == ():
        if thresholds:
            raise ValueError(
                f"thresholds={list(thresholds)} are for classes; this model predicts numbers; leave them out"
            )
        return _numbers(model, engine, min_group, by_node=by_node)
    federation, message, classes = question(model, engine)
    n_classes = len(classes)
    cuts = _thresholds(thresholds, n_classes, probable=ODDS in message.extra)
    asked = {**message.extra, "thresholds": np.unique(cuts), "n_classes": np.asarray(float(n_classes))}
    report = from_all(federation, Decisions(min_group, by_node), Message(0, message.w, asked))
    n_heads = 1 if n_classes == 2 else n_classes
    settings: dict[str, Any] = {"width": width, "n_rounds": n_rounds, "n_cuts": n_cuts, "min_group": min_group}
    curves, used = ranked(federation, message, n_heads, **settings)
    totals = report.sums["classes"]
    found = ClassMetrics(
        classes,
        report.n_rows,
        report.n_nodes,
        2 + used,  # the first one looks at the sizes
        totals,
        _decisions(cuts, report.sums["low"], report.sums["high"], totals),
        dict(zip(classes[-n_heads:], [curve.area for curve in curves], strict=True)),
        min_group=min_group,
        nodes={name: _node(report, name, cuts, classes[-n_heads:]) for name in report.per_node.get("classes_at", {})},
    )
    if ODDS in message.extra:
        log_loss, brier = (report.sums["losses"] / totals.sum()).tolist()
        found = replace(found, log_loss=log_loss, brier=brier)
    if n_classes > 2:
        return found
    found = replace(found, curve=_curve(curves[0], totals))
    if ODDS not in message.extra:
        return found
    calibration, more = _calibrated(federation, message, report, found.areas[classes[1]].low, min_group)
    return replace(found, calibration=calibration, n_rounds=found.n_rounds + more)


def _thresholds(given: Sequence[float], n_classes: int, *, probable: bool) -> FloatArray:
    """Return the thresholds as an array; the one default."""
    if n_classes > 2:
        if given:
            raise ValueError(f"thresholds={list(given)} are for two classes; of {n_classes} the largest score decides")
        return np.array([math.nan])
    cuts = np.array(given or ([0.5] if probable else [0.0]), dtype=np.float64)
    if not np.isfinite(cuts).all() or (probable and not ((cuts >= 0) & (cuts <= 1)).all()):
        kind = "probabilities, 0 to 1" if probable else "finite scores"
        raise ValueError(f"thresholds must be {kind}, got {list(given)}")
    return cuts


def _decisions(cuts: FloatArray, low: FloatArray, high: FloatArray, weights: FloatArray) -> tuple[Decision, ...]:
    """Return what is decided at each threshold, from bounds on classes by what is between thresholds."""
    if weights.size > 2:
        return (Decision(math.nan, low, high, weights),)
    places = 1 + np.searchsorted(np.unique(cuts), cuts)  # so many cells of a line are up to each
    tables = (_table(int(place), low, high, weights) for place in places)
    return tuple(Decision(float(cut), *table, weights) for cut, table in zip(cuts, tables, strict=True))


def _table(place: int, low: FloatArray, high: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return bounds on rows by class, up to a threshold and above, from those on cells between thresholds."""
    least = np.column_stack([low[:, :place].sum(axis=1), low[:, place:].sum(axis=1)])
    most = np.column_stack([high[:, :place].sum(axis=1), high[:, place:].sum(axis=1)])
    told = (low == high).all(axis=1)[:, None]
    rest = weights[:, None] - np.where(told, 0.0, most[:, ::-1]), weights[:, None] - least[:, ::-1]
    most = np.where(told, most, np.minimum(most, rest[1]))
    return np.where(told, least, np.minimum(np.maximum(least, rest[0]), most)), most


def _node(report: Report, name: str, cuts: FloatArray, classes: Sequence[Any]) -> NodeMetrics:
    """Return what one node told of itself."""
    own = {field: nodes[name] for field, nodes in report.per_node.items() if name in nodes}
    areas = own["auc_at"].tolist() if "auc_at" in own else [math.nan] * len(classes)
    losses = own["losses_at"] / own["classes_at"].sum() if "losses_at" in own else [math.nan, math.nan]
    decisions = _decisions(cuts, own["low_at"], own["high_at"], own["classes_at"])
    return NodeMetrics(decisions, dict(zip(classes, areas, strict=True)), float(losses[0]), float(losses[1]))


def _curve(of: Ranked, totals: FloatArray) -> Curve:
    """Return at most `N_POINTS` points of the curve, as far from each other as can be."""
    along = of.positives.sum(axis=0) / max(totals[1], 1e-300) + of.negatives.sum(axis=0) / max(totals[0], 1e-300)
    _, first = np.unique(along, return_index=True)
    chosen = np.sort(first[np.unique(np.linspace(0, first.size - 1, N_POINTS).astype(int))])
    return Curve(of.cuts[chosen], of.positives[:, chosen], of.negatives[:, chosen], totals)


def _calibrated(
    federation: Engine, message: Message, report: Report, area: float, min_group: int
) -> tuple[Calibration, int]:
    """Return how well probabilities are calibrated, and how many more rounds that took."""
    weights, likely, second, mixed = report.sums["calibration"]
    with np.errstate(invalid="ignore", divide="ignore"):
        bins = (weights, likely / weights, second / weights, mixed)
    totals, n_more, sigmoids = report.sums["classes"], 0, np.full((1, 2, 2), math.nan)
    if (totals > 0).all() and area < 1 - 1e-6:  # else some slope is as good as any larger one
        start, free = np.array([[[0.0, 1.0], [0.0, 1.0]]]), np.array([[[True, False], [True, True]]])
        targets = np.array([[0.0, 1.0]])
        sigmoids, n_more = fitted(federation, message, targets, start, free, min_group=min_group)
    return Calibration(*bins, float(sigmoids[0, 0, 0]), float(sigmoids[0, 1, 1])), n_more


def _numbers(model: Model, engine: Engine, min_group: int, *, by_node: bool) -> NumberMetrics:
    """Return how near predicted numbers are: a round for the mean of the targets, and one around it."""
    federation, w, _ = placed(model, engine)

    def around(center: float) -> Report:
        return from_all(federation, Residuals(min_group, by_node), Message(0, w, {"center": np.asarray(center)}))

    first = around(0.0).sums["sizes"]
    report = around(float(first[3] / first[0]))
    weight, square, size, off, spread = report.sums["sizes"].tolist()
    own = report.per_node.get("sizes_at", {})
    nodes = {name: NumberMetrics.of(*sizes.tolist()) for name, sizes in own.items()}
    counts = {"n_rows": report.n_rows, "n_rounds": 3, "nodes": nodes}
    return NumberMetrics.of(weight, square, size, spread - off * off / weight, **counts)
