"""The spectrum of XᵀX, the intercept taken out and the penalty put in, and what its rounding leaves in doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from localgd.core import Report
from localgd.problems.reduced import Reduced
from localgd.problems.triangle import symmetric
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of D⁻¹CD⁻¹ and the rounding error that is counted against each of them.

    D is `scale`, (k,), powers of two: about the lengths of the columns, so that their units do not matter; ones where
    that cannot prove them to be independent. The `values`, (k,), ascend; the `vectors`, (k, k), are columns. An error
    (of the sums, of taking the mean out, of the decomposition) is at most `doubt`, and hardly ever above `noise`. A
    penalty is `weak` if it drowns in that: then fewer rows than columns say more than it does.
    """

    reduced: Reduced
    scale: FloatArray
    values: FloatArray
    vectors: FloatArray
    doubt: float
    noise: float
    weak: bool = False

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
        """Lower bound on the N-th largest eigenvalue: the rows are independent if it is positive."""
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
        """Whether there may be directions that only the choice of the shortest solution decides, or next to only it."""
        return self.weak or not self.curved > 0

    def solved(self, h: FloatArray) -> FloatArray:
        """Return C⁺h, to the precision of the sums."""
        vectors, values = self.vectors[:, self.dropped :], self.values[self.dropped :]
        least = 0.0 if self.reduced.alpha == 0 else self.noise  # below, a step could be far too long
        inner = vectors @ ((vectors.T @ (h / self.scale)) / np.maximum(values, least))
        return np.asarray(inner / self.scale)

    def rooted(self, v: FloatArray, h: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return R and R⁻ᵀ(Cv + h) for C = RᵀR, to the precision of the sums, less what cannot be told from 0."""
        # below the noise an eigenvalue may be any, and with a penalty it is above 0, whatever rounding has made of it
        roots = np.sqrt(np.maximum(self.values[self.dropped :], self.noise))
        across = self.vectors[:, self.dropped :].T
        root = roots[:, None] * across * self.scale
        return root, np.asarray(root @ v + across @ (h / self.scale) / roots)


def spectrum(report: Report, reduced: Reduced) -> Spectrum:
    """Return the spectrum from the nodes' moments."""
    moment = symmetric(report.sums["moment"])
    sizes = reduced.free(np.diagonal(moment) + reduced.alpha)
    exponents = np.floor(np.log2(sizes, out=np.zeros_like(sizes), where=sizes > 0) / 2)
    weak = reduced.rank < sizes.size and 0 < reduced.alpha <= _noise(reduced.n_rows, sizes.size, float(sizes.sum()))
    found = _decomposed(moment, reduced, np.exp2(exponents))
    return replace(_decomposed(moment, reduced, np.ones(sizes.size)), weak=weak) if weak or found.spans else found


def _noise(n: int, d: int, trace: float) -> float:
    """Return what the rounding of an eigenvalue is hardly ever above."""
    return 16 * (math.sqrt(n) + math.sqrt(d)) * UNIT_ROUNDOFF * trace


def _decomposed(moment: FloatArray, reduced: Reduced, scale: FloatArray) -> Spectrum:
    """Return the spectrum of the problem in columns divided by `scale`.

    The error of an entry of XᵀX is at most so many roundings of the product of its columns' lengths, so what is counted
    scales as they do.
    """
    n, d = reduced.n_rows, scale.size
    trace = float((reduced.free(np.diagonal(moment) + reduced.alpha) / scale**2).sum()) * (1 + (n + d) * UNIT_ROUNDOFF)
    if reduced.columns is not None:
        moment = moment[:-1, :-1] - np.outer(reduced.columns, reduced.columns / reduced.total)
    values, vectors = np.linalg.eigh((moment + reduced.alpha * np.eye(d)) / np.outer(scale, scale))
    # n-term sums for XᵀX and, with the mean taken out, twice more; the decomposition of a d×d matrix
    doubt = (4 * n + 32 * d + 2**12) * UNIT_ROUNDOFF * trace
    lost = n * d * TINY / float(scale.min(initial=1.0)) ** 2
    return Spectrum(reduced, scale, values, vectors, doubt + lost, _noise(n, d, trace) + lost)
