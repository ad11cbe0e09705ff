"""What is known of the rows of all nodes before a method begins."""

from __future__ import annotations

from typing import NamedTuple

from localgd.rounding import FloatArray, norm

LARGEST = 1e150
"""Margins up to here can be squared."""


class DataSizes(NamedTuple):
    """What one round finds out of the rows of all nodes.

    Parameters
    ----------
    n_samples, n_features : int
        Samples of all nodes, and columns.
    radius, versus : float and int
        The largest row norm, and the rows that speak for one sample.
    weight : float, optional
        Σ of the weights of all samples, if they have some.
    """

    n_samples: int
    n_features: int
    radius: float
    versus: int
    weight: float | None = None

    def check(self, w: FloatArray) -> None:
        """Refuse a model (d,) that makes margins with these rows that have no square in float64."""
        if not norm(w) * self.radius < LARGEST:
            raise ValueError(
                "the model is too large for these rows: margins would leave float64; give it in their unit"
            )

    @property
    def n_rows(self) -> int:
        """Rows of all nodes."""
        return self.n_samples * self.versus

    @property
    def total(self) -> float:
        """Samples of all nodes, each by its weight."""
        return float(self.n_samples) if self.weight is None else self.weight
