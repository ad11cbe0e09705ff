"""Loops as a good engineer writes them, compiled: by Numba, and by the C compiler where there is one."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(fastmath=FAST)
def gram_rounds(x: Any, gram: Any, n_rounds: int, local_steps: int, lr: float, stats: Any) -> Any:
    """Local-GD by Gram matrices; with `stats` (rounds, nodes, 4) also what a certificate adds up in every round."""
    k, n, d = x.shape
    w = np.zeros(d)
    v, total = np.empty(d), np.empty(d)
    margins, a, c = np.empty(n), np.empty(n), np.empty(n)
    for r in range(n_rounds):
        total[:] = 0.0
        for m in range(k):
            own, g = x[m], gram[m]
            least, loss = np.inf, 0.0
            for i in range(n):
                margins[i] = np.dot(own[i], w)
            if stats.shape[0]:
                for i in range(n):
                    least = min(least, margins[i])
                    loss += np.log1p(np.exp(-margins[i]))
            a[:] = 0.0
            for _ in range(local_steps):
                for i in range(n):
                    c[i] = lr / n / (1.0 + np.exp(margins[i]))
                    a[i] += c[i]
                for i in range(n):
                    row = g[i]
                    added = 0.0
                    for j in range(n):
                        added += row[j] * c[j]
                    margins[i] += added
            v[:] = 0.0
            for i in range(n):
                row = own[i]
                for j in range(d):
                    v[j] += a[i] * row[j]
            if stats.shape[0]:
                squares = 0.0
                for j in range(d):
                    squares += v[j] * v[j]
                stats[r, m, 0], stats[r, m, 1], stats[r, m, 2], stats[r, m, 3] = least, loss, a.sum(), squares
            total += v
        w += total / k
    return w


@njit(fastmath=FAST)
def direct_rounds(x: Any, n_rounds: int, local_steps: int, lr: float) -> Any:
    """Local-GD that reads every row once a step: margin and gradient in one pass."""
    k, n, d = x.shape
    w = np.zeros(d)
    v, grad, total = np.empty(d), np.empty(d), np.empty(d)
    for _ in range(n_rounds):
        total[:] = 0.0
        for m in range(k):
            own = x[m]
            v[:] = w
            for _ in range(local_steps):
                grad[:] = 0.0
                for i in range(n):
                    row = own[i]
                    z = 0.0
                    for j in range(d):
                        z += row[j] * v[j]
                    c = 1.0 / (1.0 + np.exp(z))
                    for j in range(d):
                        grad[j] += c * row[j]
                for j in range(d):
                    v[j] += lr / n * grad[j]
            total += v
        w = total / k
    return w


@njit(fastmath=FAST)
def sgd_round(own: Any, batches: Any, w: Any, lr: float) -> Any:
    """Return where a node comes by steps on these batches (steps, b) of its rows."""
    v, grad = w.copy(), np.empty(w.size)
    for batch in batches:
        grad[:] = 0.0
        for i in batch:
            row = own[i]
            z = 0.0
            for j in range(w.size):
                z += row[j] * v[j]
            c = 1.0 / (1.0 + np.exp(z))
            for j in range(w.size):
                grad[j] += c * row[j]
        for j in range(w.size):
            v[j] += lr / batch.size * grad[j]
    return v


@njit(fastmath=FAST)
def seen(own: Any, w: Any) -> Any:
    """Return the least margin of the rows at w, and the sum of their losses."""
    least, loss = np.inf, 0.0
    for row in own:
        z = 0.0
        for j in range(w.size):
            z += row[j] * w[j]
        least = min(least, z)
        loss += np.log1p(np.exp(-z))
    return least, loss


@njit
def csr_steps(data: Any, columns: Any, starts: Any, v: Any, local_steps: int, lr: float) -> Any:
    """Take a node's steps on sparse rows: margins first, then what is added to the columns."""
    n = starts.size - 1
    c = np.empty(n)
    for _ in range(local_steps):
        for i in range(n):
            z = 0.0
            for k in range(starts[i], starts[i + 1]):
                z += data[k] * v[columns[k]]
            c[i] = lr / n / (1.0 + np.exp(z))
        for i in range(n):
            for k in range(starts[i], starts[i + 1]):
                v[columns[k]] += c[i] * data[k]
    return v


SOURCE = r"""
#include <math.h>
void csr_steps(const double *x, const unsigned *col, const long *start, double *v, double *c, long n, long steps,
               double lr) {
  for (long s = 0; s < steps; s++) {
    for (long i = 0; i < n; i++) {
      double z0 = 0, z1 = 0, z2 = 0, z3 = 0;
      long k = start[i], end = start[i + 1];
      for (; k + 4 <= end; k += 4) {
        z0 += x[k] * v[col[k]]; z1 += x[k + 1] * v[col[k + 1]];
        z2 += x[k + 2] * v[col[k + 2]]; z3 += x[k + 3] * v[col[k + 3]];
      }
      for (; k < end; k++) z0 += x[k] * v[col[k]];
      c[i] = lr / n / (1.0 + exp(z0 + z1 + z2 + z3));
    }
    for (long i = 0; i < n; i++)
      for (long k = start[i]; k < start[i + 1]; k++) v[col[k]] += c[i] * x[k];
  }
}
"""


def c_csr_steps() -> Callable[..., None]:
    """Return the same in C, two passes, four sums at once.

    Raises
    ------
    ImportError
        If there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise ImportError("no C compiler")
    folder = Path(tempfile.mkdtemp())
    source, library = folder / "csr.c", folder / "csr.so"
    source.write_text(SOURCE)
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run([compiler, *flags], check=True)  # noqa: S603  our own source
    steps = ctypes.CDLL(str(library)).csr_steps
    pointer = ctypes.c_void_p
    steps.argtypes = [pointer, pointer, pointer, pointer, pointer, ctypes.c_long, ctypes.c_long, ctypes.c_double]

    def run(rows: Any, v: Any, local_steps: int, lr: float) -> None:
        data, columns, starts, c = rows
        steps(data.ctypes, columns.ctypes, starts.ctypes, v.ctypes, c.ctypes, c.size, local_steps, lr)

    return run
