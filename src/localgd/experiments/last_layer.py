"""Last layer: linear heads on frozen sentence embeddings, trained where the sentences are.

Three review sites hold their own sentences. Each sentence becomes 256 numbers of length 1 (WordLlama, frozen, from its
installed package: nothing is fetched) and a bias column. Heads are trained on n/3 sentences a site: at each site alone,
by Local-GD and Modified Local-GD over the sites, and on the pooled rows. Measured are the angle to the pooled head (the
max-margin direction where the pooled rows are separable, else the logistic minimiser; Modified Local-GD, which needs
separable rows, only there), the share of held-out sentences
of all sites that a head gets right, and what is certified. Whether the rows are separable is measured, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from localgd.data.datasets import load_dataset
from localgd.engine.inprocess import InProcess
from localgd.errors import extra
from localgd.experiments.claim import Checks, Experiment, Params, Rows, at_least, at_most, least, worst
from localgd.experiments.measure import angles, at_quarter, grid, in_points, lines, over_certified, spaced, stacked
from localgd.methods.averaging import local_gd, modified_local_gd
from localgd.methods.method import Method
from localgd.reference.max_margin import NotSeparableError, max_margin, pooled_direction
from localgd.report.figure import Line, Panel
from localgd.rounding import FloatArray, angle_deg, read_only
from localgd.rows import Shard
from localgd.run.loop import train

HELD_OUT = 200
"""Sentences a site keeps back to test all heads on, the same whatever n."""
FEDERATED, MODIFIED, POOLED, ALONE = "Local-GD, L = 100", "Modified Local-GD", "pooled", "alone: "
METHODS: dict[str, Method] = {FEDERATED: local_gd(local_steps=100), MODIFIED: modified_local_gd()}
SEPARABLE_TO, NOT_FROM = 600, 1500
"""Sentences up to which the pooled rows should be separable, and from which they should not (257 columns)."""


@cache
def embedded() -> dict[str, FloatArray]:
    """Return the signed rows of every site: embedding of length 1 and bias column, times the label."""
    with extra("embed", "wordllama"):
        wordllama: Any = import_module("wordllama")
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    sites = {}
    for table in load_dataset("sentences"):
        sentences: Any = table.features
        vectors = model.embed(sentences["sentence"].to_list(), norm=True).astype(np.float64)
        y = np.where(table.labels == np.max(table.labels), 1.0, -1.0)
        sites[table.node_id] = read_only(np.column_stack([vectors, np.ones(len(y))]) * y[:, None])
    return sites


def split(n_sentences: int, seed: int) -> tuple[list[Shard], FloatArray]:
    """Return n/3 rows a site to train on, and the held-out rows of all sites."""
    rng = np.random.default_rng(seed)
    training, held_out = [], []
    for site, rows in embedded().items():
        mixed = rows[rng.permutation(len(rows))]
        held_out.append(mixed[:HELD_OUT])
        training.append(Shard(site, mixed[HELD_OUT : HELD_OUT + n_sentences // 3]))
    return training, np.vstack(held_out)


def run(params: Params, seed: int) -> Rows:
    """Train all heads of one cell; return a row per head, and one per recorded round for those trained in rounds."""
    shards, held_out = split(params["n_sentences"], seed)
    margin = pooled_margin(shards)
    reference = pooled_direction(shards)
    here = {"separable": bool(margin > 0), "margin": margin}

    def row(head: str, w: FloatArray, *, last: bool = True, **other: float) -> dict[str, Any]:
        known = {"round": 0, "angle_deg": angle_deg(w, reference), "certified_deg": np.nan, "low": np.nan}
        right = 100 * float((held_out @ w > 0).mean()) if last else np.nan  # w is the model of the last round
        return {"head": head, **here, **known, "high": np.nan, "held_out_percent": right, "last": last} | other

    rows = [row(POOLED, reference), *(row(ALONE + shard.node_id, pooled_direction([shard])) for shard in shards)]
    for head, method in METHODS.items() if margin > 0 else [(FEDERATED, METHODS[FEDERATED])]:
        done = train(InProcess(shards), method, n_rounds=params["n_rounds"], reference=reference)
        for k in spaced(done.n_rounds):
            kept = done.history[k]
            rows.append(row(head, done.w, **angles(kept), low=kept.low, high=kept.high, last=k == done.n_rounds))
    return rows


def pooled_margin(shards: Sequence[Shard]) -> float:
    """Return the pooled max margin γ*, or 0 if no direction separates the rows."""
    try:
        return max_margin(stacked(shards)).margin_low
    except NotSeparableError:
        return 0.0


def judge(frame: pl.DataFrame) -> Checks:
    """Return the checks: true certificate, federated near the pooled head and as right, sites alone not."""
    cell = ["n_sentences", "replicate"]
    ends = frame.filter(pl.col("last"))
    alone = (
        ends.filter(pl.col("head").str.starts_with(ALONE))
        .group_by(cell)
        .agg(alone_deg=pl.col("angle_deg").min(), alone_percent=pl.col("held_out_percent").max())
    )
    pooled = ends.filter(head=POOLED).select(*cell, pooled_percent="held_out_percent")
    beside = ends.join(alone, on=cell, how="left").join(pooled, on=cell, how="left")
    ours = beside.filter(head=FEDERATED)
    anchored = beside.filter(pl.col("separable"), head=MODIFIED)
    return {
        **_proofs(frame),
        **_accuracy(ours),
        f"{FEDERATED}: angle over that of the nearest site's own head, worst cell": at_most(
            0.5, ours["angle_deg"] / ours["alone_deg"]
        ),
        f"{MODIFIED}, separable: angle over that of the nearest site's own head, worst cell": at_most(
            0.75, anchored["angle_deg"] / anchored["alone_deg"]
        ),
        **_how_near(frame, ours),
    }


def _how_near(frame: pl.DataFrame, ours: pl.DataFrame) -> Checks:
    """Return the checks of the angle left: still falling where the rows are separable, a few degrees where not."""
    cell = ["n_sentences", "replicate"]
    before = at_quarter(frame.filter(head=FEDERATED), cell, "n_rounds")
    apart = ours.filter("separable").join(before, on=cell, how="left")
    beside = ours.filter(~pl.col("separable"))["angle_deg"]
    left, after = apart["angle_deg"], f"after {worst(frame['n_rounds']):.0f} rounds"
    return {
        f"{FEDERATED}, separable: final angle as part of that after a quarter of the rounds, worst cell": at_most(
            0.9, left / apart["before_deg"]
        ),
        f"{FEDERATED}, not separable: angle to the pooled head {after}, worst cell (degrees)": at_most(10, beside),
        f"{FEDERATED}, separable: angle to the pooled head {after}, worst cell (degrees)": at_most(
            5.0,
            left,
            f"where the rows are separable, {FEDERATED} is {after} still between {least(left):.1f}° and "
            f"{worst(left):.1f}° from the pooled head, and falling",
        ),
        f"{FEDERATED}, not separable: the same angle, held against reaching the pooled head": at_most(
            1.0,
            beside,
            f"where they are not, it is {after} between {least(beside):.1f}° and {worst(beside):.1f}° beside "
            "the pooled head, and with L > 1 it stays beside it",
        ),
    }


def _proofs(frame: pl.DataFrame) -> Checks:
    """Return the checks of what was proved: separable or not, the bounds on γ*, the certified angles."""
    n, separable = pl.col("n_sentences"), pl.col("separable")
    wrong = ((n <= SEPARABLE_TO) & ~separable) | ((n >= NOT_FROM) & separable)
    bracket = frame.filter(separable & pl.col("low").is_not_nan())
    outside = pl.concat([bracket["low"] / bracket["margin"], bracket["margin"] / bracket["high"]]) - 1
    return {
        f"share of rows from cells not separable at {SEPARABLE_TO} sentences or fewer, or separable at {NOT_FROM} "
        "or more": at_most(0.0, frame.select(wrong.cast(pl.Float64).mean()).to_series()),
        "proved low bound over γ* − 1, and γ* over proved high bound − 1, worst round": at_most(1e-9, outside),
        "true minus certified angle, worst round (degrees)": at_most(0.0, over_certified(frame)),
    }


def _accuracy(ours: pl.DataFrame) -> Checks:
    """Return the checks of held-out accuracy against the pooled head and the best site's own."""
    gain = ours["held_out_percent"] - ours["alone_percent"]
    pooled_gain = ours["pooled_percent"] - ours["alone_percent"]
    return {
        f"{FEDERATED}: held-out accuracy below the pooled head's, worst cell (points)": at_most(
            3.0, pooled_gain - gain
        ),
        f"{FEDERATED}: held-out accuracy above the best site's own head, worst cell (points)": at_least(
            0.0,
            gain,
            f"pooling is not always worth it: {FEDERATED} is between {in_points(least(gain))} and "
            f"{in_points(worst(gain))} points better on held-out sentences than the best site's own head, and the "
            f"pooled head between {in_points(least(pooled_gain))} and {in_points(worst(pooled_gain))}",
        ),
    }


def draw(frame: pl.DataFrame) -> list[Panel]:
    """Return angle against rounds at the largest separable n, and angle and held-out accuracy against n."""
    n = int(worst(frame.filter(pl.col("separable"))["n_sentences"]))
    one = frame.filter(n_sentences=n, replicate=0).sort("round")
    alone = one.filter(pl.col("head").str.starts_with(ALONE))
    heads = [POOLED, FEDERATED, MODIFIED, *alone["head"].unique().sort()]
    paths = []
    for color, head in enumerate((FEDERATED, MODIFIED), start=1):
        path = one.filter(head=head)
        paths.append(Line(path["round"], path["angle_deg"], head, color))
        paths.append(Line(path["round"], path["certified_deg"], "certified", color, "dashed"))
    levels = [(float(angle), head) for head, angle in alone.select("head", "angle_deg").iter_rows()]
    mean = pl.col("angle_deg", "held_out_percent").mean()
    means = frame.filter(pl.col("last")).group_by("head", "n_sentences").agg(mean).sort("n_sentences")

    def against_n(column: str, first: int) -> list[Line]:
        names = {head: head for head in heads[first:]}
        return lines(means, "head", "n_sentences", column, names, color=first, style="line+points")

    angle, size = "angle to the pooled head (degrees)", "training sentences"
    return [
        Panel(f"{n} sentences, separable", "rounds", angle, paths, log_x=True, log_y=True, levels=levels),
        Panel("when the rounds end", size, angle, against_n("angle_deg", 1)),
        Panel("held-out sentences of all sites", size, "right (%)", against_n("held_out_percent", 0)),
    ]


EXPERIMENT = Experiment(
    name="last-layer",
    title="Last layer: one head for three sites, on a frozen embedding",
    claim="A linear head that Local-GD trains over the sites, on frozen sentence embeddings, comes near the head that "
    "pooled training would give: it tends to it where the rows are separable, and rests a few degrees beside it where "
    "they are not. It predicts as well; a head trained at one site alone does not get there.",
    source="ours, an application of Zhu, Vardhan, Mazumdar, arXiv 2412.07971v2",
    quick=grid(data=["sentences"], n_sentences=(600, 1500), n_rounds=[300], replicate=[0]),
    full=grid(data=["sentences"], n_sentences=(300, 600, 1500, 2400), n_rounds=[500], replicate=range(3)),
    run=run,
    judge=judge,
    draw=draw,
    caption="Sentences from three review sites (UCI Sentiment Labelled Sentences), embedded by WordLlama, 256 numbers "
    "each. The pooled head is the max-margin direction where the pooled rows are separable and the logistic minimiser "
    "where they are not; there Modified Local-GD is left out, and Local-GD with L > 1 has its resting point beside it "
    "(experiment non-separable). Dashed: the certified angle, once there is one; dotted: the heads of single sites. "
    "Accuracy is on 600 sentences that no head saw, mean over the draws: near 600 training sentences, where the rows "
    "are only just separable, pooling does not pay; with more sentences it does.",
    requires="embed",
    module="wordllama",
)
