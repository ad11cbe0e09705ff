"""``localgd certify`` and ``localgd predict``: what can be done with a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localgd.cli import flags
from localgd.cli.options import with_source

if TYPE_CHECKING:
    from localgd.problems.hard_margin import HardMargin
    from localgd.problems.regularised import Regularised


@with_source
def certify_command(
    model: Annotated[Path, typer.Argument(help="Run folder, model.json, or JSON/NPZ with coef and intercept.")],
    source: flags.Source,
    class_weight: flags.ClassWeight = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the partition.", show_default="0")] = None,
    angle_tol_deg: flags.AngleTol = None,
    C: Annotated[
        float | None,
        typer.Option(
            "--C",
            help="Compare with the minimiser of the penalised logistic loss instead.",
            show_default="the run's, unless an angle is asked for",
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
    """
    from localgd.cli.data import prepared, tables_of
    from localgd.core import Message
    from localgd.data.model import read_model
    from localgd.engine.inprocess import InProcess
    from localgd.problems.hard_margin import HardMargin
    from localgd.problems.least_squares import LeastSquares
    from localgd.problems.metrics import Evaluate, total
    from localgd.report import text
    from localgd.run.certify import certify
    from localgd.run.goals import Angle

    held = read_model(model)
    begun = json.loads((model / "config.json").read_text()) if (model / "config.json").is_file() else {}
    own = begun.get("flags") or begun.get("flower") or {}
    numbers = held.classes == () or (held.classes is None and alpha is not None)
    if numbers and not (C is None and loss is None and angle_tol_deg is None):
        raise ValueError(f"{model} predicts numbers: --C, --loss and --angle-tol-deg are for classes; there is --alpha")
    if alpha is not None and not numbers:
        raise ValueError(f"{model} predicts classes: --alpha is for numbers; the penalty for classes is --C")
    if held.recipe is not None:
        _check_brought(model, source, class_weight)
    if seed is not None and source.partition is None:
        raise ValueError("--seed is for --partition, and nothing else is drawn here; leave it out")
    tables, as_it_is = tables_of(source, seed or 0), replace(source, scale=source.scale or "none")
    if held.recipe is not None:
        federation, recipe = InProcess(tables).map(held.recipe), held.recipe
    else:
        federation, recipe = prepared(
            InProcess(tables), tables, as_it_is, classes=not numbers, class_weight=class_weight
        )
    typer.echo(recipe.summary, err=True)
    w = held.aligned(recipe, f"{model}")
    if numbers:
        alpha = own.get("alpha") if alpha is None else alpha
        proved = certify(w, federation, problem=LeastSquares(1.0 if alpha is None else alpha, recipe.intercept))
        typer.echo(json.dumps(proved.to_dict(), indent=1) if as_json else proved.status)
        return
    problem = _looked_for(own, C, loss, to_angle=angle_tol_deg is not None, intercept=recipe.intercept)
    goal = None if angle_tol_deg is None else Angle(angle_tol_deg)
    found = certify(w, federation, problem=problem, goal=goal if isinstance(problem, HardMargin) else None)
    look = federation.round(Evaluate(), Message(0, w))
    accuracy = float(look.sums["correct"]) / total(look)
    if as_json:
        typer.echo(json.dumps(found.to_dict() | {"accuracy": accuracy}, indent=1))
    else:
        typer.echo(found.status + "\n" + text.accuracy(accuracy, look.n_rows, weighted="total" in look.sums))
        if goal is not None and not goal.met(found):
            typer.echo(f"not proved, as asked: {goal}")
        if (
            found.separable
            and goal is None
            and found.kind == "max-margin"
            and not found.angle_deg_max <= text.LOOSE_DEG
        ):
            typer.echo("a loose bound: it is made from the model alone; --angle-tol-deg 1 proves more, in more rounds")
    raise typer.Exit(0 if goal is None or goal.met(found) else flags.SHORT)


def _looked_for(
    own: Mapping[str, Any], C: float | None, loss: str | None, *, to_angle: bool, intercept: bool
) -> HardMargin | Regularised:
    """Return what a model of classes is compared with: what its run looked for, as far as nothing else is asked for."""
    from localgd.losses import loss_named
    from localgd.methods.options import meant
    from localgd.problems.hard_margin import HardMargin
    from localgd.problems.regularised import Regularised

    begun = meant(own.get("problem"), C=own.get("C") or None, loss=own.get("loss") or None)
    if C is None and not to_angle:
        C = begun["C"]
    if loss is not None and C is None:
        raise ValueError(f"--loss {loss} is about a penalised loss; give --C, too, or leave it out")
    if C is None:
        return HardMargin()
    loss = begun["loss"] if loss is None and begun["C"] is not None else loss
    return Regularised(loss_named(loss or "logistic"), C, intercept)


def _check_brought(model: Path, source: flags.Source, class_weight: str | None) -> None:
    """Refuse flags on how rows are prepared where the model says it."""
    names = {"scale": "scale", "text_column": "text", "label_map": "label-map", "category_map": "category-map"}
    given = [flag for name, flag in (names | {"n_classes": "n-classes"}).items() if getattr(source, name)]
    given += ["class-weight"] if class_weight is not None else []
    if given:
        raise ValueError(f"{model} brings its own preparation; leave --{given[0]} out")


def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or its model.json.")],
    file: Annotated[Path, typer.Argument(help="Rows to label: CSV, Parquet, NPZ or svmlight.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, .parquet or else CSV.", show_default="standard output")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace the file if it is there.")] = False,
    unseen: flags.OfUnseen = None,
    proba: Annotated[bool, typer.Option("--proba", help="Also the probability of each class, and the score.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Two classes: probability above which a row is of the second one.", show_default="0.5"),
    ] = None,
    row_id: Annotated[str | None, typer.Option("--id", help="Column of FILE to write beside the labels.")] = None,
    decimal: flags.Decimal = ".",
    encoding: flags.Encoding = "utf-8",
    as_json: Annotated[bool, typer.Option("--json", help="Print the labels as one JSON list.")] = False,
) -> None:
    """Label the rows of a file with a trained model; with numbers, if it is one of a regression.

    Columns that the model does not know are ignored, and every row of the file gets a line, in its order.
    """
    from localgd.cli.data import predicted
    from localgd.data.load import load_unlabelled
    from localgd.data.model import read_model
    from localgd.report import text

    if force and out is None:
        raise ValueError("--force replaces the file of --out; give that, or leave it out")
    if out is not None and out.exists() and not force:
        raise FileExistsError(f"--out {out} exists already; choose another name, or replace it with --force")
    table, held = load_unlabelled(file, decimal=decimal, encoding=encoding), read_model(model)
    frame = predicted(held, table, unseen=unseen, proba=proba, threshold=threshold, row_id=row_id)
    if out is not None:
        frame.write_parquet(out) if out.suffix.lower() == ".parquet" else frame.write_csv(out)
        typer.echo(f"{text.counted(len(frame), 'row')} labelled in {out}", err=as_json)
    if as_json:
        typer.echo(json.dumps(frame["prediction"].to_list() if frame.columns == ["prediction"] else frame.to_dicts()))
    elif out is None:
        typer.echo(frame.write_csv(), nl=False)
