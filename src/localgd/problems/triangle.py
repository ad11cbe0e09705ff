"""Second-order rounds send d×d sums: how they travel, and when they are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from localgd.errors import check_positive
from localgd.rounding import FloatArray, read_only

MOST_MB = 64.0
"""Largest d×d sum, in megabytes, that a node is asked for in a round unless told otherwise: d up to 4,000."""


def triangle(matrix: FloatArray) -> FloatArray:
    """Return the upper triangle of a symmetric matrix, row by row: d(d + 1)/2 numbers.

    Examples
    --------
    >>> triangle(np.array([[1.0, 2.0], [2.0, 3.0]])).tolist()
    [1.0, 2.0, 3.0]
    """
    return read_only(matrix[np.triu_indices(len(matrix))])


def symmetric(upper: FloatArray) -> FloatArray:
    """Return the symmetric matrix with this upper triangle.

    Examples
    --------
    >>> symmetric(np.array([1.0, 2.0, 3.0])).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    d = (math.isqrt(8 * upper.size + 1) - 1) // 2
    out = np.zeros((d, d))
    out[np.triu_indices(d)] = upper
    return out + np.triu(out, 1).T


def triangle_size(n_features: int) -> int:
    """Return how many numbers one upper triangle has.

    Examples
    --------
    >>> triangle_size(2)
    3
    """
    return n_features * (n_features + 1) // 2


def megabytes(n_features: int) -> float:
    """Return the megabytes of one upper triangle of float64."""
    return 8 * triangle_size(n_features) / 1e6


@dataclass(frozen=True)
class Affordable:
    """What asks nodes for d×d sums, and refuses to where they are too large.

    Parameters
    ----------
    max_mb : float > 0
        Largest d×d sum that a node may be asked for, in megabytes.
    """

    max_mb: float = MOST_MB

    def __post_init__(self) -> None:
        check_positive("max_mb", self.max_mb)

    def check_affordable(self, n_features: int, instead: str = "consensus") -> None:
        """Refuse sums over so many columns if they are larger than the limit, with the cost in megabytes."""
        cost = megabytes(n_features)
        if cost > self.max_mb:
            raise ValueError(
                f"second-order rounds on {n_features} columns send {cost:,.3g} MB a node and round, more than "
                f"max_mb={self.max_mb:g}; use {instead}, which sends {n_features * 8 / 1e6:.2g} MB, or raise max_mb"
            )
