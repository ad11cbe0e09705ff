"""What evaluation says of a model is what scikit-learn says of the pooled rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import root
from scipy.special import expit, logit
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from common import OTHER_ORDER, SAME_ORDER, examples
from evaluation.federations import ONE, of_scores
from localgd import (
    InProcess,
    LeastSquares,
    Message,
    Model,
    NodeError,
    Regularised,
    auto,
    calibrate,
    evaluate,
    from_arrays,
    prepare,
    train,
)
from localgd.data.probabilities import Probabilities
from localgd.evaluation.counting import Decisions
from localgd.evaluation.measures import Decision, Interval


def samples(n_classes, n=300, d=4, seed=0):
    """Rows, classes that overlap, nodes, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    drawn = X @ rng.standard_normal((d, n_classes)) + rng.gumbel(size=(n, n_classes))
    return X, drawn.argmax(axis=1), rng.choice(["a", "b", "c"], n), rng.exponential(size=n)


def pooled_scores(model, tables):
    """The scores of all rows, in the order of the tables, with classes and weights."""
    ones = [np.ones(table.n_rows) if table.weights is None else table.weights for table in tables]
    parts = [np.concatenate([of(t) for t in tables]) for of in (model.scores, lambda t: t.labels)]
    return (*parts, np.concatenate(ones))


def trained(n_classes, *, weighted=False, C=1.0, intercept=True):
    X, y, groups, weights = samples(n_classes)
    tables = from_arrays(X, y, groups, sample_weight=weights if weighted else None)
    federation, recipe = prepare(InProcess(tables), scale="standard", intercept=intercept)
    run = train(federation, auto(), problem=None if C is None else Regularised(C=C, intercept=intercept))
    return run.model(recipe), tables


def assert_exactly(bounds, expected):
    assert isinstance(bounds, Interval)
    np.testing.assert_allclose(bounds, expected, rtol=SAME_ORDER)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("intercept", [True, False], ids=["bias", "no bias"])
def test_two_classes_are_judged_as_scikit_learn_judges_the_pooled_rows(weighted, intercept):
    model, tables = trained(2, weighted=weighted, intercept=intercept)
    scores, y, weights = pooled_scores(model, tables)
    found = evaluate(model, InProcess(tables), thresholds=[0.2, 0.5])
    p, w = expit(scores), {"sample_weight": weights}
    assert found.decisions[1].accuracy.low == found.decisions[1].accuracy.high
    for decision, cut in zip(found.decisions, (0.2, 0.5), strict=True):
        said = (p > cut).astype(int)
        np.testing.assert_allclose(decision.low, metrics.confusion_matrix(y, said, **w), rtol=SAME_ORDER)
        assert_exactly(decision.accuracy, metrics.accuracy_score(y, said, **w))
        assert_exactly(decision.sensitivity, metrics.recall_score(y, said, **w))
        assert_exactly(decision.specificity, metrics.recall_score(y, said, pos_label=0, **w))
        assert_exactly(decision.ppv, metrics.precision_score(y, said, **w))
        assert_exactly(decision.npv, metrics.precision_score(y, said, pos_label=0, **w))
        assert_exactly(decision.macro_f1, metrics.f1_score(y, said, average="macro", **w))
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p, **w), rel=SAME_ORDER)
    assert found.brier == pytest.approx(metrics.brier_score_loss(y, p, **w), rel=SAME_ORDER)
    assert found.auc.low <= metrics.roc_auc_score(y, scores, **w) <= found.auc.high
    assert found.auc.width <= 1e-4
    assert found.majority == pytest.approx(max(weights[y == 0].sum(), weights[y == 1].sum()) / weights.sum())
    assert (found.n_rows, found.n_nodes, found.classes) == (300, 3, (0, 1))


def test_points_of_the_curves_are_scikit_learns():
    model, tables = trained(2)
    scores, y, _ = pooled_scores(model, tables)
    curve = evaluate(model, InProcess(tables)).curve.columns()
    assert 50 < len(curve["score"]) <= 200
    for place, cut in enumerate(curve["score"]):
        said = scores > cut
        assert curve["sensitivity_low"][place] == curve["sensitivity_high"][place]
        assert curve["sensitivity_low"][place] == pytest.approx(said[y == 1].mean(), rel=SAME_ORDER)
        assert curve["specificity_high"][place] == pytest.approx((~said)[y == 0].mean(), rel=SAME_ORDER, abs=SAME_ORDER)
        if said.any():
            assert curve["ppv_low"][place] == pytest.approx(y[said].mean(), rel=SAME_ORDER)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_calibration_is_that_of_the_pooled_probabilities(weighted):
    model, tables = trained(2, weighted=weighted)
    model = replace(model, coef=model.coef * 1.7, intercept=model.intercept + 0.3)  # too sure
    scores, y, weights = pooled_scores(model, tables)
    found = evaluate(model, InProcess(tables)).calibration
    if not weighted:  # scikit-learn's curve knows no weights
        observed, predicted = calibration_curve(y, expit(scores), n_bins=10)
        filled = found.weights > 0
        np.testing.assert_allclose(found.observed[filled], observed, rtol=SAME_ORDER, atol=SAME_ORDER)
        np.testing.assert_allclose(found.predicted[filled], predicted, rtol=SAME_ORDER)
    log_odds = logit(expit(scores))
    offset = root(lambda a: weights @ (expit(log_odds + a) - y), 0.0, tol=1e-14).x[0]
    assert found.intercept == pytest.approx(offset, rel=OTHER_ORDER)

    def uphill(x):
        off = weights * (expit(x[0] + x[1] * log_odds) - y)
        return [off.sum(), off @ log_odds]

    assert found.slope == pytest.approx(root(uphill, [0.0, 1.0], tol=1e-14).x[1], rel=OTHER_ORDER)
    pooled = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(log_odds[:, None], y, sample_weight=weights)
    assert found.slope == pytest.approx(pooled.coef_[0, 0], rel=1e-6)
    assert found.slope < 0.9


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_many_classes_are_judged_as_scikit_learn_judges_the_pooled_rows(weighted):
    model, tables = trained(4, weighted=weighted)
    scores, y, weights = pooled_scores(model, tables)
    found, w = evaluate(model, InProcess(tables)), {"sample_weight": weights}
    said, p = scores.argmax(axis=1), Probabilities().of(scores)
    np.testing.assert_allclose(found.decisions[0].low, metrics.confusion_matrix(y, said, **w), rtol=SAME_ORDER)
    assert_exactly(found.decisions[0].macro_f1, metrics.f1_score(y, said, average="macro", **w))
    assert_exactly(found.decisions[0].accuracy, metrics.accuracy_score(y, said, **w))
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p, **w), rel=SAME_ORDER)
    squares = np.average(((p - np.eye(4)[y]) ** 2).sum(axis=1), weights=weights)
    assert found.brier == pytest.approx(squares, rel=SAME_ORDER)
    for label, area in found.areas.items():
        assert area.low <= metrics.roc_auc_score(y == label, p[:, label], **w) <= area.high
    assert found.auc.low <= metrics.roc_auc_score(y, p, multi_class="ovr", **w) <= found.auc.high
    assert found.auc.width <= 1e-4
    assert (found.curve, found.calibration) == (None, None)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_node_tells_what_it_would_be_judged_by_alone(n_classes):
    model, tables = trained(n_classes)
    found = evaluate(model, InProcess(tables))
    for table in tables:
        alone, own = evaluate(model, InProcess([table])), found.nodes[table.node_id]
        np.testing.assert_array_equal(own.decisions[0].low, alone.decisions[0].low)
        assert (own.log_loss, own.brier) == pytest.approx((alone.log_loss, alone.brier))
        for label, area in own.areas.items():
            assert alone.areas[label].low <= area <= alone.areas[label].high
    assert not evaluate(model, InProcess(tables), by_node=False).nodes


def test_numbers_are_judged_as_scikit_learn_judges_the_pooled_rows():
    X, _, groups, weights = samples(2)
    y = 1e6 + X @ np.arange(4.0) + weights
    tables = from_arrays(X, y, groups, sample_weight=weights)
    federation, recipe = prepare(InProcess(tables), classes=False)
    model = train(federation, auto(), problem=LeastSquares(1.0, intercept=True)).model(recipe)
    said, targets, w = pooled_scores(model, tables)
    found = evaluate(model, InProcess(tables))
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(targets, said, sample_weight=w), rel=SAME_ORDER)
    assert found.mae == pytest.approx(metrics.mean_absolute_error(targets, said, sample_weight=w), rel=SAME_ORDER)
    assert found.r2 == pytest.approx(metrics.r2_score(targets, said, sample_weight=w), rel=SAME_ORDER)
    for table in tables:
        own = metrics.r2_score(table.labels, model.scores(table), sample_weight=table.weights)
        assert found.nodes[table.node_id].r2 == pytest.approx(own, rel=SAME_ORDER)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["r2"] == found.r2


@pytest.mark.parametrize("min_group", [2, 5, 20])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_where_few_rows_are_told_together_the_bounds_hold_what_all_would_tell(min_group, n_classes, weighted):
    model, tables = trained(n_classes, weighted=weighted)
    cuts = [0.5, 0.1, 0.12, 0.45] if n_classes == 2 else []
    exact = evaluate(model, InProcess(tables), thresholds=cuts)
    found = evaluate(model, InProcess(tables), thresholds=cuts, min_group=min_group)
    names = ["accuracy", "macro_f1", *(["sensitivity", "specificity", "ppv", "npv"] if n_classes == 2 else [])]
    for one, other in zip(found.decisions, exact.decisions, strict=True):
        for name in names:
            bounds, true = getattr(one, name), getattr(other, name)
            assert bounds.low <= true.low * (1 + SAME_ORDER)
            assert true.high <= bounds.high * (1 + SAME_ORDER)
    assert min_group < 20 or any(one.accuracy.width > 0 for one in found.decisions)
    for label, area in exact.areas.items():
        assert found.areas[label].low <= area.high
        assert area.low <= found.areas[label].high
    assert found.log_loss == pytest.approx(exact.log_loss, rel=SAME_ORDER)
    if n_classes == 2:
        assert found.calibration.weights.sum() == pytest.approx(exact.calibration.weights.sum(), rel=SAME_ORDER)
        assert found.calibration.slope == pytest.approx(exact.calibration.slope, rel=OTHER_ORDER)
        plain = found.calibration.mixed == 0  # what is told alone is a part of its bin
        assert (found.calibration.weights[plain] <= exact.calibration.weights[plain] * (1 + SAME_ORDER)).all()


def test_a_node_with_too_few_rows_of_a_class_does_not_tell_how_they_are_decided():
    X, y, groups, _ = samples(2)
    groups[(groups == "a") & (y == 1)] = "b"
    groups[np.flatnonzero(y == 1)[:3]] = "a"
    model, _ = trained(2)
    tables = InProcess(from_arrays(X, y, groups))
    with pytest.raises(NodeError, match="'a': RefusedError: it has fewer than min_group=5 rows of a class"):
        evaluate(model, tables, min_group=5)
    assert evaluate(model, tables, min_group=3).n_rows == 300


def test_a_max_margin_model_has_no_losses_but_an_area_and_decisions():
    X, y, groups, _ = samples(2)
    y = (X[:, 0] + 0.2 * X[:, 1] > 0).astype(int)
    tables = from_arrays(X, y, groups)
    federation, recipe = prepare(InProcess(tables))
    run = train(federation, auto())
    found = evaluate(run.model(recipe), InProcess(tables))
    assert found.decisions[0].threshold == 0.0
    assert_exactly(found.decisions[0].accuracy, 1.0)
    assert 1 - 1e-10 < found.auc.low <= found.auc.high == 1.0
    assert math.isnan(found.log_loss)
    assert found.calibration is None
    again = evaluate(Model.from_vector(run.w, fit_intercept=True), federation)  # on rows that are prepared already
    np.testing.assert_array_equal(again.decisions[0].low, found.decisions[0].low)
    sure = evaluate(Model.from_vector(run.w, fit_intercept=True, probabilities=Probabilities()), federation)
    assert math.isnan(sure.calibration.slope)  # any larger one is better


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"thresholds": [1.5]}, "thresholds must be probabilities, 0 to 1, got"),
        ({"min_group": 0}, "min_group must be a whole number of at least 1"),
        ({"n_rounds": 0}, "n_rounds must be a whole number of at least 1"),
        ({"width": 0}, "width must be a positive number"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, words):
    model, tables = trained(2)
    with pytest.raises(ValueError, match=words):
        evaluate(model, InProcess(tables), **settings)


def test_rows_that_do_not_say_their_class_are_refused():
    model, tables = trained(2, intercept=False)
    federation, _ = prepare(InProcess(tables), intercept=False)
    bare = Model(model.coef[:-1], float(model.coef[-1]))
    with pytest.raises(NodeError, match="the last column is no bias"):
        evaluate(bare, federation)


def test_two_thresholds_that_few_rows_are_between_do_not_tell_how_many():
    scores, positive = np.concatenate([np.arange(20.0), np.arange(20.0)]), np.repeat([True, False], 20)
    engine = of_scores(scores, positive, np.zeros(40, dtype=int))

    def told(*thresholds):
        extra = {"thresholds": np.array(thresholds), "n_classes": np.array(2.0)}
        sums = engine.round(Decisions(5, by_node=False), Message(0, ONE.w, extra)).sums
        return sums["low"][1].tolist(), sums["high"][1].tolist()

    assert told(6.5) == ([7.0, 13.0], [7.0, 13.0])
    assert told(6.5, 8.5) == ([5.0, 0.0, 11.0], [9.0, 4.0, 11.0])  # two are between, and nobody sees that
    assert told(5.5, 8.5)[0][1:] == told(6.5, 8.5)[0][1:]
    model = Model.from_vector(ONE.w, fit_intercept=True)
    decisions = evaluate(model, engine, thresholds=[8.5, 6.5], min_group=5).decisions
    for cut, decision in zip((8.5, 6.5), decisions, strict=True):
        assert decision.threshold == cut
        assert decision.low[1, 1] <= (scores[positive] > cut).sum() <= decision.high[1, 1]


def test_rows_that_are_prepared_already_and_models_beyond_float64_are_refused_in_words():
    model, tables = trained(2)
    federation, _ = prepare(InProcess(tables))
    with pytest.raises(NodeError, match="holds rows that are prepared already; give nodes that hold tables"):
        evaluate(model, federation)
    with pytest.raises(ValueError, match="the model is too large for these rows"):
        evaluate(replace(model, coef=model.coef * 1e200), InProcess(tables))


def test_scores_that_are_all_the_same_have_no_slope():
    model, tables = trained(2)
    found = evaluate(replace(model, coef=model.coef * 0, intercept=0.1), InProcess(tables))
    assert math.isnan(found.calibration.slope)
    assert found.auc.low <= 0.5 <= found.auc.high
    with pytest.raises(ValueError, match="no sigmoid of the scores fits best"):
        calibrate(replace(model, coef=model.coef * 0), InProcess(tables))


def test_shares_of_nothing_have_no_meaning():
    empty = np.zeros((2, 2))
    nobody = Decision(0.5, empty, empty, np.zeros(2))
    assert math.isnan(nobody.ppv.low)
    assert math.isnan(nobody.sensitivity.high)
    assert math.isnan(nobody.f1(1).low)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32))
def test_bounds_on_decisions_hold_those_of_the_pooled_rows_whatever_the_rows(seed):
    rng = np.random.default_rng(seed)
    n, min_group = int(rng.integers(40, 200)), int(rng.integers(2, 7))
    positive, groups = rng.random(n) < 0.5, rng.integers(0, 2, n)
    scores = rng.standard_normal(n) + rng.exponential() * positive
    weights = rng.exponential(size=n) if rng.random() < 0.5 else None
    if min(np.bincount(groups * 2 + positive, minlength=4)) < min_group:
        return
    engine, model = of_scores(scores, positive, groups, weights), Model.from_vector(ONE.w, fit_intercept=True)
    cuts = rng.choice(scores, 4) if rng.random() < 0.5 else rng.standard_normal(3)
    found = evaluate(model, engine, thresholds=cuts.tolist(), min_group=min_group, n_rounds=1, n_cuts=20)
    for cut, decision in zip(cuts, found.decisions, strict=True):
        table = metrics.confusion_matrix(positive, scores > cut, sample_weight=weights)
        slack = SAME_ORDER * n
        assert (decision.low <= table + slack).all()
        assert (table <= decision.high + slack).all()
        expected = metrics.f1_score(positive, scores > cut, average="macro", sample_weight=weights)
        assert decision.macro_f1.low <= expected + slack
        assert expected <= decision.macro_f1.high + slack
