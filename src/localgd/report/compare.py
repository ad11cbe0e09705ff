"""Methods side by side on one federation: what each costs until an angle to the pooled model is proved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from localgd.core import Engine, Problem
from localgd.methods.method import Choice, Method
from localgd.report.figure import Line, Panel
from localgd.rounding import FloatArray
from localgd.run.goals import Angle
from localgd.run.history import RoundInfo, Run
from localgd.run.loop import train

ANGLES = (10.0, 1.0, 0.1, 0.001)
"""Degrees to be proved."""


def compare(
    engine: Engine,
    methods: Mapping[str, Method | Choice],
    *,
    problem: Problem | None = None,
    n_rounds: int = 500,
    angles: Sequence[float] = ANGLES,
    reference: FloatArray | None = None,
    on_round: Callable[[RoundInfo], bool | None] | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Run]:
    """Run every method until the smallest angle is proved, its rounds are spent, or nothing is left to gain.

    Without a `problem` every method looks for what it is for. `reference` is the pooled direction, where pooling is
    allowed. `on_round` is called after every round, and its true answer ends it all; `on_method` before every method.
    """
    runs: dict[str, Run] = {}
    stopped, goal = False, Angle(min(angles))
    for method in methods.values():  # what is refused is refused before anything is trained
        train(engine, method, problem=problem, n_rounds=0, goal=goal)

    def watched(info: RoundInfo) -> bool:
        nonlocal stopped
        stopped = bool(on_round(info)) if on_round is not None else False
        return stopped

    for name, method in methods.items():
        if stopped:
            break
        if on_method is not None:
            on_method(name)
        runs[name] = train(
            engine, method, problem=problem, n_rounds=n_rounds, goal=goal, on_round=watched, reference=reference
        )
    return runs


def milestones(runs: Mapping[str, Run], angles: Sequence[float] = ANGLES) -> list[dict[str, Any]]:
    """Return one row per method and angle: rounds, floats sent and seconds until it was proved; NaN if it was not.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.methods.exact import consensus
    >>> engine = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> rows = milestones(compare(engine, {"consensus": consensus()}, angles=[1.0]), [1.0])
    >>> rows[0]["method"], rows[0]["rounds"] < 10
    ('consensus', True)
    """
    out = []
    for name, run in runs.items():
        for angle in angles:
            row = next((row for row in run.history if row.angle_deg_max <= angle), None)
            out.append({
                "method": name,
                "took": run.method.name,
                "certified_deg": angle,
                "rounds": math.nan if row is None else row.round + 1,
                "floats_sent": math.nan if row is None else row.floats_up + row.floats_down,
                "seconds": math.nan if row is None else row.seconds,
                "final_accuracy": run.history[-1].accuracy,
                "weighted": run.weighted,
                "final_certified_deg": run.history[-1].angle_deg_max,
                "final_true_deg": run.history[-1].true_angle_deg,
                "final_rounds": run.n_rounds,
                "status": run.certificate.status,
            })  # fmt: skip
    return out


def panels(runs: Mapping[str, Run]) -> list[Panel]:
    """Return the figure: certified angle against rounds and against megabytes sent."""
    by_round, by_size = [], []
    for color, (name, run) in enumerate(runs.items()):
        columns = run.columns()
        sent = [8 * (up + down) / 1e6 for up, down in zip(columns["floats_up"], columns["floats_down"], strict=True)]
        by_round.append(Line([k + 1 for k in columns["round"]], columns["angle_deg_max"], name, color))
        by_size.append(Line(sent, columns["angle_deg_max"], name, color))
    angle = "proved angle (degrees)"
    return [
        Panel("Proved, by rounds", "rounds", angle, by_round, log_x=True, log_y=True),
        Panel("Proved, by what is sent", "megabytes sent by and to all nodes", angle, by_size, log_x=True, log_y=True),
    ]
