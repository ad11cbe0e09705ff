"""What wide sparse rows take beyond themselves: no d × d, no copies without end, no report of every node at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array, hstack
from sklearn.datasets import dump_svmlight_file

from command import localgd
from localgd import (
    InProcess,
    LocalGDClassifier,
    LocalGDRegressor,
    Message,
    Regularised,
    Shard,
    lbfgs,
    load,
    prepare,
    train,
)
from localgd.data.table import numbered
from localgd.engine.policy import LARGE, in_order
from localgd.problems.regularised import Appraise

N, D, ENTRIES, NODES = 4000, 5000, 100, 10
PART = 5
"""The rows of `benchmarks/memory.py` are so many times more: then so are columns, and what counts as large."""

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


def of_width(d, n=N):
    """Return sparse rows, scores, the nodes that hold them, and their bytes."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, d, size=n * ENTRIES).astype(np.int32)
    indptr = np.arange(0, columns.size + 1, ENTRIES).astype(np.int32)
    rows = csr_array((rng.normal(size=columns.size), columns, indptr), shape=(n, d))
    rows.sum_duplicates()
    score = rows @ rng.normal(size=d)
    return rows, score, np.arange(n) % NODES, rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes


@pytest.fixture(scope="module")
def wide():
    return of_width(D)


@pytest.fixture
def in_proportion(monkeypatch):
    """What is large, and what is no burden, is a part of what it is for rows of the size that the claim is about."""
    monkeypatch.setattr("localgd.engine.policy.LARGE", LARGE // PART)


def fitted(**settings):
    return LocalGDClassifier(C=1.0, **{"n_rounds": 40, **settings})


@pytest.mark.usefixtures("in_proportion")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("n_classes", "d", "settings"),
    [
        (2, 200_000, {}),
        (5, 50_000, {}),
        (5, 50_000, {"multi_class": "ovr", "n_rounds": 10}),
        (2, 50_000, {"method": "scaffold", "local_steps": 2, "n_rounds": 70}),
    ],
    ids=["200,000 columns", "five classes", "each class against the rest", "scaffold"],
)
def test_so_does_a_long_fit_of_more_columns(n_classes, d, settings):
    rows, score, groups, size = of_width(d // PART)
    classes = np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))
    assert peak(lambda: fitted(**settings).fit(rows, classes, groups=groups)) <= 3 * size


@pytest.mark.usefixtures("in_proportion")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_so_do_rows_of_one_node_with_weights(wide):
    rows, score, _, size = wide
    weights = np.where(score > 0, 1.0, 2.0)
    assert peak(lambda: fitted(n_rounds=3).fit(rows, score > 0, sample_weight=weights)) <= 3 * size


def written(folder, kind, n, d):
    """Write sparse rows as a file for each node; return the bytes of the rows."""
    rows, score, groups, size = of_width(d, n)
    for node in range(NODES):
        own, y = rows[groups == node], (score[groups == node] > 0).astype(int)
        if kind == "npz":
            parts = {"data": own.data, "indices": own.indices, "indptr": own.indptr, "shape": own.shape}
            np.savez(folder / f"{node}.npz", **parts, y=y)
        else:
            dump_svmlight_file(own, y, str(folder / f"{node}.svm"), zero_based=False)
    return size


@pytest.mark.usefixtures("in_proportion")
@pytest.mark.parametrize("kind", ["npz", "svm"])
def test_so_do_rows_of_files(kind, tmp_path, monkeypatch):
    size = written(tmp_path, kind, N // 2, D)

    def trained():
        numbered.cache_clear()
        monkeypatch.setattr("localgd.data.table._NAMES", [()])  # they count, too
        federation, recipe = prepare(InProcess(load(tmp_path)))
        train(federation, lbfgs(), problem=Regularised(C=1.0, intercept=recipe.intercept), n_rounds=5)

    assert peak(trained) <= 3 * size


@pytest.mark.usefixtures("in_proportion")
def test_so_does_the_command(tmp_path):
    size = written(tmp_path, "npz", N, 50_000 // PART)
    assert peak(lambda: localgd("train", tmp_path, "--C", 1, "--n-rounds", 40)) <= 3 * size


@pytest.mark.parametrize(("memory", "intercept"), [(5, True), (5, False), (10, True)])
def test_lbfgs_holds_two_vectors_for_each_step_that_it_remembers_and_a_dozen_more(memory, intercept):
    d = 200_000
    rows, score, groups, _ = of_width(d, n=100)
    rows = csr_array(hstack([rows, np.ones((100, 1))])) if intercept else rows
    signed = csr_array(rows.multiply(np.sign(score)[:, None]))
    engine = InProcess([Shard(f"{node}", signed[groups == node]) for node in range(NODES)])
    problem = Regularised(C=1.0, intercept=intercept)
    run = {"method": lbfgs(memory=memory), "problem": problem, "n_rounds": memory + 5}
    assert peak(lambda: train(engine, **run)) <= (2 * memory + 12) * 8 * d


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
