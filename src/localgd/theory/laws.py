"""What is known about a run before it starts: the gradient flow, its asymptote, the nodes' own directions, the drift.

Where the nodes hardly drift apart within a round, Local-GD with L local steps of size η is the gradient flow of the
pooled objective ``F(w) = Σ c_i ℓ(z_i·w)`` at time t = ηLk after k rounds; ``c_i = p_m/n_m`` for a row of node m, with
the node weights p summing to 1. These functions need the rows in one place, as those of `pooled` do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.spatial.distance import pdist
from scipy.special import expit
from threadpoolctl import threadpool_limits

from localgd.kernels.project import dense, shortest
from localgd.losses import Exponential, Logistic, Loss
from localgd.problems.metrics import Weighting, check_weighting, node_weight
from localgd.reference.max_margin import max_margin
from localgd.rounding import FloatArray, norm
from localgd.rows import Shard
from localgd.rules.probes import largest_eigenvalue
from localgd.theory.bounds import positive


def flow(
    shards: Sequence[Shard],
    times: ArrayLike,
    *,
    loss: Loss = Exponential(),  # noqa: B008  frozen, so sharing one is safe
    weighted_by: Weighting = "uniform",
) -> FloatArray:
    """Return the gradient flow ``dw/dt = −∇F(w) = Σ c_i (−ℓ'(z_i·w)) z_i`` from w(0) = 0 at the given times.

    Integrated over x = log(1 + t), in which w is almost a straight line: t = 1e30 costs no more than a few times t = 1.

    Parameters
    ----------
    shards : sequence of Shard
        The nodes' rows, separable or not.
    times : (T,) array
        Ascending, above 0, in units of 1/|z|².
    loss : Exponential or Logistic
        ℓ.
    weighted_by : "uniform" or "num-examples"
        Node weights p_m of the objective.

    Returns
    -------
    (T, d) float64 array
        The models w(t), in units of 1/|z|; measured error 1e-7 of their length.

    Raises
    ------
    ValueError
        If the times are not as above, the nodes do not fit together, the loss is another, or the integration fails.

    Notes
    -----
    Radau IIA of order 5 (Hairer and Wanner, *Solving Ordinary Differential Equations II*, section IV.8) with the exact
    Jacobian, on min(N, d) numbers: rows in an orthonormal basis of their span.

    Examples
    --------
    >>> flow([Shard("a", [[1.0, 0.0]])], [np.e - 1, 1e30]).round(4)
    array([[ 1.    ,  0.    ],
           [69.0776,  0.    ]])
    """
    log_times = np.log(_ascending(times))
    rows, weights = _gathered(shards, weighted_by)
    radius = max(shard.radius for shard in shards)
    if radius == 0.0:
        return np.zeros((log_times.size, rows.shape[1]))
    basis, factor = np.linalg.qr(rows.T / radius)
    unit, log_weights = factor.T, np.log(weights)

    def velocity(x: float, v: FloatArray) -> FloatArray:
        return np.asarray(unit.T @ np.exp(x + log_weights + _log_slope(loss, unit @ v)))

    def jacobian(x: float, v: FloatArray) -> FloatArray:
        margins = unit @ v
        curvature = np.exp(x + log_weights + _log_slope(loss, margins)) * _decay(loss, margins)
        return np.asarray(-unit.T @ (curvature[:, None] * unit))

    x = np.logaddexp(0.0, log_times + 2.0 * math.log(radius))  # times in units of 1/radius²
    with np.errstate(over="ignore", invalid="ignore"), threadpool_limits(limits=1, user_api="blas"):
        span, start = (0.0, float(x[-1])), np.zeros(unit.shape[1])
        # A step that overflows is taken again, shorter; more threads would only slow such small factorisations.
        path = solve_ivp(velocity, span, start, "Radau", dense_output=True, jac=jacobian, rtol=1e-6, atol=1e-9)
    if not path.success or path.sol is None:
        raise ValueError(f"the flow could not be followed to t = {np.exp(log_times[-1]):.3g}: {path.message}")
    return np.asarray(path.sol(x).T @ basis.T / radius)


def _log_slope(loss: Loss, margins: FloatArray) -> FloatArray:
    """Return log(−ℓ'(m)), which does not underflow."""
    if isinstance(loss, Exponential):
        return -margins
    if isinstance(loss, Logistic):
        return -np.logaddexp(0.0, margins)
    raise ValueError(f"loss must be Exponential() or Logistic(), got {loss!r}")


def _decay(loss: Loss, margins: FloatArray) -> FloatArray:
    """Return −d log(−ℓ'(m))/dm, so that ℓ'' = slope · decay."""
    return np.ones_like(margins) if isinstance(loss, Exponential) else np.asarray(expit(margins))


def _ascending(times: ArrayLike) -> FloatArray:
    moments = np.asarray(times, dtype=np.float64)
    good = moments.ndim == 1 and moments.size > 0 and np.isfinite(moments).all()
    if not (good and moments[0] > 0 and (np.diff(moments) > 0).all()):
        raise ValueError(f"times must be a list of ascending numbers above 0, got {times!r}")
    return moments


def _gathered(shards: Sequence[Shard], weighted_by: Weighting) -> tuple[FloatArray, FloatArray]:
    """Return all rows, in the order of the node names, and their weights c_i."""
    check_weighting(weighted_by)
    widths = {shard.n_features for shard in shards}
    if len(widths) != 1:
        raise ValueError(f"nodes must have the same features, and there must be one; got widths {sorted(widths)}")
    if any(shard.weights is not None for shard in shards):
        raise ValueError("these laws hold for samples of one weight; give shards without weights")
    if any(shard.versus > 1 for shard in shards):
        raise ValueError("these laws hold for losses of one margin a sample; give shards of two classes (versus=1)")
    held = sorted(shards, key=lambda shard: shard.node_id)  # so that the order they came in changes no bit
    each = [np.full(shard.n_rows, node_weight(shard, weighted_by) / shard.n_rows) for shard in held]
    weights = np.concatenate(each)
    return np.vstack([dense(shard.rows) for shard in held]), weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Asymptote:
    """Where the flow ends up: ``w(t) = ŵ log t + ρ + o(1)``.

    Parameters
    ----------
    hard_margin : (d,) float64 array
        ŵ, the shortest vector with z_i·ŵ >= 1 for every row.
    offset : (d,) float64 array
        ρ, in units of 1/|z| where t is in units of 1/|z|².
    """

    hard_margin: FloatArray
    offset: FloatArray

    def angle_deg(self, t: float) -> float:
        """Return the angle in degrees of ŵ log t + ρ to ŵ: ``tan θ = |ρ⊥|/(|ŵ| log t + ρ∥)``.

        Asymptotic: it is near the flow's angle for late t only, and means nothing near t = 1 (in units of 1/|z|²).

        Raises
        ------
        ValueError
            If t is not a finite number above 0.
        """
        positive(t=t)
        length = norm(self.hard_margin)
        u = self.hard_margin / length
        along = float(self.offset @ u)
        return math.degrees(math.atan2(norm(self.offset - along * u), length * math.log(t) + along))


def asymptote(shards: Sequence[Shard], weighted_by: Weighting = "uniform") -> Asymptote:
    """Return the asymptote of the flow of rows that are all support vectors; the same for either loss.

    With ``ŵ = Σ α_i z_i`` put ``w = ŵ log t + ρ`` into the flow: ``ŵ/t = Σ c_i e^(−log t − z_i·ρ) z_i``. So
    ``z_i·ρ = −log(α_i/c_i)`` on every row, and ρ lies in the span of the rows (Soudry et al. 2018, *The implicit
    bias of gradient descent on separable data*); `weighted_by` as for `flow`.

    Raises
    ------
    NotSeparableError
        If no direction separates the rows.
    ValueError
        If a row has no positive dual: ρ then depends on the whole path, and `flow` has to follow it. Duplicate rows
        are refused too, as only one of them gets a dual, although their limit exists.

    Examples
    --------
    >>> asymptote([Shard("a", [[2.0, 0.0]]), Shard("b", [[0.0, 1.0]])]).offset.round(4).tolist()
    [0.3466, -0.6931]
    """
    rows, weights = _gathered(shards, weighted_by)
    found = max_margin(rows)
    support = np.count_nonzero(found.duals > 0)
    if support < len(rows):
        raise ValueError(f"the offset needs a positive dual on all {len(rows)} rows, {support} have one; use flow")
    offset, _ = shortest(rows, -np.log(found.duals / weights), *np.linalg.qr(rows.T))
    return Asymptote(found.direction / found.margin_low, offset)


def local_directions(shards: Sequence[Shard]) -> FloatArray:
    """Return each node's own max-margin direction, one unit vector a row, (M, d), in the order given.

    Raises
    ------
    NotSeparableError
        If a node's rows are not separable; the message names it.
    """
    directions = []
    for shard in shards:
        try:
            directions.append(max_margin(shard.rows).direction)
        except ValueError as error:
            error.args = (f"node {shard.node_id!r}: {error}",)
            raise
    return np.vstack(directions)


@dataclass(frozen=True)
class Diversity:
    """How unlike the nodes are: mean and largest angle between two nodes' directions, in degrees."""

    mean_deg: float
    max_deg: float


def diversity(directions: FloatArray) -> Diversity:
    """Return mean and largest pairwise angle of vectors (M, d), none zero; 0 for a single one.

    Examples
    --------
    >>> round(diversity(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).mean_deg, 9)
    120.0
    """
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all() and lengths.size):
        raise ValueError("directions must be finite vectors, at least one and none zero: a zero vector has no angle")
    angles = np.degrees(2.0 * np.arcsin(np.minimum(pdist(directions / lengths) / 2.0, 1.0)))
    return Diversity(float(angles.mean()), float(angles.max())) if angles.size else Diversity(0.0, 0.0)


@dataclass(frozen=True)
class Constants:
    """The numbers the rates depend on.

    Parameters
    ----------
    margin, radius : float
        γ*, the pooled max margin, and the largest row norm.
    smoothness : float
        λ_max, the largest eigenvalue of Z_mᵀZ_m/n_m over the nodes (to 1e-6, rounded up).
    n_support, n_rows, n_nodes : int
        Distinct rows on the margin, N and M.
    """

    margin: float
    n_support: int
    smoothness: float
    radius: float
    n_rows: int
    n_nodes: int


def constants(shards: Sequence[Shard]) -> Constants:
    """Return the constants of a federation; raises NotSeparableError if its pooled rows are not separable.

    Examples
    --------
    >>> constants([Shard("a", [[2.0, 0.0]]), Shard("b", [[0.0, 2.0]])]).n_support
    2
    """
    rows, _ = _gathered(shards, "uniform")
    found = max_margin(rows)
    smoothness = max(largest_eigenvalue(shard) for shard in shards)
    radius = max(shard.radius for shard in shards)
    return Constants(found.margin_low, found.n_support, smoothness, radius, len(rows), len(shards))


def drift_bias(
    shards: Sequence[Shard],
    minimiser: FloatArray,
    lr: float,
    local_steps: int,
    *,
    loss: Loss = Logistic(),  # noqa: B008  frozen, so sharing one is safe
    weighted_by: Weighting = "uniform",
) -> FloatArray:
    """Return how far from the pooled minimiser w* Local-GD stops, to first order in ηL, shape (d,).

    ``w − w* ≈ η(L−1)/2 · H⁻¹ Σ p_m H_m ∇f_m(w*)``: L steps move node m by −ηL g_m + η²L(L−1)/2 · H_m g_m + …, where
    Σ p_m g_m = H(w − w*), and these moves cancel. Where H is singular, the shortest such vector.

    The rows are not separable, and `minimiser` is w* under the same loss (exponential or logistic) and weighting.

    Examples
    --------
    >>> nodes = [Shard("a", [[1.0], [-0.5]]), Shard("b", [[-1.0], [3.0]])]
    >>> drift_bias(nodes, np.array([0.5]), lr=0.1, local_steps=1)
    array([0.])
    """
    positive(lr=lr, local_steps=local_steps)
    rows, weights = _gathered(shards, weighted_by)
    margins = rows @ minimiser
    root = np.sqrt(weights * np.exp(_log_slope(loss, margins)) * _decay(loss, margins))
    own = []
    for shard in sorted(shards, key=lambda shard: shard.node_id):
        gradient = -shard.combine(loss.slope(shard.margins(minimiser))) / shard.n_rows
        own.append(shard.margins(gradient))
    # H = Zᵀdiag(root²)Z and Σ p_m H_m g_m = Zᵀ(root² z_i·g_m): normal equations, solved without forming them.
    bias, *_ = np.linalg.lstsq(root[:, None] * rows, root * np.concatenate(own))
    return np.asarray(lr * (local_steps - 1) / 2.0 * bias)
