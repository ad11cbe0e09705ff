"""Rounds that only look: evaluation of a model, constants of the data, a dual bound for a model from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from localgd.core import Engine, Field, Message, Report, Schema
from localgd.duals.dual import Dual
from localgd.errors import from_all
from localgd.layouts import Dense
from localgd.limits import RefusedError
from localgd.many.reports import blank, more
from localgd.many.stack import at_once
from localgd.problems.metrics import WEIGHTED, total, weights_of
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray, norm, norms, read_only
from localgd.rows import MOST_APART, Shard

NO_ROW = 2.0**200
"""What a node whose rows are all 0 tells as its shortest other one: longer than any."""

MAX_POWER_STEPS = 1000
POWER_TOL = 1e-6


def forgotten() -> Report:
    """Return what a node says that has lost its part of the run, as after a restart: that it has, and nothing else.

    It counts as no node, so the round is not whole; the server then starts the method again.
    """
    return Report(flags={"forgotten": 1})


@dataclass(frozen=True)
class Sizes:
    """Report the largest entry, the largest row norm, and the fewest and most columns of any node.

    Maxima: ``peak``, ``radius``, ``n_features_max``; minima: ``shortest`` (row that is not 0), ``n_features_min``.
    Count ``versus``: the nodes whose samples have so many rows each; none if it is 1. Sums: `weights_of`.
    """

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the sizes."""
        largest = dict.fromkeys(("peak", "radius", "n_features_max"), Field("max"))
        least = {"n_features_min": Field("min"), "shortest": Field("min")}
        return {**largest, **least, "versus": Field("count"), **WEIGHTED}

    @at_once
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return the node's sizes."""
        if not isinstance(shard, Shard):
            raise TypeError(_other(shard))
        largest = {"peak": shard.peak, "radius": shard.radius, "n_features_max": shard.n_features}
        least = {"n_features_min": shard.n_features, "shortest": np.minimum(shard.shortest, NO_ROW)}
        sizes = more(blank(shard), sums=weights_of(shard), maxs=largest, mins=least)
        return sizes if shard.versus == 1 else sizes + Report(counts={("versus", shard.versus): 1}), state


def _other(held: Any) -> str:
    """Return in words what is to be done with what a node holds, where these are no rows."""
    if type(held).__name__ == "Examples":
        return "this node holds examples of a network, not signed rows; give problem=Network(build, loss)"
    return "this node holds a table, not signed rows; call prepare(engine) first"


@dataclass(frozen=True)
class Smoothness:
    """Report the largest eigenvalue of Z_mᵀZ_m/n_m over the nodes, as the maximum ``eigenvalue``.

    By power iteration on the node with a start fixed by its size, relative accuracy 1e-6, rounded up by as much. Where
    `versus` margins make one value of the loss, Z_mᵀ(I − 11ᵀ/C)Z_m/(samples of m) instead, I − 11ᵀ/C in each sample:
    the curvature of `localgd.losses.Softmax`.
    """

    versus: int = 1

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return one number."""
        return {"eigenvalue": Field("max")}

    @at_once
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return the node's eigenvalue."""
        return more(blank(shard), maxs={"eigenvalue": largest_eigenvalue(shard, self.versus)}), state


def largest_eigenvalue(shard: Shard, versus: int = 1) -> Any:
    """Return the largest eigenvalue of ZᵀZ/n, or of Zᵀ(I − 11ᵀ/C)Z·versus/n with C = 1 + versus, by power iteration.

    Each row by its weight, of mean 1.

    Examples
    --------
    >>> round(largest_eigenvalue(Shard("a", [[3.0, 0.0], [0.0, 1.0]])), 4)
    4.5
    """
    rows, weights = shard.data.over(np.where(shard.radius, shard.radius, 1.0)), shard.of_rows
    v = np.random.default_rng(shard.n_features).standard_normal(shard.n_features)
    value = _power_iteration(rows, weights, versus, v / norm(v), np.zeros(np.shape(shard.radius)))
    # λ_max <= trace: keeps a lucky start orthogonal to the top eigenvector, or an underflow, from reporting zero.
    trace = rows.trace if weights is None else rows.shares(weights, 2).sum(axis=(-2, -1))
    least = trace if versus == 1 else trace / (versus + 1)  # I − 11ᵀ/C has no eigenvalue below 1/C
    value = np.minimum(np.maximum(value * (1 + POWER_TOL), least / shard.n_features), trace)
    largest = value * versus / shard.n_rows * np.square(shard.radius)
    return largest if np.ndim(largest) else float(largest)


def _power_iteration(rows: Any, weights: Any, versus: int, v: FloatArray, value: FloatArray) -> FloatArray:
    """Return the length of the image of v, (d,), when that no longer grows; of many nodes those go on whose does."""
    left: Any = ...
    for _ in range(MAX_POWER_STEPS):
        margins = _centred(rows.margins(v), versus)
        image = rows.sum(margins if weights is None else weights * margins)
        before, length = np.array(value[left]), norms(image)
        value[left] = length
        grows = (length > 0) & (np.abs(length - before) > POWER_TOL * length)
        if not grows.any():
            break
        if not grows.all():
            left = np.flatnonzero(grows) if left is ... else left[grows]
            rows, image, length = Dense(read_only(rows.x[grows])), image[grows], length[grows]
            weights = None if weights is None else weights[grows]
        v = image / length[..., None]
    return value


def _centred(margins: FloatArray, versus: int) -> FloatArray:
    """Return (I − 11ᵀ/C) m for the margins of every sample."""
    if versus == 1:
        return margins
    of_sample = margins.reshape(-1, versus)
    return np.asarray((of_sample - of_sample.sum(axis=1, keepdims=True) / (versus + 1)).ravel())


def measured(engine: Engine, n_features: int | None = None, *, zeros: bool = False) -> DataSizes:
    """Return the sizes of the rows of all nodes, by one round.

    Refuse nodes that differ in their number of features or of rows a sample, and zeros only, unless `zeros` may be.
    """
    report = from_all(engine, Sizes(), Message())
    nodes = {int(versus): n_nodes for (_, versus), n_nodes in report.counts.items()}
    versus = max(nodes, default=1)
    if versus > 1 and nodes[versus] != report.n_nodes:
        raise ValueError("nodes differ in their number of rows a sample (versus); give all the same classes")
    maxs, mins = report.maxs, report.mins
    fewest, most = int(mins["n_features_min"]), int(maxs["n_features_max"])
    if fewest != most:
        raise ValueError(f"nodes differ in their number of features ({fewest} to {most}); give all the same columns")
    if n_features is not None and n_features != fewest:
        raise ValueError(f"the model has {n_features} coefficients, but the rows have {fewest} columns (bias included)")
    if float(maxs["peak"]) == 0.0 and not zeros:
        raise ValueError("every entry of every row is zero, so there is nothing to learn; check the columns")
    radius, shortest = float(maxs["radius"]), float(mins["shortest"])
    if shortest * MOST_APART < radius:
        raise ValueError(
            f"nodes hold rows of lengths from {shortest:.0e} to {radius:.0e}, more than 1e12 apart; scale the columns"
        )
    weight = total(report) if "total" in report.sums else None
    return DataSizes(report.n_rows, fewest, radius, versus, weight)


@dataclass(frozen=True)
class TemperedDual:
    """Report Σ q_i z_i and Σ q_i for q_i = exp(−τ (z_i·w − low)) at several sharpnesses τ.

    For any q >= 0, γ* <= |Σ q_i z_i| / Σ q_i; the sharper τ, the more q leans on the rows nearest to the boundary.
    ``message.extra``: ``low`` (smallest margin over all nodes, so that every exponent is <= 0) and ``tau`` (T,).
    Duals: ``dual-0``, ``dual-1``, … one for every τ, but for those that a node's limits keep back: without them the
    sums of the other nodes still prove what they say.
    """

    def schema(self, message: Message) -> Schema:
        """Return the duals."""
        dual = Field("dual", message.w.shape, optional=True)
        return {f"dual-{place}": dual for place in range(message.extra["tau"].size)}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the tempered dual vectors of this node; refuse only if its limits let none of them pass."""
        above = np.maximum(shard.margins(message.w) - message.extra["low"], 0.0)
        duals: dict[str, Dual] = {}
        refusal: RefusedError | None = None
        for place, tau in enumerate(message.extra["tau"]):
            try:
                duals[f"dual-{place}"] = shard.combination(np.exp(-tau * above)).weighted(1.0)
            except RefusedError as error:
                refusal = error
        if refusal is not None and not duals:
            raise refusal
        return Report(1, shard.n_samples, duals=duals), state


TAUS = np.geomspace(1.0, 1e5, 21)
"""Sharpnesses tried for a model from elsewhere, in units of 1/largest row."""


def tempered_duals(engine: Engine, w: FloatArray, low: float, radius: float) -> list[Dual]:
    """Return dual vectors for a model w, shape (d,), that brings no mass, by one round.

    Its length is 1 or about, `low` its smallest margin over all nodes, and `radius` the largest row norm.
    """
    message = Message(0, w, {"low": np.asarray(low), "tau": TAUS / radius})
    return list(engine.round(TemperedDual(), message).duals.values())
