"""Mini-batches: Local-SGD tends to the pooled direction as Local-GD does; its certificate holds as far as recorded.

Measured: the angle to the exact pooled max-margin direction, what the certificate proves of it, and the bracket of the
pooled margin, at spaced rounds, for several batch sizes and seeds. All runs of a data set take the same step size.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, worst
from localgd.experiments.measure import angles, at_quarter, federation, grid, over_certified, pooled, spaced
from localgd.methods.averaging import local_gd, local_sgd
from localgd.methods.method import Method
from localgd.report.figure import Line, Panel
from localgd.run.loop import train

LOCAL_STEPS = 10
DATA = ("gauss-2000-shifted", "golub", "bladder")
SPLITS = {"golub": "by_label"}
TITLES = {
    "gauss-2000-shifted": "Gaussian rows, 10 unlike nodes",
    "golub": "Leukaemia, 5 nodes by label",
    "bladder": "Bladder cancer, 5 batches",
}
RUN = ["data", "batch", "replacement", "replicate"]
KIND = ["data", "batch", "replacement"]


def cells(data: Sequence[str], kinds: Sequence[tuple[int, bool]], replicates: int, rounds: int) -> list[Params]:
    """Return one full-batch cell per data set (batch None), and every kind of mini-batch with every seed."""
    return [
        cell
        for name in data
        for kind, seeds in [((None, False), 1), *((kind, replicates) for kind in kinds)]
        for cell in grid(data=[name], batch=kind[:1], replacement=kind[1:], replicate=range(seeds), rounds=[rounds])
    ]


def method(params: Params, seed: int) -> Method:
    """Return Local-SGD as a cell asks for it, or Local-GD for its full batches; both with η = 1/β."""
    if params["batch"] is None:
        return local_gd(local_steps=LOCAL_STEPS)
    batch, again = params["batch"], params["replacement"]
    return local_sgd(local_steps=LOCAL_STEPS, batch_size=batch, replacement=again, seed=seed)


def run(params: Params, seed: int) -> Rows:
    """Train one cell; one row per spaced round."""
    data = params["data"]
    answer, engine = pooled(data), federation(data, SPLITS.get(data))
    done = train(engine, method(params, seed), n_rounds=params["rounds"], reference=answer.direction)
    shown = [done.history[k] for k in spaced(done.n_rounds)]
    return [
        {
            **angles(row),
            "low": row.low / answer.margin_high,
            "high": row.high / answer.margin_low,
            "loss": row.loss,
        }
        for row in shown
    ]


def ends(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the last row of every run, with the angle about a quarter of the way (`before_deg`)."""
    last = frame.filter(pl.col("round") == pl.col("rounds"))
    return last.join(at_quarter(frame, RUN, "rounds"), on=RUN, how="left", nulls_equal=True).sort(RUN)


def over_seeds(frame: pl.DataFrame) -> pl.DataFrame:
    """Return, for every kind of run and round, mean, least and largest angle over the seeds."""
    angle = pl.col("angle_deg")
    shown = frame.group_by([*KIND, "round"]).agg(angle.mean(), low_deg=angle.min(), high_deg=angle.max())
    return shown.sort([*KIND, "round"])


def compared(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the kinds of mini-batch at the end: mean angle, spread over it, and its excess over the full batch's."""
    last = over_seeds(frame.filter(pl.col("round") == pl.col("rounds")))
    full = last.filter(pl.col("batch").is_null()).select("data", full_deg="angle_deg")
    return (
        last.filter(pl.col("batch").is_not_null())
        .join(full, on="data", how="left")
        .with_columns(
            spread=(pl.col("high_deg") - pl.col("low_deg")) / pl.col("angle_deg"),
            excess=(pl.col("angle_deg") / pl.col("full_deg") - 1).abs(),
        )
    )


def judge(frame: pl.DataFrame) -> Checks:
    """Hold certificate, spread, agreement with full batches and progress against their limits."""
    counts = frame.group_by(RUN).agg(n=pl.col("certified_deg").is_finite().sum())
    kinds, last = compared(frame), ends(frame)
    rounds, left = last["rounds"].max(), worst(last["angle_deg"])
    return {
        "largest excess of the true angle over the certified one, degrees": at_most(0.0, over_certified(frame)),
        "fewest of the rounds shown that have a certified angle, over the runs": at_least(
            5, counts["n"].cast(pl.Int64)
        ),
        "largest excess of the pooled margin over its bracket, as part of it": at_most(
            0.0, pl.concat([frame["low"] - 1, 1 - frame["high"]])
        ),
        "largest spread of the final angle over seeds, as part of its mean": at_most(0.05, kinds["spread"]),
        "final mean angle away from that of full batches, as part of it": at_most(0.05, kinds["excess"]),
        "final angle as part of that after a quarter of the rounds, largest": at_most(
            0.9, last["angle_deg"] / last["before_deg"]
        ),
        f"largest angle after {rounds!s} rounds, degrees": at_most(
            5.0, left, f"the rate is 1/log: up to {left:.0f} degrees are left after {rounds!s} rounds"
        ),
    }


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Draw one panel per data set: mean and range over seeds for every batch size, and the certified angle."""
    return [_panel(frame.filter(pl.col("data") == name), name) for name in DATA if name in frame["data"]]


def _panel(frame: pl.DataFrame, data: str) -> Panel:
    lines = []
    for color, ((_, batch, again), part) in enumerate(over_seeds(frame).group_by(KIND, maintain_order=True)):
        name = "all rows" if batch is None else f"{batch} row{'s' * (batch != 1)}{', with repl.' * again}"
        lines.append(Line(part["round"], part["angle_deg"], name, color, low=part["low_deg"], high=part["high_deg"]))
    highest = frame.group_by("round").agg(pl.col("certified_deg").nan_max()).sort("round")
    proof = Line(highest["round"], highest["certified_deg"], "certified", len(lines), style="dashed")
    return Panel(TITLES[data], "round", "angle to the pooled model (degrees)", [*lines, proof], log_x=True)


EXPERIMENT = Experiment(
    name="local-sgd",
    title="Mini-batches",
    claim="Local-SGD, with batches as small as one row, tends to the pooled max-margin direction as Local-GD does, at "
    "the same slow rate; what the certificate says of it is true in every recorded round.",
    source="Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2 (extension to Local-SGD); Nacson, Srebro, Soudry 2019 for one "
    "node; the certificate: ours",
    quick=cells(DATA[:2], [(1, False), (1, True), (4, False)], 3, 200),
    full=cells(DATA, [(1, False), (1, True), (4, False), (4, True)], 5, 600),
    run=run,
    judge=judge,
    draw=draw,
    caption="Angle between the shared model and the pooled max-margin direction, 10 local steps a round, for batches "
    "of one row, of four and of all rows, drawn with or without replacement: mean over the seeds, the band from least "
    "to largest. Dashed: the largest certified angle over the runs, from the first round in which each has one.",
)
