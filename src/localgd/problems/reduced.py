"""Squared loss with the free intercept taken out: what the server makes of the sums that nodes send.

F(w) = |y − Xw|² + α|w|² over the rows of all nodes. With an intercept the last column of X is ones and that coefficient
b is free of α. For given other coefficients v the best b is the mean residual, so F is a function of v alone, of half
gradient −h and half curvature C, with s the column sums:

    h = g_v − s g_b/N − αv,    C = X_vᵀX_v − s sᵀ/N + αI,    g = Xᵀ(y − Xw).

C is never below αI. The server makes these of the nodes' sums; a node knows nothing of it, and no row is centred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localgd.core import Report
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, norm, norm_above

SURE = 1 + 32 * UNIT_ROUNDOFF
"""What some operations on known numbers may take from a bound; sums over nodes have their own."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """The problem with the intercept taken out, as the server knows it: α, the rows, and d, the intercept's included.

    `weight` is Σ of the weights of all rows, if they have some. `columns` (d − 1,) are s, the sums of the other
    columns, with a bound on their error; None without an intercept.

    Examples
    --------
    >>> reduced = Reduced(0.0, 4, 2, np.array([8.0]))
    >>> reduced.lifted(np.array([1.0])).tolist(), reduced.of(np.array([5.0, 2.0])).tolist()
    ([1.0, -2.0], [1.0])
    """

    alpha: float
    n_rows: int
    n_columns: int
    columns: FloatArray | None = None
    columns_error: float = 0.0
    weight: float | None = None

    @property
    def total(self) -> float:
        """Rows of all nodes, each by its weight: N."""
        return float(self.n_rows) if self.weight is None else self.weight

    @property
    def rank(self) -> int:
        """Most independent rows there can be: one less where the mean is taken out."""
        return self.n_rows - (self.columns is not None)

    def free(self, w: FloatArray) -> FloatArray:
        """Return v: w without its intercept."""
        return w if self.columns is None else w[:-1]

    def of(self, pull: FloatArray) -> FloatArray:
        """Return g_v − s g_b/N."""
        return pull if self.columns is None else pull[:-1] - self.columns * (pull[-1] / self.total)

    def lifted(self, v: FloatArray) -> FloatArray:
        """Return v with the intercept that leaves the mean residual as it is."""
        return v if self.columns is None else np.append(v, -float(self.columns @ v) / self.total)

    def centred(self, w: FloatArray, pull: FloatArray) -> FloatArray:
        """Return w with the intercept that makes the mean residual 0."""
        return w if self.columns is None else np.append(w[:-1], w[-1] + pull[-1] / self.total)

    def downhill(self, w: FloatArray, report: Report) -> FloatArray:
        """Return h, half of the way down."""
        return self.of(report.sums["pull"]) - self.alpha * self.free(w)

    def inward(self, w: FloatArray, h: FloatArray) -> FloatArray:
        """Return of h what leads to no coefficient below 0: where w has a 0, nothing that would make it smaller."""
        return np.where(self.free(w) > 0, h, np.maximum(h, 0.0))

    def offset(self, report: Report) -> float:
        """Return a bound on |g_b| from residuals; 0 without an intercept."""
        if self.columns is None:
            return 0.0
        return (abs(float(report.sums["pull"][-1])) + folded(report, "_last") + float(report.sums["blur_last"])) * SURE

    def error(self, report: Report) -> float:
        """Return a bound on the error of `of` in a report, that of what the rows were multiplied with left out."""
        pull, drift = report.sums["pull"], folded(report)
        if self.columns is None:
            return drift
        length, last = norm_above(self.columns) + self.columns_error, abs(float(pull[-1]))
        mean = (length * folded(report, "_last") + self.columns_error * last) / self.total
        own = 4 * UNIT_ROUNDOFF * (norm(pull) + 2 * length * last / self.total)
        return float(drift + mean + own) * SURE + self.n_columns * TINY

    def downhill_error(self, w: FloatArray, report: Report) -> float:
        """Return a bound on the error of h, that of the residuals left out."""
        own = 4 * UNIT_ROUNDOFF * (norm(self.of(report.sums["pull"])) + 2 * self.alpha * norm(self.free(w)))
        return (self.error(report) + own) * SURE + w.size * TINY

    def blurred(self, report: Report) -> float:
        """Return a bound on what the error of the residuals does to h."""
        own, last = float(report.sums["blur_pull"]), float(report.sums["blur_last"])
        if self.columns is None:
            return own
        return (own + (norm_above(self.columns) + self.columns_error) * last / self.total) * SURE


def folded(report: Report, which: str = "") -> float:
    """Return the nodes' bound on the error of a sum, and that of adding up the nodes."""
    fold = 2 * (report.n_nodes + 1) * UNIT_ROUNDOFF
    drift = float(report.sums["drift" + which]) + fold * float(report.sums["size" + which])
    return drift * (1 + fold) + TINY
