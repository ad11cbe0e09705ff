"""Local-GD and its family: local gradient steps or projections, and an average.

Every function returns a method for `train`, and raises ValueError if a parameter is out of its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from localgd.core import Merge
from localgd.losses import Loss, loss_named
from localgd.many.by_node import by_node
from localgd.methods.method import Method
from localgd.methods.options import makes
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps
from localgd.rules.normalised import Normalised
from localgd.rules.project import Project
from localgd.rules.server import Anchored, Extrapolation, Momentum, chain, mean

AnyLoss: TypeAlias = str | Loss | None
"""A loss, or its name, or None: then it is the problem's matter."""

LocalSteps: TypeAlias = int | Mapping[str, int]
StepSize: TypeAlias = float | Literal["auto", "paper"] | Mapping[str, float]
Weights: TypeAlias = Literal["uniform", "num-examples"] | Mapping[str, float] | None
"""What may differ by node: then it is a mapping that names every node."""


def _averaging(name: str, merge: Merge, loss: AnyLoss, **fields: Any) -> Method:
    """Return local steps under a merge."""
    steps = GradientSteps(loss=None if loss is None else loss_named(loss), **fields)
    return Method(name, steps, merge, remedy="lower lr")


@makes
def local_gd(
    *,
    local_steps: LocalSteps = 100,
    lr: StepSize = "auto",
    lr_schedule: str = "constant",
    loss: AnyLoss = None,
    weighted_by: Weights = None,
) -> Method:
    """Return Local-GD (FedAvg with full batches): L gradient steps on every node, then the mean.

    Parameters
    ----------
    local_steps : int, at least 1, or mapping from node to that
        L, gradient steps per node and round.
    lr : float > 0, "auto" or "paper", or mapping from node to float
        Step size; "auto" is 1/β with β the largest smoothness constant of a node, "paper" is 1/(βL), with each node's
        own L.
    lr_schedule : str
        How the step size goes down from round to round: "constant", "inverse-sqrt", "inverse-time", "step:30:0.1" or
        "cosine:500": see `localgd.rules.schedule.factor`.
    loss : "logistic", "exponential" or Loss, optional
        Loss of a margin; default is the problem's own, logistic for the hard margin.
    weighted_by : "uniform", "num-examples" or mapping from node to float, optional
        Weight of a node in the mean: equal (the paper), its number of rows, or its own. Default is the problem's own:
        equal for the hard margin, by rows for a penalised loss, which knows no other.

    Notes
    -----
    A mapping names every node of the federation. Nodes that take more steps, or longer ones, pull the mean their way:
    for a penalised loss the limit is then that of a loss in which they weigh more, however short the steps (Wang et
    al., NeurIPS 2020, arXiv 2007.07481). What is proved of a model is proved whatever the steps.

    Zhu, Vardhan, Mazumdar, arXiv 2412.07971: on separable data w/|w| tends to the pooled max-margin direction at rate
    1/log(Lk) for η = O(1/L), whatever the number L of local steps and however unlike the nodes.

    Examples
    --------
    >>> local_gd(local_steps=10).task.local_steps
    10
    >>> local_gd(local_steps={"b": 200, "a": 10}).task.local_steps.at("a")
    10
    """
    return _averaging(
        "local-gd", mean(), loss, local_steps=local_steps, lr=lr, lr_schedule=lr_schedule, weighted_by=weighted_by
    )


@makes
def local_sgd(
    *,
    local_steps: LocalSteps = 100,
    lr: StepSize = "auto",
    lr_schedule: str = "constant",
    loss: AnyLoss = None,
    batch_size: int = 32,
    replacement: bool = False,
    weighted_by: Weights = None,
    seed: int = 0,
) -> Method:
    """Return Local-SGD (FedAvg): L mini-batch gradient steps on every node, then the mean.

    Parameters
    ----------
    local_steps, lr, lr_schedule, loss, weighted_by
        As for `local_gd`.
    batch_size : int, at least 1
        Rows per step; a node with fewer uses all it has.
    replacement : bool
        Draw each batch with replacement; else batches are cut from shuffled passes over the rows.
    seed : int
        Batches are drawn from ``default_rng([seed, round, node])``.

    Examples
    --------
    >>> local_sgd(batch_size=16).task.batch_size
    16
    """
    drawn = {"batch_size": batch_size, "replacement": replacement, "seed": seed}
    return _averaging(
        "local-sgd",
        mean(),
        loss,
        local_steps=local_steps,
        lr=lr,
        lr_schedule=lr_schedule,
        weighted_by=weighted_by,
        **drawn,
    )


@makes
def modified_local_gd(
    *,
    form: Literal["projection", "proximal"] = "projection",
    prox: float | None = None,
    local_steps: LocalSteps | None = None,
    lr: float | Literal["auto"] | Mapping[str, float] | None = None,
    lr_schedule: str | None = None,
    loss: AnyLoss = None,
    weighted_by: Weights = None,
) -> Method:
    """Return Modified Local-GD: a proximal problem solved on every node, then the mean anchored at 0.

    Parameters
    ----------
    form : "projection" or "proximal"
        Solve it exactly in the limit λ → 0 (a projection; needs separable rows), or by gradient steps with λ > 0.
    prox : float > 0, optional
        λ of the proximal form; default 1e-3.
    local_steps : int or mapping from node to int, optional
        Gradient steps of the proximal form; default 100.
    lr : float, "auto" or mapping from node to float, optional
        Step size of the proximal form; default "auto", 1/(β + λ).
    lr_schedule : str, optional
        Of the proximal form, as for `local_gd`; default "constant".
    loss : "logistic", "exponential" or Loss
        Loss of a margin; the projection form only reports it.
    weighted_by : "uniform", "num-examples" or mapping from node to float
        Weight of a node in the mean.

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
        own = {"prox": prox, "local_steps": local_steps, "lr": lr, "lr_schedule": lr_schedule}
        ignored = [name for name, value in own.items() if value is not None]
        if ignored:
            raise ValueError(f"{ignored[0]} has no meaning for form='projection'; leave it out or use form='proximal'")
        weighting = by_node("uniform" if weighted_by is None else weighted_by, "weighted_by")
        task = Project(loss=loss_named("logistic" if loss is None else loss), weighted_by=weighting)
        return Method("modified-local-gd", task, Anchored(mean()), remedy="use local-gd, or form='proximal'")
    if form != "proximal":
        raise ValueError(f"form must be 'projection' or 'proximal', got {form!r}")
    return _averaging(
        "modified-local-gd",
        Anchored(mean()),
        loss,
        local_steps=100 if local_steps is None else local_steps,
        lr="auto" if lr is None else lr,
        lr_schedule="constant" if lr_schedule is None else lr_schedule,
        weighted_by=weighted_by,
        prox=1e-3 if prox is None else prox,
    )


@makes
def fedexp(
    *,
    local_steps: LocalSteps = 100,
    lr: StepSize = "auto",
    lr_schedule: str = "constant",
    loss: AnyLoss = None,
    weighted_by: Weights = None,
) -> Method:
    """Return FedExP: Local-GD whose mean move is made longer where the nodes pull apart.

    Parameters
    ----------
    local_steps, lr, lr_schedule, loss, weighted_by
        As for `local_gd`.

    Notes
    -----
    Jhunjhunwala, Wang, Joshi, ICLR 2023, arXiv 2301.09604: w ← w + η Δ̄ with Δ̄ the mean of the nodes' moves Δ_m and
    η = max(1, mean |Δ_m|² / (2 |Δ̄|²)), with no step size of the server's to choose.

    Examples
    --------
    >>> fedexp(local_steps=10).name
    'fedexp'
    """
    return _averaging(
        "fedexp",
        chain(mean(), Extrapolation()),
        loss,
        local_steps=local_steps,
        lr=lr,
        lr_schedule=lr_schedule,
        weighted_by=weighted_by,
    )


@makes
def normalised_local_gd(
    *,
    local_steps: LocalSteps = 100,
    lr: StepSize = "paper",
    lr_schedule: str = "constant",
    loss: AnyLoss = "exponential",
    weighted_by: Weights = None,
) -> Method:
    """Return loss-normalised Local-GD: the step size of a round is divided by the loss of the round before.

    It hands out the late direction; ``normalised_local_gd().late(False)`` the model itself.

    Parameters
    ----------
    local_steps, lr_schedule, loss, weighted_by
        As for `local_gd`.
    lr : float > 0, "auto" or "paper", or mapping from node to float
        Step size before the division; "paper" is 1/(βL), "auto" is 1/β. A round that raises the loss is undone and
        repeated with half the step, so too large a number costs rounds, not the run.

    Notes
    -----
    Same limit as Local-GD on separable data, as every update is a combination of rows with coefficients >= 0 that
    vanish off the smallest margin; |w| grows like k instead of log k, so the angle falls like 1/k.

    Examples
    --------
    >>> type(normalised_local_gd(local_steps=10).merge).__name__
    'Late'
    """
    return _averaging(
        "normalised-local-gd",
        Late(Normalised()),
        loss,
        local_steps=local_steps,
        lr=lr,
        lr_schedule=lr_schedule,
        weighted_by=weighted_by,
    )


@makes
def fedprox(
    *,
    prox: float = 0.01,
    local_steps: LocalSteps = 100,
    lr: StepSize = "auto",
    lr_schedule: str = "constant",
    loss: AnyLoss = None,
    weighted_by: Weights = None,
) -> Method:
    """Return FedProx: Local-GD with a pull (λ/2)|v − w|² towards the shared model, which keeps unlike nodes together.

    Parameters
    ----------
    prox : float > 0
        λ.
    local_steps, lr, lr_schedule, loss, weighted_by
        As for `local_gd`; "auto" is 1/(β + λ).

    Notes
    -----
    Li et al., MLSys 2020, arXiv 1812.06127.

    Examples
    --------
    >>> fedprox(prox=0.1).task.prox
    0.1
    """
    return _averaging(
        "fedprox",
        mean(),
        loss,
        local_steps=local_steps,
        lr=lr,
        lr_schedule=lr_schedule,
        weighted_by=weighted_by,
        prox=prox,
    )


@makes
def slowmo(
    *,
    momentum: float = 0.7,
    server_lr: float = 1.0,
    nesterov: bool = False,
    local_steps: LocalSteps = 100,
    lr: StepSize = "auto",
    lr_schedule: str = "constant",
    loss: AnyLoss = None,
    weighted_by: Weights = None,
) -> Method:
    """Return SlowMo, Local-GD with momentum on the server; with ``nesterov=True`` the outer step of DiLoCo.

    Parameters
    ----------
    momentum, server_lr, nesterov
        β, α and the form of the server's step: see `localgd.rules.server.Momentum`.
    local_steps, lr, lr_schedule, loss, weighted_by
        As for `local_gd`.

    Notes
    -----
    Wang et al., ICLR 2020, arXiv 1910.00643; Douillard et al., arXiv 2311.08105.

    Examples
    --------
    >>> slowmo(nesterov=True, server_lr=0.7, momentum=0.9).merge.parts
    (Momentum(momentum=0.9, server_lr=0.7, nesterov=True),)
    """
    moving = chain(mean(), Momentum(momentum, server_lr, nesterov))
    return _averaging(
        "slowmo", moving, loss, local_steps=local_steps, lr=lr, lr_schedule=lr_schedule, weighted_by=weighted_by
    )
