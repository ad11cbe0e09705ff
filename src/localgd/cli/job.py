"""A run of the command line, from flags to run folder: begun afresh, or gone on with."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from localgd.cli.data import federation_of, prepared, tables_of
from localgd.cli.flags import FAILED, SHORT, SIGNALLED, Source
from localgd.cli.judging import Judge, Judged
from localgd.cli.processes import ProcessGroup
from localgd.cli.trained_on import config_of
from localgd.core import Engine, Message, Problem
from localgd.data.load import check_flat
from localgd.data.model import Model
from localgd.data.recipe import Recipe
from localgd.data.table import Table
from localgd.engine.inprocess import InProcess
from localgd.errors import NodeError, from_all, plain, said
from localgd.methods.method import Choice, Method
from localgd.methods.options import BY_NAME, taken
from localgd.methods.table import asked
from localgd.problems.certificate import Status
from localgd.reference.max_margin import pooled_direction
from localgd.report import text
from localgd.report.plots import convergence
from localgd.report.progress import Patient, Progress
from localgd.rounding import FloatArray
from localgd.rules.probes import Sizes
from localgd.run import folder as record
from localgd.run.checkpoint import FILE, Checkpoints
from localgd.run.goals import Angle, Goal, MarginRatio
from localgd.run.history import RoundInfo, Run, SampledNodes
from localgd.run.loop import train

if TYPE_CHECKING:
    from localgd.engine.torchdist import TorchDistributed


@dataclass(frozen=True)
class Job:
    """What the flags of ``localgd train`` ask for, of the process that this is among those of its `place`."""

    flags: SimpleNamespace
    place: ProcessGroup

    @property
    def out(self) -> Path | None:
        """The run folder."""
        return None if self.flags.out is None else Path(self.flags.out)

    def run(self, recipe: Recipe | None = None) -> int:
        """Train and leave what came out; return the exit code. With a recipe, go on where a run was cut short."""
        flags, resumed = self.flags, recipe is not None
        (method, problem), goal = self._how(), self._goal()
        out = self.out
        if not resumed:
            check_flat(flags.data)
        if out is not None and not resumed:
            self.place.first(lambda: record.check_free(out, force=flags.force))
        with ExitStack() as hold, Progress(quiet=flags.as_json or not self.place.leads) as progress:
            progress.say(f"reading {flags.data}")
            engine, tables, source = self._rows()
            judge = Judge.of(flags, engine, self.place.world)
            if recipe is None:
                federation, recipe = self._prepared(judge.training, tables, source, judge.engine.node_ids)
            else:
                federation = judge.training.map(recipe)
            introduction = _introduction(federation, recipe, flags.method)
            for note in (introduction, *recipe.notes, *judge.prepared(recipe)):
                progress.note(note)
            reference = self._reference(federation, method, progress)
            if out is not None and not resumed:
                begun = record.begun(out, self._config, recipe, force=flags.force)
                self.place.first(lambda: hold.enter_context(begun))
            nodes = judge.engine.node_ids
            fit = None
            if flags.leave_one_node_out:
                fit = self._fit((method, problem), goal, progress, tables, source, nodes)
            judge = replace(judge, engine=None, training=None) if fit is None else judge
            del engine, tables  # which else take as much room as the rows that are made of them
            run = self._trained(federation, (method, problem), goal, progress, reference)
            judged = judge.judged(run.model(recipe), fit, progress) if progress.interrupted is None else None
            if not self.place.leads:
                return 0
            place = self._saved(run, run.model(recipe), judged)
        if flags.as_json:
            entries = self._entries(run, goal, place, judged) | {"notes": [*progress.notes, *self._odd(run)]}
            typer.echo(json.dumps(entries, indent=1, allow_nan=False))
        else:
            self._tell(run, goal, place, judged)
        return _exit_code(run, goal, progress.interrupted)

    def _rows(self) -> tuple[InProcess | TorchDistributed, list[Table], Source]:
        """Read this process's rows; return the federation that holds them, and what they were read as."""
        flags, place = self.flags, self.place
        source = Source(**{field.name: getattr(flags, field.name) for field in fields(Source)})
        share = (0, 1) if flags.own_data else (place.rank, place.world)
        tables = tables_of(source, flags.seed, share)
        policy = {name: getattr(flags, name) for name in ("on_failure", "min_nodes", "retries", "n_jobs")}
        return federation_of(tables, place, flags.timeout, **policy), tables, source

    def _prepared(
        self, engine: Any, tables: list[Table], source: Source, nodes: Sequence[str], **how: Any
    ) -> tuple[Any, Recipe]:
        """Prepare the rows of an engine, of all nodes or some; return the federation and how it was done."""
        flags = self.flags
        how |= {"min_group": flags.min_group, "classes": flags.task == "classification"}
        how["class_weight"] = flags.class_weight
        return prepared(engine, tables, source, nodes, intercept=flags.fit_intercept, **how)

    def _fit(
        self,
        how: tuple[Method | Choice, Problem | None],
        goal: list[Goal],
        progress: Progress,
        tables: list[Table],
        source: Source,
        nodes: Sequence[str],
    ) -> Callable[[Any], Model]:
        """Return what trains a model on some of the nodes, to be judged at others."""
        limits: dict[str, Any] = {"problem": how[1], "n_rounds": self.flags.n_rounds, "goal": goal}
        if self.place.world == 1:  # several processes would not stop in one round
            stop = {"on_round": lambda _: progress.interrupted is not None}
            limits |= {"max_seconds": self.flags.max_seconds, **stop}

        def fit(others: Any) -> Model:
            rows, own = self._prepared(others, tables, source, nodes, empty="leave-out")
            return train(rows, how[0], **limits).model(own)

        return fit

    def _trained(
        self,
        federation: Engine,
        how: tuple[Method | Choice, Problem | None],
        goal: list[Goal],
        progress: Progress,
        reference: FloatArray | None,
    ) -> Run:
        flags, checkpoints = self.flags, None
        if self.out is not None:
            folder = record.checkpoints_of(self.out)
            every = {"every_rounds": flags.checkpoint_rounds, "every_seconds": flags.checkpoint_seconds}
            checkpoints = Checkpoints(folder, **{name: value for name, value in every.items() if value is not None})

        def on_round(info: RoundInfo) -> bool:
            progress.failures(federation.failures)
            return progress.on_round(info)

        progress.begin(flags.n_rounds)
        try:
            return train(
                federation,
                how[0],
                problem=how[1],
                n_rounds=flags.n_rounds,
                goal=goal,
                max_seconds=flags.max_seconds,
                nodes=None if flags.fraction is None else SampledNodes(flags.fraction, flags.seed),
                on_round=on_round,
                reference=reference,
                checkpoints=checkpoints,
            )
        except BaseException as error:
            kept = checkpoints is not None and self.place.leads and (checkpoints.folder / FILE).is_file()
            if kept and not _comes_again(error):
                typer.echo(f"what was done so far is kept; go on with: {text.command('resume', self.out)}", err=True)
            raise

    def _how(self) -> tuple[Method | Choice, Problem | None]:
        """Return method and problem."""
        flags = self.flags
        given = {name: getattr(flags, name) for name in BY_NAME if name != "seed"}
        given |= {"seed": flags.seed} if "seed" in taken(flags.method) else {}
        loss = given.pop("loss")
        given |= {name: getattr(flags, name) for name in ("problem", "task", "C", "alpha")}
        return asked(flags.method, intercept=flags.fit_intercept, loss=loss, **given)

    def _goal(self) -> list[Goal]:
        flags = self.flags
        if flags.compare and flags.task == "regression":
            raise ValueError("--compare is for classes; leave it out with --task regression")
        if flags.compare and flags.C is not None:
            raise ValueError(
                "--compare pooled shows the angle to the unpenalised pooled model, so it has no meaning with --C, "
                "whose certificate bounds the distance to the penalised one; leave one of them out"
            )
        angle: list[Goal] = [] if flags.angle_tol_deg is None else [Angle(flags.angle_tol_deg)]
        return angle + ([] if flags.margin_ratio is None else [MarginRatio(flags.margin_ratio)])

    def _reference(self, federation: Any, method: Method | Choice, progress: Progress) -> FloatArray | None:
        """Return the pooled model if it was asked for, or say why there is none to compare with."""
        if not self.flags.compare:
            return None
        if self.place.world > 1:
            raise ValueError("--compare pooled needs all rows in one process; leave it out, or run without torchrun")
        progress.say("computing the pooled model, to compare with")
        try:
            # rows weigh as in the loss that the method minimises where nothing separates them
            weighting = "num-examples" if isinstance(method, Choice) else method.task.weighted_by or "uniform"
            return pooled_direction(federation.shards.values(), weighting)
        except ValueError as error:
            progress.note(f"no comparison: {error}")
            return None

    @cached_property
    def _config(self) -> dict[str, Any]:
        """How to do it again, from anywhere."""
        return config_of(vars(self.flags))

    def _saved(self, run: Run, model: Model, judged: Judged | None) -> Path | None:
        """Write the run folder; if its disk is full, put the run where there is room, so nothing is lost."""
        if self.out is None:
            return None
        draw = convergence if self.flags.plot else None
        try:
            if judged is not None:
                judged.leave(record.partial(self.out))
            record.write(self.out, run, model, self._config, draw=draw, force=self.flags.force)
        except OSError as error:
            refuge = Path(tempfile.mkdtemp(prefix="localgd-")) / "run"
            typer.echo(f"error: could not write {self.out}: {error}", err=True)
            try:
                record.write(refuge, run, model, self._config)
            except OSError:
                typer.echo(json.dumps(model.to_dict()))
                typer.echo("the model is printed above, as there is no room anywhere; redirect it to a file", err=True)
            else:
                typer.echo(f"the run is in {refuge} instead (without its figure); free some room and move it", err=True)
            raise typer.Exit(FAILED) from error
        return self.out

    def _entries(self, run: Run, goals: Sequence[Goal], place: Path | None, judged: Judged | None) -> dict[str, Any]:
        """Return all that is told of a run, as plain values."""
        last, failed = run.history[-1], Counter(failure.node_id for failure in run.failures)
        entries = run.certificate.to_dict() | {"rounds": run.n_rounds, "loss": _known(last.loss)}
        entries |= {"accuracy": _known(last.accuracy), "weighted": run.weighted}
        entries |= {"floats_up": last.floats_up, "floats_down": last.floats_down}
        entries |= {"seconds": last.seconds, "true_angle_deg": _known(last.true_angle_deg)}
        entries |= {"goal_met": _met(run, goals) if goals else None, "unfinished": run.unfinished}
        entries |= {"n_failures": len(run.failures), "failures": dict(failed)}
        entries |= {} if judged is None else {"metrics": judged.to_dict()}
        return entries | {"out": None if place is None else str(place)}

    def _odd(self, run: Run) -> list[str]:
        """Return what to know of a run beside its numbers, and what to do about it."""
        said = text.next_step(run.certificate, unfinished=run.unfinished)
        if not run.w.any() and run.method.problem.by_margins:
            said.append("the model is 0 in every entry: there is nothing to predict with")
        if run.n_rounds > self.flags.n_rounds:
            said.append(f"it had done {run.n_rounds} rounds already, so --n-rounds {self.flags.n_rounds} adds none")
        return said

    def _tell(self, run: Run, goals: Sequence[Goal], place: Path | None, judged: Judged | None) -> None:
        short = [f"not proved, as asked: {goal}" for goal in goals if not goal.met(run.certificate)]
        for line in (*text.verdict(run.certificate, run.history[-1], weighted=run.weighted), *short, *self._odd(run)):
            typer.echo(line)
        for line in text.failures(run.failures):
            typer.echo(line)
        for part in () if judged is None else judged.tell():
            typer.echo(part) if isinstance(part, str) else Patient(highlight=False).print(part)
        typer.echo(f"written to {place}" if place else "nothing written; add --out RUN to keep the model")
        if place is not None and run.unfinished:
            more = ["--n-rounds", 2 * max(1, run.n_rounds)] if run.n_rounds >= self.flags.n_rounds else []
            further = text.command("resume", place, *more)
            typer.echo(f"it can go on: {further}")


def _introduction(federation: Engine, recipe: Recipe, method: str) -> str:
    nodes = text.counted(len(federation.node_ids), "node")
    sizes = from_all(federation, Sizes(), Message())
    rows = text.counted(sizes.n_rows, "row") + (" with weights" if "total" in sizes.sums else "")
    columns = text.counted(len(recipe.feature_names) - recipe.intercept, "column")
    bias = " and a bias" if recipe.intercept else ""
    more = f" / … ({len(recipe.classes)} in all)" if len(recipe.classes) > 10 else ""
    classes = f"classes {' / '.join(plain(str(value)) for value in recipe.classes[:10])}{more}"
    what = classes if recipe.classes else "numbers to fit"
    return f"{nodes}, {rows}, {columns}{bias} (from {recipe.columns_said}); {what}; method {method}"


def _comes_again(error: BaseException) -> bool:
    """Return whether a run that goes on would end so, too: what was given is wrong, here or at a node."""
    cause = error.__cause__ if isinstance(error, NodeError) else None
    return isinstance(error, ValueError) or (cause is not None and said(cause).startswith("ValueError: "))


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _met(run: Run, goals: Sequence[Goal]) -> bool:
    return all(goal.met(run.certificate) for goal in goals)


def _exit_code(run: Run, goals: Sequence[Goal], interrupted: int | None) -> int:
    if interrupted is not None:
        return SIGNALLED + interrupted
    if run.certificate.verdict is Status.DIVERGED or (run.method.problem.by_margins and not run.w.any()):
        return FAILED
    return 0 if _met(run, goals) else SHORT
