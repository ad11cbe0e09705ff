"""One method at work: round after round, until its certificate is good enough, or there is nothing more to gain."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from localgd import serialize
from localgd.core import Report
from localgd.errors import NodeError, NotFiniteError
from localgd.methods.method import Method
from localgd.problems.duality_gap import minimiser_certificate
from localgd.problems.hard_margin import Certificate, Rule, Status, certificate, in_unit, round_dual
from localgd.rounding import FloatArray, angle_deg, norm
from localgd.rows import Dual
from localgd.rules.consensus import Consensus
from localgd.rules.interior import GROWING
from localgd.rules.local import GradientSteps
from localgd.rules.probes import tempered_duals
from localgd.rules.server import ServerState
from localgd.run.checkpoint import Found
from localgd.run.history import Row
from localgd.run.watch import Watch

STALL_ROUNDS, STALL_RATIO = 60, 2 / 3
"""A method with a reserve has so many rounds to bring the certified angle down to this part of itself."""

LAST_LOOKS = 3
"""The last look at the model is what its certificate rests on: it is taken again if nodes were missing."""

FINE_DEG = 1e-3
"""Below this angle there is nothing left to stall at: the rounding that is counted against it is about as much."""


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
    limit: int = 0
    unfinished: bool = False
    session: str = ""

    def run(self, start: FloatArray, resumed: Found | None = None) -> str:
        """Run to the end and return what kind of end it was: "stalled", "inseparable", or "" for any other."""
        watch = self.watch
        self.session = watch.engine.shared(secrets.token_hex(8).encode()).decode()
        self.state = self.method.merge.init(start)
        if resumed is not None:
            self._take_up(resumed)
        self.limit = len(watch.history) if self.state.done else watch.limit
        ended = None
        try:
            while ended is None:
                ended = self._turn(start)  # what it leaves behind is gone before the next one: reports may be large
        finally:
            watch.engine.release(self.session)
        return ended

    def _turn(self, start: FloatArray) -> str | None:
        """Run a round and make the next model from it; return what kind of end that was, if any."""
        method, watch, state = self.method, self.watch, self.state
        final = len(watch.history) >= self.limit
        try:
            report = self._round(final=final)
        except NodeError as error:
            if not watch.history or not isinstance(error.__cause__, NotFiniteError):
                raise
            blown_up = f"round {error.round} left float64 at node {error.node_id!r} first{self._remedy}"
            self.shown = replace(self.shown, verdict=Status.DIVERGED, reason=blown_up)
            return ""
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
            self.limit = len(watch.history)  # keep this round's work; then one last look, at all nodes
        following = self._following(state, report, start, whole=whole)
        if not np.isfinite(following.w).all():
            self.shown = replace(self.shown, verdict=Status.DIVERGED, reason=self._blown_up(report))
            return ended
        self.state = following
        if following.done:
            self.limit = len(watch.history)
        again = following is state  # a round that will be repeated: nodes that ran it are ahead of the server
        if not again and (watch.saving or len(watch.history) >= self.limit):
            watch.save(method.task, replace(watch.base, **self._proofs()), self.state, self.session)
        return None

    def _round(self, *, final: bool) -> Report:
        """Run a round, or look once more, and find out what is proved of the model it began with."""
        method, watch, state = self.method, self.watch, self.state
        engine, so_far = watch.engine, len(watch.history)
        chosen = None if watch.nodes is None or final else watch.nodes(so_far, engine.node_ids)
        message = replace(method.merge.message(state), session=self.session)
        for _ in range(LAST_LOOKS if final else 1):
            report = engine.round(method.look if final else method.task, message, chosen)
            whole = report.n_nodes == len(engine.node_ids)
            if whole:
                break
        _check(report, state, margin=whole and method.penalty is None)
        self.step = round_dual(report) or self.step  # a dual vector speaks of the rows: the last one stays true
        if method.penalty is None:
            duals = self._duals(report, final=final)
            self.found = _standing(state, report, self.found, duals, watch.rules, whole=whole)
        elif whole and "pull" in report.sums:
            self.found = minimiser_certificate(state.w, report, method.penalty, method.task.loss, watch.rules)
            self.appraised = state.w
        elif not np.array_equal(state.w, self.appraised):  # the last proof is of another model
            self.found = Certificate(kind="minimiser", reason="not every node has appraised this model")
        self.shown = in_unit(self.found, watch.divisor, watch.rules)
        if not method.reserve("inseparable"):
            self.shown = _explained(self.shown, report, method, whole=whole)
        return report

    def _duals(self, report: Report, *, final: bool) -> list[Dual]:
        """Return the dual vectors that are known; without a mass the last look is worth a round for some."""
        model = self.state.readout
        known = [dual for dual in (model, self.step) if dual is not None and dual.known]
        if known or not final or not model.vector.any() or not report.n_nodes:
            return [model, *([] if self.step is None else [self.step])]
        length = norm(model.vector)
        low = float(report.mins["margin"]) / length
        return [model, *tempered_duals(self.watch.engine, model.vector / length, low, self.watch.radius)]

    def _following(self, state: Any, report: Report, start: FloatArray, *, whole: bool) -> Any:
        """Return the server's next state: the same one, if a method that needs all nodes lacks some."""
        if whole or not getattr(self.method.merge, "needs_all_nodes", ""):
            try:
                return self.method.merge.step(state, report)
            except (KeyError, TypeError, ValueError) as error:  # a sole survivor has nobody to be compared with
                raise ValueError(f"round {state.round}: the report does not fit the model: {error}") from error
        self.idle += 1
        return self.method.merge.init(start) if report.flags.get("forgotten", 0) else state

    def _take_up(self, resumed: Found) -> None:
        """Go on from a checkpoint."""
        snapshot, watch = resumed.snapshot, self.watch
        self.state = serialize.unpack(resumed.state, type(self.state))
        self.found, self.step, self.appraised = snapshot.found, snapshot.step, snapshot.appraised
        self.idle = snapshot.idle
        n_nodes = len(watch.engine.node_ids)
        self.angles = [row.angle_deg_max for row in snapshot.rows[snapshot.before :] if row.n_nodes == n_nodes]
        watch.ledger.go_on(watch.engine, snapshot.rows[-1])
        if watch.checkpoints is not None:
            watch.engine.recall(self.method.task, watch.checkpoints.folder, len(snapshot.rows), self.session)

    def _proofs(self) -> dict[str, Any]:
        return {"found": self.found, "step": self.step, "appraised": self.appraised, "idle": self.idle}

    def _excused(self) -> None:
        """Say so if rounds were lost, or went on without some nodes, because those were missing."""
        watch, looks = self.watch, self.watch.history[:-1]
        n_short = sum(row.n_nodes < len(watch.engine.node_ids) for row in looks[watch.base.before :])
        excuse = ""
        if self.idle:
            excuse = f"; {_rounds(self.idle)} repeated, as nodes were missing"
        elif n_short and watch.nodes is None:
            excuse = f"; {_rounds(n_short)} without some nodes, as they failed"
        self.shown = replace(self.shown, reason=f"{self.shown.reason}{excuse}")

    def _blown_up(self, report: Report) -> str:
        """Say in which round the model left float64, and of how many nodes."""
        engine, round_ = self.watch.engine, self.state.round
        some = report.n_nodes < len(engine.node_ids)
        of_nodes = f" ({report.n_nodes} of {len(engine.node_ids)} nodes had reported)" if some else ""
        return f"round {round_} left float64{of_nodes}{self._remedy}"

    @property
    def _remedy(self) -> str:
        return "; lower lr" if isinstance(self.method.task, GradientSteps) else ""

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
            true_angle_deg=math.nan if reference is None else angle_deg(self.state.readout.vector, reference),
            gap=self.shown.gap,
            n_nodes=report.n_nodes,
            **self.watch.ledger.entries(self.watch.engine),
        )

    def _ended(self, report: Report) -> str:
        """Say whether the method has come to an end of a kind that another one may go on from."""
        nothing = report.flags.get("inseparable", 0) > 0 or self.shown.verdict is Status.NOT_SEPARABLE
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
        if self.shown.verdict is Status.STALLED or report.flags.get("inseparable", 0) > 0:
            return True
        return bool(self.watch.rules) and self.shown.verdict is Status.CERTIFIED


def _rounds(number: int) -> str:
    return f"{number} round{'s were' if number > 1 else ' was'}"


def _check(report: Report, state: Any, *, margin: bool) -> None:
    """Refuse what no round of training adds up to, before anything is proved of it: nodes agree on what is wrong."""
    if not report.n_nodes:
        return
    parts, number = report.arrays, ()
    shapes = {"loss": number, "weight": number, "correct": number}
    shapes |= {"margin": number} if "margin" in parts else {}  # a report may be short
    shapes |= {"margin": number} if margin else {}
    shapes |= {name: state.w.shape for name in ("update", "pull") if name in parts}
    for name, shape in shapes.items():
        if name not in parts or parts[name].shape != shape:
            sent = f"{name} of the shape {parts[name].shape}" if name in parts else f"no {name}"
            raise ValueError(
                f"round {state.round}: {report.n_nodes} nodes reported {sent}; expected {shape or 'a number'}"
            )
    if parts["weight"] <= 0 or parts.get("margin", 0.0) == np.inf:
        raise ValueError(f"round {state.round}: {report.n_nodes} nodes reported no weight of rows, or no margin")


def _standing(
    state: ServerState, report: Report, before: Certificate, duals: Sequence[Dual], stop: Sequence[Rule], *, whole: bool
) -> Certificate:
    """Return the certificate of the current model from a round's report."""
    return certificate(
        state.readout.vector,
        float(report.mins["margin"]) if whole else math.nan,
        duals,
        before=before,
        node_high=float(report.mins.get("margin_upper", np.inf)),
        cancels=report.flags.get("cancels", 0) > 0,
        stop=stop,
    )


def _explained(found: Certificate, report: Report, method: Method, *, whole: bool) -> Certificate:
    """Say so if more rounds would change nothing: no gradient left in float64, or a projection onto an empty set."""
    if report.flags.get("inseparable", 0) > 0:
        stopped = "stopped, as a projection needs rows that are separable by more than 1e-8 of their length"
        remedy = "auto or local-gd" if isinstance(method.merge, Consensus) else "local-gd, or form='proximal'"
        return replace(found, reason=f"{found.reason}; {stopped}: use {remedy}")
    if found.verdict is Status.CERTIFIED or not whole or report.flags.get("underflow", 0) < report.n_nodes:
        return found
    return replace(found, verdict=Status.STALLED, reason=f"every gradient is 0 in float64; {found.reason}")
