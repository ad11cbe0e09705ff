"""Certify a model from anywhere: a round of tempered duals, then more rounds until the angle is proved or refuted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from localgd.core import Engine, Message, Problem
from localgd.duals.dual import Dual
from localgd.errors import check_kind, check_whole, from_all
from localgd.methods.auto import auto
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin, certificate, judged
from localgd.problems.least_squares import LeastSquares, Squares, SquaresProof
from localgd.problems.metrics import Evaluate
from localgd.problems.own_model import OwnModel
from localgd.problems.quotient import asked_of
from localgd.problems.regularised import Appraise, Curvature, Regularised
from localgd.problems.spectrum import spectrum
from localgd.problems.triangle import MOST_MB, megabytes, symmetric
from localgd.rounding import FloatArray, at_least, at_most, norm, vector
from localgd.rules.probes import measured, tempered_duals
from localgd.rules.server import ServerState
from localgd.run.goals import Angle
from localgd.run.history import RoundInfo
from localgd.run.loop import train

FIRM = 0.05
"""A distance that is larger than asked is narrowed down to this part of itself."""

SLACK_DEG = 1e-9
"""What the rounding of a measured angle and of a sum of two may amount to, in degrees, with room to spare."""


def certify(
    w: FloatArray,
    engine: Engine,
    *,
    problem: Problem = HardMargin(),  # noqa: B008  frozen, so sharing one is safe
    goal: Angle | None = None,
    n_rounds: int = 500,
) -> Certificate:
    """Certify a linear model from anywhere against the rows of a federation.

    The model brings no mass, so the dual vectors are Σ q_i z_i with q_i ∝ exp(−τ z_i·w/|w|) for several τ, summed over
    the nodes in one round; the tightest of them gives the bracket and the angle. If that does not prove the angle asked
    for, the pooled model is looked for by `localgd.auto`: with a model v that is certified to be within φ of it,
    ∠(w, v) − φ <= ∠(w, u*) <= ∠(w, v) + φ, until the angle is proved, or proved to be larger.

    Parameters
    ----------
    w : (d,) float64 array
        The model, bias last if the rows have a bias column.
    engine : Engine
        The federation; its nodes hold signed rows, or rows and real targets.
    problem : Problem
        What the pooled model is. With ``Regularised(C=…)`` its minimiser, certified in one round; without C in two
        that send d×d sums, where those are at most 64 MB. With ``LeastSquares(alpha=…)`` its solution, in three rounds,
        of which one sends XᵀX where that is at most 64 MB; without it only a penalty bounds the distance.
    goal : Angle, optional
        What is to be proved of the hard margin. Without it, three rounds give what they give.
    n_rounds : int, at least 0
        Most rounds to look for the pooled model.

    Returns
    -------
    Certificate
        What is proved about the model; ``angle_deg_min`` is above 0 where it is known to be apart.

    Raises
    ------
    ValueError
        If w is zero, not finite, or of another length than the rows, or a goal is given for another problem.

    Examples
    --------
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.rows import Shard
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> certify(np.array([1.0, 0.0]), federation).angle_deg_max < 1e-3
    True
    >>> certify(np.array([1.0, 0.1]), federation, goal=Angle(1.0)).angle_deg_min > 5.7
    True
    """
    check_kind("engine", engine, Engine, "an engine such as InProcess(shards)")
    check_asked(problem, goal)
    check_whole("n_rounds", n_rounds, 0)
    w = vector("the model w", w)
    if not (np.any(w) or isinstance(problem, LeastSquares)):
        raise ValueError("the model w must be a finite vector other than zero, got only zeros")
    if isinstance(problem, LeastSquares):
        return _solution(w, engine, problem)
    sizes = measured(engine, w.size)
    if isinstance(problem, Regularised):
        sizes.check(w)
        return _minimiser(w, engine, problem.among(sizes.versus))
    w = np.ldexp(w, -math.frexp(float(np.abs(w).max()))[1])
    w = w / norm(w)
    low = float(from_all(engine, Evaluate(), Message(0, w)).mins["margin"])
    own = certificate(w, low, tempered_duals(engine, w, low, sizes.radius))
    if goal is None or goal.met(own):
        return own
    return _to_order(w, engine, own, goal.deg, n_rounds)


def check_asked(problem: Any, goal: Any) -> None:
    """Refuse a problem that nothing can be certified about, and a goal that is not looked for."""
    if isinstance(problem, OwnModel):
        raise ValueError(  # noqa: TRY004  a problem of another kind is a bad value
            f"nothing can be proved of a {problem.kind}: no theorem says which one local steps lead to"
        )
    if not isinstance(problem, HardMargin | Regularised | LeastSquares):
        raise TypeError(f"problem must be HardMargin(), Regularised(…) or LeastSquares(…), got {problem!r}")
    if goal is not None and not (isinstance(goal, Angle) and isinstance(problem, HardMargin)):
        raise ValueError(f"goal={goal} has no meaning here: only an angle to the hard margin is looked for in rounds")


def _minimiser(w: FloatArray, engine: Engine, problem: Regularised) -> Certificate:
    """Return what is proved of a model and the minimiser of a loss: without a penalty by the curvature at w."""
    state, task = ServerState(Dual(w)), Appraise(problem)
    if not problem.penalised and megabytes(w.size) <= MOST_MB:
        task = Curvature(problem)
    report = from_all(engine, task, Message(0, w))
    if "curvature" in report.sums:
        state = replace(state, asks=asked_of(problem, symmetric(report.sums["curvature"])))
        report = from_all(engine, task, Message(0, w, state.asks)) if state.asks else report
    return problem.prove(problem.begin(), state, report, (), whole=True).certificate


def _solution(w: FloatArray, engine: Engine, problem: LeastSquares) -> Certificate:
    """Certify a model of real targets: a look at 0, XᵀX where it can be afforded, and a look at the model."""
    measured(engine, w.size, zeros=True)
    task, zero = Squares(problem.intercept), ServerState(Dual(np.zeros(w.size)))
    facts = problem.begun(from_all(engine, task, problem.beginning(zero)), zero.w)
    if megabytes(w.size) <= MOST_MB:
        moments = from_all(engine, task, Message(extra={"moments": np.asarray(float(w.size))}))
        facts = replace(facts, known=spectrum(moments, facts.reduced))
    report = from_all(engine, task, Message(0, w))
    return problem.prove(SquaresProof(facts=facts), ServerState(Dual(w)), report, (), whole=True).certificate


def _to_order(w: FloatArray, engine: Engine, own: Certificate, tol: float, n_rounds: int) -> Certificate:
    """Look for the pooled model until w is proved to be within `tol` degrees of it, or to be farther."""
    most = math.inf if math.isnan(own.angle_deg_max) else own.angle_deg_max
    best = [0.0, most]

    def narrowed(info: RoundInfo) -> bool:
        """Take over what this round says; stop once the question is settled."""
        bound, apart = info.certificate.angle_deg_max, info.row.true_angle_deg
        if info.certificate.kind == "max-margin" and not math.isnan(bound):
            best[0] = max(best[0], apart - bound - SLACK_DEG)
            best[1] = min(best[1], apart + bound + SLACK_DEG)
        return best[1] <= tol or best[1] - best[0] <= FIRM * best[0] > FIRM * tol

    run = train(engine, auto(), n_rounds=n_rounds, on_round=narrowed, reference=w)
    pooled = run.certificate
    angle = best[1] if best[1] < 90 else math.nan
    low, high = max(own.margin_low, pooled.margin_low), min(own.margin_high, pooled.margin_high)
    own = replace(own, margin_low=low, margin_high=high, angle_deg_max=angle, angle_deg_min=best[0])
    if pooled.kind == "minimiser" and not low > 0:
        verdict = Status.NOT_SEPARABLE if pooled.separable is False else Status.UNDECIDED
        proved = "the loss has a minimiser, so no plane separates the rows"
        reason = proved if pooled.separable is False else "as far as float64 can tell no plane separates the rows"
        reason += f" (by more than {at_most(high, 2)})" if math.isfinite(high) else ""
        reason += ", so there is no max-margin model to compare with; give C to compare with a penalised minimiser"
        return replace(own, verdict=verdict, reason=reason)
    if best[0] > tol:
        at_all = "" if math.isnan(angle) else f" and at most {at_most(angle, 4)}°"
        reason = f"at least {at_least(best[0], 4)}°{at_all} from the pooled max-margin model"
        return replace(own, verdict=Status.FARTHER, reason=reason)
    own = judged(own, cancels=pooled.verdict is Status.CANCELS)
    apart = f", and at least {at_least(best[0], 3)}° from it" if best[0] > 0 else ""
    return replace(own, reason=f"{own.reason}{apart}")
