"""What a node does with its rows between two messages."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np

from localgd.core import Engine, Field, Message, Problem, Report, Schema
from localgd.errors import all_of, check_flag, check_named, check_positive, check_whole, from_all
from localgd.kernels import pick
from localgd.kernels.reference import Batches, Steps
from localgd.kernels.smooth import descend
from localgd.losses import Loss
from localgd.many.by_node import ByNode, at, by_node, each, named
from localgd.many.reports import more
from localgd.many.stack import alone, at_once
from localgd.problems.hard_margin import HardMargin
from localgd.problems.metrics import (
    METRICS,
    Weighting,
    check_weighting,
    elementwise,
    metrics,
    node_weight,
    seen,
    standing,
    values,
)
from localgd.problems.regularised import Regularised, appraisal, appraisals, hard_margin_only, regularised
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.rules.probes import Smoothness
from localgd.rules.schedule import factor

StepSize: TypeAlias = float | Literal["auto", "paper"] | ByNode[float]


def moved(shard: Shard, here: Report, coefficients: FloatArray, weight: Any) -> Report:
    """Return the report of a node that moved the model by Σ a_i z_i.

    Adds to `updated` the minimum ``margin_upper``, the node's own upper bound on γ* (the pooled margin is at most that
    of any one), and the flag ``cancels`` if its own rows cancel; neither where a coefficient is negative.
    """
    own = shard.combination(coefficients)
    moved = updated(here, own, weight)
    return more(moved, mins={"margin_upper": own.margin_upper}, where=own.known, flags={"cancels": own.cancels})


@cache
def moves(n_features: int) -> Schema:
    """Return what `moved` adds to a report, as a schema."""
    return {**updates(n_features), "margin_upper": Field("min", optional=True), "cancels": Field("flag")}


def updated(here: Report, update: Any, weight: Any) -> Report:
    """Return the report of a node that moved the model by Δ_m, and of how the model stood before, `here`.

    Adds the dual ``update`` p_m Δ_m, which has a mass if Δ_m does, and the sum ``update_sq_norm`` p_m |Δ_m|²; or, where
    these leave float64, the flag ``overflow``: that is no fault of the node, but of a step size that is far too large.
    """
    square = weight * update.length * update.length
    there = np.isfinite(square)
    sums, duals = {"update_sq_norm": square}, {"update": update.weighted(weight)}
    return more(here, sums=sums, duals=duals, where=there, flags={"overflow": ~there})


@cache
def updates(n_features: int) -> Schema:
    """Return what `updated` adds to a report, as a schema."""
    update = Field("dual", (n_features,), unless="overflow")
    return {"update": update, "update_sq_norm": Field("sum", unless="overflow"), "overflow": Field("flag")}


@dataclass(frozen=True)
class GradientSteps:
    """L local gradient steps v ← v − η(∇F_m(v) + μ(v − w)) from the shared model w.

    F_m is the mean loss of the node's samples, with the penalty (λ/2)|v|² where the problem has one. If the message
    brings the ``gradient`` ∇F(w), every step is corrected by ∇F(w) − ∇F_m(w): these control variates leave no bias.

    Parameters
    ----------
    local_steps : int, at least 1, or mapping from node to that
        L, gradient steps per round (not epochs).
    lr : float > 0, "auto" or "paper", or mapping from node to float
        Step size η. "auto" is 1/(β + λ + μ) with β the largest smoothness constant over the nodes (one extra round);
        "paper" is 1/(β + μ) over L (a node's own), the step size of the theorem in Zhu, Vardhan, Mazumdar
        (arXiv 2412.07971).
    loss : Loss, optional
        Logistic, exponential or softmax; default is the problem's own.
    batch_size : int or None
        Samples per step; None is the full batch. A node with fewer uses all of them.
    replacement : bool
        Draw each batch with replacement. Otherwise batches are cut from a chain of shuffled passes over the samples.
    prox : float >= 0
        μ of the proximal form; 0 for plain steps. Needs ημ <= 1, so that no coefficient turns negative.
    weighted_by : "uniform", "num-examples" or mapping from node to float, optional
        Node weight in the average; default is the problem's own.
    seed : int
        Batches are drawn from ``default_rng([seed, round, node])``.
    lr_schedule : str
        What η is multiplied with in each round: see `localgd.rules.schedule.factor`.
    variates : bool
        Wait for the gradient before stepping: a round without it only appraises w.
    problem : Problem
        What the steps go down; `bound` sets it.
    n_samples : float
        Samples of all nodes, each by its weight, which a penalty is relative to; `bound` sets it.
    """

    local_steps: int | ByNode[int] = 100
    lr: StepSize = "auto"
    loss: Loss | None = None
    batch_size: int | None = None
    replacement: bool = False
    prox: float = 0.0
    weighted_by: Weighting | None = None
    seed: int = 0
    lr_schedule: str = "constant"
    variates: bool = False
    problem: HardMargin | Regularised = HardMargin()  # noqa: RUF009  frozen, so sharing one is safe
    n_samples: float = 0

    def __post_init__(self) -> None:
        """Check every field once; a mapping becomes a `ByNode`."""
        for name in ("local_steps", "lr", "weighted_by"):
            object.__setattr__(self, name, by_node(getattr(self, name), name))
        check_whole("local_steps", self.local_steps, 1)
        if isinstance(self.lr, str) and self.lr not in ("auto", "paper"):
            raise ValueError(f"lr must be a positive number, 'auto' or 'paper', got {self.lr!r}")
        if not isinstance(self.lr, str):
            check_positive("lr", self.lr)
        factor(self.lr_schedule, 0)
        if self.variates and self.lr_schedule != "constant":
            raise ValueError(f"lr_schedule={self.lr_schedule!r} has no meaning with control variates; leave it out")
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1)
        check_flag("replacement", self.replacement)
        check_whole("seed", self.seed, 0)
        check_positive("prox", self.prox, or_zero=True)
        for what, lr in named("lr", self.lr):
            if not isinstance(lr, str) and lr * self.prox > 1:
                raise ValueError(f"{what}·prox must be at most 1, got {lr!r}·{self.prox!r}; lower lr or prox")
        check_weighting(self.weighted_by)

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> GradientSteps:
        """Return the task for this problem, with its step size found, by one round, if it was "auto" or "paper".

        β = curvature of the loss × the largest eigenvalue of Z_mᵀZ_m/n_m over the nodes (see `Smoothness`).
        """
        if not isinstance(problem, HardMargin | Regularised):
            raise ValueError(f"it needs a loss of margins, which {problem.kind} has not")  # noqa: TRY004  a bad value
        check_named(self, engine.node_ids)
        if self.variates:
            regularised(problem)
        _, loss, weighting = all_of(
            lambda: self._refuse_pace(problem),
            lambda: problem.loss_for(self.loss, sizes.versus),
            lambda: problem.weighting_for(self.weighted_by),
        )
        bound = replace(self, loss=loss, weighted_by=weighting, problem=problem, n_samples=sizes.total)
        if not isinstance(self.lr, str):
            return bound
        look = Smoothness(loss.versus)
        beta = loss.curvature * float(from_all(engine, look, Message()).maxs["eigenvalue"])
        if isinstance(problem, Regularised):  # its loss of a sample is a sum over the rows that speak for it
            beta *= sizes.versus / loss.versus
        steepest = beta + problem.strength(sizes.total) + self.prox
        lr = 1.0 / steepest if steepest > 0 else 1.0
        return replace(bound, lr=each(self.local_steps, lambda steps: lr / steps) if self.lr == "paper" else lr)

    def _refuse_pace(self, problem: Problem) -> None:
        if self.lr == "paper":
            hard_margin_only(problem, "lr='paper' is a step size for the hard margin", "give a number, or 'auto'")

    def on(self, node_id: str, message: Message) -> tuple[int, float]:
        """Return how many steps a node takes in a round, and of which size.

        Raises
        ------
        TypeError
            If the step size is still to be found.
        ValueError
            If a setting by node does not name it.
        """
        if isinstance(self.lr, str):
            raise TypeError(f"lr={self.lr!r} is not a step size yet; train() finds it with one round")
        scale = float(message.extra.get("scale", 1.0)) * factor(self.lr_schedule, message.round)
        return at(self.local_steps, node_id), at(self.lr, node_id) * scale

    def schema(self, message: Message) -> Schema:
        """Return the metrics, an update where one is made, and a flag ``underflow``: every gradient is 0 in float64."""
        d = message.w.size
        if isinstance(self.problem, HardMargin):
            return {**metrics(message), **moves(d), "underflow": Field("flag")}
        waits = "gradient" not in message.extra
        here = appraisals(d, self.problem) if waits else METRICS
        return here if waits and self.variates else {**here, **updates(d)}

    @at_once
    @np.errstate(over="ignore", invalid="ignore")  # far too large a step: the loop says so, without a warning a node
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Take the local steps; report the metrics at w and the weighted update."""
        if isinstance(self.local_steps, ByNode) or isinstance(self.lr, ByNode):
            alone(shard, "every node has steps of its own")
        n_steps, lr = self.on(shard.node_id, message)
        weight, loss = node_weight(shard, self.weighted_by), self.problem.loss_for(self.loss, shard.versus)
        elementwise(loss, shard)
        if isinstance(self.problem, Regularised):
            return self._penalised((n_steps, lr), self.problem, message, shard), state
        margins, batches = shard.margins(message.w), self._batches(shard, message.round, n_steps)
        here = seen(message, shard, margins, loss, weight)
        steps = Steps(n_steps, lr, loss, 1.0 - lr * self.prox, batches, shard.of_rows)
        a = pick(shard, n_steps, self.batch_size, versus=loss.versus)(shard, message.w, margins, steps)
        # judged by all rows at the shared model: a mini-batch without a gradient says nothing of the next
        still = ~a.any(axis=-1)
        if still.any():
            still &= ~(steps.slopes(margins) * (lr * loss.versus / shard.n_rows)).any(axis=-1)
        return more(moved(shard, here, a, weight), flags={"underflow": still}), state

    def _penalised(self, pace: tuple[int, float], problem: Regularised, message: Message, shard: Shard) -> Report:
        """Step on the penalised loss, corrected by the gradient of all nodes if the message brings it."""
        n_steps, lr = pace
        margins, batches = shard.margins(message.w), self._batches(shard, message.round, n_steps)
        w, towards, strength = message.w, message.extra.get("gradient"), problem.strength(self.n_samples)
        shift, known = np.zeros(w.size), None
        steps = Steps(n_steps, lr, problem.loss, batches=batches, weights=shard.of_rows)
        if towards is None:
            report = appraisal(shard, w, margins, problem)
            if self.variates:
                return report
        else:
            report = standing(shard, w, margins, values(problem.loss, margins), shard.total)
            known = steps.slopes(margins)
            own = -shard.own_sum(known) / (shard.n_rows / shard.versus)
            shift = towards - own - strength * problem.pull(w)
        decay = strength * problem.pull(np.ones(w.size))
        v = descend(shard, w, margins, steps, (decay, self.prox, shift), known)
        return updated(report, shard.dual(v - w), shard.total)

    def _batches(self, shard: Shard, round_: int, n_steps: int) -> Batches | None:
        n = shard.n_samples
        if self.batch_size is None or (self.batch_size >= n and not self.replacement):
            return None
        alone(shard, "every node draws batches of its own")
        shape = (n_steps, min(self.batch_size, n))
        return order_of(shard, (self.seed, round_), shape, replacement=self.replacement)


def node_seed(node_id: str) -> int:
    """Return what a node draws from: its name, not its place among the nodes, so that their order cannot matter."""
    return zlib.crc32(node_id.encode())


def order_of(shard: Any, seeds: tuple[int, int], shape: tuple[int, int], *, replacement: bool) -> Batches:
    """Return the samples of each step, (steps, size), from ``default_rng([*seeds, node])``.

    With replacement, or cut from a chain of shuffled passes over the node's `n_samples`.
    """
    n, (n_steps, size) = shard.n_samples, shape
    rng = np.random.default_rng([*seeds, node_seed(shard.node_id)])
    if replacement:
        return rng.integers(n, size=shape)
    passes = -(-n_steps * size // n)
    chain = np.concatenate([rng.permutation(n) for _ in range(passes)])
    return chain[: n_steps * size].reshape(shape)
