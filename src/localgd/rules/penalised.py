"""Local gradient steps on a penalised loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from localgd.core import Engine, Message, Report, Schema
from localgd.errors import from_all
from localgd.kernels.smooth import descend
from localgd.losses import Logistic, Loss
from localgd.problems.metrics import METRICS, Weighting, standing
from localgd.problems.regularised import Penalty, appraisal, appraisals
from localgd.rows import Dual, Shard, sealed
from localgd.rules.local import updated, updates
from localgd.rules.probes import Smoothness


@dataclass(frozen=True)
class PenalisedSteps:
    """L local gradient steps on F_m(v) = (1/n_m) Σ ℓ(z_i·v) + (λ/2)|v|² + (μ/2)|v − w|² from the shared model w.

    A node weighs as its number of rows, so that Σ p_m F_m = F. If the message brings the ``gradient`` ∇F(w), every
    step is corrected by ∇F(w) − ∇F_m(w): these control variates leave no bias. With `variates` a round without that
    gradient only appraises w.

    Parameters
    ----------
    local_steps : int, at least 1
        L.
    lr : float > 0 or "auto"
        Step size; "auto" is 1/(β + λ + μ) with β the largest smoothness constant over the nodes (one round).
    loss : Loss
        Logistic or exponential.
    penalty : Penalty
        The objective.
    prox : float >= 0
        μ.
    variates : bool
        Wait for the gradient before stepping.
    n_rows : int or "auto"
        N, rows of all nodes; "auto" finds it in the same round.

    Raises
    ------
    ValueError
        If a field is out of its range.
    """

    weighted_by: ClassVar[Weighting] = "num-examples"

    local_steps: int = 100
    lr: float | Literal["auto"] = "auto"
    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    penalty: Penalty = Penalty()  # noqa: RUF009  frozen, so sharing one is safe
    prox: float = 0.0
    variates: bool = False
    n_rows: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Check every field once."""
        if self.local_steps < 1 or self.local_steps != int(self.local_steps):
            raise ValueError(f"local_steps must be a whole number of at least 1, got {self.local_steps!r}")
        number = 1.0 if isinstance(self.lr, str) else self.lr
        if (isinstance(self.lr, str) and self.lr != "auto") or not 0 < number < math.inf:
            raise ValueError(f"lr must be a positive number or 'auto', got {self.lr!r}")
        if not (math.isfinite(self.prox) and self.prox >= 0):
            raise ValueError(f"prox must be a number of at least 0, got {self.prox!r}")

    def schema(self, message: Message) -> Schema:
        """Return the appraisal, or the standing where the gradient is known; and a move, where one is made."""
        waits = "gradient" not in message.extra
        here = appraisals(message.w.size, self.loss, self.penalty) if waits else METRICS
        return here if waits and self.variates else {**here, **updates(message.w.size)}

    def tuned(self, engine: Engine) -> PenalisedSteps:
        """Return the task with what it needs to know of the data found, by one round."""
        if not isinstance(self.lr, str) and not isinstance(self.n_rows, str):
            return self
        report = from_all(engine, Smoothness(self.loss.versus), Message())
        beta = self.loss.curvature * float(report.maxs["eigenvalue"])
        steepest = beta + self.penalty.strength(report.n_rows) + self.prox
        lr = (1.0 / steepest if steepest > 0 else 1.0) if isinstance(self.lr, str) else self.lr
        return replace(self, lr=lr, n_rows=report.n_rows)

    @np.errstate(over="ignore", invalid="ignore")  # too large a step leaves float64, for the loop to see
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Appraise the shared model, or step from it, or both."""
        if isinstance(self.lr, str) or isinstance(self.n_rows, str):
            raise TypeError("'auto' is not a number yet; train() finds it with one round")
        w, towards = message.w, message.extra.get("gradient")
        margins = shard.margins(w)
        if towards is None:
            report = appraisal(shard, w, margins, self.loss, self.penalty)
            if self.variates:
                return report, state
            shift = np.zeros(w.size)
        else:
            report = standing(shard, w, margins, self.loss, float(shard.n_samples))
            own = -shard.combine(self.loss.slope(margins)) / (shard.n_rows / self.loss.versus)
            shift = towards - own - self.penalty.strength(self.n_rows) * self.penalty.pull(w)
        decay = self.penalty.strength(self.n_rows) * self.penalty.pull(np.ones(w.size))
        v = descend(shard, w, margins, self.loss, self.local_steps, self.lr, (decay, self.prox, shift))
        return updated(report, Dual(sealed(v - w)), float(shard.n_samples)), state
