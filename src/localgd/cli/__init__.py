"""The command line: ``localgd demo | train | resume | compare | certify | predict | export | evaluate | …``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from localgd.cli.compare import compare_command
from localgd.cli.evaluate import calibrate_command, evaluate_command
from localgd.cli.flags import BAD_INPUT, FAILED, Json
from localgd.cli.models import certify_command, export_command, predict_command
from localgd.cli.reproduce import EPILOG, reproduce_command
from localgd.cli.train import resume_command, train_command
from localgd.cli.tune import tune_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a linear classifier where the data lives, and prove which model came out.",
    epilog="Exit codes: 0 done; 1 no usable model, or not written; 2 bad input; 3 the certificate asked for was not "
    "reached; 130 interrupted (the run is written).",
)

app.command("train")(train_command)
app.command("resume")(resume_command)
app.command("tune")(tune_command)
app.command("compare")(compare_command)
app.command("certify")(certify_command)
app.command("predict")(predict_command)
app.command("export")(export_command)
app.command("evaluate")(evaluate_command)
app.command("calibrate")(calibrate_command)


@app.command("datasets")
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


@app.command("demo")
def demo_command(
    n_rounds: Annotated[int, typer.Option(help="Rounds of each method.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Also draw each run into this folder.")] = None,
) -> None:
    """Mushrooms from 7 habitats: alone, together, and the proof of which model came out."""
    from localgd.cli.demo import demo
    from localgd.report.plots import convergence

    if out is not None:
        out.mkdir(exist_ok=True)
    for method, run in demo(n_rounds=n_rounds).items():
        if out is not None:
            convergence(run.columns(), out / f"{method}.png")
            typer.echo(f"drawn: {out / f'{method}.png'}")


app.command("reproduce", epilog=EPILOG)(reproduce_command)


@app.callback(invoke_without_command=True)
def about(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Train a linear classifier where the data lives, and prove which model came out."""
    if show:
        from localgd import __version__

        typer.echo(f"localgd {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, as `argv` or as the process was given it, and return the exit code.

    Expected errors become one clear line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ° or ≤ shows a question mark, not a traceback
    try:
        app(argv, prog_name="localgd")
    except SystemExit as end:  # how typer always ends
        return int(end.code or 0)
    except Exception as error:
        message, code = _expected(error)
        if code is None:
            raise
        from localgd.errors import plain

        for line in f"error: {message}".split("\n"):
            typer.echo(plain(line), err=True)  # a name in a file may hold what a terminal obeys
        return code
    return 0


def _expected(error: Exception) -> tuple[str, int | None]:
    """Return what an error says to users, and its exit code: None if it is a fault of the program."""
    from localgd.errors import EngineError, MissingExtraError, NodeError

    match error:
        case NodeError(__cause__=ValueError()):
            return f"node {error.node_id!r}: {error.__cause__}", BAD_INPUT
        case ValueError() | FileExistsError() | FileNotFoundError() | MissingExtraError():
            return str(error), BAD_INPUT
        case NodeError() | OSError() | EngineError():
            return str(error), FAILED
        case _:
            return str(error), None
