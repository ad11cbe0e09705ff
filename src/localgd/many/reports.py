"""What several nodes report, as arrays with an axis for the nodes in front; and what one does, in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from localgd.core import Array, Report
from localgd.many.duals import Duals, Present, fold
from localgd.many.stack import Stack
from localgd.rounding import read_only
from localgd.rows import Shard


def _kept(total: Any) -> Array:
    """Return a sum as a report holds it."""
    return read_only(total, total.dtype)


Parts = Mapping[str, Mapping[str, Any]]
"""Of ``sums``, ``maxs``, ``mins`` and ``duals``, what they hold by name."""

ADD: Mapping[str, Any] = {
    "sums": lambda values: _kept(fold(values)),
    "maxs": lambda values: _kept(np.maximum.reduce(values)),
    "mins": lambda values: _kept(np.minimum.reduce(values)),
    "duals": Duals.folded,
}
"""How values of several nodes become one."""


@dataclass(frozen=True, eq=False)
class Reports:
    """What several nodes report: for every name an array, with an axis for the nodes in front, or `Duals`.

    Parameters
    ----------
    node_ids : sequence of str
        Names of the nodes.
    n_rows : (k,) int64 array
        Samples of each.
    parts : mapping from part to mapping from name to array, or to Duals
        What they hold; the parts are those of `localgd.core.Report`.
    flags : mapping from name to (k,) bool array
        Which nodes raised it.
    present : mapping from name to (k,) bool array
        Which nodes have it; what is not named here all have.
    """

    node_ids: Sequence[str]
    n_rows: Array
    parts: Parts = field(default_factory=lambda: {part: {} for part in ADD})
    flags: Mapping[str, Present] = field(default_factory=dict)
    present: Mapping[str, Present] = field(default_factory=dict)

    def more(self, where: Any, flags: Mapping[str, Present], parts: Parts) -> Reports:
        """Return the reports with more in them; not all nodes may have these, and numbers may be the same on all."""
        k, joined = len(self.node_ids), dict(self.parts)
        for part, values in parts.items():
            wide = {n: np.full(k, v, float) if isinstance(v, (float, int)) else v for n, v in values.items()}
            joined[part] = {**joined[part], **wide}
        flags = {n: raised if np.shape(raised) == (k,) else np.full(k, raised, bool) for n, raised in flags.items()}
        everywhere = where is True or np.all(where)
        present = {} if everywhere else {name: where for values in parts.values() for name in values}
        return Reports(self.node_ids, self.n_rows, joined, {**self.flags, **flags}, {**self.present, **present})

    @classmethod
    def joined(cls, reports: Sequence[Reports]) -> Reports:
        """Return all reports, in the order of the names of the nodes.

        Raises
        ------
        LookupError
            If some hold what others do not.
        """
        node_ids = [node_id for one in reports for node_id in one.node_ids]
        order = sorted(range(len(node_ids)), key=node_ids.__getitem__)
        if len(reports) == 1 and order == list(range(len(order))):
            return reports[0]

        def along(pieces: Sequence[Any]) -> Any:
            if isinstance(pieces[0], Duals):
                return Duals(*map(along, zip(*(each.parts for each in pieces), strict=True)))
            return np.concatenate(pieces)[order]

        def marked(name: str, *, otherwise: bool) -> dict[str, Present]:
            held = [getattr(one, name) for one in reports]
            blanks = [np.full(len(one.node_ids), otherwise) for one in reports]
            return {
                each: along([one.get(each, blank) for one, blank in zip(held, blanks, strict=True)])
                for each in dict.fromkeys(each for one in held for each in one)
            }

        names = [{part: tuple(values) for part, values in one.parts.items()} for one in reports]
        if any(one != names[0] for one in names):
            raise LookupError("some nodes report what others do not")
        parts = {
            part: {name: along([one.parts[part][name] for one in reports]) for name in held}
            for part, held in names[0].items()
        }
        ids, n_rows = [node_ids[place] for place in order], along([one.n_rows for one in reports])
        return cls(ids, n_rows, parts, marked("flags", otherwise=False), marked("present", otherwise=True))

    @cached_property
    def held(self) -> dict[str, dict[str, Any]]:
        """Return every part, each name with the values of the nodes that have some, if any has."""
        some = {name: there for name, there in self.present.items() if there.any()}
        return {
            part: {
                name: value[some[name]] if name in some else value
                for name, value in values.items()
                if name in some or name not in self.present
            }
            for part, values in self.parts.items()
        }

    def total(self) -> Report:
        """Return the sum of the reports, to the bit that of one by one in the same order."""
        totals: dict[str, Any] = {
            part: {name: ADD[part](value) for name, value in values.items()} for part, values in self.held.items()
        }
        flags = {name: int(raised.sum()) for name, raised in self.flags.items() if raised.any()}
        return Report.of(len(self.node_ids), int(self.n_rows.sum()), {**totals, "flags": flags})

    @property
    def n_floats(self) -> int:
        """How many numbers they carry: as many as one by one."""
        held = [value for values in self.held.values() for value in values.values()]
        raised = sum(int(raised.sum()) for raised in self.flags.values())
        return 2 * len(self.node_ids) + sum(int(value.size) for value in held) + raised

    @property
    def sound(self) -> bool:
        """Whether every number is finite, but for masses and errors of which nothing is proved."""
        held = [value for values in self.held.values() for value in values.values()]
        return all(value.sound if isinstance(value, Duals) else np.isfinite(value).all() for value in held)


def blank(shard: Shard) -> Report:
    """Return the report of a node that says nothing yet; of a stack the `Reports`, for `more` to be said of them."""
    if isinstance(shard, Stack):
        return cast("Report", Reports(shard.node_ids, np.full(len(shard.node_ids), shard.n_samples)))
    return Report(1, shard.n_samples)


def more(
    here: Report, *, where: Any = True, flags: Mapping[str, Any] | None = None, **parts: Mapping[str, Any]
) -> Report:
    """Return a report, or reports, with more sums, maxs, mins and duals, where these are there; flags where raised.

    Examples
    --------
    >>> more(Report(1, 1), sums={"loss": 2.0}, flags={"cancels": False, "far": True}).flags
    {'far': 1}
    """
    raised, reports = {} if flags is None else flags, cast("Any", here)
    if isinstance(reports, Reports):
        return cast("Report", reports.more(where, raised, parts))
    kept: dict[str, Any] = parts if where else {}
    return here + Report(flags={name: 1 for name, on in raised.items() if on}, **kept)


def alone(node_id: str, report: Report) -> Reports:
    """Return the report of one node as reports of many.

    Raises
    ------
    LookupError
        If it holds what those cannot.
    """
    if report.counts or report.per_node or any(dual.n_folded != 1 for dual in report.duals.values()):
        raise LookupError("no report of many")
    plain = ("sums", "maxs", "mins")
    parts: dict[str, Any] = {part: {n: v[None] for n, v in getattr(report, part).items()} for part in plain}
    parts["duals"] = {n: Duals(dual.vector[None], *np.array(dual.parts)[:, None]) for n, dual in report.duals.items()}
    return Reports([node_id], np.array([report.n_rows]), parts, {name: np.ones(1, bool) for name in report.flags})
