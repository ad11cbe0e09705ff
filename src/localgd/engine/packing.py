"""Reports as one flat array, so that processes add them up in one go: one all-reduce a round."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from localgd.core import Array, Field, Message, Report, Schema, Task
from localgd.engine.screening import PARTS
from localgd.rounding import Dual, FloatArray, read_only

WORTH_A_VIEW = 8
"""A view keeps all of the array alive: what is a smaller part of it than one in so many is copied out."""

HEAD = 3
"""Numbers before all else: nodes, rows, numbers sent."""

STRIDE = 4096
"""Numbers so far apart share a checksum: few enough sums to take no time, and enough to tell neighbours apart."""

ADD = {"sum": np.add, "max": np.maximum, "min": np.minimum}
EMPTY = {"sum": 0.0, "max": -np.inf, "min": np.inf}
"""How arrays of a kind fold, and what they fold from."""


class Rank(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    world: int


@dataclass(frozen=True)
class Layout:
    """The place of each field of a schema in a flat array that adds, the same in every process before the first round.

    First nodes, rows and numbers sent; the sums, the duals, each with its mass and error, the flags; how many processes
    hold each field; the values that are listed, a place for each node. Then, for every process, a row that only it
    writes to, so that the sum tells each of them what it says: whether there is something to talk about (a node failed,
    or its report is none of this schema), its maxima and its minima. Last, a number each for what it runs (`digest`),
    which may be put down while the rest is on its way. Tallies have no place: their keys are known to their nodes only.

    Everything is float64 here, which holds float32 and whole numbers up to 2⁵³ exactly; what comes back has the dtype
    of its field.

    Parameters
    ----------
    schema : mapping from name to Field
        What a report may hold.
    nodes : tuple of str
        Nodes that are asked.

    Examples
    --------
    >>> layout = Layout({"loss": Field("sum"), "margin": Field("min"), "n": Field("per_node", (), "int64")}, ("a", "b"))
    >>> reports = [
    ...     Report(1, rows, {"loss": loss}, mins={"margin": low}, per_node={"n": {name: np.int64(rows)}})
    ...     for name, rows, loss, low in (("a", 10, 2.0, 0.1), ("b", 20, 3.0, 0.2))
    ... ]
    >>> flats = [layout.packed([reports[rank]], Rank(rank, 2), sent=5) for rank in range(2)]
    >>> for rank in range(2):
    ...     layout.sign(flats[rank], Rank(rank, 2), 7)
    >>> flat = flats[0] + flats[1]
    >>> layout.said(flat, 2)
    (False, {7})
    >>> total, sent = layout.report(flat, 2)
    >>> total.n_rows, float(total.sums["loss"]), float(total.mins["margin"]), sent
    (30, 5.0, 0.1, 10)
    >>> {node: value.item() for node, value in total.per_node["n"].items()}
    {'a': 10, 'b': 20}
    """

    schema: Schema
    nodes: tuple[str, ...] = ()

    def packed(self, reports: Collection[Report] | None, place: Rank, *, sent: int) -> FloatArray:
        """Return the array of a process: the sum of its reports, or that it has something to talk about."""
        there = () if reports is None else tuple(reports)
        out = np.zeros(self._at["rows"] + place.world * (self._width + 1))
        n_nodes, n_rows = sum(report.n_nodes for report in there), sum(report.n_rows for report in there)
        out[:HEAD] = n_nodes, n_rows, sent
        for name, field, part in self._places("sum"):
            _fold(field, [report.sums[name] for report in there if name in report.sums], out[part])
        for name, field, part in self._places("dual"):
            duals = [report.duals[name] for report in there if name in report.duals]
            _fold(field, [dual.vector for dual in duals], out[part.start : part.stop - 2])
            out[part.stop - 2 : part.stop] = np.sum([dual.parts for dual in duals], axis=0) if duals else 0.0
        for name, _, part in self._places("flag"):
            out[part] = sum(report.flags.get(name, 0) for report in there)
        out[self._at["names"] : self._at["per_node"]] = [
            any(name in getattr(report, PARTS[field.kind]) for report in there) for name, field in self._named
        ]
        for name, _, part in self._places("per_node"):
            table = out[part].reshape(len(self.nodes), -1)
            listed = [(node, value) for report in there for node, value in report.per_node.get(name, {}).items()]
            for node, value in listed:
                table[self.nodes.index(node)] = 1.0, *value.reshape(-1)
        row = out[self._at["rows"] + place.rank * self._width :]
        row[0] = reports is None
        for kind in ("max", "min"):
            for name, field, part in self._places(kind):
                _fold(
                    field, [held[name] for held in (getattr(r, PARTS[kind]) for r in there) if name in held], row[part]
                )
        return out

    def sign(self, flat: FloatArray, place: Rank, mark: int) -> None:
        """Put down what this process runs."""
        flat[flat.size - place.world + place.rank] = mark

    def said(self, flat: FloatArray, world: int) -> tuple[bool, set[int]]:
        """Return whether in some process there is something to talk about, and what they all run."""
        return bool(self._rows(flat, world)[:, 0].any()), {int(mark) for mark in flat[-world:]}

    def report(self, flat: FloatArray, world: int) -> tuple[Report, int]:
        """Return the report that the sum of arrays stands for, and the numbers sent; it is not to change any more."""
        there = (read_only(flat)[self._at["names"] : self._at["per_node"]] > 0).tolist()
        held = {name for (name, _), here in zip(self._named, there, strict=True) if here}
        rows = self._rows(flat, world)
        n_nodes, n_rows, sent = (int(number) for number in flat[:HEAD])
        flags = {name: int(flat[part][0]) for name, _, part in self._places("flag")}
        duals = self._places("dual")
        report = Report(
            n_nodes,
            n_rows,
            {name: _taken(flat, part, field) for name, field, part in self._places("sum") if name in held},
            maxs=self._extremes("max", rows.max(axis=0), held),  # NaN where one of them is
            mins=self._extremes("min", rows.min(axis=0), held),
            flags={name: count for name, count in flags.items() if count},
            duals={name: _dual(flat, part, field, n_nodes) for name, field, part in duals if name in held},
            per_node={name: listed for name, listed in self._per_node(flat) if listed},
        )
        return report, sent

    def _extremes(self, kind: str, found: FloatArray, held: Collection[str]) -> dict[str, Array]:
        return {name: _of(field, found[part]) for name, field, part in self._places(kind) if name in held}

    def _per_node(self, flat: FloatArray) -> Iterator[tuple[str, dict[str, Array]]]:
        """Yield the values that nodes have listed, each by its node."""
        for name, field, part in self._places("per_node"):
            table = zip(self.nodes, flat[part].reshape(len(self.nodes), -1), strict=True)
            yield name, {node: _of(field, row[1:]) for node, row in table if row[0]}

    @cached_property
    def _named(self) -> list[tuple[str, Field]]:
        """Fields that processes say whether they hold them."""
        return [(name, field) for name, field in self.schema.items() if field.kind in {"sum", "max", "min", "dual"}]

    def _sizes(self, kind: str) -> Iterator[tuple[str, Field, int]]:
        """Yield the fields of a kind, and how many places each takes."""
        for name, field in self.schema.items():
            if field.kind == kind:
                size = prod(field.shape)
                yield name, field, {"dual": size + 2, "per_node": (size + 1) * len(self.nodes)}.get(kind, size)

    def _size(self, kind: str) -> int:
        return sum(size for *_, size in self._sizes(kind))

    @cached_property
    def _at(self) -> Mapping[str, int]:
        """Where each part begins: in the array, or, of maxima and minima, in the row of a process."""
        at, begin = {"max": 1, "min": 1 + self._size("max")}, HEAD
        for name in ("sum", "dual", "flag", "names", "per_node"):
            at[name] = begin
            begin += len(self._named) if name == "names" else self._size(name)
        return {**at, "rows": begin}

    @cached_property
    def _width(self) -> int:
        return 1 + self._size("max") + self._size("min")

    def _places(self, kind: str) -> Iterator[tuple[str, Field, slice]]:
        begin = self._at[kind]
        for name, field, size in self._sizes(kind):
            yield name, field, slice(begin, begin + size)
            begin += size

    def _rows(self, flat: FloatArray, world: int) -> FloatArray:
        return flat[self._at["rows"] : -world].reshape(world, self._width)


def _fold(field: Field, values: Sequence[Array], out: FloatArray) -> None:
    """Put the fold of some arrays, in their order and dtype, into `out`."""
    kind = "sum" if field.kind == "dual" else field.kind
    if not values:
        out[...] = EMPTY[kind]
        return
    exact = field.dtype == "float64"
    total: Any = out.reshape(field.shape) if exact else np.empty(field.shape, field.dtype)
    total[...] = values[0]
    for value in values[1:]:
        ADD[kind](total, value, out=total)
    if not exact:
        out[...] = total.reshape(-1)


def _of(field: Field, numbers: FloatArray) -> Array:
    """Return numbers in the shape and dtype of their field, apart from the array that they are in."""
    return read_only(numbers.reshape(field.shape).astype(field.dtype), field.dtype)


def _taken(flat: FloatArray, part: slice, field: Field) -> Array:
    taken = flat[part].reshape(field.shape)
    large = taken.size * WORTH_A_VIEW >= flat.size and field.dtype == "float64"
    return taken if large else _of(field, taken)


def _dual(flat: FloatArray, part: slice, field: Field, n_nodes: int) -> Dual:
    vector = _taken(flat, slice(part.start, part.stop - 2), field)
    return Dual.proved(vector, flat[part.stop - 2], flat[part.stop - 1], n_nodes)


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
    words = [repr(task), message.session, str(message.round), *nodes]
    mark = 0
    for name, array in (("", message.w), *sorted(message.extra.items())):
        words += [name, str(array.shape)]
        bits = np.ascontiguousarray(array).reshape(-1).view(np.int64)
        whole = bits.size - bits.size % STRIDE
        mark = zlib.crc32(bits[:whole].reshape(-1, STRIDE).sum(axis=0).data, mark)
        mark = zlib.crc32(bits[whole:].data, mark)
    return zlib.crc32("\n".join(words).encode(), mark)
