"""A pool of processes that measures cells, stops at once when asked to, and never outlives its parent.

One job needs no other process: it measures in this one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from localgd.experiments import experiments
from localgd.experiments.cells import Cell, code_digest, measure
from localgd.report.bar import Bar

LOOK_SECONDS = 0.2
"""How long a signal may wait to be noticed."""


def measured(cells: Sequence[Cell], n_jobs: int, watcher: Bar) -> Iterator[tuple[Cell, str | None]]:
    """Measure cells in `n_jobs` processes; yield each when it is done, with its traceback if it failed.

    It ends early, without a word, if `watcher.interrupted`: what is being measured is given up, what is done has been
    yielded.
    """
    if cells:
        yield from _here(cells, watcher) if n_jobs == 1 else _elsewhere(cells, n_jobs, watcher)


def _work(cell: Cell) -> tuple[Any, ...]:
    """Return what `measure` is to be called with: no more of an experiment than another process can be sent."""
    return cell.experiment.run, cell.params, cell.seed, cell.path, code_digest()


def _here(cells: Sequence[Cell], watcher: Bar) -> Iterator[tuple[Cell, str | None]]:
    for cell in cells:
        watcher.running([str(cell)], alone=True)
        try:
            fault = measure(*_work(cell))
            watcher.running([])
        except KeyboardInterrupt:
            return
        yield cell, fault
        if watcher.interrupted is not None:
            return


def _elsewhere(cells: Sequence[Cell], n_jobs: int, watcher: Bar) -> Iterator[tuple[Cell, str | None]]:
    before = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(n_jobs, len(cells)), mp_context=spawn, initializer=_settle)
    waiting: dict[Future[str | None], Cell] = {}
    try:
        with _without_ctrl_c():  # workers inherit this: Ctrl-C is for the parent to answer
            waiting |= {pool.submit(measure, *_work(cell)): cell for cell in cells}
        while waiting and watcher.interrupted is None:
            watcher.running([str(cell) for cell in list(waiting.values())[:n_jobs]])
            done, _ = wait(waiting, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), _outcome(future)
    finally:
        if waiting:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[str | None]) -> str | None:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, OSError):
        raise error  # a full disk would lose every cell to come
    return f"{type(error).__name__}: {error}\n(its process ended, perhaps for lack of memory: try fewer --n-jobs)"


def _settle() -> None:
    """Prepare a worker: deaf to Ctrl-C, gone when its parent is, with all code read now and not at its first cell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    experiments()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold SIGINT back, here and in the processes started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
