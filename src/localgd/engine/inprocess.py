"""The default engine: every node in this process, reports added in the order of the node names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from localgd.core import Message, Report, Task
from localgd.engine.nodes import Nodes
from localgd.engine.policy import Answer, Federation, Judged, Policy, Sum, n_floats
from localgd.errors import NodeError
from localgd.rows import Shard


class InProcess(Federation):
    """Hold the nodes' shards in memory and run rounds over them.

    Parameters
    ----------
    shards : iterable of Shard
        One per node, with distinct ``node_id``; the order given does not matter.
    n_jobs : int, default 1
        Threads that share the nodes of a round. The result does not depend on it.
    on_failure, min_nodes, retries, debug
        What to do about a node that fails: see `localgd.engine.policy.Policy`. With ``debug=True`` its own exception
        comes through, with round, node and arguments as notes.

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
        on_failure: Literal["raise", "skip"] = "raise",
        min_nodes: int = 1,
        retries: int = 0,
        debug: bool = False,
    ) -> None:
        super().__init__()
        self._begin(lambda: (Nodes(shards, n_jobs=n_jobs), Policy(on_failure, min_nodes, retries, debug)))

    def _begin(self, make: Callable[[], tuple[Nodes, Policy]]) -> None:
        """Make the nodes, and what to do about those that fail."""
        self.nodes, policy = make()
        if not self.shards:
            raise ValueError("shards is empty: a federation needs at least one node")
        self._join(self.shards, policy)

    @property
    def shards(self) -> Mapping[str, Any]:
        """What the nodes of this process hold, by name."""
        return self.nodes.shards

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named) and return the sum of the reports.

        Raises
        ------
        NodeError
            If a node failed and the policy does not go on without it; the node's own error is the cause.
        ValueError
            If `nodes` is empty or names a node that is not here.
        """
        chosen = self._chosen(nodes)

        if (reports := self.nodes.at_once(task, message, chosen)) is not None:
            self.floats_down += message.n_floats * len(chosen)
            self.floats_up += reports.n_floats
            return reports.total()
        added = Sum(task, message)
        run = self.nodes.run
        if added.large and not self.policy.retries:  # who is asked again comes out of order
            run = partial(run, take=added.take)

        def ask(waiting: Sequence[str]) -> dict[str, Answer]:
            answers = run(task, message, waiting)
            self.floats_down += message.n_floats * len(answers)
            self.floats_up += added.n_floats + n_floats(one for one in answers.values() if not isinstance(one, Judged))
            return answers

        report = self._gathered(ask, chosen, task, message)[0]
        return report if added.total is None else added.total

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return an engine whose nodes hold ``encode(what they hold now)``; nothing is sent.

        A node where that is None is no node of that engine.

        Raises
        ------
        NodeError
            In all processes, if `encode` raised on a node; with debug, what it raised.
        ValueError
            If no node is left.
        """
        mapped = copy.copy(self)
        try:
            mapped._begin(lambda: (self.nodes.map(encode), self.policy))  # noqa: SLF001  its own kind
        except NodeError as error:
            if self.policy.on_failure == "skip":
                error.add_note(
                    f"what nodes hold for the rounds is made before them, at every node: on_failure='skip' is about "
                    f"rounds, and cannot go on without {error.node_id!r}; leave that node out, or mend it"
                )
            if not (self.policy.debug and isinstance(error.__cause__, Exception)):
                raise
            node, bare = error.node_id, error.__cause__
        else:
            return mapped
        bare.add_note(f"node {node!r}, encode {encode!r}{self._held(node)}")
        raise bare  # out here, where it keeps what it came of

    def _held(self, node: str) -> str:
        if node not in self.shards:
            return ""
        held = self.shards[node]
        shape = f" of shape {held.data.shape}" if isinstance(held, Shard) else ""
        return f", {type(held).__name__}{shape}"  # never its rows: notes end up in logs

    def _in_all(self, do: Callable[[], Any]) -> Any:
        """Do something in every process, and raise in all of them if it fails in one."""
        return do()

    def _path(self, folder: Path, stamp: int) -> Path:
        """Return where the states of this process's nodes are kept."""
        return folder / f"nodes-{stamp}.npz"

    def keep(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Write the states that this process's nodes have of `task` in a session into the folder."""
        self._in_all(lambda: self.nodes.write(task, self._path(folder, stamp), session))

    def recall(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Take the states back that `keep` wrote, for a session.

        Raises
        ------
        NodeError
            In all processes, if a node's rows are no longer those that its state is about.
        ValueError
            In all processes, if one of them finds no states of just its nodes.
        """
        self._in_all(lambda: self.nodes.read(task, self._path(folder, stamp), session))

    def release(self, session: str) -> None:
        """Drop what the nodes remember of a session."""
        self.nodes.release(session)
