"""Many nodes in one process: Local-GD, certified every round, beside a loop of batched NumPy that certifies nothing.

    OMP_NUM_THREADS=1 python benchmarks/nodes.py

The loop steps all nodes at once in the space of their Gram matrices, the fastest that NumPy does. CPU seconds are the
medians of runs in turns, without the time it takes to make the rows. Of many nodes a tenth takes part in a round.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from localgd import InProcess, SampledNodes, Shard, local_gd, train

TURNS = 15


class Work(NamedTuple):
    """Nodes of n rows and d columns, local steps, rounds, and the share of the nodes that takes part."""

    nodes: int
    n: int
    d: int
    local_steps: int
    rounds: int
    share: float = 1.0


WORK = {
    "W1": Work(10, 30, 2000, 100, 100),
    "W2": Work(200, 50, 500, 50, 50),
    "W6": Work(100_000, 20, 50, 10, 5, 0.1),
}
LR = 4.0


def rows(work: Work) -> Any:
    """Return signed rows of length about 1, (nodes, n, d), that a planted direction separates."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((work.nodes, work.n, work.d)) / np.sqrt(work.d)
    x *= np.sign(x @ rng.standard_normal(work.d))[:, :, None]
    return x


def names(work: Work) -> list[str]:
    """Return the names of the nodes, in the order of the rows."""
    return [f"node-{m:06d}" for m in range(work.nodes)]


def in_numpy(x: Any, work: Work) -> Any:
    """Return the model of the same steps, all nodes at once."""
    w, ids = np.zeros(work.d), names(work)
    grams = None if work.share < 1 else x @ x.transpose(0, 2, 1)
    for round_ in range(work.rounds):
        if grams is None:
            part = np.sort([int(name[5:]) for name in SampledNodes(work.share)(round_, ids)])
            own = x[part]
            gram = own @ own.transpose(0, 2, 1)
        else:
            own, gram = x, grams
        margins = own @ w
        a = np.zeros(margins.shape)
        for _ in range(work.local_steps):
            a += LR / work.n / (1.0 + np.exp(margins + np.matmul(gram, a[:, :, None])[:, :, 0]))
        w = w + a.ravel() @ own.reshape(-1, work.d) / len(own)
    return w


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds, and what came out."""
    begin = time.process_time()
    out = do()
    return time.process_time() - begin, out


def compared(name: str, work: Work) -> str:
    """Return a row of the table."""
    x = rows(work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = InProcess(Shard(node, own) for node, own in zip(names(work), x, strict=True))
    method = local_gd(local_steps=work.local_steps, lr=LR)
    nodes = None if work.share == 1 else SampledNodes(work.share)

    def ours() -> Any:
        return train(engine, method, n_rounds=work.rounds, nodes=nodes)

    runs = [(timed(ours)[0], timed(lambda: in_numpy(x, work))[0]) for _ in range(TURNS + 1)][1:]
    a, b = np.median(runs, axis=0)
    apart = np.abs(ours().w - in_numpy(x, work)).max()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    return f"| {name} | {a:.3f} | {b:.3f} | {a / b:.2f} | {apart:.0e} | {x.nbytes / 1e6:.0f} | {more:.0f} |"


def main() -> None:
    """Print the table."""
    print("| | localgd, s | NumPy, s | ratio | models apart | rows, MB | most memory beyond, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or WORK:
        print(compared(name, WORK[name]))


if __name__ == "__main__":
    main()
