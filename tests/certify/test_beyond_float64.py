"""Models so large that sums leave float64: an infinity that was computed bounds nothing from below."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from common import examples
from localgd import (
    InProcess,
    LeastSquares,
    LocalGDRegressor,
    Regularised,
    Samples,
    Shard,
    Status,
    certify,
    local_gd,
    train,
)
from targets import dot, solved


def exact(values):
    return [Fraction(value) for value in values.tolist()]


def test_no_bound_on_squares_is_false_of_models_beyond_float64():
    beyond = 0
    for seed in range(examples(400)):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((3, 2)) * 2.0 ** rng.integers(60, 99)
        y, alpha = rng.standard_normal(3) * 2.0 ** rng.integers(-90, 99), float(rng.choice([0.0, 1.0, 1e-80, 1e90]))
        w = rng.standard_normal(2) * 10.0 ** rng.uniform(90, 307)
        found = certify(w, InProcess([Samples("a", x, y)]), problem=LeastSquares(alpha))
        rows, v, columns = [exact(row) for row in x], exact(w), [exact(column) for column in x.T]
        penalty = [[Fraction(alpha), Fraction(0)], [Fraction(0), Fraction(alpha)]]
        normal = [
            [dot(a, b) + p for b, p in zip(columns, own, strict=True)] for a, own in zip(columns, penalty, strict=True)
        ]
        there = solved(normal, [dot(column, exact(y)) for column in columns])
        value = sum((t - dot(row, v)) ** 2 for t, row in zip(exact(y), rows, strict=True)) + Fraction(alpha) * dot(v, v)
        away = dot(*[[a - b for a, b in zip(v, there, strict=True)]] * 2)
        assert Fraction(found.objective_low) <= value
        assert np.isinf(found.objective) or value <= Fraction(found.objective)
        assert np.isinf(found.distance) or away <= Fraction(found.distance) ** 2
        assert Fraction(found.length_low) ** 2 <= dot(there, there)
        assert found.verdict is not Status.CERTIFIED or 4 * away <= dot(there, there)
        beyond += value > Fraction(np.finfo(float).max)
    assert beyond > examples(100)


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_the_objective_of_a_model_whose_square_is_infinite_is_not_bounded_by_that(loss):
    found = certify(np.array([1e160]), InProcess([Shard("a", [[1e-20]])]), problem=Regularised(loss, C=1e100))
    assert found.objective == np.inf  # computed: λ/2 |w|² is 5e219
    assert 0 <= found.objective_low <= 5e219


def test_a_penalty_that_rounding_makes_negative_is_still_there():
    rows = [
        [999998.6, 999999.6, 999997.7],
        [99.8, 99.0, 100.9],
        [101.0, 101.4, 100.8],
        [99999999.9, 100000000.9, 100000001.5],
    ]
    reg = LocalGDRegressor(1.0, fit_intercept=False, positive=True).fit(rows, [0.0, 1.0, 1.0, 0.0])
    assert (reg.coef_ >= 0).all()
    assert reg.certificate_.distance < np.inf


def test_a_start_without_a_gradient_leaves_no_late_model_and_says_so():
    shards = [Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.3]])]
    run = train(InProcess(shards), local_gd(local_steps=3).late(), w0=np.array([1e6, 0.0]), n_rounds=5)
    assert not run.w.any()
    assert np.isnan(run.certificate.angle_deg_max)
    assert "every gradient is 0" in run.certificate.status
