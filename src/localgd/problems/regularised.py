"""Penalised losses: an objective with one minimiser, the same however the rows are spread over nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from localgd.core import Engine, Field, Message, Problem, Report, Schema, Task
from localgd.duals.dual import Dual
from localgd.errors import check_flag, check_whole
from localgd.limits import RefusedError
from localgd.losses import Logistic, Loss, Softmax, SquaredHinge, among, bend, conjugated, loss_named
from localgd.many.reports import more
from localgd.many.stack import at_once
from localgd.problems.balance import class_sums
from localgd.problems.certificate import Certificate
from localgd.problems.duality_gap import minimiser_certificate
from localgd.problems.metrics import METRICS, ByMargins, Weighting, elementwise, standing, total, values
from localgd.problems.own_model import OwnModel
from localgd.problems.quotient import in_units, uncancelled
from localgd.problems.sizes import DataSizes
from localgd.problems.triangle import triangle, triangle_size
from localgd.rounding import FloatArray, is_number, norm, read_only
from localgd.rows import Shard

MOST_C = 1e100
"""Beyond, and below its inverse, products with the number of rows might leave float64."""

ONE_MARGIN = (
    "squared_hinge is a loss of two classes; for more, each class against the rest is what LinearSVC does: "
    "LocalGDClassifier(loss='squared_hinge', C=…, multi_class='ovr'), or take the logistic loss"
)


@dataclass(frozen=True, eq=False)
class MinimiserProof:
    """What is proved of a run's model so far, and the model that it is about."""

    certificate: Certificate = field(default_factory=lambda: Certificate(kind="minimiser"))
    w: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Regularised(ByMargins):
    """The minimiser of F(w) = (1/N) Σ ℓ(z_i·w) + (λ/2)|w|² over all N samples, with λ = 1/(C N).

    C N F is ½|w|² + C Σ ℓ(z_i·w), so C is what it is in scikit-learn's ``LogisticRegression``, whatever the number of
    nodes; a node weighs as its number of samples. For more than two classes logistic means softmax. With the squared
    hinge loss it is ``LinearSVC``'s model without a bias, or with one that is free of the penalty, as of a
    ``LinearSVC(intercept_scaling=1e6)``; one that is penalised, too, is a column of ones of your own.

    Parameters
    ----------
    loss : "logistic", "squared_hinge", "exponential" or Loss
        Loss of a sample's margins; only logistic, softmax and squared hinge are certified. Squared hinge is for two
        classes, and needs a penalty.
    C : float, 1e-100 to 1e100
        Inverse strength; inf for no penalty.
    intercept : bool
        The last column is a bias, and free of the penalty.
    n_blocks : int
        Equal parts of w, each with a bias of its own: one per class for more than two; found from the data.

    Raises
    ------
    ValueError
        If C is not positive, or another field out of its range.

    Examples
    --------
    >>> Regularised(C=0.5).strength(10), Regularised().strength(10)
    (0.2, 0.0)
    """

    kind: ClassVar[str] = "minimiser"
    begin: ClassVar[type[MinimiserProof]] = MinimiserProof

    loss: Loss = Logistic()  # noqa: RUF009  frozen, so sharing one is safe
    C: float = math.inf
    intercept: bool = False
    n_blocks: int = 1

    def __post_init__(self) -> None:
        """Check every field once; a loss may be given by its name."""
        if not (is_number(self.C) and (1 / MOST_C <= self.C <= MOST_C or math.inf == self.C)):
            raise ValueError(f"C must be a positive number, 1e-100 to 1e100 (inf for no penalty), got {self.C!r}")
        check_flag("intercept", self.intercept)
        check_whole("n_blocks", self.n_blocks, 1)
        object.__setattr__(self, "loss", loss_named(self.loss))
        if type(self.loss) is SquaredHinge and not self.penalised:
            raise ValueError(
                "loss='squared_hinge' needs a penalty: give C, as 1.0 (--C 1); without one, every long enough model "
                "that separates the rows has a loss of 0"
            )

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty, so that a minimiser exists whatever the rows."""
        return math.inf > self.C

    @property
    def certified(self) -> bool:
        """Whether anything is proved about its minimiser: of losses of several margins a sample only of softmax."""
        return self.loss.versus == 1 or type(self.loss) is Softmax

    def strength(self, n_samples: float) -> float:
        """Return λ, given the number of samples, each by its weight."""
        return 1.0 / (self.C * n_samples)

    def pull(self, w: FloatArray) -> FloatArray:
        """Return what λ multiplies in the gradient: w, with 0 for the bias."""
        out = np.array(w)
        if self.intercept:
            width = out.size // self.n_blocks
            out[width - 1 :: width] = 0.0
        return out

    def shift(self, n_features: int) -> FloatArray:
        """Return the unit vector (d,) that shifts the biases of all classes, which no loss sees; zeros if none."""
        out = np.zeros(n_features)
        if self.intercept and self.n_blocks > 1:
            out[n_features // self.n_blocks - 1 :: n_features // self.n_blocks] = 1.0 / math.sqrt(self.n_blocks)
        return out

    def loss_for(self, chosen: Loss | None, versus: int) -> Loss:
        """Return its own loss, for samples that `versus` rows speak for.

        Raises
        ------
        ValueError
            If a method was given another one.
        """
        if chosen is not None and among(chosen, versus) != among(self.loss, versus):
            raise ValueError(f"loss={chosen.name!r} is a matter of the problem here: Regularised(loss={chosen.name!r})")
        return among(self.loss, versus)

    def weighting_for(self, chosen: Weighting | None) -> Weighting:
        """Return how nodes weigh: as their number of samples.

        Raises
        ------
        ValueError
            If a method was told otherwise.
        """
        if chosen not in (None, "num-examples"):
            told = f"'{chosen}'" if isinstance(chosen, str) else "a weight for each node"
            raise ValueError(f"weighted_by={told} has no meaning with C, a penalised loss over all rows; leave it out")
        return "num-examples"

    def among(self, versus: int) -> Regularised:
        """Return it for samples that `versus` rows speak for."""
        if type(self.loss) is SquaredHinge and versus > 1:
            raise ValueError(ONE_MARGIN)
        return replace(self, loss=among(self.loss, versus), n_blocks=1 if versus == 1 else versus + 1)

    def objective(self, report: Report, w: FloatArray) -> float:
        """Return F(w) from an appraisal by every node."""
        pulled = self.pull(w)
        n = total(report)
        return float(report.sums["risk"]) / n + self.strength(n) / 2 * float(pulled @ pulled)

    def gradient(self, report: Report, w: FloatArray) -> FloatArray:
        """Return ∇F(w) from an appraisal by every node."""
        n, out = total(report), self.pull(w)
        out *= self.strength(n)
        out -= report.sums["pull"] / n
        return out

    def look(self, task: Any) -> Task:
        """Return the task of a round that only looks: a method's own, if it is one."""
        return task if type(task) is Curvature else Appraise(self)

    def prove(
        self,
        proof: MinimiserProof,
        state: Any,
        report: Report,
        duals: Sequence[Dual],  # noqa: ARG002  a minimiser is proved by its gradient
        *,
        whole: bool,
    ) -> MinimiserProof:
        """Return what is proved of the model that a round began with, from the round's report."""
        w = state.readout.vector
        if whole and "pull" in report.sums:
            return MinimiserProof(minimiser_certificate(w, report, self, state.asks), w)
        if np.array_equal(w, proof.w):
            return proof
        return MinimiserProof(Certificate(kind="minimiser", reason="not every node has appraised this model"), proof.w)


def regularised(problem: Problem) -> Regularised:
    """Return the problem, if it is a penalised loss; refuse another one."""
    if not isinstance(problem, Regularised):
        raise ValueError(  # noqa: TRY004  a problem of another kind is a bad value
            f"it goes down a loss over all rows, and cannot look for the {problem.kind} model; give "
            "problem=Regularised(C=…) (--C), or take another method"
        )
    return problem


def hard_margin_only(
    problem: Problem, why: str, remedy: str = "take newton, newton-cg, lbfgs, scaffold or local-gd"
) -> None:
    """Refuse a penalised loss, and squared loss, and say why, and what to do."""
    if isinstance(problem, OwnModel):
        raise ValueError(  # noqa: TRY004  as above
            f"it has no meaning for a {problem.kind}: {why}; take local-sgd, slowmo, fedexp or fedprox"
        )
    if not problem.by_margins:
        raise ValueError(f"it has no meaning for real targets: {why}")
    if isinstance(problem, Regularised):
        raise ValueError(f"it has no meaning with C={problem.C!r}: {why}; {remedy}")  # noqa: TRY004  likewise


def appraisal(shard: Shard, w: FloatArray, margins: FloatArray, problem: Regularised) -> Report:
    """Return the standing at w and what the server needs for objective, gradient and duality gap there.

    Sums, every sample by its weight, with α_i = −ℓ'(z_i·w): ``risk`` Σ ℓ, ``pull`` Σ α z, ``drift``, a bound on the
    rounding error of that; where the bias is free and there are two classes, ``positive``, the part of ``pull`` from
    rows of the positive class, and ``odds`` (2,), Σ of what their repair costs (`localgd.losses.Conjugated.repair`:
    e^(−z·w) of the logistic loss) over the negative and the positive class, or the flag ``far`` where that leaves
    float64; of more classes `localgd.problems.balance.class_sums`; ``blur``, a bound on what
    the rounding of the margins adds to the gap. Maximum: ``radius``, the largest row norm.
    """
    loss, known = problem.loss, conjugated(problem.loss)
    slope = loss.slope(margins)
    of_samples = values(loss, margins)
    here = standing(shard, w, margins, of_samples, shard.total)
    with np.errstate(over="ignore"):
        risk = shard.weigh(of_samples).sum(axis=-1)
    unsure = np.zeros_like(slope) if known is None else known.unsure(slope)
    blur = blurred(shard, loss, shard.margin_error(norm(w))) + shard.weigh(unsure).sum(axis=-1)
    slope = shard.weigh(slope)
    pull, drift = read_only(shard.combine(slope)), shard.combine_error(slope)  # which a report need not copy
    sums: dict[str, Any] = {"risk": risk, "pull": pull, "drift": drift, "blur": blur}
    by_class, there = dict[str, Any](), np.asarray(True)
    if problem.intercept and known is not None and loss.versus == 1:
        positive = _positive(shard)
        sums["positive"] = read_only(shard.combine(np.where(positive, slope, 0.0)))
        shard.permit(np.where(positive, 0.0, slope))  # the rest of ``pull`` is the other class
        with np.errstate(over="ignore"):
            odds = shard.weigh(known.repair(margins))
            sides = [np.where(side, odds, 0.0).sum(axis=-1) for side in (~positive, positive)]
        by_class["odds"] = np.stack(sides, axis=-1)
        there = np.isfinite(by_class["odds"]).all(axis=-1)
    elif problem.intercept and type(loss) is Softmax:
        sums |= class_sums(shard, margins)
    here = more(here, sums=sums, maxs={"radius": shard.radius})
    return more(here, sums=by_class, where=there, flags={"far": np.logical_not(there)})


def _positive(shard: Shard) -> Any:
    """Return which rows are of the positive class: the bias column of a signed row is its label."""
    bias = np.zeros(shard.n_features)
    bias[-1] = 1.0
    return shard.margins(bias) > 0


def blurred(shard: Shard, loss: Loss, off: Any) -> Any:
    """Return a bound on what margins that are off by so much add to the gap; 0 of a loss that there is no gap of."""
    known = conjugated(loss)
    if known is None:
        return 0.0 * off
    apart = known.apart(off)
    return shard.total * known.smoothness * (apart * apart) / 2  # not **, which raises where this overflows


def appraisals(n_features: int, problem: Regularised) -> Schema:
    """Return the schema of `appraisal`."""
    number, vector = Field("sum"), Field("sum", (n_features,))
    by_class: dict[str, Field] = {}
    if problem.intercept and conjugated(problem.loss) is not None and problem.loss.versus == 1:
        by_class = {"positive": vector, "odds": Field("sum", (2,), unless="far"), "far": Field("flag")}
    elif problem.intercept and type(problem.loss) is Softmax:
        by_class = {"expected": vector, "odds": Field("sum", (3, problem.n_blocks, problem.n_blocks))}
    bounds = {"drift": number, "blur": number, "radius": Field("max")}
    return {**METRICS, "risk": number, "pull": vector, **bounds, **by_class}


def settled(report: Report, slope: FloatArray, units: FloatArray | None = None) -> bool:
    """Return whether the gradient is 0 to within the rounding of the sums it was made from; in units, if asked for."""
    drift = float(report.sums["drift"])
    if units is not None and "unit_drift" in report.sums:
        slope, drift = slope / np.tile(units, slope.size // units.size), float(report.sums["unit_drift"])
    return norm(slope) <= drift * (2 + report.n_nodes) / total(report)


def with_turning(found: Report, message: Message, shard: Shard, margins: FloatArray, loss: Loss) -> Report:
    """Add ``turning``, Σ −ℓ'(z·w + t z·v) z·v for the ``lengths`` t, (k,), along the ``line`` v, (d,), of a message.

    Or the flag ``unturned``, where one of these sums leaves float64 or rests on too few rows; nothing, if the message
    has no line.
    """
    if "line" not in message.extra:
        return found
    across, lengths = shard.margins(message.extra["line"]), message.extra["lengths"]
    slopes = [shard.weigh(loss.slope(margins + length * across)) for length in lengths]
    sums = np.stack([(slope * across).sum(axis=-1) for slope in slopes], axis=-1)
    there = np.isfinite(sums).all(axis=-1)
    try:
        for slope in slopes:
            shard.permit(slope)
    except RefusedError:
        there = np.logical_and(there, False)
    return more(found, sums={"turning": sums}, where=there, flags={"unturned": np.logical_not(there)})


def turnings(message: Message) -> Schema:
    """Return what `with_turning` adds to a report, as a schema."""
    if "line" not in message.extra:
        return {}
    return {"turning": Field("sum", message.extra["lengths"].shape, unless="unturned"), "unturned": Field("flag")}


@dataclass(frozen=True)
class Appraise:
    """Report how the shared model stands and what its duality gap is made of, nothing else: a gradient a round.

    Where the message has a ``line``, also the derivatives of the losses along it: see `with_turning`.
    """

    weighted_by: ClassVar[Weighting] = "num-examples"

    problem: Regularised = Regularised()

    @property
    def loss(self) -> Loss:
        """The problem's loss."""
        return self.problem.loss

    def bound(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Self:  # noqa: ARG002  nothing is left to find
        """Return the task for this problem."""
        return replace(self, problem=regularised(problem))

    def schema(self, message: Message) -> Schema:
        """Return `appraisals` and `turnings`."""
        return {**appraisals(message.w.size, self.problem), **turnings(message)}

    @at_once
    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return `appraisal`, and `with_turning` what was asked for."""
        elementwise(self.loss, shard)
        margins = shard.margins(message.w)
        found = appraisal(shard, message.w, margins, self.problem)
        return with_turning(found, message, shard, margins, self.loss), state


@dataclass(frozen=True)
class Curvature(Appraise):
    """Report the appraisal and the curvature Σ ℓ''(z·w) z zᵀ (upper triangle), for Newton's method.

    Where the message has vectors ``dependent``, (k, d) or (k, d/C), also the maximum ``uncancelled``, (k,): whether the
    node has a row that is not exactly at a right angle to each. Where it has ``units`` of the columns, (d,) or (d/C,),
    also ``drift``, ``blur`` and ``radius`` of the columns over those.
    """

    def schema(self, message: Message) -> Schema:
        """Return `appraisals`, the curvature, and what was asked about vectors."""
        asked, told = message.extra.get("dependent"), dict[str, Field]()
        if asked is not None:
            told["uncancelled"] = Field("max", asked.shape[:1])
        if "units" in message.extra:
            told |= {"unit_drift": Field("sum"), "unit_blur": Field("sum"), "unit_radius": Field("max")}
        return {**super().schema(message), "curvature": Field("sum", (triangle_size(message.w.size),)), **told}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        """Return both."""
        margins = shard.margins(message.w)
        report = appraisal(shard, message.w, margins, self.problem)
        curvature = triangle(hessian(shard, self.problem.loss, margins))
        report += Report(sums={"curvature": curvature})
        report = with_turning(report, message, shard, margins, self.loss)
        asked, units = message.extra.get("dependent"), message.extra.get("units")
        if asked is not None:
            report += Report(maxs={"uncancelled": uncancelled(shard, asked)})
        if units is not None:
            slopes = shard.weigh(self.problem.loss.slope(margins))
            norms = in_units(shard.data, units).norms
            radius = float(norms.max())
            off = shard.margin_error(norm(message.w * np.tile(units, message.w.size // units.size)), radius)
            sums = {"unit_drift": shard.combine_error(slopes, norms), "unit_blur": blurred(shard, self.loss, off)}
            report += Report(sums=sums, maxs={"unit_radius": radius})
        return report, state


def hessian(shard: Shard, loss: Loss, margins: FloatArray) -> FloatArray:
    """Return Σ ∇²ℓ over a node's samples, (d, d).

    That is Σ ℓ'' z zᵀ of a loss of one margin, and of softmax with slopes p Σ p_c z_c z_cᵀ less s sᵀ of every sample,
    s = Σ_c p_c z_c.
    """
    if loss.versus == 1:
        return shard.second_moment(shard.weigh(bend(loss, margins)))
    return shard.spread(loss.slope(margins))
