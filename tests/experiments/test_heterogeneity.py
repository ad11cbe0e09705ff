"""Unlike nodes: the numbers of a small cell, and a verdict that each of them can overturn."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from common import OTHER_ORDER, answer, stacked
from localgd import train
from localgd.experiments.claim import Word
from localgd.experiments.heterogeneity import EXPERIMENT, LOCAL, MODIFIED, TARGETS, cells, method_of, problem, run
from localgd.experiments.measure import federation
from localgd.theory import diversity, local_directions

END = {LOCAL: 12.0, MODIFIED: 0.8}
OF_MODIFIED = pl.col("method") == MODIFIED
REFUTING = {
    "Local-GD, still falling: final": pl.when(OF_MODIFIED).then(1.0).otherwise(1.2),
    "Modified Local-GD: final": pl.when(OF_MODIFIED).then(2.0).otherwise(1.0),
}


def made_up():
    """All as claimed: five deals, unlike by 60 to 80 degrees, that need ever more rounds and reach every target."""
    rows = []
    for params in cells({"golub": 5}, ["iid"], [0.0], 200):
        i = params["replicate"]
        end = END[params["method"]]
        shared = {"diversity_deg": 60.0 + 5 * i, "diversity_max_deg": 90.0, "quarter_deg": end / 0.8, "end_deg": end}
        if params["method"] == MODIFIED:
            shared["quarter_deg"] = 3 * end
        rows += [params | shared | {"target_deg": target, "reached": 10.0 * i + 50 / target} for target in TARGETS]
    return pl.DataFrame(rows, infer_schema_length=None)


def refuted(frame):
    return [check.what for check in EXPERIMENT.verdict(frame).checks if check.limits is None and not check.passes]


@pytest.mark.parametrize("name", [LOCAL, MODIFIED])
def test_a_cell_says_when_a_run_reached_each_target(name):
    params = {"data": "golub", "split": "by_label", "shift": None, "replicate": 0, "method": name, "rounds": 60}
    rows = run(params, 1)
    engine, direction, unlike = problem("golub", "by_label", None, 1)
    known = train(engine, method_of(name, engine), n_rounds=60, reference=direction).history
    for row in rows:
        early = [h.true_angle_deg <= row["target_deg"] for h in known]
        assert row["reached"] == early.index(True) if any(early) else math.isnan(row["reached"])
    assert {row["end_deg"] for row in rows} == {known[-1].true_angle_deg}
    assert unlike == diversity(local_directions(list(engine.shards.values())))


def test_every_deal_has_the_same_rows_the_same_answer_and_the_same_step_size():
    steps = set()
    for split in ("iid", "dirichlet:0.3", "by_label"):
        engine, direction, _ = problem("golub", split, None, 2)
        assert np.array_equal(
            np.sort(stacked(engine.shards), axis=0), np.sort(stacked(federation("golub").shards), axis=0)
        )
        assert direction == pytest.approx(answer("golub").direction, abs=OTHER_ORDER)
        steps.add(method_of(LOCAL, engine).task.lr)
    assert len(steps) == 1


def test_what_is_as_claimed_holds():
    assert EXPERIMENT.verdict(made_up()).word is Word.HOLDS


@pytest.mark.parametrize("about", REFUTING)
def test_a_run_that_stops_refutes_it(about):
    found = refuted(made_up().with_columns(end_deg=pl.col("end_deg") * REFUTING[about]))
    assert len(found) == 1, found
    assert found[0].startswith(about)


def test_a_deal_that_stays_away_refutes_it():
    far = pl.when(OF_MODIFIED & (pl.col("replicate") == 0)).then(15.0).otherwise(1.0)
    found = refuted(made_up().with_columns(pl.col("end_deg", "quarter_deg") * far))
    assert found == ["Modified Local-GD: largest angle after 200 rounds, degrees"]


def test_a_local_run_that_hardly_moves_refutes_it():
    """From 45 degrees after a quarter of the rounds to 40 at the end."""
    stuck = (pl.col("method") == LOCAL) & (pl.col("replicate") == 0)
    bent = [pl.when(stuck).then(at).otherwise(name).alias(name) for name, at in (("quarter_deg", 45), ("end_deg", 40))]
    assert refuted(made_up().with_columns(bent)) == ["Local-GD: largest angle after 200 rounds, degrees"]


@pytest.mark.parametrize(("method", "name"), [(LOCAL, "Local-GD"), (MODIFIED, "Modified Local-GD")])
def test_rounds_that_do_not_grow_with_diversity_limit_it(method, name):
    falling = pl.when(pl.col("method") == method).then(100.0 - pl.col("reached")).otherwise(pl.col("reached"))
    verdict = EXPERIMENT.verdict(made_up().with_columns(reached=falling))
    assert (
        str(verdict)
        == f"{Word.LIMITED}: how far apart the nodes' own directions are does not tell the rounds of {name}"
    )


def test_a_target_not_reached_is_counted_and_ranks_last():
    missed = (pl.col("replicate") == 4) & (pl.col("target_deg") <= 5)
    frame = made_up().with_columns(reached=pl.when(missed).then(float("nan")).otherwise(pl.col("reached")))
    verdict = EXPERIMENT.verdict(frame)
    assert [check.what for check in verdict.checks if not check.passes] == [
        "share of the runs within 1 degree after 200 rounds"
    ]
    assert "none of them is nearer than 12.0 degrees" in str(verdict)
    assert "Modified Local-GD reaches 20, 10, 5, 1 degrees in 6, 6, 5, 5 of 6 runs" in str(verdict)
    assert "not in 200 rounds" in EXPERIMENT.draw(frame)[1].levels[0]


def test_the_figure_can_be_drawn():
    assert len(EXPERIMENT.draw(made_up())) == 3
