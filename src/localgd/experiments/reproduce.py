"""Run experiments: measure every cell that is not on disk yet, then judge, draw and write each as it gets complete."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import polars as pl

from localgd.experiments import folder
from localgd.experiments.cells import Cell, cells, made_here, prune, versions
from localgd.experiments.claim import Experiment, Result
from localgd.experiments.page import page
from localgd.experiments.pool import measured
from localgd.report.bar import Bar

CELLS, PAGE = "cells", "index.html"

UNFINISHED = "not finished; the same command goes on with it"


class Interrupted(Exception):  # noqa: N818  not an error: the user's wish
    """The user stopped the run by a signal of this number; what is finished is kept."""

    def __init__(self, number: int, n_kept: int, n_cells: int) -> None:
        super().__init__(f"stopped: {n_kept} of {n_cells} cells are kept; the same command goes on from there")
        self.number = number


def reproduce(
    experiments: Mapping[str, Experiment],
    out: Path,
    *,
    quick: bool,
    n_jobs: int,
    progress: Bar,
    leave: Callable[[Sequence[Result]], object] = len,
) -> list[Result]:
    """Run experiments into a folder, new or ours, and return what became of each, in their order.

    The results do not depend on the number of processes, `n_jobs`. `progress` may ask to stop. `leave` is called with
    what is finished, at first and whenever there is more: however the run ends, that has been left.

    Raises
    ------
    ValueError
        If `n_jobs` is below 1 or a grid is not one.
    FileExistsError
        If `out` holds something else, or a file lies on the way to it.
    Interrupted
        If `progress` asked to stop.
    """
    if n_jobs < 1:
        raise ValueError(f"n_jobs must be at least 1, got {n_jobs}")
    results = {name: Result(e, skipped=lack) for name, e in experiments.items() if (lack := missing(e))}
    store = out / CELLS
    todo = {name: e for name, e in experiments.items() if name not in results}
    grids = {name: cells(e, e.quick if quick else e.full, store) for name, e in todo.items()}
    folder.take(out)
    for result in results.values():
        folder.write_failure(out, result.experiment, str(result.skipped), quick=quick, word=result.word)
    for name in grids:
        (store / name).mkdir(parents=True, exist_ok=True)

    def finished(more: Mapping[str, Result]) -> None:
        results.update(more)
        leave([results[name] for name in experiments if name in results])

    _measure(out, grids, finished, quick=quick, n_jobs=n_jobs, progress=progress)
    for name in grids:
        e = experiments[name]
        prune(store / name, {cell.path for grid in (e.quick, e.full) for cell in cells(e, grid, store)})
    return [results[name] for name in experiments]


def publish(
    results: Sequence[Result],
    out: Path,
    *,
    known: Mapping[str, Experiment],
    command: str,
    asked: Mapping[str, Experiment] = MappingProxyType({}),
) -> Path:
    """Write these results, and what earlier runs of the same code left of `known`, on one page; return its path.

    Of those that were `asked` for, the page says which are not finished.
    """
    path = out / PAGE
    found = {result.experiment.name: result for result in results}
    found |= {name: past for name, e in known.items() if name not in found and (past := folder.kept(out, e))}
    found |= {name: Result(e, skipped=UNFINISHED) for name, e in asked.items() if name not in found}
    results = [*(found.pop(name) for name in known if name in found), *found.values()]
    modules = {result.experiment.module for result in results if not result.skipped}
    facts = {name: value for module in sorted(modules, key=str) for name, value in versions(module).items()}
    page(results, {**facts, **made_here()}, path, command=command)
    return path


def missing(experiment: Experiment) -> str | None:
    """Return what an experiment needs that is not installed, and how to get it; None if all is there."""
    if experiment.module is None or find_spec(experiment.module.partition(".")[0]) is not None:
        return None
    return f"{experiment.name} needs the extra {experiment.requires}: pip install 'localgd[{experiment.requires}]'"


def _measure(
    out: Path,
    grids: Mapping[str, list[Cell]],
    finished: Callable[[Mapping[str, Result]], None],
    *,
    quick: bool,
    n_jobs: int,
    progress: Bar,
) -> None:
    """Measure the cells that are not on disk, and finish each experiment with its last cell."""
    n_cells = sum(map(len, grids.values()))
    todo = [cell for grid in grids.values() for cell in grid if cell.read() is None]
    left = Counter(cell.experiment.name for cell in todo)
    kept = n_cells - len(todo)
    progress.begin(n_cells, kept)
    finished({name: _finished(out, grid, None, quick=quick) for name, grid in grids.items() if not left[name]})
    faults: dict[str, str] = {}
    for cell, fault in measured(todo, n_jobs, progress):
        name = cell.experiment.name
        left[name] -= 1
        kept += fault is None
        progress.advance()
        if fault is not None:
            faults.setdefault(name, f"{cell}: {fault.strip().splitlines()[-1]}\n{fault}")
        if not left[name]:
            result = _finished(out, grids[name], faults.get(name), quick=quick)
            finished({name: result})
            progress.say(f"{name}: {result.word}")
    if progress.interrupted is not None and any(left.values()):
        raise Interrupted(progress.interrupted, kept, n_cells)


def _finished(out: Path, grid: list[Cell], fault: str | None, *, quick: bool) -> Result:
    """Judge, draw and write an experiment whose cells are all done."""
    experiment = grid[0].experiment
    if fault is None:
        try:
            # In the order of the grid, whatever process measured a cell and when.
            frame = pl.concat([pl.read_parquet(cell.path) for cell in grid], how="diagonal_relaxed")
            verdict = folder.write(out, experiment, grid, frame, quick=quick)
            return Result(experiment, len(grid), verdict, quick=quick)
        except OSError:
            raise  # a full disk is no fault of the experiment
        except Exception as error:  # noqa: BLE001  a verdict or figure that fails must not end the others
            fault = f"{experiment.name}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
    folder.write_failure(out, experiment, fault, quick=quick)
    return Result(experiment, len(grid), fault=fault, quick=quick)
