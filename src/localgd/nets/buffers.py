"""Buffers that are no running statistics: counters by their maximum, constants as they are, others as the user says."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from localgd.errors import extra, listing
from localgd.nets.places import Places

with extra("torch", "torch"):
    import torch

RULES = ("mean", "max", "equal")

FEW = 8
"""Numbers, at most, of an integer buffer that is taken for counters."""


class Buffers:
    """What each of these tensors is at a sync: the ranks' ``mean``, their ``max``, or ``equal`` to the bit.

    Whole numbers, up to 8 in a buffer, are counters: the largest one is taken. Everything else is a constant, unless
    ``rules`` says otherwise, by the name or a pattern of names such as ``"ema.*"``.
    """

    def __init__(self, tensors: Mapping[str, Any], rules: Mapping[str, str]) -> None:
        for pattern, rule in rules.items():
            if rule not in RULES:
                raise ValueError(f"buffers[{pattern!r}] must be 'mean', 'max' or 'equal', got {rule!r}")
        used = set[str]()
        kinds: dict[str, str] = {}
        for name, tensor in tensors.items():
            patterns = [pattern for pattern in rules if fnmatchcase(name, pattern)]
            used.update(patterns)
            counter = not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel() <= FEW
            kinds[name] = rules[patterns[0]] if patterns else "max" if counter else "equal"
            if kinds[name] != "equal" and tensor.is_complex():
                raise ValueError(f"buffer {name} is complex, which can only be 'equal' over the ranks")
        if unknown := rules.keys() - used:
            known = listing(sorted(tensors)) or "none that needs a rule"
            raise ValueError(f"buffers names {listing(sorted(unknown))}, and the model has {known}")
        of = {rule: [(name, tensors[name]) for name, kind in kinds.items() if kind == rule] for rule in RULES}
        self.means, self.peaks, self.constants = Places(of["mean"]), Places(of["max"]), of["equal"]
        self.size = self.means.size
        self._seen: dict[str, tuple[int, int, int]] = {}

    @property
    def names(self) -> list[str]:
        """Names of what the header says of this rank's buffers."""
        return ["constants", *(f"{name}[{i}]" for name, _, begin, end in self.peaks for i in range(end - begin))]

    def words(self) -> list[float]:
        """Return the digest of all constants, and every counter."""
        counters = [float(number) for _, tensor, _, _ in self.peaks for number in tensor.reshape(-1).tolist()]
        text = ",".join(f"{digest}" for digest in self.digests().values())
        return [float(zlib.crc32(text.encode())), *counters]

    def digests(self) -> dict[str, int]:
        """Return a digest of each constant; of one that nobody wrote to since, from memory."""
        for name, tensor in self.constants:
            mark = (tensor.data_ptr(), tensor._version)  # noqa: SLF001  counts writes in place; there is no public name
            if self._seen.get(name, ())[:2] != mark:
                content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                self._seen[name] = (*mark, zlib.crc32(content))
        return {name: self._seen[name][2] for name, _ in self.constants}

    def pack(self, out: Any, share: float) -> None:
        """Write this rank's share of the means."""
        for tensor, at in self.means.views(out):
            torch.mul(tensor.to(out.dtype), share, out=at)

    def check(self, rows: list[dict[str, float]], everyone: Callable[[Any], list[Any]]) -> None:
        """Refuse constants that differ, by name."""
        if len({row["constants"] for row in rows}) == 1:
            return
        told = everyone(self.digests())
        differ = [name for name, _ in self.constants if len({digests[name] for digests in told}) > 1]
        raise ValueError(
            f"{listing(differ)} differ over the ranks, and no rule says what they are after a sync; "
            f"give one: buffers={{{differ[0]!r}: 'mean'}}, 'max' or, if they are to be constant, keep them so"
        )

    def apply(self, total: Any, shares: float, rows: list[dict[str, float]]) -> None:
        """Take means, of shares that sum to this, and the largest counters."""
        for tensor, at in self.means.views(total) if shares else ():
            tensor.copy_(at / shares)
        for name, tensor, begin, end in self.peaks:
            numbers = [max(row[f"{name}[{i}]"] for row in rows) for i in range(end - begin)]
            tensor.copy_(torch.tensor(numbers, dtype=torch.float64).view(tensor.shape))
