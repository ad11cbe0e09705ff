"""Ranks that are threads of this process: what depends on their order of events can be tried out one by one."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch

from localgd.nets import local_sgd


class ThreadRanks:
    """What `localgd.nets.ranks.Ranks` is to processes."""

    timeout, doing = 30.0, "start"

    def __init__(self, rank, barrier, held):
        self.rank, self.world, self._barrier, self._held = rank, len(held), barrier, held

    def _told(self, value):
        self._held[self.rank] = value
        self._barrier.wait()
        told = list(self._held)
        self._barrier.wait()
        return told

    def everyone(self, value):
        return [json.loads(words) for words in self._told(json.dumps(value))]

    def add(self, numbers):
        numbers.copy_(sum(self._told(numbers.clone())))

    def begin(self, numbers):
        total = sum(self._told(numbers.clone()))
        return lambda: numbers.copy_(total)

    def exchanged(self, rows):
        return torch.stack([told[self.rank] for told in self._told(rows.clone())])

    def gathered(self, row):
        return torch.stack(self._told(row.clone()))

    def first(self, tensors):
        for tensor in tensors:
            tensor.copy_(self._told(tensor.clone())[0])

    def tell(self, where):
        pass

    def calling(self, call):  # noqa: ARG002
        return nullcontext()

    def leave(self, error):  # noqa: ARG002
        self._barrier.abort()


def in_threads(monkeypatch, world, do):
    """Return what ``do(rank)`` does in each of so many ranks; raise the first error that is not one of waiting."""
    barrier, held, own = threading.Barrier(world, timeout=30), [None] * world, threading.local()
    monkeypatch.setattr(local_sgd, "Ranks", lambda _: ThreadRanks(own.rank, barrier, held))

    def begun(rank):
        own.rank = rank
        try:
            return do(rank)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        ended = [pool.submit(begun, rank) for rank in range(world)]
    errors = [done.exception() for done in ended if done.exception()]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [done.result() for done in ended]
