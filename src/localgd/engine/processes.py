"""What processes that run the same program tell each other, over torch.distributed: numbers and text, never pickles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, Literal

from localgd.engine.packing import Rank
from localgd.errors import EngineError, extra
from localgd.rounding import FloatArray

with extra("torch", "torch"):
    import torch
    import torch.distributed as dist

TIMEOUT = 300.0
"""Seconds that a process waits for the others: longer than any node works in a round."""

WORTH_HALVES = 2**18
"""Numbers from which two all-reduces of half of them, both on their way at once, are faster than one."""

MOST_BYTES = 2**30
"""Of one text: a size beyond it is no size that this program sends."""


@contextmanager
def torch_processes(*, device: Literal["cpu", "cuda"] = "cpu", timeout: float = TIMEOUT) -> Iterator[Rank]:
    """Join the processes that torchrun started, and leave them at the end.

    Parameters
    ----------
    device : "cpu" or "cuda"
        Add up by gloo on the processors, or large sums by NCCL on one GPU per process.
    timeout : float > 0
        Seconds to wait for the others to join.

    Yields
    ------
    Rank
        ``rank`` of this process, from 0, and the ``world``: how many there are. Process 0 leads.

    Raises
    ------
    RuntimeError
        If torchrun did not start this process, or there is no such device.

    Examples
    --------
    ``torchrun --nproc-per-node 4 program.py`` with a program such as::

        with torch_processes() as (rank, world):
            engine = TorchDistributed(shards[rank::world])  # a process reads its own nodes only
            run = train(engine, auto())
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} is not set; start with: torchrun --nproc-per-node 2 PROGRAM")
    if device == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("device='cuda', but torch sees no GPU here; leave it out to add up on the processors")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    with _heard("start", timeout):
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield Rank(dist.get_rank(), dist.get_world_size())
        with _heard("end", timeout):
            dist.barrier()  # who leaves early would cut the others off
    finally:
        dist.destroy_process_group()


@contextmanager
def _heard(doing: str, timeout: float) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and torch's store raise
        raise EngineError(
            doing,
            f"another process ended, or gave no answer within {timeout:g} s; where there are checkpoints, go on from "
            "the last one with `localgd resume RUN`, or by starting your program again",
        ) from error


@cache
def _gloo(timeout: float, whole: Any) -> Any:  # noqa: ARG001  a program may join, leave and join again
    """Return a group of this timeout, one for all engines: each holds threads and connections.

    All but large sums on GPUs goes by it, so whoever ended or hangs is noticed within that time.
    """
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))


class Processes:
    """All processes of the program: each method is to be called by all of them, in the same order.

    A process waits `timeout` seconds for the others; it is a RuntimeError if there is no process group.
    """

    def __init__(self, timeout: float) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout!r}")
        if not dist.is_initialized():
            raise RuntimeError("there is no process group; use `with torch_processes():`, and start with torchrun")
        self.timeout = timeout
        self.doing = "start"
        self.place = Rank(dist.get_rank(), dist.get_world_size())
        self._group = self._call(_gloo, timeout, dist.group.WORLD)
        self._on_gpu = "nccl" in str(dist.get_backend_config())

    def _call(self, collective: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with _heard(self.doing, self.timeout):
            return collective(*args, **options)

    def add(self, numbers: FloatArray, meanwhile: Callable[[], None]) -> None:
        """Put the sum of every number over all processes in its place.

        `meanwhile` may still write to the last half of them: of large ones, while the first half is on its way.
        """
        here = torch.from_numpy(numbers)
        if self._on_gpu:
            self.agreed(())  # a lost process is noticed here: NCCL would end this one, too
            meanwhile()
            there = here.cuda()
            self._call(dist.all_reduce, there)
            here.copy_(there)
        else:
            self._call(self._add_halves, here, meanwhile)

    def _add_halves(self, numbers: Any, meanwhile: Callable[[], None]) -> None:
        half = len(numbers) // 2 if len(numbers) >= WORTH_HALVES else 0
        first = dist.all_reduce(numbers[:half], group=self._group, async_op=True) if half else None
        meanwhile()
        dist.all_reduce(numbers[half:], group=self._group)
        if first is not None:
            first.wait()

    def everyone(self, content: bytes) -> list[bytes]:
        """Return what each process gives, in the order of their ranks."""
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.place.world)]
        self._call(dist.all_gather, sizes, torch.tensor([len(content)]), group=self._group)
        lengths = [self._checked(int(size)) for size in sizes]
        most = max(lengths)
        if most == 0:
            return [b""] * self.place.world
        padded = torch.frombuffer(bytearray(content.ljust(most, b"\0")), dtype=torch.uint8)
        held = [torch.empty(most, dtype=torch.uint8) for _ in range(self.place.world)]
        self._call(dist.all_gather, held, padded, group=self._group)
        return [there.numpy()[:length].tobytes() for there, length in zip(held, lengths, strict=True)]

    def first(self, content: bytes) -> bytes:
        """Return what process 0 gives."""
        size = torch.tensor([len(content)])
        self._call(dist.broadcast, size, src=0, group=self._group)
        held = torch.zeros(self._checked(int(size)), dtype=torch.uint8)
        if self.place.rank == 0 and content:
            held.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        if len(held):
            self._call(dist.broadcast, held, src=0, group=self._group)
        return held.numpy().tobytes()

    def agreed(self, wishes: tuple[bool, ...]) -> tuple[bool, ...]:
        """Return which of these any process wishes; with none, wait for all of them."""
        votes = torch.tensor([0, *wishes], dtype=torch.int64)
        self._call(dist.all_reduce, votes, group=self._group)
        return tuple((votes[1:] > 0).tolist())

    def _checked(self, size: int) -> int:
        if not 0 <= size <= MOST_BYTES:
            raise EngineError(self.doing, f"a process sends {size} bytes at once, which none of this program does")
        return size
