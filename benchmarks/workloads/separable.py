"""Max-margin models to a proved angle, beside solvers that see the pooled rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from localgd import Angle, InProcess, Shard, auto, load, partition, prepare, train
from localgd.data.datasets import DATASETS
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from workloads.averaging import SIZES
from workloads.workload import Contender, Limit, Run, Workload


def ours(deg: float) -> Contender:
    """Return localgd with `auto`, to a certified angle."""

    def lay_out(shards: list[Shard]) -> Run:
        engine = InProcess(shards)

        def run() -> Any:
            found = train(engine, auto(), goal=Angle(deg), n_rounds=2_000)
            if not found.certificate.angle_deg_max <= deg:
                raise RuntimeError(f"not proved: {found.certificate}")
            return found.w

        return run

    return lay_out


def pooled(shards: list[Shard]) -> Any:
    """Return the signed rows of all nodes, as they lie."""
    from scipy.sparse import issparse, vstack  # noqa: PLC0415

    parts = [shard.rows for shard in shards]
    return vstack(parts, format="csr") if issparse(parts[0]) else np.vstack(parts)


def linear_svc(shards: list[Shard]) -> Run:
    """Return scikit-learn's LinearSVC with the hinge loss, nearly without a penalty."""
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    z = pooled(shards)
    y = np.ones(z.shape[0])
    y[::2] = -1  # rows are signed; half of them the other way round, as it wants two classes
    x = z.multiply(y[:, None]).tocsr() if hasattr(z, "tocsr") else z * y[:, None]
    if hasattr(x, "indices"):  # it takes no others
        x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)

    def run() -> Any:
        model = LinearSVC(loss="hinge", C=1e6, tol=1e-6, fit_intercept=False, max_iter=1_000_000)
        return model.fit(x, y).coef_[0]

    return run


def clarabel(shards: list[Shard]) -> Run:
    """Return this package's reference on pooled rows: working sets, their quadratic programs by Clarabel."""
    z = pooled(shards)
    return lambda: max_margin(z).direction


def bundled(name: str) -> Callable[[], list[Shard]]:
    """Return what loads a bundled set's nodes; golub is dealt to five by label."""

    def rows() -> list[Shard]:
        tables = load(name)
        if len(tables) == 1:
            tables = partition(tables[0], "by_label", 5)
        engine, _ = prepare(InProcess(tables), **DATASETS[name].options)
        return list(engine.shards.values())

    return rows


def text() -> list[Shard]:
    """Return sparse text, separable: 6,000 documents over 13,000 words by Zipf's law, on 8 nodes."""
    from scipy.sparse import csr_array  # noqa: PLC0415

    rng = np.random.default_rng(0)
    n, d, words = 6_000, 13_000, 60
    law = 1.0 / np.arange(1, d + 1)
    columns = rng.choice(d, size=(n, words), p=law / law.sum())
    x = csr_array((np.ones(columns.size), (np.repeat(np.arange(n), words), columns.ravel())), shape=(n, d))
    x.sum_duplicates()
    x.data = 1.0 + np.log(x.data)
    x.data /= np.repeat(np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel()), np.diff(x.indptr))
    x.data *= np.repeat(np.sign(x @ rng.standard_normal(d)), np.diff(x.indptr))
    return [Shard(f"node-{m}", x[part]) for m, part in enumerate(np.array_split(np.arange(n), 8))]


def w2() -> list[Shard]:
    """Return the rows of W2."""
    return [Shard(node, own) for node, own in zip(SIZES["W2"].ids, SIZES["W2"].rows(), strict=True)]


def separable(
    name: str,
    what: str,
    rows: Callable[[], list[Shard]],
    deg: float,
    *,
    limits: tuple[Limit, ...],
    others: tuple[str, ...],
) -> Workload:
    """Return a workload to a certified angle; others may be less near than that."""
    known = {"LinearSVC": linear_svc, "working set, Clarabel": clarabel}
    contenders = {"localgd": ours(deg), **{other: known[other] for other in others}}
    return Workload(name, f"{what}, `auto` to {deg:g}°", rows, contenders, limits, angle_deg, 2 * deg)


BOTH = ("LinearSVC", "working set, Clarabel")
WORKLOADS = [
    separable("W7", "rows of W2, pooled margin 0.002", w2, 0.01, limits=(Limit(1.0, BOTH[1:]),), others=BOTH[1:]),
    *(
        separable(name, name, bundled(name), 0.01, limits=(Limit(3.0, BOTH),), others=BOTH)
        for name in ("bladder", "golub", "mushroom")
    ),
    separable(
        "text", "sparse text 6,000 × 13,000, 8 nodes", text, 1.0, limits=(Limit(50.0, BOTH[:1]),), others=BOTH[:1]
    ),
]
