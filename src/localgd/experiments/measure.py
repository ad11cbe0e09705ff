"""What several experiments do the same way: grids, federations by name, their pooled answers, rounds, lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.partition import partition
from localgd.data.prepare import prepare
from localgd.data.synthetic import KNOWN, gaussian_problem
from localgd.data.table import Table
from localgd.engine.inprocess import InProcess
from localgd.experiments.claim import Params
from localgd.kernels.project import dense
from localgd.many.by_node import ByNode
from localgd.methods.method import Method
from localgd.reference.max_margin import MaxMargin, max_margin
from localgd.reference.minimiser import minimiser
from localgd.report.figure import Line, Style
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.rules.local import GradientSteps
from localgd.rules.probes import measured
from localgd.run.history import Row


def grid(**axes: Iterable[Any]) -> list[Params]:
    """Return a cell for every choice of one value each; the last name varies fastest.

    Examples
    --------
    >>> grid(data=["golub"], local_steps=(1, 10))
    [{'data': 'golub', 'local_steps': 1}, {'data': 'golub', 'local_steps': 10}]
    """
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


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
    whole, _ = prepare(InProcess(load_dataset(data)), **DATASETS[data].options)
    return whole if split is None else InProcess(dealt(whole.shards.values(), split, n_nodes, seed))


def dealt(shards: Iterable[Shard], split: str, n_nodes: int, seed: int) -> list[Shard]:
    """Return the same signed rows, dealt anew over nodes by a partitioner (labels are the signs of the last column)."""
    rows = stacked(shards)
    table = Table("all", rows, np.sign(rows[:, -1]))
    parts: list[Any] = partition(table, split, n_nodes, seed=seed)
    return [Shard(part.node_id, part.features) for part in parts]


def stacked(shards: Iterable[Any]) -> FloatArray:
    """Return all rows in one array: what a federation cannot do, and an experiment may."""
    return np.vstack([dense(shard.rows) for shard in shards])


@cache
def pooled(data: str) -> MaxMargin:
    """Return the exact max-margin answer of a separable federation; however its rows are dealt, it is the same."""
    return max_margin(stacked(federation(data).shards.values()))


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


def step_size(method: Method) -> float:
    """Return the step size η of a method that has one, as that of a run has."""
    if not isinstance(method.task, GradientSteps) or isinstance(method.task.lr, str | ByNode):
        raise TypeError(f"{method.name} has no step size of all nodes")
    return method.task.lr


def scaled(method: Method, engine: InProcess, factor: float) -> Method:
    """Return a method whose step size is `factor` times the one it would choose."""
    tuned = method.bind(method.problem, engine, measured(engine))
    task: Any = tuned.task
    return replace(tuned, task=replace(task, lr=factor * step_size(tuned)))


def angles(row: Row) -> dict[str, Any]:
    """Return the round of a row of a history, the angle to the pooled model, and the one that is certified."""
    return {"round": row.round, "angle_deg": row.true_angle_deg, "certified_deg": row.angle_deg_max}


def over_certified(frame: pl.DataFrame) -> pl.Series:
    """Return true minus certified angle wherever one is certified: above 0 it would be no proof."""
    certified = frame.filter(pl.col("certified_deg").is_not_nan())
    return certified["angle_deg"] - certified["certified_deg"]


def at_quarter(frame: pl.DataFrame, cell: Sequence[str], rounds: str) -> pl.DataFrame:
    """Return the angle of every cell about a quarter of the way (`before_deg`); `rounds` names how many it has."""
    early = frame.filter(pl.col("round") <= pl.col(rounds) / 4).sort("round")
    return early.group_by(cell).agg(before_deg=pl.col("angle_deg").last())


def in_points(points: float) -> str:
    """Return a difference in percentage points with its sign.

    Examples
    --------
    >>> in_points(-0.25), in_points(1)
    ('−0.2', '+1.0')
    """
    return f"{points:+.1f}".replace("-", "−")


def lines(
    frame: pl.DataFrame,
    by: str,
    x: str,
    y: str,
    names: str | Mapping[Any, str] = "{}",
    *,
    color: int = 0,
    style: Style = "line",
) -> list[Line]:
    """Return a line for every value of a column, in the order they come or that of `names`, each in the next colour.

    `names` gives every value its label, or is a pattern to put the value in.
    """
    if isinstance(names, str):
        names = {value: names.format(value) for value in frame[by].unique(maintain_order=True)}
    parts = [frame.filter(pl.col(by).eq_missing(pl.lit(value))) for value in names]
    shown = enumerate(zip(names.values(), parts, strict=True), start=color)
    return [Line(part[x], part[y], name, place, style) for place, (name, part) in shown]
