"""What every engine has; and what happens when a node fails: who is told, who is asked again, who is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from localgd.core import Failure, Message, Outcome, Report, Task, summed
from localgd.engine.screening import misfit, not_finite
from localgd.errors import NodeError, RemoteError, check_flag, check_whole, said, trace_of

Answer: TypeAlias = "Report | Exception"
"""What came back from a node: its report, or what kept it from sending one."""


@dataclass(frozen=True, eq=False)
class Judged(Report):
    """A report that was judged elsewhere, without its numbers; `blank` is the field that is not finite, if one is."""

    blank: str = ""


LARGE = 2**16
"""Numbers of a report, half a megabyte, from which on a round does not hold those of all nodes side by side."""


class Sum:
    """The sound reports of a round whose reports are large, added as they come, in the order of the nodes.

    So a round takes the room of two reports, whatever the number of nodes; `total` is None until there is one.
    """

    def __init__(self, task: Task, message: Message) -> None:
        self._name, self._schema = type(task).__name__, task.schema(message)
        self.total: Report | None = None
        self.n_floats = 0

    @property
    def large(self) -> bool:
        """Whether the reports are."""
        return sum(math.prod(field.shape) for field in self._schema.values()) >= LARGE

    def take(self, node: str, answer: Answer) -> Answer:
        """Add a report, and return it without its numbers; return what is none, or not sound, as it is."""
        if not isinstance(answer, Report) or misfit(answer, self._schema, node, self._name):
            return answer
        if not_finite(answer, self._schema):
            return answer
        self.n_floats += answer.n_floats
        self.total = answer if self.total is None else summed((self.total, answer))
        return Judged(answer.n_nodes, answer.n_rows)


def check_apart(names: Iterable[str], remedy: str = "give every node its own node_id") -> None:
    """Refuse names of which two are the same."""
    for one, other in itertools.pairwise(sorted(names)):
        if one == other:
            raise ValueError(f"two nodes are called {one!r}; {remedy}")


def n_floats(answers: Iterable[Answer]) -> int:
    """Return how many numbers came back."""
    return sum(answer.n_floats for answer in answers if isinstance(answer, Report))


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
    debug : bool
        Let what a node raised through as it is, with round, node and arguments as notes, instead of a `NodeError`; of a
        node elsewhere, what it said of that. It leaves nobody out, and asks nobody again.

    Raises
    ------
    ValueError
        If a field is out of its range, or has no meaning beside another one.

    Examples
    --------
    >>> Policy("skip", min_nodes=3).retries
    0
    """

    on_failure: Literal["raise", "skip"] = "raise"
    min_nodes: int = 1
    retries: int = 0
    debug: bool = False

    def __post_init__(self) -> None:
        """Check every field once."""
        if self.on_failure not in ("raise", "skip"):
            raise ValueError(f"on_failure must be 'raise' or 'skip', got {self.on_failure!r}")
        check_whole("min_nodes", self.min_nodes, 1)
        check_whole("retries", self.retries, 0)
        check_flag("debug", self.debug)
        if self.debug and (self.on_failure == "skip" or self.retries):
            ignored = "on_failure='skip'" if self.on_failure == "skip" else f"retries={self.retries}"
            raise ValueError(f"debug=True lets the first failure through, so {ignored} has no meaning; leave one out")
        if self.on_failure == "raise" and self.min_nodes > 1:
            raise ValueError(
                f"min_nodes={self.min_nodes} has no meaning where a node that fails ends the run; give "
                "on_failure='skip', or leave it out"
            )

    def gather(
        self, ask: Callable[[Sequence[str]], Mapping[str, Answer]], nodes: Sequence[str], task: Task, message: Message
    ) -> tuple[Report, list[Failure], dict[str, Exception]]:
        """Ask nodes for their reports, and again those that failed; a report that is not of the task's schema fails.

        Returns the sum of the sound reports, in the order of the nodes; what went wrong on the way; and the nodes that
        are without a report, and why.
        """
        answers: dict[str, Answer] = {}
        failures: list[Failure] = []
        missing: dict[str, Exception] = {}
        for left in range(self.retries, -1, -1):
            answers.update(ask(list(missing) or list(nodes)))
            missing = faults(answers, task, message)
            outcome: Outcome = "asked again" if left else "left out"
            failures += [
                Failure(message.round, node, said(error), trace_of(error), outcome) for node, error in missing.items()
            ]
            if not missing:
                break
        sound = {node: found for node, found in answers.items() if isinstance(found, Report) and node not in missing}
        return in_order(sound), failures, missing


def in_order(reports: Mapping[str, Report]) -> Report:
    """Add reports in the order of their node names: the fold that makes reruns identical to the last bit."""
    return summed([reports[node_id] for node_id in sorted(reports)])


def faults(answers: Mapping[str, Answer], task: Task, message: Message) -> dict[str, Exception]:
    """Return the nodes that sent an error, or a report that is none of the task's schema or not finite, and what it is.

    If what all nodes sent is not finite it is no fault of a node: the method has left float64, for the loop to see.
    """
    schema, name = task.schema(message), type(task).__name__
    wrong: dict[str, Exception] = {}
    blank: dict[str, Exception] = {}
    for node, answer in sorted(answers.items()):
        if not isinstance(answer, Report):
            wrong[node] = answer
        elif not isinstance(answer, Judged) and (why := misfit(answer, schema, node, name)):
            wrong[node] = ValueError(why)
        elif field := answer.blank if isinstance(answer, Judged) else not_finite(answer, schema):
            blank[node] = ValueError(f"its report's {field} is not finite, while other nodes' are")
    n_reports = sum(isinstance(answer, Report) for answer in answers.values())
    return dict(sorted((wrong | blank if len(blank) < n_reports else wrong).items()))


class Federation:
    """What every engine has, wherever its nodes are: a policy, and the count of what was sent and of who failed.

    It is alone with them: an engine over several processes says otherwise.
    """

    floats_up = 0
    floats_down = 0

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def _join(self, node_ids: Iterable[str], policy: Policy) -> None:
        """Take these nodes in, and what to do about those that fail."""
        self._node_ids, self.policy = tuple(node_ids), policy
        if policy.min_nodes > len(self._node_ids):
            raise ValueError(
                f"min_nodes={policy.min_nodes}: the number of nodes is {len(self._node_ids)}; give at most that"
            )

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Names of all nodes, sorted."""
        return self._node_ids

    def _chosen(self, nodes: Collection[str] | None) -> list[str]:
        """Return the nodes that are to take part, sorted: those named, or all; a ValueError if there is none such."""
        if nodes is None:
            return list(self.node_ids)
        unknown = sorted(set(nodes) - set(self.node_ids))
        if unknown or not nodes:
            raise ValueError(f"nodes={list(nodes)!r}: no such node {unknown}; known are {list(self.node_ids)}")
        return sorted(set(nodes))

    def _gathered(
        self, ask: Callable[[Sequence[str]], Mapping[str, Answer]], names: Sequence[str], task: Task, message: Message
    ) -> tuple[Report, Collection[str]]:
        """Return the sum of the reports of these nodes, and who is left out; a NodeError if that may not be."""
        report, failures, missing = self.policy.gather(ask, names, task, message)
        self.failures += failures
        if missing and self.policy.debug:
            raise self._bare(missing, task, message)
        if missing and not (self.policy.on_failure == "skip" and report.n_nodes >= self.policy.min_nodes):
            (node, error), *others = missing.items()
            failure = NodeError(message.round, node, error)
            if self.policy.on_failure == "skip":
                least = f"min_nodes={self.policy.min_nodes}"
                failure.add_note(f"{report.n_nodes} nodes reported, and {least} are needed to go on")
            elif others:
                failure.add_note(f"also failed: {', '.join(node for node, _ in others)}")
            raise failure
        return report, missing.keys()

    def _bare(self, missing: Mapping[str, Exception], task: Task, message: Message) -> Exception:
        """Return what the first of these nodes raised, one of this process before others, with the arguments noted."""
        node, error = min(missing.items(), key=lambda found: (isinstance(found[1], RemoteError), found[0]))
        error.add_note(f"round {message.round}, node {node!r}, task {task!r}{self._held(node)}")
        return error

    def _held(self, node: str) -> str:  # noqa: ARG002
        """Return what is to be said of what a node holds, where this process has it."""
        return ""

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run leaves behind."""
        return True

    def shared(self, content: bytes) -> bytes:
        """Return what the leading process gives, in all of them."""
        return content

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Return which of these any process wishes, the same answer in all of them."""
        return wishes
