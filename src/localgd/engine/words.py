"""What processes say of their nodes: what was reported, short of the numbers, and what went wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

from localgd.core import Message, Task
from localgd.engine.policy import Answer, Judged
from localgd.engine.screening import misfit, not_finite
from localgd.errors import NodeError, RemoteDiskError, RemoteError, said, trace_of


@dataclass(frozen=True)
class AnswerSummary:
    """What a node answered, short of the numbers: the field that is not finite, or what is wrong with it."""

    n_nodes: int = 0
    n_floats: int = 0
    blank: str = ""
    error: str = ""
    trace: str = ""

    @classmethod
    def of(cls, answer: Answer, node_id: str, task: Task, message: Message) -> Self:
        """Return what there is to say of an answer of this node."""
        if isinstance(answer, Exception):
            return cls(error=said(answer), trace=trace_of(answer))
        schema = task.schema(message)
        if wrong := misfit(answer, schema, node_id, type(task).__name__):
            return cls(n_floats=answer.n_floats, error=said(ValueError(wrong)))
        return cls(answer.n_nodes, answer.n_floats, not_finite(answer, schema))

    def answer(self) -> Answer:
        """Return what a policy judges as it would judge the node's own answer."""
        return RemoteError(self.error, self.trace) if self.error else Judged(self.n_nodes, blank=self.blank)


@dataclass(frozen=True)
class Greeting:
    """What a process is about to run: which localgd, and digests of the task and of the layout of its reports."""

    version: str
    name: str
    task: str
    layout: str

    @classmethod
    def of(cls, task: Task, layout: object) -> Self:
        """Return the greeting of this process."""
        marks = (hashlib.blake2b(repr(thing).encode(), digest_size=8).hexdigest() for thing in (task, layout))
        return cls(version("localgd"), type(task).__name__, *marks)


def differ(greetings: Sequence[Greeting]) -> str:
    """Return in words how processes differ in what they run; "" if they do not.

    Examples
    --------
    >>> differ([Greeting("1.0", "Steps", "a", "b"), Greeting("1.1", "Steps", "a", "b")])
    'processes run different versions of localgd (1.0, 1.1); install the same one for all'
    """
    versions = sorted({greeting.version for greeting in greetings})
    if len(versions) > 1:
        return f"processes run different versions of localgd ({', '.join(versions)}); install the same one for all"
    if len(set(greetings)) == 1:
        return ""
    names = sorted({greeting.name for greeting in greetings})
    of = f"methods ({', '.join(names)})" if len(names) > 1 else f"settings of {names[0]}, or rows of other columns"
    return f"the processes do not run the same program, but other {of}; start them with the same command"


@dataclass(frozen=True)
class Attempt:
    """How something went that every process does with its own nodes: their names and policy, or the error."""

    names: tuple[str, ...] = ()
    policy: str = ""
    error: str = ""
    trace: str = ""
    round: int = 0
    node: str = ""
    kind: str = ""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return what there is to say of an error."""
        if isinstance(error, NodeError):
            cause = error.__cause__ or error
            return cls(error=said(cause), trace=trace_of(cause), round=error.round, node=error.node_id)
        kind = "value" if isinstance(error, ValueError) else "disk" if isinstance(error, OSError) else ""
        return cls(error=said(error), trace=trace_of(error), kind=kind)

    def failure(self, rank: int) -> Exception:
        """Return the error that the other processes raise."""
        if self.node:
            return NodeError(self.round, self.node, RemoteError(self.error, self.trace))
        raised = RemoteDiskError if self.kind == "disk" else RemoteError
        remote = raised(f"process {rank}: {self.error}", self.trace)
        return ValueError(str(remote)) if self.kind == "value" else remote
