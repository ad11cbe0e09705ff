"""Evaluation tells the same over every engine: it is rounds like the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common import random_rows, with_bias
from engines.test_contract import engines
from localgd import ClassRows, InProcess, Message, Model, Samples, Shard, evaluate
from localgd.data.probabilities import Probabilities
from localgd.flower import FlowerEngine
from localgd.problems.metrics import Evaluate


def rounded(found):
    """What was found as JSON, numbers to ten digits: sums in another order differ in the last ones."""
    return json.loads(json.dumps(found.to_dict()), parse_float=lambda number: round(float(number), 10))


@engines
def test_two_classes_are_judged_as_in_process(make):
    shards = with_bias(random_rows(2), noise=0.2)
    model = Model.from_vector(np.arange(1.0, 7.0) / 9, fit_intercept=True, probabilities=Probabilities())
    expected, found = (evaluate(model, held(shards), n_cuts=100) for held in (InProcess, make))
    assert rounded(found) == rounded(expected)
    assert len(found.nodes) == len(shards)


@engines
def test_many_classes_and_numbers_are_judged_as_in_process(make):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((4, 9, 2)), np.ones((4, 9, 1))], axis=2)
    shards = [Shard(f"node-{m}", ClassRows(x[m], rng.integers(0, 3, 9), 3)) for m in range(4)]
    model = Model.from_vector(rng.standard_normal(9), fit_intercept=True, classes=(0, 1, 2))
    assert rounded(evaluate(model, make(shards), n_cuts=50)) == rounded(evaluate(model, InProcess(shards), n_cuts=50))
    samples = [Samples(f"node-{m}", x[m], rng.standard_normal(9)) for m in range(4)]
    model = Model.from_vector(rng.standard_normal(3), fit_intercept=True, classes=())
    assert rounded(evaluate(model, make(samples))) == rounded(evaluate(model, InProcess(samples)))


@engines
def test_a_node_that_keeps_nothing_is_no_node_of_the_engine_that_comes_of_it(make):
    whole = make(with_bias(random_rows(2)))
    if isinstance(whole, FlowerEngine):  # its nodes are sent data, not code
        return
    part = whole.map(lambda shard: None if shard.node_id == whole.node_ids[1] else shard)
    assert part.node_ids == (whole.node_ids[0], *whole.node_ids[2:])
    report = part.round(Evaluate(), Message(0, np.ones(6)))
    assert (report.n_nodes, len(whole.node_ids)) == (3, 4)
    with pytest.raises(ValueError, match="a federation needs at least one node"):
        part.map(lambda _: None)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_node_that_is_left_out_ends_an_evaluation_instead_of_counting_for_nothing(n_classes):
    shards = with_bias(random_rows(2), noise=0.2)
    if n_classes == 3:
        shards = [Shard(s.node_id, ClassRows(s.rows, np.arange(s.n_rows) % 3, 3)) for s in shards]
    w = np.ones(6 if n_classes == 2 else 18)
    model = Model.from_vector(w, fit_intercept=True, classes=tuple(range(n_classes)))
    with pytest.raises(RuntimeError, match="fewer than min_group=3 rows of a class"):
        evaluate(model, InProcess(shards, on_failure="skip"), min_group=3)
