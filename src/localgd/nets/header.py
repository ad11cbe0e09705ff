"""What each rank says beside its numbers: a row of float64 numbers per rank, exact in a float32 sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localgd.errors import extra

with extra("torch", "torch"):
    import torch

PIECES = 4
"""Numbers of 16 bits that a float64 is sent as: exact in float32, and so is a sum in which all others are 0."""


class Header:
    """A table of one row per rank, in a vector that is summed over the ranks: each writes its own row, others add 0.

    Examples
    --------
    >>> header = Header(["steps", "length"], rank=1, world=2)
    >>> numbers = torch.zeros(header.size)
    >>> header.pack(numbers, [32.0, 0.1])
    >>> header.unpack(numbers)[1]
    {'steps': 32.0, 'length': 0.1}
    """

    def __init__(self, names: Sequence[str], rank: int, world: int) -> None:
        self.names, self.rank, self.world = tuple(names), rank, world
        self.width = PIECES * len(self.names)
        self.size = self.width * world

    def pack(self, out: Any, row: Sequence[float]) -> None:
        """Write this rank's row, and 0 for all others."""
        pieces = torch.tensor(row, dtype=torch.float64).view(torch.int16)
        out.zero_()
        out[self.rank * self.width : (self.rank + 1) * self.width] = pieces.to(out)

    def unpack(self, total: Any) -> list[dict[str, float]]:
        """Return what each rank said."""
        rows = total.cpu().round().to(torch.int16).view(torch.float64).reshape(self.world, len(self.names))
        return [dict(zip(self.names, row, strict=True)) for row in rows.tolist()]
