"""Rows as a float32 array: half the memory, and every number that is computed of them is a float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from localgd.layouts.blocks import Blocks
from localgd.layouts.layout import BLOCK
from localgd.rounding import FloatArray, read_only, real_array


@dataclass(frozen=True, eq=False)
class Float32(Blocks):
    """Rows of float32 numbers, each of which is a float64, too: nothing is rounded but what is computed of them.

    Parameters
    ----------
    x : (n, d) float32 array
        The rows; made read-only, copied if somebody else may write to them.

    Examples
    --------
    >>> rows = Float32(np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32))
    >>> rows.sum(np.array([1.0, 2.0])).dtype, rows.x.nbytes
    (dtype('float64'), 16)
    """

    x: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", real_array("rows x", self.x, np.float32))
        if self.x.ndim != 2:
            raise ValueError(f"rows x must be a table, shape (n, d), not of shape {self.x.shape}")

    @property
    def parts(self) -> tuple[Any]:
        return (self.x,)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.x).all())

    @cached_property
    def peak(self) -> float:
        return float(max(self.x.max(initial=0.0), -self.x.min(initial=0.0)))

    @cached_property
    def gram(self) -> FloatArray:
        n, d = self.shape
        out, size = np.zeros((n, n)), max(1, BLOCK // n)
        for first in range(0, d, size):
            columns = self.x[:, first : first + size].astype(np.float64)
            out += columns @ columns.T
        return read_only(out)

    def take(self, samples: Any) -> Float32:
        return Float32(read_only(self.x[samples], np.float32))

    def written(self, some: Any) -> FloatArray:
        out: FloatArray = self.x[some].astype(np.float64)
        return out
