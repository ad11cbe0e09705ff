"""Reports as one flat array, so that processes add them up in one go: one all-reduce a round."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from localgd.core import Array, Field, Kind, Message, Report, Schema, Task, summed
from localgd.duals.dual import Dual
from localgd.duals.kept import NOTHING, Kept
from localgd.engine.screening import PARTS
from localgd.rounding import FloatArray, read_only

WORTH_A_VIEW = 8
"""A view keeps all of the array alive: what is a smaller part of it than one in so many is copied out."""

HEAD = 3
"""Numbers before all else: nodes, rows, numbers sent."""

STRIDE = 4096
"""Numbers so far apart share a checksum: few enough sums to take no time, and enough to tell neighbours apart."""

ENDS = 4
"""Numbers that go with a dual that may be coded: names and lengths of what is kept back, before and after."""

NONE: Mapping[Kind, float] = {"sum": 0.0, "max": -np.inf, "min": np.inf}
"""What an array of a kind folds from."""


class Rank(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    world: int


@dataclass(frozen=True)
class Layout:
    """The place of each field of a schema in a flat array that adds, the same in every process before the first round.

    First nodes, rows and numbers sent; the sums, the duals, each with its mass and error (and, if it may be coded, the
    ends of what is kept back: codes do not add, so here vectors travel), the flags; how many processes hold each field;
    the values that are listed, a place for each node. Then, for every process, a row that only it writes to, so that
    the sum tells each of them what it says: whether there is something to talk about (a node failed,
    or its report is none of this schema), its maxima and its minima. Last, a number each for what it runs (`digest`),
    which may be put down while the rest is on its way. Tallies have no place: their keys are known to their nodes only.

    Everything is float64 here, which holds float32 and whole numbers up to 2⁵³ exactly; what comes back has the dtype
    of its field.
    """

    schema: Schema
    nodes: tuple[str, ...] = ()

    def packed(self, reports: Collection[Report] | None, place: Rank, *, sent: int) -> FloatArray:
        """Return the array of a process: the sum of its reports, or that it has something to talk about."""
        total = summed(() if reports is None else tuple(reports))
        parts, end, width = self._at
        out = np.zeros(end + place.world * (width + 1))
        out[:HEAD] = total.n_nodes, total.n_rows, sent
        row = out[end + place.rank * width :]
        row[0] = reports is None
        folded: list[tuple[Kind, FloatArray]] = [("sum", out), ("max", row), ("min", row)]
        for kind, where in folded:
            held = getattr(total, PARTS[kind])
            for name, part in parts[kind].items():
                where[part] = held[name].reshape(-1) if name in held else NONE[kind]
        for name, dual in total.duals.items():
            part = parts["dual"][name]
            vector, proved, ends = np.split(out[part], np.cumsum((dual.vector.size, 2)))
            vector[:], proved[:], ends[:] = dual.vector, dual.parts, dual.kept.ends or 0.0
        for name, part in parts["flag"].items():
            out[part] = total.flags.get(name, 0)
        for name, part in parts["held"].items():
            out[part] = name in getattr(total, PARTS[self.schema[name].kind])
        for name, part in parts["per_node"].items():
            table = out[part].reshape(len(self.nodes), -1)
            for node, value in total.per_node.get(name, {}).items():
                table[self.nodes.index(node)] = 1.0, *value.reshape(-1)
        return out

    def sign(self, flat: FloatArray, place: Rank, mark: int) -> None:
        """Put down what this process runs."""
        flat[flat.size - place.world + place.rank] = mark

    def said(self, flat: FloatArray, world: int) -> tuple[bool, set[int]]:
        """Return whether in some process there is something to talk about, and what they all run."""
        return bool(self._rows(flat, world)[:, 0].any()), {int(mark) for mark in flat[-world:]}

    def report(self, flat: FloatArray, world: int) -> tuple[Report, int]:
        """Return the report that the sum of arrays stands for, and the numbers sent; it is not to change any more."""
        parts, _, _ = self._at
        held = {name for name, part in parts["held"].items() if read_only(flat)[part][0] > 0}
        rows, schema = self._rows(flat, world), self.schema
        n_nodes, n_rows, sent = (int(number) for number in flat[:HEAD])
        extremes = {"max": rows.max(axis=0), "min": rows.min(axis=0)}  # NaN where one of them is
        maxs, mins = (
            {name: _of(schema[name], found[part]) for name, part in parts[kind].items() if name in held}
            for kind, found in extremes.items()
        )
        duals = {name: part for name, part in parts["dual"].items() if name in held}
        report = Report(
            n_nodes,
            n_rows,
            {name: _taken(flat, part, schema[name]) for name, part in parts["sum"].items() if name in held},
            maxs=maxs,
            mins=mins,
            flags={name: int(flat[part][0]) for name, part in parts["flag"].items() if flat[part][0]},
            duals={name: _dual(flat, part, schema[name], n_nodes) for name, part in duals.items()},
            per_node={name: listed for name in parts["per_node"] if (listed := self._listed(name, flat))},
        )
        return report, sent

    def _listed(self, name: str, flat: FloatArray) -> dict[str, Array]:
        """Return the values that nodes have listed under a name."""
        table = flat[self._at[0]["per_node"][name]].reshape(len(self.nodes), -1)
        return {node: _of(self.schema[name], row[1:]) for node, row in zip(self.nodes, table, strict=True) if row[0]}

    @cached_property
    def _at(self) -> tuple[dict[str, dict[str, slice]], int, int]:
        """Where each field of a kind is, and how long all that is: in the array, and in the row of a process."""
        parts: dict[str, dict[str, slice]] = {}
        ends = {"array": HEAD, "row": 1}
        for kind in ("sum", "dual", "flag", "held", "per_node", "max", "min"):
            where, parts[kind] = "row" if kind in {"max", "min"} else "array", {}
            for name, field in self.schema.items():
                size, begin = prod(field.shape), ends[where]
                of_dual = size + 2 + ENDS * bool(field.coded)
                takes = {"dual": of_dual, "per_node": (size + 1) * len(self.nodes), "held": 1}
                if kind == field.kind or (kind == "held" and field.kind in {"sum", "max", "min", "dual"}):
                    ends[where] += takes.get(kind, size)
                    parts[kind][name] = slice(begin, ends[where])
        return parts, ends["array"], ends["row"]

    def _rows(self, flat: FloatArray, world: int) -> FloatArray:
        _, end, width = self._at
        return flat[end:-world].reshape(world, width)


def _of(field: Field, numbers: FloatArray) -> Array:
    """Return numbers in the shape and dtype of their field, apart from the array that they are in."""
    return read_only(numbers.reshape(field.shape).astype(field.dtype), field.dtype)


def _taken(flat: FloatArray, part: slice, field: Field) -> Array:
    taken = flat[part].reshape(field.shape)
    large = taken.size * WORTH_A_VIEW >= flat.size and field.dtype == "float64"
    return taken if large else _of(field, taken)


def _dual(flat: FloatArray, part: slice, field: Field, n_nodes: int) -> Dual:
    begin = part.start + prod(field.shape)
    mass, error, *ends = flat[begin : part.stop].tolist()
    kept = Kept.between(*ends) if any(ends) else NOTHING
    return Dual.proved(_taken(flat, slice(part.start, begin), field), mass, error, n_nodes, kept=kept)


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
        bits = np.ascontiguousarray(array).reshape(-1).view(f"i{array.itemsize}")
        whole = bits.size - bits.size % STRIDE
        mark = zlib.crc32(bits[:whole].reshape(-1, STRIDE).sum(axis=0).data, mark)
        mark = zlib.crc32(bits[whole:].data, mark)
    return zlib.crc32("\n".join(words).encode(), mark)
