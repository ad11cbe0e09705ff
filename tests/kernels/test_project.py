"""The projection is exact: optimality conditions, an independent solver, and the laws every projection obeys."""

import clarabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from scipy.sparse import csc_array, csr_array, eye_array

from common import examples
from localgd.core import FloatArray
from localgd.kernels.project import SEPARABLE, Projection, project
from localgd.layouts import ClassRows
from localgd.rows import Shard

SAME, SOLVER = 1e-12, 1e-6

small = st.integers(-3, 3).map(float)
rows_ = st.tuples(st.integers(1, 12), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=small)
)
points = arrays(np.float64, 6, elements=st.floats(-9, 9, width=32))


def separable(rows: FloatArray) -> FloatArray:
    """Turn each row to the side of one fixed direction, and push it off the boundary."""
    u = np.cos(np.arange(rows.shape[1]) + 0.5)
    side = np.where(rows @ u < 0, -1.0, 1.0)
    return rows * side[:, None] + 0.1 * u


def gaussian(n: int, d: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)) / np.sqrt(d)
    rows *= np.where(rows @ np.ones(d) < 0, -1.0, 1.0)[:, None]
    return rows, rng.standard_normal(d)


def image(shard: Shard, w: FloatArray, warm: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    found = project(shard, w, warm)
    assert found.feasible
    return w + shard.combine(found.duals), found.duals


def assert_optimal(shard: Shard, w: FloatArray, found: Projection, tol: float = 1e-10) -> None:
    assert found.feasible
    assert (found.duals >= 0).all()
    margins = shard.margins(w + shard.combine(found.duals))
    tol += 8 * np.finfo(np.float64).eps * shard.radius**2 * found.duals.sum()  # what the sum Zᵀα itself rounds off
    assert margins.min() >= 1 - tol
    assert found.duals @ np.abs(margins - 1) <= tol * found.duals.sum()


def clarabel_projection(rows: FloatArray, w: FloatArray) -> FloatArray:
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-12
    n, d = rows.shape
    cone = [clarabel.NonnegativeConeT(n)]
    quadratic = csc_array(eye_array(d, format="csc"))
    solver = clarabel.DefaultSolver(quadratic, -w, csc_array(-rows), -np.ones(n), cone, options)
    return np.array(solver.solve().x)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 7), (5, 1), (12, 40), (40, 12), (30, 400), (300, 20), (100, 50)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_agrees_with_a_general_solver(n: int, d: int, scale: float) -> None:
    rows, w = gaussian(n, d, seed=n + d)
    found = project(Shard("a", scale * rows), w / scale)
    assert_optimal(Shard("a", scale * rows), w / scale, found)
    v = w + scale**2 * rows.T @ found.duals
    np.testing.assert_allclose(v, clarabel_projection(rows, w), atol=SOLVER * np.abs(v).max())


@settings(max_examples=examples(60))
@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(1, 20), st.integers(2, 8), st.booleans())
def test_rows_of_many_classes(seed: int, n_classes: int, n: int, d: int, whole: bool) -> None:
    """Few values make samples twice and rows that depend on each other; sorting by class makes nodes of one class."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((n_classes, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    x = rng.integers(-2, 3, (n, d)).astype(float) if whole else rng.standard_normal((n, d))
    y = (x @ u.T).argmax(axis=1)
    x += u[y]  # off the boundary
    one_class = seed % 3 == 0
    keep = y == y[0] if one_class else np.ones(n, dtype=bool)
    shard = Shard("a", ClassRows(x[keep], y[keep], n_classes))
    w = rng.standard_normal(n_classes * d)
    found = project(shard, w)
    assert_optimal(shard, w, found)
    other = clarabel_projection(shard.rows.toarray(), w)  # which sometimes stops early
    assert np.linalg.norm(shard.combine(found.duals)) <= np.linalg.norm(other - w) * (1 + SOLVER) + SOLVER
    again = project(shard, w + 0.01 * rng.standard_normal(w.size), warm=found.duals)
    assert again.feasible


@given(rows_, points)
def test_satisfies_the_optimality_conditions_or_proves_that_nothing_can(rows: FloatArray, point: FloatArray) -> None:
    shard, w = Shard("a", rows), point[: rows.shape[1]]
    found = project(shard, w)
    if found.feasible:
        assert_optimal(shard, w, found)
        return
    assert (found.duals >= 0).all()
    assert found.duals.sum() > 0
    assert np.linalg.norm(shard.combine(found.duals)) <= 1e-9 * shard.radius * found.duals.sum()


@given(rows_)
def test_is_infeasible_exactly_where_a_linear_program_finds_no_margin(rows: FloatArray) -> None:
    n, d = rows.shape
    cost = np.append(np.zeros(d), -1.0)
    boxes = [(-1.0, 1.0)] * d + [(None, 1.0)]
    best = linprog(cost, A_ub=np.hstack([-rows, np.ones((n, 1))]), b_ub=np.zeros(n), bounds=boxes)
    assert project(Shard("a", rows), np.zeros(d)).feasible == (-best.fun > 1e-7)


@given(rows_, points)
def test_projecting_twice_is_projecting_once(rows: FloatArray, point: FloatArray) -> None:
    shard = Shard("a", separable(rows))
    v, _ = image(shard, point[: rows.shape[1]])
    assert project(shard, v).duals.max() <= 1e-9


@given(rows_, points, points)
def test_never_moves_two_points_apart(rows: FloatArray, first: FloatArray, second: FloatArray) -> None:
    shard, d = Shard("a", separable(rows)), rows.shape[1]
    a, b = first[:d], second[:d]
    assert np.linalg.norm(image(shard, a)[0] - image(shard, b)[0]) <= np.linalg.norm(a - b) + 1e-9


@given(rows_, points, st.floats(1, 3))
def test_a_feasible_point_stays_where_it_is(rows: FloatArray, point: FloatArray, stretch: float) -> None:
    shard = Shard("a", separable(rows))
    v, warm = image(shard, point[: rows.shape[1]])
    inside = v * stretch * (1 + 1e-9)
    if shard.margins(inside).min() >= 1:
        assert not project(shard, inside, warm).duals.any()


@given(rows_, points)
def test_warm_duals_change_the_time_and_not_the_answer(rows: FloatArray, point: FloatArray) -> None:
    shard, w = Shard("a", separable(rows)), point[: rows.shape[1]]
    cold, duals = image(shard, w)
    for warm in (duals, duals[::-1], np.ones(len(rows)), np.zeros(len(rows))):
        np.testing.assert_allclose(image(shard, w, warm)[0], cold, atol=1e-9)


@given(rows_, points)
def test_repeated_rows_change_nothing(rows: FloatArray, point: FloatArray) -> None:
    rows, w = separable(rows), point[: rows.shape[1]]
    once, _ = image(Shard("a", rows), w)
    thrice, _ = image(Shard("a", np.vstack([rows, rows[::-1], rows])), w)
    np.testing.assert_allclose(thrice, once, atol=1e-9)


@given(rows_, points)
def test_sparse_rows_give_the_same_point(rows: FloatArray, point: FloatArray) -> None:
    rows, w = separable(rows * (np.abs(rows) > 1)), point[: rows.shape[1]]
    dense, _ = image(Shard("a", rows), w)
    np.testing.assert_allclose(image(Shard("a", csr_array(rows)), w)[0], dense, atol=1e-9)


def test_a_long_row_does_not_hide_a_short_one() -> None:
    shard = Shard("a", [[1e9, 0.0], [0.0, 1.0]])
    v, duals = image(shard, np.zeros(2))
    np.testing.assert_allclose(duals, [1e-18, 1.0], rtol=SAME)
    np.testing.assert_allclose(shard.margins(v), 1.0, rtol=SAME)
    assert not project(Shard("a", [[1e9, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.zeros(2)).feasible


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
@given(rows_, points, st.floats(0, 5), st.integers(0, 2**32 - 1))
def test_rows_may_be_of_any_length(
    storage: type, rows: FloatArray, point: FloatArray, spread: float, seed: int
) -> None:
    sizes = 10.0 ** np.random.default_rng(seed).uniform(-spread, spread, len(rows))
    rows, w = separable(rows), point[: rows.shape[1]] / 10.0**spread
    shard = Shard("a", storage(rows * sizes[:, None]))
    v, _ = image(shard, w)
    lengths = np.linalg.norm(rows, axis=1) * sizes
    assert (shard.margins(v) / lengths >= 1 / lengths - 1e-9 * (1 / lengths + np.linalg.norm(v))).all()


@given(rows_, points, st.integers(-90, 90))
def test_powers_of_two_change_no_digit(rows: FloatArray, point: FloatArray, exponent: int) -> None:
    rows, w = separable(rows), point[: rows.shape[1]]
    scaled = project(Shard("a", np.ldexp(rows, exponent)), np.ldexp(w, -exponent))
    assert scaled.duals.tobytes() == np.ldexp(project(Shard("a", rows), w).duals, -2 * exponent).tobytes()


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1e-5, 1e5), (1e5, 1e-5)])
def test_the_proof_of_infeasibility_counts_rows_by_their_length(sizes: tuple[float, float]) -> None:
    rows, w = gaussian(20, 10, seed=3)
    rows = np.vstack([sizes[0] * rows, -sizes[1] * rows[:1]])
    found = project(Shard("a", rows), np.zeros(10))
    assert not found.feasible
    mass = found.duals @ np.linalg.norm(rows, axis=1)
    assert 0 < mass < np.inf
    assert np.linalg.norm(found.duals @ rows) <= SEPARABLE * mass
    assert not project(Shard("a", rows), w / max(sizes)).feasible


@pytest.mark.parametrize("shape", [(6, 10), (20, 10), (30, 400)])
@pytest.mark.parametrize("distance", [0.0, 1e-13, 1e-11, 1e-9])
def test_a_row_and_nearly_its_opposite_are_not_separable(shape: tuple[int, int], distance: float) -> None:
    rows, w = gaussian(*shape, seed=3)
    opposite = -rows[0] + distance * np.random.default_rng(4).standard_normal(shape[1])
    shard = Shard("a", np.vstack([rows, opposite]))
    found = project(shard, w)
    assert not found.feasible
    assert np.linalg.norm(shard.combine(found.duals)) <= SEPARABLE * shard.radius * found.duals.sum()


def test_a_zero_row_has_no_margin() -> None:
    found = project(Shard("a", [[1.0, 0.0], [0.0, 0.0]]), np.zeros(2))
    assert not found.feasible
    assert found.duals.tolist() == [0.0, 1.0]
    stored = csr_array((np.array([1.0, 0.0]), np.array([0, 0]), np.array([0, 1, 2])), shape=(2, 2))
    assert project(Shard("a", stored), np.zeros(2)).duals.tolist() == [0.0, 1.0]


def test_columns_that_are_empty_on_the_node_cost_nothing() -> None:
    rows = np.zeros((3, 10_000))
    rows[:, [7, 70, 700]] = np.eye(3) + 0.1
    w = np.zeros(10_000)
    sparse, dense = Shard("a", csr_array(rows)), Shard("a", rows)
    np.testing.assert_allclose(project(sparse, w).duals, project(dense, w).duals, rtol=1e-12)


def test_the_hard_problem_does_not_cycle() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal(50)
    x = rng.standard_normal((1000, 50)) / np.sqrt(50) + rng.standard_normal(50) / np.sqrt(50)
    rows = x * np.sign(x @ w)[:, None]
    shard = Shard("a", rows / np.linalg.norm(rows, axis=1).max())
    found = project(shard, np.zeros(50))
    assert_optimal(shard, np.zeros(50), found, tol=1e-9)
    assert np.count_nonzero(found.duals) <= 50


def test_five_hundred_slowly_moving_points_stay_exact() -> None:
    rows, target = gaussian(60, 30, seed=1)
    shard, w, warm = Shard("a", rows), np.zeros(30), None
    for k in range(500):
        found = project(shard, w, warm)
        assert_optimal(shard, w, found)
        warm = found.duals
        w = 0.99 * w + 0.02 * np.cos(k / 50 + np.arange(30)) * target


def test_the_same_question_has_the_same_bits() -> None:
    rows, w = gaussian(80, 25, seed=2)
    first, second = (project(Shard("a", rows), w).duals for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_an_ascent_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localgd.kernels.project.MARGIN_TOL", -10.0)
    with pytest.raises(ArithmeticError, match="near-contradictory"):
        project(Shard("a", [[1.0]]), np.array([1.5]))


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000))
def test_support_is_never_larger_than_the_dimension(seed: int) -> None:
    rows, w = gaussian(50, 4, seed=seed)
    found = project(Shard("a", rows), w)
    assert np.count_nonzero(found.duals) <= 4
