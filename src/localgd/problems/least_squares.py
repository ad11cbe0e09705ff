"""Squared loss, penalised or not: ridge and least squares over nodes, proved without pooling a row.

What the server makes of the nodes' sums is in `localgd.problems.reduced` and `localgd.problems.spectrum`, what that
proves in `localgd.problems.least_squares_certificate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from localgd.core import Engine, Field, Message, Problem, Report, Schema, Task
from localgd.duals.dual import Dual
from localgd.errors import check_flag
from localgd.kernels.project import dense
from localgd.problems.least_squares_certificate import SquaresCertificate, squares_certificate
from localgd.problems.metrics import WEIGHTED, Weighting, total, weights_of
from localgd.problems.reduced import Reduced, folded
from localgd.problems.sizes import DataSizes
from localgd.problems.spectrum import Spectrum
from localgd.problems.triangle import triangle, triangle_size
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, is_number, norm_above, read_only
from localgd.rows import Samples

MOST_ALPHA = 1e100
"""Beyond, products of α and the squares of what the rows may hold might leave float64."""

SUMMED = ("size", "size_last", "drift", "drift_last")
RESIDUAL = ("square", "blur", "blur_pull", "blur_last")
"""Numbers that a node sends with ``pull``: always, and of residuals."""

ALONG = "along_"
"""Names of sums about the vector that was sent along begin so."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What the server knows of the rows: the problem with the intercept taken out, and what nodes have sent so far.

    That is what the residuals of w = 0 say, and the spectrum of XᵀX.
    """

    reduced: Reduced
    first: Report | None = None
    known: Spectrum | None = None


@runtime_checkable
class Solves(Protocol):
    """A server's state that keeps what is known of the rows itself, and F(w) up to date as far as it is known."""

    facts: Facts | None
    value: float


@dataclass(frozen=True, eq=False)
class SquaresProof:
    """What is proved of a run's model so far, the model that it is about, and what is known of the rows.

    Servers that solve keep the facts themselves; there is None here then.
    """

    certificate: SquaresCertificate = field(default_factory=SquaresCertificate)
    w: FloatArray = field(default_factory=lambda: np.zeros(0))
    facts: Facts | None = None


@dataclass(frozen=True)
class LeastSquares:
    """The minimiser of F(w) = |y − Xw|² + α|w|² over the rows of all nodes, which hold `localgd.Samples`.

    Parameters
    ----------
    alpha : float, 0 to 1e100
        α, as in scikit-learn's ``Ridge``, whatever the number of nodes; 0 is least squares, and where there are many
        solutions the one of least norm.
    intercept : bool
        The last column is ones, and its coefficient is free of the penalty and of the norm.
    positive : bool
        Of all w without a coefficient below 0, that of the intercept apart.

    Raises
    ------
    ValueError
        If `alpha` is out of its range.

    Examples
    --------
    >>> LeastSquares(alpha=1.0).kind, LeastSquares().kind
    ('ridge', 'least-squares')
    """

    begin: ClassVar[type[SquaresProof]] = SquaresProof
    certified: ClassVar[bool] = True
    by_margins: ClassVar[bool] = False

    alpha: float = 0.0
    intercept: bool = False
    positive: bool = False

    def __post_init__(self) -> None:
        """Check both fields once."""
        if not (is_number(self.alpha) and 0 <= self.alpha <= MOST_ALPHA):
            raise ValueError(f"alpha must be a number from 0 to {MOST_ALPHA:g}, got {self.alpha!r}; 0 is least squares")
        check_flag("intercept", self.intercept)
        check_flag("positive", self.positive)

    @property
    def kind(self) -> str:
        """What the model is compared with; which least-squares solution, the rows will say."""
        kind = "ridge" if self.alpha > 0 else "least-squares"
        return f"non-negative {kind}" if self.positive else kind

    def among(self, versus: int) -> LeastSquares:  # noqa: ARG002  a row is a sample
        """Return it."""
        return self

    def scores(self, report: Report, state: Any) -> tuple[float, float]:
        """Return F of the shared model, from a look at it or as the server keeps it up to date, and no accuracy."""
        if "square" in report.sums:
            return self.objective(report, state.w), math.nan
        return state.value if isinstance(state, Solves) else math.nan, math.nan

    def objective(self, report: Report, w: FloatArray) -> float:
        """Return F(w) from a look at the residuals."""
        v = w[:-1] if self.intercept else w
        return float(report.sums["square"]) + self.alpha * float(v @ v)

    def beginning(self, state: Any) -> Message:
        """Return the message for a first look: the model and, where there is an intercept, what gives column sums."""
        along = {"along": np.eye(1, state.w.size, state.w.size - 1)[0]} if self.intercept else {}
        return Message(state.round, state.w, along)

    def begun(self, report: Report, w: FloatArray) -> Facts:
        """Return what the answer to `beginning` says; to a look at another model, less."""
        weight = total(report) if "total" in report.sums else None
        reduced = Reduced(self.alpha, report.n_rows, w.size, weight=weight)
        if self.intercept:
            ones = of_along(report)
            reduced = replace(reduced, columns=read_only(ones.sums["pull"][:-1]), columns_error=folded(ones))
        return Facts(reduced, None if w.any() else of_residuals(report))

    def look(self, task: Any) -> Task:
        """Return the task of a round that only looks: a method's own."""
        return task if type(task) is Squares else Squares(self.intercept)

    def prove(
        self,
        proof: SquaresProof,
        state: Any,
        report: Report,
        duals: Sequence[Dual],  # noqa: ARG002  margins prove nothing here
        *,
        whole: bool,
    ) -> SquaresProof:
        """Return what is proved of the model that a round began with, from the round's report.

        The error of the model, as a `Dual`, is its distance from the span of the rows.
        """
        model = state.readout
        if whole and "square" in report.sums:
            solves = isinstance(state, Solves)
            facts = (state.facts if solves else proof.facts) or self.begun(report, model.vector)
            kept = None if solves else facts
            astray = math.inf if math.isnan(model.error) else model.error
            found = (report, facts.first, facts.reduced, facts.known)
            proved = squares_certificate(model.vector, *found, astray=astray, positive=self.positive)
            return SquaresProof(proved, model.vector, kept)
        if np.array_equal(model.vector, proof.w):
            return proof
        reason = "not every node has looked at this model"
        return replace(proof, certificate=SquaresCertificate(kind=proof.certificate.kind, reason=reason))

    def unproved(self, proof: SquaresProof, state: Any) -> bool:  # noqa: ARG002
        """Return False: dual vectors of the hard margin prove nothing here."""
        return False


def least_squares(problem: Problem) -> LeastSquares:
    """Return the problem, if it is one of squared loss; refuse another one."""
    if not isinstance(problem, LeastSquares):
        raise ValueError(  # noqa: TRY004  a problem of another kind is a bad value
            f"it fits real targets, and cannot look for the {problem.kind} model; take auto, or another method"
        )
    return problem


@dataclass(frozen=True)
class Squares:
    """Report the sums that a message asks for.

    - For a model ``w``, what its residuals r = y − Xw say: `summed` of r, ``square`` |r|², and of the errors e of the
      single residuals, as bounds: ``blur`` |e|², ``blur_pull`` Σ |e_i||x_i| and ``blur_last`` Σ |e_i|.
    - For a vector v ``along``: `summed` of Xv, so XᵀXv or at any rate Xᵀa for some a, under names with ``along_``.
    - For ``moments``, the number of columns: ``moment``, the upper triangle of XᵀX.

    Every row counts by its weight, in all of it.

    Parameters
    ----------
    intercept : bool
        The last column must be ones.
    """

    loss: ClassVar[None] = None
    weighted_by: ClassVar[Weighting] = "num-examples"

    intercept: bool = False

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:  # noqa: ARG002  nothing is left to find
        """Return the task for this problem."""
        return replace(self, intercept=least_squares(problem).intercept)

    def schema(self, message: Message) -> Schema:
        """Return what the message asks for."""
        asked = {**WEIGHTED, **(residuals_schema(message.w.size) if message.w.size else {})}
        if "along" in message.extra:
            asked |= {f"{ALONG}{name}": field for name, field in summed_schema(message.extra["along"].size).items()}
        if "moments" in message.extra:
            asked["moment"] = Field("sum", (triangle_size(int(message.extra["moments"])),))
        return asked

    def init(self, shard: Samples) -> None:
        """Check that there are targets, and that the last column is ones, if it is the intercept's."""
        check_targets(shard)
        rows: Any = shard.rows
        if self.intercept and not (dense(rows[:, [-1]]) == 1.0).all():
            raise ValueError(
                f"node {shard.node_id!r}: intercept=True needs a last column of ones; append it, or leave intercept out"
            )

    @np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64: then nothing is proved of it
    def run(self, message: Message, shard: Samples, state: None) -> tuple[Report, None]:
        """Return the sums."""
        sums: dict[str, Any] = dict(weights_of(shard))
        if message.w.size:
            sums |= residual_sums(shard, message.w, shard.residuals(message.w))
        if "along" in message.extra:
            image = shard.data.margins(message.extra["along"])
            sums |= {f"{ALONG}{name}": value for name, value in summed(shard, shard.weigh(image)).items()}
        if "moments" in message.extra:
            sums["moment"] = triangle(shard.second_moment(shard.weigh(np.ones(shard.n_rows))))
        return Report(1, shard.n_rows, sums), state


def check_targets(shard: Samples) -> None:
    """Refuse a node that holds signed rows."""
    if not isinstance(shard, Samples):
        raise TypeError(f"node {shard.node_id!r} holds signed rows; give Samples, with real targets")


def summed_schema(n_features: int) -> Schema:
    """Return the schema of `summed`."""
    return {"pull": Field("sum", (n_features,)), **dict.fromkeys(SUMMED, Field("sum"))}


def residuals_schema(n_features: int) -> Schema:
    """Return the schema of `residual_sums`."""
    return {**summed_schema(n_features), **dict.fromkeys(RESIDUAL, Field("sum"))}


def residual_sums(shard: Samples, w: FloatArray, residuals: FloatArray) -> dict[str, Any]:
    """Return what the residuals of a model say, each by its weight; see `Squares`."""
    size, length = np.abs(residuals), norm_above(w)
    # a product of row and model, then one subtraction
    error = 2 * (shard.row_length + 2) * UNIT_ROUNDOFF * shard.norms * length + 2 * UNIT_ROUNDOFF * size
    error = error + shard.n_features * TINY + (0.0 if shard.weights is None else 2 * UNIT_ROUNDOFF * size)  # products
    above = 1 + 4 * (shard.n_rows + 8) * UNIT_ROUNDOFF
    return {
        **summed(shard, shard.weigh(residuals)),
        "square": float(shard.weigh(residuals * residuals).sum()),
        "blur": above * float(shard.weigh(error * error).sum()),
        "blur_pull": above * float(shard.weigh(error * shard.norms).sum()),
        "blur_last": above * float(shard.weigh(error).sum()),
    }


def summed(shard: Samples, a: FloatArray) -> dict[str, Any]:
    """Return the sums ``pull`` Xᵀa, ``size`` |Xᵀa| and ``drift``, a bound on its rounding error.

    ``size_last`` and ``drift_last`` are the same for the last entry, if that column is ones.
    """
    pull, sizes = shard.combine(a), np.abs(a)
    last = 2 * (a.size + 4) * UNIT_ROUNDOFF * float(sizes.sum()) + a.size * TINY
    drift = {"drift": shard.combine_error(sizes), "drift_last": last}
    return {"pull": pull, "size": norm_above(pull), "size_last": abs(float(pull[-1])), **drift}


def of_residuals(report: Report) -> Report:
    """Return the sums about the residuals alone."""
    return Report(report.n_nodes, report.n_rows, {name: report.sums[name] for name in ("pull", *SUMMED, *RESIDUAL)})


def of_along(report: Report) -> Report:
    """Return the sums about the vector that was sent along, under their plain names."""
    sums = {name.removeprefix(ALONG): value for name, value in report.sums.items() if name.startswith(ALONG)}
    return Report(report.n_nodes, report.n_rows, sums)
