"""What happens when a node fails: who is told, who is asked again, who is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from localgd.core import Failure, Message, Outcome, Report, Task, in_order
from localgd.engine.screening import misfit, not_finite
from localgd.errors import NodeError, NotFiniteError, said, trace_of

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
        self, ask: Callable[[Sequence[str]], Mapping[str, Answer]], nodes: Sequence[str], task: Task, message: Message
    ) -> tuple[Report, list[Failure], dict[str, Exception]]:
        """Ask nodes for their reports, and again those that failed.

        Parameters
        ----------
        ask : callable
            Returns what came back from the nodes it is given.
        nodes : sequence of str
            Nodes that are to report.
        task, message : Task, Message
            What they answer: a report that is not of the task's schema is a failure, too.

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
            missing = dict(sorted({**silent, **faults(reports, task, message)}.items()))
            reports = {node: found for node, found in reports.items() if node not in missing}
            outcome: Outcome = "asked again" if left and missing else "left out"
            failures += [failed(message.round, node, error, outcome) for node, error in missing.items()]
            if not missing:
                break
        return in_order(reports), failures, missing

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


def faults(reports: Mapping[str, Report], task: Task, message: Message) -> dict[str, Exception]:
    """Return the nodes whose report is none of the task's schema, or not finite, and what is wrong.

    If what all nodes sent is not finite it is no fault of a node: the method has left float64, for the loop to see.
    """
    schema, name = task.schema(message), type(task).__name__
    words = {node: misfit(report, schema, node, name) for node, report in reports.items()}
    wrong: dict[str, Exception] = {node: ValueError(why) for node, why in words.items() if why}
    fitting = {node: report for node, report in reports.items() if node not in wrong}
    blank = {node: quantity for node, report in fitting.items() if (quantity := not_finite(report, schema))}
    if len(blank) < len(reports):
        wrong |= {node: NotFiniteError(quantity) for node, quantity in blank.items()}
    return wrong


def failed(round_: int, node_id: str, error: Exception, outcome: Outcome) -> Failure:
    """Return the record of a failure, with the traceback of the error or the one it brings from elsewhere."""
    return Failure(round_, node_id, said(error), trace_of(error), outcome)
