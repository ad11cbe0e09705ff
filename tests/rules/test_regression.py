"""Least squares with more features than rows: what is known exactly about local steps and exact local solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from common import OTHER_ORDER, SAME_ORDER
from localgd import End, InProcess, LeastSquares, Method, NodeError, local_gd, modified_local_gd, train
from localgd.core import Message
from localgd.rows import Samples
from localgd.rules.local_squares import SquaresSteps, stable_lr
from localgd.rules.server import Extrapolation, chain, mean

D = 30


def nodes_of(seed=0, sizes=(3, 6, 8), d=D):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)
    nodes = []
    for m, n in enumerate(sizes):
        x = rng.standard_normal((n, d)) / np.sqrt(d) + 0.1 * rng.standard_normal(d)
        nodes.append(Samples(f"node-{m}", x, x @ w + 0.3 * rng.standard_normal(n)))
    return nodes


def pooled(nodes):
    return np.vstack([node.rows for node in nodes]), np.concatenate([node.targets for node in nodes])


def rounds(nodes, task, n_rounds, merge=None):
    engine, merge = InProcess(nodes), merge or mean()
    state = merge.init(np.zeros(nodes[0].n_features))
    models = [state.w]
    for _ in range(n_rounds):
        state = merge.step(state, engine.round(task, merge.message(state)))
        models.append(state.w)
    return models


def moved(node, task, w):
    """The model of one node after its local work."""
    report, _ = task.run(Message(0, w), node, task.init(node))
    return w + report.duals["update"].vector / report.sums["weight"]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("local_steps", [1, 2, 10, 1000])
@pytest.mark.parametrize("speed", [1e-9, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("start", [0.0, 1.0], ids=["from 0", "from elsewhere"])
def test_the_closed_form_is_the_plain_loop(local_steps, speed, start):
    """From 0 the model is the move alone, so that the digits of a tiny move count, too."""
    node = nodes_of()[-1]
    lr = speed * stable_lr(InProcess([node]))
    w = v = start * np.random.default_rng(1).standard_normal(D)
    for _ in range(local_steps):
        v = v - lr * node.rows.T @ (node.rows @ v - node.targets) / node.n_rows
    assert relative(moved(node, SquaresSteps(local_steps, lr), w), v) <= SAME_ORDER


@pytest.mark.parametrize("case", ["more rows than features", "a row twice", "a zero row", "zero rows only"])
def test_the_closed_form_needs_no_full_rank(case):
    node = nodes_of(d=3)[-1] if case == "more rows than features" else nodes_of()[0]
    rows, targets = np.array(node.rows), node.targets
    if case == "a row twice":
        rows[1] = rows[0]
    elif case == "a zero row":
        rows[1] = 0.0
    elif case == "zero rows only":
        rows[:] = 0.0
    node = Samples("a", rows, targets)
    lr = stable_lr(InProcess([node]))
    w = v = np.random.default_rng(1).standard_normal(node.n_features)
    for _ in range(20):
        v = v - lr * rows.T @ (rows @ v - targets) / len(rows)
    assert relative(moved(node, SquaresSteps(20, lr), w), v) <= SAME_ORDER
    exact = w + np.linalg.pinv(rows) @ (targets - rows @ w)  # the least-squares change of least norm
    assert relative(moved(node, SquaresSteps(), w), exact) <= SAME_ORDER


def test_the_exact_solution_is_a_projection():
    node = nodes_of()[-1]
    w = np.random.default_rng(1).standard_normal(D)
    v = moved(node, SquaresSteps(), w)
    assert np.abs(node.residuals(v)).max() <= SAME_ORDER
    assert relative(moved(node, SquaresSteps(), v), v) <= SAME_ORDER
    across = np.linalg.svd(node.rows)[2][node.n_rows :]  # the change is a combination of rows: nothing across them
    assert np.abs(across @ (v - w)).max() <= SAME_ORDER


def test_many_local_steps_tend_to_the_exact_solution():
    node = nodes_of()[-1]
    w = np.random.default_rng(1).standard_normal(D)
    steps = SquaresSteps(10**6, stable_lr(InProcess([node])))
    assert relative(moved(node, steps, w), moved(node, SquaresSteps(), w)) <= OTHER_ORDER


@pytest.mark.parametrize(
    "merge",
    [mean(), chain(mean(), Extrapolation()), chain(mean(), Extrapolation(1.0))],
    ids=["mean", "FedExP", "Pierra"],
)
def test_averaged_exact_solutions_converge_linearly_to_the_pooled_interpolant_of_least_norm(merge):
    nodes = nodes_of()
    reference = np.linalg.lstsq(*pooled(nodes))[0]
    apart = [relative(w, reference) for w in rounds(nodes, SquaresSteps(), 600, merge)]
    assert apart[-1] <= SAME_ORDER
    early = [error for error in apart if error > 1e-10]
    rate = (early[-1] / early[len(early) // 2]) ** (1 / (len(early) - 1 - len(early) // 2))
    assert rate < 0.97
    assert early[len(early) // 2] == pytest.approx(math.sqrt(early[0] * early[-1]), rel=9)  # a line, in logarithms


@pytest.mark.parametrize("local_steps", [1, 20])
def test_local_steps_reach_the_same_interpolant(local_steps):
    nodes = nodes_of()
    reference = np.linalg.lstsq(*pooled(nodes))[0]
    task = SquaresSteps(local_steps, stable_lr(InProcess(nodes)))
    assert relative(rounds(nodes, task, 3000)[-1], reference) <= 1e-6


@pytest.mark.parametrize("weighted_by", ["uniform", "num-examples"])
def test_one_local_step_is_pooled_gradient_descent(weighted_by):
    nodes = nodes_of()
    lr = stable_lr(InProcess(nodes))
    x, y = pooled(nodes)
    sizes = np.array([node.n_rows for node in nodes])
    share = sizes / sizes.sum() if weighted_by == "num-examples" else np.full(len(sizes), 1 / len(sizes))
    row_weights = np.repeat(share / sizes, sizes)
    w = np.zeros(D)
    for _ in range(100):
        w = w - lr * x.T @ (row_weights * (x @ w - y))
    assert relative(rounds(nodes, SquaresSteps(1, lr, weighted_by), 100)[-1], w) <= SAME_ORDER


@pytest.mark.parametrize("task", [SquaresSteps(), SquaresSteps(5, 0.5, "num-examples")], ids=["exact", "steps"])
def test_the_order_of_the_nodes_changes_no_bit_and_the_storage_hardly_any(task):
    nodes = nodes_of()
    first = rounds(nodes, task, 10)[-1]
    assert np.array_equal(first, rounds(nodes[::-1], task, 10)[-1])
    sparse = [Samples(node.node_id, csr_array(node.rows), node.targets) for node in nodes]
    np.testing.assert_allclose(rounds(sparse, task, 10)[-1], first, rtol=OTHER_ORDER)


def test_the_report_holds_sums_only_and_claims_no_mass():
    nodes = nodes_of()
    w = np.random.default_rng(1).standard_normal(D)
    report = InProcess(nodes).round(SquaresSteps(weighted_by="num-examples"), Message(0, w))
    x, y = pooled(nodes)
    assert float(report.sums["weight"]) == len(y)
    assert float(report.sums["square"]) == pytest.approx(np.square(x @ w - y).sum())
    moves = [moved(node, SquaresSteps(), w) - w for node in nodes]
    squares = sum(node.n_rows * move @ move for node, move in zip(nodes, moves, strict=True))
    assert float(report.sums["update_sq_norm"]) == pytest.approx(squares)
    assert not report.duals["update"].known
    assert not any((report.maxs, report.mins, report.counts, report.flags))


@pytest.mark.parametrize("start", [None, np.ones(D)], ids=["from 0", "from elsewhere"])
@pytest.mark.parametrize("merge", [mean(), chain(mean(), Extrapolation())], ids=["mean", "FedExP"])
def test_train_runs_it_with_the_objective_and_true_bounds(merge, start):
    nodes = nodes_of()
    x, y = pooled(nodes)
    shortest = np.linalg.lstsq(x, y)[0]
    seen = []
    method = Method("projections", SquaresSteps(), merge, LeastSquares())
    run = train(InProcess(nodes), method, n_rounds=400, w0=start, on_round=seen.append)
    for info in seen:
        assert info.row.loss == pytest.approx(np.square(x @ info.w - y).sum(), abs=SAME_ORDER)
        assert info.certificate.length_low <= np.linalg.norm(shortest) * (1 + SAME_ORDER)
    assert run.end is End.OUT_OF_ROUNDS
    assert "there is no penalty and XᵀX is not known" in run.certificate.reason
    if start is None:
        assert relative(run.w, shortest) <= 1e-6
        assert run.certificate.length_low > 0.5 * np.linalg.norm(shortest)


@pytest.mark.parametrize("problem", [LeastSquares(1.0), LeastSquares(intercept=True)], ids=str)
def test_what_its_steps_do_not_know_is_refused(problem):
    method = Method("steps", SquaresSteps(), mean(), LeastSquares())
    with pytest.raises(ValueError, match="steps: its steps know neither penalty nor free intercept"):
        train(InProcess(nodes_of()), method, problem=problem)
    with pytest.raises(ValueError, match="steps: it has no meaning for real targets: the late direction is no model"):
        train(InProcess(nodes_of()), method.late())


def test_the_stable_step_is_the_inverse_of_the_largest_curvature_of_a_node():
    nodes = nodes_of()
    largest = max(np.linalg.norm(node.rows, 2) ** 2 / node.n_rows for node in nodes)
    assert stable_lr(InProcess(nodes)) == pytest.approx(1 / largest, rel=1e-4)
    assert stable_lr(InProcess([Samples("a", [[0.0]], [1.0])])) == 1.0


def test_steps_far_too_large_leave_float64_for_all_to_see():
    shard = nodes_of()[0]
    with np.errstate(over="ignore", invalid="ignore"):
        report, _ = SquaresSteps(1000, 1e6).run(Message(0, np.ones(D)), shard, SquaresSteps().init(shard))
    assert report.flags == {"overflow": 1}


@pytest.mark.parametrize("method", [local_gd(), modified_local_gd()], ids=lambda method: method.name)
def test_targets_are_not_taken_for_classes(method):
    with pytest.raises(NodeError, match="holds real targets, not signed rows"):
        train(InProcess(nodes_of()), method, n_rounds=1)


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        ([[1.0], [2.0]], [1.0], r"has 2 rows but targets of shape \(1,\)"),
        ([[1.0]], [[1.0]], "one target per row"),
        ([[1.0]], [math.nan], "NaN or infinite targets"),
        ([[math.inf]], [1.0], "NaN or infinite entries"),
        (np.zeros((0, 2)), [], "has no rows"),
        ([[1e200]], [1.0], "extreme size"),
        ([[1e-200]], [1.0], "extreme size"),
        ([[1.0]], [1e200], "extreme size"),
    ],
)
def test_bad_samples_are_refused_by_name(rows, targets, message):
    with pytest.raises(ValueError, match=message) as refused:
        Samples("Lyon", rows, targets)
    assert "'Lyon'" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"local_steps": 0, "lr": 1.0}, "local_steps must be"),
        ({"local_steps": 1.5, "lr": 1.0}, "local_steps must be"),
        ({"local_steps": 3}, "lr must be"),
        ({"local_steps": 3, "lr": 0.0}, "lr must be"),
        ({"local_steps": 3, "lr": math.inf}, "lr must be"),
        ({"lr": 1.0}, "lr=1.0 has no meaning"),
        ({"weighted_by": "size"}, "weighted_by must be"),
    ],
)
def test_bad_fields_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        SquaresSteps(**given)


def test_samples_and_targets_cannot_be_written_to():
    targets = np.array([1.0])
    node = Samples("a", [[1.0]], targets)
    targets[0] = 5.0
    assert node.targets.tolist() == [1.0]
    with pytest.raises(ValueError, match="read-only"):
        node.targets[0] = 2.0
