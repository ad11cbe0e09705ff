"""What processes say of their nodes: what was reported, short of the numbers, and what went wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from localgd.core import Message, Report
from localgd.engine.policy import Answer, not_finite
from localgd.errors import NodeError, RemoteError, said, trace_of
from localgd.rows import Dual, sealed

ZERO, NAN = sealed(np.zeros(())), sealed(np.full((), np.nan))


@dataclass(frozen=True)
class Said:
    """What a node answered, short of the numbers: names and shapes, the name that is not finite; or its error.

    Of its duals also which are proved: mass and error are numbers that were sent.
    """

    sums: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counts: tuple[str, ...] = ()
    duals: dict[str, tuple[int, ...]] = field(default_factory=dict)
    proved: tuple[str, ...] = ()
    n_nodes: int = 0
    blank: str = ""
    error: str = ""
    trace: str = ""

    @classmethod
    def of(cls, answer: Answer, message: Message) -> Self:
        """Return what there is to say of an answer."""
        if isinstance(answer, Exception):
            return cls(error=said(answer), trace=trace_of(answer))
        sums, lows = ({name: value.shape for name, value in part.items()} for part in (answer.sums, answer.lows))
        duals = {name: dual.vector.shape for name, dual in answer.duals.items()}
        proved = tuple(name for name, dual in answer.duals.items() if not math.isnan(dual.parts[0]))
        return cls(sums, lows, tuple(answer.counts), duals, proved, answer.n_nodes, not_finite(answer, message))

    def answer(self) -> Answer:
        """Return a report of no numbers that a policy judges as it would judge the node's own, or the error."""
        if self.error:
            return RemoteError(self.error, self.trace)
        sums, lows, duals = (
            {name: np.broadcast_to(NAN if name == self.blank else ZERO, shape) for name, shape in part.items()}
            for part in (self.sums, self.lows, self.duals)
        )
        known = {
            name: Dual.proved(vector, 0.0, 0.0) if name in self.proved else Dual(vector)
            for name, vector in duals.items()
        }
        return Report(self.n_nodes, 0, sums, lows, dict.fromkeys(self.counts, 0), known)


@dataclass(frozen=True)
class Outcome:
    """How something went that every process does with its own nodes: their names and policy, or the error."""

    names: tuple[str, ...] = ()
    policy: str = ""
    error: str = ""
    trace: str = ""
    round: int = 0
    node: str = ""
    bad_value: bool = False

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return what there is to say of an error."""
        if isinstance(error, NodeError):
            cause = error.__cause__ or error
            return cls(error=said(cause), trace=trace_of(cause), round=error.round, node=error.node_id)
        return cls(error=said(error), trace=trace_of(error), bad_value=isinstance(error, ValueError))

    def failure(self, rank: int) -> Exception:
        """Return the error that the other processes raise."""
        remote = RemoteError(f"process {rank}: {self.error}", self.trace)
        if self.node:
            return NodeError(self.round, self.node, RemoteError(self.error, self.trace))
        return ValueError(str(remote)) if self.bad_value else remote
