"""The commands: ``localgd train | resume | tune | compare | certify | predict | export | evaluate | datasets | …``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from localgd.cli.compare import compare_command
from localgd.cli.evaluate import calibrate_command, evaluate_command
from localgd.cli.flags import Force, Json
from localgd.cli.models import certify_command, export_command, predict_command
from localgd.cli.panels import LEARN, TRAIN, USE, Command, Group
from localgd.cli.reproduce import EPILOG, reproduce_command
from localgd.cli.train import resume_command, train_command
from localgd.cli.tune import tune_command

app = typer.Typer(
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a linear classifier where the data lives, and prove which model came out.",
    epilog="Exit codes: 0 done; 1 no usable model, or not written; 2 bad input; 3 the certificate asked for was not "
    "reached; 130 interrupted (a run that had begun its rounds is written).",
)

app.command("train", cls=Command, rich_help_panel=TRAIN)(train_command)
app.command("resume", cls=Command, rich_help_panel=TRAIN)(resume_command)
app.command("tune", cls=Command, rich_help_panel=TRAIN)(tune_command)
app.command("compare", cls=Command, rich_help_panel=TRAIN)(compare_command)
app.command("predict", cls=Command, rich_help_panel=USE)(predict_command)
app.command("export", cls=Command, rich_help_panel=USE)(export_command)
app.command("evaluate", cls=Command, rich_help_panel=USE)(evaluate_command)
app.command("certify", cls=Command, rich_help_panel=USE)(certify_command)
app.command("calibrate", cls=Command, rich_help_panel=USE)(calibrate_command)


@app.command("datasets", cls=Command, rich_help_panel=LEARN)
def datasets_command(as_json: Json = False) -> None:
    """List the bundled real data sets."""
    from localgd.data.datasets import DATASETS

    if as_json:
        names = ("name", "title", "rows", "columns", "nodes", "separable", "licence", "source")
        typer.echo(
            json.dumps([{name: getattr(entry, name) for name in names} for entry in DATASETS.values()], indent=1)
        )
        return
    for entry in DATASETS.values():
        nodes = f"{len(entry.nodes)} nodes" if entry.nodes else "one node: add --partition by_label --n-nodes 5"
        kind = "separable" if entry.separable else "not separable"
        size = f"{entry.rows} rows of {entry.columns} columns"
        for head, line in ((entry.name, entry.title), ("", f"{size}, {nodes}, {kind}"), ("", entry.source)):
            typer.echo(f"{head:10s} {line}")
        typer.echo(f"{'':10s} {entry.licence}\n")


@app.command("demo", cls=Command, rich_help_panel=LEARN)
def demo_command(
    n_rounds: Annotated[int, typer.Option(help="Rounds of each method.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Also draw each run into this folder.")] = None,
    force: Force = False,
) -> None:
    """Mushrooms from 7 habitats: alone, together, and the proof of which model came out."""
    from localgd.cli.demo import METHODS, demo
    from localgd.cli.places import check_free_in
    from localgd.report.plots import convergence

    check_free_in(out, *(f"{method}.png" for method in METHODS), force=force)
    for method, run in demo(n_rounds=n_rounds).items():
        if out is not None:
            convergence(run.columns(), out / f"{method}.png")
            typer.echo(f"drawn: {out / f'{method}.png'}")


app.command("reproduce", cls=Command, rich_help_panel=LEARN, epilog=EPILOG)(reproduce_command)


@app.callback(invoke_without_command=True)
def about(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Train a linear classifier where the data lives, and prove which model came out."""
    if show:
        from localgd import __version__

        typer.echo(f"localgd {__version__}")
