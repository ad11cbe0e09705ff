"""Syncs whose sum is on its way while local steps go on, and is used one sync later."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from localgd.errors import extra
from localgd.nets.exchange import Beside, Exchange, Standing, seconds_of, weights_of
from localgd.nets.parameters import length_of
from localgd.nets.record import Sync

with extra("torch", "torch"):
    import torch


class Overlapping(Exchange):
    """An exchange that moves parameters one sync late, and all the rest where all ranks have finished.

    With p_m the progress of rank m in one period, and p'_m that in the next, while the sum was on its way::

        anchor ← anchor + outer(Σ w_m p_m)
        x_m ← anchor + p'_m

    So ranks differ by their progress in one period, and are at the anchor once nothing is on its way. Optimizer state,
    statistics and buffers are each rank's own until then.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._start = self.parameters.anchor.clone()
        self._sum = self._payload[: self.parameters.size + self.header.size]
        self._sent: int | None = None
        self._wait: Callable[[], object] = bool  # for nothing

    @torch.no_grad()
    def pass_on(self, standing: Standing, beside: Beside | None = None) -> Sync | None:  # noqa: ARG002  refused
        """Use the sum that is on its way, and send this rank's progress; return what there is to say of the first.

        Nothing is sent once all ranks have finished.
        """
        clock, number, rows = [time.perf_counter()], self._sent, self._arrived()
        clock.append(time.perf_counter())
        weights = weights_of(rows, idle=self.idle) if rows else []
        moved = any(row["steps"] for row in rows if row["finite"])
        factor = self.scale / math.fsum(weights) if moved else None
        last = bool(rows) and all(row["finished"] for row in rows)
        self._changed, length = self.layout.changed(), self._length()
        sound = math.isfinite(length) and not self._changed
        if rows:
            self._rescale(weights)
        if not sound and self.skip:
            self.optimizer.state.clear()  # it holds what is not finite
        share = (standing.weight or self.scale) / self.scale if sound and not last else 0.0
        update = self._turn(factor, share, keep=sound or not self.skip)
        self._sent = None
        if not last:
            self._write_row(standing, length, sound=sound)
            self._wait, self._sent = self.ranks.begin(self._sum), standing.number
        clock.append(time.perf_counter())
        if number is None:
            return None
        sync = self._said(rows, weights, update, self._sum.nbytes)
        self._apart = [a + k for a, k in zip(self._apart, sync.steps, strict=True)]
        return replace(sync, number=number, seconds=seconds_of(clock, "wire", "apply"))

    def sync(self, standing: Standing, beside: Beside | None = None) -> Sync:
        """Bring all ranks to one model, nothing being on its way."""
        sync = super().sync(standing, beside)
        self._start.copy_(self.parameters.anchor)
        return sync

    def state_dict(self) -> dict[str, Any]:
        """Return all that a rank needs to go on from here, where all ranks are at the same sync."""
        self._arrived()
        way = {"sent": self._sent, "sum": self._sum if self._sent is not None else None, "start": self._start}
        return {**super().state_dict(), "way": way}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._start.copy_(state["way"]["start"])
        for tensor, at in self.parameters.places.views(self._start):
            tensor.detach().copy_(at)
        self._sent, self._wait = state["way"]["sent"], bool
        if self._sent is not None:
            self._sum.copy_(state["way"]["sum"])

    def _arrived(self) -> list[dict[str, float]]:
        """Wait for the sum that is on its way; return what each rank said with it."""
        if self._sent is None:
            return []
        self.ranks.doing = f"sync {self._sent}"
        self._wait()
        self._wait = bool
        rows = self.header.unpack(self._pieces[1])
        self._check(rows)
        return rows

    def _length(self) -> float:
        """Return the length of this rank's progress, NaN or infinite where it is not finite."""
        pieces = self.parameters.places.pieces(self._start)
        return length_of([torch.linalg.vector_norm(_progress(x, start)) for x, start in pieces])

    def _turn(self, factor: float | None, share: float, *, keep: bool) -> float:
        """Use a sum, factor times as long, if there is one, and put a share of this rank's progress in its place.

        Progress that is not kept is given up. Returns the length of the mean progress.
        """
        whole, lengths = self.parameters, []
        for x, at, anchor, memory, start in whole.places.pieces(
            self._pieces[0], whole.anchor, whole.memory, self._start
        ):
            progress = _progress(x, start) if keep else torch.zeros_like(start)
            if factor is not None:
                lengths.append(torch.linalg.vector_norm(at))
                whole.outer.move(anchor, at, memory, factor)
            x.copy_(torch.add(anchor, progress, out=start))
            if share:
                torch.mul(progress, share, out=at)
            else:
                at.zero_()
        return 0.0 if factor is None else factor * length_of(lengths)


def _progress(x: Any, start: Any) -> Any:
    """Return how far a tensor came since the start, which the model holds as rounded to its own dtype."""
    return x.to(start.dtype) - start.to(x.dtype)
