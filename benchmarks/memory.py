"""Wide sparse rows: how much memory penalised fits take beyond the rows, as a multiple of them.

    OMP_NUM_THREADS=1 python benchmarks/memory.py

20,000 rows of 100 entries on 10 nodes, 24 MB as a CSR array; the largest of all moments counts (tracemalloc), in 8
rounds and in 40. Nodes hold the rows once more, signed.

A vector takes 8·d·C bytes for d columns and C classes, 8·d for two. Between rounds `newton-cg`, which `auto` takes,
holds 7 of them: the model, the last point, the gradient and the direction there, what is left of the step's system,
its scales and what it asks next. For a moment there are as many again, of the report and of what comes next. `lbfgs`
remembers 30 steps, of two vectors each.

===================  ======  ==========  =========  ============
times the rows, of   50,000  200,000     1,000,000  columns
===================  ======  ==========  =========  ============
two classes          1.4     2.0         6.0
five classes         2.4     6.1         26
numbers              1.4     2.0         6.0
NPZ, svmlight files  2.5     3.4 and 3.2            tables beside the rows that are made of them
===================  ======  ==========  =========  ============

With 1,000,000 columns a vector is a third of the rows. Of files a column takes some 160 bytes more, for its name and
how it is prepared. `scaffold` remembers 30 moves, of two vectors each, unless told otherwise (`--memory 5`).
"""

from __future__ import annotations

import tempfile
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from localgd import InProcess, LocalGDClassifier, LocalGDRegressor, Regularised, Shard, auto, load, prepare, train

N, ENTRIES, NODES, ROUNDS = 20_000, 100, 10, 8
WIDTHS = (50_000, 200_000, 1_000_000)
LONG = 40
METHODS = ("auto", "local-gd", "scaffold", "fedprox", "slowmo")


def rows_of(n: int, d: int, entries: int = ENTRIES, seed: int = 0) -> Any:
    """Return sparse rows with so many entries each."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, d, size=n * entries).astype(np.int32)
    indptr = np.arange(0, columns.size + 1, entries).astype(np.int32)
    rows = csr_array((rng.normal(size=columns.size), columns, indptr), shape=(n, d))
    rows.sum_duplicates()
    return rows


def size(rows: Any) -> int:
    """Return the bytes of a CSR array."""
    return int(rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes)


def peak(do: Callable[[], Any]) -> int:
    """Return the most bytes that were held at once while something was done, beyond those held before."""
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fits(rows: Any, methods: tuple[str, ...] = METHODS, n_rounds: int = ROUNDS) -> dict[str, Callable[[], Any]]:
    """Return what there is to measure, by name; the rows are those of the caller."""
    score = rows @ np.random.default_rng(1).normal(size=rows.shape[1])
    groups = np.arange(rows.shape[0]) % NODES
    many = np.digitize(score, np.quantile(score, [0.2, 0.4, 0.6, 0.8]))

    def classifier(method: str, y: Any) -> Callable[[], Any]:
        return lambda: LocalGDClassifier(C=1.0, method=method, n_rounds=n_rounds).fit(rows, y, groups=groups)

    def shards() -> Any:
        signs = np.where(score > 0, 1.0, -1.0)
        own = [np.flatnonzero(groups == node) for node in range(NODES)]
        held = [Shard(f"{k}", csr_array(rows[index].multiply(signs[index][:, None]))) for k, index in enumerate(own)]
        return train(InProcess(held), auto(), problem=Regularised(C=1.0, intercept=False), n_rounds=n_rounds)

    found = {f"two classes, {method}": classifier(method, score > 0) for method in methods}
    found |= {f"five classes, {method}": classifier(method, many) for method in methods[:1]}
    found["numbers, auto"] = lambda: LocalGDRegressor(alpha=1.0, n_rounds=n_rounds).fit(rows, score, groups=groups)
    return found | {"shards and train, auto": shards}


def written(rows: Any, folder: Path, kind: str) -> Path:
    """Write the rows as a file for each node."""
    folder.mkdir()
    labels = np.arange(rows.shape[0]) % 2
    for node in range(NODES):
        own, y = rows[node::NODES], labels[node::NODES] ^ (np.arange(labels[node::NODES].size) % 2)
        if kind == "npz":
            parts = {"data": own.data, "indices": own.indices, "indptr": own.indptr, "shape": own.shape}
            np.savez(folder / f"{node}.npz", **parts, y=y)
            continue
        with (folder / f"{node}.svm").open("w") as file:
            for row, label in enumerate(y):
                at = slice(*own.indptr[row : row + 2])
                entries = zip(own.indices[at].tolist(), own.data[at].tolist(), strict=True)
                file.write(f"{label} {' '.join(f'{column + 1}:{value:.4g}' for column, value in entries)}\n")
    return folder


def from_files(folder: Path) -> None:
    """Read the rows, prepare them, and train."""
    federation, recipe = prepare(InProcess(load(folder)), scale=None)
    train(federation, auto(), problem=Regularised(C=1.0, intercept=recipe.intercept), n_rounds=ROUNDS)


def main() -> None:
    """Print the tables."""
    warnings.simplefilter("ignore")
    for fit in fits(rows_of(200, 2000), n_rounds=1).values():
        fit()  # what is imported on first use takes room, too
    for d in WIDTHS:
        rows, methods = rows_of(N, d), METHODS if d == WIDTHS[0] else METHODS[:1]
        print(f"\n{d:,} columns: rows {size(rows) / 1e6:.0f} MB, a vector {8 * d / 1e6:.1f} MB")
        for name in fits(rows, methods):
            most = [peak(fits(rows, methods, n_rounds)[name]) for n_rounds in (ROUNDS, LONG)]
            said = (f"{n} rounds {at / size(rows):5.2f} x the rows" for n, at in zip((ROUNDS, LONG), most, strict=True))
            print(f"  {name:28s} {', '.join(said)}")
    for d in WIDTHS[:2]:
        rows = rows_of(N, d)
        with tempfile.TemporaryDirectory() as place:
            for kind in ("npz", "svm"):
                folder = written(rows, Path(place, kind), kind)
                most = peak(lambda folder=folder: from_files(folder))  # type: ignore[misc]
                print(f"  {f'{kind} files, {d:,} columns':28s} {ROUNDS} rounds {most / size(rows):5.2f} x the rows")


if __name__ == "__main__":
    main()
