"""What counts of decisions and sums of losses say of a model, as numbers that people know; bounds where cells are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from localgd.rounding import FloatArray


class Interval(NamedTuple):
    """Bounds on a number: that of all rows together lies between them; NaN if it has no meaning."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """How far apart they are."""
        return self.high - self.low


UNKNOWN = Interval(math.nan, math.nan)


def share(part: Interval, rest: Interval) -> Interval:
    """Return bounds on part/(part + rest), where both are at least 0; NaN where both are 0.

    Examples
    --------
    >>> share(Interval(1.0, 3.0), Interval(1.0, 1.0))
    Interval(low=0.5, high=0.75)
    """
    low, high = (part.low, part.low + rest.high), (part.high, part.high + rest.low)
    if not high[1] > 0:
        high = low  # the part is 0, and so may be the rest
    if not low[1] > 0:
        low = high
    return Interval(low[0] / low[1], high[0] / high[1]) if low[1] > 0 else UNKNOWN


@dataclass(frozen=True, eq=False)
class Decision:
    """How rows are decided at a threshold: bounds on the weights of rows by class (line) and decision (column).

    Parameters
    ----------
    threshold : float
        Of the probability of the second of two classes, or of the score; NaN for more, where the largest decides.
    low, high : (C, C) float64 array
        The bounds, the same where every cell holds enough rows to be told.
    weights : (C,) float64 array
        The weight of each class.

    Examples
    --------
    >>> table = np.array([[40.0, 10.0], [5.0, 45.0]])
    >>> decision = Decision(0.5, table, table, np.array([50.0, 50.0]))
    >>> decision.accuracy.low, decision.sensitivity.low, decision.specificity.low, round(decision.ppv.low, 4)
    (0.85, 0.9, 0.8, 0.8182)
    """

    threshold: float
    low: FloatArray
    high: FloatArray
    weights: FloatArray

    def _cell(self, line: int, column: int) -> Interval:
        return Interval(float(self.low[line, column]), float(self.high[line, column]))

    def _of_line(self, line: int, column: int, weight: float) -> Interval:
        """Return bounds on a cell's share of its line."""
        low, high = self._cell(line, column)
        return Interval(low / weight, high / weight) if weight > 0 else UNKNOWN

    @property
    def exact(self) -> bool:
        """Whether every cell is told."""
        return bool((self.low == self.high).all())

    @property
    def accuracy(self) -> Interval:
        """Share of rows that are decided to be of their class."""
        total = float(self.weights.sum())
        return Interval(float(np.trace(self.low)) / total, float(np.trace(self.high)) / total)

    @property
    def sensitivity(self) -> Interval:
        """Share of the rows of the second class that are decided to be of it."""
        return self._of_line(1, 1, float(self.weights[1]))

    @property
    def specificity(self) -> Interval:
        """Share of the rows of the first class that are decided to be of it."""
        return self._of_line(0, 0, float(self.weights[0]))

    @property
    def ppv(self) -> Interval:
        """Share of those decided to be of the second class that are (positive predictive value, precision)."""
        return share(self._cell(1, 1), self._cell(0, 1))

    @property
    def npv(self) -> Interval:
        """Share of those decided to be of the first class that are (negative predictive value)."""
        return share(self._cell(0, 0), self._cell(1, 0))

    def f1(self, place: int) -> Interval:
        """Return the harmonic mean of precision and recall of a class, 2 TP/(TP + FP + weight of the class)."""
        own, others = self._cell(place, place), np.arange(len(self.low)) != place
        wrong = Interval(*(float(side[others, place].sum()) for side in (self.low, self.high)))
        weight = float(self.weights[place])
        if not weight + wrong.high > 0:
            return UNKNOWN
        return Interval(
            2 * own.low / (own.low + wrong.high + weight),
            2 * own.high / (own.high + wrong.low + weight) if own.high + wrong.low + weight > 0 else 0.0,
        )

    @property
    def macro_f1(self) -> Interval:
        """The mean of `f1` over the classes that occur, in rows or decisions."""
        each = [one for place in range(len(self.low)) if not math.isnan((one := self.f1(place)).low)]
        return Interval(*(float(np.mean(side)) for side in zip(*each, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Return the table and what it says as plain values; bounds are pairs."""
        names = ["accuracy", "macro_f1"]
        names += ["sensitivity", "specificity", "ppv", "npv"] if len(self.low) == 2 else []
        table = self.low.tolist() if self.exact else [self.low.tolist(), self.high.tolist()]
        numbers = {name: plain(getattr(self, name)) for name in names}
        return {"threshold": plain(self.threshold), "confusion": table, "exact": self.exact, **numbers}


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether probabilities are what happens: by bins of the probability, and as two numbers.

    Parameters
    ----------
    weights, predicted, observed, mixed : (10,) float64 array
        Of each bin the weight of its rows, their mean probability, the share of the second class among them (NaN in an
        empty one), and the weight of those that stand there together with rows of a neighbouring bin, as they, or
        those, are too few to be told.
    intercept : float
        a of σ(a + logit p) that fits best: 0 if as many rows are of the second class as probabilities say; NaN if
        there is none.
    slope : float
        b of σ(a + b logit p) that fits best, 1 for perfect probabilities, less where they are too extreme.
    """

    weights: FloatArray
    predicted: FloatArray
    observed: FloatArray
    mixed: FloatArray
    intercept: float
    slope: float

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Curve:
    """The ROC curve and the precision-recall curve, by points: what is decided at each of these scores.

    Parameters
    ----------
    scores : (k,) float64 array
        Scores, rising; rows above one are decided to be of the second class.
    positives, negatives : (2, k) float64 array
        Bounds on the weight of rows of the second, and of the first class, that are above.
    totals : (2,) float64 array
        The weight of the first and of the second class.

    Examples
    --------
    >>> curve = Curve(np.array([0.0]), np.array([[3.0], [3.0]]), np.array([[1.0], [1.0]]), np.array([4.0, 4.0]))
    >>> curve.columns()["sensitivity_low"].tolist(), curve.columns()["ppv_high"].tolist()
    ([0.75], [0.75])
    """

    scores: FloatArray
    positives: FloatArray
    negatives: FloatArray
    totals: FloatArray

    def columns(self) -> dict[str, FloatArray]:
        """Return bounds on sensitivity (recall), specificity and PPV (precision) at every score."""
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = self.positives / self.totals[1]
            specificity = 1 - self.negatives[::-1] / self.totals[0]
            precision = self.positives / (self.positives + self.negatives[::-1])
        parts = {"sensitivity": recall, "specificity": specificity, "ppv": precision}
        ends = {f"{name}_{end}": part[at] for name, part in parts.items() for at, end in enumerate(("low", "high"))}
        return {"score": self.scores, **ends}


@dataclass(frozen=True, eq=False)
class NodeMetrics:
    """How a model decides on the rows of one node: as of all, but for the area, which is the node's own, and exact."""

    decisions: tuple[Decision, ...]
    areas: Mapping[Any, float]
    log_loss: float
    brier: float

    @property
    def weight(self) -> float:
        """The weight of its rows."""
        return float(self.decisions[0].weights.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        numbers = {"weight": self.weight, "log_loss": plain(self.log_loss), "brier": plain(self.brier)}
        areas = {str(name): plain(area) for name, area in self.areas.items()}
        return {**numbers, "auc": areas, "decisions": [decision.to_dict() for decision in self.decisions]}


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """How well a model tells classes apart, over the rows of all nodes.

    Parameters
    ----------
    classes : tuple
        The labels; of two, the second is the positive one.
    n_rows, n_nodes, n_rounds : int
        Rows, nodes, and the rounds that it took.
    weights : (C,) float64 array
        The weight of each class.
    decisions : tuple of Decision
        One for each threshold.
    areas : mapping from class to Interval
        Bounds on the area under the ROC curve of the class against the rest; of two classes of the second only.
    curve : Curve or None
        Points of the ROC and precision-recall curve, for two classes.
    log_loss, brier : float
        Mean −log p_y, and mean squared error of the probabilities (Σ over classes for more than two); NaN where scores
        are no log-odds.
    calibration : Calibration or None
        For two classes with probabilities.
    nodes : mapping from node to NodeMetrics
        The same for every node apart; empty if it was not asked for.
    min_group : int
        Fewer rows of a class are in no cell that is told.
    """

    classes: tuple[Any, ...]
    n_rows: int
    n_nodes: int
    n_rounds: int
    weights: FloatArray
    decisions: tuple[Decision, ...]
    areas: Mapping[Any, Interval]
    curve: Curve | None = None
    log_loss: float = math.nan
    brier: float = math.nan
    calibration: Calibration | None = None
    nodes: Mapping[str, NodeMetrics] = field(default_factory=dict)
    min_group: int = 1

    @property
    def majority(self) -> float:
        """The accuracy of whoever always says the most frequent class."""
        return float(self.weights.max() / self.weights.sum())

    @property
    def auc(self) -> Interval:
        """The area under the ROC curve; for more than two classes the mean of each against the rest."""
        return Interval(*(float(np.mean(side)) for side in zip(*self.areas.values(), strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON: bounds are pairs, what has no meaning is null."""
        whole = {name: getattr(self, name) for name in ("n_rows", "n_nodes", "n_rounds", "min_group")}
        numbers = {name: plain(getattr(self, name)) for name in ("majority", "auc", "log_loss", "brier")}
        return {
            "classes": list(self.classes),
            "weights": self.weights.tolist(),
            **whole,
            **numbers,
            "decisions": [decision.to_dict() for decision in self.decisions],
            "areas": {str(name): plain(area) for name, area in self.areas.items()},
            "curve": None if self.curve is None else {n: plain(part) for n, part in self.curve.columns().items()},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "nodes": {name: node.to_dict() for name, node in self.nodes.items()},
        }


@dataclass(frozen=True)
class NumberMetrics:
    """How near predicted numbers are to the targets, over the rows of all nodes, or of one.

    Parameters
    ----------
    weight : float
        The weight of the rows.
    rmse, mae : float
        Root of the mean squared error, and mean absolute error.
    r2 : float
        1 − Σ r²/Σ (y − ȳ)²; NaN where all targets are the same.
    nodes : mapping from node to NumberMetrics
        The same for every node apart, r2 around its own mean.
    """

    weight: float
    rmse: float
    mae: float
    r2: float
    n_rows: int = 0
    n_rounds: int = 0
    nodes: Mapping[str, NumberMetrics] = field(default_factory=dict)

    @classmethod
    def of(cls, weight: float, square: float, size: float, spread: float, **more: Any) -> NumberMetrics:
        """Return what sums say: of weights, squared and absolute residuals, and squared deviations of the targets."""
        r2 = 1 - square / spread if spread > 0 else math.nan
        return cls(weight, math.sqrt(square / weight), size / weight, r2, **more)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        numbers = {name: plain(getattr(self, name)) for name in ("weight", "rmse", "mae", "r2")}
        if not self.n_rounds:  # it is of one node
            return numbers
        nodes = {name: node.to_dict() for name, node in self.nodes.items()}
        return {"n_rows": self.n_rows, "n_rounds": self.n_rounds, **numbers, "nodes": nodes}


def plain(value: Any) -> Any:
    """Return a number, bounds or an array as JSON has them: null for what is not finite.

    Examples
    --------
    >>> plain(Interval(0.5, 1.0)), plain(np.array([1.0, math.nan])), plain(math.nan)
    ([0.5, 1.0], [1.0, None], None)
    """
    if isinstance(value, tuple | np.ndarray):
        return [plain(part) for part in value]
    number = float(value)
    return number if math.isfinite(number) else None
