"""One method at work on one problem: round after round, until its certificate is enough, or nothing is left to gain."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from localgd.core import Engine, Failure, Message, Problem, Report
from localgd.duals.dual import Dual
from localgd.methods.method import Method
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin
from localgd.problems.metrics import is_about, said_of
from localgd.problems.own_model import OwnModel
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray, angle_deg, norm
from localgd.rules.probes import tempered_duals
from localgd.rules.schedule import spent
from localgd.rules.server import End, ServerState, drift
from localgd.run.checkpoint import Checkpoint, Checkpoints, LoopState
from localgd.run.goals import Goal
from localgd.run.history import CommunicationLog, RoundInfo, Row

STALL_ROUNDS, STALL_RATIO = 60, 2 / 3
"""A method with a fallback has so many rounds to bring the certified angle down to this part of itself."""

LAST_LOOKS = 3
"""The last look at the model is what its certificate rests on: it is taken again if nodes were missing."""

FINE_DEG = 1e-3
"""Below this angle there is nothing left to stall at: the rounding that is counted against it is about as much."""


@dataclass(eq=False)
class RunContext:
    """What stays the same from one stage of a run to the next: nodes, limits, history, checkpoints.

    `bare` is whether it began at a vector that nothing is proved of, so that little is of what is added to it.
    """

    engine: Engine
    sizes: DataSizes
    goals: Sequence[Goal]
    log: CommunicationLog
    limit: int
    max_seconds: float | None
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None
    on_round: Callable[[RoundInfo], bool | None] | None
    reference: FloatArray | None
    checkpoints: Checkpoints | None
    n_failed: int
    bare: bool = False
    history: list[Row] = field(default_factory=list)
    failed_before: tuple[Failure, ...] = ()
    stopping: bool = False
    saving: bool = False
    saved: tuple[int, float] = field(default_factory=lambda: (0, time.perf_counter()))
    begin: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> bool:
        """Whether no round is left, or somebody asked to stop."""
        return self.stopping or len(self.history) > self.limit

    def met(self, certificate: Certificate) -> bool:
        """Return whether something was asked for, and all of it is proved."""
        return bool(self.goals) and all(goal.met(certificate) for goal in self.goals)

    def note(self, info: RoundInfo) -> None:
        """Keep a row; find out whether somebody wants to stop, and whether it is time for a checkpoint."""
        self.history.append(info.row)
        now = time.perf_counter()
        asked = bool(self.on_round(info)) if self.on_round is not None else False
        late = self.max_seconds is not None and now - self.begin >= self.max_seconds
        due = self.checkpoints is not None and self.checkpoints.due(
            len(self.history) - self.saved[0], now - self.saved[1]
        )
        self.stopping, self.saving = self.engine.agreed(asked or late or self.stopping, due)

    def save(self, stage: Stage) -> None:
        """Write a checkpoint, if anybody wants them."""
        if self.checkpoints is None:
            return
        failures = (*self.failed_before, *self.engine.failures[self.n_failed :])
        loop = replace(stage.loop, rows=tuple(self.history), failures=failures)
        task, session = stage.method.task, stage.session
        self.checkpoints.save(self.engine, task, loop, stage.proof, stage.server, session=session)
        self.saved = (len(self.history), time.perf_counter())


@dataclass(eq=False)
class Stage:
    """One method at work on one problem, from its start to its end."""

    method: Method
    problem: Problem
    context: RunContext
    loop: LoopState
    server: Any
    proof: Any
    shown: Certificate = field(default_factory=Certificate)
    angles: list[float] = field(default_factory=list)
    limit: int = 0
    end: End = End.OUT_OF_ROUNDS
    unfinished: bool = False
    session: str = ""
    start: FloatArray | None = field(init=False)

    def __post_init__(self) -> None:
        """Agree on a session, for nodes to keep their states by; remember where a method starts again, if not at 0."""
        self.start = self.server.w if self.server.w.any() else None
        self.session = self.context.engine.shared(secrets.token_hex(8).encode()).decode()

    @cached_property
    def own_model(self) -> OwnModel | None:
        """The problem, if it is one of a model of its own: found out once, as a protocol is long to compare with."""
        return self.problem if isinstance(self.problem, OwnModel) else None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        context, loop = self.context, checkpoint.loop
        self.server, self.proof = checkpoint.server(type(self.server)), checkpoint.proof(type(self.proof))
        n_nodes = len(context.engine.node_ids)
        self.angles = [row.angle_deg_max for row in loop.rows[loop.before :] if row.n_nodes == n_nodes]
        context.log.go_on(context.engine, loop.rows[-1])
        if context.checkpoints is not None:
            context.engine.recall(self.method.task, context.checkpoints.folder, len(loop.rows), self.session)

    def run(self) -> None:
        """Run to the end."""
        self.limit = len(self.context.history) if self.server.done else self.context.limit
        try:
            while not self._advance():  # what a round leaves is gone before the next one: reports may be large
                pass
        finally:
            self.context.engine.release(self.session)

    @cached_property
    def own(self) -> bool:
        """Whether all of the method is of this library."""
        return ours(self.method)

    @property
    def model(self) -> Dual:
        """The model that is handed out, with what is proved of it.

        Of a stranger's merge that is what it made, by sums and multiples, of what nodes of this run reported: not a
        proof of its own, of rows of the server's, or of another run. Of targets it is not even that.
        """
        out: Dual = self.server.readout
        reported = self.problem.by_margins and (out.empty or out.of == self.loop.mark)
        return out if self.own or reported else Dual(out.vector)

    def _advance(self) -> bool:
        """Run a round and make the next model from it; return whether that was the last."""
        method, context, server = self.method, self.context, self.server
        final = len(context.history) >= self.limit
        report, told = self._round(final=final)
        whole = report.n_nodes == len(context.engine.node_ids)
        context.note(RoundInfo(self._row(told, report), self.shown, server.readout.vector))
        self.angles += [self.shown.angle_deg_max] if whole else []
        end = self._ended(report)
        if final or (whole and self._finished(report)) or (end in method.fallbacks):
            asked = context.met(self.shown)
            self.unfinished = final and not server.done and not asked
            self.end = self._outcome(report, end, asked=asked)
            if self.shown.verdict is Status.CERTIFIED and not asked and self._underflown(report):
                self.shown = replace(self.shown, reason=f"{self.shown.reason}; every gradient is 0 in float64")
            self._excuse()
            return True
        if context.stopping:
            self.limit = len(context.history)  # keep this round's work; then one last look, at all nodes
        overflown = report.flags.get("overflow", 0) > 0
        following = server if overflown else self._following(report, whole=whole)
        if overflown or not np.isfinite(following.w).all():
            self.shown = replace(self.shown, verdict=Status.DIVERGED, reason=self._blown_up(report))
            self.end = End.DIVERGED
            return True
        again = following is server  # a round that will be repeated: nodes that ran it are ahead of the server
        self.server = following
        if following.done:
            self.limit = len(context.history)
        if not again and (context.saving or len(context.history) >= self.limit):
            context.save(self)
        return False

    def _round(self, *, final: bool) -> tuple[Report, Report]:
        """Run a round, or look once more; return its report, and what that says of the model it began with.

        Only the latter proves anything. The last look is at that model, whatever else the merge has nodes look at.
        """
        method, context, server = self.method, self.context, self.server
        engine, so_far, own = context.engine, len(context.history), self.own
        chosen = None if context.nodes is None or final else context.nodes(so_far, engine.node_ids)
        state = server if own else ServerState(self.model, server.round)
        task = self.problem.look(method.task) if final else method.task
        asked = method.look(server) if final else method.merge.message(server)
        if final and not own:
            asked = self.problem.beginning(state)
        elif final and not is_about(server.readout.vector, asked, task.schema(asked)):
            asked = Message(asked.round, server.readout.vector)
        message = asked.within(self.session, "float64" if self.own_model is None else self.own_model.dtype)
        for _ in range(LAST_LOOKS if final else 1):
            report = engine.round(task, message, chosen)
            whole = report.n_nodes == len(engine.node_ids)
            if whole:
                break
        if own:
            about = (server.readout.vector, message, task.schema(message))
            told, whole = said_of(*about, report), whole and is_about(*about)
        elif final:
            told = report
        else:  # whatever else a stranger's task says may be about anything
            look, there = self.problem.look(method.task), self.problem.beginning(state).within(self.session)
            told = engine.round(look, there, chosen) + Report(duals=report.duals)
            whole = whole and told.n_nodes == report.n_nodes
        if min(float(found.sums.get("weight", 1.0)) for found in (report, told)) <= 0:
            raise ValueError(
                f"round {server.round}: {report.n_nodes} nodes reported, and weigh nothing in the mean; give some of "
                "them a weight above 0, or let more take part"
            )
        duals, out = list[Dual](), self.model  # of which there is nothing yet to ask about, if it is 0
        bare = context.bare and self.problem.kind == HardMargin.kind and not out.known and bool(out.vector.any())
        if final and report.n_nodes and (bare or self.problem.unproved(self.proof, state)):
            duals = self._tempered(told)
        self.proof = self.problem.prove(self.proof, state, told, duals, whole=whole)
        self.shown = self.proof.certificate
        if report.flags.get("inseparable", 0) > 0 and End.INSEPARABLE not in method.fallbacks:
            stopped = "stopped, as a projection needs rows that are separable by more than 1e-8 of their length"
            self.shown = replace(self.shown, reason=f"{self.shown.reason}; {stopped}: {method.remedy}")
        return report, told

    def _tempered(self, report: Report) -> list[Dual]:
        """Return dual vectors for a model whose updates had no mass, by one more round."""
        model = self.server.readout.vector
        length = norm(model)
        low = float(report.mins.get("margin", 0.0)) / length
        return tempered_duals(self.context.engine, model / length, low, self.context.sizes.radius)

    def _following(self, report: Report, *, whole: bool) -> Any:
        """Return the server's next state: the same one, if a method that needs all nodes lacks some."""
        if whole or not self.method.whole_rounds:
            try:
                update = report.duals.get("update")
                if update is not None and update.vector.shape != self.server.w.shape:
                    raise ValueError(f"its update has the shape {update.vector.shape}")  # noqa: TRY301  said below
                if not self.own:
                    marked = {name: dual.marked(self.loop.mark) for name, dual in report.duals.items()}
                    report = replace(report, duals=marked)
                following = self.method.merge.step(self.server, report)
                if self.own_model is not None:
                    following = self.own_model.settled(following, report)
                why = spent(self.method.task, following.round) if self.own and not following.done else ""
                return replace(following, done=why) if why else following
            except (KeyError, TypeError, ValueError) as error:  # a sole survivor has nobody to be compared with
                raise ValueError(f"round {self.server.round}: the report does not fit the model: {error}") from error
        self.loop = replace(self.loop, repeated=self.loop.repeated + 1)
        if not report.flags.get("forgotten", 0):
            return self.server
        return self.method.merge.init(np.zeros(self.server.w.size) if self.start is None else self.start)

    def _outcome(self, report: Report, end: End | None, *, asked: bool) -> End:
        """Return what kind of end the last look is: of the method itself, or of rounds, time or patience."""
        if end is not None and end in self.method.fallbacks:
            return end
        if asked:
            return End.DONE
        if self.server.done or self._finished(report):
            return end or (End.STALLED if self._underflown(report) else End.DONE)
        return End.STOPPED if self.context.stopping else End.OUT_OF_ROUNDS

    def _excuse(self) -> None:
        """Say so if rounds were lost, or went on without some nodes, because those were missing."""
        context, looks = self.context, self.context.history[:-1]
        n_short = sum(row.n_nodes < len(context.engine.node_ids) for row in looks[self.loop.before :])
        excuse = ""
        if self.loop.repeated:
            excuse = f"; {_rounds(self.loop.repeated)} repeated, as nodes were missing"
        elif n_short and context.nodes is None:
            excuse = f"; {_rounds(n_short)} without some nodes, as they failed"
        self.shown = replace(self.shown, reason=f"{self.shown.reason}{excuse}")

    def _blown_up(self, report: Report) -> str:
        """Say in which round the model left float64, and of how many nodes."""
        n_nodes = len(self.context.engine.node_ids)
        of_nodes = f" ({report.n_nodes} of {n_nodes} nodes had reported)" if report.n_nodes < n_nodes else ""
        remedy = f"; {self.method.remedy}" if self.method.remedy else ""
        return f"round {self.server.round} left float64{of_nodes}{remedy}"

    def _row(self, told: Report, report: Report) -> Row:
        """Return the row of what nodes told of the model, and of how far apart their own then were."""
        context, reference = self.context, self.context.reference
        loss, accuracy = self.problem.scores(told, self.server) if told.n_nodes else (math.nan, math.nan)
        return Row(
            round=len(context.history),
            loss=loss,
            accuracy=accuracy,
            low=self.shown.margin_low,
            high=self.shown.margin_high,
            angle_deg_max=self.shown.angle_deg_max,
            margin=self.shown.margin,
            true_angle_deg=math.nan if reference is None else angle_deg(self.server.readout.vector, reference),
            gap=self.shown.gap,
            n_nodes=report.n_nodes,
            drift=drift(report) if self.own_model is not None else math.nan,
            **context.log.entries(context.engine),
        )

    def _ended(self, report: Report) -> End | None:
        """Say whether the method has come to an end of a kind that another one may go on from."""
        shown, server = self.shown, self.server
        nothing = report.flags.get("inseparable", 0) > 0 or shown.verdict is Status.CANCELS
        if nothing or (server.done and server.end is End.INSEPARABLE):
            return End.STALLED if shown.margin_low > 0 else End.INSEPARABLE
        certified = shown.verdict is Status.CERTIFIED and bool(server.done)
        if self.context.met(shown) if self.context.goals else certified:
            return None
        if not self.problem.by_margins:  # there is no angle that could stall
            return End.STALLED if server.done and self.context.goals else None
        if len(self.angles) <= STALL_ROUNDS:
            return End.STALLED if server.done else None
        now, then = self.angles[-1], self.angles[-1 - STALL_ROUNDS]
        falling = now < STALL_RATIO * then or now <= FINE_DEG or (math.isnan(then) and not math.isnan(now))
        return None if falling else End.STALLED

    def _finished(self, report: Report) -> bool:
        if self._underflown(report) or report.flags.get("inseparable", 0) > 0:
            return True
        return self.context.met(self.shown)

    def _underflown(self, report: Report) -> bool:
        """Say whether no gradient is left to bring the model any nearer to what was asked for."""
        asked = bool(self.context.goals) and report.flags.get("underflow", 0) >= report.n_nodes > 0
        return self.shown.verdict is Status.STALLED or asked


def ours(method: Method) -> bool:
    """Return whether task and merge are of this library: those of others are believed what a shard vouches for."""
    task: Any = method.task
    parts: list[Any] = []
    while task is not None:  # what is compressed is somebody's, too
        parts.append(task)
        task = getattr(task, "task", None)
    return all(_home(part) == "localgd" for part in parts) and _all_ours(method.merge)


def _all_ours(part: Any) -> bool:
    """Return whether a merge is of this library with all that it is made of, such as the parts of a chain."""
    if isinstance(part, tuple):
        return all(map(_all_ours, part))
    if _home(part) in {"builtins", "numpy"}:
        return not callable(part)
    return _home(part) == "localgd" and all(_all_ours(getattr(part, each.name)) for each in _fields(part))


def _fields(part: Any) -> tuple[Any, ...]:
    return fields(part) if is_dataclass(part) else ()


def _home(part: Any) -> str:
    return type(part).__module__.partition(".")[0]


def _rounds(number: int) -> str:
    return f"{number} round{'s were' if number > 1 else ' was'}"
