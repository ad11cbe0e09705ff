"""The rows of several nodes of one shape, stacked, so that no loop goes over them in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np

from localgd.layouts import Dense
from localgd.many.duals import Duals
from localgd.rounding import FloatArray, below, read_only
from localgd.rows import Shard

MOST_KEPT = 2**24
"""Entries of Gram matrices, 128 MB, that are kept; of more than that each is made anew in every round."""


Run = TypeVar("Run", bound=Callable[..., Any])


class OneByOneError(Exception):
    """Nodes of a stack have to be asked one by one: why."""


def at_once(run: Run) -> Run:
    """Declare that the ``run`` of a task takes a `Stack`, too, and then returns the `Reports` of its nodes.

    It is a property of this one function: a ``run`` that replaces it in a derived class has nothing of it.
    """
    run.at_once = True  # type: ignore[attr-defined]
    return run


def alone(shard: Shard, why: str) -> None:
    """Go on with one node only: what is said next holds for no stack."""
    if isinstance(shard, Stack):
        raise OneByOneError(why)


@dataclass(frozen=True, eq=False)
class Stack(Shard):
    """Shards of one shape at once: whatever they are asked, each answer has one more axis in front, for the nodes.

    Every node has the bits that it would have alone. There are no limits on what may be summed, and no layout but
    `Dense`.

    Parameters
    ----------
    node_id : str
        What it is called: it is no node.
    data : Dense
        Rows, (k, n, d).
    weights : (k, n) float64 array, optional
        What each sample counts, above 0.
    node_ids : sequence of str
        Names of the nodes.

    Examples
    --------
    >>> stack = Stack.of([Shard("a", [[3.0, 4.0]]), Shard("b", [[0.0, 2.0]])])
    >>> stack.margins(np.array([1.0, 1.0])).tolist(), stack.radius.round(9).tolist()
    ([[7.0], [2.0]], [5.0, 2.0])
    """

    node_ids: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Shards have checked their rows."""

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> Self:
        """Return shards as a stack, in the order of their names; their rows are copied."""
        shards = sorted(shards, key=lambda shard: shard.node_id)
        data = Dense(read_only(np.stack([shard.data.x for shard in shards])))
        weights = [shard.weights for shard in shards if shard.weights is not None]
        stack = cls(
            "many",
            data,
            weights=read_only(np.stack(weights)) if weights else None,
            node_ids=[s.node_id for s in shards],
        )
        data.__dict__["norms"] = read_only(np.stack([shard.norms for shard in shards]))
        return stack

    def shard(self, place: int) -> Shard:
        """Return one of the shards."""
        weights = None if self.weights is None else self.weights[place]
        return Shard(self.node_ids[place], read_only(self.data.x[place]), weights=weights)

    def part(self, places: Any, *, keep_gram: bool) -> Self:
        """Return the stack of some of the nodes, given as a slice or as numbers; `keep_gram` for the rounds to come."""
        data = Dense(read_only(self.data.x[places]))
        weights = None if self.weights is None else read_only(self.weights[places])
        node_ids = self.node_ids[places] if isinstance(places, slice) else [self.node_ids[place] for place in places]
        part = type(self)(self.node_id, data, weights=weights, node_ids=node_ids)
        data.__dict__["norms"] = self.norms[places]
        part.__dict__["radius"] = np.asarray(self.radius)[places]
        if keep_gram:
            data.__dict__["gram"] = self.gram[places]
        return part

    @cached_property
    def total(self) -> Any:
        """Σ of the weights of each node: the number of samples, if they have none."""
        return np.full(len(self.node_ids), float(self.n_samples)) if self.weights is None else self.weights.sum(axis=-1)

    @cached_property
    def of_rows(self) -> FloatArray | None:
        """The weight of each row as part of its node's mean, (k, n); None without weights."""
        if self.weights is None:
            return None
        return read_only(self.weights * (self.n_samples / np.asarray(self.total))[:, None])

    def dual(self, vector: FloatArray) -> Duals:
        """Return vectors of which nothing is proved, (k, d)."""
        unknown = np.full(len(vector), np.nan)
        return Duals(vector, unknown, unknown)

    def combination(self, coefficients: FloatArray) -> Duals:
        """Return Σ a_i z_i of every node, a >= 0."""
        if not (coefficients >= 0).all():
            raise OneByOneError("a coefficient below 0 proves nothing")
        mass, error = below(coefficients.sum(axis=-1), self.n_rows), self.combine_error(coefficients)
        return Duals(self.own_sum(coefficients), mass, error)

    @property
    def peak(self) -> Any:
        """Largest entry of each node in absolute value."""
        return self.data.peak
