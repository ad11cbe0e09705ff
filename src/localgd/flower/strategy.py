"""A certificate for what any other strategy of Flower trains."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as known
from flwr.serverapp.strategy import Result, Strategy

from localgd.core import Problem
from localgd.data.recipe import Recipe
from localgd.engine.flower import FlowerEngine
from localgd.errors import NodeError, check_whole
from localgd.flower.features import HeadRows, written
from localgd.flower.head import last_layer
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares
from localgd.run.certify import certify, check_asked
from localgd.run.goals import Angle

LOG = logging.getLogger("flwr")


def left_to_it(name: str) -> Any:
    """Return a method that leaves what it is called for to the strategy inside."""

    def method(self: Certified, *args: Any, **options: Any) -> Any:
        return getattr(self.strategy, name)(*args, **options)

    return method


class Certified(Strategy):
    """Run a strategy as it is, then certify the linear model that it made, over the rows that the clients hold.

    The clients answer localgd (`localgd.flower.answer`) with `localgd.flower.Features`, the samples and classes as the
    model takes them; or with rows in the space of the model, `localgd.Shard`s; or with tables and a `recipe`. The
    certificate is kept as `certificate`, in the log, and in the last round's ``evaluate_metrics_serverapp``.

    Of two logits the model is w_1 − w_0. Of C > 2 it is all rows of coefficients together, less what the classes share,
    and the pooled model is the hard-margin multi-class one. Of a network only the last layer is certified, on the
    features that its other layers make of the samples in the end: the max-margin model is that on these features.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        For example ``FedAvg()``; its final arrays are a linear layer, (C, d) or (1, d) and as many intercepts, if any;
        or vectors that are the model one after the other; or a network with a last layer `head`.
    n_nodes : int, at least 1
        How many nodes there are: nothing is certified before so many are online, as it would be about fewer rows.
    head : str, optional
        What a network's ``state_dict`` calls its last layer, as ``fc`` for ``fc.weight`` and ``fc.bias``. The clients
        are then sent all final arrays once more, for the function in their `localgd.flower.Features`.
    recipe : Recipe, optional
        How the clients' tables become rows.
    problem, goal
        What the model is compared with, and what is to be proved: see `localgd.certify`.
    **options
        Of `FlowerEngine`, such as ``timeout`` and ``retries``.

    Raises
    ------
    TypeError
        If the strategy is none, or one of Flower's older API, or an option is unknown.
    ValueError
        If an option is out of its range, or head and recipe are both given.

    Examples
    --------
    On the server: ``result = Certified(FedAvg(), n_nodes=3).start(grid, arrays)``.
    """

    def __init__(
        self,
        strategy: Strategy,
        n_nodes: int,
        *,
        head: str | None = None,
        recipe: Recipe | None = None,
        problem: Problem = HardMargin(),  # noqa: B008  frozen, so sharing one is safe
        goal: Angle | None = None,
        **options: Any,
    ) -> None:
        check_strategy(strategy)
        for name, value, kind in (
            ("n_nodes", n_nodes, int),
            ("head", head, str | None),
            ("recipe", recipe, Recipe | None),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")
        check_whole("n_nodes", n_nodes, 1)
        if head is not None and recipe is not None:
            raise ValueError("a recipe makes the rows of a linear model; of a network give head alone")
        check_asked(problem, goal)
        inspect.signature(FlowerEngine).bind(None, n_nodes=n_nodes, **options)  # not after hours of training
        self.strategy, self.head, self.recipe = strategy, head, recipe
        self.problem, self.goal, self.options = problem, goal, {"n_nodes": n_nodes, **options}
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
        self.certificate = None  # one of an earlier start is not of this model
        result = self.strategy.start(
            grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        )
        try:
            found = self._certified(FlowerEngine(grid, **self.options), result.arrays)
        except (ArithmeticError, TypeError, ValueError, OSError, RuntimeError) as error:
            LOG.warning("localgd: no certificate: %s", error)
            return result
        self.certificate = found
        LOG.info("localgd: %s", found.status)
        metrics = result.evaluate_metrics_serverapp.setdefault(num_rounds, MetricRecord())
        for name in ("margin_low", "margin_high", "angle_deg_min", "angle_deg_max"):
            metrics[name] = getattr(found, name)
        metrics["certified"] = float(found.verdict is Status.CERTIFIED)
        return result

    def _certified(self, engine: FlowerEngine, arrays: ArrayRecord) -> Certificate:
        """Return the certificate of the arrays' last layer."""
        layer = last_layer(arrays, self.head)
        numbers, n_logits = isinstance(self.problem, LeastSquares), len(layer.coef)
        if numbers and n_logits > 1:
            raise ValueError(f"the model has {n_logits} outputs, and least squares fits one")
        if self.recipe is None:
            model = "" if self.head is None else written(arrays)
            engine = engine.map(HeadRows(0 if numbers else layer.n_classes, layer.intercept is not None, model))
        elif not numbers and len(self.recipe.classes) != layer.n_classes:
            raise ValueError(f"the model tells {layer.n_classes} classes apart, the recipe {len(self.recipe.classes)}")
        else:
            engine = engine.map(self.recipe)
        w = layer.vector(shared=not isinstance(self.problem, HardMargin))
        try:
            return certify(w, engine, problem=self.problem, goal=self.goal)
        except NodeError as error:
            if self.goal is None:
                raise
            LOG.warning("localgd: the goal is out of reach, so only what three rounds prove is stated: %s", error)
            return certify(w, engine, problem=self.problem)


def check_strategy(strategy: Any) -> None:
    """Refuse what is no strategy, with the remedy.

    Examples
    --------
    >>> check_strategy(Strategy)
    Traceback (most recent call last):
    TypeError: strategy is the class Strategy: give one of its kind, as in Certified(Strategy(…), n_nodes=3)
    """
    if isinstance(strategy, Strategy):
        return
    kind = strategy if isinstance(strategy, type) else type(strategy)
    if hasattr(kind, "configure_fit"):
        twin = next((base.__name__ for base in kind.__mro__ if base.__name__ in known.__all__), "Strategy")
        raise TypeError(
            f"{kind.__name__} is of Flower's older API (flwr.server.strategy), whose clients fit and evaluate, "
            f"and Certified runs those of flwr.serverapp.strategy: take {twin} from there (fraction_fit is called "
            "fraction_train there, min_fit_clients min_train_nodes), and start it under @app.main() of the ServerApp"
        )
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        name = kind.__name__
        raise TypeError(f"strategy is the class {name}: give one of its kind, as in Certified({name}(…), n_nodes=3)")
    raise TypeError(f"strategy must be one of flwr.serverapp.strategy, such as FedAvg(), got {strategy!r}")
