"""Local gradient descent for least squares on rows with real targets: the linear twin of the classifiers' story.

With more features than rows the pooled problem has many exact solutions, and the one of least norm plays the part that
the max-margin model plays for classifiers. These local steps are for studying that; `localgd.normal_equations` and
`localgd.conjugate_gradients` are the way to the pooled solution, with a proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from localgd.core import Engine, Field, Message, Problem, Report, Schema
from localgd.duals.dual import Dual
from localgd.errors import check_named, check_positive, check_whole, from_all
from localgd.many.by_node import by_node
from localgd.problems.least_squares import LeastSquares, check_targets, least_squares, residual_sums, residuals_schema
from localgd.problems.metrics import Weighting, check_weighting, node_weight
from localgd.problems.sizes import DataSizes
from localgd.rounding import UNIT_ROUNDOFF, FloatArray, read_only
from localgd.rows import Samples
from localgd.rules.local import updated, updates
from localgd.rules.probes import Smoothness


class GramSpectrum(NamedTuple):
    """Eigenvalues λ >= 0, shape (n,), and eigenvectors, the columns of an (n, n) array, of a node's Gram matrix XXᵀ."""

    values: FloatArray
    vectors: FloatArray


@dataclass(frozen=True)
class SquaresSteps:
    """L gradient steps on f_m(v) = |X_m v − y_m|²/(2 n_m) from the shared model w, or all of them at once.

    v = w + Xᵀ Q g(Λ) Qᵀ (y − Xw) with XXᵀ = QΛQᵀ, g(λ) = (1 − (1 − ηλ/n)^L)/λ (ηL/n at λ = 0): one formula whatever L.
    Without `local_steps` it is the limit L → ∞, g(λ) = 1/λ (0 where rows depend on each other): the projection of w
    onto {v : X_m v = y_m}, or onto the least-squares solutions where there is no exact one.

    Only in that limit: the Gram matrix squares singular values, so those of X_m below about 4e-8·√(n_m + d) of its
    largest one drown in rounding. Their rows count as dependent, and w stays as it is along them.

    It reports the sums ``weight``, ``update_sq_norm``, what the residuals of w say (`residual_sums`), and the dual
    ``update``, which has no mass.

    Parameters
    ----------
    local_steps : int, at least 1, optional
        L, gradient steps per round; default is the exact local solution.
    lr : float > 0, optional
        Step size η, needed with `local_steps`; see `stable_lr`.
    weighted_by : "uniform", "num-examples" or mapping from node to float
        Node weight in the average.

    Examples
    --------
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.methods.method import Method
    >>> from localgd.rules.server import mean
    >>> from localgd.run.loop import train
    >>> engine = InProcess([Samples("a", [[1.0, 0.0, 0.0]], [2.0]), Samples("b", [[1.0, 1.0, 0.0]], [3.0])])
    >>> method = Method("projections", SquaresSteps(), mean(), LeastSquares())
    >>> train(engine, method, n_rounds=200).w.round(9).tolist()  # what np.linalg.lstsq finds on the pooled rows
    [2.0, 1.0, 0.0]
    """

    loss: ClassVar[None] = None

    state_type: ClassVar[Any] = GramSpectrum

    local_steps: int | None = None
    lr: float | None = None
    weighted_by: Weighting = "uniform"

    def __post_init__(self) -> None:
        if self.local_steps is None and self.lr is not None:
            raise ValueError(f"lr={self.lr!r} has no meaning for the exact local solution; give local_steps, or no lr")
        if self.local_steps is not None:
            check_whole("local_steps", self.local_steps, 1)
            if self.lr is None:
                raise ValueError("lr must be a positive number with local_steps, such as stable_lr, got None")
            check_positive("lr", self.lr)
        object.__setattr__(self, "weighted_by", by_node(self.weighted_by, "weighted_by"))
        check_weighting(self.weighted_by)

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:  # noqa: ARG002  nothing is left to find
        """Return the task for this problem; refuse a penalty, and an intercept that is free of it."""
        check_named(self, engine.node_ids)
        if least_squares(problem) != LeastSquares():
            raise ValueError(f"its steps know neither penalty nor free intercept: give LeastSquares(), got {problem}")
        return self

    def schema(self, message: Message) -> Schema:
        """Return the residuals, the weight and an update."""
        return {"weight": Field("sum"), **residuals_schema(message.w.size), **updates(message.w.size)}

    def init(self, shard: Samples) -> GramSpectrum:
        """Take the node's Gram matrix apart, once."""
        check_targets(shard)
        if shard.weights is not None:
            raise ValueError(
                f"node {shard.node_id!r}: these steps know no weights; take normal-equations, or leave them out"
            )
        values, vectors = np.linalg.eigh(shard.gram)
        return GramSpectrum(np.maximum(values, 0.0), vectors)

    @np.errstate(over="ignore", invalid="ignore")
    def run(self, message: Message, shard: Samples, state: GramSpectrum) -> tuple[Report, GramSpectrum]:
        """Move; report the residuals at w and the weighted move."""
        weight = node_weight(shard, self.weighted_by)
        residuals = shard.residuals(message.w)
        coefficients = state.vectors @ (self._gains(shard, state.values) * (state.vectors.T @ residuals))
        here = Report(1, shard.n_rows, {"weight": weight, **residual_sums(shard, message.w, residuals)})
        return updated(here, Dual(read_only(shard.combine(coefficients))), weight), state

    def _gains(self, shard: Samples, values: FloatArray) -> FloatArray:
        """Return g(λ) for every eigenvalue."""
        if self.local_steps is None or self.lr is None:
            # what the rounding of the Gram matrix and of its eigenvalues may leave of a 0, with a factor to spare
            kept = values > 16 * (shard.n_rows + shard.row_length) * UNIT_ROUNDOFF * values.max()
            return np.divide(1.0, values, out=np.zeros_like(values), where=kept)
        rate = self.lr / shard.n_rows
        t = rate * values
        # 1 − (1 − t)^L loses its digits for small t; beyond t = 2 steps grow, and may leave float64 for all to see
        small = -np.expm1(self.local_steps * np.log1p(-np.minimum(t, 0.5)))
        done = np.where(t < 0.5, small, 1.0 - (1.0 - t) ** self.local_steps)
        return np.divide(done, values, out=np.full_like(values, rate * self.local_steps), where=t > 0)


def stable_lr(engine: Engine) -> float:
    """Return 1/β with β the largest eigenvalue of X_mᵀX_m/n_m over the nodes: every local step brings every loss down.

    One round. Steps below 2/β do not diverge either.

    Examples
    --------
    >>> from localgd.engine.inprocess import InProcess
    >>> round(stable_lr(InProcess([Samples("a", [[2.0, 0.0]], [1.0])])), 5)
    0.25
    """
    beta = float(from_all(engine, Smoothness(), Message()).maxs["eigenvalue"])
    return 1.0 / beta if beta > 0 else 1.0
