"""Trainings that share their rounds end as they do alone, to the bit, and fail in words."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from common import METHODS, PENALISED, against, random_rows, random_samples, with_bias
from engines.flower_grid import flower
from localgd import (
    InProcess,
    Message,
    NodeError,
    Regularised,
    Samples,
    Shard,
    auto,
    from_arrays,
    hold_out,
    leave_one_node_out,
    newton,
    prepare,
    train,
)
from localgd.data.survey import Survey
from localgd.engine.lanes import Together
from localgd.errors import from_all
from localgd.problems.least_squares import LeastSquares
from localgd.rules.probes import measured


def thirds(shard):
    """Three parts of a node's rows, each without every third; None where nothing is left."""
    index = np.arange(shard.n_samples)
    parts = [index[index % 3 != part] for part in range(3)]
    return [Shard(shard.node_id, shard.data.take(part)) if part.size else None for part in parts]


def alone(shards, part, method, **options):
    held = [thirds(shard)[part] for shard in shards]
    return train(InProcess(shard for shard in held if shard is not None), method, n_rounds=12, **options)


@pytest.mark.parametrize("name", [*METHODS, *PENALISED])
def test_trainings_that_share_rounds_end_as_they_do_alone(name):
    method = (METHODS | PENALISED)[name]
    shards = with_bias(random_rows(2, n=9)) if name in PENALISED else random_rows(2, n=9)
    together = Together.over(InProcess(shards), thirds)
    runs = together.run([lambda part=part: train(together.lane(part, part), method, n_rounds=12) for part in range(3)])
    for part, run in enumerate(runs):
        other = alone(shards, part, method)
        assert run.w.tobytes() == other.w.tobytes()
        assert run.certificate == other.certificate
        assert [row.loss for row in run.history] == [row.loss for row in other.history]
    assert together.n_rounds <= 1 + max(len(run.history) for run in runs) + 2  # who is there, sizes, a step size


def test_a_node_without_rows_in_a_part_takes_no_part_in_it():
    shards = random_rows(2)
    assert shards[0].n_rows == 1
    together = Together.over(InProcess(shards), thirds)
    assert [len(together.lane(0, part).node_ids) for part in range(3)] == [3, 4, 4]


def test_many_classes_and_real_targets_share_rounds():
    samples = random_samples(1)
    together = Together.over(InProcess(against(samples, 4)), lambda shard: [shard])
    (run,) = together.run([lambda: train(together.lane(0, 0), newton(), problem=Regularised(C=1.0))])
    assert run.w.tobytes() == train(InProcess(against(samples, 4)), newton(), problem=Regularised(C=1.0)).w.tobytes()
    rng = np.random.default_rng(0)
    held = [Samples(f"{m}", rng.standard_normal((9, 3)), rng.standard_normal(9)) for m in range(3)]
    together = Together.over(InProcess(held), lambda shard: [shard])
    (run,) = together.run([lambda: train(together.lane(0, 0), auto(), problem=LeastSquares(1.0))])
    assert run.w.tobytes() == train(InProcess(held), auto(), problem=LeastSquares(1.0)).w.tobytes()


def test_several_jobs_may_ask_about_one_part():
    shards = with_bias(random_rows(2, n=9))
    together = Together.over(InProcess(shards), lambda shard: [shard])
    problems = [Regularised(C=C) for C in (0.1, 1.0, 10.0)]
    jobs = [lambda job=job: train(together.lane(job, 0), newton(), problem=problems[job]) for job in range(3)]
    for problem, run in zip(problems, together.run(jobs), strict=True):
        assert run.w.tobytes() == train(InProcess(shards), newton(), problem=problem).w.tobytes()
    with pytest.raises(ValueError, match="two jobs change one part"):
        together.run([lambda job=job: together.lane(job, 0).map(lambda held: held) for job in range(2)])


def test_tables_are_prepared_by_the_rows_of_each_part():
    rng = np.random.default_rng(0)
    tables = from_arrays(rng.standard_normal((30, 2)) * 5 + 3, rng.integers(2, size=30), groups=np.arange(30) % 3)
    halves = [lambda table: table.take(np.arange(0, 10, 2)), lambda table: table.take(np.arange(1, 10, 2))]
    together = Together.over(InProcess(tables), lambda table: [half(table) for half in halves])

    def job(part):
        engine, recipe = prepare(together.lane(part, part), scale="standard")
        return recipe, train(engine, newton(), problem=Regularised(C=1.0)).w

    for half, (recipe, w) in zip(halves, together.run([lambda part=part: job(part) for part in range(2)]), strict=True):
        engine, expected = prepare(InProcess(half(table) for table in tables), scale="standard")
        assert recipe == expected
        assert w.tobytes() == train(engine, newton(), problem=Regularised(C=1.0)).w.tobytes()


def test_a_job_that_fails_ends_the_others_and_says_why():
    together = Together.over(InProcess(random_rows(2)), lambda shard: [shard, shard])
    ended = threading.Event()

    def endless():
        try:
            while True:
                train(together.lane(0, 0), METHODS["local-gd"], n_rounds=3)
        finally:
            ended.set()

    def fails():
        raise RuntimeError("out of patience")

    with pytest.raises(RuntimeError, match="out of patience"):
        together.run([endless, fails])
    assert ended.is_set()


def test_what_fails_on_a_node_for_one_job_ends_that_job_alone():
    tables = from_arrays(np.eye(6), list("ababab"), groups=list("nnnnss"))
    together = Together.over(InProcess(tables), lambda table: [table, table])

    def fails():
        with pytest.raises(NodeError, match="round 0, node 's': ValueError: not here") as caught:
            measured(together.lane(0, 0).map(failing))
        return caught.value

    def failing(table):
        if table.node_id == "s":
            raise ValueError("not here")
        return Shard(table.node_id, table.features)

    failure, sizes = together.run([fails, lambda: from_all(together.lane(1, 1), Survey(), Message()).n_nodes])
    assert (str(failure.__cause__), sizes) == ("not here", 2)


def test_over_flower_nothing_shares_rounds_as_nodes_run_no_code_of_a_server():
    elsewhere = flower(random_rows(2))
    for split in (lambda: Together.over(elsewhere, thirds), lambda: hold_out(elsewhere)):
        with pytest.raises(TypeError, match="Flower's nodes are sent data, not code"):
            split()
    with pytest.raises(TypeError, match="Flower's nodes are sent data, not code"):
        leave_one_node_out(elsewhere, lambda _: None)


def test_what_cannot_share_rounds_says_so():
    together = Together.over(InProcess(random_rows(2)), lambda shard: [shard])
    with pytest.raises(ValueError, match="share their rounds ask all nodes"):
        together.run([lambda: train(together.lane(0, 0), METHODS["local-gd"], nodes=lambda _, names: names[:1])])
