"""Several trainings over one federation, a round for all of them: each on a part of its own of every node's rows."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Self

import numpy as np

from localgd.core import Engine, Field, Message, Report, Schema, Task
from localgd.duals.dual import Dual
from localgd.engine.nodes import NodeStore, answer
from localgd.engine.policy import Federation
from localgd.errors import NodeError, RemoteError, from_all, said

AWAY = "away"
"""The flag of a node that says nothing to a job: it has no row in the part, or failed."""

FAILED = "failed"
"""The tally of nodes that failed at what a job asked, with what they said."""

AT_ONCE = 16
"""Trainings that had better share their rounds: each holds its rows in its own way, so more would take more memory."""


@dataclass(frozen=True, eq=False)
class Unmade:
    """What a node holds as a part that it could not rewrite: why not."""

    error: Exception
    n_rows: int = 0


@dataclass(frozen=True, eq=False)
class Parts:
    """What a node holds: an item for each part, a Shard, Table or Samples, or None where it has no row in one.

    `kept` is what the node remembers of the tasks of each job.
    """

    node_id: str
    items: tuple[Any, ...]
    kept: dict[tuple[int, Any], NodeStore] = field(default_factory=dict)

    @property
    def token(self) -> object:
        """What a dual made of any of its rows is known by."""
        return self.items


def named(job: int, name: str) -> str:
    """Return what something of a job is called among those of all."""
    return f"{job}.{name}"


def packed(messages: Mapping[int, Message]) -> Message:
    """Return the messages of several jobs as one."""
    extra: dict[str, Any] = {}
    for job, message in messages.items():
        extra |= {named(job, "round"): np.float64(message.round), named(job, "w"): message.w}
        extra |= {named(job, f"extra.{name}"): value for name, value in message.extra.items()}
    return Message(extra=extra)


def unpacked(message: Message, job: int) -> Message:
    """Return the message of one of the jobs."""
    head = named(job, "extra.")
    extra = {name.removeprefix(head): value for name, value in message.extra.items() if name.startswith(head)}
    return Message(int(message.extra[named(job, "round")]), message.extra[named(job, "w")], extra)


@dataclass(frozen=True)
class Bundle:
    """Run the tasks of several jobs, each on a part of a node's rows, and report all of it at once.

    What fails on a node for one job is told to that job, and the others go on.

    Parameters
    ----------
    tasks : tuple of (job, part, task)
        The number of a job, that of the part that it is about, and what is asked.
    """

    tasks: tuple[tuple[int, int, Any], ...]

    def schema(self, message: Message) -> Schema:
        """Return what the tasks declare, under the names of their jobs; a node may be away from any part."""
        out: dict[str, Field] = {}
        for job, _, task in self.tasks:
            for name, held in task.schema(unpacked(message, job)).items():
                free = held.optional or bool(held.unless)
                out[named(job, name)] = replace(held, optional=free, unless="" if free else named(job, AWAY))
            out |= {named(job, name): Field("count") for name in ("n_nodes", "n_rows", FAILED)}
            out[named(job, AWAY)] = Field("flag")
        return out

    def run(self, message: Message, shard: Parts, state: None) -> tuple[Report, None]:
        """Return the reports of all jobs in one."""
        total = Report(1, _most_rows(shard))
        for job, part, task in self.tasks:
            item = shard.items[part]
            if item is None:
                total += Report(flags={named(job, AWAY): 1})
                continue
            try:
                report, after = answer(task, unpacked(message, job), _there(item), shard.kept.get((job, task)))
            except Exception as error:  # noqa: BLE001  it is raised again where the job asked
                why = (named(job, FAILED), shard.node_id, isinstance(error, ValueError), said(error))
                total += Report(flags={named(job, AWAY): 1}, counts={why: 1})
                continue
            if after is not None:
                shard.kept[job, task] = after
            total += _of_job(job, report, shard.token)
        return total, state


@dataclass(frozen=True)
class Present:
    """Tell which parts a node has rows in."""

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the tally."""
        return {"here": Field("count")}

    def run(self, message: Message, shard: Parts, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return ``here``, by part and node."""
        here = [part for part, item in enumerate(shard.items) if item is not None]
        return Report(1, _most_rows(shard), counts={("here", part, shard.node_id): 1 for part in here}), state


def _there(item: Any) -> Any:
    if isinstance(item, Unmade):
        raise item.error
    return item


def _most_rows(shard: Parts) -> int:
    rows = [int(getattr(item, "n_samples", item.n_rows)) for item in shard.items if item is not None]
    return max(rows, default=0)


def _of_job(job: int, report: Report, token: object) -> Report:
    """Return a report under the names of its job, its duals as combinations of what the node holds."""

    def called(held: Mapping[str, Any]) -> dict[str, Any]:
        return {named(job, name): value for name, value in held.items()}

    counts = {(named(job, str(head)), *rest): n for (head, *rest), n in report.counts.items()}
    counts |= {(named(job, "n_nodes"),): report.n_nodes, (named(job, "n_rows"),): report.n_rows}
    sums, maxs, mins = called(report.sums), called(report.maxs), called(report.mins)
    duals = {name: _held_by(dual, token) for name, dual in called(report.duals).items()}
    return Report(0, 0, sums, maxs, mins, counts, called(report.flags), duals, called(report.per_node))


def _held_by(dual: Dual, token: object) -> Dual:
    return Dual.proved(dual.vector, *dual.parts, dual.n_folded, token, kept=dual.kept)


def of_job(job: int, report: Report) -> Report:
    """Return what the report of all jobs says to one of them."""
    head = named(job, "")

    def own(held: Mapping[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(head): value for name, value in held.items() if name.startswith(head)}

    n_nodes, n_rows = (report.counts.get((named(job, name),), 0) for name in ("n_nodes", "n_rows"))
    apart = {named(job, "n_nodes"), named(job, "n_rows")}
    counts = {
        (str(name).removeprefix(head), *rest): n
        for (name, *rest), n in report.counts.items()
        if str(name).startswith(head) and name not in apart
    }
    sums, maxs, mins = own(report.sums), own(report.maxs), own(report.mins)
    flags = {name: n for name, n in own(report.flags).items() if name != AWAY}
    duals = own(report.duals)
    return Report(n_nodes, n_rows, sums, maxs, mins, counts, flags, duals, own(report.per_node))


class AbandonedError(Exception):
    """Another job has failed, so this one is not to go on."""


@dataclass(eq=False)
class Together:
    """Jobs that run at once over one federation and share its rounds: what all of them ask for is asked in one.

    Parameters
    ----------
    engine : Engine
        The federation.
    split : callable
        From what a node holds to its parts, as many on every node: an item of its own each, or None.

    Attributes
    ----------
    n_rounds : int
        Rounds so far.
    """

    engine: Any
    n_rounds: int = 0
    _asked: dict[int, tuple[int, Any]] = field(default_factory=dict, init=False, repr=False)
    _told: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _at_work: set[int] = field(default_factory=set, init=False, repr=False)
    _change: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)
    _nodes: dict[int, list[str]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def over(cls, engine: Engine, split: Callable[[Any], Iterable[Any]]) -> Self:
        """Return it over the parts of what each node holds, as many on every node: an item each, or None."""
        together = cls(engine.map(lambda item: Parts(item.node_id, tuple(split(item)))))
        together.n_rounds = 1
        for (_, part, node_id), _ in sorted(from_all(together.engine, Present(), Message()).counts.items()):
            together._nodes.setdefault(int(part), []).append(str(node_id))
        return together

    def lane(self, job: int, part: int) -> Lane:
        """Return the engine by which a job, by its number, asks the nodes about a part of their rows."""
        return Lane(self, job, part, self._nodes.get(part, []))

    def run(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run jobs, each of which asks by lanes of its own number, and return what they return.

        Raises
        ------
        Exception
            What the first job, by its number, has raised.
        """
        found: dict[int, Any] = {}
        failed: dict[int, BaseException] = {}

        def work(number: int) -> None:
            try:
                found[number] = jobs[number]()
            except AbandonedError:
                pass
            except BaseException as error:  # noqa: BLE001  it is raised again where the jobs were started
                failed[number] = error
            with self._change:
                self._at_work.discard(number)
                self._change.notify_all()

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(jobs))]
        self._at_work, self._asked, self._told = set(range(len(jobs))), {}, {}
        try:
            for thread in threads:
                thread.start()
            while self._all_ask():
                if failed:
                    break
                self._answer()
        finally:
            with self._change:
                self._at_work = set()
                self._change.notify_all()
            for thread in threads:
                thread.join()
        if failed:
            raise failed[min(failed)]
        return [found[number] for number in range(len(jobs))]

    def _all_ask(self) -> bool:
        """Wait until every job that is at work has asked for something; return whether any is."""
        with self._change:
            self._change.wait_for(lambda: self._at_work <= self._asked.keys())
            return bool(self._at_work)

    def _answer(self) -> None:
        """Do what all have asked for: first change what nodes hold, then ask them, in one round."""
        asked = {number: self._asked[number] for number in sorted(self._asked)}
        changes = {number: (part, what) for number, (part, what) in asked.items() if callable(what)}
        questions = {number: (part, *what) for number, (part, what) in asked.items() if not callable(what)}
        told: dict[int, Any] = dict.fromkeys(changes)
        if changes:
            encodes = dict(changes.values())
            if len(encodes) < len(changes):
                raise ValueError("two jobs change one part of what nodes hold; give each a part of its own")
            self.engine = self.engine.map(lambda held: replace(held, items=_encoded(held.items, encodes)))
        if questions:
            bundle = Bundle(tuple((number, part, task) for number, (part, task, _) in questions.items()))
            report = self.engine.round(bundle, packed({number: said for number, (_, _, said) in questions.items()}))
            self.n_rounds += 1
            told |= {number: _failure(number, report) or of_job(number, report) for number in questions}
        with self._change:
            self._asked, self._told = {}, told
            self._change.notify_all()

    def ask(self, job: int, part: int, what: Any) -> Any:
        """Ask for something, and wait until all other jobs have asked, too; return the answer."""
        with self._change:
            self._asked[job] = (part, what)
            self._change.notify_all()
            self._change.wait_for(lambda: job in self._told or job not in self._at_work)
            if job not in self._told:
                raise AbandonedError
            return self._told.pop(job)


def _encoded(items: tuple[Any, ...], encodes: Mapping[int, Callable[[Any], Any]]) -> tuple[Any, ...]:
    def encoded(part: int, item: Any) -> Any:
        if part not in encodes or item is None or isinstance(item, Unmade):
            return item
        try:
            return encodes[part](item)
        except Exception as error:  # noqa: BLE001  it is raised when the job next asks
            return Unmade(error)

    return tuple(encoded(part, item) for part, item in enumerate(items))


def _failure(job: int, report: Report) -> NodeError | None:
    """Return what the first node that failed for a job had to say, if one did."""
    failed = sorted(key[1:] for key in report.counts if key[0] == named(job, FAILED))
    if not failed:
        return None
    node, of_value, why = failed[0]
    return NodeError(0, str(node), ValueError(str(why).partition(": ")[2]) if of_value else RemoteError(str(why)))


class Lane(Federation):
    """A part of every node's rows, as an engine for one job: its rounds are those of all jobs."""

    def __init__(self, together: Together, job: int, part: int, node_ids: Sequence[str]) -> None:
        super().__init__()
        self.together, self.job, self.part, self._node_ids = together, job, part, tuple(node_ids)

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run a task on this part of every node that has one.

        Raises
        ------
        ValueError
            If not all nodes are to take part.
        NodeError
            If a node failed at it; the other jobs go on.
        """
        if nodes is not None and set(nodes) != set(self.node_ids):
            raise ValueError("trainings that share their rounds ask all nodes; leave nodes out")
        report: Report | NodeError = self.together.ask(self.job, self.part, (task, message))
        if isinstance(report, NodeError):
            raise report
        self.floats_down += message.n_floats * report.n_nodes
        self.floats_up += report.n_floats * report.n_nodes
        return report

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Have the nodes hold ``encode(what they hold now)`` as this part; nothing is sent.

        A node on which `encode` fails says so in the next round of this job.
        """
        self.together.ask(self.job, self.part, encode)
        return copy.copy(self)

    def shared(self, content: bytes) -> bytes:  # noqa: ARG002  the same in every process, without a word between them
        """Return what tells one session of this job from others."""
        return f"{self.job}".encode()

    def keep(self, *_: Any) -> NoReturn:
        """Refuse: nothing is kept of these runs."""
        raise ValueError("trainings that share their rounds leave no checkpoints")

    recall = keep

    def release(self, session: str) -> None:
        """Leave it be: round 0 of a task begins afresh, and the nodes forget all of it with the last lane."""
