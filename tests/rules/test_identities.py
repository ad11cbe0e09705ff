"""What Local-GD must be in the cases where the answer is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from common import METHODS, SAME_ORDER, SOLVER, pooled_gd, random_rows, stacked
from localgd import Exponential, InProcess, Method, Shard, local_gd, local_sgd, modified_local_gd, train
from localgd.losses import Logistic
from localgd.rounding import angle_deg
from localgd.rules.local import GradientSteps
from localgd.rules.project import Project
from localgd.rules.server import Anchored, mean


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
@pytest.mark.parametrize("weighted_by", ["num-examples", "uniform"])
def test_one_full_batch_local_step_is_pooled_gradient_descent(weighted_by, loss):
    shards = random_rows(1)
    run = train(InProcess(shards), local_gd(local_steps=1, lr=0.3, weighted_by=weighted_by, loss=loss), n_rounds=100)
    sizes = np.array([shard.n_rows for shard in shards])
    share = sizes / sizes.sum() if weighted_by == "num-examples" else np.full(len(sizes), 1 / len(sizes))
    yardstick = Logistic() if loss == "logistic" else Exponential()
    pooled = pooled_gd(stacked(shards), np.repeat(share / sizes, sizes), yardstick, 0.3, 100)
    assert relative(run.w, pooled) <= SAME_ORDER


def test_one_node_is_centralized_training():
    shard = random_rows(2)[-1]
    run = train(InProcess([shard]), local_gd(local_steps=10, lr=0.3), n_rounds=10)
    pooled = pooled_gd(shard.rows, np.full(shard.n_rows, 1 / shard.n_rows), Logistic(), 0.3, 100)
    assert relative(run.w, pooled) <= SAME_ORDER


def test_alike_nodes_are_centralized_training_whatever_the_local_steps():
    rows = random_rows(3)[-1].rows
    run = train(InProcess([Shard(name, rows) for name in "abc"]), local_gd(local_steps=10, lr=0.3), n_rounds=10)
    pooled = pooled_gd(rows, np.full(len(rows), 1 / len(rows)), Logistic(), 0.3, 100)
    assert relative(run.w, pooled) <= SAME_ORDER


def test_a_batch_of_all_rows_is_the_full_batch():
    engine = InProcess(random_rows(4))
    full = train(engine, local_gd(local_steps=5, lr=0.3), n_rounds=5)
    batch = train(engine, local_sgd(local_steps=5, lr=0.3, batch_size=1000), n_rounds=5)
    assert np.array_equal(full.w, batch.w)


def test_the_proximal_form_tends_to_the_projection_as_the_pull_weakens():
    shard = Shard("a", [[1.0, 0.3], [0.8, -0.4]])
    projected = train(InProcess([shard]), Method("projection", Project(), mean()), n_rounds=1).w
    angles, scales = [], []
    for prox in (1e-1, 1e-2, 1e-3):
        steps = GradientSteps(local_steps=20_000, lr=3.0, prox=prox)
        proximal = train(InProcess([shard]), Method("proximal", steps, mean()), n_rounds=1).w
        angles.append(angle_deg(proximal, projected))
        scales.append(np.linalg.norm(proximal) / np.log(1 / prox) / np.linalg.norm(projected))
    assert angles == pytest.approx([10.69967344, 8.57178327, 7.08034084], rel=SOLVER), "to 0"
    assert scales == pytest.approx([0.63094228, 0.67856509, 0.72049032], rel=SOLVER), "to 1, as log log"


def test_the_anchor_shrinks_by_k_over_k_plus_one():
    shards = random_rows(5)
    plain = train(InProcess(shards), Method("plain", Project(), mean()), n_rounds=1)
    shrunk = train(InProcess(shards), Method("anchored", Project(), Anchored(mean())), n_rounds=1)
    np.testing.assert_allclose(shrunk.w, plain.w / 2, rtol=SAME_ORDER)


BAD_FIELDS = [
    (GradientSteps, {"local_steps": 0}, "local_steps must be"),
    (GradientSteps, {"local_steps": 1.5}, "local_steps must be"),
    (GradientSteps, {"lr": 0.0}, "lr must be"),
    (GradientSteps, {"lr": float("nan")}, "lr must be"),
    (GradientSteps, {"lr": "fast"}, "lr must be"),
    (GradientSteps, {"batch_size": 0}, "batch_size must be"),
    (GradientSteps, {"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
    (GradientSteps, {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    (GradientSteps, {"prox": "small"}, "prox must be a number of at least 0, got 'small'"),
    (GradientSteps, {"prox": -1.0}, "prox must be"),
    (GradientSteps, {"lr": 3.0, "prox": 1.0}, "lr·prox must be at most 1"),
    (GradientSteps, {"weighted_by": "size"}, "weighted_by must be"),
    (Project, {"weighted_by": "size"}, "weighted_by must be"),
    (modified_local_gd, {"local_steps": 5}, "local_steps has no meaning"),
    (modified_local_gd, {"form": "dual"}, "form must be"),
    (local_gd, {"loss": "hinge"}, "unknown loss 'hinge'"),
]


@pytest.mark.parametrize(("make", "given", "message"), BAD_FIELDS)
def test_bad_fields_are_refused_by_name(make, given, message):
    with pytest.raises(ValueError, match=message):
        make(**given)


@pytest.mark.parametrize("name", METHODS)
def test_step_sizes_are_found_once_and_kept_in_the_run(name):
    run = train(InProcess(random_rows(7)), METHODS[name], n_rounds=1)
    lr = getattr(run.method.task, "lr", None)
    assert lr is None or lr > 0
