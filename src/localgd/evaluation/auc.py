"""The area under the ROC curve of all rows together, between two bounds, from histograms of their scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from localgd.core import Engine, Message, Report
from localgd.errors import from_all
from localgd.evaluation.cells import finer, first_cuts
from localgd.evaluation.counting import Histogram
from localgd.evaluation.measures import UNKNOWN, Interval
from localgd.rounding import UNIT_ROUNDOFF, FloatArray


class Ranked(NamedTuple):
    """What is known of the scores of one class and of the rest.

    Parameters
    ----------
    area : Interval
        The area under the ROC curve.
    cuts : (k,) float64 array
        Scores, sorted.
    positives, negatives : (2, k) float64 array
        Bounds on the weights of rows of the class, and of the rest, whose scores are above each cut.
    """

    area: Interval
    cuts: FloatArray
    positives: FloatArray
    negatives: FloatArray


def area_between(positives: FloatArray, negatives: FloatArray, tied: FloatArray, n_rows: int) -> Interval:
    """Return bounds on the area under the ROC curve, and on what any sound sum of floats makes of it.

    With P⁺ and N⁺ the weights of bins where joined bins stand highest, P⁻ and N⁻ where they stand lowest, it is between
    Σ_b P⁻_b (N⁺ below b + t_b N⁺_b) and Σ_b P⁺_b (N⁻ below b + u_b N⁻_b) over all pairs: t = u = ½ for a bin in which
    all rows have one score, else 0 and 1. Both are widened by 8 (n + 2k + 16)·2⁻⁵³, more than the rounding of sums over
    n rows and k bins that hold some, here or elsewhere, can come to.

    Parameters
    ----------
    positives, negatives : (2, k) float64 array
        P⁻, P⁺ and N⁻, N⁺.
    tied : (k,) bool array
        Which bins hold one score.
    n_rows : int
        Number of rows n.

    Examples
    --------
    >>> one = np.array([[1.0, 1.0], [1.0, 1.0]])
    >>> low, high = area_between(one, one, np.array([False, True]), 4)
    >>> round(low, 12), round(high, 12)
    (0.375, 0.625)
    """
    pairs = float(positives[0].sum()) * float(negatives[0].sum())
    if pairs == 0.0:
        return UNKNOWN
    below = np.cumsum(negatives, axis=1) - negatives
    low = positives[0] @ (below[1] + np.where(tied, 0.5, 0.0) * negatives[1])
    high = positives[1] @ (below[0] + np.where(tied, 0.5, 1.0) * negatives[0])
    n_filled = int(np.count_nonzero(positives.sum(axis=0) + negatives.sum(axis=0)))
    rounding = 8 * (n_rows + 2 * n_filled + 16) * UNIT_ROUNDOFF
    return Interval(max(0.0, float(low / pairs) - rounding), min(1.0, float(high / pairs) + rounding))


def ranked(
    engine: Engine, message: Message, n_heads: int, *, min_group: int, width: float, n_rounds: int, n_cuts: int
) -> tuple[list[Ranked], int]:
    """Return what histograms tell of the scores of each class, and how many rounds of them it took.

    They go on until the areas are as narrow as asked. Each round makes bins finer where pairs of rows are in doubt;
    what one round has bounded, no later one loosens.

    Parameters
    ----------
    engine : Engine
        Its nodes hold rows with a bias column.
    message : Message
        The model, and ``odds`` if scores mean probabilities.
    n_heads : int
        Classes that are ranked against the rest: 1 for two classes.
    min_group, width, n_rounds, n_cuts : int, float, int, int
        As in `localgd.evaluate`.
    """
    cuts = [first_cuts(n_cuts)] * n_heads
    areas = [Interval(0.0, 1.0)] * n_heads
    found: list[Ranked] = []
    n_done = 0
    while n_done < n_rounds:
        most = max(cut.size for cut in cuts)
        grid = np.stack([np.pad(cut, (0, most - cut.size), constant_values=np.inf) for cut in cuts])
        report = from_all(engine, Histogram(min_group), Message(0, message.w, {**message.extra, "cuts": grid}))
        found, n_done = [_of(report, head, cut, areas[head]) for head, cut in enumerate(cuts)], n_done + 1
        before, areas = areas, [one.area for one in found]
        if not any(area.width > width for area in areas):
            break
        if before[0].width < 1 and all(new.width >= old.width for new, old in zip(areas, before, strict=True)):
            break  # what is joined on the nodes does not come apart
        cuts = [
            _finer(report, head, cut, n_cuts) if areas[head].width > width else cut for head, cut in enumerate(cuts)
        ]
    return found, n_done


def _tied(report: Report, head: int, n_bins: int) -> FloatArray:
    """Return which bins hold rows of one score only."""
    least, most = report.mins["least"][head, :n_bins], report.maxs["most"][head, :n_bins]
    return np.asarray((least == most) & np.isfinite(least))


def _of(report: Report, head: int, cuts: FloatArray, before: Interval) -> Ranked:
    """Return what a round tells of one class."""
    n_bins = cuts.size + 1
    positives, negatives = (report.sums[name][head, :, :n_bins] for name in ("positives", "negatives"))
    area = area_between(positives, negatives, _tied(report, head, n_bins), report.n_rows)
    area = Interval(max(area.low, before.low), min(area.high, before.high)) if area.width >= 0 else area
    above = [np.cumsum(side[:, ::-1], axis=1)[:, ::-1][:, 1:] for side in (positives, negatives)]
    return Ranked(area, cuts, *above)


def _finer(report: Report, head: int, cuts: FloatArray, n_cuts: int) -> FloatArray:
    n_bins = cuts.size + 1
    positives, negatives = (report.sums[name][head, :, :n_bins].sum(axis=0) for name in ("positives", "negatives"))
    doubt = np.where(_tied(report, head, n_bins), 0.0, positives * negatives)
    return finer(cuts, positives + negatives > 0, doubt, n_cuts)
