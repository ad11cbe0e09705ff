"""The ranks that train one network: sums over them, and in words who is missing when one is."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from typing import Any

from localgd.engine.processes import Processes
from localgd.errors import extra, listing, said

with extra("torch", "torch"):
    import torch
    from torch import distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

PATIENCE = 10.0
"""Seconds, at most, in which the ranks that noticed a failure tell each other so."""

STORE = "the rank that keeps torch's store ended, or hangs (rank 0, unless torchrun keeps it)"

_RUNS = itertools.count()


@cache
def _group(timeout: float, whole: Any) -> Any:  # noqa: ARG001  a program may join, leave and join again
    """Return a group of this timeout that adds up where the model lies, one for all: each holds threads."""
    return dist.new_group(timeout=timedelta(seconds=timeout))


class RankError(RuntimeError):
    """A rank ended, hangs, left with an error, or holds what others do not; the model is as it was before the sync."""


class Ranks:
    """All ranks of the program: each method is to be called by all of them, in the same order.

    Raises
    ------
    RuntimeError
        If there is no process group.
    """

    def __init__(self, timeout: float) -> None:
        self._processes = Processes(timeout)
        self.timeout, (self.rank, self.world) = timeout, self._processes.place
        self.doing, self._patience = "start", min(PATIENCE, timeout)
        self._store = PrefixStore(f"localgd/nets/{next(_RUNS)}", _get_default_store())
        self._group = self._call(_group, timeout, dist.group.WORLD)

    def add(self, numbers: Any) -> None:
        """Put the sum over all ranks in the place of every number."""
        self._call(dist.all_reduce, numbers, group=self._group)

    def begin(self, numbers: Any) -> Callable[[], object]:
        """Have the sum over all ranks come into the place of every number, and go on; return what waits for it."""
        work = self._call(dist.all_reduce, numbers, group=self._group, async_op=True)
        return partial(self._call, work.wait)

    def exchanged(self, rows: Any) -> Any:
        """Return the row that each rank has for this one; row r of a (world, n) tensor is for rank r."""
        held = torch.empty_like(rows)
        self._call(dist.all_to_all_single, held, rows, group=self._group)
        return held

    def gathered(self, row: Any) -> Any:
        """Return the row that each rank gives, (world, n)."""
        held = row.new_empty((self.world, len(row)))
        self._call(dist.all_gather, list(held.unbind()), row, group=self._group)
        return held

    def first(self, tensors: list[Any]) -> None:
        """Put the numbers of rank 0 in the place of everyone's."""
        for tensor in tensors:
            self._call(dist.broadcast, tensor, src=0, group=self._group)

    def everyone(self, value: Any) -> list[Any]:
        """Return what each rank gives: values that JSON has."""
        told = self._call(self._processes.everyone, json.dumps(value).encode())
        return [json.loads(words) for words in told]

    def leave(self, error: BaseException) -> None:
        """Tell the others, when they ask, that this rank left, and why."""

        def tell() -> str:
            with suppress(RuntimeError):  # a lost store has nobody left to be told
                self._store.set(f"left/{self.rank}", said(error))
            return ""

        _within(self._patience, tell)

    def _call(self, collective: Callable[..., Any], *args: Any, **options: Any) -> Any:
        begin = time.monotonic()
        try:
            return collective(*args, **options)
        except RuntimeError as error:  # what gloo, NCCL and the store raise
            waited = f"after {time.monotonic() - begin:.2g} s, of {self.timeout:g} at most"
            why = _within(2 * self._patience, self._missing) or STORE
            raise RankError(f"{self.doing}: {why} ({waited}); go on from the last checkpoint") from error

    def _missing(self) -> str:
        """Return who does not say in time that the sync failed there, too."""
        end, missing = time.monotonic() + self._patience, list[int]()
        try:
            self._store.set(f"failed/{self.doing}/{self.rank}", "")
            while time.monotonic() < end:
                missing = [r for r in range(self.world) if not self._store.check([f"failed/{self.doing}/{r}"])]
                left = [r for r in missing if self._store.check([f"left/{r}"])]
                if len(missing) == len(left):
                    break
                time.sleep(0.02)
            if left:
                return "; ".join(f"rank {r} left: {self._store.get(f'left/{r}').decode()}" for r in left)
        except RuntimeError:
            return STORE
        if not missing:
            return "the connection between ranks failed, though all of them are there"
        who = listing([f"{rank}" for rank in missing])
        return f"rank {who} ended, or hangs" if len(missing) == 1 else f"ranks {who} ended, or hang"


def _within(seconds: float, ask: Callable[[], str]) -> str:
    """Return the answer, "" if there is none in time: a store whose keeper hangs answers nothing, ever."""
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else ""
