"""Problems of real targets that several suites share, and their solutions in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from scipy.sparse import csr_array

from localgd import InProcess, LeastSquares, Samples, auto, conjugate_gradients, train


def fitted(engine, *, alpha=0.0, intercept=False, tol=0.0, max_mb=64.0, **limits):
    """The run of the method that suits the sizes; conjugate gradients where XᵀX may cost nothing."""
    method = auto(max_mb=max_mb, tol=tol) if max_mb else conjugate_gradients(tol=tol)
    return train(engine, method, problem=LeastSquares(alpha, intercept), **{"n_rounds": 10_000, **limits})


def spread_over(X, y, n_nodes, *, sparse=False):
    of_node = np.arange(len(y)) % n_nodes
    rows = [X[of_node == m] for m in range(n_nodes)]
    return InProcess(Samples(f"{m:03}", csr_array(x) if sparse else x, y[of_node == m]) for m, x in enumerate(rows))


def with_ones(X):
    return np.hstack([X, np.ones((len(X), 1))])


def problem(n, d, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + offset
    return X, X @ rng.standard_normal(d) + rng.standard_normal(n) + 3.0


def solved(A, b):
    """A solution of a consistent system in exact fractions; free unknowns are 0."""
    rows = [[*line, value] for line, value in zip(A, b, strict=True)]
    pivots, width = [], len(A[0]) if A else 0
    for column in range(width):
        done = len(pivots)
        found = next((k for k in range(done, len(rows)) if rows[k][column] != 0), None)
        if found is None:
            continue
        rows[done], rows[found] = rows[found], rows[done]
        pivot = rows[done][column]
        rows[done] = [value / pivot for value in rows[done]]
        for k, line in enumerate(rows):
            if k != done and line[column] != 0:
                factor = line[column]
                rows[k] = [value - factor * other for value, other in zip(line, rows[done], strict=True)]
        pivots.append(column)
    out = [Fraction(0)] * width
    for k, column in enumerate(pivots):
        out[column] = rows[k][-1]
    return out


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


class Exact:
    """The problem in exact fractions, the mean taken out where there is an intercept."""

    def __init__(self, X, y, alpha, *, intercept):
        self.X, self.y = [[Fraction(float(x)) for x in row] for row in X], [Fraction(float(t)) for t in y]
        self.alpha, self.intercept, n = Fraction(alpha), intercept, len(y)
        mean = [sum(column) / n * intercept for column in zip(*self.X, strict=True)]
        Xc = [[x - m for x, m in zip(row, mean, strict=True)] for row in self.X]
        yc = [t - sum(self.y) / n * intercept for t in self.y]
        columns = list(zip(*Xc, strict=True))
        self.aim = [dot(column, yc) for column in columns]
        self.C = [[dot(a, b) + self.alpha * (j == k) for k, b in enumerate(columns)] for j, a in enumerate(columns)]
        if alpha:
            self.v = solved(self.C, self.aim)
        else:  # w = Xᵀa with KKa = Ky, K = XXᵀ: the least-squares solution in the span of the rows
            K = [[dot(a, b) for b in Xc] for a in Xc]
            a = solved([[dot(row, other) for other in K] for row in K], [dot(row, yc) for row in K])
            self.v = [dot(column, a) for column in columns]
        self.b = (sum(self.y) - sum(dot(row, self.v) for row in self.X)) / n * intercept

    def objective(self, v, b):
        residuals = [t - dot(row, v) - b for row, t in zip(self.X, self.y, strict=True)]
        return dot(residuals, residuals) + self.alpha * dot(v, v)

    def check(self, w, found):
        w = [Fraction(float(x)) for x in w]
        v, b = (w[:-1], w[-1]) if self.intercept else (w, Fraction(0))
        away = [x - z for x, z in zip(v, self.v, strict=True)]
        if math.isfinite(found.distance):
            assert dot(away, away) <= Fraction(found.distance) ** 2
        if math.isfinite(found.gap):
            assert self.objective(v, b) - self.objective(self.v, self.b) <= Fraction(found.gap)
        assert holds(self.objective(v, b), found.objective, 1)
        assert holds(self.objective(v, b) - self.alpha * dot(v, v), found.residual, 2)
        h = [a - dot(row, v) for a, row in zip(self.aim, self.C, strict=True)]
        assert holds(4 * dot(h, h), found.slope, 2)
        assert Fraction(found.length_low) ** 2 <= dot(self.v, self.v)


def holds(exact, bound, power):
    """Whether an upper bound is true; an infinite one is, NaN is none."""
    return bound == math.inf or exact <= Fraction(bound) ** power
