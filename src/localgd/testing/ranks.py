"""Ranks for a test: processes that form a process group, each of which runs one function."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from localgd.errors import MissingExtraError, check_positive, check_whole, extra

GRACE = 5.0
"""Seconds that the others have to end when one rank has failed."""


def in_ranks(function: Callable[..., Any], *args: Any, world: int = 2, timeout: float = 300.0) -> list[Any]:
    """Run a function in each of several new processes that form a process group (gloo); return what each returned.

    The function may be a lambda, or a part of a test: it is sent with what it refers to. `torch.distributed` is ready
    where it runs, so ``dist.get_rank()`` says which rank it is in.

    Parameters
    ----------
    function : callable
        What every rank runs.
    *args : object
        What it is given, the same in all ranks.
    world : int, at least 1
        How many ranks there are.
    timeout : float > 0
        Seconds until ranks that have not ended are stopped.

    Returns
    -------
    list
        What the function returned in each rank, in their order.

    Raises
    ------
    AssertionError
        If an assertion failed in a rank; names the rank.
    RuntimeError
        If a rank failed otherwise, ended or did not end in time; the traceback of the rank is a note to it.

    Examples
    --------
    >>> def total():
    ...     import torch
    ...
    ...     number = torch.tensor([torch.distributed.get_rank() + 1])
    ...     torch.distributed.all_reduce(number)
    ...     return number.item()

    ``in_ranks(total, world=3)`` is ``[6, 6, 6]``.
    """
    check_whole("world", world, 1)
    check_positive("timeout", timeout)
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch")
    with tempfile.TemporaryDirectory(prefix="localgd-ranks-") as place:
        folder = Path(place)
        (folder / "task").write_bytes(sent(function, args))
        codes = _ended(folder, world, timeout)
        if failed := [rank for rank in range(world) if codes.get(rank) != 0]:
            raise _failure(folder, _first(folder, failed, codes), codes, timeout)
        # written by processes of our own, in a folder of our own
        return [pickle.loads((folder / f"answer-{rank}").read_bytes()) for rank in range(world)]  # noqa: S301


def _first(folder: Path, failed: list[int], codes: dict[int, int]) -> int:
    """Return the rank that failed first: one that was killed, or the first to say why; others fail of its absence."""
    told = {rank: folder / f"error-{rank}" for rank in failed}
    times = {rank: path.stat().st_mtime_ns for rank, path in told.items() if path.exists()}
    killed = [rank for rank in failed if rank in codes and rank not in times]
    return killed[0] if killed else min(times, key=times.__getitem__, default=failed[0])


def _failure(folder: Path, rank: int, codes: dict[int, int], timeout: float) -> Exception:
    """Return what a rank failed of, as an error."""
    output = (folder / f"output-{rank}").read_text(encoding="utf-8", errors="replace").rstrip()
    if (error := folder / f"error-{rank}").exists():
        kind, _, said = error.read_text(encoding="utf-8").partition("\n")
        asserted = kind == "AssertionError"
        failure = AssertionError(f"rank {rank}: {said}") if asserted else RuntimeError(f"rank {rank}: {kind}: {said}")
    else:
        why = (
            f"ended with code {codes[rank]}" if rank in codes else f"did not end within {timeout:g} s, and was stopped"
        )
        failure = RuntimeError(f"rank {rank} {why}")
    if output:
        failure.add_note(f"rank {rank} wrote:\n{output}")
    return failure


def _ended(folder: Path, world: int, timeout: float) -> dict[int, int]:
    """Start the ranks and wait for them; return the exit codes of those that came to an end by themselves."""
    environment = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "WORLD_SIZE": str(world),
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
    command = [sys.executable, "-m", "localgd.testing.each_rank", str(folder), str(timeout)]
    started: list[subprocess.Popen[bytes]] = []
    codes: dict[int, int] = {}
    end = time.monotonic() + timeout
    try:
        for rank in range(world):
            with (folder / f"output-{rank}").open("wb") as output:
                own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                started.append(subprocess.Popen(command, env=own, stdout=output, stderr=subprocess.STDOUT))  # noqa: S603
        while len(codes) < world and time.monotonic() < end:
            time.sleep(0.02)
            for rank, process in enumerate(started):
                if rank not in codes and process.poll() is not None:
                    codes[rank] = process.returncode
                    if process.returncode:
                        end = min(end, time.monotonic() + GRACE)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return codes


def sent(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Return a function and its arguments as bytes; what is of modules that no other process finds goes along."""
    with extra("torch", "cloudpickle"):
        import cloudpickle  # noqa: PLC0415  nobody who has no torch has it

    with _by_value(cloudpickle, [function, *args]):
        try:
            return bytes(cloudpickle.dumps((function, args)))
        except (TypeError, pickle.PicklingError) as error:
            raise TypeError(
                f"{function!r} cannot be sent to other processes, with what it refers to: {error}"
            ) from error


@contextmanager
def _by_value(cloudpickle: Any, things: list[Any]) -> Iterator[None]:
    inner = [getattr(thing, "func", thing) for thing in things]  # of a functools.partial
    modules = {sys.modules.get(getattr(thing, "__module__", None) or "") for thing in inner}
    strange = [module for module in modules if module is not None and not found(module)]
    for module in strange:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in strange:
            cloudpickle.unregister_pickle_by_value(module)


def found(module: ModuleType) -> bool:
    """Return whether another process with this path finds a module by its name: pytest loads tests in other ways, too.

    Examples
    --------
    >>> found(pickle), found(ModuleType("test_of_mine"))
    (True, False)
    """
    if module.__name__ in sys.builtin_module_names:
        return True
    path, name, spec = None, "", None
    for part in module.__name__.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    own = getattr(module, "__file__", None)
    return spec is not None and spec.origin is not None and own is not None and Path(own) == Path(spec.origin)
