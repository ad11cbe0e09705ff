"""``localgd evaluate`` and ``localgd calibrate``: how well a model decides, and how likely what it says is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localgd.cli import flags
from localgd.cli.notes import Notes
from localgd.cli.options import with_source

if TYPE_CHECKING:
    from localgd.cli.trained_on import Use
    from localgd.data.encodings import Unseen
    from localgd.data.model import Model
    from localgd.engine.inprocess import InProcess


@with_source
def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Run folder, model.json, or JSON/NPZ with coef and intercept.")],
    source: flags.Source,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="Two classes: probability above which a row is of the second one; may be repeated.",
            show_default="0.5; of a model without probabilities the score 0",
        ),
    ] = None,
    min_group: Annotated[
        int, typer.Option(help="A node tells a cell of a table only if so many of its rows are in it; else bounds.")
    ] = 1,
    unseen: flags.OfUnseen = None,
    n_rounds: Annotated[int, typer.Option(help="Most rounds to bound the area under the ROC curve.")] = 3,
    by_node: Annotated[bool, typer.Option(help="Also ask every node for its own numbers.")] = True,
    seed: Annotated[int | None, typer.Option(help="Seed of the partition.", show_default="0")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write, such as evaluated.json.")] = None,
    force: flags.Force = False,
    as_json: flags.Json = False,
) -> None:
    """Tell how well a model decides on rows that stay where they are: accuracy, AUC, calibration, by node and overall.

    Nodes tell counts and sums; what comes out is what the pooled rows would give. The area under the ROC curve (AUC)
    lies between two bounds. Of a run folder, rows are read as for the run, unless flags say otherwise; --label-map and
    --category-map say what other places call its classes and categories.
    """
    from localgd.cli.places import check_free
    from localgd.evaluation.evaluate import evaluate
    from localgd.report import evaluation
    from localgd.report.progress import Patient
    from localgd.run.whole import whole

    check_free(out, force=force, model=model, data=source.data)
    notes = Notes()
    held, engine = _held(model, source, (seed, unseen, min_group), "evaluate", notes)
    cuts = tuple(threshold or ())
    found = evaluate(held, engine, thresholds=cuts, min_group=min_group, n_rounds=n_rounds, by_node=by_node)
    entries = json.dumps({**found.to_dict(), "notes": notes}, indent=1, allow_nan=False)
    if out is not None:
        with whole(out) as fresh:
            fresh.write_text(entries + "\n", encoding="utf-8")
    if as_json:
        typer.echo(entries)
        return
    console = Patient(highlight=False)
    for part in evaluation.parts(found):
        typer.echo(part) if isinstance(part, str) else console.print(part)
    typer.echo(f"written to {out}" if out else "nothing written; add --out evaluated.json to keep it, curves and all")


@with_source
def calibrate_command(
    model: Annotated[Path, typer.Argument(help="Run folder, model.json, or JSON/NPZ with coef and intercept.")],
    source: flags.Source,
    out: Annotated[Path, typer.Option(help="Model file to write, such as calibrated.json.")],
    force: flags.Force = False,
    min_group: Annotated[int, typer.Option(help="A node refuses to tell sums over fewer rows of a class.")] = 1,
    unseen: flags.OfUnseen = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the partition.", show_default="0")] = None,
) -> None:
    """Give a model probabilities, by a sigmoid of its scores, from rows that it was not trained on.

    What is written is a model like any other: predict with it, evaluate it.
    """
    from localgd.cli.places import check_free
    from localgd.evaluation.calibrate import calibrate
    from localgd.report import text
    from localgd.run.whole import whole

    check_free(out, force=force, model=model, data=source.data)
    held, engine = _held(model, source, (seed, unseen, min_group), "calibrate", Notes())
    found = calibrate(held, engine, min_group=min_group)
    with whole(out) as fresh:
        fresh.write_text(json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}; predict with it: {text.command('predict', out, 'FILE', '--proba')}")


def _held(
    model: Path, source: flags.Source, said: tuple[int | None, Unseen | None, int], use: Use, notes: Notes
) -> tuple[Model, InProcess]:
    """Return a model, with a recipe, and the tables that it is for; what was said is seed, unseen and min_group."""
    from localgd.cli.data import doubts, prepared, taking
    from localgd.cli.remembered import check_brought, recalled
    from localgd.data.load import unread
    from localgd.data.model import Model
    from localgd.engine.inprocess import InProcess

    held, (seed, unseen, min_group) = Model.load(model), said
    check_brought(model, held.recipe, source)
    how = recalled(model, source, seed, use, notes)
    tables = how.tables(held.recipe)
    engine = InProcess(tables)
    if held.recipe is None:
        as_it_is = replace(how.source, scale=source.scale or "none")
        _, recipe = prepared(engine, tables, as_it_is, classes=held.classes != (), min_group=min_group)
        held = replace(held, recipe=recipe)
    held = taking(held, unseen)
    notes.say([*unread(source.data), *doubts(tables, held.recipe, min_group)])
    return held, engine
