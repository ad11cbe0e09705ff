"""How scores of a linear model become probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from localgd.rounding import FloatArray


@dataclass(frozen=True)
class Probabilities:
    """Probabilities of classes from scores s = x·coef + intercept.

    By default those of the logistic loss, 1/(1 + e^(−s)) for the second of two classes, and of softmax,
    e^(s_c)/Σ e^(s_k), for more. With a `slope` and an `offset` for each class, σ(slope·s + offset) for the second of
    two, for more each against the rest, divided by their sum.

    Parameters
    ----------
    slope, offset : tuple of float
        One number each for two classes, one per class for more; empty for those of the loss.

    Raises
    ------
    ValueError
        If there are not as many slopes as offsets, or one is not finite.

    Examples
    --------
    >>> Probabilities().of(np.array([0.0, np.log(3.0)])).round(12).tolist()
    [[0.5, 0.5], [0.25, 0.75]]
    >>> Probabilities().of(np.log([[1.0, 2.0, 5.0]])).round(12).tolist()
    [[0.125, 0.25, 0.625]]
    >>> Probabilities((2.0,), (0.0,)).of(np.array([np.log(3.0)])).round(12).tolist()
    [[0.1, 0.9]]
    """

    slope: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that both fit each other."""
        if len(self.slope) != len(self.offset) or not np.isfinite([*self.slope, *self.offset]).all():
            raise ValueError(
                f"slope and offset must be as many finite numbers, got {self.slope!r} and {self.offset!r}; give one "
                "each for two classes, and one per class for more"
            )

    def log_odds(self, scores: FloatArray) -> FloatArray:
        """Return slope·s + offset, by whose sign, or by the largest of which, a row is decided; s itself without."""
        return np.asarray(scores * np.array(self.slope) + np.array(self.offset)) if self.slope else scores

    def of(self, scores: FloatArray) -> FloatArray:
        """Return the probability of each class, (n, 2) from scores (n,), and (n, C) from scores (n, C)."""
        return np.asarray(np.exp(self.log_of(scores)))

    def log_of(self, scores: FloatArray) -> FloatArray:
        """Return their logarithms; one that float64 does not hold, as of a score of 1e5, is −∞ or 0 as it must be."""
        scores = self.log_odds(scores)
        if scores.ndim == 1:
            return np.column_stack([-np.logaddexp(0.0, scores), -np.logaddexp(0.0, -scores)])
        logs = -np.logaddexp(0.0, -scores) if self.slope else scores
        most = logs.max(axis=1, keepdims=True)
        return np.asarray(logs - most - np.log(np.exp(logs - most).sum(axis=1, keepdims=True)))

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {"slope": list(self.slope), "offset": list(self.offset)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Probabilities:
        """Return what `to_dict` wrote."""
        return cls(*(tuple(float(number) for number in values[name]) for name in ("slope", "offset")))


def none_there(fitted: str) -> str:
    """Return the error of a model whose scores are no log-odds; `fitted` says how to make one whose are.

    Examples
    --------
    >>> none_there("train with --C 1")
    'the scores of this model are distances to a plane, not log-odds, so it has no probabilities: train with --C 1'
    """
    return f"the scores of this model are distances to a plane, not log-odds, so it has no probabilities: {fitted}"
