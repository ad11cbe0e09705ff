"""Many classes: a round of local steps, and one of lbfgs, beside the same steps in plain NumPy; and the memory.

    OMP_NUM_THREADS=1 python benchmarks/classes.py

20 classes, 10,000 rows of 500 columns on 10 nodes, 10 local steps a round. Seconds are the medians of runs in turns.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from localgd import ClassRows, InProcess, Regularised, Shard, lbfgs, local_gd, train

N, D, C, NODES, STEPS, LR, ROUNDS, TURNS = 10_000, 500, 20, 10, 10, 1e-3, 5, 5


def in_numpy(nodes: list[tuple[Any, Any]], n_rounds: int, local_steps: int) -> Any:
    """Softmax gradient descent on (n, d)·(d, C), averaged over the nodes."""
    w = np.zeros((C, D))
    for _ in range(n_rounds):
        ends = []
        for x, target in nodes:
            v = w.copy()
            for _ in range(local_steps):
                scores = x @ v.T
                scores -= scores.max(axis=1, keepdims=True)
                p = np.exp(scores)
                p /= p.sum(axis=1, keepdims=True)
                v -= LR / len(x) * ((p - target).T @ x)
            ends.append(v)
        w = np.mean(ends, axis=0)
    return w


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds, and what came out."""
    begin = time.perf_counter()
    out = do()
    return time.perf_counter() - begin, out


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D))
    y = (x @ rng.standard_normal((D, C))).argmax(axis=1)
    parts = [(np.ascontiguousarray(x[part]), y[part]) for part in np.array_split(np.arange(N), NODES)]
    engine = InProcess(Shard(f"{m}", ClassRows(own, codes, C)) for m, (own, codes) in enumerate(parts))
    nodes = [(own, np.eye(C)[codes]) for own, codes in parts]
    by_steps = lambda: train(engine, local_gd(local_steps=STEPS, lr=LR), n_rounds=ROUNDS)  # noqa: E731
    by_lbfgs = lambda: train(engine, lbfgs(), problem=Regularised(C=1.0), n_rounds=2 * ROUNDS)  # noqa: E731
    pairs = {
        "local-gd": (by_steps, lambda: in_numpy(nodes, ROUNDS, STEPS)),
        "lbfgs": (by_lbfgs, lambda: in_numpy(nodes, 2 * ROUNDS, 1)),
    }
    print("| | localgd, s | NumPy, s | ratio | most memory beyond the rows, MB (rows: " + f"{x.nbytes / 1e6:.0f}) |")
    print("|---|---|---|---|---|")
    for name, (ours, plain) in pairs.items():
        runs = [(timed(ours)[0], timed(plain)[0]) for _ in range(TURNS + 1)][1:]
        a, b = np.median(runs, axis=0)
        tracemalloc.start()
        ours()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.2f} | {peak / 1e6:.1f} |")
    away = np.abs(by_steps().w.reshape(C, D) - in_numpy(nodes, ROUNDS, STEPS)).max()
    print(f"\nThe models of local-gd differ by {away:.0e}.")


if __name__ == "__main__":
    main()
