"""The server's side: a federation of the nodes that a Flower grid reaches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from flwr.serverapp import Grid

from localgd.core import Message, Report, Task
from localgd.engine import serialize
from localgd.engine.flower import records
from localgd.engine.flower.grid_client import GridClient
from localgd.engine.flower.node import view_of
from localgd.engine.flower.records import MAX_MB, Opened
from localgd.engine.nodes import OTHER_ROWS
from localgd.engine.policy import Answer, Federation, Policy
from localgd.engine.screening import misfit
from localgd.errors import NodeError
from localgd.limits import RefusedError
from localgd.stored import content_of

BEGUN_AGAIN = (
    "it was started again in the middle of the run, and without a secret in its node-config nothing says that its rows "
    "are still those of before; start the run afresh, or give it a secret for the next one"
)

UNKNOWN = (
    "it has no secret to know its rows by, so nothing says that they are those of the checkpoint; start afresh, and "
    "give it a secret in its node-config, so that the next run can go on"
)


class FlowerEngine(Federation):
    """Run rounds over the nodes that a Flower grid reaches.

    Who is online when it is made, and no one else, belongs to the federation. A node that goes offline stays a member:
    it fails until it is back.

    Parameters
    ----------
    grid : Grid
        What a Flower ServerApp is given.
    n_nodes : int, optional
        Nodes to wait for; as many as `min_nodes` by default. The federation is those that are online then: what is
        proved is about their rows, and about no others.
    on_failure, min_nodes, retries, debug
        What to do about a node that fails: see `localgd.engine.policy.Policy`. With ``debug=True`` its error comes
        through as a `localgd.errors.RemoteError`, which holds as much of it as its operator lets out: see
        ``share-errors`` in `docs/privacy.md`.
    timeout : float > 0
        Seconds that a node has to answer in a round, and to come online in the beginning.
    poll : float > 0
        Least seconds between looks for answers; after a long wait they are a twentieth of it.
    max_mb : float > 0
        Largest report that is taken from a node.

    Raises
    ------
    TimeoutError
        If nodes are not online, or do not say their names, in time.
    ValueError
        If two nodes share a name, or a parameter is out of its range.

    Examples
    --------
    In a ServerApp, over nodes whose ClientApp answers localgd (`localgd.flower.answer`)::

        @app.main()
        def main(grid, context):
            federation, recipe = prepare(FlowerEngine(grid, n_nodes=3), scale="standard")
            run = train(federation, auto(), goal=Angle(1.0))
    """

    def __init__(
        self,
        grid: Grid,
        *,
        n_nodes: int | None = None,
        on_failure: Literal["raise", "skip"] = "raise",
        min_nodes: int = 1,
        retries: int = 0,
        debug: bool = False,
        timeout: float = 60.0,
        poll: float = 0.05,
        max_mb: float = MAX_MB,
    ) -> None:
        super().__init__()
        policy = Policy(on_failure, min_nodes, retries, debug)
        self._client = GridClient(grid, timeout, poll, max_mb)
        self._members = self._client.members(max(1, min_nodes if n_nodes is None else n_nodes))
        self._join(self._members, policy)
        self._definition: list[dict[str, str]] = []
        self._view = view_of(self._definition)
        self._told: set[tuple[str, str]] = set()
        self._rows: dict[str, dict[str, str]] = {}

    @property
    def bytes_up(self) -> int:
        """Bytes of all answers so far, names and heads included, whatever the view."""
        return self._client.bytes_up

    @property
    def bytes_down(self) -> int:
        """Bytes of all questions so far."""
        return self._client.bytes_down

    @property
    def strangers(self) -> tuple[str, ...]:
        """Nodes that would not be known again after a new start, as no digest of their rows has come so far."""
        known = {node for rows in self._rows.values() for node, digest in rows.items() if digest}
        return tuple(node for node in self.node_ids if node not in known)

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named) and return the sum of the reports.

        Raises
        ------
        NodeError
            If a node failed and the policy does not go on without it.
        TypeError
            If the task is not made of plain fields.
        ValueError
            If `nodes` is empty or names a node that is not here.
        """
        head = {"ask": "task", "session": message.session, "round": message.round, "view": self._view}
        head |= {"task": records.told(task)}

        def ask(waiting: Sequence[str]) -> dict[str, Answer]:
            answers = self._asked(head, message, waiting)
            return {node: self._report(node, came, task, message) for node, came in answers.items()}

        return self._gathered(ask, self._chosen(nodes), task, message)[0]

    def _asked(self, head: Mapping[str, Any], message: Message, nodes: Sequence[str]) -> dict[str, Opened | Exception]:
        """Ask nodes; those that turn out not to know the view are told of it, and asked again."""
        answers = self._once(head, message, nodes)
        lacking = [
            node for node, came in answers.items() if isinstance(came, Opened) and came.head.get("says") == "lacks"
        ]
        known = self._rows.get(self._view, {})
        # who has forgotten a view that it had confirmed, and has no secret to know its rows by
        strange = [node for node in lacking if (self._view, node) in self._told and not known.get(node)]
        lacking = [node for node in lacking if node not in strange]
        if lacking:
            self._told -= {(self._view, node) for node in lacking}
            answers |= self._once(head, message, lacking)
        return answers | dict.fromkeys(strange, RefusedError(BEGUN_AGAIN))

    def _once(self, head: Mapping[str, Any], message: Message, nodes: Sequence[str]) -> dict[str, Opened | Exception]:
        told, arrays = {node: (self._view, node) in self._told for node in nodes}, records.sent(message)
        definitions = {known: None if known else self._definition for known in set(told.values())}
        asked = {known: records.closed({**head, "definition": it}, arrays) for known, it in definitions.items()}
        answers = self._client.ask({self._members[node]: asked[known] for node, known in told.items()})
        self.floats_down += message.n_floats * sum(not isinstance(came, ConnectionError) for came in answers.values())
        return {node: answers[self._members[node]] for node in nodes}

    def _report(self, node: str, came: Opened | Exception, task: Task, message: Message) -> Answer:
        """Return a node's report, if it is one on this message, as its task declares it, and of the rows of ever."""
        if isinstance(came, Exception):
            return came
        try:
            if came.head.get("says") != "report":
                raise RefusedError(f"it says {came.head.get('says')!r:.40}, not a report")  # noqa: TRY301
            schema = task.schema(message)
            report = records.report_of(came, node, message, schema)
            if wrong := misfit(report, schema, node, type(task).__name__):
                raise RefusedError(wrong)  # noqa: TRY301
        except RefusedError as error:
            return RefusedError(f"its answer was refused: {error}")
        rows = came.head["rows"]
        if self._rows.setdefault(self._view, {}).setdefault(node, rows) != rows:
            return RefusedError("its rows are not those that this run began with")
        self._told.add((self._view, node))
        self.floats_up += report.n_floats
        return report

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return an engine whose nodes hold ``encode(what they hold now)``; it is sent with the next message.

        A node on which `encode` fails says so in the next round.

        Parameters
        ----------
        encode : Recipe
            Data, not code: a dataclass that the nodes know.

        Raises
        ------
        TypeError
            If it is anything else, such as a function.
        """
        mapped = copy.copy(self)
        mapped._definition = [*self._definition, records.told(encode)]  # noqa: SLF001  its own kind
        mapped._view = view_of(mapped._definition)  # noqa: SLF001  once, as it may be as long as a network
        return mapped

    def keep(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:  # noqa: ARG002  states stay there
        """Write down the keyed digests of the nodes' rows, to know them by; their states stay with Flower.

        They outlive the round but not the run: a run that goes on from here finds nodes that have forgotten, and a
        method whose nodes have memory begins again from the model that there is.
        """
        serialize.write(folder / f"nodes-{stamp}.npz", {"rows": serialize.pack(self._rows.get(self._view, {}))})

    def recall(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:  # noqa: ARG002
        """Check that the nodes hold the rows of the checkpoint, as what is proved is about those.

        A node can say so if its operator has given it a ``secret``: it then sends a digest keyed with that, of which
        the server learns whether rows have changed, and nothing else.

        Raises
        ------
        NodeError
            If a node's rows are others, or it has no secret.
        """
        path = folder / f"nodes-{stamp}.npz"
        before = serialize.unpack(serialize.read(content_of(path), f"{path}")["rows"], dict[str, str])
        known = self._rows.setdefault(self._view, {})
        for node in self.node_ids:
            then = before.get(node, "")
            if not then or known.setdefault(node, then) != then:
                raise NodeError(stamp, node, ValueError(OTHER_ROWS if then else UNKNOWN))

    def release(self, session: str) -> None:
        """Tell nothing: the nodes drop what they remember of a session when they are asked in another one."""
