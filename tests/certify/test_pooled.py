"""The reference answers are right: known margins, two independent solvers, optimality conditions, proofs of absence."""

import clarabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import block_array, csc_array, csr_array, eye_array
from sklearn.linear_model import LogisticRegression

from common import pooled_gd
from localgd.core import FloatArray
from localgd.losses import Exponential, Logistic
from localgd.reference.max_margin import NotSeparableError, max_margin, pooled_direction
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg, norm
from localgd.rows import Shard

SAME_ORDER, SOLVER = 1e-12, 1e-6

#         nodes, rows per node, features, shift, seed, pooled margin
PROBLEMS = {
    "gauss-400": (10, 30, 400, 0.0, 0, 0.043795052),
    "gauss-400-shifted": (10, 30, 400, 1.0, 0, 0.036995052),
    "gauss-2000-shifted": (10, 30, 2000, 1.0, 0, 0.047581657),
    "hard": (10, 100, 50, 1.0, 0, 0.004656721),
    "many-nodes": (50, 20, 500, 0.5, 0, 0.017249044),
}


def gaussian(n_nodes: int, n: int, d: int, shift: float, seed: int) -> FloatArray:
    """Signed rows around one mean per node, separable by construction, largest norm 1."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)
    w /= np.linalg.norm(w)
    nodes = []
    for _ in range(n_nodes):
        mean = shift * rng.standard_normal(d) / np.sqrt(d)
        x = rng.standard_normal((n, d)) / np.sqrt(d) + mean
        nodes.append(x * np.sign(x @ w)[:, None])
    z = np.vstack(nodes)
    return z / np.linalg.norm(z, axis=1).max()


def one_hot(n: int, levels: tuple[int, ...], seed: int) -> FloatArray:
    """Signed one-hot rows with a bias: repeated rows, dependent columns, separable by construction."""
    rng = np.random.default_rng(seed)
    x = np.hstack([np.eye(k)[rng.integers(k, size=n)] for k in levels] + [np.ones((n, 1))])
    score = x @ rng.standard_normal(x.shape[1])
    keep = np.abs(score) > 0.3
    return x[keep] * np.sign(score[keep])[:, None]


def overlapping(n: int, d: int, seed: int) -> FloatArray:
    """Signed rows of two overlapping clouds: not separable."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 0.3


def clarabel_direction(rows: FloatArray) -> FloatArray:
    """Solve the dual ``min ½|w|² − Σα, w = Zᵀα, α >= 0`` over (α, w); accurate to about 1e-6 relative."""
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-13
    n, d = rows.shape
    quadratic = csc_array(np.diag(np.repeat([0.0, 1.0], [n, d])))
    constraints = block_array([[csc_array(rows.T), -eye_array(d)], [-eye_array(n), csc_array((n, d))]], format="csc")
    cones = [clarabel.ZeroConeT(d), clarabel.NonnegativeConeT(n)]
    target = np.concatenate([-np.ones(n), np.zeros(d)])
    solver = clarabel.DefaultSolver(quadratic, target, constraints, np.zeros(n + d), cones, options)
    return np.array(solver.solve().x)[n:]


@pytest.mark.parametrize("name", PROBLEMS)
def test_known_margins_to_every_digit_on_record(name: str) -> None:
    *shape, margin = PROBLEMS[name]
    found = max_margin(gaussian(*shape))
    assert found.margin_low == pytest.approx(margin, abs=1e-9)
    assert found.margin_high - found.margin_low <= 1e-12
    assert found.kkt_residual <= 1e-11


@pytest.mark.parametrize(
    "rows",
    [gaussian(4, 20, 100, 1.0, 1), gaussian(4, 50, 10, 1.0, 2), one_hot(400, (3, 5, 4, 2), 3), 1e4 * np.eye(3)],
    ids=["wide", "tall", "one-hot", "identity"],
)
def test_agrees_with_a_general_solver_and_meets_the_optimality_conditions(rows: FloatArray) -> None:
    found = max_margin(rows)
    assert angle_deg(found.direction, clarabel_direction(rows / np.abs(rows).max())) <= 1e-3
    assert np.linalg.norm(found.direction) == pytest.approx(1.0, abs=SAME_ORDER)
    assert (found.duals >= 0).all()
    assert np.count_nonzero(found.duals) <= np.linalg.matrix_rank(rows)
    w = rows.T @ found.duals
    assert angle_deg(w, found.direction) <= 1e-10
    assert (rows @ w).min() == pytest.approx(1.0, abs=1e-10)
    np.testing.assert_allclose((rows @ w)[found.duals > 0], 1.0, atol=1e-10)
    assert found.margin_low == pytest.approx(1 / np.linalg.norm(w), rel=1e-10)


def test_the_direction_is_right_to_the_last_digits() -> None:
    rows = gaussian(*PROBLEMS["hard"][:5])
    found = max_margin(rows)
    on = np.flatnonzero(found.duals)
    block = rows[on].astype(np.longdouble)
    inverse = np.linalg.inv(rows[on] @ rows[on].T)
    duals = found.duals[on].astype(np.longdouble)
    for _ in range(30):  # refine with residuals in extended precision
        duals += inverse @ np.asarray(1 - block @ (block.T @ duals), dtype=np.float64)
    assert duals.min() > 0
    assert angle_deg(found.direction, np.asarray(block.T @ duals, dtype=np.float64)) <= 1e-8


@pytest.mark.parametrize("rows", [one_hot(400, (3, 5, 4, 2), 3), one_hot(20, (9, 9, 9), 4)], ids=["tall", "wide"])
def test_sparse_rows_give_the_same_answer(rows: FloatArray) -> None:
    dense, sparse = max_margin(rows), max_margin(csr_array(rows))
    assert angle_deg(dense.direction, sparse.direction) <= 1e-8
    assert sparse.margin_low == pytest.approx(dense.margin_low, rel=1e-10)
    assert sparse.n_support == dense.n_support


def test_repeated_rows_count_once_as_support_and_change_nothing() -> None:
    rows = gaussian(3, 20, 8, 1.0, 5)
    once, twice = max_margin(rows), max_margin(np.vstack([rows, rows]))
    assert angle_deg(once.direction, twice.direction) <= 1e-8
    assert once.n_support == twice.n_support == np.count_nonzero(once.duals)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_rows_only_scale_the_margin(scale: float) -> None:
    rows = gaussian(3, 20, 8, 1.0, 6)
    base, scaled = max_margin(rows), max_margin(scale * rows)
    assert angle_deg(base.direction, scaled.direction) <= 1e-8
    assert scaled.margin_low == pytest.approx(scale * base.margin_low, rel=1e-10)
    np.testing.assert_allclose(scale * rows.T @ scaled.duals, scaled.direction / scaled.margin_low, rtol=1e-8)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[1.0], [-2.0]]),
        np.zeros((2, 3)),
        overlapping(200, 5, 0),
        np.vstack([gaussian(3, 20, 100, 0.0, 1), -gaussian(3, 20, 100, 0.0, 1)[:1]]),
    ],
    ids=["opposite", "zero", "overlapping", "one contradiction"],
)
@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_rows_that_cannot_be_separated_are_refused_with_the_proof(rows: FloatArray, storage: type) -> None:
    with pytest.raises(NotSeparableError, match="not separable") as caught:
        max_margin(storage(rows))
    assert 0 <= caught.value.margin_bound <= 1e-12


@pytest.mark.parametrize("margin", [1e-9, 1e-12])
def test_a_margin_too_small_for_float64_is_refused_with_a_bound_that_holds(margin: float) -> None:
    rows = np.random.default_rng(0).standard_normal((200, 10))
    rows[:, 0] = margin  # no direction has less than this
    with pytest.raises(NotSeparableError, match="less than 1e-08 of a row's length") as caught:
        max_margin(rows)
    assert margin <= caught.value.margin_bound <= 1e-8 * np.linalg.norm(rows, axis=1).max()


def test_an_answer_that_fails_its_check_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localgd.reference.max_margin.KKT_TOL", -1.0)
    with pytest.raises(ValueError, match="KKT residual"):
        max_margin(np.eye(2))


def test_an_ascent_that_rounding_stops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localgd.reference.max_margin.MARGIN_TOL", -10.0)
    with pytest.raises(ValueError, match="max_margin: projection: rounding stopped the ascent"):
        max_margin(np.array([[1.0], [2.0]]))


def known(shape: tuple[int, int, int], margin: float, spread: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Rows whose u* = (±1, …, ±1)/√d holds exactly, and u*: every entry and every sum is an integer times 2^-k.

    The support rows are margin·top·u*√d + t_i with ``Σ p_i t_i/size_i = 0`` for some p > 0 and t_i·u* = 0.
    """
    (d, n_support, n_beyond), rng = shape, np.random.default_rng(seed)
    tangents = rng.integers(-9, 10, (n_support + n_beyond, d)).astype(float)
    tangents[:, -1] -= tangents.sum(axis=1)
    weights = rng.integers(1, 6, n_support - 1)
    tangents[n_support - 1] = -weights @ tangents[: n_support - 1]
    tangents *= 2.0 ** rng.integers(0, spread + 1, len(tangents))[:, None]
    top = 2.0 ** np.ceil(np.log2(np.linalg.norm(tangents, axis=1).max() / np.sqrt(d)))
    heights = np.append(np.ones(n_support), rng.integers(2, 9, n_beyond))
    signs = rng.choice([-1.0, 1.0], d)
    rows = (tangents + margin * top * heights[:, None]) * signs
    return rows[rng.permutation(len(rows))], signs / np.sqrt(d)


@pytest.mark.parametrize("exponent", [3, 7, 10, 13, 17, 20])
@pytest.mark.parametrize("spread", [0, 10])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(4, 2, 0), (4, 4, 30), (16, 6, 30), (64, 25, 200)])
def test_known_directions_to_a_part_in_ten_to_the_eight_of_a_degree(
    exponent: int, spread: int, seed: int, shape: tuple[int, int, int]
) -> None:
    rows, u = known(shape, margin=2.0**-exponent, spread=spread, seed=seed)
    found = max_margin(rows)
    assert angle_deg(found.direction, u) <= 1e-8
    assert found.margin_low == pytest.approx((rows @ u).min(), rel=1e-8)
    assert found.margin_high == pytest.approx((rows @ u).min(), rel=1e-8)


def test_a_margin_of_a_hundred_thousandth_is_answered() -> None:
    found = max_margin(np.array([[7.0, 6.1e-5], [-7.0, 6.1e-5], [3.0, 9.2e-5]]))
    assert angle_deg(found.direction, np.array([0.0, 1.0])) <= 1e-10
    assert found.kkt_residual <= 1e-10
    assert found.n_support == 2


@pytest.mark.parametrize("ratio", [1e9, 1e10, 9e11])
def test_rows_of_unlike_lengths_are_separable(ratio: float) -> None:
    found = max_margin(np.array([[ratio, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(found.direction, [1 / ratio, 1.0], rtol=SAME_ORDER)
    assert found.margin_low == pytest.approx(1.0, rel=SAME_ORDER)
    assert found.margin_high == pytest.approx(1.0, rel=SAME_ORDER)


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_any_lengths_that_are_taken_get_an_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = gaussian(1, 8, 5, 0.0, seed)
    rows *= (10.0 ** rng.uniform(-5.9, 5.9, 8) / np.linalg.norm(rows, axis=1))[:, None]
    found = max_margin(rows)
    lengths = np.array([norm(row) for row in rows])
    assert (rows @ found.direction >= -1e-12 * lengths).all()
    assert 0 < found.margin_high <= lengths.min() * (1 + SAME_ORDER)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1e13, 0.0], [0.0, 1.0]], "more than 1e12 apart"),
        ([[1e200, 0.0], [0.0, 1e200]], "scale the columns"),
        ([[1e-200, 0.0], [0.0, 1e-200]], "scale the columns"),
    ],
)
def test_rows_beyond_that_are_refused(rows: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        max_margin(np.array(rows))


@pytest.mark.parametrize("exponent", [-90, -60, 60, 98])
@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_rows_at_the_ends_of_what_is_taken_have_the_same_direction(storage: type, exponent: int) -> None:
    rows = np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    base, found = max_margin(storage(rows)), max_margin(storage(np.ldexp(rows, exponent)))
    assert found.direction.tobytes() == base.direction.tobytes()
    assert found.margin_low == np.ldexp(base.margin_low, exponent)
    assert found.kkt_residual == base.kkt_residual
    opposite = np.ldexp([[1.0], [-1.0]], exponent)
    with pytest.raises(NotSeparableError) as caught:
        max_margin(storage(opposite))
    assert 0 < caught.value.margin_bound <= 1e-12 * np.ldexp(1.0, exponent) + 5e-324


@pytest.mark.parametrize("loss", [Logistic(), Exponential()])
def test_pooled_descent_is_the_textbook_loop(loss: Logistic | Exponential) -> None:
    rows = gaussian(2, 10, 6, 0.5, 7)
    weights = np.repeat([0.25 / 10, 0.75 / 10], 10)
    w = np.zeros(6)
    for _ in range(50):
        gradient = np.zeros(6)
        for z, p in zip(rows, weights, strict=True):
            margin = z @ w
            gradient -= p * z * (np.exp(-margin) if loss.name == "exponential" else 1 / (1 + np.exp(margin)))
        w -= 0.8 * gradient
    np.testing.assert_allclose(pooled_gd(rows, weights, loss, 0.8, 50), w, rtol=SAME_ORDER)
    np.testing.assert_allclose(pooled_gd(csr_array(rows), weights, loss, 0.8, 50), w, rtol=1e-9)


def test_pooled_descent_tends_to_the_max_margin_direction() -> None:
    rows = np.array([[1.0, 0.2], [0.3, 1.0], [2.0, 2.0]])
    target = max_margin(rows).direction
    weights = np.full(3, 1 / 3)
    angles = [angle_deg(pooled_gd(rows, weights, Exponential(), 0.5, n), target) for n in (10, 1000, 20_000)]
    assert angles == sorted(angles, reverse=True)


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_the_minimiser_agrees_with_scikit_learn(storage: type) -> None:
    rows = overlapping(300, 6, 1)
    weights = np.random.default_rng(2).uniform(0.5, 2.0, 300)
    weights /= weights.sum()
    y = np.where(np.arange(300) % 2, 1.0, -1.0)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, fit_intercept=False)
    model.fit(rows * y[:, None], y, sample_weight=weights * 300)
    w = minimiser(storage(rows), weights)
    np.testing.assert_allclose(w, model.coef_[0], rtol=SOLVER)
    gradient = rows.T @ (weights * Logistic().slope(rows @ w))
    assert np.linalg.norm(gradient) <= 1e-12 * np.linalg.norm(rows, axis=1).max()


def test_dependent_columns_get_the_minimiser_of_least_norm() -> None:
    rows, weights = overlapping(100, 3, 3), np.full(100, 0.01)
    doubled = minimiser(np.hstack([rows, rows]), weights)
    np.testing.assert_allclose(doubled, np.tile(minimiser(rows, weights) / 2, 2), rtol=1e-9)


@pytest.mark.parametrize(
    "rows",
    [
        gaussian(2, 10, 5, 0.0, 0),
        # the second column separates the last row only, the first one never does: the loss falls for ever
        np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.5, 1.0]]),
    ],
    ids=["separable", "separable in part"],
)
def test_rows_without_a_minimiser_are_refused(rows: FloatArray) -> None:
    with pytest.raises(ValueError, match="no minimiser"):
        minimiser(rows, np.full(len(rows), 1 / len(rows)))


@pytest.mark.parametrize("weights", [np.ones(4), np.full(3, 1 / 3), np.array([2.0, -1.0, 0.0, 0.0])])
def test_weights_must_fit(weights: FloatArray) -> None:
    with pytest.raises(ValueError, match="weights must"):
        minimiser(np.ones((4, 2)), weights)


@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_pooling_the_nodes_gives_the_margin_or_else_the_minimiser(storage: type) -> None:
    apart = gaussian(2, 10, 5, 0.5, 0)
    nodes = [Shard("a", storage(apart[:4])), Shard("b", storage(apart[4:]))]
    assert angle_deg(pooled_direction(nodes), max_margin(apart).direction) <= 1e-8
    mixed = overlapping(100, 3, 4)
    nodes = [Shard("a", storage(mixed[:20])), Shard("b", storage(mixed[20:]))]
    by_node = minimiser(mixed, np.repeat([0.5 / 20, 0.5 / 80], [20, 80]))
    np.testing.assert_allclose(pooled_direction(nodes), by_node, rtol=1e-9)
    by_row = minimiser(mixed, np.full(100, 0.01))
    np.testing.assert_allclose(pooled_direction(nodes, "num-examples"), by_row, rtol=1e-9)


@pytest.mark.parametrize("exponent", [-90, -60, 60, 90])
def test_the_minimiser_does_not_depend_on_units(exponent: int) -> None:
    rows, weights = overlapping(50, 3, 5), np.full(50, 0.02)
    scaled = minimiser(np.ldexp(rows, exponent), weights)
    assert np.ldexp(scaled, exponent).tobytes() == minimiser(rows, weights).tobytes()


def test_where_nothing_answers_one_error_says_so() -> None:
    nodes = [Shard("a", [[1.0, 0.0], [0.5, 1.0]]), Shard("b", [[-1.0, 0.0]])]
    with pytest.raises(ValueError, match="no pooled model to compare with") as caught:
        pooled_direction(nodes)
    assert "max_margin" not in str(caught.value)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_angles_do_not_depend_on_lengths(a: int, b: int) -> None:
    first, second = np.array([3.0, 1.0]), np.array([1.0, 2.0])
    assert angle_deg(np.ldexp(first, a), np.ldexp(second, b)) == pytest.approx(45.0, rel=SAME_ORDER)


@given(st.floats(1e-150, 180 - 1e-6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_angles_are_right_near_zero_too(degrees: float, a: float, b: float) -> None:
    turn = np.radians(degrees)
    assert angle_deg(np.array([a, 0.0]), b * np.array([np.cos(turn), np.sin(turn)])) == pytest.approx(degrees, rel=1e-9)


@given(arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)), arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)))
def test_angles_are_symmetric_and_within_a_half_turn(a: FloatArray, b: FloatArray) -> None:
    angle = angle_deg(a, b)
    if not (a.any() and b.any()):
        assert np.isnan(angle)
        return
    assert angle == angle_deg(b, a)
    assert 0 <= angle <= 180
