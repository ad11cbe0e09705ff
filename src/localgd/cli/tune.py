"""``localgd tune``: C by cross-validation over rows that stay where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localgd.cli import flags
from localgd.cli.options import with_source
from localgd.cli.processes import ProcessGroup, process_group
from localgd.evaluation.names import Scoring

if TYPE_CHECKING:
    import click

    from localgd.data.model import Model
    from localgd.rounding import FloatArray
    from localgd.run.tune import Tuned


@with_source
def tune_command(
    context: typer.Context,
    source: flags.Source,
    class_weight: flags.ClassWeight = None,
    min_group: flags.MinGroup = 1,
    fit_intercept: Annotated[bool, typer.Option(help="Fit a bias.")] = True,
    Cs: Annotated[
        str,
        typer.Option("--Cs", help="Values of C with commas between (one as 1.0), or how many from 1e-4 to 1e4."),
    ] = "10",
    cv: Annotated[str, typer.Option(help="A number of folds, or leave-one-node-out: each node is a fold.")] = "5",
    scoring: Annotated[Scoring, typer.Option(help="What a model is judged by, named as in scikit-learn.")] = "accuracy",
    method: Annotated[str, typer.Option(help="One that ends at the minimiser: auto, newton, newton-cg.")] = "auto",
    holdout: Annotated[
        float | None,
        typer.Option(
            help=f"{flags.HOLDOUT}; they take no part in the choice. `train --holdout` judges a model by just these "
            "rows where the share, --seed, --min-group and the flags on how rows are read are the same."
        ),
    ] = None,
    seed: flags.Seed = 0,
    n_jobs: Annotated[int, typer.Option(help="Threads that share the nodes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    force: Annotated[bool, typer.Option(help="With --out: replace the run folder if it is there.")] = False,
    plot: flags.Plot = False,
    as_json: flags.Json = False,
) -> None:
    """Choose the penalty C by how well models do on rows that they were not trained on, and train with it on all rows.

    Rows that --holdout sets aside take no part in any of it; the `localgd train` that judges by them is printed.

    For each fold and each C a model of the other folds is trained and scored; all trainings share their rounds. Columns
    are prepared by the rows of each training alone. The scores are those of scikit-learn's LogisticRegressionCV on the
    pooled rows with these folds.
    """
    from localgd.run import folder as record

    for name in ("force", "plot"):
        if out is None and context.params[name]:
            raise ValueError(f"--{name} is about the run folder; name one with --out, or leave it out")
    values, given = _values(Cs), dict(context.params)
    with process_group(None, None) as here:
        if out is not None:
            here.first(lambda: record.check_free(out, force=force))
        found, notes = _tuned(SimpleNamespace(**given), source, values, here)
        if not here.leads:
            return
    chosen = float(values[found.best])
    if out is not None and found.recipe is not None:
        model = found.runs[found.best].model(found.recipe)
        _leave(out, found, model, {**given, "C": chosen, "task": "classification"}, force=force)
    judging = () if holdout is None else _judging(context.command.params, {**given, "C": chosen})
    if as_json:
        typer.echo(json.dumps(_entries(found, scoring, out, judging, notes), indent=1, allow_nan=False))
    else:
        _tell(found, scoring, out, judging)


def _tuned(
    given: SimpleNamespace, source: flags.Source, values: FloatArray, here: ProcessGroup
) -> tuple[Tuned, list[str]]:
    """Return what cross-validation over this process's rows, and those of the others, found, and notes."""
    from localgd.cli.data import federation_of, prepared, tables_of
    from localgd.cli.judging import Judge
    from localgd.data.load import check_flat
    from localgd.methods.table import asked
    from localgd.report import text
    from localgd.report.progress import Progress
    from localgd.run.tune import LEAVE_ONE_OUT, tune

    check_flat(source.data)
    method = asked(given.method, C=1.0, intercept=given.fit_intercept)[0]
    with Progress(quiet=given.as_json or not here.leads) as progress:
        progress.say(f"reading {source.data}")
        tables = tables_of(source, given.seed, (here.rank, here.world))
        apart = Judge.apart(given, federation_of(tables, here, n_jobs=given.n_jobs))
        engine, nodes = apart.training, apart.engine.node_ids
        for line in apart.counted():
            progress.note(line)
        folds = len(engine.node_ids) if given.cv == LEAVE_ONE_OUT else given.cv
        said = f"{text.counted(len(engine.node_ids), 'node')}, {folds} folds, {text.counted(len(values), 'value')} of C"
        progress.say(f"{said}; method {given.method}")
        how = {"intercept": given.fit_intercept, "min_group": given.min_group}
        found = tune(
            engine,
            lambda part: prepared(
                part, tables, source, nodes, class_weight=given.class_weight, empty="leave-out", **how
            ),
            Cs=values,
            cv=int(given.cv) if given.cv.isdecimal() else given.cv,
            scoring=given.scoring,
            method=method,
            seed=given.seed,
            **how,
        )
        for note in () if found.recipe is None else found.recipe.notes:
            progress.note(note)
    return found, progress.notes


def _values(given: str) -> FloatArray:
    """Return the values of C, ascending: a whole number says how many."""
    from localgd.run.tune import ascending

    try:
        return ascending(int(given) if given.strip().isdecimal() else [float(C) for C in given.split(",")])
    except ValueError as error:
        wanted = "a number of values, at least 2, or values above 0 with commas, one of them with its point: 1.0"
        raise ValueError(f"--Cs must be {wanted}, got {given!r}") from error


def _judging(parameters: Sequence[click.Parameter], given: Mapping[str, Any]) -> list[str]:
    """Return the words of the training that is judged by the rows set aside: all that was said of the rows again."""
    words, unlike = ["train", given["data"]], {"data", "Cs", "cv", "scoring", "out", "force", "plot", "as_json"}
    for one in parameters:
        value = given[one.name or ""]
        if one.name in unlike or value in (None, (), []) or (value == one.default and one.name != "seed"):
            continue
        for said in value if isinstance(value, list | tuple) else [value]:
            flag = one.secondary_opts[0] if said is False else one.opts[0]
            words += [flag] if isinstance(said, bool) else [flag, f"{said}"]
    return [*words, "--C", f"{given['C']!r}"]


def _leave(out: Path, found: Tuned, model: Model, given: dict[str, Any], *, force: bool) -> None:
    """Write the run folder: what a training leaves, and the scores."""
    import polars as pl

    from localgd.cli.trained_on import config_of
    from localgd.report import tuned
    from localgd.report.figure import figure_of
    from localgd.report.plots import convergence
    from localgd.run import folder as record

    run, place = found.runs[found.best], record.partial(out)
    place.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(tuned.columns(found)).write_csv(place / record.SCORES)
    figure_of(tuned.panels(found, given["scoring"])).savefig(place / record.SCORES_FIGURE, dpi=130)
    record.write(out, run, model, config_of(given), draw=convergence if given["plot"] else None, force=force)


def _entries(
    found: Tuned, scoring: str, out: Path | None, judging: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """Return all that is told, as plain values."""
    from localgd.report import text, tuned

    return {
        "C": float(found.Cs[found.best]),
        "scoring": scoring,
        "n_rounds": found.n_rounds,
        "doubt": found.doubt,
        "scores": tuned.columns(found),
        "unmet": {node: dict(columns) for node, columns in found.unmet.items()},
        "notes": [*notes, *tuned.in_short(found, scoring)],
        "judge": text.command(*judging) if judging else None,
        "out": None if out is None else f"{out}",
        "certificate": found.runs[found.best].certificate.to_dict(),
    }


def _tell(found: Tuned, scoring: str, out: Path | None, judging: Sequence[str]) -> None:
    from localgd.report import text, tuned
    from localgd.report.progress import Patient

    Patient(highlight=False).print(tuned.table(found, scoring))
    rows, run = "all other rows" if judging else "all rows", found.runs[found.best]
    for line in (*tuned.in_short(found, scoring), f"on {rows}: {run.certificate.status}"):
        typer.echo(line)
    if judging:
        typer.echo(f"to judge by the rows set aside: {text.command(*judging)}")
    typer.echo(f"written to {out}" if out else "nothing written; add --out RUN to keep the model")
