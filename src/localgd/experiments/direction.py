"""Direction: whatever the local steps, the step size and the nodes, Local-GD turns towards the pooled model.

Every cell trains one federation with one L, one step size and one loss, and follows the true angle to the pooled
max-margin direction, the certified angle, and the loss, next to the gradient flow at the time t = ηLk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from localgd.experiments.claim import Check, Experiment, Params, Rows, least, worst
from localgd.experiments.measure import federation, pooled, spaced, step_size
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
    data, loss, local_steps = str(params["data"]), str(params["loss"]), int(params["local_steps"] or 0)
    engine, answer = federation(data), pooled(data)
    reference = answer.direction
    method = local_gd(local_steps=local_steps, lr=params["lr"], loss=loss)  # type: ignore[arg-type]  # "auto" or "paper"
    done = train(engine, method, n_rounds=int(params["n_rounds"] or 0), reference=reference)
    rounds = spaced(done.n_rounds)
    times = step_size(done) * local_steps * np.array(rounds, dtype=float)
    shards = list(engine.shards.values())
    models = flow(shards, [*times, *LATE], loss=LOSSES[loss])
    constant = asymptote(shards) if data == ALIKE else None  # every row must support
    rows = []
    for k, t, model in zip(rounds, times, models, strict=False):
        kept = done.history[k]
        rows.append(
            {
                "round": k,
                "time": float(t),
                "angle_deg": kept.true_angle_deg,
                "certified_deg": kept.angle_deg_max,
                "loss_value": kept.loss,
                "loss_over_bound": kept.loss / flow_loss(answer.margin_low, float(t)).value,
                "flow_deg": angle_deg(model, reference),
                "asymptote_deg": None if constant is None or t <= 1 else constant.angle_deg(float(t)),
                "flow_late_deg": angle_deg(models[-2], reference),
                "flow_later_deg": angle_deg(models[-1], reference),
            }
        )
    return rows


def judge(frame: pl.DataFrame) -> Sequence[Check]:
    """Return the checks: near the flow, which tends to 0; loss like 1/(ηLk); certificate true; and how far it gets."""
    ends = frame.filter(pl.col("round") == pl.col("n_rounds"))
    angles, flows = ends["angle_deg"], ends["flow_deg"]
    paper = ends["lr"] == "paper"
    exponential = frame.filter((pl.col("lr") == "paper") & (pl.col("loss") == "exponential"))
    rounds = int(worst(frame["n_rounds"]))
    return [
        Check(
            "theorem's step size: distance of the last angle from the gradient flow's, relative, worst cell",
            worst((angles / flows - 1).abs().filter(paper)),
            0.1,
        ),
        Check(
            "any step size: last angle over that of the flow at the same time ηLk, worst cell",
            worst(angles / flows),
            1.5,
        ),
        Check(
            "angle of that flow at time 1e60 over that at 1e30 (1/log says 0.5), worst cell",
            worst(frame["flow_later_deg"] / frame["flow_late_deg"]),
            0.55,
        ),
        Check(
            "last loss against 1/(1 + γ²ηLk), as a factor either way, worst cell",
            worst(ends["loss_over_bound"].log().abs().exp()),
            2.0,
        ),
        Check(
            "exponential loss, theorem's step size: loss over 1/(1 + γ²ηLk), which the flow never exceeds, worst "
            "recorded round",
            worst(exponential["loss_over_bound"]),
            1.25,
        ),
        *_certificates(frame, ends),
        Check(
            f"angle after {rounds} rounds, worst cell (degrees)",
            worst(angles),
            1.0,
            limits=f"1/log is slow: after {rounds} rounds the angle is {least(angles):.1f}° at best and "
            f"{worst(angles):.1f}° at worst",
        ),
    ]


def _certificates(frame: pl.DataFrame, ends: pl.DataFrame) -> list[Check]:
    """Return the checks of the certified angle: never below the true one, and there at all."""
    certified = frame.filter(pl.col("certified_deg").is_not_nan())
    proved = ends.filter(pl.col("certified_deg") < 90.0).height / ends.height
    return [
        Check(
            "true minus certified angle, worst recorded round (degrees)",
            worst(certified["angle_deg"] - certified["certified_deg"]),
            0.0,
        ),
        Check("share of the runs with a certified angle below 90 degrees at the end", proved, 0.5, "at least"),
    ]


def draw(frame: pl.DataFrame) -> Sequence[Panel]:
    """Return angle and loss against rounds, for nodes alike and unlike."""
    shown = frame.filter(pl.col("loss") == "exponential")
    panels = []
    for data, name in NAMES.items():
        part = shown.filter(pl.col("data") == data)
        panels.append(
            Panel(
                f"{name}: step size 1/(βL)", "rounds", "angle to the pooled model (degrees)", _paper(part), True, True
            )
        )
        panels.append(
            Panel(f"{name}: step size 1/β", "rounds", "angle to the pooled model (degrees)", _auto(part), True, True)
        )
        panels.append(Panel(f"{name}: loss, step size 1/(βL)", "rounds", "mean loss per row", _loss(part), True, True))
    return panels


def _paper(part: pl.DataFrame) -> list[Line]:
    lines = _lines(part.filter(pl.col("lr") == "paper"), "angle_deg")
    first = part.filter((pl.col("lr") == "paper") & (pl.col("local_steps") == pl.col("local_steps").min())).sort(
        "round"
    )
    lines.append(Line(first["round"], first["flow_deg"], "gradient flow", 6, "dashed"))
    if first["asymptote_deg"].null_count() < first.height:
        known = first.drop_nulls("asymptote_deg").filter(pl.col("asymptote_deg") <= 25)  # far too early for it before
        lines.append(Line(known["round"], known["asymptote_deg"], "its asymptote", 7, "dotted"))
    return lines


def _auto(part: pl.DataFrame) -> list[Line]:
    return _lines(part.filter(pl.col("lr") == "auto"), "angle_deg")


def _loss(part: pl.DataFrame) -> list[Line]:
    return _lines(part.filter(pl.col("lr") == "paper"), "loss_value")


def _lines(part: pl.DataFrame, column: str) -> list[Line]:
    found = []
    for color, steps in enumerate(sorted(part["local_steps"].unique())):
        one = part.filter(pl.col("local_steps") == steps).sort("round")
        found.append(Line(one["round"], one[column], f"L = {steps}", color))
    return found


def _grid(steps: Sequence[int], losses: Sequence[str], n_rounds: int) -> list[dict[str, Any]]:
    return [
        {"data": data, "loss": loss, "lr": lr, "local_steps": local_steps, "n_rounds": n_rounds}
        for data in NAMES
        for loss in losses
        for lr in ("paper", "auto")
        for local_steps in steps
    ]


EXPERIMENT = Experiment(
    name="direction",
    title="The direction of Local-GD is the pooled direction",
    claim="On linearly separable data Local-GD turns towards the max-margin model of the pooled rows, for every number "
    "L of local steps and however unlike the nodes, while the loss falls like 1/(ηLk).",
    source="Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2, theorems on Local-GD (step size O(1/L)); Soudry et al., JMLR "
    "2018, for the pooled direction. Step size 1/β with many local steps is outside the theorem.",
    quick=_grid((1, 10, 100), ("exponential",), 200),
    full=_grid((1, 10, 100, 1000), ("exponential", "logistic"), 1000),
    run=run,
    judge=judge,
    draw=draw,
    caption="True angle to the pooled max-margin model and training loss against rounds, exponential loss (the full "
    "run judges the logistic loss too); 10 nodes of 30 rows in 2,000 dimensions, drawn alike (rate-law) and around "
    "shifted means (gauss-2000-shifted). Dashed: the gradient flow at time ηLk; dotted: its exact asymptote, where "
    "every row is a support vector.",
)
