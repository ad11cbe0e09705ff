"""What a node does with its examples between two messages: local steps of SGD on a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from localgd.core import Engine, Field, Message, Problem, Report, Schema, Task
from localgd.duals.compressors import Float32
from localgd.duals.dual import Dual
from localgd.errors import check_flag, check_named, check_positive, check_whole, extra
from localgd.many.by_node import ByNode, at, by_node
from localgd.nets import at_once
from localgd.nets.examples import Examples
from localgd.nets.network import NET_METRICS, Network, check_examples, standing
from localgd.nets.replica import AT_WORK, Replica, drawn, mean_of
from localgd.nets.statistics import Layer
from localgd.problems.metrics import Weighting, check_weighting, node_weight
from localgd.rounding import FloatArray
from localgd.rules.local import GradientSteps, node_seed, order_of
from localgd.rules.schedule import factor

with extra("torch", "torch"):
    import torch

AS_GRADIENT_STEPS = ("local_steps", "lr", "batch_size", "replacement", "prox", "weighted_by", "seed", "lr_schedule")
"""Settings of `localgd.rules.local.GradientSteps` that mean the same here."""


@dataclass(frozen=True)
class NetSteps:
    """L local steps of SGD on mini-batches, from the shared network; momentum begins at 0 in every round (FedAvg).

    ``g = ∇loss + weight_decay·v + prox·(v − w)``, ``u ← momentum·u + g``, ``v ← v − lr·u``, or after Nesterov
    ``v ← v − lr·(g + momentum·u)``: torch's SGD. Every round also reports loss and accuracy of the shared network on
    all of the node's examples, a pass over them without gradients.

    Parameters
    ----------
    local_steps : int, at least 1, or mapping from node to that, optional
        L, steps per round. Default is as many as make `epochs`.
    epochs : int, at least 1, optional
        Passes over the node's examples per round, 1 by default; leave out `local_steps` then.
    lr : float > 0, or mapping from node to float
        Step size.
    batch_size : int or None
        Examples per step; None is all of them. A node with fewer uses what it has.
    replacement : bool
        Draw each batch with replacement. Otherwise batches are cut from a chain of shuffled passes.
    momentum : float in [0, 1)
        Of the node's steps.
    nesterov : bool
        Whether these look ahead.
    weight_decay, prox : float >= 0
        Pull to 0, and to the shared network (FedProx).
    weighted_by : "uniform", "num-examples" or mapping from node to float, optional
        Node weight in the mean; by the number of examples unless said otherwise.
    seed : int
        Batches are drawn from ``default_rng([seed, round, node])``, and what the module draws from these, too.
    lr_schedule : str
        What the step size is multiplied with in each round: see `localgd.rules.schedule.factor`.
    at_once : bool, optional
        Train nodes of this process at once, stacked by ``torch.func.vmap``, or one by one: the same but for rounding,
        not to the bit. None has the first round try both and keep what is faster, which the certificate says: so give
        True or False where every run is to end with the same bits. Modules that draw random numbers, or branch on
        data, and examples that are no tensors, go one by one.
    network : Network, optional
        What is trained; the problem, once that is known.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> NetSteps(local_steps=5, lr=0.1, momentum=0.9).momentum
    0.9
    """

    loss: ClassVar[None] = None

    local_steps: int | ByNode[int] | None = None
    epochs: int | None = None
    lr: float | ByNode[float] = 0.1
    batch_size: int | None = 32
    replacement: bool = False
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    prox: float = 0.0
    weighted_by: Weighting | None = None
    seed: int = 0
    lr_schedule: str = "constant"
    at_once: bool | None = None
    network: Network | None = None

    def __post_init__(self) -> None:
        """Check every field once; a mapping becomes a `ByNode`."""
        for name in ("local_steps", "lr", "weighted_by"):
            object.__setattr__(self, name, by_node(getattr(self, name), name))
        if self.local_steps is not None and self.epochs is not None:
            raise ValueError(f"local_steps={self.local_steps!r} and epochs={self.epochs!r}: give one of them")
        for name in ("local_steps", "epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if isinstance(self.lr, str):
            raise ValueError(  # noqa: TRY004  a bad value
                f"lr={self.lr!r} is found from the curvature of linear models; give a number, as lr=0.1"
            )
        check_positive("lr", self.lr)
        for name in ("momentum", "weight_decay", "prox"):
            check_positive(name, getattr(self, name), or_zero=True)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum!r}")
        check_flag("replacement", self.replacement)
        check_flag("nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True has no meaning without momentum; give momentum=0.9, or leave it out")
        check_whole("seed", self.seed, 0)
        factor(self.lr_schedule, 0)
        if self.at_once is not None:
            check_flag("at_once", self.at_once)
        check_weighting(self.weighted_by)

    def bound(self, problem: Problem, engine: Engine, sizes: Any) -> NetSteps:  # noqa: ARG002
        """Refuse a problem that is no network, which binds it itself."""
        raise ValueError(f"it trains a network, and cannot look for the {problem.kind} model; give problem=Network(…)")

    @property
    def module(self) -> Replica:
        """The module of this process."""
        if self.network is None:
            raise TypeError("NetSteps has no network yet; train(…, problem=Network(build, loss)) gives it one")
        return self.network.replica

    def schema(self, message: Message) -> Schema:
        """Return the metrics, an update, and what is said of buffers."""
        coded = Float32.form if self.module.dtype == "float32" else ""
        update = Field("dual", message.w.shape, unless="overflow", coded=coded)
        moved = {"update": update, "update_sq_norm": Field("sum", unless="overflow"), "overflow": Field("flag")}
        if any(widths := self.module.widths):
            n_sums, n_most = widths
            moved["buffers"] = Field("sum", (n_sums,), unless="overflow")
            moved["counters"] = Field("max", (n_most,), unless="overflow")
        return {**NET_METRICS, **moved, **(at_once.TRIED if at_once.trial(self, message) else {})}

    def pace(self, shard: Examples, message: Message) -> tuple[int, int, float]:
        """Return how many steps a node takes in this round, on how many examples each, and of which size."""
        n, wanted = shard.n_samples, self.batch_size
        size = n if wanted is None else wanted if self.replacement else min(wanted, n)
        told: Any = self.local_steps
        steps = at(told, shard.node_id) or math.ceil(n / size) * (self.epochs or 1)
        return steps, size, at(self.lr, shard.node_id) * factor(self.lr_schedule, message.round)

    def places(self, shard: Examples, round_: int, n_steps: int, size: int) -> NDArray[np.int64]:
        """Return the examples of each step, (steps, size)."""
        if size == shard.n_samples and not self.replacement:
            return np.broadcast_to(np.arange(size), (n_steps, size))
        return order_of(shard, (self.seed, round_), (n_steps, size), replacement=self.replacement)

    def run(self, message: Message, shard: Any, state: None) -> tuple[Report, None]:
        """Take the local steps; report how the shared network stands, and the weighted update."""
        check_examples(shard)
        report = self.reported(message, shard, lambda _: self._descend(message, shard))
        return report + at_once.UNTRIED if at_once.trial(self, message) else report, state

    def together(self, message: Message, shards: Sequence[Any]) -> Mapping[str, Callable[[], Report]]:
        """Return what makes the reports of those nodes that can be trained at once, and should, by name."""
        return at_once.ready(self, message, [shard for shard in shards if isinstance(shard, Examples)])

    def reported(self, message: Message, shard: Examples, train: Callable[[list[Layer]], object]) -> Report:
        """Return the report of a node whose steps `train` takes, given the normalisations to watch."""
        assert self.network is not None  # noqa: S101  the schema was asked for
        made, weight = self.module, float(node_weight(shard, self.weighted_by))
        with AT_WORK, drawn(self.seed, message.round, node_seed(shard.node_id)):
            made.load(message.w)
            here = standing(self.network, shard, weight)
            before = {name: tensor.clone() for name, tensor in made.moving.items()}
            with made.watched() as layers:
                train(layers)
                made.check_constants()
                return self._moved(here, message.w, before, layers)

    def _moved(self, here: Report, w: FloatArray, before: Mapping[str, Any], layers: Sequence[Layer]) -> Report:
        """Add the weighted update to a report, and what is said of buffers; or the flag ``overflow``."""
        made, weight = self.module, float(here.sums["weight"])
        update = made.read() - w
        update[made.n_trained :] = 0.0  # what else moved is no merge's to add
        vector = weight * update
        code = Float32().encode(vector) if made.dtype == "float32" else None
        vector = vector if code is None else Float32().decode(code, vector.size)
        moved = made.moved(before, layers, weight)
        square = float(vector @ vector) / weight if weight else 0.0
        if not (np.isfinite(vector).all() and math.isfinite(square) and np.isfinite(moved["buffers"]).all()):
            return here + Report(flags={"overflow": 1})
        said = any(made.widths)
        return here + Report(
            sums={"update_sq_norm": square, **({"buffers": moved["buffers"]} if said else {})},
            maxs={"counters": moved["counters"]} if said else {},
            duals={"update": Dual.proved(vector, math.nan, math.nan, 1, coded=code)},
        )

    def _descend(self, message: Message, shard: Examples) -> None:
        """Take the steps of a round, one node alone."""
        n_steps, size, lr = self.pace(shard, message)
        self.descend(shard, self.places(shard, message.round, n_steps, size), lr)

    def descend(self, shard: Examples, order: NDArray[np.int64], lr: float) -> None:
        """Take steps on examples at these places, (steps, size), from the numbers that the module has."""
        assert self.network is not None  # noqa: S101  as above
        made = self.module
        numbers = [*made.trained.values()]
        step = self.stepping(numbers, lr)
        for places in order:
            loss = mean_of(self.network.loss, made.model, made.sent(shard.batch(places)))
            slopes = torch.autograd.grad(loss, numbers, allow_unused=True)
            step([torch.zeros_like(v) if g is None else g for v, g in zip(numbers, slopes, strict=True)])

    def stepping(self, numbers: Sequence[Any], lr: float) -> Callable[..., None]:
        """Return what takes a step of torch's SGD with tensors in place, given their gradients.

        Of stacked ones the first `k` may step alone.
        """
        start = [number.detach().clone() for number in numbers] if self.prox else []
        velocities = [torch.zeros_like(number, requires_grad=False) for number in numbers] if self.momentum else []

        @torch.no_grad()
        def step(slopes: Sequence[Any], k: int | None = None) -> None:
            for place, (number, slope) in enumerate(zip(numbers, slopes, strict=True)):
                v = number if k is None else number[:k]
                g = slope.add(v, alpha=self.weight_decay) if self.weight_decay else slope
                if self.prox:
                    g = g.add(v - (start[place] if k is None else start[place][:k]), alpha=self.prox)
                if self.momentum:
                    u = velocities[place] if k is None else velocities[place][:k]
                    u.mul_(self.momentum).add_(g)
                    g = g.add(u, alpha=self.momentum) if self.nesterov else u
                v.sub_(g, alpha=lr)

        return step


def steps_on(network: Network, task: Any, engine: Engine) -> Task:
    """Return the task of local steps on a network that a method's own task stands for.

    Raises
    ------
    ValueError
        If it stands for none, or has a setting that is about linear models.
    """
    if type(task) is NetSteps:
        steps = task
    elif type(task) is GradientSteps:
        if task.loss is not None:
            raise ValueError(f"loss={task.loss.name!r} is a matter of the problem here: Network(build, loss)")
        if task.variates:
            raise ValueError("control variates need ∇F of all examples; take a method that averages, such as local-sgd")
        steps = NetSteps(**{name: getattr(task, name) for name in AS_GRADIENT_STEPS})
    else:
        raise ValueError(
            f"{type(task).__name__} works on rows, not on examples of a network; take a method that averages local "
            "steps: local-sgd, slowmo, fedexp or fedprox, without compress, or Method(name, NetSteps(…), mean())"
        )
    check_named(steps, engine.node_ids)
    return replace(steps, network=network, weighted_by=network.weighting_for(steps.weighted_by))
