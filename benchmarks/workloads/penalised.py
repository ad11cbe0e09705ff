"""Penalised fits to one proved gap: scikit-learn's solvers on the pooled rows, localgd on one node and on ten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from localgd import ClassRows, Gap, InProcess, Regularised, Shard, auto, certify, train
from workloads.workload import Contender, Limit, Run, Workload

GAP = 1e-9
"""The objective is proved to be within this part of itself of its least value."""
TOLERANCES = [10.0**-k for k in range(1, 13)]


class Pooled(NamedTuple):
    """Pooled rows x, labels or codes y, and the number of classes."""

    x: Any
    y: Any
    n_classes: int

    def shards(self, n_nodes: int) -> list[Shard]:
        """Return the rows dealt to nodes."""
        parts = np.array_split(np.arange(self.x.shape[0]), n_nodes)
        return [Shard(f"node-{m}", self.data(part)) for m, part in enumerate(parts)]

    def data(self, part: Any) -> Any:
        """Return a node's rows: signed of two classes, with their codes of more."""
        x = self.x[part] if n_rows(self.x) > len(part) else self.x
        if self.n_classes > 2:
            return ClassRows(x, self.y[part], self.n_classes)
        signs = np.where(self.y[part] > 0, 1.0, -1.0)
        return x.multiply(signs[:, None]).tocsr() if hasattr(x, "tocsr") else x * signs[:, None]


def n_rows(x: Any) -> int:
    """Return how many rows there are."""
    return int(x.shape[0])


def dense(n: int, d: int, n_classes: int = 2) -> Callable[[], Pooled]:
    """Return what makes dense rows: columns of unlike scale, labels by planted directions, a tenth of them wrong."""

    def rows() -> Pooled:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((n, d)) * np.geomspace(1.0, 0.1, d)
        scores = x @ rng.standard_normal((d, n_classes))
        y = scores.argmax(axis=1)
        wrong = rng.random(n) < 0.1
        y[wrong] = rng.integers(n_classes, size=int(wrong.sum()))
        return Pooled(x, y, n_classes)

    return rows


def sparse(n: int, d: int) -> Callable[[], Pooled]:
    """Return what makes sparse rows: 50 columns each, by Zipf's law."""

    def rows() -> Pooled:
        from scipy.sparse import csr_array  # noqa: PLC0415

        rng = np.random.default_rng(0)
        law = 1.0 / np.arange(1, d + 1)
        columns = rng.choice(d, size=(n, 50), p=law / law.sum())
        x = csr_array((np.ones(columns.size), (np.repeat(np.arange(n), 50), columns.ravel())), shape=(n, d))
        x.sum_duplicates()
        x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)  # liblinear takes no others
        y = (x @ rng.standard_normal(d) + rng.standard_normal(n) > 0).astype(int)
        return Pooled(x, y, 2)

    return rows


def proved(pooled: Pooled, w: Any) -> float:
    """Return the gap that is proved of coefficients, whoever found them."""
    if not np.any(w):  # a tolerance so loose that the solver did nothing
        return float("inf")
    found = certify(np.ravel(w), InProcess(pooled.shards(1)), problem=Regularised(C=1.0))
    return float(found.gap / found.objective_low)


def ours(n_nodes: int) -> Contender:
    """Return localgd with `auto` on so many nodes."""

    def lay_out(pooled: Pooled) -> Run:
        engine = InProcess(pooled.shards(n_nodes))

        def run() -> float:
            found = train(engine, auto(), problem=Regularised(C=1.0), goal=Gap(GAP), n_rounds=2_000).certificate
            return float(found.gap / found.objective_low)

        return run

    return lay_out


def scikit(solver: str) -> Contender:
    """Return a solver of scikit-learn's LogisticRegression, with the loosest tolerance that reaches the gap."""

    def lay_out(pooled: Pooled) -> Run:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        def fitted(tol: float) -> Any:
            model = LogisticRegression(C=1.0, solver=solver, tol=tol, fit_intercept=False, max_iter=20_000)
            return model.fit(pooled.x, pooled.y).coef_

        tol = next((tol for tol in TOLERANCES if proved(pooled, fitted(tol)) <= GAP), None)
        if tol is None:
            raise ImportError(f"does not reach a gap of {GAP:g}")
        gap = proved(pooled, fitted(tol))

        def run() -> float:
            fitted(tol)
            return gap

        return run

    return lay_out


def penalised(name: str, what: str, rows: Callable[[], Pooled], solvers: tuple[str, ...]) -> Workload:
    """Return a workload: everyone reaches the gap, however far."""
    theirs = {f"scikit-learn, {solver}": scikit(solver) for solver in solvers}
    limits = (Limit(1.5, tuple(theirs)), Limit(2.0, tuple(theirs), "localgd, 10 nodes"))
    contenders = {"localgd": ours(1), "localgd, 10 nodes": ours(10), **theirs}
    return Workload(name, f"{what}, C = 1, gap ≤ {GAP:g}", rows, contenders, limits, gaps, GAP)


def gaps(a: float, b: float) -> float:
    """Return the larger of two proved gaps."""
    return max(a, b)


WORKLOADS = [
    penalised("P1", "50,000 × 100", dense(50_000, 100), ("lbfgs", "newton-cg", "newton-cholesky")),
    penalised("P2", "20,000 × 2,000", dense(20_000, 2_000), ("lbfgs", "newton-cg")),
    penalised("P3", "sparse 20,000 × 50,000, 50 in a row", sparse(20_000, 50_000), ("lbfgs", "newton-cg", "liblinear")),
    penalised("P4", "softmax, 20 classes, 10,000 × 500", dense(10_000, 500, 20), ("lbfgs", "newton-cg")),
]
