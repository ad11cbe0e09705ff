"""Updates in fewer bits: what a code loses is kept back and sent the next time, at both places where one is made.

Ranks send each other their coded parts (all-to-all), each adds up one part, codes the sum, and all get all of these
(all-gather). So every number crosses the wire twice in few bits, and all ranks decode the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from localgd.errors import extra
from localgd.nets.ranks import Ranks

with extra("torch", "torch"):
    import torch

Code = Literal["bf16", "int8", "int4"]

BLOCK = 256
"""Numbers that share a scale, the largest of them in size."""

LEVELS = {"int8": 127, "int4": 7}
"""Steps of a code on each side of 0."""

CHUNK = 2**18
"""Numbers coded at once: what fits a cache takes a fraction of the time."""


def n_bytes(code: Code, size: int) -> int:
    """Return how many bytes so many numbers take, a multiple of the block.

    Examples
    --------
    >>> [n_bytes(code, 256) for code in ("bf16", "int8", "int4")]
    [512, 258, 130]
    """
    return 2 * size if code == "bf16" else (size if code == "int8" else size // 2) + 2 * (size // BLOCK)


def encode(code: Code, numbers: Any) -> Any:
    """Return the bytes of numbers, a multiple of the block of them: nearest steps, then scales as bfloat16."""
    if code == "bf16":
        return numbers.to(torch.bfloat16).view(torch.uint8)
    most = LEVELS[code]
    blocks = numbers.view(-1, BLOCK)
    scales = (blocks.abs().amax(1) / most).to(torch.bfloat16)
    steps = (blocks / scales.to(blocks.dtype).clamp_min(torch.finfo(torch.bfloat16).tiny)[:, None]).round_()
    whole = steps.clamp_(-most, most).to(torch.int8).view(-1)
    if code == "int4":
        pairs = (whole + 8).view(torch.uint8).view(-1, 2)
        whole = pairs[:, 0] | (pairs[:, 1] << 4)
    return torch.cat([whole.view(torch.uint8), scales.view(torch.uint8)])


def decode(code: Code, content: Any, out: Any) -> None:
    """Put the numbers that these bytes stand for in a vector of as many.

    Examples
    --------
    >>> numbers = torch.linspace(-1, 1, 256)
    >>> back = torch.empty(256)
    >>> decode("int8", encode("int8", numbers), back)
    >>> float((back - numbers).abs().max()) <= 1 / 127
    True
    """
    if code == "bf16":
        out.copy_(content.view(torch.bfloat16))
        return
    n_codes = out.numel() if code == "int8" else out.numel() // 2
    held, scales = content[:n_codes], content[n_codes:].clone().view(torch.bfloat16).to(out.dtype)
    if code == "int8":
        whole = held.view(torch.int8)
    else:
        whole = torch.stack([held & 15, held >> 4], 1).view(-1).to(torch.int8) - 8
    torch.mul(whole.view(-1, BLOCK).to(out.dtype), scales[:, None], out=out.view(-1, BLOCK))


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + CHUNK, size)) for begin in range(0, size, CHUNK))


def coded(code: Code, numbers: Any) -> Any:
    """Return the bytes of a vector, piece by piece."""
    return torch.cat([encode(code, numbers[begin:end]) for begin, end in _pieces(len(numbers))])


def read(code: Code, content: Any, out: Any, sign: float = 1.0) -> None:
    """Add what bytes stand for, times a sign, to a vector."""
    held, at = torch.empty(min(CHUNK, len(out)), dtype=out.dtype, device=out.device), 0
    for begin, end in _pieces(len(out)):
        number = n_bytes(code, end - begin)
        decode(code, content[at : at + number], held[: end - begin])
        out[begin:end].add_(held[: end - begin], alpha=sign)
        at += number


class CodedSum:
    """A sum over ranks of vectors in fewer bits.

    Parameters
    ----------
    code : "bf16", "int8" or "int4"
        Of 2, 1.008 and 0.508 bytes a number.
    ranks : Ranks
        That add up; each codes an equal part of the sum, in whole blocks.
    like : (n,) tensor
        A vector of the size and dtype of those to come.
    """

    def __init__(self, code: Code, ranks: Ranks, like: Any) -> None:
        self.code, self.ranks = code, ranks
        self.part = -(-len(like) // (BLOCK * ranks.world)) * BLOCK
        self.lost = {"own": like.new_zeros(self.part * ranks.world), "summed": like.new_zeros(self.part)}
        self._following = dict(self.lost)
        self.n_bytes = 2 * ranks.world * sum(n_bytes(code, end - begin) for begin, end in _pieces(self.part))

    def add(self, numbers: Any) -> None:
        """Put the sum of the decoded vectors in place of this rank's own, the same bits in all ranks."""
        world = self.ranks.world
        vector = self.lost["own"].clone()
        vector[: len(numbers)] += numbers
        parts = vector.view(world, -1)
        sent = torch.stack([coded(self.code, part) for part in parts])
        for part, content in zip(parts, sent, strict=True):
            read(self.code, content, part, -1.0)  # what is left is lost
        total = self.lost["summed"].clone()
        for content in self.ranks.exchanged(sent):
            read(self.code, content, total)
        content = coded(self.code, total)
        read(self.code, content, total, -1.0)
        self._following = {"own": vector, "summed": total}
        decoded = torch.zeros_like(vector)
        for part, each in zip(decoded.view(world, -1), self.ranks.gathered(content), strict=True):
            read(self.code, each, part)
        numbers.copy_(decoded[: len(numbers)])

    def rescale(self, factor: float) -> None:
        """Go on in units of which what was lost is `factor` times as many."""
        for lost in self.lost.values():
            lost.mul_(factor)

    def commit(self) -> None:
        """Keep back what the last sum lost, now that it was used."""
        self.lost = self._following
