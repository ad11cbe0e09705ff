"""Consensus: the dual value only rises, the sums are what they say, and rows that agree on nothing are told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import OTHER_ORDER, as_csr, examples, federation, random_rows, stacked
from localgd import InProcess, Shard, Status, consensus, train
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.anderson import bordered, shortest_combination
from localgd.rules.consensus import since


def states(engine, method, n_rounds):
    """The server's states, and the reports between them."""
    d = next(iter(engine.shards.values())).n_features
    state = method.merge.init(np.zeros(d))
    yield state, None
    for _ in range(n_rounds):
        report = engine.round(method.task, method.merge.message(state))
        state = method.merge.step(state, report)
        yield state, report
        if state.done:
            return


@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 6), st.integers(2, 12), st.integers(1, 12)),
    memory=st.sampled_from([0, 5, 40]),
)
@settings(max_examples=examples(60))
def test_the_best_dual_value_never_falls_and_never_passes_the_optimum(seed, sizes, memory):
    """D = Σ a − ½|Σ a z|² is at most ½|ŵ|² = ½/γ*²."""
    shards = random_rows(seed, *sizes)
    best = 0.5 / max_margin(stacked(shards)).margin_low ** 2
    values = [state.value for state, _ in states(InProcess(shards), consensus(memory=memory), 40)]
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(values))
    assert values[-1] <= best * (1 + 1e-9)


@pytest.mark.parametrize("storage", [list, as_csr], ids=["dense", "csr"])
@pytest.mark.parametrize("sizes", [(3, 4, 12), (3, 20, 4)], ids=["wide", "tall"])
def test_the_sums_that_the_server_keeps_are_those_of_the_nodes(storage, sizes):
    """The server never sees a node's part; its sums and inner products must be those of the parts all the same."""
    engine = InProcess(storage(random_rows(3, *sizes)))
    method = consensus()
    for state, report in states(engine, method, 12):
        if report is None:
            continue
        held = {node: kept.after for node, kept in engine.nodes._kept["", method.task].items()}
        h = len(state.ends)
        for k in range(h):
            parts = []
            for node_id, shard in engine.shards.items():
                start, end = (np.zeros(shard.n_rows) for _ in range(2))
                for full, kept in ((start, held[node_id].starts[-h + k]), (end, held[node_id].ends[-h + k])):
                    full[kept.rows] = kept.values
                parts.append((shard.combine(start), shard.combine(end)))
            scale = max(1.0, np.linalg.norm(state.ends[k]))
            np.testing.assert_allclose(sum(a for a, _ in parts), state.starts[k], atol=OTHER_ORDER * scale)
            np.testing.assert_allclose(sum(b for _, b in parts), state.ends[k], atol=OTHER_ORDER * scale)
            moved = sum((b - a) @ (b - a) for a, b in parts)
            assert state.moves[k, k] == pytest.approx(moved, rel=1e-6, abs=1e-12 * scale**2)


def test_acceleration_beats_the_plain_iteration_by_far():
    fast = train(federation("golub"), consensus(), n_rounds=40)
    slow = train(federation("golub"), consensus(memory=0), n_rounds=40)
    assert fast.certificate.angle_deg_max < 1e-3 * slow.certificate.angle_deg_max


def test_one_node_is_done_at_once():
    shards = random_rows(5)[-1:]
    run = train(InProcess(shards), consensus())
    assert run.n_rounds < 10
    assert angle_deg(run.w, max_margin(stacked(shards)).direction) < 1e-6


def test_nodes_that_contradict_each_other_have_no_bound_below_and_a_falling_one_above():
    held = random_rows(1)[2]
    shards = [held, Shard("against", -held.rows[:1])]
    run = train(InProcess(shards), consensus(), n_rounds=200)
    assert run.certificate.separable is not True
    assert run.certificate.verdict in (Status.UNDECIDED, Status.NOT_SEPARABLE)
    assert np.isfinite(run.w).all()


def test_a_start_is_refused():
    with pytest.raises(ValueError, match="w0 has no meaning for consensus"):
        train(InProcess(random_rows(1)), consensus(), w0=np.ones(5))
    with pytest.raises(ValueError, match="memory must be 0 or"):
        consensus(memory=3)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 5)), min_size=1, max_size=6))
def test_since_is_the_first_share_with_no_negative_coefficient(pairs):
    start, end = np.array(pairs).T
    share = since(start, end)
    assert 0 <= share <= 1
    assert (start + share * (end - start)).min() >= -1e-12
    if share > 1e-6:
        assert (start + 0.99 * share * (end - start)).min() <= 0


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_shortest_combination_is_that_of_least_squares(seed, h):
    vectors = np.random.default_rng(seed).standard_normal((h, 8))
    weights = shortest_combination(vectors @ vectors.T)
    differences = vectors[:-1] - vectors[-1]
    best = np.linalg.lstsq(differences.T, -vectors[-1], rcond=None)[0]
    np.testing.assert_allclose(weights[:-1], best, atol=1e-6)
    assert weights.sum() == pytest.approx(1.0)
    gram = vectors @ vectors.T
    np.testing.assert_array_equal(bordered(gram[:-1, :-1], gram[-1]), gram)
