"""Rate law: the gradient flow predicts the angle of Local-GD, and L local steps count like L steps.

Three problems at a small step size measure the prediction in its regime; one of them is repeated for several L and step
sizes c/L to see the curves fall on one another against ηLk, and how they part when c is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl

from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, worst
from localgd.experiments.measure import federation, grid, lines, pooled, scaled, spaced, step_size
from localgd.losses import LOSSES
from localgd.methods.averaging import local_gd
from localgd.report.figure import Line, Panel, Style
from localgd.rounding import angle_deg
from localgd.run.loop import train
from localgd.theory import asymptote, flow

PROBLEMS = ("rate-law", "gauss-2000", "gauss-2000-shifted", "gauss-400")
ALL_SUPPORT = "rate-law"
"""The problem of which every row is a support vector, so that the flow has an exact asymptote."""

STEPS = (1, 10, 100)
SMALL, LARGE = 0.1, 1.0
"""ηLβ, the step size of a round in units of the theorem's: the flow's regime, and the theorem's own."""

FROM_ROUND, COLLAPSE_FROM = 200, 50
STYLES: tuple[Style, ...] = ("line", "dashed", "dotted")
FAR = np.logspace(6, 30, 25)


def run(params: Params, seed: int) -> Rows:  # noqa: ARG001  nothing here is random
    """Train one cell, or integrate the flow to where no run gets; return one row per time."""
    data, local_steps = params["data"], params["local_steps"]
    engine, reference = federation(data), pooled(data).direction
    shards = list(engine.shards.values())
    if params["kind"] == "flow":
        constant = asymptote(shards)
        times, known = FAR, [{"asymptote_deg": constant.angle_deg(float(t))} for t in FAR]
    else:
        method = scaled(local_gd(local_steps=local_steps, lr="paper", loss="exponential"), engine, params["factor"])
        done = train(engine, method, n_rounds=params["n_rounds"], reference=reference)
        rounds = sorted({*spaced(done.n_rounds), COLLAPSE_FROM, FROM_ROUND} & set(range(1, done.n_rounds + 1)))
        times = step_size(done.method) * local_steps * np.array(rounds, dtype=float)
        known = [{"round": k, "angle_deg": done.history[k].true_angle_deg} for k in rounds]
    blank: dict[str, Any] = dict.fromkeys(("round", "time", "angle_deg", "flow_deg", "asymptote_deg"))
    models = flow(shards, times, loss=LOSSES["exponential"])
    return [
        {**blank, "time": float(t), "flow_deg": angle_deg(model, reference), **row}
        for row, t, model in zip(known, times, models, strict=True)
    ]


def judge(frame: pl.DataFrame) -> Checks:
    """Return the checks: flow against Local-GD, asymptote against flow, collapse; and the theorem's own step size."""
    regime = frame.filter(pl.col("round") >= FROM_ROUND, factor=SMALL, kind="problem")
    far = frame.filter(pl.col("time") >= 1e12, kind="flow")
    problems, parting = regime["data"].n_unique(), spread(frame, LARGE)
    return {
        f"flow against Local-GD from round {FROM_ROUND}, {problems} problems, ηL = {SMALL}/β: relative error, worst "
        "point": at_most(0.03, _off(regime, "flow_deg", "angle_deg")),
        "problems in that comparison": at_least(3.0, float(problems)),
        "asymptote against flow from t = 1e12, every row a support vector: relative error, worst point": at_most(
            0.02, _off(far, "asymptote_deg", "flow_deg")
        ),
        f"collapse: spread of the angle over L at equal ηLk, round {COLLAPSE_FROM} on, ηL = {SMALL}/β, worst "
        "round": at_most(0.02, spread(frame, SMALL)),
        f"the theorem's own step size ηL = {LARGE}/β: the same spread": at_most(
            0.02,
            parting,
            f"the collapse needs ηL well below 1/β; at ηL = 1/β the curves for different L differ by up to "
            f"{100 * worst(parting):.0f} % from round {COLLAPSE_FROM} on",
        ),
    }


def _off(part: pl.DataFrame, predicted: str, measured: str) -> pl.Series:
    return (part[predicted] / part[measured] - 1).abs()


def spread(frame: pl.DataFrame, factor: float) -> pl.Series:
    """Return, for every time from round 50 on, largest over smallest angle among the values of L, less 1.

    NaN where a value of L is missing or has no angle: what was not measured did not collapse.
    """
    same = frame.filter(pl.col("round") >= COLLAPSE_FROM, kind="collapse", factor=factor)
    angle = pl.col("angle_deg").fill_null(math.nan)
    by_time = same.group_by(pl.col("time").round_sig_figs(9)).agg(
        spread=angle.nan_max() / angle.nan_min() - 1, n=pl.col("local_steps").filter(angle.is_not_nan()).n_unique()
    )
    return by_time.select(pl.when(pl.col("n") == len(STEPS)).then("spread").otherwise(math.nan)).to_series()


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return prediction and measurement, their relative error, the collapse, and the flow's far end."""
    time, angle = "ηLk, the flow's time (1 over row length²)", "angle to the pooled model (degrees)"
    both, error = [], []
    problems = frame.filter(kind="problem").sort("round")
    for color, data in enumerate(name for name in PROBLEMS if name in problems["data"]):
        part = problems.filter(data=data)
        both.append(Line(part["time"], part["angle_deg"], "", color, "points"))
        both.append(Line(part["time"], part["flow_deg"], data, color, "dashed"))
        error.append(Line(part["round"], 100 * _off(part, "flow_deg", "angle_deg"), data, color))
    far = frame.filter(kind="flow").sort("time")
    ends = [
        Line(far["time"], far["flow_deg"], "flow", 1),
        Line(far["time"], far["asymptote_deg"], "asymptote", 2, "dashed"),
    ]
    panels = [
        Panel("Local-GD (dots) and flow (dashes)", time, angle, both, True, True),
        Panel("Error of the prediction", "rounds", "relative error (%)", error, True, levels=[(3.0, "3 %")]),
        Panel("The flow far out, every row supporting", time, angle, ends, True, True),
    ]
    for factor in (SMALL, LARGE):
        same = frame.filter(kind="collapse", factor=factor).sort("local_steps", "time")
        by_steps = zip(lines(same, "local_steps", "time", "angle_deg", "L = {}"), cycle(STYLES), strict=False)
        styled = [replace(line, style=style) for line, style in by_steps]
        panels.append(Panel(f"All L against ηLk, ηL = {factor:g}/β", time, angle, styled, True, True))
    return panels


def _grid(problems: Sequence[str], n_rounds: int) -> list[Params]:
    shared = {"n_rounds": [n_rounds]}
    return [
        *grid(kind=["problem"], data=problems, local_steps=[10], factor=[SMALL], **shared),
        *(
            cell
            for factor in (SMALL, LARGE)
            for cell in grid(kind=["collapse"], data=[ALL_SUPPORT], local_steps=STEPS, factor=[factor], **shared)
        ),
        {"kind": "flow", "data": ALL_SUPPORT, "local_steps": None, "factor": None, "n_rounds": None},
    ]


EXPERIMENT = Experiment(
    name="rate-law",
    title="The rate law: the angle falls like 1/log(ηLk), and the flow says by how much",
    claim="Where nodes move little within a round, the angle of Local-GD after k rounds is that of the gradient flow "
    "at time ηLk, for every L: L local steps count like L steps. Where every row is a support vector it tends to "
    "|ρ⊥|/(|ŵ| log t + ρ∥) with known constants.",
    source="The rate 1/log(Lk): Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2. The constant ρ: Soudry et al., JMLR 2018, "
    "section 3. The prediction of finite rounds by the flow, and its regime: ours.",
    quick=_grid(PROBLEMS[:3], 300),
    full=_grid(PROBLEMS, 3000),
    run=run,
    judge=judge,
    draw=draw,
    caption="Exponential loss; 10 nodes of 30 rows. Upper row: L = 10, ηL = 0.1/β, β the largest smoothness constant "
    "of a node. Collapse on rate-law, whose 300 rows are all support vectors.",
)
