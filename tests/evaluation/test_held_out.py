"""Rows that nodes set aside, and nodes that trainings leave out: chosen once and for all, and judged as pooled ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from common import examples
from localgd import (
    InProcess,
    LeastSquares,
    Regularised,
    auto,
    evaluate,
    from_arrays,
    hold_out,
    leave_one_node_out,
    load,
    prepare,
    train,
)
from localgd.data.holdout import fold_of, folds, set_aside


def tables(n=200, n_nodes=4, seed=0, numbers=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) * [1.0, 5.0, 0.2] + [0.0, 3.0, 1.0]
    y = X @ [1.0, 0.3, 4.0] + rng.standard_normal(n)
    return from_arrays(X, y if numbers else np.where(y > 5, "yes", "no"), groups=np.arange(n) % n_nodes)


def rows(engine):
    """The features and labels of all nodes, and the row numbers by node."""
    held = engine.shards
    numbers = {name: set(table.row_numbers.tolist()) for name, table in held.items()}
    features, labels = ([getattr(table, part) for table in held.values()] for part in ("features", "labels"))
    return np.concatenate(features), np.concatenate(labels), numbers


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 9), st.integers(1, 4))
def test_a_share_of_each_class_is_set_aside_whatever_the_order_of_rows(n, share, seed, n_classes):
    (table,) = from_arrays(np.arange(n)[:, None], np.arange(n) % n_classes)
    aside = set_aside(table, share, seed=seed)
    for code in range(n_classes):
        own = table.labels == code
        assert not aside.any() or abs(aside[own].sum() - share * own.sum()) < 1
    assert not aside.all()
    order = np.random.default_rng(seed).permutation(n)
    assert set_aside(table.take(order), share, seed=seed).tolist() == aside[order].tolist()
    folds = fold_of(table, 3, seed=seed)
    assert all(np.ptp(np.bincount(folds[table.labels == code], minlength=3)) <= 1 for code in range(n_classes))


def test_over_many_small_nodes_the_share_is_kept_and_other_seeds_and_nodes_choose_other_rows():
    many = from_arrays(np.zeros((900, 1)), np.tile([0, 0, 1], 300), groups=np.repeat(np.arange(300), 3))
    chosen = np.array([set_aside(table, 0.3) for table in many])
    assert chosen.mean() == pytest.approx(0.3, abs=0.05)
    assert chosen[:, 2].mean() == pytest.approx(0.3, abs=0.1)  # each is the only row of its class at its node
    (table,) = from_arrays(np.zeros((50, 1)), np.arange(50) % 2)
    sets = {tuple(set_aside(table, 0.3, seed=seed)) for seed in range(20)}
    sets |= {tuple(set_aside(table.take(np.arange(50), f"n{m}"), 0.3)) for m in range(20)}
    assert len(sets) > 35


def test_what_is_learned_of_columns_comes_from_training_rows_and_what_is_judged_from_the_others():
    training, held_out = hold_out(InProcess(tables()), 0.25, seed=3)
    (X, y, inside), (X_out, y_out, outside) = rows(training), rows(held_out)
    assert all(not inside[name] & outside[name] and len(inside[name] | outside[name]) == 50 for name in inside)
    federation, recipe = prepare(training, scale="standard")
    run = train(federation, auto(), problem=Regularised(C=1.0, intercept=True))
    found = evaluate(run.model(recipe), held_out)
    scaler = StandardScaler().fit(X)
    pooled = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12).fit(scaler.transform(X), y)
    likely = pooled.predict_proba(scaler.transform(X_out))
    assert found.log_loss == pytest.approx(log_loss(y_out, likely), abs=1e-9)
    assert found.decisions[0].accuracy.low == pytest.approx(
        accuracy_score(y_out, pooled.classes_[likely.argmax(axis=1)])
    )
    assert found.auc.low <= roc_auc_score(y_out == "yes", likely[:, 1]) <= found.auc.high


def test_a_node_that_would_refuse_to_be_judged_sets_nothing_aside():
    sites = load("heart")
    training, held_out = hold_out(InProcess(sites), 0.2, min_group=5)
    assert held_out.node_ids == ("Cleveland", "Hungary", "VA Long Beach")  # Switzerland has 8 healthy rows
    assert training.shards["Switzerland"].n_rows == 123
    federation, recipe = prepare(training, scale="standard", missing="most-frequent")
    run = train(federation, auto(), problem=Regularised(C=1.0, intercept=True))
    assert evaluate(run.model(recipe), held_out, min_group=5).n_nodes == 3
    one_class = from_arrays(np.eye(9), np.arange(9) // 6, groups=np.arange(9) // 3)
    assert len(hold_out(InProcess(one_class), 0.4)[1].node_ids) == 3
    with pytest.raises(ValueError, match="sets no row of any node aside; give a larger share, a smaller min_group"):
        hold_out(InProcess(one_class), 0.4, min_group=3)
    with pytest.raises(ValueError, match="share must be a share of the rows, above 0 and below 1, got 1"):
        hold_out(InProcess(one_class), 1)


def test_rows_of_weight_zero_make_no_part():
    weights = np.where(np.arange(40) < 20, np.arange(40) == 3, np.arange(40) % 2).astype(float)
    held = from_arrays(np.eye(40), np.arange(40) // 2 % 2, groups=np.arange(40) // 20, sample_weight=weights)
    training, held_out = hold_out(InProcess(held), 0.4)
    assert (training.node_ids, held_out.node_ids) == (("0", "1"), ("1",))
    assert held_out.shards["1"].weights.sum() == 4
    inside, outside = zip(*folds(held[0], 3), strict=True)
    assert sum(part is None for part in inside) == 1
    assert [part is None for part in outside] == [part is not None for part in inside]


def fit(others):
    federation, recipe = prepare(others, scale="standard")
    return train(federation, auto(), problem=Regularised(C=1.0, intercept=True)).model(recipe)


def test_a_node_left_out_is_judged_as_if_it_had_never_been_there():
    held = tables()
    found = leave_one_node_out(InProcess(held), fit)
    assert list(found.nodes) == ["0", "1", "2", "3"]
    right = 0
    for table in held:
        others = InProcess(other for other in held if other is not table)
        alone = evaluate(fit(others), InProcess([table]), by_node=False)
        one = found.nodes[table.node_id]
        assert one.to_dict() == alone.to_dict()
        right += one.decisions[0].low.trace()
    assert found.accuracy.low == pytest.approx(right / 200)
    assert found.majority == pytest.approx(
        max(np.mean(np.concatenate([t.labels for t in held]) == c) for c in ("no", "yes"))
    )
    assert found.n_rounds < 40


def test_numbers_at_nodes_left_out_and_more_nodes_than_share_their_rounds():
    held = tables(n=190, n_nodes=19, numbers=True)

    def numbers(others):
        federation, recipe = prepare(others, classes=False)
        return train(federation, auto(), problem=LeastSquares(1.0, intercept=True)).model(recipe)

    found = leave_one_node_out(InProcess(held), numbers)
    errors = []
    for table in held:
        model = numbers(InProcess(other for other in held if other is not table))
        errors += (model.scores(table) - table.labels).tolist()
    assert found.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert found.mean("mae") == pytest.approx(np.abs(errors).mean())
    assert not found.of_classes


def test_where_nothing_can_be_told_of_a_node_it_is_said_and_the_others_are_judged():
    frame = pl.DataFrame(
        {"x": np.arange(30.0) % 7, "site": ["a", "b", "c"] * 10, "colour": ["red", "red", "blue"] * 10}
    )
    labels = [("p", "q")[at % 2] for at in range(29)] + ["r"]
    held = from_arrays(frame.drop("site"), labels, groups=frame["site"].to_list())
    found = leave_one_node_out(InProcess(held), fit)
    assert list(found.nodes) == ["a", "b"]
    assert "label 'r' is none of the classes ('p', 'q')" in found.missing["c"]
    two = [table for table in held if table.node_id != "c"]
    with pytest.raises(RuntimeError, match="fewer than min_group=6 rows of a class"):
        leave_one_node_out(InProcess(two), fit, min_group=6)
    with pytest.raises(ValueError, match="there is one node, 'a': without it there is no row to train on"):
        leave_one_node_out(InProcess(two[:1]), fit)
