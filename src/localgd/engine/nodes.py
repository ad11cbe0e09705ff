"""The nodes that live in one process: their rows, what they remember, and how they run a task."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import scipy.linalg  # noqa: F401  it brings a BLAS of its own, which must be there when threads are limited
from threadpoolctl import ThreadpoolController

from localgd.core import Message, Report, Task
from localgd.engine import serialize
from localgd.engine.held import Held
from localgd.engine.policy import Answer
from localgd.engine.screening import misfit
from localgd.errors import NodeError, check_whole
from localgd.limits import RefusedError
from localgd.many.reports import Reports, alone
from localgd.many.stack import Stack
from localgd.stored import content_of

OTHER_ROWS = "its rows are not those of the checkpoint; start afresh, or bring the old rows back"


@cache
def blas() -> tuple[Any, ...]:
    """Return the BLAS libraries of this process.

    All libraries that are loaded are looked through, which takes a while: once, as NumPy and SciPy are there by now.
    """
    return tuple(lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to a thread a node: faster on small blocks, and no bit depends on the machine's cores."""
    before = [(lib, lib.num_threads) for lib in blas()]
    several = [(lib, n_threads) for lib, n_threads in before if n_threads != 1]
    for lib, _ in several:
        lib.set_num_threads(1)
    try:
        yield
    finally:
        for lib, n_threads in several:
            if n_threads is not None:  # a library that does not tell
                lib.set_num_threads(n_threads)


@dataclass(frozen=True, eq=False)
class NodeStore:
    """What a node remembers of a task: its state before and after the round that it ran last."""

    round: int
    before: Any
    after: Any


class Nodes:
    """The nodes of this process, and what they remember of each task, by session.

    A node that is sent the same round twice runs it from the same state, so a server may ask again. Round 0 begins from
    the task's `init`, whatever came before.

    What they hold is a Shard, Table or Samples each; `n_jobs` is that of `localgd.InProcess`.
    """

    def __init__(self, shards: Iterable[Any], *, n_jobs: int = 1) -> None:
        check_whole("n_jobs", n_jobs, 1)
        self.shards = Held(shards)
        self.n_jobs = n_jobs
        self._kept: dict[tuple[str, Task], dict[str, NodeStore]] = {}

    def run(
        self, task: Task, message: Message, nodes: Sequence[str], take: Callable[[str, Answer], Answer] | None = None
    ) -> dict[str, Answer]:
        """Run `task` on the nodes named; return what each of them has to say, or what `take` makes of that at once."""
        kept, fresh = self._kept.get((message.session, task), {}), dict[str, NodeStore]()
        together = getattr(task, "together", None)  # what makes the reports of nodes whose work was done at once
        done = {} if together is None else together(message, [self.shards[node_id] for node_id in nodes])

        def on_node(node_id: str) -> Answer:
            shard = self.shards[node_id]
            try:
                report, now = answer(task, message, shard, kept.get(node_id), done.pop(node_id, None))
            except Exception as error:  # noqa: BLE001  the engine's policy says what becomes of it
                return error
            if now is not None:
                fresh[node_id] = now
            return report

        with self._working(len(nodes)) as each:
            said = each(on_node, nodes)  # what is taken is gone before the next one is made
            found = dict(zip(nodes, map(take, nodes, said) if take else said, strict=True))
        if fresh:
            self._kept[message.session, task] = kept | fresh
        return found

    def at_once(self, task: Task, message: Message, nodes: Sequence[str]) -> Reports | None:
        """Run `task` on the nodes named, those of one shape at once; None if they have to be asked one by one.

        So they are if anything is out of the ordinary, too: then the node that it is about is found.
        """
        if not getattr(type(task).run, "at_once", False) or hasattr(task, "init"):
            return None
        parts, others = self.shards.parts(nodes)
        if not parts:
            return None

        def on_piece(piece: Stack | str) -> Reports:
            if isinstance(piece, str):
                return alone(piece, task.run(message, self.shards[piece], None)[0])
            reports: Any = task.run(message, piece, None)[0]
            return cast("Reports", reports)

        pieces = [*parts, *others]
        try:
            with self._working(len(pieces)) as each:
                reports = Reports.joined(list(each(on_piece, pieces)))
        except Exception:  # noqa: BLE001  whatever it is, a node is to blame
            return None
        return reports if reports.sound else None

    @contextmanager
    def _working(self, n_pieces: int) -> Iterator[Callable[..., Iterable[Any]]]:
        """Limit BLAS to a thread, and yield what does something with each piece of the work, in several threads."""
        with one_thread():
            if self.n_jobs == 1 or n_pieces == 1:
                yield map
                return
            with ThreadPoolExecutor(self.n_jobs) as pool:
                yield pool.map

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return nodes that hold ``encode(what they hold now)``, without those where that is None.

        A NodeError if it raised on one.
        """
        held = []
        for node_id, shard in self.shards.items():
            try:
                item = encode(shard)
            except Exception as error:
                raise NodeError(0, node_id, error) from error
            if item is not None:
                held.append(item)
        return type(self)(held, n_jobs=self.n_jobs)

    def release(self, session: str) -> None:
        """Drop all states of a session."""
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != session}

    def write(self, task: Task, path: Path, session: str = "") -> None:
        """Write a digest of every node's rows and, if it has one, its state of a task with the round that led to it."""
        parts, kept = {}, self._kept.get((session, task), {})
        for place, (node, shard) in enumerate(self.shards.items()):  # a name may hold any sign
            known = kept.get(node)
            parts[f"{place}.head"] = serialize.pack([node, known.round if known else 0, fingerprint(shard)])
            if known:
                parts[f"{place}.state"] = serialize.pack(known.after, state_type(task, known.after))
        serialize.write(path, parts)

    def read(self, task: Task, path: Path, session: str = "") -> None:
        """Take back what `write` wrote, for a session; a ValueError if it is not there, or damaged.

        A node whose rows are no longer those of the checkpoint is a NodeError: what is proved is about those.
        """
        if not path.exists():
            raise ValueError(
                f"{path} is not there: the checkpoint was written in another folder, or with the nodes spread over "
                "processes in another way; start as many processes as before, or start the run afresh"
            )
        parts = serialize.read(content_of(path), f"{path}")
        known: dict[str, NodeStore] = {}
        for place in (name.removesuffix(".head") for name in parts if name.endswith(".head")):
            node, round_, rows = serialize.unpack(parts[f"{place}.head"], list[Any])
            if node not in self.shards:
                continue
            if rows != fingerprint(self.shards[node]):
                raise NodeError(round_, node, ValueError(OTHER_ROWS))
            if f"{place}.state" in parts:
                state = serialize.unpack(parts[f"{place}.state"], state_type(task))
                known[node] = NodeStore(round_, state, state)
        self._kept[session, task] = known


def answer(
    task: Task, message: Message, shard: Any, known: NodeStore | None, done: Callable[[], Report] | None = None
) -> tuple[Report, NodeStore | None]:
    """Run a task on one node, from the state that it had before this round, and return what it then keeps, if anything.

    Where a task without a state has done its work already, `done` makes the report.

    What is no report is a TypeError, one that the task does not declare a ValueError, and one that is not of the node's
    rows a RefusedError, which quotes none of them: over a network it is told in words.
    """
    if known is None or message.round == 0:
        init = getattr(task, "init", None)
        before = None if init is None else init(shard)
    else:
        before = known.before if known.round == message.round else known.after
    report, after = task.run(message, shard, before) if done is None else (done(), None)
    name = type(task).__name__
    if not isinstance(report, Report):
        raise TypeError(f"{name}.run must return a Report, got {report!r}")
    if wrong := misfit(report, task.schema(message), shard.node_id, name):
        raise ValueError(wrong)
    for field, dual in report.duals.items():
        nothing = math.isnan(dual.parts[0]) or not (dual.parts[0] > 0 or dual.vector.any())  # NaN proves nothing
        if not nothing and dual.of is not shard.token:
            raise RefusedError(
                f"its report's {field} is no combination of its own rows: make it by shard.combination(…)"
            )
    held = getattr(shard, "n_samples", getattr(shard, "n_rows", report.n_rows))
    if report.n_nodes and report.n_rows != held:
        why = f"its report speaks for {report.n_rows} rows, and the node holds {held}"
        raise RefusedError(f"{why}: make it by update_report(shard, …) or Report(1, shard.n_samples, …)")
    return report, NodeStore(message.round, before, after) if hasattr(task, "init") else None


def state_type(task: Task, state: Any = None) -> Any:
    """Return the type that states of a task are written and read as; a TypeError if it has one and does not say."""
    if state is not None and not hasattr(task, "state_type"):
        raise TypeError(f"{type(task).__name__} keeps a state, so it must declare state_type, what that is read as")
    return getattr(task, "state_type", type(None))


def fingerprint(shard: Any) -> str:
    """Return a digest of a node's rows, or of what else it holds, for the node itself to know it by: not for sending.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> fingerprint(Shard("a", [[1.0]])) == fingerprint(Shard("b", [[1.0]])) != fingerprint(Shard("a", [[2.0]]))
    True
    """
    if hasattr(shard, "fingerprint"):
        return str(shard.fingerprint())
    data = shard.data
    digest = hashlib.blake2b(f"{data.shape} {data.versus}".encode(), digest_size=16)
    weights = () if shard.weights is None else (shard.weights,)
    for part in (*data.parts, *weights, getattr(shard, "targets", np.zeros(0))):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
