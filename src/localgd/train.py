"""The one loop: message, round, step, until the certificate is good enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from localgd import wire
from localgd.certificate import Certificate, Rule, Status, certificate, in_unit, step_dual
from localgd.checkpoint import Checkpoints, Found, Snapshot
from localgd.core import Engine, Report, Task, sealed
from localgd.gap import minimiser_certificate
from localgd.history import Ledger, Row, Run
from localgd.pooled import angle_deg
from localgd.rounding import Dual, FloatArray, at_most
from localgd.rules.consensus import Consensus
from localgd.rules.interior import GROWING
from localgd.rules.local import GradientSteps
from localgd.rules.merge import Iterate
from localgd.rules.method import Choice, Method
from localgd.rules.probes import comfortable
from localgd.unit import into_unit, out_of_unit, start_in_unit

STALL_ROUNDS, STALL_RATIO = 60, 2 / 3
"""A method with a reserve has so many rounds to bring the certified angle down to this part of itself."""

LAST_LOOKS = 3
"""The last look at the model is what its certificate rests on: it is taken again if nodes were missing."""

FINE_DEG = 1e-3
"""Below this angle there is nothing left to stall at: the rounding that is counted against it is about as much."""


@np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64 ends with a status, not a warning
def train(
    engine: Engine,
    method: Method | Choice,
    *,
    n_rounds: int = 500,
    stop: Rule | Sequence[Rule] = (),
    max_seconds: float | None = None,
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None = None,
    w0: FloatArray | None = None,
    on_round: Callable[[Row, Certificate], bool | None] | None = None,
    reference: FloatArray | None = None,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Train a linear classifier over a federation and certify which model came out.

    Every round the server sends the shared model, each node runs the method's task on its own rows, and the reports are
    summed into the next model. The report of round k + 1 also says how the model of round k stands (its loss, accuracy
    and smallest margin), so certifying costs a few numbers a node, and one last round that only looks.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold signed rows (`Shard`).
    method : Method or Choice
        For example ``local_gd(local_steps=100)``, or ``auto()``, which chooses by the sizes of the data.
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
    checkpoints : Checkpoints, optional
        Where to leave what a run needs to go on if it is cut short, and how often. If that is there already, the run
        goes on from it and ends with the same bits as if it had never been cut.

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
    rules = [stop] if callable(stop) else list(stop)
    ledger = Ledger(engine)
    engine, divisor, n_features, _, versus = comfortable(engine, None if w0 is None else np.size(w0))
    chosen = method.chosen(engine) if isinstance(method, Choice) else method
    _check(chosen, n_rounds, max_seconds, nodes)
    about = (
        f"{chosen.name} on nodes {', '.join(engine.node_ids)} of {n_features} columns: {chosen.task}, {chosen.merge}"
    )
    watch = Watch(
        engine, divisor, rules, ledger, n_rounds, max_seconds, nodes, on_round, reference, checkpoints, Snapshot(about)
    )
    start = np.zeros(n_features) if w0 is None else start_in_unit(w0, divisor)
    found = watch.found()
    for ended in () if found is None else found.snapshot.ended:
        chosen, start = chosen.reserve(ended) or chosen, np.zeros(n_features)
    while True:
        leg = Leg(into_unit(chosen, divisor).among(versus).tuned(engine), watch)
        ended = leg.run(start, found)
        reserve, found = chosen.reserve(ended), None
        if reserve is None or watch.spent:
            break
        watch.hand_over(ended, leg.shown)
        chosen, start = reserve, np.zeros(n_features)
    shown = leg.shown if watch.base.earlier is None else _after(watch.base.earlier, leg.shown)
    if leg.state.done and shown.verdict is Status.UNDECIDED:
        shown = replace(shown, reason=f"{shown.reason}; it ended, as {leg.state.done}")
    if chosen.why:
        shown = replace(shown, reason=f"{shown.reason}; {method.name} took {chosen.name}, as {chosen.why}")
    w = sealed(out_of_unit(leg.state.readout.w, divisor))
    return Run(w, shown, tuple(watch.history), leg.method, tuple(engine.failures), unfinished=leg.unfinished)


def _check(method: Method, n_rounds: int, max_seconds: float | None, nodes: object) -> None:
    """Check what no type checker sees in an interactive session."""
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as auto() or local_gd(), got {method!r}")
    reason = getattr(method.merge, "needs_all_nodes", "")
    if nodes is not None and reason:
        remedy = "leave nodes (--fraction) out, or take a method that averages, such as local-gd"
        raise ValueError(f"{method.name} needs every node in every round: {reason}; {remedy}")
    if n_rounds < 0 or n_rounds != int(n_rounds):
        raise ValueError(f"n_rounds must be a whole number of at least 0, got {n_rounds!r}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be above 0, got {max_seconds!r}")


@dataclass(eq=False)
class Watch:
    """What stays the same from one method to the one that takes over: the nodes, the limits, the history."""

    engine: Engine
    divisor: float
    rules: Sequence[Rule]
    ledger: Ledger
    limit: int
    max_seconds: float | None
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None
    on_round: Callable[[Row, Certificate], bool | None] | None
    reference: FloatArray | None
    checkpoints: Checkpoints | None
    base: Snapshot
    history: list[Row] = field(default_factory=list)
    stopping: bool = False
    saving: bool = False
    saved: tuple[int, float] = field(default_factory=lambda: (0, time.perf_counter()))
    begin: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> bool:
        """Whether no round is left, or somebody asked to stop."""
        return self.stopping or len(self.history) > self.limit

    def found(self) -> Found | None:
        """Return the checkpoint to go on from, if there is one, and take its history over.

        Raises
        ------
        ValueError
            If it is of another federation or method.
        """
        found = None if self.checkpoints is None else self.checkpoints.find(self.engine)
        if found is None:
            return None
        if found.snapshot.about != self.base.about:
            raise ValueError(
                f"the checkpoint is of another run ({found.snapshot.about}) than this one ({self.base.about}); give "
                "another folder for checkpoints, or the same data and method"
            )
        self.base = found.snapshot
        self.history += found.snapshot.rows
        self.saved = (len(self.history), self.saved[1])
        self.engine.failures[:] = found.snapshot.failures
        return found

    def hand_over(self, ended: str, shown: Certificate) -> None:
        """Note what a method has proved, and how it ended, before the next one begins."""
        earlier = shown if self.base.earlier is None else _after(self.base.earlier, shown)
        self.base = replace(self.base, ended=(*self.base.ended, ended), before=len(self.history), earlier=earlier)

    def note(self, row: Row, shown: Certificate) -> None:
        """Keep a row; find out whether somebody wants to stop, and whether it is time for a checkpoint."""
        self.history.append(row)
        now = time.perf_counter()
        asked = bool(self.on_round(row, shown)) if self.on_round is not None else False
        late = self.max_seconds is not None and now - self.begin >= self.max_seconds
        due = self.checkpoints is not None and self.checkpoints.due(
            len(self.history) - self.saved[0], now - self.saved[1]
        )
        self.stopping, self.saving = self.engine.agreed(asked or late, due)

    def save(self, task: Task, snapshot: Snapshot, state: Any) -> None:
        """Write a checkpoint, if anybody wants them."""
        if self.checkpoints is not None:
            known = replace(snapshot, rows=tuple(self.history), failures=tuple(self.engine.failures))
            self.checkpoints.save(self.engine, task, known, state)
            self.saved = (len(self.history), time.perf_counter())


@dataclass(eq=False)
class Leg:
    """One method at work, from its start to its end."""

    method: Method
    watch: Watch
    state: Any = None
    found: Certificate = field(default_factory=Certificate)
    shown: Certificate = field(default_factory=Certificate)
    step: Dual | None = None
    appraised: FloatArray = field(default_factory=lambda: np.zeros(0))
    angles: list[float] = field(default_factory=list)
    idle: int = 0
    unfinished: bool = False

    def run(self, start: FloatArray, resumed: Found | None = None) -> str:
        """Run to the end and return what kind of end it was: "stalled", "inseparable", or "" for any other."""
        method, watch = self.method, self.watch
        self.state = method.merge.init(start)
        if resumed is not None:
            self._take_up(resumed)
        limit = len(watch.history) if self.state.done else watch.limit
        while True:
            state, final = self.state, len(watch.history) >= limit
            report = self._round(final=final)
            whole = report.n_nodes == len(watch.engine.node_ids)
            watch.note(self._row(report), self.shown)
            self.angles += [self.shown.angle_deg] if whole else []
            ended = self._ended(report)
            if final or (whole and self._finished(report)) or (ended and method.reserve(ended)):
                asked = bool(watch.rules) and self.shown.verdict is Status.CERTIFIED
                self.unfinished = final and not state.done and not asked
                self._excused()
                return ended
            if watch.stopping:
                limit = len(watch.history)  # keep this round's work; then one last look, at all nodes
            following = self._following(state, report, start, whole=whole)
            if not np.isfinite(following.w).all():
                self.shown = replace(self.shown, verdict=Status.DIVERGED, reason=self._blown_up(state.round))
                return ended
            self.state = following
            if following.done:
                limit = len(watch.history)
            again = following is state  # a round that will be repeated: nodes that ran it are ahead of the server
            if not again and (watch.saving or len(watch.history) >= limit):
                watch.save(method.task, replace(watch.base, **self._proofs()), self.state)

    def _round(self, *, final: bool) -> Report:
        """Run a round, or look once more, and find out what is proved of the model it began with."""
        method, watch, state = self.method, self.watch, self.state
        engine, so_far = watch.engine, len(watch.history)
        chosen = None if watch.nodes is None or final else watch.nodes(so_far, engine.node_ids)
        for _ in range(LAST_LOOKS if final else 1):
            report = engine.round(method.look if final else method.task, method.merge.message(state), chosen)
            whole = report.n_nodes == len(engine.node_ids)
            if whole:
                break
        self.step = step_dual(report) or self.step  # a dual vector speaks of the rows: the last one stays true
        if method.penalty is None:
            self.found = _standing(state, report, self.found, self.step, watch.rules, whole=whole)
        elif whole and "pull" in report.sums:
            self.found = minimiser_certificate(state.w, report, method.penalty, method.task.loss, watch.rules)
            self.appraised = state.w
        elif not np.array_equal(state.w, self.appraised):  # the last proof is of another model
            self.found = Certificate(kind="minimiser", reason="not every node has appraised this model")
        self.shown = in_unit(self.found, watch.divisor, watch.rules)
        if not method.reserve("inseparable"):
            self.shown = _explained(self.shown, report, method, whole=whole)
        return report

    def _following(self, state: Any, report: Report, start: FloatArray, *, whole: bool) -> Any:
        """Return the server's next state: the same one, if a method that needs all nodes lacks some."""
        if whole or not getattr(self.method.merge, "needs_all_nodes", ""):
            return self.method.merge.step(state, report)
        self.idle += 1
        return self.method.merge.init(start) if report.counts.get("forgotten", 0) else state

    def _take_up(self, resumed: Found) -> None:
        """Go on from a checkpoint."""
        snapshot, watch = resumed.snapshot, self.watch
        self.state = wire.unpack(resumed.state, type(self.state))
        self.found, self.step, self.appraised = snapshot.found, snapshot.step, snapshot.appraised
        self.idle = snapshot.idle
        n_nodes = len(watch.engine.node_ids)
        self.angles = [row.angle_deg_max for row in snapshot.rows[snapshot.before :] if row.n_nodes == n_nodes]
        watch.ledger.go_on(watch.engine, snapshot.rows[-1])
        if watch.checkpoints is not None:
            watch.engine.recall(self.method.task, watch.checkpoints.folder, len(snapshot.rows))

    def _proofs(self) -> dict[str, Any]:
        return {"found": self.found, "step": self.step, "appraised": self.appraised, "idle": self.idle}

    def _excused(self) -> None:
        """Say so if rounds were lost because nodes were missing."""
        if self.idle:
            rounds = f"{self.idle} round{'s were' if self.idle > 1 else ' was'} repeated, as nodes were missing"
            self.shown = replace(self.shown, reason=f"{self.shown.reason}; {rounds}")

    def _blown_up(self, round_: int) -> str:
        """Say in which round the model left float64, and at whose hands if it was a node's."""
        blamed = sorted({failure.node_id for failure in self.watch.engine.failures if failure.round == round_})
        remedy = "; lower lr" if isinstance(self.method.task, GradientSteps) else ""
        of_nodes = f" (only node {', '.join(blamed)} sent what is not finite)" if blamed else ""
        return f"round {round_} left float64{of_nodes}{remedy}"

    def _row(self, report: Report) -> Row:
        reference = self.watch.reference
        said = report.n_nodes > 0
        return Row(
            round=len(self.watch.history),
            loss=float(report.sums["loss"]) / float(report.sums["weight"]) if said else math.nan,
            accuracy=float(report.sums["correct"]) / report.n_rows if said else math.nan,
            low=self.shown.margin_low,
            high=self.shown.margin_high,
            angle_deg_max=self.shown.angle_deg,
            margin=self.shown.margin,
            true_angle_deg=math.nan if reference is None else angle_deg(self.state.readout.w, reference),
            gap=self.shown.gap,
            n_nodes=report.n_nodes,
            **self.watch.ledger.entries(self.watch.engine),
        )

    def _ended(self, report: Report) -> str:
        """Say whether the method has come to an end of a kind that another one may go on from."""
        nothing = report.counts.get("inseparable", 0) > 0 or self.shown.verdict is Status.NOT_SEPARABLE
        if self.method.penalty is None and (nothing or self.state.done == GROWING):
            return "inseparable" if not self.shown.margin_low > 0 else "stalled"
        if self.shown.verdict is Status.CERTIFIED and (self.watch.rules or self.state.done):
            return ""
        if len(self.angles) <= STALL_ROUNDS:
            return "stalled" if self.state.done else ""
        now, then = self.angles[-1], self.angles[-1 - STALL_ROUNDS]
        falling = now < STALL_RATIO * then or now <= FINE_DEG or (math.isnan(then) and not math.isnan(now))
        return "" if falling else "stalled"

    def _finished(self, report: Report) -> bool:
        if self.shown.verdict is Status.STALLED or report.counts.get("inseparable", 0) > 0:
            return True
        return bool(self.watch.rules) and self.shown.verdict is Status.CERTIFIED


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


def _after(earlier: Certificate, later: Certificate) -> Certificate:
    """Return the later certificate with what the earlier one proved of the same rows."""
    low, high = max(earlier.margin_low, later.margin_low), min(earlier.margin_high, later.margin_high)
    later = replace(later, margin_low=low, margin_high=high)
    if later.verdict is not Status.UNDECIDED:
        return later
    verdict = Status.NOT_SEPARABLE if earlier.verdict is Status.NOT_SEPARABLE else Status.UNDECIDED
    known = earlier.reason if verdict is Status.NOT_SEPARABLE else f"any pooled margin is at most {at_most(high)}"
    return replace(later, verdict=verdict, reason=f"{known}; {later.reason}")


def _explained(found: Certificate, report: Report, method: Method, *, whole: bool) -> Certificate:
    """Say so if more rounds would change nothing: no gradient left in float64, or a projection onto an empty set."""
    if report.counts.get("inseparable", 0) > 0:
        stopped = "stopped, as a projection needs rows that are separable by more than 1e-8 of their length"
        remedy = "auto or local-gd" if isinstance(method.merge, Consensus) else "local-gd, or form='proximal'"
        return replace(found, reason=f"{found.reason}; {stopped}: use {remedy}")
    if found.verdict is Status.CERTIFIED or not whole or report.counts.get("underflow", 0) < report.n_nodes:
        return found
    return replace(found, verdict=Status.STALLED, reason=f"every gradient is 0 in float64; {found.reason}")
