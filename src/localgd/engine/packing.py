"""Reports as two flat arrays, one that adds and one of which the least counts, so that processes reduce each once."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from localgd.core import Message, Report, Task, sealed
from localgd.rounding import FloatArray

IntArray: TypeAlias = NDArray[np.int64]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

LARGEST = np.iinfo(np.int64).max

WORTH_A_VIEW = 8
"""A view keeps all of the array alive: what is a smaller part of it than one in so many is copied out."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Names and shapes of what reports hold, and with them the place of each quantity in two flat arrays.

    What adds: nodes, rows, numbers sent, then the sums, then the counts (float64 holds them exactly up to 2⁵³).
    Of which the least counts: what the caller puts first, then −1 for each name that is there, then the lows.

    Parameters
    ----------
    sums, lows, counts : mapping from name to shape
        All that a report may hold; it may lack any of it.

    Examples
    --------
    >>> report = Report(1, 10, {"mass": 2.0}, {"margin": np.nan}, {"red": 4})
    >>> layout = Layout().widened(report)
    >>> back, sent = layout.report(layout.adding(report, sent=5), layout.least(report))
    >>> back.n_rows, float(back.sums["mass"]), float(back.lows["margin"]), dict(back.counts), sent
    (10, 2.0, nan, {'red': 4}, 5)
    """

    sums: Shapes = field(default_factory=dict)
    lows: Shapes = field(default_factory=dict)
    counts: Shapes = field(default_factory=dict)

    def fits(self, report: Report) -> bool:
        """Return whether there is a place for all that a report holds."""
        of = ((self.sums, report.sums), (self.lows, report.lows))
        alike = all(shapes.get(name) == value.shape for shapes, held in of for name, value in held.items())
        return alike and report.counts.keys() <= self.counts.keys()

    def widened(self, report: Report) -> Layout:
        """Return a layout with a place for what this report holds, too; where shapes differ, for the report's."""
        return Layout(
            {**self.sums, **{name: value.shape for name, value in report.sums.items()}},
            {**self.lows, **{name: value.shape for name, value in report.lows.items()}},
            {**self.counts, **dict.fromkeys(report.counts, ())},
        )

    def adding(self, report: Report, sent: int) -> FloatArray:
        """Return the array of what adds."""
        out = np.empty(3 + _size(self.sums) + len(self.counts))
        out[:3] = report.n_nodes, report.n_rows, sent
        for name, place in _places(self.sums, 3):
            out[place] = np.ravel(report.sums[name]) if name in report.sums else 0.0
        out[3 + _size(self.sums) :] = [report.counts.get(name, 0) for name in self.counts]
        return out

    def least(self, report: Report) -> IntArray:
        """Return the array of which the least counts."""
        there = [
            -(name in held)
            for shapes, held in ((self.sums, report.sums), (self.lows, report.lows), (self.counts, report.counts))
            for name in shapes
        ]
        out = np.full(len(there) + _size(self.lows), LARGEST)
        out[: len(there)] = there
        for name, place in _places(self.lows, len(there)):
            if name in report.lows:
                out[place] = _ordered(np.ravel(report.lows[name]))
        return out

    def report(self, adding: FloatArray, least: IntArray) -> tuple[Report, int]:
        """Return the report that these arrays stand for, and the numbers sent; the arrays are not to change again."""
        there = iter((least[: len(self.sums) + len(self.lows) + len(self.counts)] < 0).tolist())
        at_counts = 3 + _size(self.sums)
        sums = {
            name: _taken(sealed(adding), place, self.sums[name]) for name, place in _places(self.sums, 3) if next(there)
        }
        lows = {
            name: sealed(_numbers(least[place]).reshape(self.lows[name]))
            for name, place in _places(self.lows, len(self.sums) + len(self.lows) + len(self.counts))
            if next(there)
        }
        tallies = zip(self.counts, adding[at_counts:].tolist(), strict=True)
        counts = {name: int(count) for name, count in tallies if next(there)}
        n_nodes, n_rows, sent = (int(number) for number in adding[:3])
        return Report(n_nodes, n_rows, sums, lows, counts), sent


def _size(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes.values())


def _places(shapes: Shapes, begin: int) -> Iterator[tuple[str, slice]]:
    for name, shape in shapes.items():
        end = begin + prod(shape)
        yield name, slice(begin, end)
        begin = end


def _taken(flat: FloatArray, place: slice, shape: tuple[int, ...]) -> FloatArray:
    part = flat[place].reshape(shape)
    return part if part.size * WORTH_A_VIEW >= flat.size else sealed(part.copy())


def _ordered(values: FloatArray) -> IntArray:
    """Return float64 as integers in the same order, NaN before all others: a minimum of floats may lose it.

    Examples
    --------
    >>> values = np.array([np.nan, -np.inf, -2.5, -0.0, 0.0, 1e-300, np.inf])
    >>> bool((np.diff(_ordered(values)) > 0).all()), _numbers(_ordered(values)).tolist()
    (True, [nan, -inf, -2.5, -0.0, 0.0, 1e-300, inf])
    """
    bits: IntArray = np.where(np.isnan(values), -1, values.view(np.int64))
    return bits ^ ((bits >> 63) & LARGEST)


def _numbers(ordered: IntArray) -> FloatArray:
    bits: IntArray = ordered ^ ((ordered >> 63) & LARGEST)
    return bits.view(np.float64)


def digest(task: Task, message: Message, nodes: Collection[str]) -> int:
    """Return a number that differs if task, message or nodes do: 32 bits, for processes to find out that they do.

    The bits as integers are added up, and their squares, in a fraction of the time of a checksum of the bytes; a last
    digit up here and down there leaves the first sum as it is, but not the second.

    Examples
    --------
    >>> w = np.array([1.0, 3.0])
    >>> ahead = np.array([np.nextafter(1.0, 2.0), np.nextafter(3.0, 2.0)])
    >>> one, other = (digest(None, Message(0, model), ()) for model in (w, ahead))
    >>> one == digest(None, Message(0, w.copy()), ()) != other
    True
    """
    words = [repr(task), str(message.round), *nodes]
    for name, array in (("", message.w), *sorted(message.extra.items())):
        bits = np.ascontiguousarray(array).reshape(-1).view(np.int64)
        words += [name, str(array.shape), str(bits.sum()), str(np.einsum("i,i->", bits, bits))]
    return zlib.crc32("\n".join(words).encode())
