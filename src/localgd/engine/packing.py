"""Reports as one flat array, so that processes add them up in one go: one all-reduce a round."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from localgd.core import Message, Report, Task
from localgd.engine.policy import OPTIONAL
from localgd.rounding import Dual, FloatArray, sealed

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

WORTH_A_VIEW = 8
"""A view keeps all of the array alive: what is a smaller part of it than one in so many is copied out."""

HEAD = 4
"""Numbers before the sums: nodes, rows, numbers sent, processes that have a report."""

STRIDE = 4096
"""Numbers so far apart share a checksum: few enough sums to take no time, and enough to tell neighbours apart."""


class Place(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    world: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Names and shapes of what reports hold, and with them the place of each quantity in a flat array that adds.

    First nodes, rows, numbers sent and how many processes have nodes that report; the sums; the counts (float64 holds
    them exactly up to 2⁵³); how many processes hold each name. Then, for every process, a row that only it writes to,
    so that the sum tells each of them what it says: whether there is something to talk about (reports that do not fit),
    and its lows. Last, a number each for what it runs (`digest`), which may be put down while the rest is on its way.

    Parameters
    ----------
    sums, lows, counts, duals : mapping from name to shape
        All that a report may hold; it may lack any of it. A dual takes two places more than its vector.

    Examples
    --------
    >>> reports = Report(1, 10, {"mass": 2.0}, {"margin": 0.1}), Report(1, 20, {"mass": 3.0}, {"margin": 0.2})
    >>> layout = Layout().widened(reports[0])
    >>> flats = [layout.packed([reports[rank]], Place(rank, 2), sent=4) for rank in range(2)]
    >>> for rank in range(2):
    ...     layout.sign(flats[rank], Place(rank, 2), 7)
    >>> flat = flats[0] + flats[1]
    >>> layout.said(flat, 2)
    (False, {7})
    >>> total, sent = layout.report(flat, 2)
    >>> total.n_rows, float(total.sums["mass"]), float(total.lows["margin"]), sent
    (30, 5.0, 0.1, 8)
    """

    sums: Shapes = field(default_factory=dict)
    lows: Shapes = field(default_factory=dict)
    counts: Shapes = field(default_factory=dict)
    duals: Shapes = field(default_factory=dict)

    def fits(self, report: Report) -> bool:
        """Return whether there is a place for all that a report holds."""
        vectors = {name: dual.vector for name, dual in report.duals.items()}
        of = ((self.sums, report.sums), (self.lows, report.lows), (self.duals, vectors))
        alike = all(shapes.get(name) == value.shape for shapes, held in of for name, value in held.items())
        return alike and report.counts.keys() <= self.counts.keys()

    def widened(self, report: Report) -> Layout:
        """Return a layout with a place for what this report holds, too; where shapes differ, for the report's."""
        return Layout(
            {**self.sums, **{name: value.shape for name, value in report.sums.items()}},
            {**self.lows, **{name: value.shape for name, value in report.lows.items()}},
            {**self.counts, **dict.fromkeys(report.counts, ())},
            {**self.duals, **{name: dual.vector.shape for name, dual in report.duals.items()}},
        )

    def packed(self, reports: Collection[Report] | None, place: Place, *, sent: int) -> FloatArray:
        """Return the array of a process: the sum of its reports, or that it has something to talk about."""
        there = () if reports is None else reports
        at_counts, at_names, at_rows = self._parts()
        out = np.empty(at_rows + place.world * (self._width + 1))
        n_nodes, n_rows = sum(report.n_nodes for report in there), sum(report.n_rows for report in there)
        out[:HEAD] = n_nodes, n_rows, sent, bool(there)
        for name, part in _places(self.sums, HEAD):
            shaped = out[part].reshape(self.sums[name])
            _fold(np.add, [report.sums[name] for report in there if name in report.sums], 0.0, shaped)
        for name, part in _places(self._proofs, HEAD + _size(self.sums)):
            duals = [report.duals[name] for report in there if name in report.duals]
            shaped = out[part.start : part.stop - 2].reshape(self.duals[name])
            _fold(np.add, [dual.vector for dual in duals], 0.0, shaped)
            out[part.stop - 2 : part.stop] = np.sum([dual.parts for dual in duals], axis=0) if duals else 0.0
        out[at_counts:at_names] = [sum(report.counts.get(name, 0) for report in there) for name in self.counts]
        out[at_names:at_rows] = [
            *(any(name in report.sums for report in there) for name in self.sums),
            *(any(name in report.lows for report in there) for name in self.lows),
            *(any(name in report.duals for report in there) for name in self.duals),
            *(any(name in report.counts for report in there) for name in self.counts),
        ]
        out[at_rows:] = 0.0
        row = out[at_rows + place.rank * self._width :]
        row[0] = reports is None
        for name, part in _places(self.lows, 1):
            shaped = row[part].reshape(self.lows[name])
            _fold(np.minimum, [report.lows[name] for report in there if name in report.lows], np.inf, shaped)
        return out

    def sign(self, flat: FloatArray, place: Place, mark: int) -> None:
        """Put down what this process runs."""
        flat[flat.size - place.world + place.rank] = mark

    def said(self, flat: FloatArray, world: int) -> tuple[bool, set[int]]:
        """Return whether in some process there is something to talk about, and what they all run."""
        return bool(self._rows(flat, world)[:, 0].any()), {int(mark) for mark in flat[-world:]}

    def uneven(self, flat: FloatArray) -> bool:
        """Return whether some process holds a quantity that another one, whose nodes report too, lacks."""
        at_names = self._parts()[1]
        names = [*self.sums, *self.lows, *self.duals]
        held, n_speak = flat[at_names : at_names + len(names)], flat[HEAD - 1]
        return any(
            0 < count < n_speak for name, count in zip(names, held.tolist(), strict=True) if name not in OPTIONAL
        )

    def report(self, flat: FloatArray, world: int) -> tuple[Report, int]:
        """Return the report that the sum of arrays stands for, and the numbers sent; it is not to change any more."""
        at_counts, at_names, at_rows = self._parts()
        there = iter((sealed(flat)[at_names:at_rows] > 0).tolist())
        sums = {name: _taken(flat, part, self.sums[name]) for name, part in _places(self.sums, HEAD) if next(there)}
        least = self._rows(flat, world).min(axis=0)  # NaN where one of them is
        lows = {
            name: sealed(least[part].reshape(self.lows[name]).copy())
            for name, part in _places(self.lows, 1)
            if next(there)
        }
        n_nodes, n_rows, sent = (int(number) for number in flat[: HEAD - 1])
        duals = {}
        for name, part in _places(self._proofs, HEAD + _size(self.sums)):
            if next(there):
                vector = _taken(flat, slice(part.start, part.stop - 2), self.duals[name])
                duals[name] = Dual.proved(vector, flat[part.stop - 2], flat[part.stop - 1], n_nodes)
        tallies = zip(self.counts, flat[at_counts:at_names].tolist(), strict=True)
        counts = {name: int(count) for name, count in tallies if next(there)}
        return Report(n_nodes, n_rows, sums, lows, counts, duals), sent

    @property
    def _width(self) -> int:
        return 1 + _size(self.lows)

    def _parts(self) -> tuple[int, int, int]:
        at_counts = HEAD + _size(self.sums) + _size(self._proofs)
        at_names = at_counts + len(self.counts)
        return at_counts, at_names, at_names + len(self.sums) + len(self.lows) + len(self.duals) + len(self.counts)

    @property
    def _proofs(self) -> Shapes:
        """Shapes of the duals with their mass and error."""
        return {name: (prod(shape) + 2,) for name, shape in self.duals.items()}

    def _rows(self, flat: FloatArray, world: int) -> FloatArray:
        return flat[self._parts()[-1] : -world].reshape(world, self._width)


def _size(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes.values())


def _places(shapes: Shapes, begin: int) -> Iterator[tuple[str, slice]]:
    for name, shape in shapes.items():
        end = begin + prod(shape)
        yield name, slice(begin, end)
        begin = end


def _fold(add: np.ufunc, values: Sequence[FloatArray], empty: float, out: FloatArray) -> None:
    """Put the fold of some arrays, in their order, into `out`."""
    out[...] = values[0] if values else empty
    for value in values[1:]:
        add(out, value, out=out)


def _taken(flat: FloatArray, part: slice, shape: tuple[int, ...]) -> FloatArray:
    taken = flat[part].reshape(shape)
    return taken if taken.size * WORTH_A_VIEW >= flat.size else sealed(taken.copy())


def digest(task: Task, message: Message, nodes: Collection[str]) -> int:
    """Return a number that differs if task, message or nodes do: 32 bits, for processes to find out that they do.

    Of long arrays the checksum is of sums of their bits, of every `STRIDE`-th number together: as fast as reading them,
    and blind only to last digits up here and down there that lie just so far apart.

    Examples
    --------
    >>> w = np.arange(1.0, 10_000.0)
    >>> other = w.copy()
    >>> other[[5, 7_000]] = np.nextafter(w[[5, 7_000]], [np.inf, 0.0])
    >>> marks = [digest(None, Message(0, model), ()) for model in (w, w.copy(), other)]
    >>> marks[0] == marks[1] != marks[2]
    True
    """
    words = [repr(task), str(message.round), *nodes]
    mark = 0
    for name, array in (("", message.w), *sorted(message.extra.items())):
        words += [name, str(array.shape)]
        bits = np.ascontiguousarray(array).reshape(-1).view(np.int64)
        whole = bits.size - bits.size % STRIDE
        mark = zlib.crc32(bits[:whole].reshape(-1, STRIDE).sum(axis=0).data, mark)
        mark = zlib.crc32(bits[whole:].data, mark)
    return zlib.crc32("\n".join(words).encode(), mark)
