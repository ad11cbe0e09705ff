"""What several experiments measure the same way: federations by name, their pooled answers, rounds on a log scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.partition import partition
from localgd.data.prepare import prepare
from localgd.data.synthetic import KNOWN, gaussian_problem
from localgd.data.table import Table
from localgd.engine.inprocess import InProcess
from localgd.methods.method import Method
from localgd.reference.max_margin import MaxMargin, max_margin
from localgd.reference.minimiser import minimiser
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.rules.local import GradientSteps
from localgd.rules.probes import measured
from localgd.run.history import Run


@cache
def federation(data: str, split: str | None = None, n_nodes: int = 5, seed: int = 0) -> InProcess:
    """Return a named Gaussian problem or a bundled set, prepared its own way; `split` deals its rows anew.

    Examples
    --------
    >>> federation("golub", "by_label", 5).node_ids[:2], len(federation("hard").node_ids)
    (('node-0', 'node-1'), 10)
    """
    if data in KNOWN:
        if split is not None:
            raise ValueError(f"{data} has no labels to deal its rows by; use a bundled set")
        return InProcess(gaussian_problem(data))
    tables = load_dataset(data)
    if split is not None:
        whole, _ = prepare(InProcess(tables), **DATASETS[data].options)
        return InProcess(dealt(list(whole.shards.values()), split, n_nodes, seed))
    return prepare(InProcess(tables), **DATASETS[data].options)[0]


def dealt(shards: Sequence[Shard], split: str, n_nodes: int, seed: int) -> list[Shard]:
    """Return the same signed rows, dealt anew over nodes by a partitioner (labels are the signs of the last column)."""
    rows = stacked(shards)
    table = Table("all", rows, np.sign(rows[:, -1]))
    parts: list[Any] = partition(table, split, n_nodes, seed=seed)
    return [Shard(part.node_id, part.features) for part in parts]


def stacked(shards: Sequence[Shard]) -> FloatArray:
    """Return all rows in one array: what a federation cannot do, and an experiment may."""
    held: list[Any] = [shard.rows for shard in shards]
    return np.vstack([rows if isinstance(rows, np.ndarray) else rows.toarray() for rows in held])


@cache
def pooled(data: str) -> MaxMargin:
    """Return the exact max-margin answer of a separable federation; however its rows are dealt, it is the same."""
    return max_margin(stacked(list(federation(data).shards.values())))


def pooled_minimiser(shards: Sequence[Shard]) -> FloatArray:
    """Return the pooled minimiser of the logistic loss with equal node weights, for rows that are not separable."""
    weights = np.concatenate([np.full(shard.n_rows, 1 / (len(shards) * shard.n_rows)) for shard in shards])
    return minimiser(stacked(shards), weights)


def spaced(n_rounds: int, each: int = 12) -> list[int]:
    """Return rounds 1, 2, … n_rounds, `each` a decade.

    Examples
    --------
    >>> spaced(100, each=3)
    [1, 2, 5, 10, 22, 46, 100]
    """
    count = int(np.ceil(each * np.log10(max(n_rounds, 1)))) + 1
    return sorted({round(float(k)) for k in np.geomspace(1, n_rounds, count)})


def step_size(run: Run) -> float:
    """Return the step size η a run used."""
    task = run.method.task
    if not isinstance(task, GradientSteps) or isinstance(task.lr, str):
        raise TypeError(f"{run.method.name} has no step size")
    return task.lr


def scaled(method: Method, engine: InProcess, factor: float) -> Method:
    """Return a method whose step size is `factor` times the one it would choose."""
    tuned = method.bind(method.problem, engine, measured(engine))
    if not isinstance(tuned.task, GradientSteps) or isinstance(tuned.task.lr, str):
        raise TypeError(f"{method.name} has no step size")
    return replace(tuned, task=replace(tuned.task, lr=factor * tuned.task.lr))
