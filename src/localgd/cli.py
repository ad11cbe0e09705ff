"""The command line: ``localgd demo | train | certify | predict | datasets``."""

from __future__ import annotations

import io
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import typer
from scipy.sparse import issparse

from localgd import record
from localgd.certify import Rule, Status, certify, until_angle, until_margin_ratio
from localgd.core import Message, NodeError
from localgd.data.datasets import DATASETS
from localgd.data.load import load, load_unlabelled
from localgd.data.partition import partition
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.data.table import Table
from localgd.demo import demo as run_demo
from localgd.engine.inprocess import InProcess
from localgd.pooled import pooled_direction
from localgd.report import text
from localgd.report.plots import convergence
from localgd.report.progress import Progress
from localgd.rounding import FloatArray
from localgd.rules.named import METHODS, method_named
from localgd.rules.probes import Evaluate
from localgd.train import Run, SampledNodes, train

FAILED, BAD_INPUT, SHORT, SIGNALLED = 1, 2, 3, 128

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a linear classifier where the data lives, and prove which model came out.",
    epilog="Exit codes: 0 done; 1 no usable model, or not written; 2 bad input; 3 the certificate asked for was not "
    "reached; 130 interrupted (the run is written).",
)

Data = Annotated[str, typer.Argument(help="Folder with one file per node, one table, or a bundled data set's name.")]
Label = Annotated[str | None, typer.Option(help="Label column (two classes).", show_default="y for NPZ, svmlight")]
Node = Annotated[str | None, typer.Option(help="Column that says which node a row of a single table belongs to.")]
Drop = Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")]
Text = Annotated[
    list[str] | None, typer.Option("--text", help="Column of free text, prepared as TF-IDF; may be repeated.")
]
Categorical = Annotated[list[str] | None, typer.Option(help="Column of categories although it looks like numbers.")]
Scale = Annotated[
    Literal["standard", "none"] | None,
    typer.Option(help="Scaling of numeric columns.", show_default="standard; none for sparse files"),
]
Partition = Annotated[
    str | None,
    typer.Option(help="Split one node's rows: iid, by_label, dirichlet[:alpha], by_size[:power], by_feature:COLUMN."),
]
NNodes = Annotated[int | None, typer.Option(help="How many nodes --partition makes.")]
Seed = Annotated[int, typer.Option(help="Seed of the partition, the batches and the sampled nodes.")]
AngleTol = Annotated[float | None, typer.Option(help="Degrees to the pooled model that must be proved.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def tables_of(
    data: str, label: str | None, node: str | None, options: dict[str, Any], split: tuple[str | None, int | None, int]
) -> list[Table]:
    """Return the tables of a source, split over nodes if asked."""
    how, n_nodes, seed = split
    if (how is None) != (n_nodes is None):
        raise ValueError("--partition and --n-nodes go together; give both or neither")
    tables = load(data, label=label, node=node, **{name: value for name, value in options.items() if value})
    if how is None or n_nodes is None:
        return tables
    if len(tables) > 1:
        raise ValueError(f"--partition splits the rows of one node, but {data} has {len(tables)} nodes; leave it out")
    return partition(tables[0], how, n_nodes, seed=seed)


def federation_of(
    tables: list[Table],
    data: str,
    scale: str | None,
    kinds: dict[str, Any],
    *,
    n_jobs: int = 1,
    intercept: bool = True,
) -> tuple[InProcess, Recipe]:
    """Prepare tables as rounds; return the federation of signed rows and the recipe that made it."""
    options: dict[str, Any] = {"scale": None if issparse(tables[0].features) else "standard", **kinds}
    if data in DATASETS and not Path(data).exists():
        if any(kinds.values()):
            raise ValueError(f"{data!r} is bundled with its own columns; leave --text and --categorical out")
        options = dict(DATASETS[data].options)
    if scale is not None:
        options["scale"] = None if scale == "none" else scale
    return prepare(InProcess(tables, n_jobs=n_jobs), intercept=intercept, **options)


@app.command("train")
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
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "local-gd",
    local_steps: Annotated[
        int | None, typer.Option(help="Gradient steps per node and round.", show_default="100")
    ] = None,
    lr: Annotated[str | None, typer.Option(help="Step size: a number, auto or paper.", show_default="auto")] = None,
    loss: Annotated[str | None, typer.Option(help="logistic or exponential.", show_default="logistic")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step of local-sgd.", show_default="32")] = None,
    replacement: Annotated[bool | None, typer.Option(help="local-sgd: draw batches with replacement.")] = None,
    form: Annotated[str | None, typer.Option(help="modified-local-gd: projection or proximal.")] = None,
    prox: Annotated[float | None, typer.Option(help="modified-local-gd, proximal: λ.", show_default="0.001")] = None,
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
    given |= {"seed": seed} if method == "local-sgd" else {}
    chosen = method_named(method, **{name: value for name, value in given.items() if value is not None})
    stop: list[Rule] = [] if angle_tol_deg is None else [until_angle(angle_tol_deg)]
    stop += [] if margin_ratio is None else [until_margin_ratio(margin_ratio)]
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
            reference=_reference(federation, chosen.task.weighted_by, progress) if compare else None,
        )
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in context.params.items()}
    model = record.Model.from_vector(run.w, fit_intercept=fit_intercept, classes=recipe.classes, recipe=recipe)
    place = _saved(out, run, model, flags, force=force)
    _tell(run, place, as_json=as_json)
    raise typer.Exit(_exit_code(run, asked=bool(stop), interrupted=progress.interrupted))


@app.command("certify")
def certify_command(
    model: Annotated[Path, typer.Argument(help="Run folder, model.json, or JSON/NPZ with coef and intercept.")],
    data: Data,
    label: Label = None,
    node: Node = None,
    drop: Drop = None,
    text_column: Text = None,
    categorical: Categorical = None,
    scale: Scale = None,
    partition: Partition = None,
    n_nodes: NNodes = None,
    seed: Seed = 0,
    angle_tol_deg: AngleTol = None,
    as_json: Json = False,
) -> None:
    """Bound the angle between any linear model and the pooled one; no row leaves its node.

    A model of localgd brings its own preparation. One trained elsewhere is taken as it is: coefficients of the
    prepared columns (in their order, unless it says feature_names), positive for the class that sorts last (unless it
    says classes). Either way the proof is made from the model alone, so it is looser than a run's own.
    """
    held = record.read_model(model)
    if held.recipe is not None and (scale or text_column):
        raise ValueError(f"{model} brings its own preparation; leave --scale and --text out")
    options = {"drop": drop, "categorical": categorical}
    tables = tables_of(data, label, node, options, (partition, n_nodes, seed))
    if held.recipe is not None:
        federation, recipe = InProcess(tables).map(held.recipe.encode), held.recipe
    else:
        kinds = {"text": tuple(text_column or ()), "categorical": tuple(categorical or ())}
        federation, recipe = federation_of(tables, data, scale or "none", kinds)
    w = held.aligned(recipe, f"{model}")
    found = certify(w, federation, angle_tol_deg=angle_tol_deg)
    look = federation.round(Evaluate(), Message(0, w))
    accuracy = float(look.sums["correct"]) / look.n_rows
    if as_json:
        typer.echo(json.dumps(found.to_dict() | {"accuracy": accuracy}, indent=1))
    else:
        typer.echo(f"{found.status}\naccuracy on all {look.n_rows} rows {text.percent(accuracy)}")
        if found.separable and not found.angle_deg <= text.LOOSE_DEG:
            typer.echo("a loose bound: it is made from the model alone; a run's own certificate.json is tighter")
    asked = angle_tol_deg is not None
    raise typer.Exit(SHORT if asked and found.verdict is not Status.CERTIFIED else 0)


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or its model.json.")],
    file: Annotated[Path, typer.Argument(help="Rows to label: CSV, Parquet, NPZ or svmlight.")],
    out: Annotated[Path | None, typer.Option(help="CSV to write.", show_default="standard output")] = None,
    force: Annotated[bool, typer.Option(help="Replace the CSV if it is there.")] = False,
    unseen: Annotated[
        Literal["error", "zeros"], typer.Option(help="What a category never seen in training means.")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print the labels as one JSON list.")] = False,
) -> None:
    """Label the rows of a file with a trained model."""
    if out is not None and out.exists() and not force:
        raise FileExistsError(f"--out {out} exists already; choose another name, or replace it with --force")
    labels = record.read_model(model).predict(load_unlabelled(file), unseen=unseen)
    frame = pl.DataFrame({"prediction": labels})
    if out is not None:
        frame.write_csv(out)
        typer.echo(f"{text.counted(len(labels), 'row')} labelled in {out}", err=as_json)
    if as_json:
        typer.echo(json.dumps(labels))
    elif out is None:
        typer.echo(frame.write_csv(), nl=False)


@app.command("datasets")
def datasets_command(as_json: Json = False) -> None:
    """List the bundled real data sets."""
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
    if out is not None:
        out.mkdir(exist_ok=True)
    for method, run in run_demo(n_rounds=n_rounds).items():
        if out is not None:
            convergence(run.columns(), out / f"{method}.png")
            typer.echo(f"drawn: {out / f'{method}.png'}")


@app.callback(invoke_without_command=True)
def about(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Train a linear classifier where the data lives, and prove which model came out."""
    if show:
        typer.echo(f"localgd {version('localgd')}")


def _step_size(lr: str | None) -> float | str | None:
    try:
        return None if lr is None else float(lr)
    except ValueError:
        return lr  # "auto", "paper", or something the method refuses by name


def _introduction(federation: InProcess, recipe: Recipe, method: str) -> str:
    nodes = text.counted(len(federation.node_ids), "node")
    rows = text.counted(sum(shard.n_rows for shard in federation.shards.values()), "row")
    columns = text.counted(len(recipe.feature_names) - recipe.intercept, "column")
    bias = " and a bias" if recipe.intercept else ""
    made = f" (from {recipe.summary})"
    return f"{nodes}, {rows}, {columns}{bias}{made}; classes {recipe.classes[0]} / {recipe.classes[1]}; method {method}"


def _reference(federation: InProcess, weighted_by: str, progress: Progress) -> FloatArray | None:
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


def main() -> None:
    """Run the command line; turn expected errors into one clear line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ° or ≤ shows a question mark, not a traceback
    try:
        app()
    except NodeError as error:
        expected = isinstance(error.__cause__, ValueError)
        message = f"node {error.node_id!r}: {error.__cause__}" if expected else str(error)
        typer.echo(f"error: {message}", err=True)
        sys.exit(BAD_INPUT if expected else FAILED)
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(FAILED)
