"""The demo: mushrooms from 7 habitats, alone and together, and the proof of which model came out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table as Grid

from localgd.core import Message
from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.prepare import prepare
from localgd.engine.inprocess import InProcess
from localgd.methods.auto import auto
from localgd.methods.averaging import local_gd, modified_local_gd
from localgd.problems.metrics import Evaluate, total
from localgd.reference.max_margin import pooled_direction
from localgd.report import text
from localgd.report.progress import Progress
from localgd.run.history import Run
from localgd.run.loop import train

LOCAL_STEPS = 100
METHODS = {method.name: method for method in (local_gd(local_steps=LOCAL_STEPS), modified_local_gd(), auto())}
"""What all habitats together are trained with."""

ROUNDS_ALONE = 20
"""Rounds of a habitat on its own: 2,000 gradient steps."""


def demo(n_rounds: int = 500) -> dict[str, Run]:
    """Train on the bundled mushrooms, print what each way of training gives, and return the federated runs by name."""
    console = Console(highlight=False)
    data = DATASETS["mushroom"]
    federation, recipe = prepare(InProcess(load_dataset("mushroom")), **data.options)
    console.print(
        f"{data.rows} mushrooms, edible or poisonous, in {len(federation.node_ids)} habitats; "
        f"{len(recipe.feature_names) - 1} columns and a bias. No habitat shows its rows to another.\n",
        soft_wrap=True,
    )
    console.print(_alone(federation))
    runs = {}
    with Progress() as progress:
        progress.say("\nComputing the pooled model (only to compare with: this is what a federation cannot do).")
        reference = pooled_direction(federation.shards.values())
        for name, method in METHODS.items():
            progress.say(f"\n{name}, at most {n_rounds} rounds")
            progress.begin(n_rounds)
            runs[name] = train(federation, method, n_rounds=n_rounds, on_round=progress.on_round, reference=reference)
            if progress.interrupted is not None:
                break
    console.print()
    look = federation.round(Evaluate(), Message(0, reference))
    console.print(_together(runs, float(look.sums["correct"]) / total(look)))
    if all(run.history[-1].accuracy == 1 for run in runs.values()):
        console.print("Every accuracy here looks perfect; only the angle tells which model came out.")
    console.print(
        "Proved: from the sums that the habitats send. True: needs the pooled rows.\n"
        "Next: localgd train YOUR.csv --label COLUMN --node COLUMN --out RUN",
        soft_wrap=True,
    )
    return runs


def _alone(federation: InProcess) -> Grid:
    """Train every habitat on its own rows and test it on all mushrooms."""
    grid = Grid(title="Each habitat alone", title_justify="left")
    for name, justify in (("habitat", "left"), ("rows", "right"), ("accuracy on all mushrooms", "right")):
        grid.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's literal type
    for node_id, shard in federation.shards.items():
        method, only = local_gd(local_steps=LOCAL_STEPS), partial(_only, node_id)
        run = train(federation, method, n_rounds=ROUNDS_ALONE, nodes=only)
        grid.add_row(node_id, str(shard.n_rows), text.percent(run.history[-1].accuracy))
    return grid


def _only(node_id: str, round_: int, node_ids: Sequence[str]) -> list[str]:  # noqa: ARG001  the signature of train
    """Take part: one fixed node."""
    return [node_id]


def _together(runs: dict[str, Run], pooled: float) -> Grid:
    grid = Grid(title="All habitats together, rows kept at home", title_justify="left")
    for name in ("method", "rounds", "accuracy", "proved", "true angle", "sent"):
        grid.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for name, run in runs.items():
        last = run.history[-1]
        sent = text.megabytes(last.floats_up + last.floats_down)
        proved, true = text.bound(last.angle_deg_max), text.degrees(last.true_angle_deg)
        grid.add_row(name, str(last.round), text.percent(last.accuracy), proved, true, sent)
    grid.add_row("pooled rows", "", text.percent(pooled), "", "0°", "all rows")
    return grid
