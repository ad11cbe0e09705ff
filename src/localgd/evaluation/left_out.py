"""How well a model does at a node that took no part in its training: one training without each, in shared rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from localgd.core import Engine
from localgd.data.holdout import left_out
from localgd.data.unmet import ByColumn, unmet
from localgd.engine.lanes import AT_ONCE, Together
from localgd.errors import NodeError, check_kind, check_whole
from localgd.errors import plain as plain_line
from localgd.evaluation.evaluate import evaluate
from localgd.evaluation.measures import UNKNOWN, ClassMetrics, Interval, NumberMetrics, plain

if TYPE_CHECKING:
    from localgd.data.model import Model


@dataclass(frozen=True, eq=False)
class LeftOut:
    """How models do, each at the node that it was trained without.

    Parameters
    ----------
    nodes : mapping from node to ClassMetrics or NumberMetrics
        That of the model of all other nodes, on the rows of this one.
    missing : mapping from node to str
        Nodes of which nothing can be told, and why.
    n_rounds : int
        Rounds that all of it took.
    unmet : mapping from node to mapping from column to int or None
        In how many of its rows a node has a category that none of the others has, which is read as none, or a value of
        a column that none of them has; None where they are fewer than `min_group`.
    """

    nodes: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    n_rounds: int = 0
    unmet: ByColumn = field(default_factory=dict)

    @property
    def of_classes(self) -> bool:
        """Whether the models tell classes apart, and do not predict numbers."""
        return all(isinstance(found, ClassMetrics) for found in self.nodes.values())

    @property
    def weights(self) -> dict[Any, float]:
        """The weight of each class, over all nodes."""
        out: dict[Any, float] = {}
        for found in self.nodes.values():
            for label, weight in zip(found.classes, found.weights.tolist(), strict=True):
                out[label] = out.get(label, 0.0) + weight
        return out

    @property
    def majority(self) -> float:
        """The accuracy over all rows of whoever always says the most frequent class."""
        weights = list(self.weights.values())
        return max(weights) / sum(weights)

    @property
    def accuracy(self) -> Interval:
        """Share of all rows that are decided to be of their class, each by the model without its node."""
        return _mean([(float(of.weights.sum()), of.decisions[0].accuracy) for of in self.nodes.values()])

    @property
    def auc(self) -> Interval:
        """The mean over the nodes of the area under the ROC curve, where it has a meaning."""
        return _mean([(1.0, found.auc) for found in self.nodes.values() if not math.isnan(found.auc.low)])

    def mean(self, name: str) -> float:
        """Return the mean over all rows of a mean over rows, such as ``log_loss``, ``brier`` or ``mae``."""
        sizes = [float(of.weights.sum()) if isinstance(of, ClassMetrics) else of.weight for of in self.nodes.values()]
        return float(np.average([getattr(of, name) for of in self.nodes.values()], weights=sizes))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error over all rows, of models that predict numbers."""
        squares, sizes = zip(*((of.rmse**2, of.weight) for of in self.nodes.values()), strict=True)
        return math.sqrt(np.average(squares, weights=sizes))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON."""
        whole: dict[str, Any] = {"n_rounds": self.n_rounds}
        if self.of_classes:
            whole |= {name: plain(getattr(self, name)) for name in ("majority", "accuracy", "auc")}
            whole |= {name: plain(self.mean(name)) for name in ("log_loss", "brier")}
        else:
            whole |= {"rmse": plain(self.rmse), "mae": plain(self.mean("mae"))}
        nodes = {name: found.to_dict() for name, found in self.nodes.items()}
        unmet = {name: dict(columns) for name, columns in self.unmet.items()}
        return {**whole, "nodes": nodes, "missing": dict(self.missing), "unmet": unmet}


def _mean(parts: list[tuple[float, Interval]]) -> Interval:
    """Return the mean of bounds by their weights."""
    if not parts:
        return UNKNOWN
    weights = [weight for weight, _ in parts]
    return Interval(*(float(np.average(side, weights=weights)) for side in zip(*(of for _, of in parts), strict=True)))


def leave_one_node_out(engine: Engine, fit: Callable[[Any], Model], *, min_group: int = 1) -> LeftOut:
    """Train once without each node, and judge that model by the rows of the node that was left out.

    The trainings share their rounds. What they learn of columns, scales and categories comes from the other nodes
    only; a category that none of those has is read as none, and in how many rows is told; so is a column that the node
    alone has, if `fit` leaves it out (``prepare(…, empty="leave-out")``).

    Parameters
    ----------
    engine : Engine
        Its nodes hold `Table`s, or rows that were prepared in a way that no row has a say in.
    fit : callable
        From an engine, whose nodes are all but one, to a `Model`, such as that of `Run.model`.
    min_group : int, at least 1
        As in `localgd.evaluate`: a node with fewer rows of a class refuses, and is then said to be missing.

    Raises
    ------
    ValueError
        If there is one node only, or nothing can be told of any.

    Examples
    --------
    >>> from localgd import InProcess, Regularised, auto, load, prepare, train
    >>> def fit(others):
    ...     federation, recipe = prepare(others, scale="standard", missing="most-frequent")
    ...     return train(federation, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)
    >>> found = leave_one_node_out(InProcess(load("heart")), fit)
    >>> {node: round(one.auc.low, 3) for node, one in found.nodes.items()}
    {'Cleveland': 0.847, 'Hungary': 0.897, 'Switzerland': 0.752, 'VA Long Beach': 0.739}
    """
    check_kind("engine", engine, Engine, "an engine such as InProcess(tables)")
    check_kind("fit", fit, "__call__", "a function from an engine to a Model")
    check_whole("min_group", min_group, 1)
    names = engine.node_ids
    if len(names) < 2:
        raise ValueError(f"there is one node, {names[0]!r}: without it there is no row to train on; give more nodes")
    found: dict[str, ClassMetrics | NumberMetrics] = {}
    missing: dict[str, str] = {}
    unmet: dict[str, Mapping[str, int | None]] = {}
    errors: list[Exception] = []
    n_rounds = 0
    for begin in range(0, len(names), AT_ONCE):
        chosen = names[begin : begin + AT_ONCE]
        together = Together.over(engine, lambda item, chosen=chosen: chain(*left_out(item, chosen)))  # type: ignore[misc]
        jobs = [lambda job=job, on=together: _judged(on, job, fit, min_group) for job in range(len(chosen))]
        for name, outcome in zip(chosen, together.run(jobs), strict=True):
            if isinstance(outcome, Exception):
                errors.append(outcome)
                missing[name] = plain_line(f"{outcome.__cause__ if isinstance(outcome, NodeError) else outcome}")
            else:
                found[name], met_nowhere = outcome
                unmet |= met_nowhere
        n_rounds += together.n_rounds
    if not found:
        raise errors[0]
    return LeftOut(found, missing, n_rounds, unmet)


def _judged(together: Together, job: int, fit: Callable[[Any], Model], min_group: int) -> Any:
    """Return how the model without a node does there, and what training never met of it, or why that cannot be told."""
    try:
        model = fit(together.lane(job, 2 * job))
        check_kind("fit", model, "aligned", "a function that returns a Model, such as run.model(recipe)")
        own = together.lane(job, 2 * job + 1)
        met_nowhere = unmet(own, model.recipe, min_group)  # before its rows are prepared, which replaces them
        if model.recipe is not None:
            model = replace(model, recipe=replace(model.recipe, unseen="zeros"))
        return evaluate(model, own, min_group=min_group, by_node=False), met_nowhere
    except (ValueError, NodeError) as error:
        return error
