"""Plain rows as they were read, maybe from a file that is mapped into memory, and how they become signed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.layouts.blocks import Blocks
from localgd.rounding import FloatArray, real_array


@dataclass(frozen=True, eq=False)
class Prepared(Blocks):
    """The rows z_i = y_i ((x_i − center)/scale, 1), of which only the plain rows x lie anywhere, maybe on a disk.

    Sign, preparation and the bias are applied anew wherever the rows are looked at, a block at a time: to the bit the
    rows that they would be if they were kept. A pass over them takes several times as long, and next to no memory.

    Parameters
    ----------
    x : (n, k) float64 or float32 array
        The plain rows, such as ``np.load(path, mmap_mode="r")``; they must not change. Copied if somebody else may
        write to them.
    signs : (n,) array of ±1, optional
        y; all 1 by default, as of rows with real targets.
    center, scale : (k,) float64 array, optional
        What is taken off each column, and what that is divided by; 0 and 1 by default.
    bias : bool, default False
        Whether a last column holds y.

    Raises
    ------
    ValueError
        If the parts do not fit each other, a sign is not ±1, or a scale is 0 or below.

    Examples
    --------
    >>> x = np.array([[1.0, 20.0], [3.0, 40.0]])
    >>> rows = Prepared(x, signs=[1, -1], center=[1.0, 30.0], scale=[2.0, 10.0], bias=True)
    >>> rows.explicit().tolist()
    [[0.0, -1.0, 1.0], [-1.0, -1.0, -1.0]]
    """

    x: Any
    signs: Any = None
    center: Any = None
    scale: Any = None
    bias: bool = False

    def __post_init__(self) -> None:
        x = np.asarray(self.x)
        object.__setattr__(self, "x", real_array("x", x, np.float32 if x.dtype == np.float32 else np.float64))
        if x.ndim != 2:
            raise ValueError(f"x must have rows and columns, got shape {x.shape}; reshape it")
        for name, length, otherwise in (
            ("signs", len(x), 1.0),
            ("center", x.shape[1], 0.0),
            ("scale", x.shape[1], 1.0),
        ):
            given = getattr(self, name)
            kept = real_array(name, np.full(length, otherwise) if given is None else given)
            object.__setattr__(self, name, kept)
            if kept.shape != (length,):
                raise ValueError(f"x of shape {x.shape} needs {name} of shape ({length},), got {kept.shape}")
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias must be True or False, got {self.bias!r}")  # noqa: TRY004  a bad value
        if not (np.abs(self.signs) == 1.0).all():
            raise ValueError("signs must be 1 or -1 each: which of the two classes a row is of")
        if not (np.isfinite(self.center).all() and (self.scale > 0).all() and np.isfinite(self.scale).all()):
            raise ValueError("center must be finite, and scale finite and above 0; leave out columns that are constant")

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1] + self.bias

    @property
    def parts(self) -> tuple[Any, ...]:
        return self.x, self.signs, self.center, self.scale

    def take(self, samples: Any) -> Prepared:
        rows = self.x[samples]
        rows.flags.writeable = False
        return Prepared(rows, self.signs[samples], self.center, self.scale, self.bias)

    def written(self, some: Any) -> FloatArray:
        x = self.x[some]
        out = np.ones((len(x), self.shape[1]))
        rows = out[:, : self.x.shape[1]]
        np.subtract(x, self.center, out=rows)
        rows /= self.scale
        out *= self.signs[some, None]
        return out


def mapped(array: NDArray[Any]) -> bool:
    """Return whether an array's numbers lie in a file that is mapped into memory.

    Examples
    --------
    >>> mapped(np.zeros(2))
    False
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            return True
        owner = owner.base
    return False
