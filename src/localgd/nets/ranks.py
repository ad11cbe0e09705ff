"""The ranks that train one network: sums over them, and in words who is missing when one is."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

LATE = 0.9
"""Part of the timeout from which a rank that is missing may just take longer."""

MORE = "; where a rank may need longer, as to evaluate, give LocalSGD a larger timeout"

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
        self._where = ""
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

    def tell(self, where: str) -> None:
        """Keep where this rank is in torch's store, for others who miss it; once for as long as it is there."""
        if where != self._where:
            self._where = where
            with suppress(RuntimeError):  # of a lost store the next sum will tell
                self._store.set(f"where/{self.rank}", where)

    @contextmanager
    def calling(self, call: str) -> Iterator[None]:
        """Have others know that this rank is in a call, and that it came out of it."""
        self.doing = call
        self.tell(f"in {call}")
        yield
        self.tell(f"past {call}")

    def _call(self, collective: Callable[..., Any], *args: Any, **options: Any) -> Any:
        begin = time.monotonic()
        try:
            return collective(*args, **options)
        except RuntimeError as error:  # what gloo, NCCL and the store raise
            waited = time.monotonic() - begin
            late = waited >= LATE * self.timeout
            why = _within(2 * self._patience, lambda: self._missing(late=late)) or STORE
            took = f"after {waited:.2g} s, of {self.timeout:g} at most"
            raise RankError(f"{self.doing}: {why} ({took}); go on from the last checkpoint") from error

    def _missing(self, *, late: bool) -> str:
        """Return who does not say in time that the sync failed there, too, and where it was last."""
        end, missing = time.monotonic() + self._patience, list[int]()
        try:
            self._store.set(f"failed/{self.doing}/{self.rank}", f"{late:d}")
            self._store.set(f"failed/{self.rank}", self.doing)
            while time.monotonic() < end:
                missing = [r for r in range(self.world) if not self._store.check([f"failed/{self.doing}/{r}"])]
                left = [r for r in missing if self._store.check([f"left/{r}"])]
                elsewhere = [r for r in missing if r not in left and self._store.check([f"failed/{r}"])]
                if len(missing) == len(left) + len(elsewhere):
                    break
                time.sleep(0.02)
            if left:
                return "; ".join(f"rank {r} left: {self._store.get(f'left/{r}').decode()}" for r in left)
            if elsewhere:
                others = [f"rank {r} is {self._told(r)}" for r in elsewhere]
                return f"{listing(others)}, and this rank is {self._where}: call these alike in all ranks"
            if not missing:
                return self._all_there()
            where = [f"rank {r} was last known {self._told(r)}" for r in missing]
        except RuntimeError:
            return STORE
        several = len(missing) > 1
        ended = f"{_named(missing)} ended, or hang{'' if several else 's'}"
        if not late:
            return ended
        finish = "; finish() lasts until every rank calls it" if self._where == "in finish()" else ""
        busy = f"{'are' if several else 'is'} at work elsewhere, as in an evaluation"
        return f"{ended}, or {busy}; {listing(where)}{finish}{MORE}"

    def _told(self, rank: int) -> str:
        """Return where a rank said that it was."""
        key = f"where/{rank}"
        return self._store.get(key).decode() if self._store.check([key]) else "at the start"

    def _all_there(self) -> str:
        """Return why all ranks failed at the same place: some may have come when others had given up."""
        late = [self._store.get(f"failed/{self.doing}/{r}") == b"1" for r in range(self.world)]
        if all(late) or not any(late):
            return "the connection between ranks failed, though all of them are there"
        first, slow = ([r for r in range(self.world) if late[r] == had] for had in (True, False))
        return (
            f"{_named(slow)} came only after {_named(first)} had waited as long as timeout={self.timeout:g} lets{MORE}"
        )


def _named(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {listing([f'{rank}' for rank in ranks])}"


def _within(seconds: float, ask: Callable[[], str]) -> str:
    """Return the answer, "" if there is none in time: a store whose keeper hangs answers nothing, ever."""
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else ""
