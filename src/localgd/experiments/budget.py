"""What number L of local steps to choose: for a fixed number of rounds, and for a fixed number of gradient steps.

The models of Local-GD nearly follow one path, the gradient flow, at time ηLk; L only says how far a round goes.
Measured at the end of each budget: the angle to the pooled max-margin direction of the training rows, accuracy on a
fifth of each node's rows that was held out, and the loss, for η = 1/β ("auto") and the theorem's η = 1/(βL) ("paper").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl

from localgd.engine.inprocess import InProcess
from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, least, worst
from localgd.experiments.measure import federation, grid, in_points, stacked
from localgd.methods.averaging import local_gd
from localgd.reference.max_margin import max_margin
from localgd.report.figure import Line, Panel, Style
from localgd.rounding import FloatArray
from localgd.rows import Shard
from localgd.run.loop import train

ROUNDS, STEPS = 100, 1000
ENOUGH = 100
"""So many rounds are taken to be enough for the path to be the same."""

TITLES = {"gauss-400-shifted": "wide Gaussian", "hard": "tall Gaussian", "mushroom": "mushroom"}


def cells(steps: dict[str, Sequence[int]], replicates: int) -> list[Params]:
    """Return the cells: both budgets and both step sizes for every number of local steps of every data set."""
    both = {"lr": ("auto", "paper"), "budget": ("rounds", "steps")}
    return [
        cell
        for data, each in steps.items()
        for cell in grid(data=[data], **both, local_steps=each, replicate=range(replicates))
    ]


@cache
def held_out(data: str, seed: int) -> tuple[InProcess, FloatArray, FloatArray]:
    """Return the nodes without a fifth of their rows, the pooled direction of what they keep, and the fifth."""
    kept, out = [], []
    for m, shard in enumerate(federation(data).shards.values()):
        order = np.random.default_rng([seed, m]).permutation(shard.n_rows)
        fifth = shard.n_rows // 5
        out.append(Shard(shard.node_id, shard.rows[np.sort(order[:fifth])]))
        kept.append(Shard(shard.node_id, shard.rows[np.sort(order[fifth:])]))
    return InProcess(kept), max_margin(stacked(kept)).direction, stacked(out)


def run(params: Params, seed: int) -> Rows:
    """Spend one budget; one row at its end."""
    engine, direction, rows = held_out(params["data"], seed)
    local_steps = params["local_steps"]
    n_rounds = ROUNDS if params["budget"] == "rounds" else STEPS // local_steps
    done = train(engine, local_gd(local_steps=local_steps, lr=params["lr"]), n_rounds=n_rounds, reference=direction)
    last = done.history[-1]
    return [
        {
            "rounds": n_rounds,
            "angle_deg": last.true_angle_deg,
            "held_out": float((rows @ done.w > 0).mean()),
            "accuracy": last.accuracy,
            "loss": last.loss,
        }
    ]


def against_one(frame: pl.DataFrame) -> pl.DataFrame:
    """Return every cell's angle as part of that of L = 1 with the same data, step size, budget and rows."""
    same = ["data", "lr", "budget", "replicate"]
    one = frame.filter(pl.col("local_steps") == 1).select(*same, one="angle_deg", one_held_out="held_out")
    return frame.join(one, on=same, how="left").with_columns(
        part=pl.col("angle_deg") / pl.col("one"), held_out_gain=pl.col("held_out") - pl.col("one_held_out")
    )


def against_fewer(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a column at η = 1/β and fixed rounds over that of the next smaller L, NaN where no other L is left."""
    same = ["data", "lr", "budget", "replicate"]
    chosen = frame.filter(lr="auto", budget="rounds").sort(*same, "local_steps")
    over = chosen.with_columns(over=(pl.col(column) / pl.col(column).shift(1)).over(same))
    return over.filter(pl.col("local_steps") > pl.col("local_steps").min())["over"]


def judge(frame: pl.DataFrame) -> Checks:
    """Compare the angles with those of one local step a round, and loss and accuracy beside them."""
    shown = against_one(frame).filter(pl.col("local_steps") > 1)
    enough = shown.filter(pl.col("rounds") >= ENOUGH)
    largest = shown.filter(pl.col("local_steps") == pl.col("local_steps").max().over("data"))
    behind = part(shown, "auto", "steps") - 1
    measured = pl.all_horizontal(pl.col("angle_deg", "loss", "accuracy", "held_out").is_finite().fill_null(value=False))
    gain = 100 * part(shown, "auto", "rounds", "held_out_gain")
    each = f"each L at η = 1/β, {ROUNDS} rounds:"
    away = "angle away from that of L = 1, as part of it, largest"
    return {
        f"η = 1/(βL), {ROUNDS} rounds: {away}": at_most(0.03, (part(shown, "paper", "rounds") - 1).abs()),
        f"η = 1/β, {ROUNDS} rounds: angle of the largest L as part of that of L = 1, largest": at_most(
            0.9, part(largest, "auto", "rounds")
        ),
        f"η = 1/β, {STEPS} steps, {ENOUGH} rounds or more: {away}": at_most(
            0.05, (part(enough, "auto", "steps") - 1).abs()
        ),
        f"η = 1/(βL), {STEPS} steps: angle of the largest L as part of that of L = 1, smallest": at_least(
            1.1, part(largest, "paper", "steps")
        ),
        f"{each} angle as part of that of the next smaller L, largest": at_most(
            1.02, against_fewer(frame, "angle_deg")
        ),
        f"{each} training loss as part of that of the next smaller L, largest": at_most(
            1.0, against_fewer(frame, "loss")
        ),
        "cells in which angle, loss or an accuracy is not a number": at_most(
            0, float(frame.select(~measured).sum().item())
        ),
        f"η = 1/β, {ROUNDS} rounds: more held-out rows right than with L = 1, smallest (points)": at_least(
            0.0,
            gain,
            f"nearer the pooled model is not always righter: at {ROUNDS} rounds and η = 1/β, L > 1 gets from "
            f"{in_points(least(gain))} to {in_points(worst(gain))} points more held-out rows right than L = 1",
        ),
        f"η = 1/β, {STEPS} steps, any number of rounds: {away}": at_most(
            0.05,
            behind.abs(),
            f"at η = 1/β, {STEPS} steps spent in fewer than {ENOUGH} rounds end up to "
            f"{100 * worst(behind):.0f}% further away than with L = 1",
        ),
    }


def part(frame: pl.DataFrame, lr: str, budget: str, column: str = "part") -> pl.Series:
    """Return the angles as parts of those of L = 1, or another column, for one step size and one budget."""
    return frame.filter(lr=lr, budget=budget)[column]


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Draw angle against L for either budget, and training loss and held-out accuracy for the fixed rounds."""
    rounds, steps = (frame.filter(budget=budget) for budget in ("rounds", "steps"))
    label, angle, title = "local steps L", "angle to the pooled model (degrees)", f"{ROUNDS} rounds"
    right = _lines(rounds, "held_out", 100)
    return [
        Panel(title, label, angle, _lines(rounds, "angle_deg"), log_x=True),
        Panel(f"{STEPS} steps a node", label, angle, _lines(steps, "angle_deg"), log_x=True),
        Panel(f"{title}, training loss", label, "mean logistic loss", _lines(rounds, "loss"), log_x=True, log_y=True),
        Panel(f"{title}, held-out rows", label, "rows right (%)", right, log_x=True),
    ]


def _lines(frame: pl.DataFrame, column: str, factor: float = 1.0) -> list[Line]:
    """Return a line per data set and step size, mean over the replicates."""
    mean = (factor * pl.col(column).mean()).alias(column)
    means = frame.group_by("data", "lr", "local_steps").agg(mean).sort("local_steps")
    kinds: list[tuple[str, str, Style]] = [("auto", "1/β", "line+points"), ("paper", "1/(βL)", "dashed")]
    return [
        Line(part["local_steps"], part[column], f"{TITLES[data]}, {symbol}", color, style)
        for color, data in enumerate(name for name in TITLES if name in means["data"])
        for lr, symbol, style in kinds
        for part in [means.filter(data=data, lr=lr)]
    ]


TEN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

EXPERIMENT = Experiment(
    name="budget",
    title="How many local steps",
    claim="The angle depends on ηLk alone as long as there are many rounds. So with the theorem's step size 1/(βL), "
    "local steps beyond the first bring nothing; with 1/β, L of them are worth L rounds "
    "while at least 100 rounds remain, and at 100 rounds more of them leave no larger angle and a smaller loss.",
    source="ours; the step size of order 1/L is that of Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2",
    quick=cells({"gauss-400-shifted": (1, 10, 100), "mushroom": (1, 10, 50)}, 1),
    full=cells({"gauss-400-shifted": TEN, "hard": TEN, "mushroom": TEN[:8]}, 2),
    run=run,
    judge=judge,
    draw=draw,
    caption=f"First: angle to the pooled model after {ROUNDS} rounds of L local steps. Second: after {STEPS} gradient "
    f"steps a node, dealt over {STEPS}/L rounds. Third and fourth: training loss of the models of the first panel, and "
    "the share of held-out rows that they get right. Solid: step size 1/β. Dashed: 1/(βL). Ten "
    "unlike Gaussian nodes with more columns than rows (wide) or fewer (tall), and mushrooms by seven habitats.",
)
