"""A node's side: it reads its own rows, runs a task that is on its list, and keeps its state in Flower's context."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flwr.app import ConfigRecord, Context, Message, RecordDict

from localgd.core import Task
from localgd.engine import serialize
from localgd.engine.flower import records
from localgd.engine.flower.records import MAX_MB, MOST_TEXT
from localgd.engine.nodes import NodeStore, answer, fingerprint, one_thread, state_type
from localgd.limits import Limits, RefusedError
from localgd.many.by_node import at

TASK = ("ask", "session", "round", "task", "view", "definition")

MOST_KEPT = 4
"""Tasks whose states a node keeps, all of one session; of a fifth one it says that it has forgotten the first."""

STATE, STATE_ARRAYS = "localgd", "localgd.arrays"


class Held(NamedTuple):
    """What a node holds in a view, and what it knows it by."""

    view: str
    shard: Any
    digest: str


_HELD: dict[tuple[Any, ...], Held] = {}
"""Rows as last used, by run and node: a simulated node need not read them every round."""


def limits_of(context: Context) -> Limits:
    """Return the limits of a node: the usual ones, but for what its node-config says."""
    return Limits().within(context.node_config)


@dataclass(frozen=True)
class RoundHandler:
    """Answers of a node to what the server asks: a handler for ``@app.query("localgd")``.

    Parameters
    ----------
    load : callable
        Returns the node's own Table, Shard or Samples, from its `Context`.
    tasks : collection of type
        Classes of tasks that it runs; any other is refused.
    encoders : collection of type
        Classes of encoders that it puts its rows through.
    max_mb : float > 0
        Largest message that it takes.
    limits : callable
        Returns what the node's operator allows, from its `Context`.
    """

    load: Callable[[Context], Any]
    tasks: Collection[type]
    encoders: Collection[type]
    max_mb: float = MAX_MB
    limits: Callable[[Context], Limits] = limits_of

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message; an error is an answer, too."""
        who = ""
        try:
            head, arrays = records.opened(message.content, self.max_mb)
            if head.get("ask") == "name":
                who = str(context.node_config.get("node-name", ""))  # known without rows, if those cannot be read
                content = self._name(context)
            else:
                content = self._answer(head, arrays, context)
        except Exception as error:
            logging.getLogger("flwr").exception("localgd could not answer")
            content = _apology(error, who, tell=context.node_config.get("share-errors") is True)
        return Message(content, reply_to=message)

    def _name(self, context: Context) -> RecordDict:
        _keyed("rows", context.node_config.get("secret"))  # one that will not do is told at once
        _HELD.pop(place_of(context), None)  # another engine begins: rows that have changed meanwhile are to be noticed
        return records.closed({"says": "name", "node_id": self._own(context).node_id})

    def _answer(self, head: dict[str, Any], arrays: Any, context: Context) -> RecordDict:
        records.keys(head, TASK)
        round_ = records.whole(head["round"], "the round")
        session, view = (records.text(head[name], f"the {name}", 64) for name in ("session", "view"))
        task: Task = records.made(head["task"], self.tasks, "the task")
        message = records.received(round_, session, arrays)
        diary = Diary.of(context)
        definition = diary.views.get(view) if head["definition"] is None else head["definition"]
        if definition is None:
            return records.closed({"says": "lacks", "view": view})
        if head["definition"] is not None and view != view_of(definition):  # one of the diary has been looked at
            raise RefusedError("the definition of its view is not that of the view it names")
        held = self._held(context, view, definition)
        if diary.rows.setdefault(view, held.digest) != held.digest:
            raise RefusedError("its rows have changed since this run began, so nothing that is proved would hold")
        schema = task.schema(message)
        sizes = {name: math.prod(field.shape) for name, field in schema.items()}
        n_duals = sum(field.kind == "dual" for field in schema.values())
        steps = at(getattr(task, "local_steps", None), held.shard.node_id) or 1
        held.shard.limits.admit(task, sizes, n_duals, held.shard.n_rows, steps)
        key = digest(json.dumps([head["task"], view]))
        with one_thread():
            report, kept = answer(task, message, held.shard, diary.recall(key, session, task))
        answered = records.reported(report, _keyed(held.digest, context.node_config.get("secret")), message)
        diary.views[view] = definition
        diary.note(key, session, task, kept)
        diary.write(context)  # last: an error before it leaves the node as it was
        return answered

    def _own(self, context: Context) -> Any:
        """Return what the node holds by itself, under its own name."""
        held = self.load(context)
        name = str(context.node_config.get("node-name", held.node_id))
        return held if held.node_id == name else replace(held, node_id=name)

    def _held(self, context: Context, view: str, definition: Any) -> Held:
        """Return what the node holds in a view, from before if it is the same one."""
        place = place_of(context)
        if (found := _HELD.get(place)) is not None and found.view == view:
            return found
        encoders: list[Any] = [records.made(entry, self.encoders, "the encoder") for entry in definition]
        limits = self.limits(context)
        shard = replace(self._own(context), limits=limits)
        for encode in encoders:
            shard = replace(encode(shard), limits=limits)
        known = hasattr(shard, "rows") or hasattr(shard, "fingerprint")  # not of a table, which is yet to be prepared
        _HELD[place] = Held(view, shard, fingerprint(shard) if known else "")
        return _HELD[place]


def place_of(context: Context) -> tuple[Any, ...]:
    """Return what tells one node of one run from another in this process."""
    return context.run_id, context.node_id, repr(sorted(context.node_config.items()))


def view_of(definition: Any) -> str:
    """Return what a view goes by: a digest of the list of encoders that lead to it, "" for the rows as they are."""
    if not isinstance(definition, list):
        raise RefusedError("the definition of a view must be a list of encoders")
    return digest(json.dumps(definition)) if definition else ""


def digest(content: str) -> str:
    """Return a short name for a text."""
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _keyed(rows: str, secret: Any) -> str:
    """Return a digest of the rows that only says, to whom does not know the node's secret, whether they changed."""
    if not rows or secret is None:
        return ""
    if not isinstance(secret, str) or len(secret) < 16:
        raise RefusedError("secret must be a text of at least 16 characters, known to this node only")
    key = hashlib.blake2b(secret.encode(), digest_size=64).digest()
    return hashlib.blake2b(rows.encode(), digest_size=16, key=key).hexdigest()


def _apology(error: Exception, who: str, *, tell: bool) -> RecordDict:
    """Return what is said of an error: where it arose; what it says could quote a row, and is said on request only.

    So are its notes, and the errors that it came of, each with its own traceback.
    """
    kept = " (what it says stays in the node's log; its operator may set share-errors)"
    words = f": {error}" if tell or isinstance(error, RefusedError) else kept
    said = (f"{who}: " if who else "") + type(error).__name__ + words
    lines = "".join(traceback.format_exception(error) if tell else traceback.format_tb(error.__traceback__))
    return records.closed({"says": "error", "error": said[:MOST_TEXT], "trace": lines[-MOST_TEXT:]})


@dataclass(frozen=True)
class Kept:
    """What a node keeps of a task: the round that it last ran, of which session, and the states before and after it."""

    round: int
    session: str
    before: serialize.Packed
    after: serialize.Packed


@dataclass(eq=False)
class Diary:
    """What a node keeps of a run, in Flower's `Context.state`, which does not leave its SuperNode.

    By view, its definition, as the server has told it, and a digest of its rows; by task, what is `Kept`, in order.
    """

    views: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context) -> Diary:
        """Return what the context holds; nothing in a new run, or after the SuperNode was started again."""
        if STATE not in context.state:
            return cls()
        text = str(context.state.config_records[STATE]["json"])
        arrays = records.unboxed(context.state.array_records[STATE_ARRAYS])
        return serialize.unpack(serialize.Packed(text, arrays), cls)

    def write(self, context: Context) -> None:
        """Put it back into the context."""
        packed = serialize.pack(self)
        context.state[STATE] = ConfigRecord({"json": packed.text})
        context.state[STATE_ARRAYS] = records.boxed(packed.arrays)

    def recall(self, key: str, session: str, task: Task) -> NodeStore | None:
        """Return the states of a task, unless they are of another session."""
        entry = self.kept.get(key)
        if entry is None or entry.session != session:
            return None
        states = (serialize.unpack(state, state_type(task)) for state in (entry.before, entry.after))
        return NodeStore(entry.round, *states)

    def note(self, key: str, session: str, task: Task, kept: NodeStore | None) -> None:
        """Keep the states of a task, if it has any; forget those of other sessions, and of the task run longest ago."""
        if kept is None or (kept.before is None and kept.after is None):
            return
        states = (serialize.pack(state, state_type(task, state)) for state in (kept.before, kept.after))
        others = [(name, entry) for name, entry in self.kept.items() if name != key and entry.session == session]
        self.kept = {**dict(others[-MOST_KEPT + 1 :]), key: Kept(kept.round, session, *states)}
