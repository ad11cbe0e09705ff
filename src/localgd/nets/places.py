"""Where tensors of a model lie in one vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

PIECE = 2**17
"""Numbers worked on at once: four vectors of them fit a cache of 2 MB, so passes over them are one over memory."""


class Places:
    """Named tensors, each once, and where each lies in a vector of all of them.

    Examples
    --------
    >>> import torch
    >>> places = Places([("a", torch.ones(2, 3)), ("b", torch.zeros(4))])
    >>> places.size, [(name, begin, end) for name, _, begin, end in places]
    (10, [('a', 0, 6), ('b', 6, 10)])
    """

    def __init__(self, named: Iterable[tuple[str, Any]]) -> None:
        self._held: list[tuple[str, Any, int, int]] = []
        at = 0
        for name, tensor in named:
            self._held.append((name, tensor, at, at + tensor.numel()))
            at += tensor.numel()
        self.size = at

    def __iter__(self) -> Iterator[tuple[str, Any, int, int]]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def pieces(self, *vectors: Any) -> Iterator[tuple[Any, ...]]:
        """Yield parts that fit a cache: of each tensor, and of vectors that it has a place in, in the same shape."""
        for _, tensor, begin, end in self._held:
            here = tensor.detach()
            if not here.is_contiguous():
                yield here, *(None if each is None else each[begin:end].view(here.shape) for each in vectors)
                continue
            flat = here.view(-1)
            for at in range(0, end - begin, PIECE):
                to = min(at + PIECE, end - begin)
                yield flat[at:to], *(None if each is None else each[begin + at : begin + to] for each in vectors)

    def views(self, vector: Any) -> Iterator[tuple[Any, Any]]:
        """Yield each tensor, detached, with its part of the vector in the same shape."""
        for _, tensor, begin, end in self._held:
            here = tensor.detach()
            yield here, vector[begin:end].view(here.shape)
