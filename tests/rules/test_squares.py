"""Ridge and least squares by rounds: the pooled solution, and bounds that exact arithmetic cannot refute."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import LinearRegression, Ridge

from common import OTHER_ORDER
from localgd import InProcess, NodeError, Samples, Shard, fit_squares
from localgd.core import Message
from localgd.problems.least_squares import Moments, Reduced, Residuals, spectrum
from localgd.problems.least_squares_certificate import squares_certificate

CLOSE = 1e-8


def spread_over(X, y, n_nodes, *, sparse=False):
    of_node = np.arange(len(y)) % n_nodes
    rows = [X[of_node == m] for m in range(n_nodes)]
    return InProcess(Samples(f"{m:03}", csr_array(x) if sparse else x, y[of_node == m]) for m, x in enumerate(rows))


def with_ones(X):
    return np.hstack([X, np.ones((len(X), 1))])


def problem(n, d, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + offset
    return X, X @ rng.standard_normal(d) + rng.standard_normal(n) + 3.0


@pytest.mark.parametrize("max_mb", [64.0, 0.0], ids=["XᵀX", "conjugate gradients"])
@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("shape", [(200, 15), (110, 300)], ids=["tall", "wide"])
@pytest.mark.parametrize("n_nodes", [1, 7, 100])
def test_it_is_the_pooled_solution_whatever_the_nodes(shape, n_nodes, intercept, max_mb):
    X, y = problem(*shape, offset=1.0)
    rows = with_ones(X) if intercept else X
    for alpha in (0.0, 0.01, 3.0):
        pooled = (
            Ridge(alpha, fit_intercept=intercept, solver="svd") if alpha else LinearRegression(fit_intercept=intercept)
        )
        pooled.fit(X, y)
        fit = fit_squares(spread_over(rows, y, n_nodes), alpha=alpha, intercept=intercept, max_mb=max_mb)
        w = fit.w[: X.shape[1]]
        np.testing.assert_allclose(w, pooled.coef_, rtol=0, atol=CLOSE)
        if intercept:
            np.testing.assert_allclose(fit.w[-1], pooled.intercept_, rtol=0, atol=CLOSE)
        assert np.linalg.norm(w - pooled.coef_) <= fit.certificate.distance + 1e-11
        assert fit.certificate.length_low <= np.linalg.norm(pooled.coef_) * (1 + 1e-12)
        assert fit.converged
        if alpha or max_mb:
            assert fit.certificate.relative < 1e-6


def test_fewer_rows_than_columns_is_lstsq_to_rounding_and_the_proof_is_as_good():
    X, y = problem(60, 300)
    fit = fit_squares(spread_over(X, y, 60))
    exact = np.linalg.lstsq(X, y)[0]
    assert np.linalg.norm(fit.w - exact) <= 1e-12 * np.linalg.norm(exact)
    assert fit.certificate.kind == "minimum-norm"
    assert fit.certificate.relative < 1e-10
    assert fit.certificate.gap < 1e-15


@pytest.mark.parametrize("alpha", [0.0, 1e-6])
def test_columns_in_units_of_their_own_cost_no_proof(alpha):
    X, y = problem(200, 50)
    units = 10.0 ** np.linspace(-4, 4, 50)
    fit = fit_squares(spread_over(X * units, y, 5), alpha=alpha)
    pooled = np.linalg.lstsq(np.vstack([X * units, math.sqrt(alpha) * np.eye(50)]), np.append(y, np.zeros(50)))[0]
    assert np.linalg.norm(fit.w - pooled) <= CLOSE * np.linalg.norm(pooled)
    assert fit.certificate.relative < 0.1


# --- exact references ---------------------------------------------------------------------------------------------


def solved(A, b):
    """A solution of a consistent system in exact fractions; free unknowns are 0."""
    rows = [[*line, value] for line, value in zip(A, b, strict=True)]
    pivots, width = [], len(A[0]) if A else 0
    for column in range(width):
        done = len(pivots)
        found = next((k for k in range(done, len(rows)) if rows[k][column] != 0), None)
        if found is None:
            continue
        rows[done], rows[found] = rows[found], rows[done]
        pivot = rows[done][column]
        rows[done] = [value / pivot for value in rows[done]]
        for k, line in enumerate(rows):
            if k != done and line[column] != 0:
                factor = line[column]
                rows[k] = [value - factor * other for value, other in zip(line, rows[done], strict=True)]
        pivots.append(column)
    out = [Fraction(0)] * width
    for k, column in enumerate(pivots):
        out[column] = rows[k][-1]
    return out


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


class Exact:
    """The problem in exact fractions, the mean taken out where there is an intercept."""

    def __init__(self, X, y, alpha, *, intercept):
        self.X, self.y = [[Fraction(float(x)) for x in row] for row in X], [Fraction(float(t)) for t in y]
        self.alpha, self.intercept, n = Fraction(alpha), intercept, len(y)
        mean = [sum(column) / n * intercept for column in zip(*self.X, strict=True)]
        Xc = [[x - m for x, m in zip(row, mean, strict=True)] for row in self.X]
        yc = [t - sum(self.y) / n * intercept for t in self.y]
        columns = list(zip(*Xc, strict=True))
        self.aim = [dot(column, yc) for column in columns]
        self.C = [[dot(a, b) + self.alpha * (j == k) for k, b in enumerate(columns)] for j, a in enumerate(columns)]
        if alpha:
            self.v = solved(self.C, self.aim)
        else:  # w = Xᵀa with KKa = Ky, K = XXᵀ: the least-squares solution in the span of the rows
            K = [[dot(a, b) for b in Xc] for a in Xc]
            a = solved([[dot(row, other) for other in K] for row in K], [dot(row, yc) for row in K])
            self.v = [dot(column, a) for column in columns]
        self.b = (sum(self.y) - sum(dot(row, self.v) for row in self.X)) / n * intercept

    def objective(self, v, b):
        residuals = [t - dot(row, v) - b for row, t in zip(self.X, self.y, strict=True)]
        return dot(residuals, residuals) + self.alpha * dot(v, v)

    def check(self, fit):
        w = [Fraction(float(x)) for x in fit.w]
        v, b = (w[:-1], w[-1]) if self.intercept else (w, Fraction(0))
        found = fit.certificate
        away = [x - z for x, z in zip(v, self.v, strict=True)]
        if math.isfinite(found.distance):
            assert dot(away, away) <= Fraction(found.distance) ** 2
        if math.isfinite(found.gap):
            assert self.objective(v, b) - self.objective(self.v, self.b) <= Fraction(found.gap)
        assert holds(self.objective(v, b), found.objective, 1)
        assert holds(self.objective(v, b) - self.alpha * dot(v, v), found.residual, 2)
        h = [a - dot(row, v) for a, row in zip(self.aim, self.C, strict=True)]
        assert holds(4 * dot(h, h), found.slope, 2)
        assert Fraction(found.length_low) ** 2 <= dot(self.v, self.v)


def holds(exact, bound, power):
    """Whether an upper bound is true; an infinite one is, NaN is none."""
    return bound == math.inf or exact <= Fraction(bound) ** power


def last_column(X, column):
    return np.hstack([X[:, :-1], np.reshape(column, (-1, 1))])


def last_row(X, row):
    return np.vstack([X[:-1], np.reshape(row, (1, -1))])


DISTORTED = {
    "plain": lambda X, rng: X,  # noqa: ARG005
    "columns of unlike sizes": lambda X, rng: X * 10.0 ** rng.integers(-4, 5, X.shape[1]),
    "rows of unlike sizes": lambda X, rng: X * 10.0 ** rng.integers(-6, 7, len(X))[:, None],
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
        "shape": st.tuples(st.integers(1, 9), st.integers(1, 6)),
        "sparse": st.booleans(),
        "alpha": st.sampled_from([0.0, 0.0, 0.0, 1e-12, 1e-3, 1.0, 1e8, 1e-300, 1e100]),
        "intercept": st.booleans(),
        "max_mb": st.sampled_from([64.0, 0.0]),
        "n_rounds": st.integers(4, 40),
    }
)


@settings(max_examples=400, deadline=None)
@given(CASES)
def test_no_bound_is_ever_violated(case):
    rng = np.random.default_rng(case.pop("seed"))
    n, d = case.pop("shape")
    X = DISTORTED[case.pop("kind")](rng.standard_normal((n, d)), rng)
    y = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4)
    rows = with_ones(X) if case["intercept"] else X
    engine = spread_over(rows, y, int(rng.integers(1, n + 1)), sparse=case.pop("sparse"))
    Exact(X, y, case["alpha"], intercept=case["intercept"]).check(fit_squares(engine, **case))


@settings(max_examples=60, deadline=None)
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
    fit = fit_squares(spread_over(X, y, int(rng.integers(1, n + 1))))
    slack = 1e-13 * np.linalg.cond(X) * 1e-4 * float(np.linalg.norm(exact))
    assert np.linalg.norm(fit.w - exact) <= fit.certificate.distance + slack
    assert fit.certificate.length_low <= np.linalg.norm(exact) + slack


@pytest.mark.parametrize("n_nodes", [1, 3])
def test_what_cancels_in_a_sum_is_counted(n_nodes):
    X, y = np.ones((3, 1)), np.array([1e16, 1.0, -1e16])  # Xᵀy is 0 in float64, and 1
    fit = fit_squares(spread_over(X, y, n_nodes), alpha=1.0)
    assert fit.w.tolist() == [0.0]
    Exact(X, y, 1.0, intercept=False).check(fit)


def test_the_way_out_of_the_span_of_the_rows_is_counted():
    X, y = np.array([[3.0, 4.0]]), np.array([5.0])
    engine = spread_over(X, y, 1)
    known = spectrum(engine.round(Moments(2), Message()), Reduced(0.0, 1, 2))
    first, report = (engine.round(Residuals(), Message(0, w)) for w in (np.zeros(2), np.array([0.6 + 8, 0.8 - 6])))
    found = squares_certificate(np.array([8.6, -5.2]), report, first, known.reduced, known, astray=10.0)
    assert 10.0 <= found.distance <= 10.0 + 1e-12
    assert found.gap < 1e-20


# --- words, limits, counts ----------------------------------------------------------------------------------------


def test_dependent_columns_have_no_proof_but_the_solution_of_least_norm():
    X, y = problem(50, 6)
    X[:, 5] = X[:, 0]
    fit = fit_squares(spread_over(X, y, 5))
    np.testing.assert_allclose(fit.w, np.linalg.lstsq(X, y)[0], rtol=0, atol=OTHER_ORDER)
    found = fit.certificate
    assert found.status.startswith("not certified: no bound on the distance, as the rank of the rows is in doubt")
    assert 0 < found.length_low <= np.linalg.norm(fit.w)
    assert found.to_dict()["distance"] is None


def test_without_the_moments_and_a_penalty_it_says_so():
    X, y = problem(20, 50)
    fit = fit_squares(spread_over(X, y, 4), max_mb=0.001)
    assert "there is no penalty and XᵀX is not known" in fit.certificate.reason
    assert "|w*| is at least" in fit.certificate.reason
    assert fit.why == "conjugate gradients, as XᵀX would be 0.0102 MB a node, more than max_mb=0.001"
    assert fit.certificate.relative == math.inf


def test_the_sentence_of_a_proof():
    X, y = problem(20, 5)
    fit = fit_squares(spread_over(X, y, 4), alpha=1.0)
    assert fit.certificate.status.startswith("certified: within ")
    assert " of the pooled ridge solution, " in fit.certificate.status
    assert fit.why == "XᵀX, once, as it is no more than 0.00012 MB a node"
    assert json.loads(json.dumps(fit.certificate.to_dict()))["certified"] is True


def test_few_rows_with_a_penalty_take_conjugate_gradients_as_they_cost_less():
    X, y = problem(10, 200)
    fit = fit_squares(spread_over(X, y, 4), alpha=1.0)
    assert fit.why.startswith("conjugate gradients, as about 10 rounds, one a row")
    sent = [fit_squares(spread_over(X, y, 4), alpha=alpha).history[-1].floats_up for alpha in (1.0, 0.0)]
    assert sent[0] < sent[1]


def test_rounds_and_floats_are_counted_by_the_engine():
    X, y = problem(30, 4)
    engine = spread_over(X, y, 3)
    seen = []
    fit = fit_squares(engine, alpha=1.0, on_round=seen.append)
    assert tuple(seen) == fit.history
    assert [row.round for row in seen] == list(range(fit.n_rounds))
    assert [row.asked for row in seen[:4]] == ["sizes", "residuals", "moments", "residuals"]
    assert (seen[-1].floats_up, seen[-1].floats_down) == (engine.floats_up, engine.floats_down)
    assert all(math.isnan(row.slope) == (row.asked != "residuals") for row in seen)
    assert seen[-1].slope < 1e-10 * seen[1].slope


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_it_stops_where_it_is_told_to(alpha, max_mb):
    X, y = problem(8, 12)
    for n_rounds in range(4, 12):
        fit = fit_squares(spread_over(X, y, 4), alpha=alpha, max_mb=max_mb, n_rounds=n_rounds)
        assert fit.n_rounds <= n_rounds
        assert fit.converged == (fit.ended != "it was stopped, or out of rounds")
        Exact(X, y, alpha, intercept=False).check(fit)
    fit = fit_squares(spread_over(X, y, 4), alpha=alpha, max_mb=max_mb, on_round=lambda row: row.round >= 3)
    assert fit.n_rounds <= 6
    assert fit.history[-1].asked == "residuals"


def test_a_tolerance_on_the_gradient_saves_rounds():
    X, y = problem(100, 40)
    engine = spread_over(X, y, 4)
    runs = [fit_squares(engine, alpha=1.0, max_mb=0.0, tol=tol) for tol in (1e-2, 1e-6, 0.0)]
    assert runs[0].n_rounds < runs[1].n_rounds < runs[2].n_rounds
    assert all(run.converged for run in runs)
    assert runs[1].history[-1].slope <= 1e-6 * runs[1].history[1].slope
    assert runs[0].certificate.distance > runs[1].certificate.distance > runs[2].certificate.distance


def test_the_order_of_the_nodes_changes_no_bit():
    X, y = problem(30, 50)
    engine = spread_over(X, y, 7)
    again = InProcess(reversed(list(engine.shards.values())))
    for max_mb in (64.0, 0.0):
        assert np.array_equal(fit_squares(engine, max_mb=max_mb).w, fit_squares(again, max_mb=max_mb).w)


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
def test_targets_of_zero_and_rows_of_zero_are_no_trouble(max_mb):
    X, y = problem(20, 5)
    for rows, targets in ((X, 0 * y), (0 * X, y)):
        for alpha in (0.0, 1.0):
            fit = fit_squares(spread_over(rows, targets, 3), alpha=alpha, max_mb=max_mb)
            assert not fit.w.any()
            assert fit.converged


def test_an_intercept_alone_is_the_mean():
    y = np.array([1.0, 2.0, 6.0])
    for max_mb in (64.0, 0.0):
        fit = fit_squares(spread_over(np.ones((3, 1)), y, 2), alpha=1.0, intercept=True, max_mb=max_mb)
        assert fit.w.tolist() == pytest.approx([3.0])
        assert fit.certificate.distance < 1e-12


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_constant_target_is_all_intercept(alpha, max_mb):
    rows = with_ones(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    fit = fit_squares(spread_over(rows, np.full(4, 7.0), 2), alpha=alpha, intercept=True, max_mb=max_mb)
    assert fit.w.tolist() == [0.0, 0.0, 7.0]
    assert fit.certificate.gap < 1e-20 or max_mb == alpha == 0.0


def test_bad_nodes_are_refused_by_name():
    X, y = problem(10, 3)
    with pytest.raises(NodeError, match=r"'000'.*intercept=True needs a last column of ones"):
        fit_squares(spread_over(X, y, 2), intercept=True)
    with pytest.raises(NodeError, match=r"'a'.*holds signed rows; give Samples"):
        fit_squares(InProcess([Shard("a", X)]))
    with pytest.raises(ValueError, match=r"nodes differ in their number of columns \(2 to 3\)"):
        fit_squares(InProcess([Samples("a", X, y), Samples("b", X[:, :2], y)]))
