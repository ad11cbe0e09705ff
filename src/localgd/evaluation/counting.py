"""What nodes are asked about a model: counts of decisions, histograms of scores, sums of losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from localgd.core import Field, Kind, Message, Report, Schema
from localgd.evaluation.cells import Span, bounded, placed
from localgd.evaluation.scored import ODDS, Scored, scored
from localgd.limits import RefusedError
from localgd.rounding import FloatArray
from localgd.rows import Samples, Shard

N_BINS = 10
"""Of a calibration curve, as wide as each other."""


@dataclass(frozen=True)
class Decisions:
    """Report how rows are decided, and, where scores mean probabilities, how good those are.

    ``message.extra``: ``thresholds`` (T,), sorted, of the probability of the second of two classes, or of the score
    where there are none (of more classes the largest score decides); ``n_classes``; perhaps ``odds``.

    Sums: ``classes`` (C,), the weight of each class; ``low`` and ``high``, bounds on the weight of rows of a class
    (line) that are decided to be of each (C, C), for two classes that are up to the first threshold, between it and the
    next, …, above the last, (2, T + 1); both are the same where each such cell holds `min_group` rows; with odds
    ``losses`` (2,), Σ −log p_y and Σ |p − e_y|² (of the second class only, for two), and for two classes
    ``calibration`` (4, 10): by bins of p the weight, Σ p, the weight of the second class, and the weight if several
    bins are told as this one, as one of them holds fewer than `min_group` rows of a class. With `by_node` the first
    four also apart for every node, under ``classes_at`` and so on, and ``auc_at``, the node's own area under the curve
    of each class.
    """

    min_group: int = 1
    by_node: bool = True

    def schema(self, message: Message) -> Schema:
        """Return the tables of counts, and sums of losses."""
        n_classes, n_cuts = int(message.extra["n_classes"]), message.extra["thresholds"].size
        shapes: dict[str, tuple[int, ...]] = {"classes": (n_classes,)}
        shapes |= dict.fromkeys(("low", "high"), (n_classes, n_cuts + 1 if n_classes == 2 else n_classes))
        shapes |= {"losses": (2,)} if ODDS in message.extra else {}
        sums = {name: Field("sum", shape) for name, shape in shapes.items()}
        if ODDS in message.extra and n_classes == 2:
            sums["calibration"] = Field("sum", (4, N_BINS))
        if not self.by_node:
            return sums
        own = {f"{name}_at": Field("per_node", shape) for name, shape in shapes.items()}
        n_heads = 1 if n_classes == 2 else n_classes
        return {**sums, **own, "auc_at": Field("per_node", (n_heads,), optional=True)}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the node's counts and sums."""
        rows = scored(shard, message, self.min_group)
        n_classes = rows.n_classes
        sums: dict[str, Any] = {"classes": np.bincount(rows.codes, rows.weights, n_classes)}
        sums["low"], sums["high"] = _decided(rows, message.extra["thresholds"], self.min_group)
        own = dict(sums)
        if rows.likely is not None:
            own["losses"] = sums["losses"] = _losses(rows)
            if n_classes == 2:
                sums["calibration"] = _calibration(rows, self.min_group)
        per_node: dict[str, Any] = {}
        if self.by_node:
            per_node = {f"{name}_at": {shard.node_id: value} for name, value in own.items()}
            if not np.isnan(areas := own_areas(rows)).any():
                per_node["auc_at"] = {shard.node_id: areas}
        return Report(1, shard.n_samples, sums, per_node=per_node), state


@dataclass(frozen=True)
class Standings:
    """Report how several models stand, sent one after the other as w: how each decides rows, and how sure it is.

    ``message.extra``: ``n_classes``, C; ``odds``. A row of two classes is decided to be of the second if its score is
    above 0. Sums: ``tables`` (n_models, C, C), the weight of rows by class and decision; ``loss`` (n_models,), Σ −log
    p_y.
    """

    n_models: int

    def schema(self, message: Message) -> Schema:
        """Return the sums."""
        n_classes = int(message.extra["n_classes"])
        return {"tables": Field("sum", (self.n_models, n_classes, n_classes)), "loss": Field("sum", (self.n_models,))}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the node's sums."""
        tables, losses = [], []
        for w in message.w.reshape(self.n_models, -1):
            rows = scored(shard, Message(0, w, message.extra), 1)
            decided = rows.scores.argmax(axis=1) if rows.scores.ndim == 2 else (rows.scores > 0).astype(np.intp)
            table = np.zeros((rows.n_classes, rows.n_classes))
            np.add.at(table, (rows.codes, decided), rows.weights)
            tables.append(table)
            losses.append(_losses(rows)[0])
        return Report(1, shard.n_samples, {"tables": np.array(tables), "loss": np.array(losses)}), state


def _decided(rows: Scored, thresholds: FloatArray, min_group: int) -> Span:
    """Return bounds on the table of classes by decision, or by the thresholds that a row is between."""
    if rows.scores.ndim == 2:
        decided = (rows.scores if rows.likely is None else rows.likely.log_odds(rows.scores)).argmax(axis=1)
    else:
        what = rows.scores if rows.likely is None else rows.likely.of(rows.scores)[:, 1]
        decided = np.searchsorted(thresholds, what)  # so many are below
    shape = (rows.n_classes, rows.n_classes if rows.scores.ndim == 2 else thresholds.size + 1)
    cells = rows.codes * shape[1] + decided
    sizes = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    weights = np.bincount(cells, rows.weights, shape[0] * shape[1]).reshape(shape)
    return bounded(sizes, np.asarray(weights, dtype=np.float64), min_group)


def _losses(rows: Scored) -> FloatArray:
    """Return Σ −log p_y and Σ |p − e_y|², for two classes of the second alone."""
    logs = rows.likely.log_of(rows.scores)  # type: ignore[union-attr]
    own = logs[np.arange(len(rows.codes)), rows.codes]
    likely = np.exp(logs)
    squares = np.square(likely - np.eye(rows.n_classes)[rows.codes])
    each = squares[:, 1] if rows.n_classes == 2 else squares.sum(axis=1)
    return np.array([-(rows.weights * own).sum(), (rows.weights * each).sum()])


def _calibration(rows: Scored, min_group: int) -> FloatArray:
    """Return by bins of the probability the weight, Σ p, the weight of the second class, and of what is mixed."""
    likely = rows.likely.of(rows.scores)[:, 1]  # type: ignore[union-attr]
    bins = np.searchsorted(np.linspace(0, 1, N_BINS + 1)[1:-1], likely)
    sizes = np.stack([np.bincount(bins[rows.codes == code], minlength=N_BINS) for code in (0, 1)])
    told, filled = np.arange(N_BINS), np.flatnonzero(sizes.sum(axis=0)).tolist()
    first = list(filled)
    while len(filled) > 1:
        few = next((one for one in filled if ((sizes[:, one] > 0) & (sizes[:, one] < min_group)).any()), None)
        if few is None:
            break
        at = filled.index(few)
        into = filled[at + 1] if at + 1 < len(filled) else filled[at - 1]
        told[told == few] = into
        sizes[:, into] += sizes[:, few]
        del filled[at]
    mixed = np.bincount(told[first], minlength=N_BINS) > 1
    place = told[bins]
    parts = (rows.weights, rows.weights * likely, rows.weights * (rows.codes == 1), rows.weights * mixed[place])
    return np.stack([np.bincount(place, part, N_BINS) for part in parts])


def own_areas(rows: Scored) -> FloatArray:
    """Return the area under the curve of each class against the rest, (H,): NaN without rows of either kind.

    Σ over pairs of a row of the class and another one, of their weights: 1 where the first has the larger score, ½
    where both are the same, divided by the weight of all pairs.
    """
    out = []
    for scores, side in zip(rows.columns, rows.sides, strict=True):
        _, places = np.unique(scores, return_inverse=True)
        positive, negative = (np.bincount(places, rows.weights * of, places.max() + 1) for of in (side, ~side))
        pairs = positive.sum() * negative.sum()
        ahead = positive @ (np.cumsum(negative) - negative / 2)
        out.append(ahead / pairs if pairs else np.nan)
    return np.array(out)


@dataclass(frozen=True)
class Histogram:
    """Report how scores fall between cuts, rows of a class and the others apart.

    ``message.extra``: ``cuts`` (H, k), sorted; a bin holds what is above the cut before it, and at most the one behind.

    Sums: ``positives`` and ``negatives`` (H, 2, k + 1), weights by bin; bins with fewer than `min_group` rows of a kind
    are joined with neighbours, and their weight stands in the lowest of these in the first line, and in the highest in
    the second. Minimum ``least`` and maximum ``most`` (H, k + 1): the score of a bin whose rows all have one, −∞ and ∞
    of another one.
    """

    min_group: int = 1

    def schema(self, message: Message) -> Schema:
        """Return the histograms."""
        heads, n_cuts = message.extra["cuts"].shape
        sums = dict.fromkeys(("positives", "negatives"), Field("sum", (heads, 2, n_cuts + 1)))
        ends: dict[str, Kind] = {"least": "min", "most": "max"}
        return {**sums, **{name: Field(kind, (heads, n_cuts + 1), optional=True) for name, kind in ends.items()}}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the node's histograms."""
        rows = scored(shard, message, self.min_group)
        cuts = message.extra["cuts"]
        heads, n_bins = cuts.shape[0], cuts.shape[1] + 1
        told = {name: np.zeros((heads, 2, n_bins)) for name in ("positives", "negatives")}
        least, most = np.full((heads, n_bins), np.inf), np.full((heads, n_bins), -np.inf)
        for head, (scores, side) in enumerate(zip(rows.columns, rows.sides, strict=True)):
            bins = np.searchsorted(cuts[head], scores)
            np.minimum.at(least[head], bins, scores)
            np.maximum.at(most[head], bins, scores)
            unlike = least[head] < most[head]
            for name, of in (("positives", side), ("negatives", ~side)):
                sizes = np.bincount(bins[of], minlength=n_bins)
                weights = np.asarray(np.bincount(bins[of], rows.weights[of], n_bins), dtype=np.float64)
                span, joined = placed(sizes, weights, self.min_group)
                told[name][head], unlike = np.stack(span), unlike | joined
            least[head, unlike], most[head, unlike] = -np.inf, np.inf
        return Report(1, shard.n_samples, told, {"most": most}, {"least": least}), state


@dataclass(frozen=True)
class SigmoidLoss:
    """Report Σ log-loss of σ(offset + slope·s), its gradient and its second derivatives, at several of them.

    ``message.extra``: ``sigmoids`` (H, K, 2), offset and slope; ``targets`` (H, 2), what a row of the rest, and one of
    the class, is to come to. Scores are those of the model, put through ``odds`` first if there are any.

    Sum ``sigmoid`` (H, K, 6): the loss, its derivatives by offset and slope, and the second ones, by both offset, both
    slope and one of each.
    """

    min_group: int = 1

    def schema(self, message: Message) -> Schema:
        """Return six numbers for each sigmoid."""
        heads, several, _ = message.extra["sigmoids"].shape
        return {"sigmoid": Field("sum", (heads, several, 6))}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the node's sums."""
        rows = scored(shard, message, self.min_group)
        scores = np.atleast_2d((rows.scores if rows.likely is None else rows.likely.log_odds(rows.scores)).T)
        sigmoids, targets = message.extra["sigmoids"], message.extra["targets"]
        out = np.zeros((*sigmoids.shape[:2], 6))
        for head, (s, side) in enumerate(zip(scores, rows.sides, strict=True)):
            target = np.where(side, targets[head, 1], targets[head, 0])
            for place, (offset, slope) in enumerate(sigmoids[head]):
                out[head, place] = _sigmoid(s, target, rows.weights, offset, slope)
        return Report(1, shard.n_samples, {"sigmoid": out}), state


def _sigmoid(s: FloatArray, target: FloatArray, weights: FloatArray, offset: float, slope: float) -> FloatArray:
    """Return loss, gradient and second derivatives of one sigmoid."""
    z = offset + slope * s
    p, above = np.exp(-np.logaddexp(0.0, -z)), np.exp(-np.logaddexp(0.0, z))
    loss = weights * (target * np.logaddexp(0.0, -z) + (1 - target) * np.logaddexp(0.0, z))
    off, bend = weights * (p - target), weights * p * above
    return np.array([part.sum() for part in (loss, off, off * s, bend, bend * s * s, bend * s)])


@dataclass(frozen=True)
class Residuals:
    """Report how far predicted numbers are from the targets, and the targets from a center.

    ``message.extra``: ``center`` c, a number. Sum ``sizes`` (5,), each row by its weight: the weights, Σ r², Σ |r|,
    Σ (y − c) and Σ (y − c)², r the residuals. With `by_node` also for every node apart, ``sizes_at`` (4,): the first
    three, and Σ (y − ȳ)² around the node's own mean. A node of fewer than `min_group` rows refuses.
    """

    min_group: int = 1
    by_node: bool = True

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the sums."""
        own = {"sizes_at": Field("per_node", (4,))} if self.by_node else {}
        return {"sizes": Field("sum", (5,)), **own}

    def run(self, message: Message, shard: Samples, state: None) -> tuple[Report, None]:
        """Return the node's sums."""
        if not isinstance(shard, Samples):
            raise TypeError("this node holds classes, not numbers: this model predicts numbers")
        if shard.n_samples < self.min_group:
            raise RefusedError(f"it has fewer than min_group={self.min_group} rows; ask for a smaller min_group")
        weights = np.ones(shard.n_samples) if shard.weights is None else shard.weights
        r, y = shard.residuals(message.w), shard.targets
        off = y - float(message.extra["center"])
        sizes = [weights.sum(), weights @ (r * r), weights @ np.abs(r), weights @ off, weights @ (off * off)]
        about = y - (weights @ y) / weights.sum()
        own = {"sizes_at": {shard.node_id: np.array([*sizes[:3], weights @ (about * about)])}} if self.by_node else {}
        return Report(1, shard.n_samples, {"sizes": np.array(sizes)}, per_node=own), state
