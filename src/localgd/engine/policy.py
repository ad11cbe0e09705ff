"""What happens when a node fails: who is told, who is asked again, who is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from localgd.core import Failure, Message, Outcome, Report, in_order
from localgd.errors import NodeError, said, trace_of

Answer: TypeAlias = "Report | Exception"
"""What came back from a node: its report, or what kept it from sending one."""


@dataclass(frozen=True)
class Policy:
    """What an engine does about nodes that fail.

    Parameters
    ----------
    on_failure : "raise" or "skip"
        End the run with a `NodeError`, or go on without the node in this round. What is proved stays proved either
        way: the mass of a certificate counts only what was merged, and a margin only if every node spoke.
    min_nodes : int, at least 1
        With "skip": least number of reports that make a round.
    retries : int, at least 0
        How often a node that failed is asked again within the round. A node answers the same message twice from the
        same state, so that asking again changes nothing but its luck.

    Raises
    ------
    ValueError
        If a field is out of its range.

    Examples
    --------
    >>> Policy("skip", min_nodes=3).retries
    0
    """

    on_failure: Literal["raise", "skip"] = "raise"
    min_nodes: int = 1
    retries: int = 0

    def __post_init__(self) -> None:
        """Check every field once."""
        if self.on_failure not in ("raise", "skip"):
            raise ValueError(f"on_failure must be 'raise' or 'skip', got {self.on_failure!r}")
        for name, least in (("min_nodes", 1), ("retries", 0)):
            number = getattr(self, name)
            if number != int(number) or number < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")

    def among(self, n_nodes: int) -> Self:
        """Return it, if it can be kept with so many nodes.

        Raises
        ------
        ValueError
            If there are fewer than `min_nodes`.
        """
        if self.min_nodes > n_nodes:
            raise ValueError(f"min_nodes={self.min_nodes}: the number of nodes is {n_nodes}; give at most that")
        return self

    def gather(
        self, ask: Callable[[Sequence[str]], Mapping[str, Answer]], nodes: Sequence[str], message: Message
    ) -> tuple[Report, list[Failure], dict[str, Exception]]:
        """Ask nodes for their reports, and again those that failed.

        Parameters
        ----------
        ask : callable
            Returns what came back from the nodes it is given.
        nodes : sequence of str
            Nodes that are to report.
        message : Message
            What they answer.

        Returns
        -------
        report : Report
            The sum of the sound reports, in the order of the nodes.
        failures : list of Failure
            What went wrong on the way.
        missing : dict
            Nodes without a report, and why.
        """
        reports: dict[str, Report] = {}
        failures: list[Failure] = []
        missing: dict[str, Exception] = {}
        for left in range(self.retries, -1, -1):
            answers = {**reports, **ask(list(missing) or list(nodes))}
            reports = {node: found for node, found in answers.items() if isinstance(found, Report)}
            silent = {node: found for node, found in answers.items() if not isinstance(found, Report)}
            total, faults = self._summed(reports, message, failures, last=not left)
            missing = dict(sorted({**silent, **faults}.items()))
            reports = {node: found for node, found in reports.items() if node not in faults}
            outcome: Outcome = "asked again" if left and missing else "left out"
            failures += [failed(message.round, node, error, outcome) for node, error in missing.items()]
            if not missing:
                break
        return total, failures, missing

    def _summed(
        self, reports: Mapping[str, Report], message: Message, failures: list[Failure], *, last: bool
    ) -> tuple[Report, dict[str, Exception]]:
        """Return the sum of what is sound, and the nodes that are at fault."""
        with suppress(ValueError):
            total = in_order(reports)
            if sound(total, reports, message):
                return total, {}
        faults = {**dict(lacking(reports)), **dict(unlike(reports, message))}
        blank = {node: name for node, report in reports.items() if (name := not_finite(report, message))}
        # If it is all of them it is no fault of a node: the method itself has left float64, for the loop to see.
        for node, name in blank.items() if len(blank) < len(reports) else ():
            error = ValueError(f"its report's {name} is not finite, while other nodes' are")
            if self.on_failure == "skip" or not last:
                faults[node] = error
            else:
                failures.append(failed(message.round, node, error, "passed on"))
        return in_order({node: report for node, report in reports.items() if node not in faults}), faults

    def settle(self, message: Message, n_reports: int, missing: Mapping[str, Exception]) -> None:
        """Go on without the nodes that are missing, or raise.

        Raises
        ------
        NodeError
            If a node is missing and none may be, or too few are left.
        """
        if not missing or (self.on_failure == "skip" and n_reports >= self.min_nodes):
            return
        node, error = next(iter(missing.items()))
        failure = NodeError(message.round, node, error)
        if self.on_failure == "skip":
            failure.add_note(f"{n_reports} nodes reported, and min_nodes={self.min_nodes} are needed to go on")
        elif len(missing) > 1:
            failure.add_note(f"also failed: {', '.join(list(missing)[1:])}")
        raise failure from error


def failed(round_: int, node_id: str, error: Exception, outcome: Outcome) -> Failure:
    """Return the record of a failure, with the traceback of the error or the one it brings from elsewhere."""
    return Failure(round_, node_id, said(error), trace_of(error), outcome)


OPTIONAL = {"high"}
"""A node's own bound, which it sends if it has one."""

REASONS = {
    "unguessed": {"update", "update_sq_norm", "curvature", "pull", "gap", "high"},
    "inseparable": {"inner", "start", "-since"},
}
"""Counts by which a node says why its report is short, and what it may then lack."""


def lacking(reports: Mapping[str, Report]) -> Iterator[tuple[str, Exception]]:
    """Yield the nodes whose report, without a reason, lacks a quantity that others sent: it would count as nothing.

    Where most lack it, those that sent it are at fault.

    Examples
    --------
    >>> reports = {"a": Report(1, 1, {}, {"margin": 0.1}), "b": Report(1, 1)}
    >>> [(node, str(error)) for node, error in lacking(reports)]
    [('b', 'its report lacks margin, which other nodes sent')]
    """
    held = {node: report.arrays.keys() - OPTIONAL for node, report in reports.items() if report.n_nodes}
    whole = {node: names.union(*(REASONS.get(why, ()) for why in reports[node].counts)) for node, names in held.items()}
    everything = set[str]().union(*held.values())
    if all(everything <= names for names in whole.values()):
        return
    usual = {name for name in everything if 2 * sum(name in names for names in whole.values()) >= len(whole)}
    for node, names in held.items():
        if names - usual:
            yield node, ValueError(f"its report has {_list(names - usual)}, which most nodes did not send")
        elif usual - whole[node]:
            yield node, ValueError(f"its report lacks {_list(usual - whole[node])}, which other nodes sent")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def unlike(reports: Mapping[str, Report], message: Message) -> Iterator[tuple[str, Exception]]:
    """Yield the nodes whose report has a quantity of another shape than most: the model's or a number, if as many.

    Examples
    --------
    >>> reports = {name: Report(1, 1, {"step": np.zeros(size)}) for name, size in (("a", 2), ("b", 3))}
    >>> [(node, str(error)) for node, error in unlike(reports, Message(0, np.zeros(2)))]
    [('b', "its report's step has shape (3,), others sent (2,)")]
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for node, report in reports.items():
        for name, value in report.arrays.items():
            shapes.setdefault(name, {})[node] = value.shape
    told: set[str] = set()
    for name, of_node in shapes.items():
        counts = Counter(of_node.values())
        usual = max(counts, key=lambda shape: (counts[shape], shape in {message.w.shape, ()}))
        for node, shape in of_node.items():
            if shape != usual and node not in told:
                told.add(node)
                yield node, ValueError(f"its report's {name} has shape {shape}, others sent {usual}")


def sound(total: Report, reports: Mapping[str, Report], message: Message) -> bool:
    """Return whether nothing is wrong with any of the reports, of which `total` is the sum.

    What is not finite in a part shows in the sum, but for a low that says "none of my rows", which a minimum hides.
    """
    if not_finite(total, message) or any(lacking(reports)):
        return False
    lows = [value for report in reports.values() for name, value in report.lows.items() if name not in OPTIONAL]
    return not any((value == np.inf).any() for value in lows)


def not_finite(report: Report, message: Message) -> str:
    """Return the name of a quantity that is not a number, or infinite where that means nothing; "" if none is.

    A low may be −∞, which proves nothing, and a node's own bound +∞, which is none.

    Examples
    --------
    >>> not_finite(Report(1, 1, {"loss": 0.1}, {"margin": np.inf}), Message())
    'margin'
    """
    for name, value in report.arrays.items():
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(value.sum()):  # one look at each number, where all is well
                continue
        wrong = ~np.isfinite(value)
        if name in report.lows:
            wrong &= value != -np.inf
            wrong &= (name not in OPTIONAL) | np.isnan(value)
            wrong |= ~np.isfinite(value) & (value.shape == message.w.shape)
        if wrong.any():
            return name
    return ""
