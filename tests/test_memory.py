"""What wide sparse rows take beyond themselves: no d × d, no copies without end, no report of every node at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from localgd import InProcess, LocalGDClassifier, LocalGDRegressor, Message, Regularised, Shard, lbfgs, train
from localgd.engine.policy import LARGE, in_order
from localgd.problems.regularised import Appraise

N, D, ENTRIES, NODES = 4000, 5000, 100, 10
METHODS = ("auto", "local-gd", "scaffold", "slowmo", "local-sgd")


def peak(do):
    """Return the most bytes held at once, beyond those before; what is imported on first use is there already."""
    do()
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    columns = rng.integers(0, D, size=N * ENTRIES).astype(np.int32)
    indptr = np.arange(0, columns.size + 1, ENTRIES).astype(np.int32)
    rows = csr_array((rng.normal(size=columns.size), columns, indptr), shape=(N, D))
    rows.sum_duplicates()
    score = rows @ rng.normal(size=D)
    return rows, score, np.arange(N) % NODES, rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_penalised_fit_takes_at_most_three_times_its_rows(wide, method):
    rows, score, groups, size = wide
    clf = LocalGDClassifier(C=1.0, method=method, n_rounds=3)
    assert peak(lambda: clf.fit(rows, score > 0, groups=groups)) <= 3 * size


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_so_do_many_classes_and_numbers(wide):
    rows, score, groups, size = wide
    classes = np.digitize(score, np.quantile(score, [0.25, 0.5, 0.75]))
    assert peak(lambda: LocalGDClassifier(C=1.0, n_rounds=3).fit(rows, classes, groups=groups)) <= 3 * size
    assert peak(lambda: LocalGDRegressor(alpha=1.0, n_rounds=3).fit(rows, score, groups=groups)) <= 3 * size


def many_nodes(d, n_nodes):
    rng = np.random.default_rng(0)
    places = [rng.integers(0, d, size=(4, 5)) for _ in range(n_nodes)]
    rows = [csr_array((np.ones(20), at.ravel(), np.arange(0, 21, 5)), shape=(4, d)) for at in places]
    return InProcess([Shard(f"n{k:03d}", x) for k, x in enumerate(rows)])


def test_a_round_over_many_nodes_holds_a_few_of_their_reports_at_once():
    d, n_nodes = 100_000, 60
    engine = many_nodes(d, n_nodes)
    problem, message = Regularised(C=1.0, intercept=False), Message(0, np.full(d, 0.01))
    assert peak(lambda: engine.round(Appraise(problem), message)) < 8 * 8 * d
    run = {"method": lbfgs(), "problem": problem, "n_rounds": 2}
    assert peak(lambda: train(engine, **run)) < 30 * 8 * d


def test_reports_added_as_they_come_are_the_sum_in_the_order_of_the_nodes():
    engine = many_nodes(LARGE, 5)
    task, message = Appraise(Regularised(C=1.0, intercept=False)), Message(0, np.linspace(-1, 1, LARGE))
    added = engine.round(task, message)
    reports = {node: engine.round(task, message, [node]) for node in engine.node_ids}
    one_by_one = in_order(reports)
    assert (added.n_nodes, added.n_rows) == (5, 20)
    for name, value in one_by_one.sums.items():
        np.testing.assert_array_equal(added.sums[name], value)
    assert added.mins["margin"] == one_by_one.mins["margin"]
    asked_again = InProcess(engine.shards.values(), retries=1).round(task, message)
    np.testing.assert_array_equal(added.sums["pull"], asked_again.sums["pull"])
    counted = InProcess(engine.shards.values())
    counted.round(task, message)
    assert counted.floats_up == sum(one.n_floats for one in reports.values())


def test_a_node_that_fails_is_left_out_of_a_sum_of_large_reports():
    engine = many_nodes(LARGE, 3)
    shards = list(engine.shards.values())
    task = Appraise(Regularised(C=1.0, intercept=False))

    class Lost(type(task)):
        def run(self, message, shard, state):
            if shard.node_id == "n001":
                raise RuntimeError("lost")
            return Appraise.run(task, message, shard, state)

    skipping = InProcess(shards, on_failure="skip")
    found = skipping.round(Lost(task.problem), Message(0, np.zeros(LARGE)))
    rest = in_order({n: engine.round(task, Message(0, np.zeros(LARGE)), [n]) for n in ("n000", "n002")})
    assert found.n_nodes == 2
    np.testing.assert_array_equal(found.sums["pull"], rest.sums["pull"])
    assert [failure.node_id for failure in skipping.failures] == ["n001"]
