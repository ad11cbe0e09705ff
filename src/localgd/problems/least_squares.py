"""Squared loss, penalised or not: what nodes are asked for, and the free intercept taken out of what they say.

F(w) = |y − Xw|² + α|w|² over the rows of all nodes. With an intercept the last column of X is ones and that coefficient
b is free of α. For given other coefficients v the best b is the mean residual, so F is a function of v alone, of half
gradient −h and half curvature C, with s the column sums:

    h = g_v − s g_b/N − αv,    C = X_vᵀX_v − s sᵀ/N + αI,    g = Xᵀ(y − Xw).

C is never below αI. The server makes these of the nodes' sums; a node knows nothing of it, and no row is centred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from localgd.core import Field, Message, Report, Schema
from localgd.kernels.project import dense
from localgd.problems.triangle import symmetric, triangle, triangle_size
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, norm, norm_above
from localgd.rows import Samples

SURE = 1 + 32 * UNIT_ROUNDOFF
"""What some operations on known numbers may take from a bound; sums over nodes have their own."""


@dataclass(frozen=True)
class Residuals:
    """Report what the residuals r = y − Xw of the shared model say.

    Sums: `summed` of r, ``square`` |r|², and of the errors e of the single residuals, as bounds: ``blur`` |e|²,
    ``blur_pull`` Σ |e_i||x_i| and ``blur_last`` Σ |e_i|.

    Parameters
    ----------
    intercept : bool
        The last column must be ones.
    """

    intercept: bool = False

    def init(self, shard: Samples) -> None:
        """Check that there are targets, and that the last column is ones, if it is the intercept's."""
        if not isinstance(shard, Samples):
            raise TypeError(f"node {shard.node_id!r} holds signed rows; give Samples, with real targets")
        rows: Any = shard.rows
        if self.intercept and not (dense(rows[:, [-1]]) == 1.0).all():
            raise ValueError(
                f"node {shard.node_id!r}: intercept=True needs a last column of ones; append it, or leave intercept out"
            )

    def schema(self, message: Message) -> Schema:
        """Return `summaries` of the residuals, and the bounds on their errors."""
        errors = dict.fromkeys(("square", "blur", "blur_pull", "blur_last"), Field("sum"))
        return {**summaries(message.w.size), **errors}

    @np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64: then nothing is proved of it
    def run(self, message: Message, shard: Samples, state: None) -> tuple[Report, None]:
        """Return the sums."""
        residuals = shard.residuals(message.w)
        size, length = np.abs(residuals), norm_above(message.w)
        # a product of row and model, then one subtraction
        error = 2 * (shard.row_length + 2) * UNIT_ROUNDOFF * shard.norms * length + 2 * UNIT_ROUNDOFF * size
        error = error + shard.n_features * TINY
        above = 1 + 4 * (shard.n_rows + 8) * UNIT_ROUNDOFF
        sums = {
            **summed(shard, residuals),
            "square": float((residuals * residuals).sum()),
            "blur": above * float((error * error).sum()),
            "blur_pull": above * float((error * shard.norms).sum()),
            "blur_last": above * float(error.sum()),
        }
        return Report(1, shard.n_rows, sums), state


@dataclass(frozen=True)
class Product:
    """Report `summed` of Xv for the vector v that is sent: XᵀXv, or at any rate Xᵀa for some a."""

    def schema(self, message: Message) -> Schema:
        """Return `summaries`."""
        return summaries(message.w.size)

    def run(self, message: Message, shard: Samples, state: None) -> tuple[Report, None]:
        """Return the product and the error of its second half."""
        return Report(1, shard.n_rows, summed(shard, np.asarray(shard.rows @ message.w))), state


@dataclass(frozen=True)
class Moments:
    """Report ``moment``, the upper triangle of XᵀX.

    Parameters
    ----------
    n_features : int
        d, as its message has no model to tell.
    """

    n_features: int

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return a triangle."""
        return {"moment": Field("sum", (triangle_size(self.n_features),))}

    def run(self, message: Message, shard: Samples, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return it."""
        return Report(1, shard.n_rows, {"moment": triangle(shard.second_moment(np.ones(shard.n_rows)))}), state


def summed(shard: Samples, a: FloatArray) -> dict[str, Any]:
    """Return the sums ``pull`` Xᵀa, ``size`` |Xᵀa| and ``drift``, a bound on its rounding error.

    ``size_last`` and ``drift_last`` are the same for the last entry, if that column is ones.
    """
    pull, sizes = shard.combine(a), np.abs(a)
    last = 2 * (a.size + 4) * UNIT_ROUNDOFF * float(sizes.sum()) + a.size * TINY
    drift = {"drift": shard.combine_error(sizes), "drift_last": last}
    return {"pull": pull, "size": norm_above(pull), "size_last": abs(float(pull[-1])), **drift}


def summaries(n_features: int) -> Schema:
    """Return the schema of `summed`."""
    numbers = dict.fromkeys(("size", "size_last", "drift", "drift_last"), Field("sum"))
    return {"pull": Field("sum", (n_features,)), **numbers}


@dataclass(frozen=True, eq=False)
class Reduced:
    """The problem with the intercept taken out, as the server knows it.

    Parameters
    ----------
    alpha : float, at least 0
        α.
    n_rows : int
        N, rows of all nodes.
    n_columns : int
        d, the intercept's column included.
    columns : (d − 1,) float64 array, optional
        s, the sums of the other columns; None without an intercept.
    columns_error : float
        A bound on the error of s.

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

    @property
    def rank(self) -> int:
        """Most independent rows there can be: one less where the mean is taken out."""
        return self.n_rows - (self.columns is not None)

    def free(self, w: FloatArray) -> FloatArray:
        """Return v: w without its intercept."""
        return w if self.columns is None else w[:-1]

    def of(self, pull: FloatArray) -> FloatArray:
        """Return g_v − s g_b/N."""
        return pull if self.columns is None else pull[:-1] - self.columns * (pull[-1] / self.n_rows)

    def lifted(self, v: FloatArray) -> FloatArray:
        """Return v with the intercept that leaves the mean residual as it is."""
        return v if self.columns is None else np.append(v, -float(self.columns @ v) / self.n_rows)

    def centred(self, w: FloatArray, pull: FloatArray) -> FloatArray:
        """Return w with the intercept that makes the mean residual 0."""
        return w if self.columns is None else np.append(w[:-1], w[-1] + pull[-1] / self.n_rows)

    def downhill(self, w: FloatArray, report: Report) -> FloatArray:
        """Return h, half of the way down."""
        return self.of(report.sums["pull"]) - self.alpha * self.free(w)

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
        mean = (length * folded(report, "_last") + self.columns_error * last) / self.n_rows
        own = 4 * UNIT_ROUNDOFF * (norm(pull) + 2 * length * last / self.n_rows)
        return float(drift + mean + own) * SURE + self.n_columns * TINY

    def downhill_error(self, w: FloatArray, report: Report) -> float:
        """Return a bound on the error of h, that of the residuals left out."""
        own = 4 * UNIT_ROUNDOFF * (norm(self.of(report.sums["pull"])) + 2 * self.alpha * norm(self.free(w)))
        return (self.error(report) + own) * SURE + w.size * TINY

    def blurred(self, report: Report) -> float:
        """Return a bound on what the error of the residuals does to h."""
        own, last = float(report.sums["blur_pull"]), float(report.sums["blur_last"])
        return (
            own
            if self.columns is None
            else (own + (norm_above(self.columns) + self.columns_error) * last / self.n_rows) * SURE
        )


def folded(report: Report, which: str = "") -> float:
    """Return the nodes' bound on the error of a sum, and that of adding up the nodes."""
    fold = 2 * (report.n_nodes + 1) * UNIT_ROUNDOFF
    drift = float(report.sums["drift" + which]) + fold * float(report.sums["size" + which])
    return drift * (1 + fold) + TINY


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of D⁻¹CD⁻¹ and the rounding error that is counted against each of them.

    Parameters
    ----------
    reduced : Reduced
        The problem.
    scale : (k,) float64 array
        D, powers of two: about the lengths of the columns, so that their units do not matter; ones where that cannot
        prove them to be independent.
    values : (k,) float64 array
        Eigenvalues, ascending.
    vectors : (k, k) float64 array
        Eigenvectors, one a column.
    doubt : float
        A bound on the error of every eigenvalue: of the sums, of taking the mean out, of the decomposition.
    noise : float
        More than that error is likely to be.
    """

    reduced: Reduced
    scale: FloatArray
    values: FloatArray
    vectors: FloatArray
    doubt: float
    noise: float

    @cached_property
    def dropped(self) -> int:
        """How many eigenvalues, the least ones, cannot be told from those of directions that no row has a part in."""
        if not self.spans:
            return 0
        if self.independent:
            return self.values.size - self.reduced.rank
        return int(np.count_nonzero(self.values <= self.noise))

    @property
    def curved(self) -> float:
        """Lower bound on the least eigenvalue of C."""
        if not self.values.size:
            return math.inf
        least = max(float(self.values[0]) - self.doubt, 0.0) * float(self.scale.min()) ** 2
        return max(least * (1 - 4 * UNIT_ROUNDOFF), self.reduced.alpha)

    @property
    def spread(self) -> float:
        """Lower bound on the square of the N-th singular value: the rows are independent if it is positive."""
        place = self.values.size - self.reduced.rank
        if place < 0 or not self.spans:
            return 0.0
        return max(float(self.values[place]) - self.doubt, 0.0) if self.reduced.rank else math.inf

    @property
    def independent(self) -> bool:
        """Whether the rows are proved to be independent, and fewer than the columns."""
        return self.spread > 0

    @property
    def spans(self) -> bool:
        """Whether there may be directions that only the choice of the shortest solution decides."""
        return not self.curved > 0

    def solved(self, h: FloatArray) -> FloatArray:
        """Return C⁺h, to the precision of the sums."""
        vectors, values = self.vectors[:, self.dropped :], self.values[self.dropped :]
        least = 0.0 if self.reduced.alpha == 0 else self.noise  # below, a step could be far too long
        inner = vectors @ ((vectors.T @ (h / self.scale)) / np.maximum(values, least))
        return np.asarray(inner / self.scale)


def spectrum(report: Report, reduced: Reduced) -> Spectrum:
    """Return the spectrum from the nodes' moments."""
    moment = symmetric(report.sums["moment"])
    sizes = reduced.free(np.diagonal(moment) + reduced.alpha)
    exponents = np.floor(np.log2(sizes, out=np.zeros_like(sizes), where=sizes > 0) / 2)
    found = _decomposed(moment, reduced, np.exp2(exponents))
    return _decomposed(moment, reduced, np.ones(sizes.size)) if found.spans else found


def _decomposed(moment: FloatArray, reduced: Reduced, scale: FloatArray) -> Spectrum:
    """Return the spectrum of the problem in columns divided by `scale`.

    The error of an entry of XᵀX is at most so many roundings of the product of its columns' lengths, so what is counted
    scales as they do.
    """
    n, d = reduced.n_rows, scale.size
    trace = float((reduced.free(np.diagonal(moment) + reduced.alpha) / scale**2).sum()) * (1 + (n + d) * UNIT_ROUNDOFF)
    if reduced.columns is not None:
        moment = moment[:-1, :-1] - np.outer(reduced.columns, reduced.columns / n)
    values, vectors = np.linalg.eigh((moment + reduced.alpha * np.eye(d)) / np.outer(scale, scale))
    # n-term sums for XᵀX and, with the mean taken out, twice more; the decomposition of a d×d matrix
    doubt = (4 * n + 32 * d + 2**12) * UNIT_ROUNDOFF * trace
    noise = 16 * (math.sqrt(n) + math.sqrt(d)) * UNIT_ROUNDOFF * trace
    lost = n * d * TINY / float(scale.min(initial=1.0)) ** 2
    return Spectrum(reduced, scale, values, vectors, doubt + lost, noise + lost)
