"""Many classes: rounds of local steps, and of lbfgs, beside the same products in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from localgd import ClassRows, InProcess, Regularised, Shard, lbfgs, local_gd, train
from workloads.averaging import away
from workloads.workload import Limit, Run, Workload

N, D, C, NODES, STEPS, LR = 10_000, 500, 20, 10, 10, 1e-3

Rows = list[tuple[Any, Any]]


def rows() -> Rows:
    """Return x (n, d) and codes (n,) of every node."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D))
    y = (x @ rng.standard_normal((D, C))).argmax(axis=1)
    return [(np.ascontiguousarray(x[part]), y[part]) for part in np.array_split(np.arange(N), NODES)]


def engine_of(nodes: Rows) -> InProcess:
    """Return the nodes as localgd holds them."""
    return InProcess(Shard(f"{m}", ClassRows(x, codes, C)) for m, (x, codes) in enumerate(nodes))


def by_steps(nodes: Rows) -> Run:
    """Return Local-GD with a certificate's sums in every round."""
    engine = engine_of(nodes)
    return lambda: train(engine, local_gd(local_steps=STEPS, lr=LR), n_rounds=5).w


def by_lbfgs(nodes: Rows) -> Run:
    """Return ten rounds of lbfgs."""
    engine = engine_of(nodes)
    return lambda: (train(engine, lbfgs(), problem=Regularised(C=1.0), n_rounds=10), None)[1]


def plain(n_rounds: int, local_steps: int, *, compared: bool) -> Any:
    """Return softmax gradient descent on (n, d)·(d, C), averaged over the nodes."""

    def lay_out(nodes: Rows) -> Run:
        held = [(x, np.eye(C)[codes]) for x, codes in nodes]

        def run() -> Any:
            w = np.zeros((C, D))
            for _ in range(n_rounds):
                ends = []
                for x, target in held:
                    v = w.copy()
                    for _ in range(local_steps):
                        scores = x @ v.T
                        scores -= scores.max(axis=1, keepdims=True)
                        p = np.exp(scores)
                        p /= p.sum(axis=1, keepdims=True)
                        v -= LR / len(x) * ((p - target).T @ x)
                    ends.append(v)
                w = np.mean(ends, axis=0)
            return w.ravel() if compared else None

        return run

    return lay_out


SIZE = f"{C} classes, {N:,} × {D} on {NODES} nodes"
LIMITS = (Limit(2.0, ("NumPy",)),)
WORKLOADS = [
    Workload(
        "softmax",
        f"{SIZE}, local-gd, L = {STEPS}, 5 rounds",
        rows,
        {"localgd": by_steps, "NumPy": plain(5, STEPS, compared=True)},
        LIMITS,
        away,
    ),
    Workload(
        "softmax, lbfgs",
        f"{SIZE}, 10 rounds of lbfgs, beside 10 gradients",
        rows,
        {"localgd": by_lbfgs, "NumPy": plain(10, 1, compared=False)},
        LIMITS,
    ),
]
