"""A certificate for what any other strategy of Flower trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from localgd.core import Problem
from localgd.data.recipe import Recipe
from localgd.engine.flower import FlowerEngine
from localgd.errors import NodeError
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin
from localgd.rounding import FloatArray
from localgd.run.certify import certify
from localgd.run.goals import Angle


def left_to_it(name: str) -> Any:
    """Return a method that leaves what it is called for to the strategy inside."""

    def method(self: Certified, *args: Any, **options: Any) -> Any:
        return getattr(self.strategy, name)(*args, **options)

    return method


class Certified(Strategy):
    """Run a strategy as it is, then certify the linear model that it made, over the rows that the clients hold.

    The clients answer localgd (`localgd.flower.answer`) with rows in the space of the model: `Shard`s of signed rows
    y·x, or `Table`s and a `recipe`. The certificate is kept as `certificate`, in the log, and in the last round's
    ``evaluate_metrics_serverapp``.

    Parameters
    ----------
    strategy : Strategy
        For example ``FedAvg()``; its final arrays, one after the other, are the model: d numbers, or coefficients and
        intercept as scikit-learn has them.
    n_nodes : int
        How many nodes there are: nothing is certified before so many are online, as it would be about fewer rows.
    recipe : Recipe, optional
        How the clients' tables become rows.
    problem, goal
        What the model is compared with, and what is to be proved: see `localgd.certify`.
    **options
        Of `FlowerEngine`, such as ``timeout`` and ``retries``.

    Examples
    --------
    On the server: ``result = Certified(FedAvg(), n_nodes=3).start(grid, arrays)``.
    """

    def __init__(
        self,
        strategy: Strategy,
        n_nodes: int,
        *,
        recipe: Recipe | None = None,
        problem: Problem = HardMargin(),  # noqa: B008  frozen, so sharing one is safe
        goal: Angle | None = None,
        **options: Any,
    ) -> None:
        self.strategy, self.recipe, self.options = strategy, recipe, {"n_nodes": n_nodes, **options}
        self.problem, self.goal = problem, goal
        self.certificate: Certificate | None = None

    configure_train, aggregate_train = left_to_it("configure_train"), left_to_it("aggregate_train")
    configure_evaluate, aggregate_evaluate = left_to_it("configure_evaluate"), left_to_it("aggregate_evaluate")
    summary = left_to_it("summary")

    def start(  # noqa: PLR0917  Flower's own signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the strategy, then certify; what it trained comes back even if nothing could be certified."""
        result = self.strategy.start(
            grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        )
        log = logging.getLogger("flwr")
        try:
            engine = FlowerEngine(grid, **self.options)
            engine = engine if self.recipe is None else engine.map(self.recipe)
            found = certify(vector(result.arrays), engine, problem=self.problem, goal=self.goal)
        except (NodeError, ValueError, OSError, RuntimeError) as error:
            log.warning("localgd: no certificate: %s", error)
            return result
        self.certificate = found
        log.info("localgd: %s", found.status)
        metrics = result.evaluate_metrics_serverapp.setdefault(num_rounds, MetricRecord())
        for name in ("margin_low", "margin_high", "angle_deg_max"):
            metrics[name] = getattr(found, name)
        metrics["certified"] = float(found.verdict is Status.CERTIFIED)
        return result


def vector(arrays: ArrayRecord) -> FloatArray:
    """Return the numbers of all arrays in their order, as one vector.

    A ValueError if there is none, as when no round of training came to its end, or they are of many classes.
    """
    parts = arrays.to_numpy_ndarrays()
    if not parts:
        raise ValueError("the strategy has made no model: no round of training came to its end")
    if len(parts) == 2 and parts[1].size > 1:
        raise ValueError(f"intercept has {parts[1].size} numbers; a model of two classes has one")
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
