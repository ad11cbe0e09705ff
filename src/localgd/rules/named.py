"""The named methods: each is a task and a merge."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

from localgd.core import Engine, Loss, Merge, Message, Task
from localgd.losses import LOSSES, among
from localgd.rules.local import GradientSteps, Project
from localgd.rules.merge import Anchored, Extrapolated, Mean
from localgd.rules.probes import Smoothness, Weighting


class LocalTask(Task, Protocol):
    """A task that trains: it has a loss to report and a weighting of the nodes."""

    @property
    def loss(self) -> Loss:
        """The loss that the history shows."""

    @property
    def weighted_by(self) -> Weighting:
        """How the nodes are weighted in the mean."""


@dataclass(frozen=True)
class Method:
    """A task for the nodes and a merge for the server.

    Parameters
    ----------
    name : str
        What the history and the run folder call it.
    task : LocalTask
        What a node does in a round.
    merge : Merge
        What the server does with the sum of the reports.
    """

    name: str
    task: LocalTask
    merge: Merge

    def among(self, versus: int) -> Method:
        """Return the method for samples that `versus` rows speak for: logistic then means softmax."""
        loss = among(self.task.loss, versus)
        return self if loss == self.task.loss else replace(self, task=replace(cast(Any, self.task), loss=loss))

    def tuned(self, engine: Engine) -> Method:
        """Return the method with its step size found, by one round, if it was "auto" or "paper".

        β = curvature of the loss × the largest eigenvalue of Z_mᵀZ_m/n_m over the nodes (see `Smoothness`).
        """
        task = self.task
        if not isinstance(task, GradientSteps) or not isinstance(task.lr, str):
            return self
        beta = task.loss.curvature * -float(engine.round(Smoothness(task.loss.versus), Message()).lows["-eigenvalue"])
        lr = 1.0 / (beta + task.prox) if beta + task.prox > 0 else 1.0
        return replace(self, task=replace(task, lr=lr / task.local_steps if task.lr == "paper" else lr))


def local_gd(
    *,
    local_steps: int = 100,
    lr: float | Literal["auto", "paper"] = "auto",
    loss: str | Loss = "logistic",
    weighted_by: Weighting = "uniform",
) -> Method:
    """Return Local-GD (FedAvg with full batches): L gradient steps on every node, then the mean.

    Parameters
    ----------
    local_steps : int, at least 1
        L, gradient steps per node and round.
    lr : float > 0, "auto" or "paper"
        Step size; "auto" is 1/β with β the largest smoothness constant of a node, "paper" is 1/(βL).
    loss : "logistic", "exponential" or Loss
        Loss of a margin.
    weighted_by : "uniform" or "num-examples"
        Weight of a node in the mean: equal (the paper), or its number of rows.

    Returns
    -------
    Method
        A method for `train`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Zhu, Vardhan, Mazumdar, arXiv 2412.07971: on separable data w/|w| tends to the pooled max-margin direction at rate
    1/log(Lk) for η = O(1/L), whatever the number L of local steps and however unlike the nodes.

    Examples
    --------
    >>> local_gd(local_steps=10).task.local_steps
    10
    """
    steps = GradientSteps(local_steps=local_steps, lr=lr, loss=_loss(loss), weighted_by=weighted_by)
    return Method("local-gd", steps, Mean())


def local_sgd(
    *,
    local_steps: int = 100,
    lr: float | Literal["auto", "paper"] = "auto",
    loss: str | Loss = "logistic",
    batch_size: int = 32,
    replacement: bool = False,
    weighted_by: Weighting = "uniform",
    seed: int = 0,
) -> Method:
    """Return Local-SGD (FedAvg): L mini-batch gradient steps on every node, then the mean.

    Parameters
    ----------
    local_steps, lr, loss, weighted_by
        As for `local_gd`.
    batch_size : int, at least 1
        Rows per step; a node with fewer uses all it has.
    replacement : bool
        Draw each batch with replacement; else batches are cut from shuffled passes over the rows.
    seed : int
        Batches are drawn from ``default_rng([seed, round, node])``.

    Returns
    -------
    Method
        A method for `train`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> local_sgd(batch_size=16).task.batch_size
    16
    """
    steps = GradientSteps(
        local_steps=local_steps,
        lr=lr,
        loss=_loss(loss),
        batch_size=batch_size,
        replacement=replacement,
        weighted_by=weighted_by,
        seed=seed,
    )
    return Method("local-sgd", steps, Mean())


def modified_local_gd(
    *,
    form: Literal["projection", "proximal"] = "projection",
    prox: float | None = None,
    local_steps: int | None = None,
    lr: float | Literal["auto"] | None = None,
    loss: str | Loss = "logistic",
    weighted_by: Weighting = "uniform",
) -> Method:
    """Return Modified Local-GD: a proximal problem solved on every node, then the mean anchored at 0.

    Parameters
    ----------
    form : "projection" or "proximal"
        Solve it exactly in the limit λ → 0 (a projection; needs separable rows), or by gradient steps with λ > 0.
    prox : float > 0, optional
        λ of the proximal form; default 1e-3.
    local_steps : int, optional
        Gradient steps of the proximal form; default 100.
    lr : float or "auto", optional
        Step size of the proximal form; default "auto", 1/(β + λ).
    loss : "logistic", "exponential" or Loss
        Loss of a margin; the projection form only reports it.
    weighted_by : "uniform" or "num-examples"
        Weight of a node in the mean.

    Returns
    -------
    Method
        A method for `train`.

    Raises
    ------
    ValueError
        If a parameter is out of its range or has no meaning for the form.

    Notes
    -----
    Zhu, Vardhan, Mazumdar, arXiv 2412.07971, Modified Local-GD: w ← k/(k+1) Σ p_m P_m(w) tends to the pooled
    hard-margin vector, with no step size and no local steps to choose.

    Examples
    --------
    >>> modified_local_gd().name
    'modified-local-gd'
    """
    if form == "projection":
        ignored = [
            name for name, value in (("prox", prox), ("local_steps", local_steps), ("lr", lr)) if value is not None
        ]
        if ignored:
            raise ValueError(f"{ignored[0]} has no meaning for form='projection'; leave it out or use form='proximal'")
        return Method("modified-local-gd", Project(loss=_loss(loss), weighted_by=weighted_by), Anchored())
    if form != "proximal":
        raise ValueError(f"form must be 'projection' or 'proximal', got {form!r}")
    steps = GradientSteps(
        local_steps=100 if local_steps is None else local_steps,
        lr="auto" if lr is None else lr,
        loss=_loss(loss),
        prox=1e-3 if prox is None else prox,
        weighted_by=weighted_by,
    )
    return Method("modified-local-gd", steps, Anchored())


def fedexp(
    *,
    local_steps: int = 100,
    lr: float | Literal["auto", "paper"] = "auto",
    loss: str | Loss = "logistic",
    weighted_by: Weighting = "uniform",
) -> Method:
    """Return FedExP: Local-GD whose mean move is made longer where the nodes pull apart.

    Parameters
    ----------
    local_steps, lr, loss, weighted_by
        As for `local_gd`.

    Returns
    -------
    Method
        A method for `train`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Jhunjhunwala, Wang, Joshi, ICLR 2023, arXiv 2301.09604: w ← w + η Δ̄ with Δ̄ the mean of the nodes' moves Δ_m and
    η = max(1, mean |Δ_m|² / (2 |Δ̄|²)), with no step size of the server's to choose.

    Examples
    --------
    >>> fedexp(local_steps=10).name
    'fedexp'
    """
    steps = GradientSteps(local_steps=local_steps, lr=lr, loss=_loss(loss), weighted_by=weighted_by)
    return Method("fedexp", steps, Extrapolated())


METHODS: dict[str, Callable[..., Method]] = {
    "local-gd": local_gd,
    "local-sgd": local_sgd,
    "modified-local-gd": modified_local_gd,
    "fedexp": fedexp,
}
"""The methods by name."""


def method_named(name: str, **options: Any) -> Method:
    """Return the method called `name` with these options.

    Raises
    ------
    ValueError
        If no method has that name (the nearest is suggested) or the method has no such option.

    Examples
    --------
    >>> method_named("local-gd", local_steps=10).task.local_steps
    10
    >>> method_named("local-dg")
    Traceback (most recent call last):
    ValueError: unknown method 'local-dg'; did you mean 'local-gd'? Known: local-gd, local-sgd, ...
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown method {name!r}; did you mean {near!r}? Known: {', '.join(METHODS)}")
    known = inspect.signature(METHODS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{option} has no meaning for method {name!r}; its options are {', '.join(known)}")
    return METHODS[name](**options)


def _loss(loss: str | Loss) -> Loss:
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; known are {', '.join(LOSSES)}")
    return LOSSES[loss]
