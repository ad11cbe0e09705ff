"""``localgd train``."""

from __future__ import annotations

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from localgd import record
from localgd.certificate import Rule, Status, until_angle, until_margin_ratio
from localgd.cli.data import federation_of, tables_of
from localgd.cli.flags import (
    FAILED,
    SHORT,
    SIGNALLED,
    AngleTol,
    Categorical,
    Data,
    Drop,
    Json,
    Label,
    NNodes,
    Node,
    Partition,
    Scale,
    Seed,
    Text,
)
from localgd.data.recipe import Recipe
from localgd.engine.inprocess import InProcess
from localgd.history import Run, SampledNodes
from localgd.pooled import pooled_direction
from localgd.report import text
from localgd.report.plots import convergence
from localgd.report.progress import Progress
from localgd.rounding import FloatArray
from localgd.rules.method import Choice, Method
from localgd.rules.named import METHODS, method_named
from localgd.rules.probes import Weighting
from localgd.train import train


def train_command(
    context: typer.Context,
    data: Data,
    label: Label = None,
    node: Node = None,
    drop: Drop = None,
    text_column: Text = None,
    categorical: Categorical = None,
    scale: Scale = None,
    fit_intercept: Annotated[bool, typer.Option(help="Fit a bias.")] = True,
    partition: Partition = None,
    n_nodes: NNodes = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "auto",
    C: Annotated[
        float | None, typer.Option("--C", help="Penalised logistic loss: C as in scikit-learn's LogisticRegression.")
    ] = None,
    local_steps: Annotated[
        int | None, typer.Option(help="Gradient steps per node and round.", show_default="100")
    ] = None,
    lr: Annotated[str | None, typer.Option(help="Step size: a number, auto or paper.", show_default="auto")] = None,
    loss: Annotated[str | None, typer.Option(help="logistic or exponential.", show_default="logistic")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step of local-sgd.", show_default="32")] = None,
    replacement: Annotated[bool | None, typer.Option(help="local-sgd: draw batches with replacement.")] = None,
    form: Annotated[str | None, typer.Option(help="modified-local-gd: projection or proximal.")] = None,
    prox: Annotated[float | None, typer.Option(help="modified-local-gd, proximal: λ.", show_default="0.001")] = None,
    late: Annotated[bool | None, typer.Option(help="Local-GD family: hand out the late direction.")] = None,
    momentum: Annotated[float | None, typer.Option(help="slowmo: momentum of the server.", show_default="0.7")] = None,
    nesterov: Annotated[bool | None, typer.Option(help="slowmo: Nesterov's form, as DiLoCo.")] = None,
    server_lr: Annotated[float | None, typer.Option(help="slowmo: step of the server.", show_default="1")] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Largest d×d sum of second-order rounds, in megabytes.", show_default="64")
    ] = None,
    weighted_by: Annotated[str | None, typer.Option(help="uniform or num-examples.", show_default="uniform")] = None,
    n_rounds: Annotated[int, typer.Option(help="Most rounds.")] = 500,
    angle_tol_deg: AngleTol = None,
    margin_ratio: Annotated[float | None, typer.Option(help="Share of the pooled margin that must be proved.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Share of the nodes that take part in a round.")] = None,
    seed: Seed = 0,
    n_jobs: Annotated[int, typer.Option(help="Threads that share the nodes.")] = 1,
    compare: Annotated[Literal["pooled"] | None, typer.Option(help="Pool the rows to show the true angle.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    force: Annotated[bool, typer.Option(help="Replace the run folder if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train over nodes that keep their rows, and certify which model came out."""
    if out is not None:
        record.check_free(out, force=force)
    given = {"local_steps": local_steps, "lr": _step_size(lr), "loss": loss, "batch_size": batch_size}
    given |= {"replacement": replacement, "form": form, "prox": prox, "weighted_by": weighted_by}
    given |= {"C": C, "late": late, "momentum": momentum, "nesterov": nesterov, "server_lr": server_lr}
    given |= {"max_mb": max_mb, "intercept": fit_intercept or None if C is not None else None}
    given |= {"seed": seed} if method == "local-sgd" else {}
    chosen = method_named(method, **{name: value for name, value in given.items() if value is not None})
    stop: list[Rule] = [] if angle_tol_deg is None else [until_angle(angle_tol_deg)]
    stop += [] if margin_ratio is None else [until_margin_ratio(margin_ratio)]
    if compare and C is not None:
        raise ValueError(
            "--compare pooled shows the angle to the unpenalised pooled model, so it has no meaning with --C, whose "
            "certificate bounds the distance to the penalised one; leave one of them out"
        )
    sampled = None if fraction is None else SampledNodes(fraction, seed)
    options = {"drop": drop, "categorical": categorical}
    kinds = {"text": tuple(text_column or ()), "categorical": tuple(categorical or ())}
    with Progress(quiet=as_json) as progress:
        progress.say(f"reading {data}")
        tables = tables_of(data, label, node, options, (partition, n_nodes, seed))
        federation, recipe = federation_of(tables, data, scale, kinds, n_jobs=n_jobs, intercept=fit_intercept)
        progress.say(_introduction(federation, recipe, method))
        run = train(
            federation,
            chosen,
            n_rounds=n_rounds,
            stop=stop,
            max_seconds=max_seconds,
            nodes=sampled,
            on_round=progress.on_round,
            reference=_reference(federation, _weighting(chosen), progress) if compare else None,
        )
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in context.params.items()}
    model = record.Model.from_vector(run.w, fit_intercept=fit_intercept, classes=recipe.classes, recipe=recipe)
    place = _saved(out, run, model, flags, force=force)
    _tell(run, place, as_json=as_json)
    raise typer.Exit(_exit_code(run, asked=bool(stop), interrupted=progress.interrupted))


def _step_size(lr: str | None) -> float | str | None:
    try:
        return None if lr is None else float(lr)
    except ValueError:
        return lr  # "auto", "paper", or something the method refuses by name


def _weighting(method: Method | Choice) -> Weighting:
    """Return how rows weigh in the loss that the method minimises where nothing separates them."""
    return "num-examples" if isinstance(method, Choice) else method.task.weighted_by


def _introduction(federation: InProcess, recipe: Recipe, method: str) -> str:
    nodes = text.counted(len(federation.node_ids), "node")
    rows = text.counted(sum(shard.n_samples for shard in federation.shards.values()), "row")
    columns = text.counted(len(recipe.feature_names) - recipe.intercept, "column")
    bias = " and a bias" if recipe.intercept else ""
    made = f" (from {recipe.summary})"
    more = f" / … ({len(recipe.classes)} in all)" if len(recipe.classes) > 10 else ""
    classes = " / ".join(str(value) for value in recipe.classes[:10]) + more
    return f"{nodes}, {rows}, {columns}{bias}{made}; classes {classes}; method {method}"


def _reference(federation: InProcess, weighted_by: Weighting, progress: Progress) -> FloatArray | None:
    """Return the pooled model, or say why there is none to compare with."""
    progress.say("computing the pooled model, to compare with")
    try:
        return pooled_direction(federation.shards.values(), weighted_by)
    except ValueError as error:
        progress.say(f"no comparison: {error}")
        return None


def _saved(out: Path | None, run: Run, model: record.Model, flags: dict[str, Any], *, force: bool) -> Path | None:
    """Write the run folder; if its disk is full, put model and certificate where there is room, so nothing is lost."""
    if out is None:
        return None
    config = {
        "flags": flags,
        "versions": {"localgd": version("localgd"), "numpy": np.__version__, "python": platform.python_version()},
    }
    try:
        record.write(out, run, model, config, draw=convergence, force=force)
    except OSError as error:
        refuge = Path(tempfile.mkdtemp(prefix="localgd-")) / "run"
        typer.echo(f"error: could not write {out}: {error}", err=True)
        try:
            record.write(refuge, run, model, config)
        except OSError:
            typer.echo(json.dumps(model.to_dict()))
            typer.echo("the model is printed above, as there is no room anywhere; redirect it to a file", err=True)
        else:
            typer.echo(f"the run is in {refuge} instead (without its figure); free some room and move it", err=True)
        raise typer.Exit(FAILED) from error
    return out


def _tell(run: Run, place: Path | None, *, as_json: bool) -> None:
    last = run.history[-1]
    if as_json:
        entries = run.certificate.to_dict() | {
            "rounds": run.n_rounds,
            "loss": _known(last.loss),
            "accuracy": last.accuracy,
        }
        entries |= {"floats_up": last.floats_up, "floats_down": last.floats_down, "seconds": last.seconds}
        entries |= {"true_angle_deg": _known(last.true_angle_deg), "out": None if place is None else str(place)}
        typer.echo(json.dumps(entries, indent=1, allow_nan=False))
        return
    for line in (*text.verdict(run.certificate, last), *text.next_step(run.certificate)):
        typer.echo(line)
    if not run.w.any():
        typer.echo("the model is 0 in every entry: there is nothing to predict with")
    typer.echo(f"written to {place}" if place else "nothing written; add --out RUN to keep the model")


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _exit_code(run: Run, *, asked: bool, interrupted: int | None) -> int:
    if interrupted is not None:
        return SIGNALLED + interrupted
    if run.certificate.verdict is Status.DIVERGED or not run.w.any():
        return FAILED
    return SHORT if asked and run.certificate.verdict is not Status.CERTIFIED else 0
