"""Every method through one table: a new method is a new row of `common.METHODS`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common import METHODS, OTHER_ORDER, PENALISED, SOLVER, as_csr, federation, random_rows, stacked
from localgd import InProcess, SampledNodes, Shard, Status, auto, consensus, interior_point, local_gd, train
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.consensus import Consensus
from localgd.rules.interior import Mehrotra

methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_method = pytest.mark.parametrize("method", [*METHODS.values(), *PENALISED.values()], ids=[*METHODS, *PENALISED])


def history(run):
    """The history without the wall clock."""
    columns = run.columns()
    del columns["seconds"]
    return {name: np.array(column) for name, column in columns.items()}


def identical(a, b):
    x, y = history(a), history(b)
    return np.array_equal(a.w, b.w) and all(np.array_equal(x[name], y[name], equal_nan=True) for name in x)


@every_method
def test_two_runs_from_one_seed_are_identical_to_the_last_bit(method):
    engine = InProcess(random_rows(1))
    first = train(engine, method, n_rounds=10)
    assert identical(first, train(engine, method, n_rounds=10))
    assert identical(first, train(InProcess(random_rows(1)), method, n_rounds=10))


@every_method
def test_neither_node_order_nor_threads_change_a_bit(method):
    shards = random_rows(2)
    first = train(InProcess(shards), method, n_rounds=10)
    assert identical(first, train(InProcess(shards[::-1]), method, n_rounds=10))
    assert identical(first, train(InProcess(shards, n_jobs=3), method, n_rounds=10))


@every_method
def test_dense_and_csr_rows_give_the_same_model(method):
    shards = random_rows(3)
    dense = train(InProcess(shards), method, n_rounds=10)
    sparse = train(InProcess(as_csr(shards)), method, n_rounds=10)
    np.testing.assert_allclose(dense.w, sparse.w, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@methods
@pytest.mark.parametrize("nodes", [None, SampledNodes(0.5, seed=3)], ids=["all nodes", "half the nodes"])
@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_at_every_round(method, nodes, seed):
    shards = random_rows(seed)
    pooled = max_margin(stacked(shards))
    if nodes is not None and method.whole_rounds:
        with pytest.raises(ValueError, match="needs every node in every round"):
            train(InProcess(shards), method, nodes=nodes)
        return
    run = train(InProcess(shards), method, n_rounds=60, nodes=nodes, reference=pooled.direction)
    assert [row.round for row in run.history] == list(range(len(run.history)))
    assert len(run.history) == 61 or isinstance(run.method.merge, Consensus | Mehrotra)  # which end when they are done
    for row in run.history:
        assert row.low <= pooled.margin_high
        assert row.high >= pooled.margin_low
        assert math.isnan(row.angle_deg_max) or row.true_angle_deg <= row.angle_deg_max + SOLVER
    last = run.history[-1]
    assert last.margin <= (stacked(shards) @ run.w).min() / np.linalg.norm(run.w)
    assert last.true_angle_deg == pytest.approx(angle_deg(run.w, pooled.direction))


@methods
def test_rows_at_any_scale_give_the_same_angles(method):
    """Powers of two are exact, so every run is the same run."""
    shards = random_rows(4)
    plain = train(InProcess(shards), method, n_rounds=10)
    for factor in (2.0**90, 2.0**-90):
        scaled = train(InProcess([Shard(s.node_id, s.rows * factor) for s in shards]), method, n_rounds=10)
        assert np.isfinite(scaled.w).all()
        x, y = history(plain), history(scaled)
        if getattr(method.task, "prox", 0) == 0:  # a pull λ has a unit, so it does not scale along
            np.testing.assert_allclose(y["loss"], x["loss"], rtol=OTHER_ORDER)
            np.testing.assert_allclose(y["angle_deg_max"], x["angle_deg_max"], rtol=1e-6)
            np.testing.assert_allclose(y["high"], x["high"] * factor, rtol=1e-6)


@methods
def test_more_nodes_than_rows_each_and_one_column_work(method):
    shards = [Shard(f"n{i:02d}", [[1.0 + 0.1 * i]]) for i in range(12)]
    run = train(InProcess(shards), method, n_rounds=5)
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.angle_deg_max < 1e-5


@methods
def test_a_single_node_works(method):
    run = train(InProcess(random_rows(5)[-1:]), method, n_rounds=30)
    assert run.certificate.separable


@pytest.mark.parametrize(
    "method", [auto(max_mb=1e-4), consensus(), interior_point(), local_gd(local_steps=20)], ids=str
)
def test_real_rows_that_nothing_separates_have_one_verdict_whoever_asks(method):
    found = train(federation("heart"), method, n_rounds=300).certificate
    assert (found.verdict, found.separable) == (Status.CANCELS, None)
    assert 0 < found.margin_high < 1e-11


def test_second_order_rounds_prove_that_nothing_separates_real_rows():
    found = train(federation("heart"), auto()).certificate
    assert (found.kind, found.verdict, found.separable) == ("minimiser", Status.CERTIFIED, False)
    assert 0 < found.margin_high < 1e-11


@methods
def test_contradictory_rows_are_called_not_separable_to_within_rounding(method):
    shards = [Shard("a", [[1.0, 0.2], [-1.0, -0.2]]), Shard("b", [[0.3, 1.0], [0.1, 1.0]])]
    run = train(InProcess(shards), method, n_rounds=500)
    assert run.certificate.separable is None  # what cancels to within rounding is no proof
    assert np.isfinite(run.w).all()
    assert run.certificate.margin_low <= 0
    if method.name != "local-sgd":  # the noise of small batches keeps the steps from cancelling
        assert run.certificate.verdict is Status.CANCELS, run.certificate
        assert run.certificate.status.startswith("not separable to within rounding: no direction")
