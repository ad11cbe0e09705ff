"""``localgd train`` and ``localgd resume``."""

from __future__ import annotations

from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import typer

from localgd.cli import flags
from localgd.cli.options import check_flags, with_method_options, with_source
from localgd.cli.processes import of_torch, process_group
from localgd.methods.options import ALIASES, NAMES, PROBLEMS, meant

ELSEWHERE = ", ".join(f"{alias} is {name}" for alias, name in ALIASES.items())
SHORT_FOR = "; ".join(f"{name}: {what}" for name, what in PROBLEMS.items())


@with_method_options
@with_source
def train_command(
    context: typer.Context,
    source: flags.Source,
    class_weight: flags.ClassWeight = None,
    min_group: flags.MinGroup = 1,
    fit_intercept: Annotated[bool, typer.Option(help="Fit a bias.")] = True,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}; {ELSEWHERE}.")] = "auto",
    problem: Annotated[Literal["svm", "logistic", "ridge"] | None, typer.Option(help=f"{SHORT_FOR}.")] = None,
    C: Annotated[
        float | None,
        typer.Option("--C", help="Penalised loss: C as in scikit-learn's LogisticRegression."),
    ] = None,
    task: Annotated[
        Literal["classification", "regression"], typer.Option(help="Whether labels are classes, or numbers to fit.")
    ] = "classification",
    alpha: Annotated[
        float | None,
        typer.Option(help="Regression: α as in scikit-learn's Ridge; 0 for least squares.", show_default="1"),
    ] = None,
    n_rounds: Annotated[int, typer.Option(help="Most rounds.")] = 500,
    angle_tol_deg: flags.AngleTol = None,
    margin_ratio: Annotated[float | None, typer.Option(help="Share of the pooled margin that must be proved.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Share of the nodes that take part in a round.")] = None,
    seed: flags.Seed = 0,
    n_jobs: Annotated[int, typer.Option(help="Threads that share the nodes.")] = 1,
    engine: flags.Engine = None,
    on_failure: flags.OnFailure = "raise",
    min_nodes: Annotated[int, typer.Option(help="With --on-failure skip: fewest nodes that make a round.")] = 1,
    retries: Annotated[int, typer.Option(help="How often a node that failed is asked again in a round.")] = 0,
    timeout: flags.Timeout = None,
    own_data: Annotated[
        bool, typer.Option(help="torch: DATA holds this process's nodes only; else each process takes its share of it.")
    ] = False,
    holdout: Annotated[
        float | None,
        typer.Option(help=f"{flags.HOLDOUT}; in the end they judge the model (metrics.json)."),
    ] = None,
    leave_one_node_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-node-out", help="Also train once without each node, and judge that model there (metrics.json)."
        ),
    ] = False,
    compare: Annotated[Literal["pooled"] | None, typer.Option(help="Pool the rows to show the true angle.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            help="With --out: seconds between checkpoints, from which `localgd resume` goes on.", show_default="30"
        ),
    ] = None,
    checkpoint_rounds: Annotated[
        int | None, typer.Option(help="With --out: rounds between checkpoints.", show_default="by time only")
    ] = None,
    force: Annotated[bool, typer.Option(help="With --out: replace the run folder if it is there.")] = False,
    plot: flags.Plot = False,
    as_json: flags.Json = False,
) -> None:
    """Train over nodes that keep their rows, and certify which model came out."""
    from localgd.cli.job import Job

    given = {name: str(value) if isinstance(value, Path) else value for name, value in context.params.items()}
    given |= meant(problem, task=task, C=C, loss=given["loss"])
    for name in ("checkpoint_seconds", "checkpoint_rounds", "force", "plot"):
        if out is None and given[name] is not None and given[name] is not False:
            raise ValueError(
                f"--{name.replace('_', '-')} is about the run folder; name one with --out, or leave it out"
            )
    if own_data and not of_torch(given["engine"]):
        raise ValueError("--own-data is for the processes of torch, each with its own DATA; leave it out here")
    with process_group(given["engine"], timeout) as here:
        code = Job(SimpleNamespace(**given), here).run()
    raise typer.Exit(code)


def resume_command(
    run: Annotated[Path, typer.Argument(help="Run folder of a run that was cut short.")],
    n_rounds: Annotated[int | None, typer.Option(help="Most rounds in all.", show_default="as begun")] = None,
    angle_tol_deg: Annotated[
        float | None, typer.Option(help="Degrees that must be proved.", show_default="as begun")
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after this time, from now on.")] = None,
    timeout: flags.Timeout = None,
    as_json: flags.Json = False,
) -> None:
    """Go on with a run that was killed, interrupted, or out of rounds, from its last checkpoint.

    It ends with the same model and history as if nothing had happened. Rows are read again from where they were.
    """
    from localgd.cli.job import Job
    from localgd.run import folder as record
    from localgd.run.checkpoint import FILE

    changes: dict[str, Any] = {"n_rounds": n_rounds, "angle_tol_deg": angle_tol_deg}
    given = {name: value for name, value in changes.items() if value is not None}
    given |= {} if timeout is None else {"timeout": timeout}
    given |= {"max_seconds": max_seconds, "as_json": as_json, "force": True, "out": str(record.finished(run))}
    with process_group(None, timeout) as here, ExitStack() as hold:
        config, recipe = record.known(here.first(lambda: hold.enter_context(record.reopened(run))))
        if "flags" not in config:
            raise ValueError(f"{run} was begun by a Flower app; start the app again with the same out to go on")
        if missing := signature(train_command).parameters.keys() - {"context"} - config["flags"].keys():
            raise ValueError(f"{run}: its config.json lacks {min(missing)}: it is damaged, or of another version")
        check_flags(config["flags"], train_command, f"{run}: its config.json")
        if here.leads and not (record.checkpoints_of(record.finished(run)) / FILE).is_file():
            typer.echo("it holds no whole checkpoint, so it begins at round 0", err=True)
        code = Job(SimpleNamespace(**{**config["flags"], **given}), here).run(recipe)
    raise typer.Exit(code)
