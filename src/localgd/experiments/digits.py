"""Digits: a small convolutional network over four nodes, beside the synchronous training that it stands for.

Handwritten digits of scikit-learn. Four nodes train as the ranks of `localgd.nets.LocalSGD` do, and the test says to
rounding: with a sync after every step (which is DistributedDataParallel), averaging after L steps, SlowMo and DiLoCo.
SlowMo and DiLoCo go further than averaging does at the same step size, 2 and 7 times at their defaults; so each method
has the step size that is best for it on digits kept for that. All start from the same parameters and see the same
batches at the same step. Compared are accuracy, and on which share of test digits two trainings differ, after as many
gradient steps, and for as many bytes.
"""

from __future__ import annotations

from importlib import import_module

import polars as pl

from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, worst
from localgd.experiments.digits_setting import (
    AVERAGE,
    BY_LABEL,
    DILOCO,
    FEW,
    IID,
    MIDDLE,
    OTHER_BATCHES,
    SLOWMO,
    SPLITS,
    SYNCHRONOUS,
    digits,
)
from localgd.experiments.measure import grid, in_points, lines
from localgd.report.figure import Line, Panel, Style


def run(params: Params, seed: int) -> Rows:
    """Train one cell with all methods; a row for every look of every tuned training."""
    training = import_module("localgd.experiments.digits_training")  # with torch, which only this cell pays for
    found: Rows = training.rows(digits(params["split"], seed), params["steps"])
    return found


def ends(frame: pl.DataFrame) -> pl.DataFrame:
    """Return means over the seeds at the end of every training, beside synchronous training on the same digits."""
    kind = ["split", "method", "local_steps"]
    columns = pl.col("right_percent", "differ_percent", "drift", "megabytes", "syncs")
    last = frame.filter(pl.col("last")).group_by(kind, maintain_order=True).agg(columns.mean())
    synchronous = last.filter(method=SYNCHRONOUS).select("split", synchronous_percent="right_percent")
    few = last.filter(method=FEW).select("split", few_percent="right_percent")
    yardstick = last.filter(method=OTHER_BATCHES).select("split", yardstick="differ_percent")
    for beside in (synchronous, few, yardstick):
        last = last.join(beside, on="split", how="left")
    return last.with_columns(behind=pl.col("synchronous_percent") - pl.col("right_percent"))


def judge(frame: pl.DataFrame) -> Checks:
    """Hold averaging against synchronous training: how well it predicts, for the same steps and the same bytes."""
    means = ends(frame)
    average = means.filter(method=AVERAGE)
    alike = average.filter(split=IID)
    middle = means.filter(pl.col("method").is_in([AVERAGE, SLOWMO, DILOCO]), local_steps=MIDDLE)
    return {
        f"{SPLITS[IID]}, averaging: accuracy below synchronous training's, worst L (points)": at_most(
            1.0, alike["behind"]
        ),
        f"L = {MIDDLE}: accuracy above that of synchronous training of as many syncs, least of methods and deals "
        "(points)": at_least(0.0, middle["right_percent"] - middle["few_percent"]),
        **{what: held for split in SPLITS for what, held in _same(average.filter(split=split), split).items()},
        f"{SPLITS[BY_LABEL]}, averaging: accuracy below synchronous training's, worst L (points)": at_most(
            1.0,
            average.filter(split=BY_LABEL)["behind"],
            f"with {SPLITS[BY_LABEL]} it is up to {worst(average.filter(split=BY_LABEL)['behind']):.1f} points less "
            "often right",
        ),
        **_momentum(means),
    }


def _same(average: pl.DataFrame, split: str) -> Checks:
    """Return the check of whether averaging is the same model as synchronous training, to the yardstick."""
    by_steps = ", ".join(
        f"{row['differ_percent']:.1f} % (L = {row['local_steps']})" for row in average.iter_rows(named=True)
    )
    return {
        f"{SPLITS[split]}, averaging: test digits labelled otherwise than by synchronous training, over those of two "
        "synchronous trainings with other batches, worst L": at_most(
            1.0,
            average["differ_percent"] / average["yardstick"],
            f"with {SPLITS[split]} averaging is another model than synchronous training: it labels {by_steps} of the "
            f"test digits otherwise, two synchronous trainings with other batches {worst(average['yardstick']):.1f} %",
        )
    }


def _momentum(means: pl.DataFrame) -> Checks:
    """Return the check of what momentum in the outer step is worth."""
    momentum = means.filter(pl.col("method").is_in([SLOWMO, DILOCO])).join(
        means.filter(method=AVERAGE, local_steps=MIDDLE).select("split", average_percent="right_percent"), on="split"
    )
    gain = momentum["right_percent"] - momentum["average_percent"]
    named = ", ".join(
        f"{in_points(points)} ({method}, {SPLITS[split]})"
        for points, method, split in zip(gain, momentum["method"], momentum["split"], strict=True)
    )
    return {
        f"SlowMo and DiLoCo: accuracy above averaging's at tuned steps, L = {MIDDLE}, least (points)": at_least(
            0.0, gain, f"momentum in the outer step does not always pay: its gain over averaging is {named} points"
        ),
    }


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return disagreement and drift against L, and accuracy against bytes for either deal."""
    means = ends(frame)
    average = means.filter(method=AVERAGE).sort("local_steps")
    levels = [
        (float(row["differ_percent"]), f"synchronous, {SPLITS[row['split']]}")
        for row in means.filter(method=OTHER_BATCHES).iter_rows(named=True)
    ]
    apart: list[Line] = []
    styles: tuple[tuple[str, Style], ...] = ((AVERAGE, "line+points"), (SLOWMO, "points"), (DILOCO, "hollow"))
    for color, (split, name) in enumerate(SPLITS.items(), start=1):
        for method, style in styles:
            part = means.filter(method=method, split=split).sort("local_steps")
            apart.append(Line(part["local_steps"], part["differ_percent"], f"{method}, {name}", color, style))
    drift = lines(average, "split", "local_steps", "drift", SPLITS, color=1, style="line+points")
    return [
        Panel("from synchronous training", "local steps L", "labelled otherwise (%)", apart, log_x=True, levels=levels),
        Panel("averaging", "local steps L", "drift / length of mean update", drift, log_x=True),
        *(_bytes(frame.filter(split=split), name) for split, name in SPLITS.items()),
    ]


def _bytes(frame: pl.DataFrame, name: str) -> Panel:
    """Return accuracy against what a node has sent, means over the seeds."""
    here = frame.filter(pl.col("local_steps").is_in([1, MIDDLE]), pl.col("method") != OTHER_BATCHES)
    means = here.group_by("method", "step", maintain_order=True).agg(pl.col("megabytes", "right_percent").mean())
    shown = {SYNCHRONOUS: SYNCHRONOUS, FEW: FEW, **{m: f"{m}, L = {MIDDLE}" for m in (AVERAGE, SLOWMO, DILOCO)}}
    paths = lines(means, "method", "megabytes", "right_percent", shown, style="line+points")
    return Panel(name, "megabytes a node has sent", "test digits right (%)", paths, log_x=True)


EXPERIMENT = Experiment(
    name="digits",
    title="A convolutional network on digits, and the synchronous training it stands for",
    claim="Over alike nodes, averaging after local steps is as accurate, to a point, as synchronous training after as "
    "many gradient steps; and for as many bytes local steps are more accurate, however the digits are dealt. Whether "
    "it is the same model, by the digits that two synchronous trainings with other batches differ on, what nodes with "
    "labels of their own change, and what momentum in the outer step is worth, are tested beside it.",
    source="ours, measured; methods: McMahan et al. 2017, Wang et al. 2020 (SlowMo), Douillard et al. 2023 (DiLoCo)",
    quick=grid(data=["digits"], split=SPLITS, steps=[300], replicate=[0]),
    full=grid(data=["digits"], split=SPLITS, steps=[400], replicate=range(3)),
    run=run,
    judge=judge,
    draw=draw,
    caption="Four nodes, 16 digits a step and node, SGD with momentum 0.9; two convolutions and a linear layer; each "
    "training at the best of four step sizes, chosen on 300 digits of their own. First: share of 400 test digits that "
    "a training labels otherwise than synchronous training does after as many gradient steps, with two synchronous "
    "trainings of other batches as the yardstick. Second: how far nodes part until a sync. Below: accuracy against "
    "what a node has sent, parameters and momentum; one synchronous training is as short as the others' syncs are few, "
    "with a step size tuned for that. Means over the seeds.",
    requires="torch",
    module="torch",
)
