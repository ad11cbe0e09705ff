"""The default engine: every node in this process, reports added in the order of the node names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from threadpoolctl import ThreadpoolController

from localgd.core import Message, NodeError, Report, Task, in_order


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

    Raises
    ------
    ValueError
        If there is no node or two share a name.

    Examples
    --------
    >>> from localgd.core import Shard
    >>> InProcess([Shard("b", [[1.0]]), Shard("a", [[2.0]])]).node_ids
    ('a', 'b')
    """

    def __init__(self, shards: Iterable[Any], *, n_jobs: int = 1, debug: bool = False) -> None:
        held = list(shards)
        self.shards: dict[str, Any] = {shard.node_id: shard for shard in sorted(held, key=lambda s: str(s.node_id))}
        if not held:
            raise ValueError("shards is empty: a federation needs at least one node")
        if len(self.shards) < len(held):
            names = sorted(str(shard.node_id) for shard in held)
            twice = next(a for a, b in itertools.pairwise(names) if a == b)
            raise ValueError(f"two nodes are called {twice!r}; give every node its own node_id")
        if n_jobs < 1:
            raise ValueError(f"n_jobs must be at least 1, got {n_jobs}")
        self.n_jobs = n_jobs
        self.debug = debug
        self.floats_up = 0
        self.floats_down = 0
        self._states: dict[Task, dict[str, Any]] = {}
        # One BLAS thread per node: faster on small blocks, and the bits no longer depend on the machine's cores.
        self._threads = ThreadpoolController()

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Names of all nodes, sorted."""
        return tuple(self.shards)

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named) and return the sum of the reports.

        Raises
        ------
        NodeError
            If a node's task raised; the node's traceback is the cause.
        ValueError
            If `nodes` is empty or names a node that is not here.
        """
        if message.round == 0:
            self._states[task] = {}
        states = self._states.setdefault(task, {})
        chosen = self._chosen(nodes)

        def on_node(node_id: str) -> tuple[Report, Any]:
            shard = self.shards[node_id]
            try:
                state = states[node_id] if node_id in states else task.init(shard)
                return task.run(message, shard, state)
            except Exception as error:
                if self.debug:
                    error.add_note(f"round {message.round}, node {node_id!r}, task {task!r}, shard {shard!r}")
                    raise
                raise NodeError(message.round, node_id, error) from error

        with self._threads.limit(limits=1, user_api="blas"):
            if self.n_jobs > 1 and len(chosen) > 1:
                with ThreadPoolExecutor(self.n_jobs) as pool:
                    results = list(pool.map(on_node, chosen))
            else:
                results = [on_node(node_id) for node_id in chosen]
        reports = {}
        for node_id, (report, state) in zip(chosen, results, strict=True):
            states[node_id] = state
            reports[node_id] = report
            self.floats_up += report.n_floats
        self.floats_down += message.n_floats * len(chosen)
        return in_order(reports)

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return an engine whose nodes hold ``encode(what they hold now)``; nothing is sent.

        Raises
        ------
        NodeError
            If `encode` raised on a node.
        """
        held = []
        for node_id, shard in self.shards.items():
            try:
                held.append(encode(shard))
            except Exception as error:
                if self.debug:
                    raise
                raise NodeError(0, node_id, error) from error
        mapped = type(self)(held, n_jobs=self.n_jobs, debug=self.debug)
        mapped.floats_up, mapped.floats_down = self.floats_up, self.floats_down
        return mapped

    def _chosen(self, nodes: Collection[str] | None) -> list[str]:
        if nodes is None:
            return list(self.shards)
        unknown = sorted(set(nodes) - set(self.shards))
        if unknown or not nodes:
            raise ValueError(f"nodes={list(nodes)!r}: no such node {unknown}; known are {list(self.shards)}")
        return sorted(set(nodes))
