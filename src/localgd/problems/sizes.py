"""What is known of the rows of all nodes before a method begins."""

from __future__ import annotations

from typing import NamedTuple


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

    @property
    def n_rows(self) -> int:
        """Rows of all nodes."""
        return self.n_samples * self.versus

    @property
    def total(self) -> float:
        """Samples of all nodes, each by its weight."""
        return float(self.n_samples) if self.weight is None else self.weight
