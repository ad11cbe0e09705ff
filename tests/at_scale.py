"""Suites of random cases at a scale of their own, in as many processes as there are cores: for commands, not for CI."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np


def _quietly(found: Callable[[int], Any], seed: int) -> Any:
    with np.errstate(all="ignore"):
        return found(seed)


def run(false_claims: Callable[[int], Any], n_cases: int) -> None:
    """Draw so many cases and print, now and then and in the end, how many have false claims, and which.

    Environment: ``CASES`` in place of `n_cases`, the first seed ``FIRST``, and ``WORKERS``, how many processes.
    """
    first, n_cases = int(os.environ.get("FIRST", "0")), int(os.environ.get("CASES", f"{n_cases}"))
    seeds, wrong, every = range(first, first + n_cases), dict[int, Any](), max(1, n_cases // 20)
    with ProcessPoolExecutor(int(os.environ.get("WORKERS", "0")) or None) as pool:
        found = pool.map(_quietly, [false_claims] * n_cases, seeds, chunksize=max(1, min(1000, n_cases // 100)))
        for seed, claims in zip(seeds, found, strict=True):
            wrong |= {seed: claims} if claims else {}
            if (seed + 1 - first) % every == 0:
                sys.stdout.write(f"up to seed {seed}: {len(wrong)} false\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(wrong)} false of seeds {first} to {seeds[-1]} {dict(list(wrong.items())[:10])}\n")
