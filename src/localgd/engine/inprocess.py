"""The default engine: every node in this process, reports added in the order of the node names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, Self

from localgd.core import Failure, Message, Report, Task
from localgd.engine.nodes import Nodes, chosen
from localgd.engine.policy import Policy


class InProcess:
    """Hold the nodes' shards in memory and run rounds over them.

    Parameters
    ----------
    shards : iterable of Shard
        One per node, with distinct ``node_id``; the order given does not matter.
    n_jobs : int, default 1
        Threads that share the nodes of a round. The result does not depend on it.
    debug : bool, default False
        Let a node's own exception through, with round, node and arguments as notes, instead of `NodeError`.
    on_failure, min_nodes, retries
        What to do about a node that fails: see `localgd.engine.policy.Policy`.

    Raises
    ------
    ValueError
        If there is no node or two share a name.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> InProcess([Shard("b", [[1.0]]), Shard("a", [[2.0]])]).node_ids
    ('a', 'b')
    """

    def __init__(
        self,
        shards: Iterable[Any],
        *,
        n_jobs: int = 1,
        debug: bool = False,
        on_failure: Literal["raise", "skip"] = "raise",
        min_nodes: int = 1,
        retries: int = 0,
    ) -> None:
        self._begin(Nodes(shards, n_jobs=n_jobs, debug=debug), Policy(on_failure, min_nodes, retries))

    def _begin(self, nodes: Nodes, policy: Policy) -> None:
        if not nodes.shards:
            raise ValueError("shards is empty: a federation needs at least one node")
        self.nodes, self.policy = nodes, policy.among(len(nodes.shards))
        self.floats_up = 0
        self.floats_down = 0
        self.failures: list[Failure] = []

    @property
    def shards(self) -> dict[str, Any]:
        """What the nodes hold, by name."""
        return self.nodes.shards

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Names of all nodes, sorted."""
        return tuple(self.shards)

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named) and return the sum of the reports.

        Raises
        ------
        NodeError
            If a node failed and the policy does not go on without it; the node's own error is the cause.
        ValueError
            If `nodes` is empty or names a node that is not here.
        """

        def ask(waiting: Collection[str]) -> dict[str, Any]:
            answers = self.nodes.run(task, message, list(waiting))
            self.floats_down += message.n_floats * len(answers)
            self.floats_up += sum(answer.n_floats for answer in answers.values() if isinstance(answer, Report))
            return answers

        report, failures, missing = self.policy.gather(ask, chosen(nodes, self.node_ids), task, message)
        self.failures += failures
        self.policy.settle(message, report.n_nodes, missing)
        return report

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return an engine whose nodes hold ``encode(what they hold now)``; nothing is sent.

        Raises
        ------
        NodeError
            If `encode` raised on a node.
        """
        mapped = object.__new__(type(self))
        mapped._begin(self.nodes.map(encode), self.policy)
        mapped.floats_up, mapped.floats_down = self.floats_up, self.floats_down
        mapped.failures = self.failures
        return mapped

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run leaves behind: it is the only one."""
        return True

    def shared(self, content: bytes) -> bytes:
        """Return it: there is nobody else to give anything."""
        return content

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Return the wishes: there is nobody to ask."""
        return wishes

    def keep(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Write the nodes' states of `task` in a session into the folder."""
        self.nodes.write(task, folder / f"nodes-{stamp}.npz", session)

    def recall(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Take the states back that `keep` wrote, for a session.

        Raises
        ------
        NodeError
            If a node's rows are no longer those that its state is about.
        """
        self.nodes.read(task, folder / f"nodes-{stamp}.npz", session)

    def release(self, session: str) -> None:
        """Drop what the nodes remember of a session."""
        self.nodes.release(session)
