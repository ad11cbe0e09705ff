"""Penalised losses: an objective with one minimiser, the same however the rows are spread over nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from localgd.core import Field, Message, Report, Schema
from localgd.kernels.project import dense
from localgd.losses import Logistic, Loss
from localgd.problems.metrics import METRICS, Weighting, standing
from localgd.problems.triangle import triangle, triangle_size
from localgd.rounding import FloatArray, norm
from localgd.rows import Shard

CERTAIN = 1 - 2.0**-20
"""A slope above this is 1 as far as its complement can be told from it by float64."""


@dataclass(frozen=True)
class Penalty:
    """The objective F(w) = (1/N) Σ ℓ(z_i·w) + (λ/2)|w|² over all N rows, with λ = 1/(C N).

    C N F is ½|w|² + C Σ ℓ(z_i·w), so C is what it is in scikit-learn's ``LogisticRegression``, whatever the number of
    nodes.

    Parameters
    ----------
    C : float > 0
        Inverse strength; inf for no penalty.
    intercept : bool
        The last column is a bias, and free of the penalty.
    blocks : int
        Equal parts of w, each with a bias of its own: one per class for more than two classes.

    Raises
    ------
    ValueError
        If C is not positive.

    Examples
    --------
    >>> Penalty(C=0.5).strength(10), Penalty().strength(10)
    (0.2, 0.0)
    """

    C: float = math.inf
    intercept: bool = False
    blocks: int = 1

    def __post_init__(self) -> None:
        """Check C once."""
        given: Any = self.C
        if isinstance(given, str) or given is None or not given > 0:
            raise ValueError(f"C must be a positive number (inf for no penalty), got {self.C!r}")

    def strength(self, n_rows: int) -> float:
        """Return λ."""
        return 1.0 / (self.C * n_rows)

    def pull(self, w: FloatArray) -> FloatArray:
        """Return what λ multiplies in the gradient: w, with 0 for the bias."""
        out = np.array(w)
        if self.intercept:
            width = out.size // self.blocks
            out[width - 1 :: width] = 0.0
        return out


def appraisal(shard: Shard, w: FloatArray, margins: FloatArray, loss: Loss, penalty: Penalty) -> Report:
    """Return the standing at w and what the server needs for objective, gradient and duality gap there.

    Sums, with α_i = −ℓ'(z_i·w): ``risk`` Σ ℓ, ``pull`` Σ α z, ``drift``, a bound on the rounding error of that; where
    the bias is free and there are two classes, ``positive``, the part of ``pull`` from rows of the positive class, and
    ``odds`` (2,), Σ e^(−z·w) over the negative and the positive class; ``blur``, a bound on what the rounding of the
    slopes adds to the gap. Maximum: ``radius``, the largest row norm. Flag ``overflows``: the odds are beyond float64.
    """
    slope = loss.slope(margins)
    here = standing(shard, w, margins, loss, float(shard.n_samples))
    with np.errstate(over="ignore"):
        risk = float(loss.value(margins).sum())
        odds = np.exp(-margins)
    sure = int(np.count_nonzero(slope > CERTAIN))
    off = shard.margin_error(norm(w))
    blur = shard.n_rows * (off * off) / 8 + sure * 2.0**-50  # not **, which raises where this overflows
    sums: dict[str, Any] = {"risk": risk, "pull": shard.combine(slope), "drift": shard.combine_error(slope)}
    sums["blur"] = blur
    if penalty.intercept and loss.versus == 1:
        positive = shard.margins(np.eye(w.size)[-1]) > 0  # the bias column of a signed row is its label
        sums["positive"] = shard.combine(np.where(positive, slope, 0.0))
        by_class = np.array([odds[~positive].sum(), odds[positive].sum()])
        if not np.isfinite(by_class).all():  # a model far on the wrong side: no fault, but there is no bound
            return replace(_appraised(here, sums, shard), flags={"overflows": 1})
        sums["odds"] = by_class
    return _appraised(here, sums, shard)


def _appraised(here: Report, sums: Mapping[str, Any], shard: Shard) -> Report:
    return replace(here, sums={**here.sums, **sums}, maxs={"radius": shard.radius})


def appraisals(n_features: int, loss: Loss, penalty: Penalty) -> Schema:
    """Return the schema of `appraisal`."""
    number, vector = Field("sum"), Field("sum", (n_features,))
    by_class = {"positive": vector, "odds": Field("sum", (2,), unless="overflows"), "overflows": Field("flag")}
    by_class = by_class if penalty.intercept and loss.versus == 1 else {}
    bounds = {"drift": number, "blur": number, "radius": Field("max")}
    return {**METRICS, "risk": number, "pull": vector, **bounds, **by_class}


def objective(report: Report, w: FloatArray, penalty: Penalty) -> float:
    """Return F(w) from an appraisal by every node."""
    pulled = penalty.pull(w)
    return float(report.sums["risk"]) / report.n_rows + penalty.strength(report.n_rows) / 2 * float(pulled @ pulled)


def gradient(report: Report, w: FloatArray, penalty: Penalty) -> FloatArray:
    """Return ∇F(w) from an appraisal by every node."""
    return np.asarray(penalty.strength(report.n_rows) * penalty.pull(w) - report.sums["pull"] / report.n_rows)


def settled(report: Report, slope: FloatArray) -> bool:
    """Return whether the gradient is 0 to within the rounding of the sums it was made from."""
    return norm(slope) <= float(report.sums["drift"]) * (2 + report.n_nodes) / report.n_rows


@dataclass(frozen=True)
class Appraise:
    """Report how the shared model stands and what its duality gap is made of, nothing else: a gradient a round."""

    weighted_by: ClassVar[Weighting] = "num-examples"

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    penalty: Penalty = Penalty()

    def schema(self, message: Message) -> Schema:
        """Return `appraisals`."""
        return appraisals(message.w.size, self.loss, self.penalty)

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return `appraisal`."""
        return appraisal(shard, message.w, shard.margins(message.w), self.loss, self.penalty), state


@dataclass(frozen=True)
class Curvature:
    """Report the appraisal and the curvature Σ ℓ''(z·w) z zᵀ (upper triangle), for Newton's method.

    Parameters
    ----------
    loss : Loss
        Logistic or softmax.
    penalty : Penalty
        The objective.
    """

    weighted_by: ClassVar[Weighting] = "num-examples"

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    penalty: Penalty = Penalty()

    def schema(self, message: Message) -> Schema:
        """Return `appraisals` and the curvature."""
        curvature = Field("sum", (triangle_size(message.w.size),))
        return {**appraisals(message.w.size, self.loss, self.penalty), "curvature": curvature}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return both."""
        margins = shard.margins(message.w)
        report = appraisal(shard, message.w, margins, self.loss, self.penalty)
        return replace(report, sums={**report.sums, "curvature": triangle(hessian(shard, self.loss, margins))}), state


def hessian(shard: Shard, loss: Loss, margins: FloatArray) -> FloatArray:
    """Return Σ ∇²ℓ over a node's samples, (d, d), for the logistic loss or softmax.

    Logistic: Σ p (1 − p) z zᵀ with slopes p. Softmax: Σ p_c z_c z_cᵀ less s sᵀ of every sample, s = Σ_c p_c z_c.
    """
    slope = loss.slope(margins)
    if loss.versus == 1:
        return shard.second_moment(slope * loss.slope(-margins))
    places = np.arange(0, slope.size + 1, loss.versus), np.arange(slope.size)
    of_sample = csr_array((slope, places[1], places[0]), shape=(places[0].size - 1, slope.size))
    means: Any = of_sample @ shard.rows
    return np.asarray(shard.second_moment(slope) - dense(means.T @ means))
