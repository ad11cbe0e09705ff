"""What is certified of minimisers of softmax, and of losses without a penalty, holds against fifty digits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
from scipy.sparse import issparse

from common import as_csr, examples
from localgd import ClassRows, InProcess, Regularised, Shard, certify, lbfgs, local_gd, newton, train
from localgd.losses import Softmax
from localgd.problems.regularised import hessian

DIGITS = 50
wide = np.vectorize(Decimal, otypes=[object])
exp = np.vectorize(Decimal.exp, otypes=[object])


class Pooled:
    """All samples in one place, and F in fifty digits: mean cross-entropy by weight, and the penalty."""

    def __init__(self, shards, problem):
        self.shards, self.n_classes = shards, shards[0].data.n_classes
        self.x = wide(np.vstack([dense(shard.data.x.explicit()) for shard in shards]))
        self.y = np.concatenate([shard.data.codes for shard in shards])
        self.s = wide(np.concatenate([shard.weigh(np.ones(shard.n_samples)) for shard in shards]))
        self.total = sum(self.s)
        self.kept = wide(problem.pull(np.ones(self.n_classes * self.x.shape[1])))
        self.strength = 1 / (Decimal(problem.C) * self.total)

    def likely(self, w):
        scores = self.x @ w.reshape(self.n_classes, -1).T
        e = exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def value(self, w):
        own = self.likely(w)[np.arange(len(self.y)), self.y]
        losses = -sum(s * p.ln() for s, p in zip(self.s, own, strict=True)) / self.total
        return losses + self.strength * sum(self.kept * w * w) / 2

    def gradient(self, w):
        p = self.likely(w)
        p[np.arange(len(self.y)), self.y] -= 1
        return ((self.s[:, None] * p).T @ self.x).ravel() / self.total + self.strength * self.kept * w

    def minimiser(self, near):
        """Newton's method with the curvature of float64 and residuals of fifty digits."""
        total = float(self.total)
        loss = Softmax(self.n_classes - 1)
        curvature = sum(hessian(shard, loss, shard.margins(near)) for shard in self.shards) / total
        curvature += np.diag((self.strength * self.kept).astype(float))
        inverse, w = wide(np.linalg.pinv(curvature, rcond=1e-12, hermitian=True)), wide(near)
        for _ in range(40):
            slope = self.gradient(w)
            if max(abs(slope)) < Decimal(10) ** -40:
                return w
            w = w - inverse @ slope
        return None


def dense(rows):
    return rows.toarray() if issparse(rows) else rows


def drawn(seed):
    """Random nodes, with or without weights, biases, sparse rows; a class may lack anywhere but not everywhere."""
    rng = np.random.default_rng(seed)
    n_classes, d, free = int(rng.integers(3, 6)), int(rng.integers(1, 4)), bool(rng.random() < 0.6)
    size, spread = 10 ** rng.uniform(-1, 1), rng.choice([0.0, 1.0, 3.0])
    shards, first = [], 0
    for place in range(3):
        n = int(rng.integers(2, 8))
        x = size * (rng.standard_normal((n, d)) + rng.standard_normal(d) * rng.choice([0, 3]))
        y = np.arange(first, first + n) % n_classes if place < 2 else rng.integers(0, n_classes, n)
        first += n
        x = np.hstack([x, np.ones((n, 1))]) if free else x
        weights = 10.0 ** rng.uniform(-spread, spread, n) if rng.random() < 0.7 else None
        shards.append(Shard(f"{place}", ClassRows(x, y, n_classes), weights=weights))
    shards = as_csr(shards) if rng.random() < 0.3 else shards
    return rng, shards, Regularised(C=10 ** rng.uniform(-2, 3) / size**2, intercept=free)


def length(v):
    return sum(v * v).sqrt()


def violations(seed):
    """How many certificates were looked at, and what one says that is not so."""
    with localcontext(prec=DIGITS):
        return looked_at(seed)


def looked_at(seed):
    rng, shards, problem = drawn(seed)
    engine = InProcess(shards)
    run = train(engine, newton(), problem=problem, n_rounds=25)
    bound = problem.among(shards[0].versus)
    pooled = Pooled(shards, bound)
    exact = pooled.minimiser(run.w)
    if exact is None:
        return 0, []
    scale = np.abs(run.w).max()
    other, few = lbfgs() if seed % 2 else local_gd(local_steps=5), int(rng.integers(1, 8))
    rough = train(engine, other, problem=problem, n_rounds=few)
    models = [(run.w, run.certificate), (rough.w, rough.certificate)]
    for size in (0.0, 10 ** rng.uniform(-14, 0), 10 ** rng.uniform(-3, 1)):
        w = run.w + size * scale * rng.standard_normal(run.w.size)
        models.append((w, certify(w, engine, problem=problem)))
    wrong, least = [], pooled.value(exact)
    for place, (model, found) in enumerate(models):
        w = wide(model)
        value, kept, other = pooled.value(w), pooled.kept * w, pooled.kept * exact
        if not found.objective_low <= value <= found.objective:
            wrong.append((seed, place, "objective", float(value), found))
        if value - least > found.gap:
            wrong.append((seed, place, "gap", float(value - least), found))
        if length(kept - other) > found.distance:
            wrong.append((seed, place, "distance", float(length(kept - other)), found))
        if not math.isnan(found.angle_deg_max):
            along = sum(kept * other) / length(kept) / length(other)
            sine = length(kept / length(kept) - along * other / length(other))
            if along < 0 or math.degrees(math.asin(sine)) * (1 - 1e-14) > found.angle_deg_max:
                wrong.append((seed, place, "angle", float(sine), found))
    return len(models), wrong


def test_no_certificate_of_softmax_is_violated():
    held = 0
    for seed in range(examples(1000)):
        number, wrong = violations(seed)
        assert not wrong
        held += number
    assert held > 4 * examples(1000)
