"""Columns that depend on each other exactly: found by the nodes without rounding, and left out of what is proved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from common import as_csr, examples, random_rows, shards_of, stacked, with_bias
from engines.flower_grid import LocalGrid
from localgd import (
    ClassRows,
    InProcess,
    Regularised,
    Shard,
    Status,
    auto,
    certify,
    load,
    newton,
    prepare,
    train,
)
from localgd.data.datasets import DATASETS
from localgd.flower import FlowerEngine, answer
from localgd.problems.quotient import dependencies, uncancelled
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg
from localgd.rules.descent import Newton
from localgd.run.checkpoint import Checkpoints


def exactly(rows, vector):
    """Whether every row is at a right angle to the vector, in fractions."""
    factors = [Fraction(v) for v in vector]
    return all(sum(Fraction(a) * v for a, v in zip(row, factors, strict=True)) == 0 for row in rows.tolist())


@pytest.mark.parametrize("scale", [None, "standard"])
def test_heart_is_certified_as_it_comes(scale):
    engine, _ = prepare(InProcess(load("heart")), **DATASETS["heart"].options | {"scale": scale})
    rows = stacked(engine.shards)
    run = train(engine, auto())
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.separable is False
    assert "but for 5 exact dependencies of columns, which change no margin" in run.certificate.status
    pooled = minimiser(rows, np.full(len(rows), 1 / len(rows)))
    assert angle_deg(run.w, pooled) <= run.certificate.angle_deg_max + 1e-6
    assert np.linalg.norm(run.w - pooled) <= run.certificate.distance + 1e-8 * np.linalg.norm(pooled)
    assert run.certificate.angle_deg_max < 1e-3


@given(st.integers(0, 10**9))
@settings(max_examples=examples(300), deadline=None)
def test_a_vector_is_told_to_cancel_only_if_it_does(seed):
    """Whole numbers, numbers that sum to 0 but for their rounding, and rows of which one is off."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    rows = rng.standard_normal((n, d)) if rng.random() < 0.5 else rng.integers(-3, 4, (n, d)).astype(float)
    vector = rng.integers(-2, 3, d).astype(float)
    vector[-1] = 1.0 if rng.random() < 0.8 else 2.0
    rows[:, -1] = -(rows[:, :-1] @ vector[:-1]) / vector[-1]
    if rng.random() < 0.3:
        rows[rng.integers(n), rng.integers(d)] += 2.0 ** -int(rng.integers(0, 60))
    sizes = np.linalg.norm(rows, axis=1)
    assume(sizes.max() < 1e12 * sizes.min(initial=np.inf, where=sizes > 0))  # others are refused
    shard = Shard("a", csr_array(rows) if rng.random() < 0.3 else rows) if rows.any() else Shard("a", np.ones((1, d)))
    said = uncancelled(shard, vector[None])[0] == 0.0
    held = shard.rows.toarray() if isinstance(shard.rows, csr_array) else shard.rows
    assert not said or exactly(held, vector)
    whole = (held == np.rint(held)).all()
    assert said or not whole or not exactly(held, vector)


@given(st.integers(0, 10**9))
@settings(max_examples=examples(100), deadline=None)
def test_complete_categories_are_guessed(seed):
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 5, int(rng.integers(1, 4)))
    codes = [np.concatenate([np.arange(k), rng.integers(k, size=60)]) for k in levels]
    blocks = [np.eye(k)[rng.permutation(code)[:60]] for k, code in zip(levels, codes, strict=True)]
    rows = np.hstack([*blocks, 10.0 ** rng.integers(-2, 3) * rng.standard_normal((60, 2)), np.ones((60, 1))])
    rows *= rng.choice([-1.0, 1.0], (60, 1))
    found = dependencies(rows.T @ rows / 240)
    assert all(exactly(rows, vector) for vector in found)
    assert np.linalg.matrix_rank(found) == len(found) == rows.shape[1] - np.linalg.matrix_rank(rows)


def noisy(seed):
    return with_bias(random_rows(seed, n=20), seed, 0.3)


def also(shards, column):
    """The shards with one more column, made of their rows."""
    return [Shard(shard.node_id, np.column_stack([shard.rows, column(shard.rows)])) for shard in shards]


@pytest.mark.parametrize("storage", [list, as_csr], ids=["dense", "csr"])
def test_a_column_that_is_there_twice_is_left_out_of_the_proof(storage):
    shards = storage(also(noisy(3), lambda x: x[:, 0]))
    run = train(InProcess(shards), newton(), n_rounds=60)
    assert run.certificate.verdict is Status.CERTIFIED
    assert "but for 1 exact dependency of columns, which changes no margin" in run.certificate.status
    pooled = minimiser(stacked(shards), np.full(len(stacked(shards)), 1 / len(stacked(shards))))
    assert np.linalg.norm(run.w - pooled) <= run.certificate.distance + 1e-8


@pytest.mark.parametrize("place", [0, 3])
def test_columns_that_depend_on_each_other_but_for_rounding_are_not_or_at_one_node_only(place):
    """A sum that rounds, and a copy of which one node has another value."""
    shards = also(noisy(3), (lambda x: x[:, 0] + x[:, 1] / 3) if place == 0 else (lambda x: x[:, 0]))
    if place:
        rows = np.array(shards[place].rows)
        rows[-1, -1] *= 1 + 2.0**-40
        shards[place] = Shard(shards[place].node_id, rows)
    run = train(InProcess(shards), newton(), n_rounds=60)
    assert run.certificate.status.startswith("undecided: no bound on the distance to a minimiser")
    assert run.certificate.separable is None


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("apart", [4, 20])
def test_columns_in_other_units_have_the_same_model_and_are_no_dependencies(apart, n_classes):
    """Columns 2^40 apart in size: float64 loses the smaller one's curvature beside the other's, but not in its unit."""
    rng = np.random.default_rng(1)
    x = np.hstack([rng.standard_normal((300, 3)), np.eye(2)[rng.integers(2, size=300)], np.ones((300, 1))])
    y = (x[:, 0] + rng.logistic(size=300) > 0).astype(int)
    y += (x[:, 1] + rng.logistic(size=300) > 0) if n_classes == 3 else 0
    units = np.ldexp(1.0, [apart, -apart, 0, 0, 0, 0])

    def held(rows):
        signs = (2.0 * y - 1)[:, None]
        if n_classes == 2:
            return [Shard(f"{m}", (rows * signs)[m::3]) for m in range(3)]
        return [Shard(f"{m}", ClassRows(rows[m::3], y[m::3], 3)) for m in range(3)]

    plain, other = (train(InProcess(held(rows)), newton(), n_rounds=60) for rows in (x, x * units))
    assert plain.certificate.verdict is other.certificate.verdict is Status.CERTIFIED
    assert "but for 1 exact dependency" in other.certificate.status
    margins = stacked(held(x * units)) @ other.w
    np.testing.assert_allclose(margins, stacked(held(x)) @ plain.w, rtol=1e-9, atol=1e-9)


def test_a_model_from_elsewhere_is_certified_in_any_coding():
    """A statistician leaves out the first level of each category: another vector, the same margins."""
    engine, recipe = prepare(InProcess(load("heart")), **DATASETS["heart"].options)
    names = recipe.feature_names
    w = np.array(train(engine, auto()).w)
    for column in recipe.columns:
        places = [k for k, name in enumerate(names) if name.startswith(f"{column.name}=")]
        if places:
            w[-1] += w[places[0]]
            w[places] -= w[places[0]]
    found = certify(w, engine, problem=Regularised())
    assert found.verdict is Status.CERTIFIED
    assert found.angle_deg_max < 1e-3
    off = w + 0.1 * np.eye(w.size)[names.index("age")]
    assert certify(off, engine, problem=Regularised()).distance >= 0.1 * 0.999


def test_a_category_that_only_rows_of_one_class_have_leaves_nothing_proved():
    """heart with its missing values as a category: two rows of one, both of one class, so there is no minimiser."""
    engine, _ = prepare(InProcess(load("heart")), scale="standard")
    found = train(engine, auto()).certificate
    assert found.verdict is Status.UNDECIDED
    assert "columns that depend on others, or tell a class" in found.status


@pytest.mark.parametrize("intercept", [False, True])
def test_softmax_without_a_penalty_is_certified_but_for_what_all_classes_share(intercept):
    """An intercept that is free of no penalty is one more column, but left out of distance and angle."""
    problem = Regularised(intercept=intercept)
    rng = np.random.default_rng(0)
    blocks = np.eye(3)[rng.integers(3, size=300)]
    x = np.hstack([rng.standard_normal((300, 2)), blocks, np.ones((300, 1))])
    y = (x[:, 0] + rng.logistic(size=300) > 0).astype(int) + (x[:, 2] + rng.logistic(size=300) > 0)
    shards = [Shard(f"{m}", ClassRows(x[m::3], y[m::3], 3)) for m in range(3)]
    run = train(InProcess(shards), newton(), problem=problem, n_rounds=60)
    rows = stacked(shards)
    pooled = minimiser(rows, np.full(len(rows), 1 / len(rows)), 2)
    assert run.certificate.verdict is Status.CERTIFIED
    assert "but for 1 exact dependency" in run.certificate.status
    assert np.linalg.norm(run.w - pooled) <= run.certificate.distance + 1e-8
    shifted = run.w + np.tile(rng.standard_normal(6), 3)
    assert certify(shifted, InProcess(shards), problem=problem).angle_deg_max < 1e-3


def test_a_resumed_run_proves_the_same(tmp_path):
    """What the server asks about dependencies is part of its state."""
    engine = InProcess(shards_of("heart"))
    whole = train(engine, newton())
    for n_rounds in (3, 60):
        kept = Checkpoints(tmp_path / "run", every_rounds=1)
        cut = train(engine, newton(), n_rounds=n_rounds, checkpoints=kept)
    assert cut.certificate == whole.certificate
    assert cut.certificate.verdict is Status.CERTIFIED


def test_over_flower_with_its_limits_the_same_is_proved():
    shards = {shard.node_id: shard for shard in shards_of("heart")}
    app = answer(ClientApp(), lambda context: shards[context.node_config["node-name"]])
    engine = FlowerEngine(LocalGrid(app, [{"node-name": name} for name in shards]), timeout=5.0, poll=1e-4)
    assert train(engine, newton()).certificate == train(InProcess(shards.values()), newton()).certificate


def test_what_a_strangers_server_says_that_it_asked_for_is_not_believed():
    """It asks about true dependencies, and keeps in its state that it asked about other columns."""

    @dataclass(frozen=True)
    class Forger(Newton):
        def message(self, state):
            return replace(super().message(state), extra={"dependent": np.eye(7)[5:6] - np.eye(7)[6:7]})

        def aimed(self, state, report, slope):
            return replace(super().aimed(state, report, slope), asks={"dependent": np.eye(7)[:1]})

    shards = [Shard(shard.node_id, np.column_stack([shard.rows, shard.rows[:, -1]])) for shard in noisy(3)]
    own = train(InProcess(shards), newton())
    forged = train(InProcess(shards), replace(newton(), merge=Forger()), n_rounds=own.n_rounds)
    np.testing.assert_array_equal(forged.w, own.w)
    assert own.certificate.verdict is Status.CERTIFIED
    assert forged.certificate.verdict is Status.UNDECIDED


def test_heart_with_a_penalty_has_no_dependencies():
    run = train(InProcess(shards_of("heart")), newton(), problem=Regularised(C=1.0, intercept=True))
    assert "depend" not in run.certificate.status
