"""The parameters of a model as updates since all ranks were last at one point, the anchor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localgd.errors import extra
from localgd.nets.outer import Outer
from localgd.nets.places import Places

with extra("torch", "torch"):
    import torch


class Parameters:
    """What is trained: packed as weighted updates, moved by the outer step of their mean.

    The anchor is kept in the dtype of the sum, so parameters of 16 bits have a copy of more that rounding does not eat.
    """

    def __init__(self, places: Places, outer: Outer, dtype: Any, device: Any) -> None:
        self.places, self.outer, self.size = places, outer, places.size
        self.anchor = torch.empty(self.size, dtype=dtype, device=device)
        for tensor, at in places.views(self.anchor):
            at.copy_(tensor)
        self.memory = torch.zeros_like(self.anchor) if outer.momentum else None

    def pack(self, out: Any, share: float, written: Callable[[int], object] | None = None) -> float:
        """Write ``share·(x − anchor)``; return the length of the update, NaN or infinite where it is not finite.

        ``written(end)`` is told how far `out` is written.
        """
        lengths, end = [], 0
        for tensor, at, anchor in self.places.pieces(out, self.anchor):
            begin = anchor if tensor.dtype == anchor.dtype else anchor.to(tensor.dtype)  # as the model rounded it
            torch.sub(tensor.to(at.dtype), begin, out=at)
            lengths.append(torch.linalg.vector_norm(at))
            if share != 1.0:
                at.mul_(share)
            end += at.numel()
            if written is not None:
                written(end)
        return length_of(lengths)

    def apply(self, total: Any, factor: float) -> float:
        """Move the anchor, and the model with it, by the outer step of factor times a sum; return the mean's length."""
        lengths = []
        for tensor, at, anchor, memory in self.places.pieces(total, self.anchor, self.memory):
            lengths.append(torch.linalg.vector_norm(at))
            self.outer.move(anchor, at, memory, factor)
            tensor.copy_(anchor)
        return factor * length_of(lengths)

    def stay(self) -> None:
        """Put the model back to the anchor."""
        for tensor, at in self.places.views(self.anchor):
            tensor.copy_(at)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"anchor": self.anchor, "memory": self.memory}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.anchor.copy_(state["anchor"])
        if self.memory is not None:
            self.memory.copy_(state["memory"])
        self.stay()


def length_of(parts: list[Any]) -> float:
    """Return the length of a vector, given those of its parts."""
    return float(torch.linalg.vector_norm(torch.stack(parts).double()))
