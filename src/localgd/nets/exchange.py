"""One sync: all that the ranks tell each other in one sum, and what each of them makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from localgd.errors import extra, listing, said
from localgd.nets.buckets import Buckets
from localgd.nets.buffers import Buffers
from localgd.nets.codes import Code, CodedSum
from localgd.nets.header import Header
from localgd.nets.layout import Layout
from localgd.nets.optimizer_state import OptimizerState, Rule
from localgd.nets.outer import Outer
from localgd.nets.parameters import Parameters
from localgd.nets.ranks import RankError, Ranks
from localgd.nets.record import Against, Sync, spread
from localgd.nets.statistics import Statistics
from localgd.nets.survey import parts_of

with extra("torch", "torch"):
    import torch

WORDS = ["number", "steps", "weight", "finished", "changed", "finite", "length", "lr"]
"""What each rank says of itself in every sync."""

PARTS = ("model (names, shapes or dtypes)", "optimizer", "group of settings")
"""What must be the same in all ranks."""


@dataclass(frozen=True)
class Standing:
    """Where a rank stands: the coming sync, its steps since the last, its weight (0: unknown), the end of its data."""

    number: int
    steps: int
    weight: float
    finished: bool


class Reached(NamedTuple):
    """What a sync has summed, before anything moves: ``factor·total`` is the mean update, of these weights."""

    steps: tuple[int, ...]
    weights: list[float]
    total: Any
    factor: float


Beside = Callable[[Reached], Against | None]
"""What is done beside a sync, in all ranks; if it fails, the model is as it was."""


class Exchange:
    """The parts of a model and its optimizer, laid out in one vector: parameters, header, state, statistics, buffers.

    Raises
    ------
    TypeError, ValueError
        In all ranks, if one of them has a part without a rule.
    RankError
        In all ranks, if they hold unlike models, or were given other settings.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        ranks: Ranks,
        *,
        outer: Outer,
        state: Rule,
        rules: Mapping[str, str],
        settings: str,
        compress: Code | None,
        idle: bool,
        skip: bool,
    ) -> None:
        self.ranks, self.model, self.optimizer, self.idle, self.skip = ranks, model, optimizer, idle, skip
        self.scale = 1.0
        trouble, layout = None, ["", "", ""]
        try:
            parts = parts_of(model, rules)
            dtype = torch.float64 if any(t.dtype == torch.float64 for _, t, _, _ in parts.trained) else torch.float32
            self.state = OptimizerState(optimizer, parts.trained, state)
            self.buffers = Buffers(parts.others, rules)
            tensors = [f"{name}{tuple(t.shape)}{t.dtype}" for name, t in model.state_dict(keep_vars=True).items()]
            kind = f"{type(optimizer).__name__} {self.state.size}"
            layout = [f"{tensors}", kind, f"{settings} {sorted(rules.items())}"]
        except (TypeError, ValueError) as error:
            trouble = error
        _check_alike(ranks, trouble, layout)
        ranks.first([tensor.detach() for tensor in (*model.parameters(), *model.buffers())])
        self.layout, self._changed = Layout(model, optimizer), ""
        self.statistics = Statistics(parts.layers)
        self.parameters = Parameters(parts.trained, outer, dtype, next(model.parameters()).device)
        self.header = Header([*WORDS, *self.statistics.names, *self.buffers.names], ranks.rank, ranks.world)
        sizes = [part.size for part in (self.parameters, self.header, self.state, self.statistics, self.buffers)]
        self.coded = CodedSum(compress, ranks, self.parameters.anchor) if compress else None
        self._payload = torch.empty(sum(sizes), dtype=dtype, device=self.parameters.anchor.device)
        self._pieces = torch.split(self._payload, sizes)
        self._apart = [0] * ranks.world  # local steps of each, of which parameters alone were brought together

    def state_dict(self) -> dict[str, Any]:
        """Return all that a rank needs to go on from here, where all ranks stand at one point."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "parameters": self.parameters.state(),
            "statistics": self.statistics.state(),
            "lost": self.coded.lost if self.coded else {},
            "scale": self.scale,
            "apart": self._apart,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.parameters.load(state["parameters"])
        self.statistics.load(state["statistics"])
        self.scale, self._apart = state["scale"], state["apart"]
        if self.coded is not None:
            self.coded.lost = state["lost"]

    def close(self) -> None:
        """Leave the model as it was found, without hooks."""
        self.statistics.close()

    @property
    def device(self) -> Any:
        """Where the model lies."""
        return self.parameters.anchor.device

    @property
    def lr(self) -> float:
        """Largest step size of the optimizer's groups."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @torch.no_grad()
    def sync(self, standing: Standing, beside: Beside | None = None) -> Sync:
        """Bring all ranks to one model; return what there is to say of it."""
        self.ranks.doing = f"sync {standing.number}"
        clock = [time.perf_counter()]
        way = self._pack(standing)
        early = way.sent > 0
        clock.append(time.perf_counter())
        rows = self._added(way)
        if again := early and not all(row["finite"] for row in rows):  # what such a rank had sent is in the sum
            rows = self._added(self._pack(standing, early=False))
        clock.append(time.perf_counter())
        self.buffers.check(rows, self.ranks.everyone)
        weights, heard = weights_of(rows, idle=self.idle), _heard(rows)
        against = beside(self._reached(heard, weights)) if beside else None
        clock.append(time.perf_counter())
        sync = self._apply(rows, heard, weights)
        clock.append(time.perf_counter())
        seconds, n_bytes = seconds_of(clock, "pack", "wire", "beside", "apply"), self.n_bytes * (1 + again)
        return replace(sync, number=standing.number, against_synchronous=against, seconds=seconds, bytes_up=n_bytes)

    def pass_on(self, standing: Standing, beside: Beside | None = None) -> Sync | None:
        """Do what a sync among local steps does: here, all of it."""
        return self.sync(standing, beside)

    @property
    def is_behind(self) -> bool:
        """Whether parameters alone were brought together since the last sync of everything."""
        return any(self._apart)

    def _reached(self, heard: list[dict[str, float]], weights: list[float]) -> Reached:
        steps, total = tuple(int(row["steps"]) for row in heard), math.fsum(weights)
        return Reached(steps, [w / total for w in weights], self._pieces[0], self.scale / total)

    def _pack(self, standing: Standing, *, early: bool = True) -> Buckets:
        """Write this rank's part of the sum: nothing but its row, if a number is not finite, or has no place in it.

        Buckets are sent off `early`, as soon as they are written: of such a rank, too, before it knows.
        """
        parameters, _, state, statistics, buffers = self._pieces
        way = Buckets(self.ranks, self._payload if self.coded is None else self._payload[self.parameters.size :])
        written = way.written if early and self.coded is None else None
        share, length = (standing.weight or self.scale) / self.scale, math.nan
        self._changed = self.layout.changed()
        if not self._changed:
            length = self.parameters.pack(parameters, share, written)
            self.state.pack(state, share if standing.steps or self._apart[self.ranks.rank] else 0.0)
            self.buffers.pack(buffers, share)
        sound = math.isfinite(length) and all(bool(torch.isfinite(piece.sum())) for piece in (state, buffers))
        sound = sound and self.statistics.finite()
        if not sound:
            self._payload[way.sent :].zero_()
        self.statistics.pack(statistics, sound=sound)
        self._write_row(standing, length, sound=sound)
        return way

    def _write_row(self, standing: Standing, length: float, *, sound: bool) -> None:
        """Say where this rank stands, in its row of the header."""
        words = [standing.number, standing.steps, standing.weight, standing.finished]
        words = [*words, bool(self._changed), sound, length, self.lr]
        row = [*map(float, words), *self.statistics.words(), *self.buffers.words()]
        self.header.pack(self._pieces[1], row)

    def _added(self, way: Buckets) -> list[dict[str, float]]:
        """Wait for the sum, the updates in fewer bits where these are asked for; return what each rank says."""
        way.wait()
        if self.coded is not None:
            self.coded.add(self._pieces[0])
        rows = self.header.unpack(self._pieces[1])
        self._check(rows)
        return rows

    @property
    def n_bytes(self) -> int:
        """How many bytes a rank gives to a sum, and gets back, halved."""
        plain = self._payload.nbytes
        return plain if self.coded is None else plain - self._pieces[0].nbytes + self.coded.n_bytes // 2

    def _check(self, rows: list[dict[str, float]]) -> None:
        """Refuse, in all ranks alike, what cannot be averaged; the model is still as it was."""
        if len({row["number"] for row in rows}) > 1:
            raise RankError(
                f"ranks are at syncs {[int(row['number']) for row in rows]}; call step and finish alike in all"
            )
        if any(row["changed"] for row in rows):
            told = self.ranks.everyone(self._changed)
            lines = "; ".join(f"rank {rank}: {words}" for rank, words in enumerate(told) if words)
            raise RankError(f"{self.ranks.doing}: {lines}; make another LocalSGD after such a change, in all ranks")
        blank = [rank for rank, row in enumerate(rows) if not row["finite"]]
        if blank and (not self.skip or len(blank) == len(rows)):
            raise RankError(
                f"{self.ranks.doing}: the update of {_ranks(blank)} is not finite; lower the learning rate, or go on "
                "without with on_failure='skip'"
            )
        known = any(row["weight"] for row in rows)
        if silent := [rank for rank, row in enumerate(rows) if known and row["steps"] and not row["weight"]]:
            raise RankError(f"{_ranks(silent)} gave step() no batch, and others did; give it in all ranks, or in none")

    def _apply(self, rows: list[dict[str, float]], heard: list[dict[str, float]], weights: list[float]) -> Sync:
        """Move everything to what the sum says; return what it says of the ranks."""
        parameters, _, state, statistics, buffers = self._pieces
        found = self.statistics.pooled(statistics, heard, self.ranks.rank, self.ranks.add)
        total = math.fsum(weights)
        length = 0.0
        if any(row["steps"] for row in heard):
            length = self.parameters.apply(parameters, self.scale / total)
            if self.coded is not None:
                self.coded.commit()
        stepped = math.fsum(w for w, row, k in zip(weights, heard, self._apart, strict=True) if row["steps"] or k)
        if not rows[self.ranks.rank]["finite"]:
            self.optimizer.state.clear()  # it holds what is not finite
        self.state.apply(state, stepped / self.scale)
        self.buffers.apply(buffers, total / self.scale, rows)
        for layer, mean, var, batches in found:
            layer.put(mean, var, batches)
        self._rescale(weights)
        self._apart = [0] * self.ranks.world
        return self._said(rows, weights, length, self.n_bytes)

    def _said(self, rows: list[dict[str, float]], weights: list[float], update: float, n_bytes: int) -> Sync:
        """Return what a sync says: its sums had these weights, and moved the parameters by so much."""
        heard, total = _heard(rows), math.fsum(weights)
        drift, agreement = spread([w / total for w in weights], [row["length"] for row in heard], update)
        return Sync(
            number=0,
            steps=tuple(int(row["steps"]) for row in heard),
            drift=drift,
            update=update,
            agreement=agreement,
            left_out=tuple(rank for rank, row in enumerate(rows) if not row["finite"]),
            bytes_up=n_bytes,
            lr=max(row["lr"] for row in rows),
            last=all(row["finished"] for row in rows),
        )

    def _rescale(self, weights: list[float]) -> None:
        """Make weights like these count 1 in the next sum, which saves a pass; what codes have lost counts likewise."""
        heard = [weight for weight in weights if weight]
        scale = math.fsum(heard) / len(heard)
        if self.coded is not None and scale != self.scale:
            self.coded.rescale(self.scale / scale)
        self.scale = scale


def seconds_of(clock: list[float], *phases: str) -> dict[str, float]:
    """Return how long each phase took, given when it began and the last one ended.

    Examples
    --------
    >>> seconds_of([1.0, 3.0, 3.5], "wire", "apply")
    {'wire': 2.0, 'apply': 0.5}
    """
    return dict(zip(phases, (b - a for a, b in pairwise(clock)), strict=True))


def _heard(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return what ranks said, 0 of those that are left out."""
    return [dict(row) if row["finite"] else dict.fromkeys(row, 0.0) for row in rows]


def weights_of(rows: list[dict[str, float]], *, idle: bool) -> list[float]:
    """Return w_m, up to a factor: 0 for ranks that are left out, the mean of the others where none is known.

    Whether one that stood still counts, too, is the question of `idle`.
    """
    known = [row["weight"] for row in rows if row["weight"]]
    unknown = 0.0 if known and not idle else math.fsum(known) / len(known) if known else 1.0
    return [(row["weight"] or unknown) if row["finite"] else 0.0 for row in rows]


def _check_alike(ranks: Ranks, trouble: Exception | None, layout: list[str]) -> None:
    """Refuse in all ranks what one of them refuses, and what is not the same in all."""
    told = ranks.everyone((said(trouble) if trouble else "", layout))
    if trouble is not None:
        raise trouble
    if failed := [f"rank {rank}: {words}" for rank, (words, _) in enumerate(told) if words]:
        raise RankError("; ".join(failed))
    if odd := [rank for rank, (_, other) in enumerate(told) if other != told[0][1]]:
        unlike = [part for k, part in enumerate(PARTS) if any(told[rank][1][k] != told[0][1][k] for rank in odd)]
        raise RankError(f"{_ranks(odd)} had another {listing(unlike)} than rank 0; start the same program")


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {listing([str(rank) for rank in ranks])}"
