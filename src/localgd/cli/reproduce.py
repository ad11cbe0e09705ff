"""``localgd reproduce``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localgd.cli.flags import FAILED, SIGNALLED
from localgd.experiments import NAMES, experiments

if TYPE_CHECKING:
    from localgd.experiments.claim import Result

EPILOG = (
    "Exit codes: 0 every claim holds, maybe with limits (or was skipped for an extra that is not installed); "
    "1 a claim does not hold, an experiment failed, or nothing could be written; 2 bad input; 130 interrupted "
    "(finished cells are kept, and the same command goes on from there)."
)


def reproduce_command(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments (see --list).", show_default="all")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter cells: a few minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write, or to go on in.", show_default=False)] = None,
    n_jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes; no result depends on it.",
            show_default="one per core",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the experiments and do nothing.")] = False,
) -> None:
    """Measure every claim about Local-GD anew, judge it by the numbers, and put all on one page."""
    from localgd.experiments.reproduce import PAGE, Interrupted, missing, publish, reproduce
    from localgd.report import text
    from localgd.report.bar import Bar

    chosen = experiments(_known(names or NAMES))
    if list_:
        for name, experiment in chosen.items():
            needs = f" (needs the extra {experiment.requires})" if experiment.requires else ""
            typer.echo(f"{name:15s} {experiment.title}{needs}")
        return
    if out is None:
        raise ValueError("--out DIR is needed: the folder for the page, the figures and the rows")
    lacking = [lack for experiment in chosen.values() if names and (lack := missing(experiment))]
    if lacking:
        raise ValueError("; ".join(lacking))
    n_jobs = (os.cpu_count() or 1) if n_jobs is None else n_jobs
    if n_jobs < 1:
        raise ValueError(f"--n-jobs must be at least 1, got {n_jobs}")
    words = ["reproduce", *(names or ()), *(["--quick"] if quick else []), "--out", str(out)]

    def leave(results: Sequence[Result]) -> Path:
        return publish(results, out, known=experiments(NAMES), asked=chosen, command=text.command(*words))

    try:
        with Bar() as bar:
            results = reproduce(chosen, out, quick=quick, n_jobs=n_jobs, progress=bar, leave=leave)
    except OSError as error:
        if isinstance(error, FileExistsError | FileNotFoundError) or error.errno is None:  # refused, in our own words
            raise
        raise OSError(f"--out {out}: {error.strerror or error}; finished cells are kept, run it again") from error
    except Interrupted as stop:
        typer.echo(f"{stop}; what is finished is on {out / PAGE}", err=True)
        raise typer.Exit(SIGNALLED + stop.number) from None
    raise typer.Exit(_told(results, leave(results)))


def _told(results: Sequence[Result], place: Path) -> int:
    """Print what became of each, and return the exit code."""
    from localgd.experiments.claim import Word

    for fault in (result.fault for result in results if result.fault is not None):
        typer.echo(fault, err=True)
    for result in results:
        typer.echo(f"{result.experiment.name:15s} {result}")
    typer.echo(f"all on one page: {place}")
    return FAILED if any(result.word in (Word.FAILS, "failed") for result in results) else 0


def _known(names: Sequence[str]) -> Sequence[str]:
    from localgd.errors import nearest

    for name in names:
        if name not in NAMES:
            raise ValueError(f"unknown experiment {name!r}{nearest(name, NAMES)}")
    return list(dict.fromkeys(names))
