"""The repair of softmax's dual point: it balances the classes, and costs no more than is said, in fifty digits."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import as_csr, examples
from localgd import ClassRows, InProcess, NodeError, Regularised, Shard, lbfgs, train
from localgd.core import Message
from localgd.limits import Limits
from localgd.problems.balance import balanced
from localgd.problems.regularised import Appraise

wide = np.vectorize(Decimal, otypes=[object])
exp = np.vectorize(Decimal.exp, otypes=[object])
log = np.vectorize(Decimal.ln, otypes=[object])


def exactly(shards, w):
    """The repaired point q', its pull and Σ s KL(q', p) at a model, from the definition."""
    x = wide(np.vstack([np.asarray(shard.data.x.explicit()) for shard in shards]))
    s = wide(np.concatenate([shard.weigh(np.ones(shard.n_samples)) for shard in shards]))
    own = wide(np.vstack([shard.data.own for shard in shards]))
    scores = exp(x @ wide(w).reshape(own.shape[1], -1).T)
    p = scores / scores.sum(axis=1, keepdims=True)
    surplus, mass = s @ (p - own), s @ p
    share = np.array([max(r, Decimal(0)) / q for r, q in zip(surplus, mass, strict=True)])
    lack = np.array([max(-r, Decimal(0)) for r in surplus])
    part = lack / sum(lack) if sum(lack) else lack
    q = p * (1 - share) + np.outer(p @ share, part)
    return q, ((s[:, None] * (own - q)).T @ x).ravel(), s @ (q * log(q / p)).sum(axis=1), s @ (q - own)


@given(
    seed=st.integers(0, 10**9),
    n_classes=st.integers(3, 6),
    length=st.sampled_from([0.0, 1e-6, 1.0, 30.0]),
    n_rounds=st.integers(0, 30),
)
@settings(max_examples=examples(200), deadline=None)
def test_the_repaired_point_is_balanced_and_costs_what_is_said(seed, n_classes, length, n_rounds):
    """At models far off, and on the way to the minimiser, where next to nothing is out of balance."""
    rng = np.random.default_rng(seed)
    shards = []
    for place in range(2):
        x = np.hstack([rng.standard_normal((7, 2)) * rng.choice([0.1, 1.0, 30.0]), np.ones((7, 1))])
        weights = 10.0 ** rng.uniform(-2, 2, 7) if rng.random() < 0.5 else None
        shards.append(Shard(f"{place}", ClassRows(x, (np.arange(7) + place) % n_classes, n_classes), weights=weights))
    problem = Regularised(C=1.0, intercept=True)
    w = train(InProcess(shards), lbfgs(), problem=problem, n_rounds=n_rounds).w
    w = w + length * rng.standard_normal(w.size)
    held = as_csr(shards) if seed % 2 else shards
    report = InProcess(held).round(Appraise(problem.among(n_classes - 1)), Message(0, w))
    drift = float(report.sums["drift"]) * 4
    pull, error, spent = balanced(report, report.sums["pull"], drift)
    with localcontext(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN):
        q, right, cost, left = exactly(shards, w)
        assert max(abs(left)) < Decimal(10) ** -40
        assert (q >= 0).all()
        if np.isfinite(error):
            off = right - wide(pull)
            assert sum(off * off).sqrt() <= error
            assert cost <= spent
    assert np.isfinite(error) or length > 1.0


def test_a_node_keeps_back_what_it_expects_where_one_weight_carries_a_class():
    """With the gradient it tells the sum of each class's own samples: twenty, of which one weighs all."""
    x = np.hstack([np.random.default_rng(0).standard_normal((60, 2)), np.ones((60, 1))])
    task = Appraise(Regularised(C=1.0, intercept=True).among(2))
    for heaviest in (1.0, 1e6):
        weights = np.where(np.arange(60) == 2, heaviest, 1.0)
        shard = Shard("a", ClassRows(x, np.arange(60) % 3, 3), weights=weights, limits=Limits())
        held = InProcess([shard])
        if heaviest == 1.0:
            assert held.round(task, Message(0, np.zeros(9))).n_nodes == 1
            continue
        with pytest.raises(NodeError, match="fewer than min-rows=8"):
            held.round(task, Message(0, np.zeros(9)))
