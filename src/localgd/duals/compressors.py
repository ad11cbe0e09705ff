"""Codes of fewer bits for a vector, and back: bytes whose number depends on the length of the vector alone.

What a code loses is not lost: see `localgd.rules.compressed`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from localgd.rounding import TINY, FloatArray, is_number, read_only

Bytes: TypeAlias = NDArray[np.uint8]

BLOCK = 256
"""Entries that share one scale of 64 bits: a quarter of a bit for each."""

FLOAT, SINGLE, INDEX = np.dtype("<f8"), np.dtype("<f4"), np.dtype("<u4")


class Compressor(ABC):
    """A code for vectors; a frozen dataclass. Equal vectors have equal codes, on every machine.

    One of your own is derived from this, with a `form` of its own; nodes of Flower decode those of this module only.
    """

    @property
    @abstractmethod
    def form(self) -> str:
        """What it goes by in reports, on command lines and in configurations."""

    @abstractmethod
    def n_bytes(self, size: int) -> int:
        """Return how many bytes stand for a vector of so many entries."""

    @abstractmethod
    def encode(self, vector: FloatArray) -> Bytes:
        """Return the bytes that stand for a finite vector."""

    @abstractmethod
    def decode(self, data: Bytes, size: int) -> FloatArray:
        """Return the vector, of so many entries, that bytes stand for; a ValueError if they stand for none."""

    def decoded(self, data: Bytes, size: int) -> FloatArray:
        """Return the vector, read-only, after a look at the number of bytes."""
        if data.shape != (self.n_bytes(size),):
            raise ValueError(f"{self.form} of {size} entries takes {self.n_bytes(size)} bytes, not {data.size}")
        return read_only(self.decode(data, size))

    def to_dict(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"form": self.form}

    @staticmethod
    def from_dict(entry: dict[str, Any]) -> Compressor:
        """Return what `to_dict` wrote; a ValueError if it is none of these."""
        return compressor_named(str(entry["form"]))


def _in_blocks(vector: FloatArray) -> FloatArray:
    """Return the entries, a block a row, the last one filled up with zeros."""
    padded = np.zeros(-(-vector.size // BLOCK) * BLOCK)
    padded[: vector.size] = vector
    return padded.reshape(-1, BLOCK)


def _n_scales(size: int) -> int:
    return FLOAT.itemsize * -(-size // BLOCK)


def _scales(data: Bytes, size: int) -> tuple[FloatArray, Bytes]:
    """Return the scale of every entry, and the rest of the bytes."""
    there = _n_scales(size)
    scales = data[:there].view(FLOAT).astype(np.float64)
    return np.repeat(scales, BLOCK)[:size], data[there:]


def _bytes(*parts: NDArray[Any]) -> Bytes:
    return np.concatenate([np.frombuffer(np.ascontiguousarray(part).tobytes(), dtype=np.uint8) for part in parts])


class _Rounded(Compressor):
    """Whole multiples of a scale, the largest entry of a block over `most`."""

    most: ClassVar[int]

    def _codes(self, vector: FloatArray) -> tuple[FloatArray, NDArray[np.int8]]:
        blocks = _in_blocks(vector)
        scales = np.abs(blocks).max(axis=1) / self.most
        scales[scales < TINY] = 0.0  # a quotient by less has no digits
        with np.errstate(invalid="ignore", divide="ignore"):
            codes = np.where(scales[:, None] > 0, np.rint(blocks / scales[:, None]), 0.0)
        return scales.astype(FLOAT), codes.reshape(-1)[: vector.size].astype(np.int8)


@dataclass(frozen=True)
class Int8(_Rounded):
    """Every entry as one of 255 multiples of a scale, 8 bits; each 256 entries share a scale.

    The scale is the largest entry over 127; entries are rounded to the nearest multiple, ties to even.

    Examples
    --------
    >>> code = Int8()
    >>> code.decoded(code.encode(np.array([1.27, -0.316, 0.0])), 3).round(12).tolist()
    [1.27, -0.32, 0.0]
    """

    most: ClassVar[int] = 127
    form: ClassVar[str] = "int8"

    def n_bytes(self, size: int) -> int:
        """Return a byte an entry, and the scales."""
        return size + _n_scales(size)

    def encode(self, vector: FloatArray) -> Bytes:
        """Return scales and codes."""
        return _bytes(*self._codes(vector))

    def decode(self, data: Bytes, size: int) -> FloatArray:
        """Return codes times scales."""
        scales, codes = _scales(data, size)
        return scales * codes.view(np.int8)


@dataclass(frozen=True)
class Int4(_Rounded):
    """Every entry as one of 15 multiples of a scale, 4 bits; each 256 entries share a scale.

    As `Int8`, with the largest entry over 7.

    Examples
    --------
    >>> code = Int4()
    >>> code.decoded(code.encode(np.array([0.7, -0.32, 0.0])), 3).round(12).tolist()
    [0.7, -0.3, 0.0]
    """

    most: ClassVar[int] = 7
    form: ClassVar[str] = "int4"

    def n_bytes(self, size: int) -> int:
        """Return half a byte an entry, and the scales."""
        return -(-size // 2) + _n_scales(size)

    def encode(self, vector: FloatArray) -> Bytes:
        """Return scales, and two codes a byte."""
        scales, codes = self._codes(vector)
        pairs = np.zeros(-(-vector.size // 2) * 2, dtype=np.uint8)
        pairs[: vector.size] = (codes + 8).astype(np.uint8)
        return _bytes(scales, pairs[::2] | (pairs[1::2] << 4))

    def decode(self, data: Bytes, size: int) -> FloatArray:
        """Return codes times scales."""
        scales, packed = _scales(data, size)
        pairs = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:size]
        return scales * (pairs.astype(np.int8) - np.int8(8))


@dataclass(frozen=True)
class Float32(Compressor):
    """Every entry as the nearest float32, 32 bits.

    Examples
    --------
    >>> code = Float32()
    >>> code.decoded(code.encode(np.array([0.5, 0.1])), 2).tolist()
    [0.5, 0.10000000149011612]
    """

    form: ClassVar[str] = "float32"

    def n_bytes(self, size: int) -> int:
        """Return four bytes an entry."""
        return SINGLE.itemsize * size

    def encode(self, vector: FloatArray) -> Bytes:
        """Return the entries; infinity where they are beyond float32."""
        with np.errstate(over="ignore", under="ignore"):
            return _bytes(vector.astype(SINGLE))

    def decode(self, data: Bytes, size: int) -> FloatArray:  # noqa: ARG002  as many as there are
        """Return the entries."""
        return data.view(SINGLE).astype(np.float64)


@dataclass(frozen=True)
class SignSGD(Compressor):
    """Every entry as its sign, 1 bit, times the mean size of its block of 256.

    Karimireddy, Rebjock, Stich, Jaggi, ICML 2019, arXiv 1901.09847: signs with such a scale and error feedback converge
    where plain signs need not. An entry of 0 is sent as positive.

    Examples
    --------
    >>> code = SignSGD()
    >>> code.decoded(code.encode(np.array([1.0, -3.0])), 2).tolist()
    [2.0, -2.0]
    """

    form: ClassVar[str] = "sign"

    def n_bytes(self, size: int) -> int:
        """Return a bit an entry, and the scales."""
        return -(-size // 8) + _n_scales(size)

    def encode(self, vector: FloatArray) -> Bytes:
        """Return scales and signs."""
        blocks = _in_blocks(np.abs(vector))
        counts = np.full(len(blocks), BLOCK)
        counts[-1:] = vector.size - BLOCK * (len(blocks) - 1)
        return _bytes((blocks / counts[:, None]).sum(axis=1).astype(FLOAT), np.packbits(vector < 0))

    def decode(self, data: Bytes, size: int) -> FloatArray:
        """Return signs times scales."""
        scales, packed = _scales(data, size)
        return np.where(np.unpackbits(packed, count=size) == 1, -scales, scales)


@dataclass(frozen=True)
class TopK(Compressor):
    """The entries of largest size as they are, 64 bits and a place of 32 each; the others as 0.

    Parameters
    ----------
    share : float in (0, 1]
        Share of the entries that are sent, at least one; of equal ones the first.

    Raises
    ------
    ValueError
        If the share is out of its range.

    Examples
    --------
    >>> code = TopK(0.4)
    >>> code.decoded(code.encode(np.array([1.0, -3.0, 2.0, 0.5])), 4).tolist()
    [0.0, -3.0, 2.0, 0.0]
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise ValueError(f"share of TopK must be above 0 and at most 1, got {self.share!r}")

    @property
    def form(self) -> str:
        """topk, and the share."""
        return f"topk:{self.share!r}"

    def _count(self, size: int) -> int:
        return min(size, max(1, math.ceil(self.share * size)))

    def n_bytes(self, size: int) -> int:
        """Return twelve bytes for each entry that is sent."""
        return self._count(size) * (FLOAT.itemsize + INDEX.itemsize)

    def encode(self, vector: FloatArray) -> Bytes:
        """Return entries and places, in the order of the places."""
        places = np.sort(np.argsort(-np.abs(vector), kind="stable")[: self._count(vector.size)])
        return _bytes(vector[places].astype(FLOAT), places.astype(INDEX))

    def decode(self, data: Bytes, size: int) -> FloatArray:
        """Return the entries at their places."""
        there = FLOAT.itemsize * self._count(size)
        places = data[there:].view(INDEX).astype(np.int64)
        if (np.diff(places) <= 0).any() or (places >= size).any():
            raise ValueError(f"{self.form}: its places are not those of different entries, in order")
        out = np.zeros(size)
        out[places] = data[:there].view(FLOAT)
        return out


PLAIN: dict[str, Callable[[], Compressor]] = {"int8": Int8, "int4": Int4, "sign": SignSGD}


def compressor_named(text: str) -> Compressor:
    """Return the compressor of that form: int8, int4, sign, or topk and a share.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> compressor_named("topk:0.05")
    TopK(share=0.05)
    """
    name, _, share = text.partition(":")
    if text in PLAIN:
        return PLAIN[text]()
    if text == Float32.form:  # what networks travel as: for rows it saves less than the others
        return Float32()
    if name == "topk" and share:
        try:
            number = float(share)
        except ValueError:
            raise ValueError(f"compress: the share of topk must be a number, got {share!r}") from None
        return TopK(number)
    raise ValueError(f"compress must be int8, int4, sign or topk:SHARE (as topk:0.05), got {text!r}")
