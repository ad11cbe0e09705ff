"""Ridge and least squares by rounds: the pooled solution, and bounds that exact arithmetic cannot refute."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from common import OTHER_ORDER
from localgd import (
    End,
    Gap,
    HardMargin,
    InProcess,
    LeastSquares,
    NodeError,
    Regularised,
    SampledNodes,
    Samples,
    Shard,
    Status,
    auto,
    conjugate_gradients,
    local_gd,
    newton,
    normal_equations,
    train,
)
from targets import Exact, fitted, problem, spread_over, with_ones

CLOSE = 1e-8


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
        fit = fitted(spread_over(rows, y, n_nodes), alpha=alpha, intercept=intercept, max_mb=max_mb)
        w = fit.w[: X.shape[1]]
        np.testing.assert_allclose(w, pooled.coef_, rtol=0, atol=CLOSE)
        if intercept:
            np.testing.assert_allclose(fit.w[-1], pooled.intercept_, rtol=0, atol=CLOSE)
        assert np.linalg.norm(w - pooled.coef_) <= fit.certificate.distance + 1e-11
        assert fit.certificate.length_low <= np.linalg.norm(pooled.coef_) * (1 + 1e-12)
        assert fit.end is End.DONE
        if alpha or max_mb:
            assert fit.certificate.relative < 1e-6


def test_fewer_rows_than_columns_is_lstsq_to_rounding_and_the_proof_is_as_good():
    X, y = problem(60, 300)
    fit = fitted(spread_over(X, y, 60))
    exact = np.linalg.lstsq(X, y)[0]
    assert np.linalg.norm(fit.w - exact) <= 1e-12 * np.linalg.norm(exact)
    assert fit.certificate.kind == "minimum-norm"
    assert fit.certificate.relative < 1e-10
    assert fit.certificate.gap < 1e-15


@pytest.mark.parametrize("alpha", [0.0, 1e-6])
def test_columns_in_units_of_their_own_cost_no_proof(alpha):
    X, y = problem(200, 50)
    units = 10.0 ** np.linspace(-4, 4, 50)
    fit = fitted(spread_over(X * units, y, 5), alpha=alpha)
    pooled = np.linalg.lstsq(np.vstack([X * units, math.sqrt(alpha) * np.eye(50)]), np.append(y, np.zeros(50)))[0]
    assert np.linalg.norm(fit.w - pooled) <= CLOSE * np.linalg.norm(pooled)
    assert fit.certificate.relative < 0.1


# --- words, limits, counts ----------------------------------------------------------------------------------------


def test_dependent_columns_have_no_proof_but_the_solution_of_least_norm():
    X, y = problem(50, 6)
    X[:, 5] = X[:, 0]
    fit = fitted(spread_over(X, y, 5))
    np.testing.assert_allclose(fit.w, np.linalg.lstsq(X, y)[0], rtol=0, atol=OTHER_ORDER)
    found = fit.certificate
    assert found.status.startswith("undecided: no bound on the distance, as the rank of the rows is in doubt")
    assert 0 < found.length_low <= np.linalg.norm(fit.w)
    assert found.to_dict()["distance"] is None


def test_without_the_moments_and_a_penalty_it_says_so():
    X, y = problem(20, 50)
    fit = fitted(spread_over(X, y, 4), max_mb=0.001)
    assert "there is no penalty and XᵀX is not known" in fit.certificate.reason
    assert "|w*| is at least" in fit.certificate.reason
    assert fit.method.why == "XᵀX would be 0.0102 MB a node, more than max_mb=0.001"
    assert fit.certificate.relative == math.inf


def test_the_sentence_of_a_proof():
    X, y = problem(20, 5)
    fit = fitted(spread_over(X, y, 4), alpha=1.0)
    assert fit.certificate.status.startswith("certified: within ")
    assert " of the pooled ridge solution, " in fit.certificate.status
    assert fit.method.why == "XᵀX, once, is no more than 0.00012 MB a node"
    assert json.loads(json.dumps(fit.certificate.to_dict(), allow_nan=False))["kind"] == "ridge"


def test_few_rows_with_a_penalty_take_conjugate_gradients_as_they_cost_less():
    X, y = problem(10, 200)
    fit = fitted(spread_over(X, y, 4), alpha=1.0)
    assert fit.method.why.startswith("about 10 rounds, one a row")
    sent = [fitted(spread_over(X, y, 4), alpha=alpha).history[-1].floats_up for alpha in (1.0, 0.0)]
    assert sent[0] < sent[1]


def test_rounds_and_floats_are_counted_by_the_engine():
    X, y = problem(30, 4)
    engine = spread_over(X, y, 3)
    seen = []
    fit = fitted(engine, alpha=1.0, on_round=seen.append)
    assert tuple(info.row for info in seen) == fit.history
    assert [row.round for row in fit.history] == list(range(fit.n_rounds + 1))
    assert (fit.history[-1].floats_up, fit.history[-1].floats_down) == (engine.floats_up, engine.floats_down)
    assert seen[-1].certificate.slope < 1e-10 * seen[0].certificate.slope
    assert all(math.isnan(row.accuracy) for row in fit.history)
    assert fit.certificate.verdict is Status.CERTIFIED


@pytest.mark.parametrize("method", [normal_equations(), conjugate_gradients()], ids=lambda method: method.name)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(60, 8), (30, 70)], ids=["tall", "wide"])
def test_the_history_holds_the_objective_and_what_is_proved_of_it(shape, alpha, intercept, method):
    X, y = problem(*shape)
    rows = with_ones(X) if intercept else X
    ridge = LeastSquares(alpha, intercept)

    def check(info):
        v = info.w[: X.shape[1]]
        value = np.square(y - rows @ info.w).sum() + alpha * v @ v
        assert info.row.loss == pytest.approx(value, rel=1e-9, abs=1e-9)
        if info.row.gap < math.inf:  # nothing is proved where nobody has looked
            assert value - least <= info.row.gap + 1e-9

    exact = np.linalg.lstsq(
        np.vstack([rows, math.sqrt(alpha) * np.eye(rows.shape[1])[: X.shape[1]]]), np.append(y, np.zeros(X.shape[1]))
    )[0]
    least = np.square(y - rows @ exact).sum() + alpha * np.square(exact[: X.shape[1]]).sum()
    run = train(spread_over(rows, y, 4), method, problem=ridge, on_round=check)
    assert run.history[0].loss == pytest.approx(y @ y)
    assert run.history[-1].loss == pytest.approx(least, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_it_stops_where_it_is_told_to(alpha, max_mb):
    X, y = problem(8, 12)
    for n_rounds in range(12):
        fit = fitted(spread_over(X, y, 4), alpha=alpha, max_mb=max_mb, n_rounds=n_rounds)
        assert fit.n_rounds <= n_rounds
        assert fit.end is (End.OUT_OF_ROUNDS if fit.unfinished else End.DONE)
        Exact(X, y, alpha, intercept=False).check(fit.w, fit.certificate)
    for stop in ({"on_round": lambda info: info.row.round >= 3}, {"max_seconds": 1e-9}):
        fit = fitted(spread_over(X, y, 4), alpha=alpha, max_mb=max_mb, **stop)
        assert fit.n_rounds == (4 if "on_round" in stop else 1)
        assert fit.end is End.STOPPED
        assert fit.history[-1].loss < fit.history[0].loss or fit.n_rounds == 1
        Exact(X, y, alpha, intercept=False).check(fit.w, fit.certificate)


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
def test_it_ends_as_soon_as_its_goal_is_proved(max_mb):
    X, y = problem(100, 40)
    engine = spread_over(X, y, 4)
    full = fitted(engine, alpha=1.0, max_mb=max_mb)
    fit = fitted(engine, alpha=1.0, max_mb=max_mb, goal=Gap(0.1))
    assert fit.end is End.DONE
    assert Gap(0.1).met(fit.certificate)
    assert fit.n_rounds < full.n_rounds
    beyond = fitted(engine, alpha=1.0, max_mb=max_mb, goal=Gap(1e-60))
    assert beyond.end is End.STALLED
    np.testing.assert_array_equal(beyond.w, full.w)


def test_a_tolerance_on_the_gradient_saves_rounds():
    X, y = problem(100, 40)
    engine = spread_over(X, y, 4)
    seen = []
    runs = [fitted(engine, alpha=1.0, max_mb=0.0, tol=tol, on_round=seen.append) for tol in (1e-2, 1e-6, 0.0)]
    assert runs[0].n_rounds < runs[1].n_rounds < runs[2].n_rounds
    assert all(run.end is End.DONE for run in runs)
    assert runs[1].certificate.slope <= 2e-6 * seen[0].certificate.slope
    assert runs[0].certificate.distance > runs[1].certificate.distance > runs[2].certificate.distance


def test_the_order_of_the_nodes_changes_no_bit():
    X, y = problem(30, 50)
    engine = spread_over(X, y, 7)
    again = InProcess(reversed(list(engine.shards.values())))
    for max_mb in (64.0, 0.0):
        assert np.array_equal(fitted(engine, max_mb=max_mb).w, fitted(again, max_mb=max_mb).w)


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
def test_targets_of_zero_and_rows_of_zero_are_no_trouble(max_mb):
    X, y = problem(20, 5)
    for rows, targets in ((X, 0 * y), (0 * X, y)):
        for alpha in (0.0, 1.0):
            fit = fitted(spread_over(rows, targets, 3), alpha=alpha, max_mb=max_mb)
            assert not fit.w.any()
            assert fit.end is End.DONE


def test_an_intercept_alone_is_the_mean():
    y = np.array([1.0, 2.0, 6.0])
    for max_mb in (64.0, 0.0):
        fit = fitted(spread_over(np.ones((3, 1)), y, 2), alpha=1.0, intercept=True, max_mb=max_mb)
        assert fit.w.tolist() == pytest.approx([3.0])
        assert fit.certificate.distance < 1e-12


@pytest.mark.parametrize("max_mb", [64.0, 0.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_constant_target_is_all_intercept(alpha, max_mb):
    rows = with_ones(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    fit = fitted(spread_over(rows, np.full(4, 7.0), 2), alpha=alpha, intercept=True, max_mb=max_mb)
    assert fit.w.tolist() == [0.0, 0.0, 7.0]
    assert fit.certificate.gap < 1e-20 or max_mb == alpha == 0.0


def test_bad_nodes_are_refused_by_name():
    X, y = problem(10, 3)
    with pytest.raises(NodeError, match=r"'000'.*intercept=True needs a last column of ones"):
        fitted(spread_over(X, y, 2), intercept=True)
    with pytest.raises(NodeError, match=r"'a'.*holds signed rows; give Samples"):
        fitted(InProcess([Shard("a", X)]))
    with pytest.raises(ValueError, match=r"nodes differ in their number of features \(2 to 3\)"):
        fitted(InProcess([Samples("a", X, y), Samples("b", X[:, :2], y)]))


@pytest.mark.parametrize("method", [auto(), normal_equations(), conjugate_gradients()], ids=lambda method: method.name)
def test_partial_participation_and_a_start_are_refused_in_words(method):
    engine = spread_over(*problem(10, 3), 2)
    with pytest.raises(ValueError, match="needs every node in every round: the gradient that it brings to 0 is a sum"):
        train(engine, method, problem=LeastSquares(), nodes=SampledNodes(0.5))
    with pytest.raises(ValueError, match="w0 has no meaning here: the shortest solution is reached from 0"):
        train(engine, method, problem=LeastSquares(), w0=np.ones(3))


def test_problems_and_methods_that_are_not_for_each_other_say_so():
    X, y = problem(10, 3)
    engine = spread_over(X, y, 2)
    for method in (local_gd(), newton()):
        with pytest.raises(
            ValueError, match=rf"{method.name}: it is for signed rows, and cannot look for the ridge sol"
        ):
            train(engine, method, problem=LeastSquares(1.0))
    for other in (HardMargin(), Regularised(C=1.0)):
        for method in (normal_equations(), conjugate_gradients()):
            with pytest.raises(
                ValueError, match=rf"{method.name}: it fits real targets, and cannot look for the {other.kind}"
            ):
                train(InProcess([Shard("a", X)]), method, problem=other)
        with pytest.raises(ValueError, match=r"tol=0\.5 has no meaning for the"):
            train(InProcess([Shard("a", X)]), auto(tol=0.5), problem=other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeastSquares(-1.0), "alpha must be"),
        (lambda: LeastSquares(math.inf), "alpha must be"),
        (lambda: normal_equations(max_mb=0.0), "max_mb must be"),
        (lambda: normal_equations(tol=-1.0), "tol must be"),
        (lambda: conjugate_gradients(tol=math.nan), "tol must be"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sums_that_are_too_large_are_refused_with_their_cost():
    with pytest.raises(ValueError, match=r"send 4.8e-05 MB a node .*; use conjugate-gradients, which"):
        train(spread_over(*problem(10, 3), 2), normal_equations(max_mb=1e-5), problem=LeastSquares())
