"""How fast are local steps? Every kernel against the plain NumPy loop, by ratio, in one run.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/kernels.py [--quick]

Each line is one node of a workload; the first call (compiling included) is timed apart; then the median of repeated
calls in CPU seconds, interleaved over the kernels so that a noisy neighbour meets them all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.sparse import csr_array, random_array

from localgd.kernels import MOST_GRAM_ROWS, Kernel, csr, dense, gram, pick, reference
from localgd.kernels.reference import Steps
from localgd.losses import Logistic
from localgd.rows import Shard


def plain_loop(shard: Shard, w: np.ndarray, local_steps: int, lr: float) -> np.ndarray:
    """Take the steps as anybody would write them down."""
    v = w.copy()
    for _ in range(local_steps):
        margins = shard.rows @ v
        v = v + lr / len(margins) * (shard.rows.T @ (1 / (1 + np.exp(margins))))
    return v


def workloads(quick: bool) -> dict[str, tuple[Shard, int]]:
    """Return shards and numbers of local steps; sizes as in published comparisons, one node each."""
    rng = np.random.default_rng(0)
    tall = 4_000 if quick else 20_000
    zipf = random_array((2_000, 100_000), density=80 / 100_000, format="csr", rng=rng, data_sampler=rng.standard_normal)
    return {
        "wide: 30 x 2,000": (Shard("W1", rng.standard_normal((30, 2_000)) / 45), 100),
        "small: 50 x 500": (Shard("W2", rng.standard_normal((50, 500)) / 22), 50),
        "mushroom-like: 3,000 x 110": (Shard("M", rng.standard_normal((3_000, 110)) / 10), 100),
        f"tall: {tall:,} x 200": (Shard("W3", rng.standard_normal((tall, 200)) / 14), 10),
        "sparse: 2,000 x 100,000": (Shard("W4", csr_array(zipf) / 9), 20),
    }


def contenders(shard: Shard) -> dict[str, Kernel]:
    """Return the kernels that fit the shard."""
    sparse = isinstance(shard.rows, csr_array)
    found = {"reference": reference.coefficients}
    if not sparse and shard.n_rows <= MOST_GRAM_ROWS:
        found["gram"] = gram.coefficients
    return found | ({"csr": csr.coefficients} if sparse else {"dense": dense.coefficients})


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(f"{'node':28s} {'kernel':10s} {'first call s':>12s} {'a step, us':>10s} {'x plain loop':>12s}  picked")
    for name, (shard, local_steps) in workloads(quick).items():
        w = np.zeros(shard.n_features)
        w.flags.writeable = False
        calls: dict[str, Callable[[], object]] = {"plain loop": partial(plain_loop, shard, w, local_steps, 1.0)}
        for kernel_name, kernel in contenders(shard).items():
            calls[kernel_name] = partial(kernel, shard, w, shard.margins(w), Steps(local_steps, 1.0, Logistic()))
        first = {kernel_name: seconds(call) for kernel_name, call in calls.items()}
        times: dict[str, list[float]] = {kernel_name: [] for kernel_name in calls}
        for _ in range(3 if quick else 9):
            for kernel_name, call in calls.items():
                times[kernel_name].append(seconds(call))
        plain = statistics.median(times["plain loop"])
        chosen = pick(shard, local_steps)
        for kernel_name, measured in times.items():
            typical = statistics.median(measured)
            mark = "<-" if contenders(shard).get(kernel_name) is chosen else ""
            print(
                f"{name:28s} {kernel_name:10s} {first[kernel_name]:12.3f} {typical / local_steps * 1e6:10.1f} "
                f"{plain / typical:12.1f}  {mark}"
            )


if __name__ == "__main__":
    main()
