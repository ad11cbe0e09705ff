"""A model from anywhere, certified until the angle asked for is proved, or proved to be larger."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from common import answer, examples, federation, random_rows, shards_of, stacked, with_bias
from localgd import Angle, InProcess, Regularised, Shard, Status, certify
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg

EXACT_DEG = 1e-7
"""What the reference directions are good for, in degrees."""


@pytest.mark.parametrize("name", ["golub", "mushroom", "hard", "gauss-400"])
@pytest.mark.parametrize("tol", [0.01, 1.0])
def test_the_exact_answer_is_proved_to_order(name, tol):
    found = certify(answer(name).direction, federation(name), goal=Angle(tol))
    assert found.verdict is Status.CERTIFIED
    assert found.angle_deg_max <= tol


@pytest.mark.parametrize("name", ["golub", "hard", "gauss-400"])
@pytest.mark.parametrize(
    "model",
    [LinearSVC(C=1e4, max_iter=2000, fit_intercept=False), LogisticRegression(C=100, fit_intercept=False)],
    ids=["svm", "logistic"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_that_is_farther_is_told_by_how_much(name, model):
    z = stacked(shards_of(name))
    y = np.where(np.arange(len(z)) % 2 == 0, 1.0, -1.0)
    w = model.fit(z * y[:, None], y).coef_[0]
    true = angle_deg(w, answer(name).direction)
    for tol in (true * 1.2 + 1e-4, true * 0.8):
        found = certify(w, federation(name), goal=Angle(tol))
        assert found.angle_deg_min - EXACT_DEG <= true <= found.angle_deg_max + EXACT_DEG
        assert found.verdict is (Status.CERTIFIED if tol > true else Status.FARTHER)
        if found.verdict is Status.FARTHER:
            assert found.angle_deg_min > tol
            assert found.angle_deg_max <= 1.06 * found.angle_deg_min + 1e-3  # rounding is counted against it
            assert found.status.startswith("farther than asked: at least ")


@given(
    seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 1e-6, 1e-2, 0.3, 3.0]), tol=st.sampled_from([1e-3, 1, 30])
)
@settings(max_examples=examples(60))
def test_any_vector_is_bracketed_rightly(seed, noise, tol):
    shards = random_rows(seed, n=4)
    pooled = max_margin(stacked(shards))
    w = pooled.direction + noise * np.random.default_rng(seed).standard_normal(pooled.direction.size)
    found = certify(w, InProcess(shards), goal=Angle(tol))
    true = angle_deg(w, pooled.direction)
    assert found.angle_deg_min - EXACT_DEG <= true
    assert math.isnan(found.angle_deg_max) or true <= found.angle_deg_max + EXACT_DEG
    assert found.margin_low <= pooled.margin_high
    assert found.margin_high >= pooled.margin_low
    if abs(true - tol) > 1e-2 * tol:
        assert found.verdict is (Status.CERTIFIED if true < tol else Status.FARTHER)


def test_rows_of_extreme_size_change_no_angle():
    shards = random_rows(5)
    w = max_margin(stacked(shards)).direction + 0.1
    plain = certify(w, InProcess(shards), goal=Angle(0.1))
    scaled = certify(w, InProcess([Shard(s.node_id, s.rows * 2.0**90) for s in shards]), goal=Angle(0.1))
    assert scaled.angle_deg_max == pytest.approx(plain.angle_deg_max, rel=1e-6)
    assert scaled.margin_low == pytest.approx(plain.margin_low * 2.0**90, rel=1e-6)


def test_without_a_separating_plane_there_is_nothing_to_compare_with():
    found = certify(np.ones(24), federation("heart"), goal=Angle(1.0))
    assert "no max-margin model to compare with" in found.status
    assert math.isnan(found.angle_deg_max)


@pytest.mark.parametrize("intercept", [False, True])
def test_a_penalised_model_from_elsewhere_is_certified_in_one_round(intercept):
    shards = with_bias(random_rows(3, n=30), 3, 0.2)
    z = stacked(shards)
    y = np.sign(z[:, -1])
    x = (z * y[:, None])[:, :-1]
    model = LogisticRegression(C=0.5, fit_intercept=intercept, tol=1e-10).fit(x, y)
    w = np.append(model.coef_[0], model.intercept_) if intercept else model.coef_[0]
    held = shards if intercept else [Shard(s.node_id, s.rows[:, :-1]) for s in shards]
    found = certify(w, InProcess(held), problem=Regularised(C=0.5, intercept=intercept))
    assert found.verdict is Status.CERTIFIED
    assert found.angle_deg_max < 0.01
    other = certify(w, InProcess(held), problem=Regularised(C=50.0, intercept=intercept))
    assert other.verdict is not Status.CERTIFIED
