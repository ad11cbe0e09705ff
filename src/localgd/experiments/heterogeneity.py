"""Nodes more or less unlike: where training leads does not depend on it; whether the rounds needed do is measured.

The same rows are dealt over five nodes in many ways. Rows count equally (node weights n_m/N) and the step size is one
for all deals, so that nothing but the dealing differs. How unlike the nodes are is the mean angle between their own
max-margin directions. Gaussian nodes with means further and further apart are other rows each time; they stand aside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import polars as pl
from scipy.stats import spearmanr

from localgd.data.synthetic import GaussianProblem
from localgd.engine.inprocess import InProcess
from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, least
from localgd.experiments.measure import federation, grid, lines, pooled, stacked
from localgd.methods.averaging import local_gd, modified_local_gd
from localgd.methods.method import Method
from localgd.reference.max_margin import max_margin
from localgd.report.figure import Panel
from localgd.rounding import FloatArray
from localgd.run.history import Run
from localgd.run.loop import train
from localgd.theory import Diversity, diversity, local_directions

LOCAL, MODIFIED = "local-gd", "modified-local-gd"
NAMES = {LOCAL: "Local-GD", MODIFIED: "Modified Local-GD"}
AIM = {LOCAL: 20.0, MODIFIED: 5.0}
"""The angle in degrees that a method's speed is read at: the smallest target that it reaches often."""

TARGETS = (20.0, 10.0, 5.0, 1.0)
LOCAL_STEPS = 100
N_NODES = 5


def cells(data: dict[str, int], splits: Sequence[str], shifts: Sequence[float], rounds: int) -> list[Params]:
    """Return the cells: every split of every data set, dealt as many times as said, and the Gaussian shifts."""
    both = {"method": (LOCAL, MODIFIED), "rounds": [rounds]}
    return [
        *(
            cell
            for name, replicates in data.items()
            for cell in grid(data=[name], split=splits, shift=[None], replicate=range(replicates), **both)
        ),
        *grid(data=["gaussian"], split=[None], shift=shifts, replicate=[0], **both),
    ]


@cache
def problem(data: str, split: str | None, shift: float | None, seed: int) -> tuple[InProcess, FloatArray, Diversity]:
    """Return nodes, the pooled direction, and how unlike the nodes are."""
    if shift is None:
        engine, direction = federation(data, split, N_NODES, seed), pooled(data).direction
    else:
        engine = InProcess(GaussianProblem(10, 30, 400, shift, 0).shards())
        direction = max_margin(stacked(engine.shards.values())).direction
    return engine, direction, diversity(local_directions(list(engine.shards.values())))


def method_of(name: str, engine: InProcess) -> Method:
    """Return the method; the step size 4/R², R the largest row norm, is at most 1/β whatever the deal."""
    if name == MODIFIED:
        return modified_local_gd(weighted_by="num-examples")
    lr = 4 / max(shard.radius for shard in engine.shards.values()) ** 2
    return local_gd(local_steps=LOCAL_STEPS, lr=lr, weighted_by="num-examples")


def run(params: Params, seed: int) -> Rows:
    """Train one cell; one row per target, with NaN rounds if it was not reached."""
    engine, direction, unlike = problem(params["data"], params["split"], params["shift"], seed)
    n_rounds = params["rounds"]
    done = train(engine, method_of(params["method"], engine), n_rounds=n_rounds, reference=direction)
    shared = {
        "diversity_deg": unlike.mean_deg,
        "diversity_max_deg": unlike.max_deg,
        "quarter_deg": done.history[n_rounds // 4].true_angle_deg,
        "end_deg": done.history[-1].true_angle_deg,
    }
    return [{"target_deg": target, "reached": reached(done, target), **shared} for target in TARGETS]


def reached(done: Run, target: float) -> float:
    """Return the first round whose model is within `target` degrees of the pooled one, NaN if none is."""
    return next((float(row.round) for row in done.history if row.true_angle_deg <= target), math.nan)


def correlation(frame: pl.DataFrame, method: str) -> pl.Series:
    """Return for every data set the rank correlation of diversity with rounds; not reached ranks last."""
    dealt = aimed(frame, method).filter(pl.col("split").is_not_null())
    found = [
        float(spearmanr(part["diversity_deg"], part["reached"].fill_nan(math.inf)).statistic)
        for _, part in dealt.group_by("data", maintain_order=True)
    ]
    return pl.Series(found, dtype=pl.Float64)


def aimed(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """Return the rows of a method at its own target."""
    return frame.filter(method=method, target_deg=AIM[method])


def counted(frame: pl.DataFrame, method: str) -> str:
    """Return how many runs of a method reach each target, in words."""
    found = [frame.filter(method=method, target_deg=target)["reached"].is_finite() for target in TARGETS]
    targets, counts = ", ".join(f"{target:.0f}" for target in TARGETS), ", ".join(str(each.sum()) for each in found)
    return f"{NAMES[method]} reaches {targets} degrees in {counts} of {len(found[0])} runs"


def judge(frame: pl.DataFrame) -> Checks:
    """Ask that every deal nears the pooled direction, and whether unlike nodes need more rounds."""
    n = frame["rounds"].max()
    local, modified = aimed(frame, LOCAL), aimed(frame, MODIFIED)
    within = frame.filter(target_deg=min(TARGETS))["reached"].is_finite()
    return {
        "Local-GD, still falling: final angle as part of that after a quarter of the rounds, largest": at_most(
            0.9, local["end_deg"] / local["quarter_deg"]
        ),
        "Modified Local-GD: final angle as part of that after a quarter of the rounds, largest": at_most(
            0.5, modified["end_deg"] / modified["quarter_deg"]
        ),
        f"Local-GD: largest angle after {n!s} rounds, degrees": at_most(AIM[LOCAL], local["end_deg"]),
        f"Modified Local-GD: largest angle after {n!s} rounds, degrees": at_most(10.0, modified["end_deg"]),
        **{
            f"{name}: rank correlation of diversity and rounds to {AIM[method]:.0f} degrees, smallest": at_least(
                0.5,
                correlation(frame, method),
                f"how far apart the nodes' own directions are does not tell the rounds of {name}",
            )
            for method, name in NAMES.items()
        },
        f"share of the runs within {min(TARGETS):.0f} degree after {n!s} rounds": at_least(
            1.0,
            float(within.sum()) / len(within),
            f"within {n!s} rounds {counted(frame, LOCAL)}, and none of them is nearer than "
            f"{least(local['end_deg']):.1f} degrees at the end; {counted(frame, MODIFIED)}",
        ),
    }


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Draw rounds against diversity for either method, and the Gaussian nodes moved apart."""
    gaussian = frame.filter(pl.col("shift").is_not_null(), target_deg=min(TARGETS)).sort("shift")
    apart = lines(gaussian, "method", "shift", "end_deg", NAMES, style="line+points")
    title, shift = f"Gaussian nodes after {frame['rounds'].max()!s} rounds", "shift of the nodes' means"
    last = Panel(title, f"{shift} (in spreads of one node)", "angle to the pooled model (degrees)", apart)
    return [_speed(frame, LOCAL), _speed(frame, MODIFIED), last]


def _speed(frame: pl.DataFrame, method: str) -> Panel:
    shown = aimed(frame, method).filter(pl.col("split").is_not_null())
    n: Any = shown["rounds"].max()
    dots = shown.with_columns(pl.col("reached").fill_nan(1.25 * n))
    levels = [(1.25 * n, f"not in {n} rounds")] if shown["reached"].is_nan().any() else []
    return Panel(
        NAMES[method],
        "mean angle between nodes' directions (degrees)",
        f"rounds to {AIM[method]:.0f} degrees",
        lines(dots, "data", "diversity_deg", "reached", color=1, style="points"),
        log_y=True,
        levels=levels,
    )


EXPERIMENT = Experiment(
    name="heterogeneity",
    title="Unlike nodes",
    claim="However the rows are dealt over the nodes, Modified Local-GD nears the same pooled direction, and the angle "
    "of Local-GD to it is still falling when the rounds end. "
    "Whether nodes whose own max-margin directions are further apart need more rounds is tested beside it.",
    source="convergence: Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2; the rounds needed are not in the theorem: ours",
    quick=cells({"golub": 3}, ("iid", "dirichlet:0.3", "by_label"), (0.0, 2.0), 300),
    full=cells(
        {"golub": 3, "bladder": 2},
        ("iid", "dirichlet:10", "dirichlet:1", "dirichlet:0.3", "dirichlet:0.1", "by_label"),
        (0.0, 0.5, 1.0, 1.5, 2.0),
        500,
    ),
    run=run,
    judge=judge,
    draw=draw,
    caption="Left and middle: each point is one way of dealing the same rows over five nodes; rounds until the angle "
    "to the pooled model falls to the target, against the mean angle between the nodes' own max-margin directions. "
    "Right: no deals, but a Gaussian problem of its own for every point, and its own pooled model: ten nodes "
    "in 400 columns with their means moved apart; their own directions are 88 to 90 degrees "
    "apart throughout. Local-GD takes 100 local steps of size 4/R², R the largest row norm; rows count equally.",
)
