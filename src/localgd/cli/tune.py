"""``localgd tune``: C by cross-validation over rows that stay where they are."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localgd.cli import flags
from localgd.cli.options import with_source
from localgd.cli.processes import ProcessGroup, process_group
from localgd.evaluation.names import Scoring

if TYPE_CHECKING:
    from localgd.data.model import Model
    from localgd.run.tune import Tuned

LEAVE_ONE_OUT = "leave-one-node-out"


@with_source
def tune_command(
    context: typer.Context,
    source: flags.Source,
    min_group: flags.MinGroup = 1,
    fit_intercept: Annotated[bool, typer.Option(help="Fit a bias.")] = True,
    Cs: Annotated[
        str,
        typer.Option("--Cs", help="Values of C with commas between, or how many from 1e-4 to 1e4."),
    ] = "10",
    cv: Annotated[str, typer.Option(help=f"A number of folds, or {LEAVE_ONE_OUT}: each node is a fold.")] = "5",
    scoring: Annotated[Scoring, typer.Option(help="What a model is judged by, named as in scikit-learn.")] = "accuracy",
    method: Annotated[str, typer.Option(help="One that ends at the minimiser: auto, newton, lbfgs.")] = "auto",
    seed: flags.Seed = 0,
    n_jobs: Annotated[int, typer.Option(help="Threads that share the nodes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    force: Annotated[bool, typer.Option(help="With --out: replace the run folder if it is there.")] = False,
    as_json: flags.Json = False,
) -> None:
    """Choose the penalty C by how well models do on rows that they were not trained on, and train with it on all rows.

    For each fold and each C a model of the other folds is trained and scored; all trainings share their rounds. Columns
    are prepared by the rows of each training alone. The scores are those of scikit-learn's LogisticRegressionCV on the
    pooled rows with these folds.
    """
    from localgd.run import folder as record

    if force and out is None:
        raise ValueError("--force is about the run folder; name one with --out, or leave it out")
    values, given = _values(Cs), dict(context.params)
    with process_group(None, None) as here:
        if out is not None:
            here.first(lambda: record.check_free(out, force=force))
        found, names = _tuned(SimpleNamespace(**given), source, values, here)
        if not here.leads:
            return
    chosen = float(values[found.best])
    if out is not None and found.recipe is not None:
        model = found.runs[found.best].model(found.recipe)
        _leave(out, found, model, names, {**given, "C": chosen, "task": "classification"}, force=force)
    _tell(found, names, scoring, out, as_json=as_json)


def _tuned(given: SimpleNamespace, source: flags.Source, values: Any, here: ProcessGroup) -> tuple[Tuned, list[str]]:
    """Return what cross-validation over this process's rows, and those of the others, has found, and what folds are."""
    from localgd.cli.data import federation_of, prepared, tables_of
    from localgd.methods.table import asked
    from localgd.report import text
    from localgd.report.progress import Progress
    from localgd.run.tune import tune

    method = asked(given.method, C=1.0, intercept=given.fit_intercept)[0]
    with Progress(quiet=given.as_json or not here.leads) as progress:
        progress.say(f"reading {source.data}")
        tables = tables_of(source, given.seed, (here.rank, here.world))
        engine = federation_of(tables, here, n_jobs=given.n_jobs)
        split, names = _folds(given.cv, engine.node_ids, given.seed, given.min_group)
        said = [text.counted(len(engine.node_ids), "node"), text.counted(len(names), "fold")]
        progress.say(f"{', '.join(said)}, {text.counted(len(values), 'value')} of C; method {given.method}")
        how = {"intercept": given.fit_intercept, "min_group": given.min_group}
        found = tune(
            engine,
            split,
            len(names),
            Cs=values,
            intercept=given.fit_intercept,
            method=method,
            scoring=given.scoring,
            preparing=lambda part: prepared(part, tables, source, **how),
            on_round=None if here.world > 1 else lambda _: progress.interrupted is not None,
        )
        if progress.interrupted is not None:
            typer.echo("interrupted: no C is chosen, and nothing is written", err=True)
            raise typer.Exit(flags.SIGNALLED + progress.interrupted)
        for note in () if found.recipe is None else found.recipe.notes:
            progress.say(note)
    return found, names


def _values(given: str) -> Any:
    """Return the values of C, ascending."""
    import numpy as np

    from localgd.rounding import is_number
    from localgd.run.tune import path

    try:
        if "," not in given and "." not in given and "e" not in given.lower():
            if int(given) >= 1:
                return path(int(given))
            values = []
        else:
            values = sorted({float(part) for part in given.split(",") if part.strip()})
    except ValueError:
        values = []
    if not values or not all(is_number(C) and 0 < C < float("inf") for C in values):
        raise ValueError(f"--Cs must be a number of values, at least 1, or values above 0 with commas, got {given!r}")
    return np.array(values)


def _folds(cv: str, nodes: tuple[str, ...], seed: int, min_group: int) -> tuple[Any, list[str]]:
    """Return how a node splits its table, and the names of the folds."""
    from localgd.data.holdout import folds, left_out

    if cv == LEAVE_ONE_OUT:
        if len(nodes) < 2:
            raise ValueError(f"--cv {cv}: one node leaves no row to train on; give more nodes, or a number of folds")
        return partial(left_out, nodes=nodes), list(nodes)
    if not cv.isdecimal() or int(cv) < 2:
        raise ValueError(f"--cv must be a number of folds, at least 2, or {LEAVE_ONE_OUT}, got {cv!r}")
    return partial(folds, n_folds=int(cv), seed=seed, min_group=min_group), [f"{k + 1}" for k in range(int(cv))]


def _leave(out: Path, found: Tuned, model: Model, names: list[str], given: dict[str, Any], *, force: bool) -> None:
    """Write the run folder: what a training leaves, and the scores."""
    import polars as pl

    from localgd.report import tuned
    from localgd.report.figure import figure_of
    from localgd.report.plots import convergence
    from localgd.run import folder as record

    run, place = found.runs[found.best], record.partial(out)
    place.mkdir(exist_ok=True)
    pl.DataFrame(tuned.columns(found, names)).write_csv(place / record.SCORES)
    figure_of(tuned.panels(found, given["scoring"])).savefig(place / record.SCORES_FIGURE, dpi=130)
    data = str(Path(given["data"]).resolve()) if Path(given["data"]).exists() else given["data"]
    chosen = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    config = {"flags": {**chosen, "data": data}, "versions": record.versions("localgd", "numpy")}
    record.write(out, run, model, config, draw=convergence, force=force)


def _tell(found: Tuned, names: list[str], scoring: str, out: Path | None, *, as_json: bool) -> None:
    from localgd.report import tuned
    from localgd.report.progress import Patient

    run = found.runs[found.best]
    if as_json:
        entries = {"C": float(found.Cs[found.best]), "scoring": scoring, "n_rounds": found.n_rounds}
        entries |= {
            "doubt": found.doubt,
            "scores": tuned.columns(found, names),
            "out": None if out is None else f"{out}",
        }
        typer.echo(json.dumps(entries | {"certificate": run.certificate.to_dict()}, indent=1, allow_nan=False))
        return
    Patient(highlight=False).print(tuned.table(found, scoring))
    for line in (*tuned.in_short(found, names, scoring), f"on all rows: {run.certificate.status}"):
        typer.echo(line)
    typer.echo(f"written to {out}" if out else "nothing written; add --out RUN to keep the model")
