"""The one loop: message, round, step, until the certificate is good enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from localgd.certify import Certificate, Rule, Status, certificate, in_unit, step_dual
from localgd.core import Engine, Report, sealed
from localgd.pooled import angle_deg
from localgd.rounding import TINY, UNIT_ROUNDOFF, Dual, FloatArray
from localgd.rules.local import GradientSteps
from localgd.rules.merge import Iterate
from localgd.rules.method import Method
from localgd.rules.probes import Evaluate, comfortable


@dataclass(frozen=True)
class Row:
    """The shared model after `round` rounds: one row of the history.

    Parameters
    ----------
    round : int
        Rounds done; row 0 is the start.
    loss : float
        F(w) = Σ p_m f_m(w).
    accuracy : float
        Share of all training rows that w gets right, 0 to 1.
    low, high : float
        Best proved bounds on the pooled margin so far.
    angle_deg_max : float
        Certified angle to the pooled model in degrees; NaN if there is none.
    floats_up, floats_down : int
        Numbers sent by and to all nodes since the run began.
    seconds : float
        Wall time since the run began.
    margin : float
        The model's own margin min z_i·w/|w| (a lower bound); NaN if not all nodes took part.
    true_angle_deg : float
        Angle to the pooled model where pooling is allowed, else NaN.
    """

    round: int
    loss: float
    accuracy: float
    low: float
    high: float
    angle_deg_max: float
    floats_up: int
    floats_down: int
    seconds: float
    margin: float
    true_angle_deg: float = math.nan


@dataclass(frozen=True, eq=False)
class Run:
    """What came out of `train`.

    Parameters
    ----------
    w : (d,) float64 array
        The shared model, bias last if the rows have a bias column.
    certificate : Certificate
        What is proved about it.
    history : tuple of Row
        One row per round, from round 0.
    method : Method
        The method with the step size it used.
    """

    w: FloatArray
    certificate: Certificate
    history: tuple[Row, ...]
    method: Method

    @property
    def n_rounds(self) -> int:
        """Rounds that made the model."""
        return self.history[-1].round

    def columns(self) -> dict[str, list[Any]]:
        """Return the history column by column, ready for a data frame."""
        rows = [asdict(row) for row in self.history]
        return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True)
class SampledNodes:
    """Partial participation: every round a fresh random share of the nodes, at least one.

    Parameters
    ----------
    fraction : float in (0, 1]
        Share of the nodes.
    seed : int
        Nodes are drawn from ``default_rng([seed, round])``.

    Examples
    --------
    >>> len(SampledNodes(0.5, seed=1)(0, ("a", "b", "c", "d")))
    2
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction of the nodes must be above 0 and at most 1, got {self.fraction!r}")

    def __call__(self, round_: int, node_ids: Sequence[str]) -> Collection[str]:
        """Return the nodes of a round."""
        rng = np.random.default_rng([self.seed, round_])
        size = max(1, round(self.fraction * len(node_ids)))
        return [str(node_id) for node_id in rng.choice(np.asarray(node_ids), size=size, replace=False)]


class Ledger:
    """Counts from the start of a run: seconds, and the engine's own count of floats sent."""

    def __init__(self, engine: Engine) -> None:
        self._begin = time.perf_counter()
        self._up, self._down = engine.floats_up, engine.floats_down

    def entries(self, engine: Engine) -> dict[str, Any]:
        """Return the counts so far."""
        return {
            "floats_up": engine.floats_up - self._up,
            "floats_down": engine.floats_down - self._down,
            "seconds": time.perf_counter() - self._begin,
        }


@np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64 ends with a status, not a warning
def train(
    engine: Engine,
    method: Method,
    *,
    n_rounds: int = 500,
    stop: Rule | Sequence[Rule] = (),
    max_seconds: float | None = None,
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None = None,
    w0: FloatArray | None = None,
    on_round: Callable[[Row, Certificate], bool | None] | None = None,
    reference: FloatArray | None = None,
) -> Run:
    """Train a linear classifier over a federation and certify which model came out.

    Every round the server sends the shared model, each node runs the method's task on its own rows, and the reports are
    summed into the next model. The report of round k + 1 also says how the model of round k stands (its loss, accuracy
    and smallest margin), so certifying costs a few numbers a node, and one last round that only looks.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold signed rows (`Shard`).
    method : Method
        For example ``local_gd(local_steps=100)``.
    n_rounds : int, at least 0
        Most rounds to run.
    stop : rule or sequence of rules
        Stop as soon as all hold: ``until_angle(1.0)``, ``until_margin_ratio(0.9)``.
    max_seconds : float, optional
        Stop after this wall time.
    nodes : callable, optional
        Partial participation: ``nodes(round, node_ids)`` names those that take part; see `SampledNodes`.
        Rounds without all nodes have no margin and certify nothing new from below; the last look asks all nodes.
    w0 : (d,) float64 array, optional
        Start; default 0. From elsewhere than 0 nothing bounds γ* from above except the rounds' own steps.
    on_round : callable, optional
        Called with every history row and its certificate; a true answer ends the run with the round under way.
    reference : (d,) float64 array, optional
        Pooled direction to compare with where pooling is allowed (`localgd.pooled.max_margin`).

    Returns
    -------
    Run
        Model, certificate and history.

    Raises
    ------
    ValueError
        If a parameter is out of its range or nodes differ in their columns.
    NodeError
        If a node fails; it names round and node.

    Examples
    --------
    >>> from localgd.core import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.rules.averaging import local_gd
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> run = train(federation, local_gd(local_steps=10), n_rounds=20)
    >>> str(run.certificate.verdict), run.certificate.angle_deg < 1.0
    ('certified', True)
    """
    _check(method, n_rounds, max_seconds, nodes)
    rules = [stop] if callable(stop) else list(stop)
    ledger = Ledger(engine)
    engine, divisor, n_features, _, versus = comfortable(engine, None if w0 is None else np.size(w0))
    method = _in_unit(method, divisor).among(versus).tuned(engine)
    look = Evaluate(method.task.loss, method.task.weighted_by)
    state: Iterate = method.merge.init(np.zeros(n_features) if w0 is None else _start(w0, divisor))
    found, shown, step = Certificate(), Certificate(), None
    history: list[Row] = []
    limit = n_rounds
    while True:
        final = state.round >= limit
        chosen = None if nodes is None or final else nodes(state.round, engine.node_ids)
        report = engine.round(look if final else method.task, method.merge.message(state), chosen)
        whole = report.n_nodes == len(engine.node_ids)
        step = step_dual(report) or step  # a dual vector speaks of the rows: the last one stays true
        found = _standing(state, report, found, step, rules, whole=whole)
        shown = _explained(in_unit(found, divisor, rules), report, whole=whole)
        row = _row(state, report, shown, ledger.entries(engine), reference)
        history.append(row)
        asked_to_stop = bool(on_round(row, shown)) if on_round is not None else False
        if final or (whole and _finished(shown, report, rules)):
            break
        if asked_to_stop or (max_seconds is not None and row.seconds >= max_seconds):
            limit = state.round + 1  # keep this round's work; then one last look, at all nodes
        following = method.merge.step(state, report)
        if not np.isfinite(following.w).all():
            remedy = "; lower lr" if isinstance(method.task, GradientSteps) else ""
            shown = replace(shown, verdict=Status.DIVERGED, reason=f"round {state.round} left float64{remedy}")
            break
        state = following
        if state.done:
            limit = state.round
    return Run(sealed(_out_of_unit(state.readout.w, divisor)), shown, tuple(history), method)


def _check(method: Method, n_rounds: int, max_seconds: float | None, nodes: object) -> None:
    """Check what no type checker sees in an interactive session."""
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as local_gd(), got {method!r}")
    reason = getattr(method.merge, "needs_all_nodes", "")
    if nodes is not None and reason:
        raise ValueError(f"{method.name} needs every node in every round: {reason}; leave nodes (--fraction) out")
    if n_rounds < 0 or n_rounds != int(n_rounds):
        raise ValueError(f"n_rounds must be a whole number of at least 0, got {n_rounds!r}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be above 0, got {max_seconds!r}")


def _in_unit(method: Method, divisor: float) -> Method:
    """Carry a step size for the user's rows over to rows divided by `divisor`: η scales as |z|², λ as 1/|z|²."""
    task = method.task
    if divisor == 1.0 or not isinstance(task, GradientSteps):
        return method
    doubled = 2 * (math.frexp(divisor)[1] - 1)
    changes: dict[str, Any] = {}
    for name, value, exponent in (("lr", task.lr, doubled), ("prox", task.prox, -doubled)):
        if isinstance(value, str) or value == 0:
            continue
        try:
            changes[name] = math.ldexp(value, exponent)
        except OverflowError:
            changes[name] = math.inf
        if not 0 < changes[name] < math.inf:
            raise ValueError(
                f"{name}={value!r} does not fit rows of size {divisor:.0e}; leave it out or scale the rows"
            )
    return replace(method, task=replace(task, **changes))


def _out_of_unit(w: FloatArray, divisor: float) -> FloatArray:
    """Undo the division of the rows; a model that float64 cannot hold is given at length about 1 instead."""
    with np.errstate(over="ignore", under="ignore"):
        out = w / divisor
    largest = np.abs(out).max(initial=0.0)
    if divisor == 1.0 or not w.any() or TINY / UNIT_ROUNDOFF < largest < np.inf:
        return out
    return np.ldexp(w, -int(np.frexp(np.abs(w).max())[1]))


def _start(w0: FloatArray, divisor: float) -> FloatArray:
    w0 = np.asarray(w0, dtype=np.float64)
    if w0.ndim != 1 or not np.isfinite(w0).all():
        raise ValueError(f"w0 must be a finite vector, got shape {w0.shape}")
    return w0 * divisor


def _standing(
    state: Iterate, report: Report, before: Certificate, step: Dual | None, stop: Sequence[Rule], *, whole: bool
) -> Certificate:
    """Return the certificate of the current model from a round's report."""
    model = state.readout
    return certificate(
        model.w,
        float(report.lows["margin"]) if whole else math.nan,
        [Dual(model.w, model.mass, model.drift), *([] if step is None else [step])],
        before=before,
        node_high=float(report.lows.get("high", np.inf)),
        cancels=report.counts.get("cancels", 0) > 0,
        stop=stop,
    )


def _explained(found: Certificate, report: Report, *, whole: bool) -> Certificate:
    """Say so if more rounds would change nothing: no gradient left in float64, or a projection onto an empty set."""
    if report.counts.get("inseparable", 0) > 0:
        stopped = "stopped, as a projection needs rows that are separable by more than 1e-8 of their length"
        return replace(found, reason=f"{found.reason}; {stopped}: use local-gd, or form='proximal'")
    if found.verdict is Status.CERTIFIED or not whole or report.counts.get("underflow", 0) < report.n_nodes:
        return found
    return replace(found, verdict=Status.STALLED, reason=f"every gradient is 0 in float64; {found.reason}")


def _finished(found: Certificate, report: Report, stop: Sequence[Rule]) -> bool:
    if found.verdict is Status.STALLED or report.counts.get("inseparable", 0) > 0:
        return True
    return bool(stop) and found.verdict is Status.CERTIFIED


def _row(
    state: Iterate, report: Report, shown: Certificate, counts: dict[str, Any], reference: FloatArray | None
) -> Row:
    return Row(
        round=state.round,
        loss=float(report.sums["loss"]) / float(report.sums["weight"]),
        accuracy=float(report.sums["correct"]) / report.n_rows,
        low=shown.margin_low,
        high=shown.margin_high,
        angle_deg_max=shown.angle_deg,
        margin=shown.margin,
        true_angle_deg=math.nan if reference is None else angle_deg(state.readout.w, reference),
        **counts,
    )
