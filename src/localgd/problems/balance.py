"""Biases that are free of the penalty ask for a dual point whose classes balance: softmax of many classes.

A dual point gives sample i a distribution q_i over the classes; with free biases its surplus r_k = Σ s_i (q_ik − e_ik),
e_i the class of the sample, must be 0 for every class k. At a model with probabilities p_i, q = p has its V, the pull
Σ s_i (e_i − q_i)⊗x_i of the rows, for free, but r is 0 at the minimiser only. So a class k that has too much gives away
the share u_k = r_k/Q_k of what each sample gives it, Q_k = Σ s_i p_ik, and the classes l that have too little get what
is given away in the parts |r_l|/Σ_k max(r_k, 0):

    q'_k = (1 − u_k) p_k,   q'_l = p_l + Σ_k g_kl,   g_kl = part_l u_k p_k.

Each q'_i is a distribution, and r = 0. It costs Σ s_i KL(q'_i, p_i). What a giver adds to KL is
(1 − u) p log(1 − u) + u p <= u² p, what a taker adds (p + g) log(1 + g/p) − g <= g log(1 + g/p), which is convex in g:
of m givers the parts may be added up with log(1 + m g_kl/p_l), and g_kl/p_l <= u_k ρ with ρ = p_k/p_l. As
log(1 + x) <= x, and log(1 + xρ) <= log(1 + xR) + log(ρ/R) for ρ >= R, three sums for every two classes do.

What has to balance is the exact surplus, which is known to within rounding only. A surplus of r + e, |e| <= drift,
moves other amounts from class to class, by at most 3√C drift in all; a unit from k to l moves V by √2 |A_k|/Q_k, with
A_k = Σ s_i p_ik x_i.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from localgd.core import Report
from localgd.problems.metrics import total
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, norm, norm_above, read_only
from localgd.rows import Shard

APART = 2.0**36
"""R: a class less likely than another by more than this is told by the logarithm of how much."""

FAINT = 2.0**-40
"""More than a probability, or the logarithm of a ratio, is off by, as a part of itself: exponents are up to 800."""


def class_sums(shard: Shard, margins: FloatArray) -> dict[str, FloatArray]:
    """Return the sums of `balanced` over a node's samples.

    ``expected`` (C·d,), A = Σ s_i p_i⊗x_i; ``odds`` (3, C, C), for every two classes k and l, with ρ = p_k/p_l:
    Σ s p_k ρ over samples with ρ <= R, and Σ s p_k and Σ s p_k log(ρ/R) over those beyond.
    """
    scores = shard.data.relative(margins)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely *= (shard.weigh(np.ones(len(scores))) / likely.sum(axis=1))[:, None]
    odds = np.empty((3, scores.shape[1], scores.shape[1]))
    for k, own in enumerate(likely.T):
        apart = scores[:, k, None] - scores
        beyond = np.maximum(apart - math.log(APART), 0.0)
        odds[0, k] = own @ np.where(beyond > 0, 0.0, np.exp(apart - beyond))
        odds[1, k], odds[2, k] = own @ (beyond > 0), own @ beyond
    return {"expected": read_only(shard.class_sum(likely)), "odds": odds}


def balanced(report: Report, pull: FloatArray, drift: float) -> tuple[FloatArray, float, float]:
    """Return the pull of the balanced point, a bound on its rounding error, and Σ s KL(q', p).

    Given the pull at the model, (C·d,), and a bound on its rounding error; of an appraisal by every node. The error is
    inf where nothing is proved, as a class with more than it is to have has nothing to give.
    """
    odds = report.sums["odds"]
    n_classes = len(odds[0])
    blocks, expected = pull.reshape(n_classes, -1), report.sums["expected"].reshape(n_classes, -1)
    faint = (FAINT + 2 * (report.n_rows + 4) * UNIT_ROUNDOFF) * total(report) * float(report.maxs["radius"])
    surplus = -blocks[:, -1]
    giving = surplus > -drift
    least = expected[giving, -1] - faint
    if not (least > 0).all():
        return pull, math.inf, math.inf
    most = np.zeros(n_classes)
    most[giving] = (np.maximum(surplus[giving], 0.0) + drift) / least * (1 + 8 * UNIT_ROUNDOFF)
    if not (most <= 1).all():
        return pull, math.inf, math.inf
    share, lack = np.zeros(n_classes), np.maximum(-surplus, 0.0)
    share[giving] = np.maximum(surplus[giving], 0.0) / expected[giving, -1]
    part = lack / max(float(lack.sum()), math.ulp(0.0))
    after = (blocks + share[:, None] * expected - np.outer(part, share @ expected)).ravel()
    each = max(((norm_above(row) + faint) / low for row, low in zip(expected[giving], least, strict=True)), default=0.0)
    moved = float(np.maximum(surplus, 0.0).sum())
    doubt = 4 * math.sqrt(n_classes) * drift * each
    doubt += moved * (1 + each) * faint / float(least.min(initial=math.inf))
    given = norm((share[:, None] * expected).ravel())
    doubt += (8 + 4 * n_classes**1.5) * UNIT_ROUNDOFF * (norm(pull) + given)  # a sum over the classes
    return after, float(drift + 2 * doubt), _spent(report, most, surplus < drift)


def _spent(report: Report, most: FloatArray, taking: NDArray[np.bool_]) -> float:
    """Return an upper bound on Σ s KL(q', p), given bounds on the shares that classes give away, and who takes."""
    near, beyond, logs = report.sums["odds"]
    givers, share = np.count_nonzero(most), most[:, None]
    to_each = givers * share**2 * near + share * (beyond * (np.log1p(givers * share * APART) + FAINT) + logs)
    others = taking & ~np.eye(len(most), dtype=bool)
    spent = float(np.where(others, to_each, 0.0).max(axis=1).sum() + most**2 @ near.diagonal()) * (1 + 1e-9)
    # where p itself is off by the rounding of margins, log(p'/p) is, too, by up to twice that between two classes
    off = math.sqrt(2 * float(report.sums["blur"]) / total(report))
    return spent + 2 * total(report) * float(most.max()) * off
