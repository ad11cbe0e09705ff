"""Linear regression: averaged local least squares reach the pooled solution of least norm, at a rate known beforehand.

Every cell runs one federation with one L, or with exact local solutions, from 0, and follows the relative error to the
pooled minimum-norm solution. Nodes hold Gaussian rows, or rows whose spans make a chosen angle with one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from localgd.engine.inprocess import InProcess
from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, worst
from localgd.experiments.measure import grid, lines, spaced, stacked
from localgd.methods.method import Method
from localgd.problems.least_squares import LeastSquares
from localgd.report.figure import Line, Panel
from localgd.rounding import FloatArray, norm
from localgd.rows import Samples
from localgd.rules.local_squares import SquaresSteps, stable_lr
from localgd.rules.server import mean
from localgd.run.history import RoundInfo
from localgd.run.loop import train
from localgd.theory import projection_rate

GAUSSIAN, ANGLED = "gaussian", "angled"
D, N_ROWS = 200, 10
STEPS_AT = 60.0
"""The angle, in degrees, at which local steps are compared with exact local solutions."""

FLOOR, DIGITS, ROUNDING = 1e-12, 1e-9, 1e-8
"""Errors: where rounding ends a run, which one counts as solved, and above which a single round's factor is exact."""

CELL = ["data", "theta_deg", "n_nodes", "local_steps"]


def run(params: Params, seed: int) -> Rows:
    """Run one cell down to the floor or to the last round; return one row per recorded round."""
    nodes = _nodes(params, seed)
    engine = InProcess(nodes)
    exact = params["local_steps"] is None
    task = SquaresSteps() if exact else SquaresSteps(params["local_steps"], stable_lr(engine))
    rows, targets = stacked(nodes), np.concatenate([node.targets for node in nodes])
    reference = np.asarray(np.linalg.lstsq(rows, targets)[0])
    followed: list[float] = []

    def solved(info: RoundInfo) -> bool:
        followed.append(norm(info.w - reference) / norm(reference))
        return followed[-1] <= FLOOR

    method = Method("local-squares", task, mean(), LeastSquares())
    w = train(engine, method, n_rounds=params["n_rounds"], on_round=solved).w
    errors, last = np.array(followed), len(followed) - 1
    start = last * 9 // 10
    factors = errors[1:] / errors[:-1]
    known = {
        "rounds_run": last,
        "rate_measured": float((errors[last] / errors[start]) ** (1 / (last - start))),
        "rate_predicted": _predicted(nodes, task),
        "factor_worst": float(factors[errors[1:] >= ROUNDING].max()),
        "outside": _outside(rows, w),
    }
    return [{"round": k, "error": float(errors[k]), **known} for k in sorted({0, *spaced(last)})]


def _nodes(params: Params, seed: int) -> list[Samples]:
    """Return nodes with unlike targets: no model but the pooled ones fits them all."""
    rng, n_nodes = np.random.default_rng(seed), params["n_nodes"]
    if params["data"] == GAUSSIAN:
        blocks = list(rng.standard_normal((n_nodes, N_ROWS, D)))
    else:
        blocks = angled(rng, params["theta_deg"], n_nodes)
    return [Samples(f"node-{m:02d}", block, rng.standard_normal(N_ROWS)) for m, block in enumerate(blocks)]


def angled(rng: np.random.Generator, theta_deg: float, n_nodes: int) -> list[FloatArray]:
    """Return rows of nodes whose spans make chosen principal angles pairwise: `theta_deg`, and more from halfway to 90.

    The smallest stands apart from the others, so that the rate it sets shows before rounding ends a run.

    Direction i of every node leans on a common one by cos²τ_i = cos θ_i. The rows of a node mix its directions, with
    singular values between 0.2 and 1, so that few gradient steps are not yet the exact solution.
    """
    cosines = np.cos(np.radians([theta_deg, *np.linspace((theta_deg + 90.0) / 2, 90.0, N_ROWS - 1)])).clip(0.0)[:, None]
    directions = np.linalg.qr(rng.standard_normal((D, (n_nodes + 1) * N_ROWS)))[0].T.reshape(-1, N_ROWS, D)
    mix = np.linalg.qr(rng.standard_normal((N_ROWS, N_ROWS)))[0] * np.linspace(0.2, 1.0, N_ROWS)
    return [mix @ (np.sqrt(cosines) * directions[0] + np.sqrt(1 - cosines) * own) for own in directions[1:]]


def _predicted(nodes: Sequence[Samples], task: SquaresSteps) -> float:
    """Return 1 − λ_min(Σ p_m Π_m), or for L steps the same with I − (I − ηX_mᵀX_m/n_m)^L instead of Π_m."""
    if task.local_steps is None or task.lr is None:
        return projection_rate([np.asarray(node.rows) for node in nodes]).value
    parts = []
    for node in nodes:
        _, values, vectors = np.linalg.svd(np.asarray(node.rows), full_matrices=False)
        done = 1 - (1 - task.lr * values**2 / node.n_rows) ** task.local_steps
        parts.append(np.sqrt(done / len(nodes))[:, None] * vectors)
    values = np.linalg.svd(np.vstack(parts), compute_uv=False)  # all rows are independent here: none of them is 0
    return float(1 - values[-1] ** 2)


def _outside(rows: FloatArray, w: FloatArray) -> float:
    """Return the share of w outside the span of all rows; a solution inside it is the one of least norm."""
    basis = np.linalg.qr(rows.T)[0]
    return norm(w - basis @ (basis.T @ w)) / norm(w)


def judge(frame: pl.DataFrame) -> Checks:
    """Return the checks: solved, at the predicted rate, no round worse, of least norm, more local steps no slower."""
    ends = frame.filter(pl.col("round") == pl.col("rounds_run"))
    due = ends.filter(pl.col("rate_predicted") ** pl.col("n_rounds") <= DIGITS / 10)
    exact = pl.col("local_steps").is_null()
    return {
        f"relative error at the end, worst of the cells ({due.height} of {ends.height}) whose predicted rate "
        "leaves 1e-10": at_most(DIGITS, due["error"]),
        "share of the cells in that comparison": at_least(0.8, due.height / max(ends.height, 1)),
        "exact local solutions: logarithm of the measured rate over that of the predicted, relative error, worst "
        "cell": at_most(0.01, _off(ends.filter(exact))),
        "L local steps: the same, worst cell": at_most(0.01, _off(ends.filter(~exact))),
        "factor of a single round over the predicted rate, less 1, worst round": at_most(
            1e-6, ends["factor_worst"] / ends["rate_predicted"] - 1
        ),
        "share of the model outside the span of all rows, worst cell": at_most(1e-10, ends["outside"]),
        "more local steps: their rate's logarithm over that of fewer, smallest (below 1: slower)": at_least(
            0.99, _gains(ends)
        ),
    }


def _off(ends: pl.DataFrame) -> pl.Series:
    return (ends["rate_measured"].log() / ends["rate_predicted"].log() - 1).abs()


def _gains(ends: pl.DataFrame) -> pl.Series:
    """Return log rate over log rate of the next smaller L, exact solutions being the largest L, problem by problem."""
    speed = ends.sort("local_steps", nulls_last=True).with_columns(speed=-pl.col("rate_measured").log())
    return speed.select((pl.col("speed") / pl.col("speed").shift(1)).over(CELL[:3]))["speed"].drop_nulls()


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return error against rounds by L, measured against predicted rate, and rate against angle."""
    ends = frame.filter(pl.col("round") == pl.col("rounds_run"))
    n_nodes = int(worst(frame.filter(pl.col("local_steps").is_not_null())["n_nodes"]))
    errors, factor = _errors(frame.filter(theta_deg=STEPS_AT, n_nodes=n_nodes)), "1 − factor per round"
    title, error = f"Error by local steps: {n_nodes} nodes at {STEPS_AT:.0f}°", "relative error to the pooled solution"
    between = "smallest angle between the nodes' row spaces (degrees)"
    predicted, measured = f"predicted: {factor}", f"measured: {factor}"
    return [
        Panel(title, "rounds", error, errors, log_y=True),
        Panel("Rate: measured against predicted", predicted, measured, _rates(ends), log_x=True, log_y=True),
        Panel("Rate by angle, exact local solutions", between, factor, _by_angle(ends), log_y=True),
    ]


def _errors(part: pl.DataFrame) -> list[Line]:
    """Return a line for every L, as far as the last but one goes: one step would squeeze the others to the left."""
    more = (pl.col("local_steps") != pl.col("local_steps").min()).fill_null(value=True)
    shown = part.filter(pl.col("round") <= worst(part.filter(more)["round"]))
    steps = shown["local_steps"].unique().sort(nulls_last=True)
    names = {each: "exact" if each is None else f"L = {each}" for each in steps}
    return lines(shown.sort("round"), "local_steps", "round", "error", names)


def _rates(ends: pl.DataFrame) -> list[Line]:
    diagonal = 1 - ends["rate_predicted"].sort()
    steps, exact = ends.filter(pl.col("local_steps").is_not_null()), ends.filter(pl.col("local_steps").is_null())
    return [
        Line(diagonal, diagonal, "equal", 0, "dashed"),
        Line(1 - exact["rate_predicted"], 1 - exact["rate_measured"], "exact", 1, "points"),
        Line(1 - steps["rate_predicted"], 1 - steps["rate_measured"], "L steps", 2, "points"),
    ]


def _by_angle(ends: pl.DataFrame) -> list[Line]:
    exact = ends.filter((pl.col("data") == ANGLED) & pl.col("local_steps").is_null()).sort("n_nodes", "theta_deg")
    lines = []
    for color, one in enumerate(exact.partition_by("n_nodes", maintain_order=True), start=1):
        n_nodes, degrees = one["n_nodes"][0], np.linspace(one["theta_deg"][0], 90.0, 50)
        law = (1 - np.cos(np.radians(degrees))) / n_nodes
        lines.append(Line(one["theta_deg"], 1 - one["rate_measured"], "", color, "points"))
        lines.append(Line(degrees, law, f"{n_nodes} nodes", color, "dashed"))
    return lines


def _grid(nodes: Sequence[int], angles: Sequence[float], steps: Sequence[int], n_rounds: int) -> list[Params]:
    problems = [
        *grid(data=[GAUSSIAN], theta_deg=[None], n_nodes=nodes),
        *(cell for m in nodes for cell in grid(data=[ANGLED], theta_deg=angles, n_nodes=[m])),
    ]
    return [
        {**problem, "local_steps": local_steps, "n_rounds": n_rounds}
        for problem in problems
        for local_steps in ((*steps, None) if problem["theta_deg"] in (None, STEPS_AT) else (None,))
    ]


EXPERIMENT = Experiment(
    name="regression",
    title="Linear regression: averaged local solutions reach the pooled one, at a known rate",
    claim="On least squares with more columns than rows, Local-GD with any number L of local steps and averaged exact "
    "local solutions converge linearly to the pooled solution of least norm. Exact local solutions shrink the error by "
    "1 − λ_min(Σ p_m Π_m) a round, Π_m the projection onto the span of the rows of node m: the angles between these "
    "spans set the rate.",
    source="Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2, linear regression; averaged projections: Cimmino "
    "1938, and Pierra 1984 as one alternation in a product space. The rate for L steps, by the same argument for a "
    "symmetric operator: ours.",
    quick=_grid((2, 5), (10.0, 30.0, 60.0, 90.0), (1, 10, 100), 8000),
    full=_grid((2, 5, 10), (10.0, 20.0, 30.0, 45.0, 60.0, 75.0, 90.0), (1, 10, 100), 20_000),
    run=run,
    judge=judge,
    draw=draw,
    caption="Nodes of 10 rows in 200 dimensions, targets drawn at random. Rows are Gaussian, or such that any two "
    "nodes' row spaces make one principal angle as given and the others from halfway to 90 degrees. Step size 1/β, β "
    "the largest curvature of a node. Rates are means over the last tenth of the rounds above an error of 1e-12; "
    "dashed by angle: (1 − cos θ)/M for M nodes.",
)
