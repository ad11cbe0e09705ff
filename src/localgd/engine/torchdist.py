"""The engine over torch.distributed: every process runs the same program, and holds its own nodes only.

A round ends with the same report in all processes, so each of them makes the same step. It takes one all-reduce (of a
large sum, two of its halves at once), laid out by the schema of the task, which all of them know beforehand. If a node
failed, or its report is none of that schema, the processes tell each other what their nodes said, short of the numbers,
all come to the same conclusion, and add up once more. Tallies, whose keys only their nodes know, take an exchange of
their own. Before the first round of a task in a session the processes compare what they are about to run.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from localgd.core import CountKey, Message, Report, Task
from localgd.engine import serialize
from localgd.engine.inprocess import InProcess
from localgd.engine.nodes import Nodes
from localgd.engine.packing import Layout, digest
from localgd.engine.policy import Answer, Policy, check_apart, n_floats
from localgd.engine.processes import TIMEOUT, Processes
from localgd.engine.words import AnswerSummary, Attempt, Greeting, differ
from localgd.errors import EngineError
from localgd.rounding import FloatArray


class TorchDistributed(InProcess):
    """Run rounds over the nodes of all processes that torchrun started; this one holds `shards`.

    Parameters
    ----------
    shards : iterable of Shard
        This process's own nodes, if any, with names that no process uses twice. If a generator reads them, an error
        on the way ends all processes.
    n_jobs : int, default 1
        Threads that share this process's nodes in a round. The result does not depend on it.
    on_failure, min_nodes, retries, debug
        What to do about a node that fails, the same in all processes: see `localgd.engine.policy.Policy`. With
        ``debug=True`` the process of a node that failed raises what that raised; the others say which process it was,
        and show its traceback.
    timeout : float > 0, default 300
        Seconds to wait for the other processes, with their nodes' work, before the run ends.

    Raises
    ------
    ValueError
        In all processes, if there is no node at all, two share a name, or processes differ in their policy.
    RuntimeError
        If there is no process group: see `torch_processes`.
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
        timeout: float = TIMEOUT,
    ) -> None:
        self._processes = Processes(timeout)
        super().__init__(
            shards, n_jobs=n_jobs, on_failure=on_failure, min_nodes=min_nodes, retries=retries, debug=debug
        )

    def _begin(self, make: Callable[[], tuple[Nodes, Policy]]) -> None:
        def made() -> Attempt:
            self.nodes, self.policy = make()
            return Attempt(tuple(self.nodes.shards), f"{self.policy}")

        self._greeted: set[tuple[str, Task]] = set()
        outcomes = self._in_all(made)
        self._homes = [outcome.names for outcome in outcomes]
        node_ids = sorted(itertools.chain(*self._homes))
        if not node_ids:
            raise ValueError("shards is empty in all processes: a federation needs at least one node")
        check_apart(node_ids, "give every node its own node_id, and to one process")
        if len({outcome.policy for outcome in outcomes}) > 1:
            raise ValueError(f"processes differ in their policy: {[outcome.policy for outcome in outcomes]}")
        self._join(node_ids, self.policy)

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named) and return the sum of the reports, in all processes alike.

        Raises
        ------
        NodeError
            If a node failed and the policy does not go on without it; its own error, or what its process says of it,
            is the cause.
        EngineError
            If another process ended or hangs, or has come to another model.
        ValueError
            If `nodes` is empty or names a node that is not here.
        """
        names = self._chosen(nodes)
        self._processes.doing = f"round {message.round}"
        layout = Layout(task.schema(message), tuple(names))
        self._greet(task, message, layout)
        answers = self.nodes.run(task, message, self._own(names))
        words = _words(answers, task, message)
        reports = None if any(word.error or word.blank for word in words.values()) else _reports(answers.values())
        mark = partial(digest, task, message, names)
        flat, fit = self._added(layout, reports, n_floats(answers.values()), mark)
        if fit:
            self.floats_down += message.n_floats * len(names)
        else:
            del flat  # it may be large, and is of no use
            reports = self._settled(task, message, names, answers)
            flat, _ = self._added(layout, reports, 0, mark)  # what was sent is counted
        report, sent = layout.report(flat, self._processes.place.world)
        self.floats_up += sent
        tallied = any(field.kind == "count" for field in layout.schema.values())
        return replace(report, counts=self._tallied(reports or [])) if tallied else report

    def _greet(self, task: Task, message: Message, layout: Layout) -> None:
        """Compare, before the first round of a task in a session, what the processes are about to run."""
        if (message.session, task) not in self._greeted:
            if why := differ(self._exchange(Greeting.of(task, layout), Greeting)):
                raise EngineError(self._processes.doing, why)
            self._greeted.add((message.session, task))

    def _tallied(self, reports: Iterable[Report]) -> dict[CountKey, int]:
        """Return what the nodes of all processes count."""
        own = json.dumps([[list(key), count] for report in reports for key, count in report.counts.items()])
        total: dict[CountKey, int] = {}
        for word in self._processes.everyone(own.encode()):
            for key, count in json.loads(word):
                total[tuple(key)] = total.get(tuple(key), 0) + count
        return total

    def _own(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.shards]

    def _added(
        self, layout: Layout, reports: Collection[Report] | None, sent: int, mark: Callable[[], int]
    ) -> tuple[FloatArray, bool]:
        """Return the sum over all processes, and whether all that they said is in it."""
        place = self._processes.place
        flat = layout.packed(reports, place, sent=sent)
        self._processes.add(flat, lambda: layout.sign(flat, place, mark()))
        misfit, marks = layout.said(flat, place.world)
        if len(marks) > 1:
            raise EngineError(
                self._processes.doing,
                "the processes do not hold the same model, or do not run the same program; start them with the same "
                "command, on machines of one kind",
            )
        return flat, not misfit

    def _settled(self, task: Task, message: Message, names: Sequence[str], first: dict[str, Answer]) -> list[Report]:
        """Judge what all nodes said as one engine would; return the sound reports of own nodes."""
        mine: dict[str, Answer] = {}

        def ask(waiting: Sequence[str]) -> dict[str, Answer]:
            """Return the own answers, and of those of other processes' nodes what can be judged."""
            own = self.nodes.run(task, message, self._own(waiting)) if mine else first
            mine.update(own)
            self.floats_down += message.n_floats * len(waiting)
            answers: dict[str, Answer] = {}
            for rank, told in enumerate(self._exchange(_words(own, task, message), dict[str, AnswerSummary])):
                if told.keys() != {name for name in waiting if name in self._homes[rank]}:
                    why = f"process {rank} speaks for nodes {list(told)}, not its own"
                    raise EngineError(self._processes.doing, why)
                here = rank == self._processes.place.rank
                answers |= own if here else {name: word.answer() for name, word in told.items()}
                self.floats_up += sum(word.n_floats for word in told.values())
            return answers

        _, missing = self._gathered(ask, names, task, message)
        return _reports(answer for name, answer in mine.items() if name not in missing)

    def _held(self, node: str) -> str:
        rank = next(rank for rank, names in enumerate(self._homes) if node in names)
        return super()._held(node) or f", process {rank}"

    def _exchange(self, value: Any, kind: Any) -> list[Any]:
        """Return what each process says, in the order of their ranks."""
        words = self._processes.everyone(serialize.pack(value, kind).text.encode())
        return [serialize.unpack(serialize.Packed(word.decode(), {}), kind) for word in words]

    def _in_all(self, do: Callable[[], Attempt | None]) -> list[Attempt]:
        """Do something in every process, and raise in all of them if it fails in one."""
        trouble = None
        try:
            outcome = do() or Attempt()
        except Exception as error:  # noqa: BLE001 - raised once the others know
            trouble, outcome = error, Attempt.of(error)
        outcomes: list[Attempt] = self._exchange(outcome, Attempt)
        failed = [rank for rank, other in enumerate(outcomes) if other.error]
        if failed:
            first = min(failed, key=lambda rank: outcomes[rank].node)  # as if all nodes had been here
            mine = trouble if first == self._processes.place.rank else None
            raise mine or outcomes[first].failure(first)
        return outcomes

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run leaves behind."""
        return self._processes.place.rank == 0

    def shared(self, content: bytes) -> bytes:
        """Return what the leading process gives, in all of them."""
        return self._processes.first(content)

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Return which of these any process wishes, the same answer in all of them."""
        return self._processes.agreed(wishes)

    def release(self, session: str) -> None:
        """Drop what the nodes remember of a session."""
        self._greeted = {key for key in self._greeted if key[0] != session}
        super().release(session)

    def _path(self, folder: Path, stamp: int) -> Path:
        """Return a name that other nodes, after another start, do not have: rank alone would hand out their states."""
        mark = zlib.crc32("\n".join(self.shards).encode())
        return folder / f"nodes-{stamp}-{self._processes.place.rank}-{mark:08x}.npz"


def _words(answers: Mapping[str, Answer], task: Task, message: Message) -> dict[str, AnswerSummary]:
    return {name: AnswerSummary.of(answer, name, task, message) for name, answer in answers.items()}


def _reports(answers: Iterable[Answer]) -> list[Report]:
    return [answer for answer in answers if isinstance(answer, Report)]
