"""Networks: does the law of linear models reach homogeneous networks? Their margin, and their model, are two questions.

Two-layer ReLU networks and deep linear ones are trained over four nodes, by Local-GD, and where the rows are pooled, by
gradient descent: from the same start, with the same step size and number of gradient steps. The same rows are dealt to
nodes at random (alike) or by label (unlike). Measured: the normalised margin of the pooled rows, how near a KKT point
of its maximum the parameters are, and on which share of inputs that nobody trained on two models differ. There is no
theorem that Local-GD comes to the KKT point that pooled training comes to; of a deep linear network all have one map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, least, worst
from localgd.experiments.homogeneous import Homogeneous, local_gd, standing
from localgd.experiments.measure import grid
from localgd.reference.max_margin import max_margin
from localgd.report.figure import Line, Panel, Style
from localgd.rounding import FloatArray, angle_deg

N_NODES = 4
HELD_OUT = 2000
LR = 0.05
"""η, or η L where it falls with L."""

START = 0.3
"""Length of the start as part of the usual one: short, so that rows have more to say than it has."""

LOOKS = 16
"""Times at which runs are compared, equally spaced."""

APART = "labelled otherwise (%)"
CONSTANT, FALLING = "η = 0.05", "η = 0.05/L"
POOLED, OTHER_START, ALIKE, UNLIKE = "pooled", "pooled, other start", "nodes alike", "nodes unlike"
RELU, LINEAR = "relu", "linear"
KINDS = {RELU: "two-layer ReLU", LINEAR: "three-layer linear"}
STEPS = {CONSTANT: (5, 20, 100), FALLING: (5, 20)}
"""L by step size: so many gradient steps as L = 100 would take at a hundredth of η take too long."""

CELL = ["data", "step", "replicate", "local_steps"]
KIND = pl.col("data").str.split("-").list.first()


@dataclass(frozen=True)
class Setting:
    """A network and the rows a node has to train it on."""

    network: Homogeneous
    n_rows: int


DATA = {
    "relu-10": Setting(Homogeneous((10, 40, 1), relu=True), 15),
    "relu-20": Setting(Homogeneous((20, 80, 1), relu=True), 30),
    "linear-10": Setting(Homogeneous((10, 10, 10, 1), relu=False), 15),
    "linear-20": Setting(Homogeneous((20, 20, 20, 1), relu=False), 30),
}
"""By kind and number of inputs."""


def cells(data: Iterable[str], replicates: int, times: Mapping[str, float]) -> list[Params]:
    """Return a cell for every data set, seed and step size, which has a time ηLk of its own."""
    return [
        cell
        for step, time in times.items()
        for cell in grid(data=data, replicate=range(replicates), step=[step], until=[time])
    ]


def teacher(kind: str, n_inputs: int, rng: np.random.Generator) -> Callable[[FloatArray], FloatArray]:
    """Return a function of inputs whose sign is their label: linear, or two ReLU units minus two."""
    directions = rng.normal(size=(4, n_inputs))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    if kind == LINEAR:
        return lambda X: X @ directions[0]
    return lambda X: np.maximum(X @ directions.T, 0) @ [1.0, 1.0, -1.0, -1.0]


def rows_of(data: str, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return rows and labels to train on, as many of either sign, and others to compare models on.

    Rows that the teacher is not sure of, a quarter, are not trained on: what is left has a margin.
    """
    setting, kind = DATA[data], data.partition("-")[0]
    n_inputs, n_rows = setting.network.widths[0], N_NODES * setting.n_rows
    score = teacher(kind, n_inputs, rng)
    drawn = rng.normal(size=(10 * n_rows, n_inputs))
    scores = score(drawn)
    sure = np.abs(scores) > np.quantile(np.abs(scores), 0.25)
    X = np.concatenate([drawn[sure & (sign * scores > 0)][: n_rows // 2] for sign in (1, -1)])
    held_out = rng.normal(size=(HELD_OUT, n_inputs))
    return X, np.repeat([1.0, -1.0], n_rows // 2), held_out, np.where(score(held_out) >= 0, 1.0, -1.0)


def dealt(X: FloatArray, y: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return the same rows on nodes that are alike, and on nodes that are not: (2, M, n, inputs), and the labels.

    Rows come sorted by label, so that in that order every node has one label only.
    """
    orders = np.stack([rng.permutation(len(y)), np.arange(len(y))]).reshape(2, N_NODES, -1)
    return X[orders], y[orders]


def run(params: Params, seed: int) -> Rows:
    """Train one cell: pooled, from two starts, and Local-GD over both deals for every L; a row each at every look."""
    rng = np.random.default_rng(seed)
    network = DATA[params["data"]].network
    X, y, held_out, labels = rows_of(params["data"], rng)
    nodes = dealt(X, y, rng)
    starts = np.stack([START * network.start(rng) for _ in range(2)])
    best = _best_margin(network, X, y)
    pooled: dict[float, list[FloatArray]] = {}
    found = []
    for local_steps in STEPS[params["step"]]:
        lr = LR / local_steps if params["step"] == FALLING else LR
        span = round(params["until"] / (LOOKS * lr * local_steps))
        if lr not in pooled:
            twice = (np.broadcast_to(part, (2, 1, *part.shape)) for part in (X, y))
            pooled[lr] = _path(network, starts, *twice, lr=lr, local_steps=1, rounds=span * local_steps)
        both = np.stack([starts[0], starts[0]])
        over = _path(network, both, *nodes, lr=lr, local_steps=local_steps, rounds=span)
        for look, models in enumerate(zip(pooled[lr], over, strict=True), start=1):
            now = {"local_steps": local_steps, "time": look * span * local_steps * lr, "last": look == LOOKS}
            named = dict(zip((POOLED, OTHER_START, ALIKE, UNLIKE), np.concatenate(models), strict=True))
            signs = {name: np.sign(network.scores(theta, held_out)) for name, theta in named.items()}
            for name, theta in named.items():
                measured = {
                    **vars(standing(network, theta, X[None], y[None])),
                    "best_margin": best,
                    "angle_deg": angle_deg(theta, named[POOLED]),
                    "differ_percent": 100 * float((signs[name] != signs[POOLED]).mean()),
                    "right_percent": 100 * float((signs[name] == labels).mean()),
                }
                found.append({"model": name, **now, **measured})
    return found


def _path(
    network: Homogeneous, theta: FloatArray, X: FloatArray, y: FloatArray, *, lr: float, local_steps: int, rounds: int
) -> list[FloatArray]:
    """Return the models of several runs at every look, so many rounds apart."""
    path = []
    for _ in range(LOOKS):
        theta = local_gd(network, theta, X, y, lr=lr, local_steps=local_steps, rounds=rounds)
        path.append(theta)
    return path


def _best_margin(network: Homogeneous, X: FloatArray, y: FloatArray) -> float:
    """Return the largest normalised margin of a deep linear network, ``γ* D^(−D/2)``; NaN where none is known.

    |W_D … W_1| is at most the product of the lengths of the layers, and that is largest where all are |θ|/√D.
    """
    if network.relu:
        return np.nan
    return max_margin(X * y[:, None]).margin_high / float(network.degree ** (network.degree / 2))


def ends(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the Local-GD runs at the end, with what the pooled run has there, and what each had a quarter in."""
    early = frame.filter(pl.col("time") <= pl.col("time").max().over(CELL) / 4).sort("time")
    quarter = early.group_by([*CELL, "model"]).agg(quarter_percent=pl.col("differ_percent").last())
    last = frame.filter(pl.col("last"))
    pooled = last.filter(model=POOLED).select(*CELL, pooled_margin="margin", pooled_residual="residual")
    local = last.filter(pl.col("model").is_in([ALIKE, UNLIKE]))
    beside = local.join(pooled, on=CELL, how="left").join(quarter, on=[*CELL, "model"], how="left")
    return beside.with_columns(
        kind=KIND,
        kept=pl.when(pl.col("pooled_margin") > 0).then(pl.col("margin") / pl.col("pooled_margin")),
        residual_ratio=pl.col("residual") / pl.col("pooled_residual"),
    )


def judge(frame: pl.DataFrame) -> Checks:
    """Ask for the pooled margin, whether the models predict alike, and how near a KKT point they are."""
    local = ends(frame)
    falling, constant = (local.filter(step=step) for step in (FALLING, CONSTANT))
    deep = frame.filter(pl.col("best_margin").is_not_nan())
    ours, theirs = local["residual"], frame.filter("last", model=POOLED)["residual"]
    return {
        f"{FALLING}: normalised margin over the pooled run's, least": at_least(0.99, falling["kept"]),
        f"{CONSTANT}: normalised margin over the pooled run's, least": at_least(0.85, constant["kept"]),
        f"{KINDS[LINEAR]}: normalised margin over the largest that there is, worst": at_most(
            1 + 1e-9, deep["margin"] / deep["best_margin"]
        ),
        **{what: held for kind in KINDS for what, held in _model(frame, local.filter(kind=kind), kind).items()},
        "KKT residual over the pooled run's, largest": at_most(
            1.25,
            local["residual_ratio"],
            f"the KKT residual is up to {worst(local['residual_ratio']):.1f} times the pooled run's",
        ),
        "KKT residual at the end, largest": at_most(
            0.1,
            ours,
            f"no run is near a KKT point when it ends: residuals are {least(ours):.2f} to {worst(ours):.2f}, those of "
            f"the pooled runs {least(theirs):.2f} to {worst(theirs):.2f}",
        ),
    }


def _model(frame: pl.DataFrame, local: pl.DataFrame, kind: str) -> Checks:
    """Return the checks of the model of a kind of network, with two pooled runs as the yardstick."""
    other = frame.filter(pl.col("last"), kind == KIND, pl.col("model") == OTHER_START)["differ_percent"]
    checks: Checks = {
        f"{KINDS[kind]}, {step}: held-out inputs that it labels otherwise than the pooled run, most (%)": at_most(
            0.5,
            here["differ_percent"],
            f"with {step} a {KINDS[kind]} network is another model than the pooled run's: the two label "
            f"{_span(here['differ_percent'])} of held-out inputs differently, pooled runs from two starts "
            f"{_span(other)}",
        )
        for step in (FALLING, CONSTANT)
        for here in [local.filter(step=step)]
    }
    constant = local.filter(step=CONSTANT)
    now, before = (_mean(constant[column]) for column in ("differ_percent", "quarter_percent"))
    return {
        **checks,
        f"{KINDS[kind]}, {CONSTANT}: that share at the end over that after a quarter of the time, means": at_most(
            0.75,
            now / before if before else 0.0 if now == 0 else np.nan,
            f"and more rounds hardly mend that: after a quarter of them it was {before:.1f} %, it is {now:.1f} % "
            "on average",
        ),
    }


def _mean(values: pl.Series) -> float:
    """Return the mean; NaN if there is none or a value is missing."""
    return math.nan if math.isnan(worst(values)) else float(np.mean(values.to_numpy()))


def _span(percents: pl.Series) -> str:
    return f"{least(percents):.1f} to {worst(percents):.1f} %"


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return for each kind of network margin and disagreement against L, and disagreement against time."""
    local = ends(frame)
    longest = frame.filter(pl.col("step") == CONSTANT, pl.col("local_steps") == max(STEPS[CONSTANT]))
    looks: tuple[tuple[str, int, Style], ...] = ((OTHER_START, 0, "line"), (ALIKE, 2, "dashed"), (UNLIKE, 2, "line"))
    panels = []
    for kind, title in KINDS.items():
        here = local.filter(kind=kind)
        panels += [
            Panel(title, "local steps L", label, _against_steps(here, column), log_x=True)
            for column, label in (("kept", "margin over the pooled run's"), ("differ_percent", APART))
        ]
        over = longest.filter(kind == KIND).group_by("model", "time").agg(pl.col("differ_percent").mean()).sort("time")
        paths = [
            Line(part["time"], part["differ_percent"], model, color, style)
            for model, color, style in looks
            for part in [over.filter(model=model)]
        ]
        named = f"{title}, {CONSTANT}, L = {max(STEPS[CONSTANT])}"
        panels.append(Panel(named, "time ηLk", APART, paths, log_x=True))
    return panels


def _against_steps(local: pl.DataFrame, column: str) -> list[Line]:
    """Return a column against L: means of the runs, with unlike nodes in a band from the least to the largest."""
    value = pl.col(column)
    means = local.group_by("step", "model", "local_steps").agg(value.mean(), low=value.min(), high=value.max())
    shown = []
    for color, step in enumerate((FALLING, CONSTANT), start=1):
        alike, unlike = (means.filter(step=step, model=model).sort("local_steps") for model in (ALIKE, UNLIKE))
        x, low, high = "local_steps", unlike["low"], unlike["high"]
        shown.append(Line(alike[x], alike[column], f"{step}, {ALIKE}", color, "dashed"))
        shown.append(Line(unlike[x], unlike[column], f"{step}, {UNLIKE}", color, "line+points", low, high))
    return shown


EXPERIMENT = Experiment(
    name="networks",
    title="Networks without biases: the margin, and the model",
    claim="Of the law of linear models, the margin reaches homogeneous networks: after as many gradient steps from "
    "the same start Local-GD has the normalised margin that pooled training has, less at most 1 % where η falls with "
    "L, and 15 % where it does not. Whether it is the same model, by what it predicts, and how near a KKT point of the "
    "largest margin either is, are tested beside it.",
    source="ours; for one node and gradient flow: Lyu, Li, ICLR 2020; Ji, Telgarsky, ICLR 2019 (deep linear networks)",
    quick=cells(("relu-10", "linear-10"), 1, {CONSTANT: 800.0, FALLING: 40.0}),
    full=cells(DATA, 3, {CONSTANT: 800.0, FALLING: 100.0}),
    run=run,
    judge=judge,
    draw=draw,
    caption="Local-GD over four nodes against gradient descent on their pooled rows, from the same start and after as "
    "many gradient steps of the same size: the normalised margin of the pooled rows as part of the pooled run's, and "
    "the share of 2,000 inputs of their own that the two label differently; on the right, as time goes on, beside that "
    "of two pooled runs from other starts. The same rows are dealt at random (nodes alike) or by label (nodes unlike). "
    "Made-up rows, 15 and 30 a node, of 10 and 20 inputs; networks of 40 and 80 ReLU units, or of three linear layers, "
    "from a start of 0.3 times the usual length. Means over sizes and seeds; the band is from the least to the largest "
    "of unlike nodes.",
)
