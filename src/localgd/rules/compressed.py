"""Updates that travel in fewer bits, with what the code lost kept back and sent later: and the proof kept.

Node m wants to move the model by u_m = Σ a_i z_i, and sends c_m = Q(u_m + e_m) with a code Q; it keeps back
e_m' = u_m + e_m − c_m, and adds it to its next update (error feedback). So of all rounds together, c lacks just what is
kept back now: with B = Σ e_m,

    Σ_m c_m = Σ_m u_m + B − B',        |B| <= Σ |e_m|.

A report says both lengths, and the names of B and B', which tell who kept back what. Then a server knows which
B − B' of one round meets which of the next one, and drops what has gone. Every operation on duals keeps count of it, so
whatever a merge makes of updates, its model is certified; a B that is left over (of a node that was left out, or lost
its state) counts in full, for ever. See docs/compression.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Self, TypeAlias

import numpy as np

from localgd.core import Engine, Message, Problem, Report, Schema
from localgd.duals.compressors import Bytes, Compressor
from localgd.duals.dual import Dual
from localgd.duals.kept import LARGEST_NAME, Kept
from localgd.problems.sizes import DataSizes
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, norm, norm_above, read_only
from localgd.rows import Shard
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.project import Project

Memory: TypeAlias = tuple[FloatArray, float, Any]
"""What is kept back, its name, and what the task itself remembers."""

ROOM = 1 + 2.0**-20
"""Lengths that are kept back are said to be longer by this, which covers the rounding of their sum over the nodes."""


@dataclass(frozen=True)
class Compressed:
    """A task whose ``update`` travels in a code; anything else of its report, and what it does, stays the same.

    Codes are of the weighted update p_m u_m. ``update_sq_norm`` is that of what is sent, as is the mean that a merge
    may compare it with. What the code cannot hold (a vector beyond float64) travels as it is.

    Parameters
    ----------
    task : Task
        What a node does, with an update to report; over Flower one of the library's own.
    compressor : Compressor
        The code.
    """

    task: GradientSteps | Project | SquaresSteps
    compressor: Compressor

    def __getattr__(self, name: str) -> Any:
        """Return settings of the task (a loss, a batch size) as its own; what that does, is not."""
        if name == "task" or name not in {"loss", "weighted_by", *getattr(self.task, "__dataclass_fields__", ())}:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return getattr(self.task, name)

    @property
    def state_type(self) -> Any:
        """What a state is read back as."""
        own: Any = getattr(self.task, "state_type", type(None))
        return tuple[FloatArray, float, own]

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:
        """Return the task for this problem; refuse one that has no update to compress."""
        task: Any = self.task
        task = task.bound(problem, engine, sizes) if hasattr(task, "bound") else task
        found = task.schema(Message(0, np.zeros(sizes.n_features))).get("update")
        if found is None or found.kind != "dual":
            raise ValueError(f"there is nothing to compress: {type(task).__name__} sends no update; leave it out")
        return replace(self, task=task)

    def schema(self, message: Message) -> Schema:
        """Return that of the task, with an update that may be coded."""
        fields = dict(self.task.schema(message))
        if "update" in fields:
            fields["update"] = replace(fields["update"], coded=self.compressor.form)
        return fields

    def init(self, shard: Shard) -> Memory:
        """Keep nothing back at first."""
        init = getattr(self.task, "init", None)
        return read_only(np.zeros(shard.n_features)), 0.0, None if init is None else init(shard)

    def run(self, message: Message, shard: Shard, state: Memory) -> tuple[Report, Memory]:
        """Run the task; report its update in code, and keep back what the code loses."""
        before, name, inner = state
        task: Any = self.task
        report, inner = task.run(message, shard, inner)
        update = report.duals.get("update")
        if update is None or update.vector.shape != before.shape:
            return report, (before, name, inner)
        coded, sent, after = self._sent(update.vector, before)
        ended = name if coded is None else _named(after, shard)
        kept = Kept.between(name, _level(before), ended, _level(after))
        dual = _recoded(update, sent, norm(before) + norm(after), kept, coded)
        sums = dict(report.sums)
        if {"update_sq_norm", "weight"} <= sums.keys():
            weight = float(sums["weight"])  # of a node that counts for nothing nothing is sent, and nothing kept back
            sums["update_sq_norm"] = dual.length * dual.length / weight if weight else 0.0
        return replace(report, sums=sums, duals={**report.duals, "update": dual}), (after, ended, inner)

    def _sent(self, update: FloatArray, before: FloatArray) -> tuple[Bytes | None, FloatArray, FloatArray]:
        """Return the code of an update and of what was kept back before, the vector it stands for, and what it loses.

        No code, and the update as it is, where one of them is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = read_only(update + before)  # nobody's to change, nor what is sent
            if np.isfinite(wanted).all():
                coded = self.compressor.encode(wanted)
                sent = np.array(self.compressor.decoded(coded, wanted.size), dtype=np.float64)
                after = wanted - sent
                if np.isfinite(after).all():
                    return coded, sent, read_only(after)
        return None, update, before


def _named(memory: FloatArray, shard: Shard) -> float:
    """Return a name for what a node keeps back, of the node and of that itself: another vector has another name."""
    mark = blake2b(shard.node_id.encode() + b"\n" + memory.tobytes(), digest_size=8)
    return float(int.from_bytes(mark.digest()) % LARGEST_NAME)


def _level(memory: FloatArray) -> float:
    return norm_above(memory) * ROOM if memory.any() else 0.0


def _recoded(update: Dual, sent: FloatArray, beside: float, kept: Kept, coded: Bytes | None) -> Dual:
    """Return an update as it is sent: with its mass, its error and the rounding of sum and difference."""
    mass, error = update.parts
    if math.isnan(mass):
        return Dual.proved(sent, mass, error, coded=coded)
    # |u + e| <= |c| + |e'|, and each entry of u + e and of e' is rounded once; 8 u |c| are for the fold over the nodes
    error += 8 * UNIT_ROUNDOFF * (norm(sent) + 2 * beside) + sent.size * TINY + update.kept.bound
    return Dual.proved(sent, mass, error, update.n_folded, update.of, kept=kept, coded=coded)
