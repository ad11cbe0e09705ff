"""Regression that is cut short, that loses nodes, that is shared by threads and processes: the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from cut import CutError, assert_same_run
from localgd import (
    End,
    InProcess,
    LeastSquares,
    NodeError,
    Samples,
    conjugate_gradients,
    normal_equations,
    train,
)
from localgd.run.checkpoint import Checkpoints

METHODS = [normal_equations(), conjugate_gradients()]
PROBLEMS = {
    "ridge": (LeastSquares(0.5, intercept=True), (40, 9)),
    "least squares": (LeastSquares(), (40, 9)),
    "shortest": (LeastSquares(intercept=True), (12, 30)),
    "many steps": (LeastSquares(1e-3), (90, 70)),
}

both = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
every = pytest.mark.parametrize("name", PROBLEMS)


def federation(shape, kind=InProcess, **options):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), rng.standard_normal(shape[0])
    x[:, -1] = 1.0
    parts = np.array_split(np.arange(shape[0]), 4)
    return kind([Samples(f"node-{m}", x[part], y[part]) for m, part in enumerate(parts)], **options)


class Lossy(InProcess):
    """A federation whose network loses answers: some of the rounds after the first, one node each."""

    def __init__(self, shards, share, seed=0, **options):
        super().__init__(shards, **options)
        run, rng = self.nodes.run, np.random.default_rng(seed)

        def lossy(task, message, nodes):
            answers = run(task, message, nodes)
            if message.round > 0 and rng.random() < share:
                answers[nodes[-1]] = TimeoutError("no answer within 1 s")
            return answers

        self.nodes.run = lossy


@every
@both
def test_a_run_cut_at_any_round_ends_with_the_same_bits(method, name, tmp_path):
    problem, shape = PROBLEMS[name]
    expected = train(federation(shape), method, problem=problem)
    for round_ in {0, 1, 2, 3, 5, expected.n_rounds // 2, expected.n_rounds - 1} & set(range(expected.n_rounds)):
        kept = Checkpoints(tmp_path / f"{round_}", every_rounds=1)

        def cut(info, round_=round_):
            if info.row.round == round_:
                raise CutError

        with pytest.raises(CutError):
            train(federation(shape), method, problem=problem, checkpoints=kept, on_round=cut)
        assert_same_run(train(federation(shape), method, problem=problem, checkpoints=kept), expected)


@both
def test_a_run_that_was_out_of_rounds_goes_on(method, tmp_path):
    problem, shape = PROBLEMS["many steps"]
    expected = train(federation(shape), method, problem=problem)
    for n_rounds in range(1, expected.n_rounds, 3):
        kept = Checkpoints(tmp_path / f"{n_rounds}")
        first = train(federation(shape), method, problem=problem, n_rounds=n_rounds, checkpoints=kept)
        assert first.end is End.OUT_OF_ROUNDS
        assert first.unfinished
        assert_same_run(train(federation(shape), method, problem=problem, checkpoints=kept), expected)


def test_a_checkpoint_of_another_penalty_is_refused(tmp_path):
    kept = Checkpoints(tmp_path / "held")
    train(federation((40, 9)), METHODS[0], problem=LeastSquares(1.0), n_rounds=2, checkpoints=kept)
    with pytest.raises(ValueError, match=r"of another run .*LeastSquares\(alpha=1.0.*LeastSquares\(alpha=2.0"):
        train(federation((40, 9)), METHODS[0], problem=LeastSquares(2.0), checkpoints=kept)


@pytest.mark.parametrize("retries", [0, 3])
@every
@both
def test_nodes_that_are_lost_cost_rounds_and_no_bit(method, name, retries):
    problem, shape = PROBLEMS[name]
    calm = train(federation(shape), method, problem=problem)
    engine = federation(shape, Lossy, share=0.2, on_failure="skip", retries=retries)
    run = train(engine, method, problem=problem)
    np.testing.assert_array_equal(run.w, calm.w)
    assert run.end is End.DONE
    assert run.failures
    assert run.certificate.distance == calm.certificate.distance
    if not retries:
        assert run.n_rounds - calm.n_rounds == sum(row.n_nodes < 4 for row in run.history[:-1]) > 0
        assert "repeated, as nodes were missing" in run.certificate.reason
        partial = [row for row in run.history if row.n_nodes < 4]
        proved = [row.gap for row in run.history if row.n_nodes == 4]
        assert all(row.gap in proved or not row.gap < np.inf for row in partial)


@both
def test_without_a_policy_a_node_that_is_lost_ends_the_run_by_name(method):
    with pytest.raises(NodeError, match=r"round 1, node 'node-3': TimeoutError"):
        train(federation((40, 9), Lossy, share=1.0), method, problem=LeastSquares())


@every
@both
def test_threads_change_no_bit(method, name):
    problem, shape = PROBLEMS[name]
    one, three = (train(federation(shape, n_jobs=jobs), method, problem=problem) for jobs in (1, 3))
    assert_same_run(three, one)
