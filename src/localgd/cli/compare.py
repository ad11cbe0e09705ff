"""``localgd compare``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localgd.cli import flags
from localgd.cli.options import with_source
from localgd.methods.options import BY_NAME, taken

if TYPE_CHECKING:
    from rich.table import Table as Grid

    from localgd.run.history import Run

DEFAULT = ("local-gd", "modified-local-gd", "normalised-local-gd", "consensus", "auto")
PENALISED = ("local-gd", "fedprox", "scaffold", "newton-cg", "auto")
"""What is compared unless told otherwise: for the hard margin, and with C."""


@with_source
def compare_command(
    source: flags.Source,
    class_weight: flags.ClassWeight = None,
    fit_intercept: Annotated[bool, typer.Option(help="Fit a bias.")] = True,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of methods, with commas between.",
            show_default=f"{','.join(DEFAULT)}; with --C {','.join(PENALISED)}",
        ),
    ] = None,
    C: Annotated[
        float | None, typer.Option("--C", help="Compare on the penalised logistic loss, where a method knows it.")
    ] = None,
    local_steps: Annotated[str | None, typer.Option(help=BY_NAME["local_steps"].help, show_default="100")] = None,
    n_rounds: Annotated[int, typer.Option(help="Most rounds of each method.")] = 500,
    seed: flags.Seed = 0,
    n_jobs: Annotated[int, typer.Option(help="Threads that share the nodes.")] = 1,
    pooled: Annotated[bool, typer.Option("--pooled", help="Pool the rows to show true angles beside.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.csv, compare.png and compare.svg.")] = None,
    force: flags.Force = False,
    as_json: flags.Json = False,
) -> None:
    """Run methods side by side: rounds, numbers sent and seconds until 10°, 1°, 0.1° and 0.001° are proved."""
    import polars as pl

    from localgd.cli.data import prepared, tables_of
    from localgd.cli.places import check_free_in
    from localgd.engine.inprocess import InProcess
    from localgd.methods.table import method_named
    from localgd.problems.regularised import Regularised
    from localgd.reference.max_margin import pooled_direction
    from localgd.report.compare import compare, milestones, panels
    from localgd.report.figure import save
    from localgd.report.progress import Patient, Progress
    from localgd.run.whole import whole

    given = ",".join(DEFAULT if C is None else PENALISED) if methods is None else methods
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise ValueError("--methods names none; give some, with commas between")
    chosen = {name: method_named(name, **_options(name, local_steps, seed)) for name in names}
    problem = None if C is None else Regularised(C=C, intercept=fit_intercept)
    if pooled and C is not None:
        raise ValueError("--pooled shows angles to the unpenalised pooled model; leave it out, or leave --C out")
    check_free_in(out, "compare.csv", "compare.png", "compare.svg", force=force, data=source.data)
    with Progress(quiet=as_json) as progress:
        progress.say(f"reading {source.data}")
        tables = tables_of(source, seed)
        how: dict[str, Any] = {"intercept": fit_intercept, "class_weight": class_weight}
        federation, recipe = prepared(InProcess(tables, n_jobs=n_jobs), tables, source, **how)
        progress.note(recipe.summary)
        reference = pooled_direction(federation.shards.values()) if pooled else None

        def announced(name: str) -> None:
            progress.say(f"\n{name}, at most {n_rounds} rounds")
            progress.begin(n_rounds)

        runs = compare(
            federation,
            chosen,
            problem=problem,
            n_rounds=n_rounds,
            reference=reference,
            on_round=progress.on_round,
            on_method=announced,
        )
    rows = milestones(runs)
    if out is not None:
        with whole(out / "compare.csv") as fresh:
            pl.DataFrame(rows).write_csv(fresh)
        if any(row.angle_deg_max < 90 for run in runs.values() for row in run.history):
            save(panels(runs), out / "compare")
    if as_json:
        _print_rows(rows, progress.notes)
    else:
        Patient(highlight=False).print(_table(runs, rows, true=reference is not None))
        typer.echo("".join(f"{line}\n" for line in _said(runs, C)), nl=False)
        typer.echo(f"written to {out}" if out else "nothing written; add --out DIR to keep table and figure")
    if progress.interrupted is not None:
        raise typer.Exit(flags.SIGNALLED + progress.interrupted)


def _print_rows(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    """Print rows as a JSON list, and on standard error the notes, for which it has no place."""
    typer.echo("".join(f"{line}\n" for line in notes), err=True, nl=False)
    typer.echo(json.dumps([{k: None if v != v else v for k, v in row.items()} for row in rows], indent=1))  # noqa: PLR0124  NaN


def _options(name: str, local_steps: str | None, seed: int) -> dict[str, Any]:
    """Return what was asked for, as far as it has a meaning for the method."""
    given = {"local_steps": local_steps, "seed": seed}
    takes = taken(name) if name != "modified-local-gd" else {}  # a projection takes no steps
    return {option: value for option, value in given.items() if value is not None and option in takes}


def _table(runs: dict[str, Run], rows: list[dict[str, Any]], *, true: bool) -> Grid:
    from rich.table import Table as Grid

    from localgd.report import text
    from localgd.report.compare import ANGLES

    grid = Grid(title="Until an angle is proved: rounds, sent, seconds", title_justify="left", show_lines=True)
    grid.add_column("method", overflow="fold")
    for angle in ANGLES:
        grid.add_column(f"{angle:g}°", justify="right", no_wrap=True)
    grid.add_column("in the end", justify="right", no_wrap=True)
    for name, run in runs.items():
        cells = [_cell(row) for row in rows if row["method"] == name]
        last = run.history[-1]
        took = name if run.method.name == name else f"{name}: {run.method.name}"
        end = [text.bound(last.angle_deg_max), f"acc. {text.percent(last.accuracy)}"]
        end += [f"true {text.degrees(last.true_angle_deg)}"] if true else []
        grid.add_row(took, *cells, "\n".join(end))
    return grid


def _said(runs: dict[str, Run], C: float | None) -> list[str]:
    """Return what is to be said of rows with weights, and where no angle is proved."""
    if any(run.weighted for run in runs.values()):
        return ["accuracy goes by the weights of the rows", *_unproved(runs, C)]
    return _unproved(runs, C)


def _unproved(runs: dict[str, Run], C: float | None) -> list[str]:
    """Return what is to be said where no angle is proved."""
    lines = [
        f"{name}: {run.certificate.status}" for name, run in runs.items() if not run.certificate.angle_deg_max < 90
    ]
    if lines and C is None and all(run.certificate.separable is not True for run in runs.values()):
        lines.append("no figure, as no angle is proved; to compare on a penalised loss, which any rows have: --C 1")
    return lines


def _cell(row: dict[str, Any]) -> str:
    if math.isnan(row["rounds"]):
        return "–"
    from localgd.report import text

    return f"{row['rounds']}\n{text.megabytes(row['floats_sent'])}\n{row['seconds']:.2g} s"
