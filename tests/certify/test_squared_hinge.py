"""Squared hinge loss with C: LinearSVC's model, and what is certified of it, against minimisers in eighty digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.sparse import csr_array

from common import examples, random_rows, squared_hinge_fit, stacked, with_bias
from localgd import InProcess, Regularised, Shard, Status, certify, lbfgs, newton, newton_cg, scaffold, train
from localgd.rounding import angle_deg
from targets import solved

DIGITS, TINY = 80, Decimal(10) ** -50
wide = np.vectorize(Decimal, otypes=[object])


@pytest.fixture(autouse=True)
def digits():
    with localcontext(prec=DIGITS):
        yield


def exact(z, s, C, kept, near):
    """The minimiser of Σ kept w²/2 + C Σ s max(0, 1 − z·w)², by steps of Newton's method from nearby; or None."""
    w = near
    for _ in range(30):
        some = z @ w < 1
        by = 2 * C * z[some].T * s[some]
        again = np.array(solved((by @ z[some] + np.diag(kept)).tolist(), by.sum(axis=1).tolist()))
        if max(abs(again - w)) <= TINY * max(abs(again)):
            return again
        w = again
    return None


def tiny(seed):
    """Three nodes of a few rows, some on a grid, so that margins of exactly 1 occur; weights, sizes, C of all kinds."""
    rng = np.random.default_rng(seed)
    d, free = int(rng.integers(1, 4)), bool(rng.random() < 0.6)
    size, spread = 10.0 ** rng.integers(-3, 4), rng.choice([0.0, 1.0, 3.0])
    shards = []
    for place in range(3):
        n = int(rng.integers(2, 5))
        x = rng.standard_normal((n, d)) + rng.standard_normal(d)
        x = (np.round(2 * x) / 2 if rng.random() < 0.5 else x) * size
        y = np.where(np.arange(n) % 2 == place % 2, 1.0, -1.0)
        x = np.hstack([x, np.ones((n, 1))]) if free else x
        weights = 10.0 ** rng.uniform(-spread, spread, n) if rng.random() < 0.5 else None
        rows = x * y[:, None]
        shards.append(Shard(f"{place}", csr_array(rows) if rng.random() < 0.3 else rows, weights=weights))
    return rng, shards, Regularised("squared_hinge", C=10 ** rng.uniform(-3, 4) / size**2, intercept=free)


class Pooled:
    """All rows in one place, in eighty digits: F, and its minimiser if steps from nearby come to it."""

    def __init__(self, shards, problem):
        rows, s = stacked(shards), np.concatenate([shard.weigh(np.ones(shard.n_rows)) for shard in shards])
        kept = problem.pull(np.ones(rows.shape[1]))
        self.near = squared_hinge_fit(rows, s, problem.C, kept)
        self.z, self.s, self.kept, self.C = wide(rows), wide(s), wide(kept), Decimal(problem.C)
        self.w = exact(self.z, self.s, self.C, self.kept, wide(self.near))

    def value(self, w):
        short = np.maximum(1 - self.z @ w, 0)
        return (self.s @ (short * short) + self.kept @ (w * w) / (2 * self.C)) / sum(self.s)

    def check(self, w, found):
        """Compare what is certified of a model; return whether a distance is."""
        v = wide(w)
        assert found.objective_low <= self.value(v) <= found.objective
        assert self.value(v) - self.value(self.w) <= found.gap
        assert (self.kept @ (v - self.w) ** 2).sqrt() <= found.distance
        if found.angle_deg_max > 1e-6:  # below, the arc cosine of float64 tells nothing
            one, other = ((self.kept * u).astype(float) for u in (v, self.w))
            assert angle_deg(one, other) <= found.angle_deg_max + 1e-6
        return found.distance < np.inf


def test_no_certificate_is_ever_false():
    told = found = 0
    for seed in range(n := examples(1000)):
        rng, shards, problem = tiny(seed)
        pooled = Pooled(shards, problem)
        if pooled.w is None:
            continue
        found += 1
        there = np.array([float(v) for v in pooled.w])
        size = np.abs(there).max()
        far = [
            there + size * rng.standard_normal(there.size) * 10 ** rng.uniform(*span) for span in ((-16, -8), (-8, 1))
        ]
        for w in (there, *far):
            if w.any():
                told += pooled.check(w, certify(w, InProcess(shards), problem=problem))
    assert found > 0.98 * n
    assert told > 2 * n


@pytest.mark.parametrize(
    "method", [newton(), newton_cg(), lbfgs(), scaffold(local_steps=5)], ids=lambda method: method.name
)
def test_methods_end_at_the_exact_minimiser_certified(method):
    for seed in range(examples(8)):
        shards = with_bias(random_rows(seed), seed, 0.2)
        problem = Regularised("squared_hinge", C=0.5, intercept=bool(seed % 2))
        pooled = Pooled(shards, problem)
        run = train(InProcess(shards), method, problem=problem, n_rounds=300)
        np.testing.assert_allclose(run.w, [float(v) for v in pooled.w], atol=1e-8)
        assert run.certificate.verdict is Status.CERTIFIED
        assert run.certificate.distance < 1e-7
        assert pooled.check(run.w, run.certificate)
        assert run.probabilities is None
