"""What the suites share: tolerances, federations, and the table of methods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from localgd import (
    ClassRows,
    Csr,
    InProcess,
    Int4,
    Int8,
    Method,
    Regularised,
    Shard,
    SignSGD,
    TopK,
    consensus,
    fedexp,
    fedprox,
    interior_point,
    lbfgs,
    load,
    local_gd,
    local_sgd,
    modified_local_gd,
    newton,
    newton_cg,
    normalised_local_gd,
    partition,
    prepare,
    scaffold,
    slowmo,
)
from localgd.data.datasets import DATASETS
from localgd.data.synthetic import gaussian_problem
from localgd.losses import loss_named
from localgd.reference.max_margin import MaxMargin, max_margin
from localgd.rules.project import Project
from localgd.rules.server import Extrapolation, chain, mean

Samples: TypeAlias = "tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]"

SAME_ORDER = 1e-12  # the same sums in the same order, other code
OTHER_ORDER = 1e-9  # the same sums in another order
SOLVER = 1e-6  # two solvers of one problem

SCHEDULES = ["constant", "inverse-sqrt", "inverse-time", "step:3", "step:2:0.7", "cosine:9", "cosine:9:0.2"]

SCALES = {"dev": 0.25, "ci": 1.0, "nightly": 10.0}
PROFILE = os.environ.get("LOCALGD_TESTS") or ("ci" if os.environ.get("CI") else "dev")


def examples(n: int) -> int:
    """How many cases hypothesis draws where it draws n in CI."""
    return max(1, round(n * SCALES[PROFILE]))


METHODS: dict[str, Method] = {
    "local-gd": local_gd(local_steps=20),
    "local-gd, one step": local_gd(local_steps=1),
    "local-gd, paper's step size": local_gd(local_steps=20, lr="paper"),
    "local-gd, exponential": local_gd(local_steps=5, loss="exponential"),
    "local-gd, by size": local_gd(local_steps=20, weighted_by="num-examples"),
    "local-sgd": local_sgd(local_steps=20, batch_size=3),
    "local-sgd, cosine": local_sgd(local_steps=20, batch_size=3, lr_schedule="cosine:30:0.1"),
    "local-sgd, replacement": local_sgd(local_steps=20, batch_size=3, replacement=True),
    "modified, projection": modified_local_gd(),
    "modified, proximal": modified_local_gd(form="proximal", local_steps=20, prox=0.01),
    "fedexp": fedexp(local_steps=20),
    "fedprox": fedprox(local_steps=20, prox=0.1),
    "slowmo": slowmo(local_steps=20),
    "slowmo, nesterov": slowmo(local_steps=20, nesterov=True, server_lr=0.7),
    "local-gd, late": local_gd(local_steps=20).late(),
    "normalised": normalised_local_gd(local_steps=20).late(False),
    "normalised, late, logistic": normalised_local_gd(local_steps=20, loss="logistic", lr="auto"),
    "consensus": consensus(),
    "consensus, plain": consensus(memory=0),
    "interior-point": interior_point(),
    "extrapolated projections": Method("extrapolated-projections", Project(), chain(mean(), Extrapolation())),
}

COMPRESSED: dict[str, Method] = {
    "local-gd, int8": local_gd(local_steps=20).compressed(Int8()),
    "modified, projection, int4": modified_local_gd().compressed(Int4()),
    "local-gd, late, signs": local_gd(local_steps=20).late().compressed(SignSGD()),
    "slowmo, top half": slowmo(local_steps=20).compressed(TopK(0.5)),
    "normalised, int8": normalised_local_gd(local_steps=20).compressed(Int8()),
}
METHODS |= COMPRESSED


def penalised(method: Method, C: float, *, intercept: bool = False, loss: str = "logistic") -> Method:
    """The method, for a penalised loss unless `train` is told otherwise."""
    return replace(method, problem=Regularised(loss_named(loss), C, intercept))


PENALISED: dict[str, Method] = {
    "newton": penalised(newton(), 1.0),
    "lbfgs": penalised(lbfgs(), 1.0),
    "newton-cg": penalised(newton_cg(), 1.0),
    "newton-cg, free bias": penalised(newton_cg(), 0.3, intercept=True),
    "newton-cg, squared hinge, free bias": penalised(newton_cg(), 0.3, intercept=True, loss="squared_hinge"),
    "lbfgs, free bias": penalised(lbfgs(memory=3), 0.3, intercept=True),
    "newton, free bias": penalised(newton(), 0.3, intercept=True),
    "scaffold": penalised(scaffold(local_steps=20), 1.0),
    "scaffold, free bias": penalised(scaffold(local_steps=20), 0.3, intercept=True),
    "scaffold, plain": penalised(scaffold(local_steps=5, memory=0), 0.1),
    "local-gd, penalised": penalised(local_gd(local_steps=5), 1.0),
    "local-sgd, penalised": penalised(local_sgd(local_steps=5, batch_size=3), 1.0),
    "fedprox, penalised": penalised(fedprox(prox=0.1, local_steps=5), 1.0),
    "fedexp, penalised": penalised(fedexp(local_steps=5), 0.3, intercept=True),
    "slowmo, penalised": penalised(slowmo(local_steps=5), 1.0),
    "local-gd, penalised, int4": penalised(local_gd(local_steps=5).compressed(Int4()), 1.0),
    "newton, squared hinge": penalised(newton(), 1.0, loss="squared_hinge"),
    "lbfgs, squared hinge, free bias": penalised(lbfgs(), 0.3, intercept=True, loss="squared_hinge"),
    "local-gd, squared hinge, free bias": penalised(local_gd(local_steps=5), 1.0, intercept=True, loss="squared_hinge"),
}


def random_rows(
    seed: int, n_nodes: int = 4, n: int = 7, d: int = 5, shift: float = 0.5, *, single_class: bool = True
) -> list[Shard]:
    """Separable shards of unlike sizes; the first node has one row, the second one class."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)
    shards = []
    for m in range(n_nodes):
        x = rng.standard_normal((1 if m == 0 else n + m, d)) + shift * rng.standard_normal(d)
        x += np.outer(np.sign(x @ w), w) * 0.1  # a margin that rounding cannot close
        y = np.sign(x @ w)
        if single_class and m == 1:
            x, y = x * y[:, None], np.ones(len(y))  # all on the positive side
        shards.append(Shard(f"node-{m}", x * y[:, None]))
    return shards


def random_samples(seed: int, n_classes: int = 4, n_nodes: int = 5, d: int = 5, size: int = 9) -> list[Samples]:
    """Plain rows and classes of unlike, separable nodes: one row, one class, a class lacking, then nodes by label."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((n_classes, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    x = rng.standard_normal((n_nodes * size, d))
    y = (x @ w.T).argmax(axis=1)
    x += 0.3 * w[y]  # a margin that rounding cannot close
    order = np.argsort(y, kind="stable")
    parts = [order[:1], np.flatnonzero(y == y[0]), np.flatnonzero(y != y[1]), *np.array_split(order, n_nodes - 3)]
    return [(x[part], y[part]) for part in parts]


def against(samples: list[Samples], n_classes: int) -> list[Shard]:
    """The shards of many classes."""
    return [Shard(f"node-{m}", ClassRows(x, y, n_classes)) for m, (x, y) in enumerate(samples)]


def stacked(shards: list[Shard] | Mapping[str, Shard]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All rows in one place."""
    held = list(shards.values()) if isinstance(shards, Mapping) else shards
    return np.vstack([s.rows.toarray() if isinstance(s.rows, csr_array) else s.rows for s in held])


def with_bias(shards: list[Shard], seed: int = 0, noise: float = 0.0) -> list[Shard]:
    """The shards with a bias column, and some rows on the wrong side."""
    rng = np.random.default_rng(seed)
    out = []
    for shard in shards:
        x = np.hstack([shard.rows, np.ones((shard.n_rows, 1))])
        y = rng.choice([-1.0, 1.0], shard.n_rows) * np.where(rng.random(shard.n_rows) < noise, -1.0, 1.0)
        out.append(Shard(shard.node_id, x * y[:, None]))
    return out


def as_csr(shards: list[Shard]) -> list[Shard]:
    """The shards, with their rows in CSR arrays."""

    def in_csr(data):
        return replace(data, x=in_csr(data.x)) if isinstance(data, ClassRows) else Csr(csr_array(data.x))

    return [replace(shard, data=in_csr(shard.data)) for shard in shards]


@cache
def federation(name: str) -> InProcess:
    """A bundled or synthetic federation of signed rows."""
    if name in DATASETS:
        tables = load(name)
        if len(tables) == 1:
            tables = partition(tables[0], "by_label", 5)
        return prepare(InProcess(tables), **DATASETS[name].options)[0]
    return InProcess(gaussian_problem(name))


@cache
def answer(name: str) -> MaxMargin:
    """The exact pooled answer of a federation."""
    return max_margin(stacked(federation(name).shards))


def shards_of(name):
    return list(federation(name).shards.values())


def weights_of(shards, weighted_by):
    """c_i = p_m/n_m, the plain way."""
    sizes = np.array([shard.n_rows for shard in shards])
    share = sizes / sizes.sum() if weighted_by == "num-examples" else np.full(len(sizes), 1 / len(sizes))
    return np.repeat(share / sizes, sizes)


def pooled_gd(rows, weights, loss, lr, n_steps):
    """Run plain gradient descent from 0 on ``F(w) = Σ weights_i ℓ(z_i·w)``, for softmax Σ over samples of their weight.

    ``w ← w + lr Σ weights_i (−ℓ'(z_i·w)) z_i``: what Local-GD with one local step must reproduce, where the weight of a
    row of node m is p_m/n_m. Returns the last iterate, shape (d,).
    """
    z, w = Shard("pooled", rows), np.zeros(rows.shape[1])
    for _ in range(n_steps):
        w = w + lr * loss.versus * z.combine(weights * loss.slope(z.margins(w)))
    return w


def squared_hinge_fit(z, s, C, kept):
    """The minimiser of Σ kept w²/2 + C Σ s max(0, 1 − z·w)², by Newton's method with backtracking."""
    w = np.zeros(z.shape[1])

    def value(v):
        return kept @ (v * v) / 2 + C * s @ np.maximum(1 - z @ v, 0) ** 2

    for _ in range(100):
        short = np.maximum(1 - z @ w, 0)
        bent = np.diag(kept) + 2 * C * (z[short > 0].T * s[short > 0]) @ z[short > 0]
        slope = kept * w - 2 * C * z.T @ (s * short)
        step = -np.linalg.lstsq(bent, slope)[0]
        if np.abs(step).max() <= 1e-12 * np.abs(w).max():
            break
        length = 1.0
        while value(w + length * step) > value(w) + 1e-4 * length * (slope @ step) and length > 1e-9:
            length /= 2
        w = w + length * step
    return w
