"""Bounds on ridge and least-squares models, of runs or from elsewhere, that exact arithmetic cannot refute."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from common import examples
from localgd import Angle, InProcess, LeastSquares, NodeError, Shard, Status, certify
from localgd.core import Message
from localgd.problems.least_squares import Squares
from localgd.problems.least_squares_certificate import squares_certificate
from localgd.problems.reduced import Reduced
from localgd.problems.spectrum import spectrum
from targets import Exact, fitted, problem, spread_over, with_ones


def last_column(X, column):
    return np.hstack([X[:, :-1], np.reshape(column, (-1, 1))])


def last_row(X, row):
    return np.vstack([X[:-1], np.reshape(row, (1, -1))])


DISTORTED = {
    "plain": lambda X, rng: X,  # noqa: ARG005
    "columns of unlike sizes": lambda X, rng: X * 10.0 ** rng.integers(-4, 5, X.shape[1]),
    "rows of unlike sizes": lambda X, rng: X * 10.0 ** rng.integers(-4, 5, len(X))[:, None],
    "a column twice": lambda X, rng: last_column(X, X[:, 0]),  # noqa: ARG005
    "nearly a column twice": lambda X, rng: last_column(X, X[:, 0] + 10.0 ** -rng.integers(3, 16) * X[:, -1]),
    "a row twice": lambda X, rng: last_row(X, X[0]),  # noqa: ARG005
    "nearly a row twice": lambda X, rng: last_row(X, X[0] + 10.0 ** -rng.integers(3, 16) * X[-1]),
    "far from 0": lambda X, rng: X + 10.0 ** rng.integers(1, 9),
    "small whole numbers": lambda X, rng: np.round(X),  # noqa: ARG005
    "a column of zeros": lambda X, rng: last_column(X, 0 * X[:, 0]),  # noqa: ARG005
    "tiny": lambda X, rng: X * 1e-25,  # noqa: ARG005
}

CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "kind": st.sampled_from(list(DISTORTED)),
        "shape": st.tuples(st.integers(1, 9), st.integers(1, 7)),
        "sparse": st.booleans(),
        "alpha": st.sampled_from([0.0, 0.0, 0.0, 1e-18, 1e-15, 1e-12, 1e-3, 1.0, 1e8, 1e-300, 1e100]),
        "intercept": st.booleans(),
        "max_mb": st.sampled_from([64.0, 0.0]),
        "n_rounds": st.integers(0, 40),
    }
)


@settings(max_examples=examples(400))
@given(CASES)
def test_no_bound_is_ever_violated(case):
    rng = np.random.default_rng(case.pop("seed"))
    n, d = case.pop("shape")
    X = DISTORTED[case.pop("kind")](rng.standard_normal((n, d)), rng)
    y = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4)
    rows = with_ones(X) if case["intercept"] else X
    engine = spread_over(rows, y, int(rng.integers(1, n + 1)), sparse=case.pop("sparse"))
    fit = fitted(engine, **case)
    exact = Exact(X, y, case["alpha"], intercept=case["intercept"])
    exact.check(fit.w, fit.certificate)
    elsewhere = fit.w + 10.0 ** rng.integers(-12, 3) * rng.standard_normal(fit.w.size)
    exact.check(elsewhere, certify(elsewhere, engine, problem=LeastSquares(case["alpha"], case["intercept"])))


@settings(max_examples=examples(60))
@given(st.integers(0, 2**32 - 1), st.sampled_from(["plain", "columns of unlike sizes", "far from 0"]), st.booleans())
def test_no_bound_is_violated_on_larger_problems(seed, kind, wide):
    """The reference is refined in extended precision."""
    rng = np.random.default_rng(seed)
    n, d = (12, 40) if wide else (80, 10)
    X, y = DISTORTED[kind](rng.standard_normal((n, d)), rng), rng.standard_normal(n)
    exact = np.linalg.lstsq(X, y)[0].astype(np.longdouble)
    inverse = np.linalg.pinv(X)
    for _ in range(4):
        exact = exact + inverse @ (y - X.astype(np.longdouble) @ exact).astype(float)
    fit = fitted(spread_over(X, y, int(rng.integers(1, n + 1))))
    slack = 1e-13 * np.linalg.cond(X) * 1e-4 * float(np.linalg.norm(exact))
    assert np.linalg.norm(fit.w - exact) <= fit.certificate.distance + slack
    assert fit.certificate.length_low <= np.linalg.norm(exact) + slack


@pytest.mark.parametrize("n_nodes", [1, 3])
def test_what_cancels_in_a_sum_is_counted(n_nodes):
    X, y = np.ones((3, 1)), np.array([1e16, 1.0, -1e16])  # Xᵀy is 0 in float64, and 1
    fit = fitted(spread_over(X, y, n_nodes), alpha=1.0)
    assert fit.w.tolist() == [0.0]
    Exact(X, y, 1.0, intercept=False).check(fit.w, fit.certificate)


def test_the_way_out_of_the_span_of_the_rows_is_counted():
    X, y = np.array([[3.0, 4.0]]), np.array([5.0])
    engine = spread_over(X, y, 1)
    known = spectrum(engine.round(Squares(), Message(extra={"moments": 2.0})), Reduced(0.0, 1, 2))
    first, report = (engine.round(Squares(), Message(0, w)) for w in (np.zeros(2), np.array([0.6 + 8, 0.8 - 6])))
    found = squares_certificate(np.array([8.6, -5.2]), report, first, known.reduced, known, astray=10.0)
    assert 10.0 <= found.distance <= 10.0 + 1e-12
    assert found.gap < 1e-20


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_a_model_from_elsewhere_is_as_far_as_is_proved(alpha, intercept):
    X, y = problem(80, 6)
    engine = spread_over(with_ones(X) if intercept else X, y, 4)
    pooled = Ridge(alpha, fit_intercept=intercept, solver="svd").fit(X, y)
    off = np.r_[0.5, np.zeros(5)]
    w = np.append(pooled.coef_ + off, pooled.intercept_) if intercept else pooled.coef_ + off
    found = certify(w, engine, problem=LeastSquares(alpha, intercept))
    assert 0.5 <= found.distance < 1.0
    assert found.status.startswith("certified: within ")


def test_without_the_moments_only_a_penalty_bounds_the_distance():
    X, y = problem(20, 4100)
    engine, w = spread_over(X, y, 2), np.ones(4100)
    assert certify(w, engine, problem=LeastSquares(1.0)).distance < math.inf
    assert "XᵀX is not known" in certify(w, engine, problem=LeastSquares()).reason


def test_what_has_no_meaning_for_real_targets_is_refused():
    X, y = problem(10, 3)
    engine = spread_over(X, y, 2)
    with pytest.raises(ValueError, match="goal=within 1° of the pooled model has no meaning here"):
        certify(np.ones(3), engine, problem=LeastSquares(), goal=Angle(1.0))
    with pytest.raises(ValueError, match="the model has 2 coefficients, but the rows have 3 columns"):
        certify(np.ones(2), engine, problem=LeastSquares())
    with pytest.raises(NodeError, match="intercept=True needs a last column of ones"):
        certify(np.ones(3), engine, problem=LeastSquares(intercept=True))
    with pytest.raises(NodeError, match="holds signed rows; give Samples, with real targets"):
        certify(np.ones(3), InProcess([Shard("a", X)]), problem=LeastSquares())
    with pytest.raises(NodeError, match="holds real targets, not signed rows"):
        certify(np.ones(3), engine)


def test_a_bound_longer_than_half_the_solution_is_no_certificate():
    X, y = problem(60, 4)
    engine = spread_over(X, y, 3)
    pooled = Ridge(1.0, fit_intercept=False, solver="svd").fit(X, y).coef_
    near, far, none = (certify(w, engine, problem=LeastSquares(1.0)) for w in (pooled, -2 * pooled, 0 * pooled))
    assert near.verdict is Status.CERTIFIED
    assert far.verdict is none.verdict is Status.FINITE
    assert far.distance >= 3 * np.linalg.norm(pooled) * (1 - 1e-9)
    assert none.distance >= np.linalg.norm(pooled) * (1 - 1e-9)
    assert certify(np.full(4, 1e100), engine, problem=LeastSquares(1.0)).verdict is Status.FINITE
