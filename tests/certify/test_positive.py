"""Regression without a coefficient below 0: what is certified of it, against solutions in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import pytest

from common import examples
from localgd import LocalGDRegressor, Status
from targets import dot, solved


def drawn(seed):
    """Few rows: columns of unlike sizes, nearly or just the same; weights; float32 or float64; α of any size."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    X = rng.standard_normal((n, d))
    kind = rng.integers(5)
    if kind == 0:
        X = X[:1] + X * 10.0 ** -rng.integers(1, 12)
    elif kind == 1:
        X[:, -1] = 2 * X[:, 0]
    elif kind == 2:
        X = np.abs(X) + 10.0 ** rng.integers(0, 8)
    X = X * 10.0 ** rng.integers(-6, 7, d)
    y = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4)
    weights = 10.0 ** rng.uniform(-3, 3, n) if rng.random() < 0.4 else None
    alpha = float(rng.choice([0.0, 1e-12, 1.0, 1e10, 10.0 ** rng.uniform(-9, 9)]))
    return X.astype(rng.choice([np.float32, np.float64])), y, weights, alpha, bool(rng.random() < 0.5)


class Pooled:
    """F in fractions, its intercept as given or at its best, and its least solution of all supports."""

    def __init__(self, X, y, weights, alpha, free):
        wide = [[Fraction(value) for value in row] for row in X.astype(float).tolist()]
        self.rows, self.y = wide, [Fraction(value) for value in y.tolist()]
        self.s = [Fraction(value) for value in (np.ones(len(y)) if weights is None else weights).tolist()]
        self.alpha, self.free, self.d = Fraction(alpha), free, X.shape[1]
        total = sum(self.s) if free else Fraction(1)
        columns = zip(*wide, strict=True)
        self.mean = [sum(a * value for a, value in zip(self.s, one, strict=True)) / total * free for one in columns]
        self.level = sum(a * t for a, t in zip(self.s, self.y, strict=True)) / total * free
        x = [[a - b for a, b in zip(row, self.mean, strict=True)] for row in wide]
        self.curved = [
            [
                sum(a * r[i] * r[j] for a, r in zip(self.s, x, strict=True)) + (i == j) * self.alpha
                for j in range(self.d)
            ]
            for i in range(self.d)
        ]
        triples = list(zip(self.s, x, self.y, strict=True))
        self.aim = [sum(a * r[i] * (t - self.level) for a, r, t in triples) for i in range(self.d)]

    def value(self, v, b=None):
        b = self.level - dot(self.mean, v) if b is None else b
        triples = zip(self.s, self.rows, self.y, strict=True)
        return sum(a * (t - dot(row, v) - b) ** 2 for a, row, t in triples) + self.alpha * dot(v, v)

    def least(self):
        found = []
        for some in chain.from_iterable(combinations(range(self.d), k) for k in range(self.d + 1)):
            part = solved([[self.curved[i][j] for j in some] for i in some], [self.aim[i] for i in some])
            v = [Fraction(0)] * self.d
            for place, value in zip(some, part, strict=True):
                v[place] = value
            if min(v) >= 0:
                found.append((self.value(v), v))
        return min(found)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_certificate_of_a_model_without_negative_coefficients_is_false():
    told = 0
    for seed in range(n := examples(300)):
        X, y, weights, alpha, free = drawn(seed)
        reg = LocalGDRegressor(alpha, fit_intercept=free, positive=True, n_rounds=1 + 50 * (seed % 3))
        reg.fit(X, y, groups=np.arange(len(y)) % 2, sample_weight=weights)
        pooled, found = Pooled(X, y, weights, alpha, free), reg.certificate_
        v, b = [Fraction(value) for value in reg.coef_.astype(float).tolist()], Fraction(float(reg.intercept_))
        value, (least, there) = pooled.value(v, b), pooled.least()
        assert min(v) >= 0
        assert Fraction(found.objective_low) <= value <= Fraction(found.objective)
        assert np.isinf(found.gap) or value - least <= Fraction(found.gap)
        apart = [a - c for a, c in zip(v, there, strict=True)]
        assert np.isinf(found.distance) or dot(apart, apart) <= Fraction(found.distance) ** 2
        assert found.verdict is not Status.CERTIFIED or 4 * dot(apart, apart) <= dot(there, there)
        told += found.distance < np.inf
    assert told > n / 2
