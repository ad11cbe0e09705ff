"""``localgd certify``, ``predict`` and ``export``: what can be done with a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from localgd.cli import flags
from localgd.cli.notes import Notes
from localgd.cli.options import with_source

if TYPE_CHECKING:
    from localgd.core import Problem
    from localgd.run.goals import Goal


@with_source
def certify_command(
    model: Annotated[Path, typer.Argument(help="Run folder, model.json, or JSON/NPZ with coef and intercept.")],
    source: flags.Source,
    class_weight: flags.ClassWeight = None,
    unseen: flags.OfUnseen = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the partition.", show_default="0")] = None,
    angle_tol_deg: flags.AngleTol = None,
    C: Annotated[
        float | None,
        typer.Option(
            "--C",
            help="Compare with the minimiser of the penalised logistic loss.",
            show_default="what the run was certified against, unless it has no C and an angle is asked for",
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="With C: logistic, or squared_hinge.", show_default="the run's, or logistic")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Numbers: α as in scikit-learn's Ridge; 0 for least squares.", show_default="the run's, or 1"
        ),
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Bound the angle between any linear model and the pooled one, or for numbers the distance; no row leaves its node.

    A model of localgd brings its own preparation. One trained elsewhere is taken as it is: coefficients of the
    prepared columns (in their order, unless it says feature_names), positive for the class that sorts last, or one row
    for each of three or more classes in sorted order (unless it says classes). Either way the proof is made from the
    model alone, so it is looser than a run's own, unless an angle is asked for: then the pooled model is looked for
    until that angle is proved, or proved to be larger.

    Of a run folder, rows are read as for the run, and the model is compared with what the run was certified against,
    unless flags say otherwise; --label-map and --category-map say what other places call its classes and categories. An
    angle that is asked of a run with C is one to the minimiser of its loss, of which one
    round proves what there is to prove.
    """
    from localgd.cli.data import doubts, prepared, taking
    from localgd.cli.remembered import check_brought, recalled
    from localgd.core import Message
    from localgd.data.load import unread
    from localgd.data.model import Model
    from localgd.engine.inprocess import InProcess
    from localgd.problems.hard_margin import HardMargin
    from localgd.problems.metrics import Evaluate, total
    from localgd.report import text
    from localgd.run.certify import certify
    from localgd.run.goals import Angle

    held = taking(Model.load(model), unseen)
    numbers = held.classes == () or (held.classes is None and alpha is not None)
    if numbers and not (C is None and loss is None and angle_tol_deg is None):
        raise ValueError(f"{model} predicts numbers: --C, --loss and --angle-tol-deg are for classes; there is --alpha")
    if alpha is not None and not numbers:
        raise ValueError(f"{model} predicts classes: --alpha is for numbers; the penalty for classes is --C")
    check_brought(model, held.recipe, source, class_weight)
    notes = Notes()
    how = recalled(model, source, seed, "certify", notes)
    tables, as_it_is = how.tables(held.recipe), replace(how.source, scale=source.scale or "none")
    if held.recipe is not None:
        federation, recipe = InProcess(tables).map(held.recipe), held.recipe
        notes.say([*unread(source.data), *doubts(tables, recipe)])
    else:
        federation, recipe = prepared(
            InProcess(tables), tables, as_it_is, classes=not numbers, class_weight=class_weight
        )
    n_missing = sum(map(recipe.n_missing_in, tables))  # notes and numbers of a model are of its training
    notes.say([recipe.columns_with(n_missing), *(recipe.notes if held.recipe is None else ())])
    w = held.balanced.aligned(recipe, f"{model}")
    goal = None if angle_tol_deg is None else Angle(angle_tol_deg)
    problem, instead = _compared(how.problem, (C, loss, alpha), goal, numbers=numbers, intercept=recipe.intercept)
    notes.say(instead)
    found = certify(w, federation, problem=problem, goal=goal if isinstance(problem, HardMargin) else None)
    entries = {**found.to_dict(), "compared_with": text.pooled(problem), "notes": notes}
    if numbers:
        typer.echo(json.dumps(entries, indent=1) if as_json else found.status)
        return
    look = federation.round(Evaluate(), Message(0, w))
    accuracy = float(look.sums["correct"]) / total(look)
    if as_json:
        entries |= {"accuracy": accuracy, "n_rows": look.n_rows, "weighted": "total" in look.sums}
        typer.echo(json.dumps(entries | {"goal_met": goal and goal.met(found)}, indent=1))
    else:
        typer.echo(found.status + "\n" + text.accuracy(accuracy, look.n_rows, weighted="total" in look.sums))
        if goal is not None and not goal.met(found):
            typer.echo(f"not proved, as asked: {goal}")
        loose = isinstance(problem, HardMargin) and not found.angle_deg_max <= text.LOOSE_DEG
        if found.separable and goal is None and loose:
            typer.echo("a loose bound: it is made from the model alone; --angle-tol-deg 1 proves more, in more rounds")
    raise typer.Exit(0 if goal is None or goal.met(found) else flags.SHORT)


def _compared(
    own: Problem | None,
    said: tuple[float | None, str | None, float | None],
    goal: Goal | None,
    *,
    numbers: bool,
    intercept: bool,
) -> tuple[Problem, list[str]]:
    """Return what to certify a model against, what was said (C, loss, alpha) or its run was, and a line of a run's."""
    from localgd.losses import loss_named
    from localgd.problems.hard_margin import HardMargin
    from localgd.problems.least_squares import LeastSquares
    from localgd.problems.regularised import Regularised
    from localgd.report import text

    free = isinstance(own, Regularised | LeastSquares) and own.intercept
    if own is not None and (own.by_margins is numbers or (free and not intercept)):
        raise ValueError(f"config.json is damaged: the run was not certified against a {text.pooled(own)}")
    C, loss, alpha = said
    before = own if isinstance(own, Regularised) else None
    if C is None and before is not None and loss is not None:
        C = before.C
    if loss is not None and C is None:
        raise ValueError(f"--loss {loss} is about a penalised loss; give --C, too, or leave it out")
    wanted: Problem | None = None
    if alpha is not None:
        wanted = LeastSquares(alpha, intercept)
    elif C is not None:
        of_run = "logistic" if before is None else before.loss
        wanted = Regularised(loss_named(loss or of_run), C, intercept)
    elif goal is not None and not (before is not None and before.penalised):  # else the angle is one to its minimiser
        wanted = HardMargin()
    if own is None:
        return wanted or (LeastSquares(1.0, intercept) if numbers else HardMargin()), []
    instead = "" if wanted in (None, own) else f", in place of the run's {text.pooled(own)}"
    return wanted or own, [f"compared with the pooled {text.pooled(wanted or own)}{instead}"]


def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or its model.json.")],
    file: Annotated[Path, typer.Argument(help="Rows to label: CSV, Parquet, NPZ or svmlight.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, .parquet or else CSV.", show_default="standard output")
    ] = None,
    force: flags.Force = False,
    unseen: flags.OfUnseen = None,
    proba: Annotated[bool, typer.Option("--proba", help="Also the probability of each class, and the score.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Two classes: probability above which a row is of the second one.", show_default="0.5"),
    ] = None,
    row_id: Annotated[
        list[str] | None, typer.Option("--id", help="Column of FILE to write beside the labels; may be repeated.")
    ] = None,
    decimal: flags.Decimal = None,
    encoding: flags.Encoding = None,
    missing_values: flags.MissingValues = None,
    fill_missing_columns: Annotated[
        bool, typer.Option("--fill-missing-columns", help="Fill columns of training that FILE lacks; else an error.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the labels as one JSON list.")] = False,
) -> None:
    """Label the rows of a file with a trained model; with numbers, if it is one of a regression.

    Columns that the model does not know are ignored, and every row of the file gets a line, in its order. Blank lines
    are no rows, and if there are any between rows, that is said. Of a run folder, the file is written as that of its
    name was for the run, and columns that it lacks are filled if they were, unless flags say otherwise.
    """
    from localgd.cli.data import doubts, left_out, predicted, taking, with_blanks
    from localgd.cli.places import check_free
    from localgd.cli.remembered import writing_of
    from localgd.data.columns import alike
    from localgd.data.gaps import said_values
    from localgd.data.load import load_unlabelled
    from localgd.data.model import Model
    from localgd.report import text
    from localgd.run.folder import remembered
    from localgd.run.whole import whole

    check_free(out, force=force, model=model, data=file)
    held, given = Model.load(model), {"decimal": decimal, "encoding": encoding}
    how, filled, as_for_run = writing_of(model, file, given, fill=fill_missing_columns)
    for line in as_for_run:
        typer.echo(line, err=True)
    table = load_unlabelled(file, **how, missing_values=said_values(missing_values or ()))
    if table.numbered and (away := remembered(model).flags.get("drop")):  # column 0 may be one that training left out
        table = alike([table], drop=away, may_lack=away)[0]
    if filled and held.recipe is not None:
        table = with_blanks(table, held.recipe)
    for note in (*left_out(table), *table.notes):
        typer.echo(note, err=True)
    held = taking(held, unseen)
    frame = predicted(held, table, proba=proba, threshold=threshold, row_id=row_id or ())
    for line in doubts([table], held.recipe):
        typer.echo(line, err=True)
    if out is not None:
        with whole(out) as fresh:
            frame.write_parquet(fresh) if out.suffix.lower() == ".parquet" else frame.write_csv(fresh)
        typer.echo(f"{text.counted(len(frame), 'row')} labelled in {out}", err=as_json)
    if as_json:
        typer.echo(json.dumps(frame["prediction"].to_list() if frame.columns == ["prediction"] else frame.to_dicts()))
    elif out is None:
        typer.echo(frame.write_csv(), nl=False)


def export_command(
    model: Annotated[Path, typer.Argument(help="Run folder or its model.json; as csv any model.")],
    to: Annotated[
        Literal["csv", "sklearn", "skops", "onnx"],
        typer.Option(
            help="csv: coefficients on the scale of the rows as given; sklearn: a fitted pipeline, pickled; skops: the "
            "same in a file that runs no code; onnx: a graph from raw rows to labels."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="csv: standard output")] = None,
    force: flags.Force = False,
) -> None:
    """Write a model for other programs: they need nothing of localgd.

    onnx and skops are extras of localgd, to be installed with it.
    """
    from localgd.cli.places import check_free
    from localgd.data.encodings import Number
    from localgd.data.model import Model
    from localgd.errors import listing, shown

    held = Model.load(model)
    if out is None:
        if to != "csv" or force:
            raise ValueError(f"--out FILE is needed: where {to} goes")
        typer.echo(held.coefficients().write_csv(), nl=False)
        return
    check_free(out, force=force, model=model)
    out.parent.mkdir(parents=True, exist_ok=True)
    match to:
        case "csv":
            held.coefficients().write_csv(out)
        case "onnx":
            held.to_onnx(out)
        case "sklearn":
            import joblib

            joblib.dump(held.to_sklearn(), out)
        case "skops":
            from localgd.data.export.pipeline import write_skops

            write_skops(held, out)
    typer.echo(f"written to {out}; {READS[to]}")
    dates = [] if held.recipe is None else [c.name for c in held.recipe.columns if isinstance(c, Number) and c.dates]
    if held.recipe is not None and held.recipe.gaps:
        texts = listing(shown(text) for _, text in held.recipe.gaps)
        typer.echo(
            f"values that stand for missing ones ({texts}) are no missing ones there: blank them first", err=True
        )
    if dates:
        days = "are numbers there, days since 1970: convert them first"
        typer.echo(f"dates ({', '.join(map(shown, dates))}) {days}", err=True)


READS = {
    "csv": "one row per coefficient",
    "sklearn": "read it with joblib.load, which runs what is in it: take it from nobody you do not trust",
    "skops": "read it with skops.io.load(FILE, trusted=skops.io.get_untrusted_types(file=FILE)), after a look at those",
    "onnx": "run it with onnxruntime.InferenceSession",
}
"""How an exported model is read."""
