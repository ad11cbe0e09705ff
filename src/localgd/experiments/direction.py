"""Direction: whatever the local steps, the step size and the nodes, Local-GD turns towards the pooled model.

Every cell trains one federation with one L, one step size and one loss, and follows the true angle to the pooled
max-margin direction, the certified angle, and the loss, next to the gradient flow at the time t = ηLk.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, least, worst
from localgd.experiments.measure import angles, federation, grid, lines, over_certified, pooled, spaced, step_size
from localgd.losses import LOSSES
from localgd.methods.averaging import local_gd
from localgd.report.figure import Line, Panel
from localgd.rounding import angle_deg
from localgd.run.loop import train
from localgd.theory import asymptote, flow, flow_loss

ALIKE, UNLIKE = "rate-law", "gauss-2000-shifted"
NAMES = {ALIKE: "nodes alike", UNLIKE: "nodes unlike"}
LATE = (1e30, 1e60)
"""Times at which the flow is asked where it is going: no run gets there. By 1/log t the angle halves between them."""


def run(params: Params, seed: int) -> Rows:  # noqa: ARG001  nothing here is random
    """Train one cell; return one row per recorded round, and one for the flow at its far end."""
    data, loss, local_steps = params["data"], params["loss"], params["local_steps"]
    engine, answer = federation(data), pooled(data)
    reference = answer.direction
    method = local_gd(local_steps=local_steps, lr=params["lr"], loss=loss)
    done = train(engine, method, n_rounds=params["n_rounds"], reference=reference)
    rounds = spaced(done.n_rounds)
    times = step_size(done.method) * local_steps * np.array(rounds, dtype=float)
    shards = list(engine.shards.values())
    models = flow(shards, [*times, *LATE], loss=LOSSES[loss])
    constant = asymptote(shards) if data == ALIKE else None  # every row must support
    return [
        {
            "round": k,
            "time": float(t),
            **angles(done.history[k]),
            "loss_value": done.history[k].loss,
            "loss_over_bound": done.history[k].loss / flow_loss(answer.margin_low, float(t)).value,
            "flow_deg": angle_deg(model, reference),
            "asymptote_deg": None if constant is None or t <= 1 else constant.angle_deg(float(t)),
            "flow_late_deg": angle_deg(models[-2], reference),
            "flow_later_deg": angle_deg(models[-1], reference),
        }
        for k, t, model in zip(rounds, times, models, strict=False)
    ]


def judge(frame: pl.DataFrame) -> Checks:
    """Return the checks: near the flow, which tends to 0; loss like 1/(ηLk); certificate true; and how far it gets."""
    ends = frame.filter(pl.col("round") == pl.col("n_rounds"))
    off, paper = ends["angle_deg"] / ends["flow_deg"], ends["lr"] == "paper"
    reached, rounds = ends["angle_deg"], int(worst(frame["n_rounds"]))
    return {
        "theorem's step size: distance of the last angle from the gradient flow's, relative, worst cell": at_most(
            0.1, (off - 1).abs().filter(paper)
        ),
        "any step size: last angle over that of the flow at the same time ηLk, worst cell": at_most(1.5, off),
        "angle of that flow at time 1e60 over that at 1e30 (1/log says 0.5), worst cell": at_most(
            0.55, frame["flow_later_deg"] / frame["flow_late_deg"]
        ),
        "last loss against 1/(1 + γ²ηLk), as a factor either way, worst cell": at_most(
            2.0, ends["loss_over_bound"].log().abs().exp()
        ),
        "exponential loss, theorem's step size: loss over 1/(1 + γ²ηLk), which the flow never exceeds, worst "
        "recorded round": at_most(1.25, frame.filter(lr="paper", loss="exponential")["loss_over_bound"]),
        "true minus certified angle, worst recorded round (degrees)": at_most(0.0, over_certified(frame)),
        "share of the runs with a certified angle below 90 degrees at the end": at_least(
            0.5, ends.filter(pl.col("certified_deg") < 90.0).height / ends.height
        ),
        f"angle after {rounds} rounds, worst cell (degrees)": at_most(
            1.0,
            reached,
            f"1/log is slow: after {rounds} rounds the angle is {least(reached):.1f}° at best and "
            f"{worst(reached):.1f}° at worst",
        ),
    }


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return angle and loss against rounds, for nodes alike and unlike."""
    angle, panels = "angle to the pooled model (degrees)", []
    for data, name in NAMES.items():
        part = frame.filter(loss="exponential", data=data).sort("local_steps", "round")
        paper, auto = part.filter(lr="paper"), part.filter(lr="auto")
        panels += [
            Panel(f"{name}: step size 1/(βL)", "rounds", angle, [*_angles(paper), *_flow(paper)], True, True),
            Panel(f"{name}: step size 1/β", "rounds", angle, _angles(auto), True, True),
            Panel(
                f"{name}: loss, step size 1/(βL)",
                "rounds",
                "mean loss per row",
                _angles(paper, "loss_value"),
                True,
                True,
            ),
        ]
    return panels


def _angles(part: pl.DataFrame, column: str = "angle_deg") -> list[Line]:
    return lines(part, "local_steps", "round", column, "L = {}")


def _flow(paper: pl.DataFrame) -> list[Line]:
    first = paper.filter(pl.col("local_steps") == pl.col("local_steps").min())
    known = first.filter(pl.col("asymptote_deg") <= 25)  # far too early for it before
    found = [Line(first["round"], first["flow_deg"], "gradient flow", 6, "dashed")]
    if first["asymptote_deg"].null_count() < first.height:
        found.append(Line(known["round"], known["asymptote_deg"], "its asymptote", 7, "dotted"))
    return found


EXPERIMENT = Experiment(
    name="direction",
    title="The direction of Local-GD is the pooled direction",
    claim="On linearly separable data Local-GD turns towards the max-margin model of the pooled rows, for every number "
    "L of local steps and however unlike the nodes, while the loss falls like 1/(ηLk).",
    source="Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2, theorems on Local-GD (step size O(1/L)); Soudry et al., JMLR "
    "2018, for the pooled direction. Step size 1/β with many local steps is outside the theorem.",
    quick=grid(data=NAMES, loss=["exponential"], lr=("paper", "auto"), local_steps=(1, 10, 100), n_rounds=[200]),
    full=grid(
        data=NAMES,
        loss=("exponential", "logistic"),
        lr=("paper", "auto"),
        local_steps=(1, 10, 100, 1000),
        n_rounds=[1000],
    ),
    run=run,
    judge=judge,
    draw=draw,
    caption="True angle to the pooled max-margin model and training loss against rounds, exponential loss (the full "
    "run judges the logistic loss too); 10 nodes of 30 rows in 2,000 dimensions, drawn alike (rate-law) and around "
    "shifted means (gauss-2000-shifted). Dashed: the gradient flow at time ηLk; dotted: its exact asymptote, where "
    "every row is a support vector.",
)
