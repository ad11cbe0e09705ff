"""Rounds that only look: evaluation of a model, constants of the data, a dual bound for a model from elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from localgd.core import CountKey, Engine, Field, Message, Report, Schema
from localgd.errors import from_all
from localgd.rounding import COMFORTABLE_EXPONENT, FloatArray, norm
from localgd.rows import Dual, Shard

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

    Maxima: ``peak``, ``radius``, ``n_features_max``; minimum: ``n_features_min``. Count ``versus``: the nodes whose
    samples have so many rows each; none if it is 1.
    """

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the sizes."""
        largest = dict.fromkeys(("peak", "radius", "n_features_max"), Field("max"))
        return {**largest, "n_features_min": Field("min"), "versus": Field("count")}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return the node's sizes.

        Raises
        ------
        TypeError
            If the node holds no signed rows yet.
        """
        if not isinstance(shard, Shard):
            raise TypeError("this node holds a table, not signed rows; call prepare(engine) first")
        largest = {"peak": shard.peak, "radius": shard.radius, "n_features_max": shard.n_features}
        counts: dict[CountKey, int] = {} if shard.versus == 1 else {("versus", shard.versus): 1}
        return Report(1, shard.n_samples, maxs=largest, mins={"n_features_min": shard.n_features}, counts=counts), state


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

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return the node's eigenvalue."""
        return Report(1, shard.n_samples, maxs={"eigenvalue": largest_eigenvalue(shard, self.versus)}), state


def largest_eigenvalue(shard: Shard, versus: int = 1) -> float:
    """Return the largest eigenvalue of ZᵀZ/n, or of Zᵀ(I − 11ᵀ/C)Z·versus/n with C = 1 + versus, by power iteration.

    Examples
    --------
    >>> round(largest_eigenvalue(Shard("a", [[3.0, 0.0], [0.0, 1.0]])), 4)
    4.5
    """
    if shard.radius == 0.0:
        return 0.0
    rows: Any = shard.rows / shard.radius
    v = np.random.default_rng(shard.n_features).standard_normal(shard.n_features)
    v /= norm(v)
    value = 0.0
    for _ in range(MAX_POWER_STEPS):
        image = np.asarray(rows.T @ _centred(rows @ v, versus))
        before, value = value, norm(image)
        if value == 0.0 or abs(value - before) <= POWER_TOL * value:
            break
        v = image / value
    # λ_max <= trace: keeps a lucky start orthogonal to the top eigenvector, or an underflow, from reporting zero.
    trace = float((rows.multiply(rows) if isinstance(shard.rows, csr_array) else rows * rows).sum())
    least = trace if versus == 1 else trace / (versus + 1)  # I − 11ᵀ/C has no eigenvalue below 1/C
    value = min(max(value * (1 + POWER_TOL), least / shard.n_features), trace)
    return value * versus / shard.n_rows * shard.radius**2


def _centred(margins: FloatArray, versus: int) -> FloatArray:
    """Return (I − 11ᵀ/C) m for the margins of every sample."""
    if versus == 1:
        return margins
    of_sample = margins.reshape(-1, versus)
    return np.asarray((of_sample - of_sample.sum(axis=1, keepdims=True) / (versus + 1)).ravel())


@dataclass(frozen=True)
class Rescaled:
    """Shards with every row divided by a power of two: exact, so it changes no model and no angle.

    Examples
    --------
    >>> Rescaled(2.0)(Shard("a", [[2.0, 4.0]])).rows.tolist()
    [[1.0, 2.0]]
    """

    divisor: float

    def __call__(self, shard: Shard) -> Shard:
        """Return the rescaled shard."""
        rows: Any = shard.rows
        return replace(shard, rows=rows / self.divisor)


class Comfortable(NamedTuple):
    """A federation whose rows float64 can square, the power of two they were divided by, and their sizes."""

    engine: Engine
    divisor: float
    n_features: int
    radius: float
    versus: int


def rows_a_sample(sizes: Report) -> int:
    """Return how many rows speak for one sample, on every node, from a report of `Sizes`.

    Raises
    ------
    ValueError
        If nodes differ in it.
    """
    nodes = {int(versus): n_nodes for (_, versus), n_nodes in sizes.counts.items()}
    versus = max(nodes, default=1)
    if versus > 1 and nodes[versus] != sizes.n_nodes:
        raise ValueError("nodes differ in their number of rows a sample (versus); give all the same classes")
    return versus


def comfortable(engine: Engine, n_features: int | None = None) -> Comfortable:
    """Divide rows of extreme size by a power of two, which is exact; one round finds out whether they are.

    Rows whose largest entry is between 2⁻¹⁰⁰ and 2¹⁰⁰ stay as they are, divisor 1.

    Raises
    ------
    ValueError
        If nodes differ in their number of features or of rows a sample, or all rows are zero.
    """
    report = from_all(engine, Sizes(), Message())
    versus = rows_a_sample(report)
    fewest, most = int(report.mins["n_features_min"]), int(report.maxs["n_features_max"])
    if fewest != most:
        raise ValueError(f"nodes differ in their number of features ({fewest} to {most}); give all the same columns")
    if n_features is not None and n_features != fewest:
        raise ValueError(f"the model has {n_features} coefficients, but the rows have {fewest} columns (bias included)")
    peak = float(report.maxs["peak"])
    if peak == 0.0:
        raise ValueError("every entry of every row is zero, so there is nothing to learn; check the columns")
    exponent = math.frexp(peak)[1]
    if abs(exponent) <= COMFORTABLE_EXPONENT:
        return Comfortable(engine, 1.0, fewest, float(report.maxs["radius"]), versus)
    divisor = math.ldexp(1.0, max(min(exponent, 1000), -1000))  # a normal number, and so is its inverse
    engine = engine.map(Rescaled(divisor))
    return Comfortable(engine, divisor, fewest, float(from_all(engine, Sizes(), Message()).maxs["radius"]), versus)


@dataclass(frozen=True)
class TemperedDual:
    """Report Σ q_i z_i and Σ q_i for q_i = exp(−τ (z_i·w − low)) at several sharpnesses τ.

    For any q >= 0, γ* <= |Σ q_i z_i| / Σ q_i; the sharper τ, the more q leans on the rows nearest to the boundary.
    ``message.extra``: ``low`` (smallest margin over all nodes, so that every exponent is <= 0) and ``tau`` (T,).
    Duals: ``dual-0``, ``dual-1``, … one for every τ.
    """

    def schema(self, message: Message) -> Schema:
        """Return the duals."""
        return {f"dual-{place}": Field("dual", message.w.shape) for place in range(message.extra["tau"].size)}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return the tempered dual vectors of this node."""
        above = np.maximum(shard.margins(message.w) - message.extra["low"], 0.0)
        duals = (shard.combination(np.exp(-tau * above)) for tau in message.extra["tau"])
        return Report(
            1, shard.n_samples, duals={f"dual-{place}": dual.weighted(1.0) for place, dual in enumerate(duals)}
        ), state


TAUS = np.geomspace(1.0, 1e5, 21)
"""Sharpnesses tried for a model from elsewhere, in units of 1/largest row."""


def tempered_duals(engine: Engine, w: FloatArray, low: float, radius: float) -> list[Dual]:
    """Return dual vectors for a model that brings no mass, by one round.

    Parameters
    ----------
    engine : Engine
        The federation.
    w : (d,) float64 array
        The model, of length 1 or about.
    low : float
        Its smallest margin over all nodes.
    radius : float
        The largest row norm.
    """
    message = Message(0, w, {"low": np.asarray(low), "tau": TAUS / radius})
    return list(engine.round(TemperedDual(), message).duals.values())
