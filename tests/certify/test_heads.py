"""The last layers of models, attacked: what is certified of them holds against exact answers on the pooled rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from common import examples, stacked
from localgd import Angle, ClassRows, InProcess, LeastSquares, Regularised, Samples, Shard, certify
from localgd.data.heads import LastLayer
from localgd.flower import Features
from localgd.flower.features import HeadRows
from localgd.limits import Limits, RefusedError
from localgd.problems.certificate import Status
from localgd.reference.max_margin import NotSeparableError, max_margin
from localgd.rounding import angle_deg

SHIFTS = (0.0, 1.0, -1e6, 1e12)
"""What all classes may share, in units of their coefficients."""


def federated(seed, n_classes, *, bias, d=4, n_nodes=4, size=6):
    """Features of unlike nodes: one has one sample, one a class only, one lacks a class; and weights of samples."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((max(2, n_classes), d + 1))
    x = rng.standard_normal((n_nodes * size, d))
    y = (np.column_stack([x, np.ones(len(x))]) @ w.T).argmax(axis=1)
    x += 0.5 * w[y, :d]
    order = np.argsort(y, kind="stable")
    parts = [order[:1], np.flatnonzero(y == y[0]), np.flatnonzero(y != y[0]), order[n_nodes:]]
    parts = [part for part in parts if part.size]
    weights = [None if m % 2 else rng.uniform(0.1, 5.0, len(part)) for m, part in enumerate(parts)]
    nodes = [Features(f"{m}", x[part], y[part], weights=weights[m]) for m, part in enumerate(parts)]
    return InProcess(nodes).map(HeadRows(max(2, n_classes), bias))


@st.composite
def heads(draw):
    n_logits, bias = draw(st.sampled_from([1, 2, 3, 5])), draw(st.booleans())
    engine = federated(draw(st.integers(0, 10**6)), n_logits, bias=bias)
    rows = stacked(engine.shards)
    try:
        exact = max_margin(rows)
    except NotSeparableError:
        exact = None
    rng, width = np.random.default_rng(draw(st.integers(0, 10**6))), 4 + bias
    each = rng.standard_normal((n_logits, width))
    if exact is not None and draw(st.booleans()):  # near the answer, where certificates are tight
        near = exact.direction.reshape(-1, width)
        near = np.vstack([-near, near]) / 2 if n_logits == 2 else near
        each = near + draw(st.sampled_from([0.0, 1e-9, 1e-3, 0.1])) * each
    if n_logits > 1:
        each = each + draw(st.sampled_from(SHIFTS)) * rng.standard_normal(width)
    each = each.astype(draw(st.sampled_from([np.float64, np.float32]))).astype(np.float64)
    layer = LastLayer(each[:, :4], each[:, 4] if bias else None)
    return engine, rows, exact, layer


def centred(layer):
    """The part of a head that predicts, in exact fractions and then rounded once; of two logits or one, as in rows."""
    each = layer.coef if layer.intercept is None else np.column_stack([layer.coef, layer.intercept])
    exact = [[Fraction(float(v)) for v in row] for row in each]
    if len(exact) < 3:
        return np.array([float(b - (exact[0][j] if len(exact) == 2 else 0)) for j, b in enumerate(exact[-1])])
    mean = [sum(column) / len(exact) for column in zip(*exact, strict=True)]
    return np.array([float(v - m) for row in exact for v, m in zip(row, mean, strict=True)])


@given(heads(), st.sampled_from([None, 1.0, 20.0]))
@settings(max_examples=examples(200))
def test_what_is_certified_of_a_head_holds(case, deg):
    engine, rows, exact, layer = case
    try:
        w = layer.vector()
    except ValueError:
        return
    true = centred(layer)
    found = certify(w, engine, goal=None if deg is None else Angle(deg), n_rounds=40)
    if exact is None:
        assert not found.separable
        assert found.verdict not in (Status.CERTIFIED, Status.SEPARABLE, Status.FARTHER)
        return
    angle = angle_deg(true, exact.direction)
    assert math.isnan(found.angle_deg_max) or angle <= found.angle_deg_max
    assert angle >= found.angle_deg_min
    assert found.margin_low <= exact.margin_high * (1 + 1e-12)
    assert found.margin_high >= exact.margin_low * (1 - 1e-12)
    own = (rows @ true).min() / np.linalg.norm(true)
    assert found.margin <= own + 1e-12 * np.abs(rows).max()


@given(st.integers(0, 10**9), st.sampled_from([2, 3, 4, 10, 40]), st.sampled_from([0.0, 1.0, 1e3, 1e8, 1e15, 1e300]))
@settings(max_examples=examples(200))
def test_beside_what_is_shared_the_rounding_of_a_vector_is_less_than_its_certificate_allows_for(seed, n_logits, size):
    rng = np.random.default_rng(seed)
    each = rng.standard_normal((n_logits, 3)) * 10.0 ** rng.integers(-9, 9, (n_logits, 3))
    each = (each + size * rng.standard_normal(3)) * rng.choice([1e-310, 1e-20, 1.0])
    assume((each != each[0]).any())
    got = LastLayer(each).vector().reshape(-1, 3)
    rounding = Fraction(3, 2**53)
    for j, column in enumerate(each.T):
        exact = [Fraction(float(v)) for v in column]
        if n_logits == 2:
            assert abs(Fraction(float(got[0, j])) - (exact[1] - exact[0])) <= rounding * abs(exact[1] - exact[0])
            continue
        power = Fraction(2) ** math.frexp(np.abs(each).max())[1]
        mean = sum(exact) / n_logits
        exact = [(value - mean) / power for value in exact]
        off = [Fraction(float(value)) - true for value, true in zip(got[:, j], exact, strict=True)]
        largest = max(map(abs, exact))
        room = [rounding * abs(true) + rounding**2 * n_logits**2 * largest + Fraction(2) ** -1000 for true in exact]
        low = max(o - r for o, r in zip(off, room, strict=True))
        high = min(o + r for o, r in zip(off, room, strict=True))
        assert low <= high  # one number is shared by all, the rest is rounding of each
        assert -n_logits * rounding * largest <= high + Fraction(2) ** -1000
        assert low - Fraction(2) ** -1000 <= n_logits * rounding * largest


@pytest.mark.parametrize("bias", [False, True])
def test_two_logits_are_one_whichever_way_the_nodes_hold_their_rows(bias):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, 4 + bias)), rng.standard_normal((2, 4 + bias))
    if bias:
        x[:, -1] = 1.0
    y = (x @ w.T).argmax(axis=1)
    layer = LastLayer(w[:, :4], w[:, 4] if bias else None)
    held = {
        "features": [Features(f"{m}", x[m::3, :4], y[m::3]) for m in range(3)],
        "signed": [Shard(f"{m}", x[m::3] * (2 * y[m::3, None] - 1)) for m in range(3)],
        "classes": [Shard(f"{m}", ClassRows(x[m::3], y[m::3], 2)) for m in range(3)],
        "sparse classes": [Shard(f"{m}", ClassRows(csr_array(x[m::3]), y[m::3], 2)) for m in range(3)],
    }
    found = {name: certify(layer.vector(), InProcess(nodes).map(HeadRows(2, bias))) for name, nodes in held.items()}
    assert found["features"] == found["signed"] == found["classes"]
    assert found["sparse classes"].angle_deg_max == pytest.approx(found["features"].angle_deg_max)
    # the problem of two logits: its solution has w_0 = −w_1, its margins are √2 times larger, its angles the same
    pair = max_margin(ClassRows(x, y, 2).explicit())
    one = max_margin(x * (2 * y[:, None] - 1))
    np.testing.assert_allclose(pair.direction, np.concatenate([-one.direction, one.direction]) / np.sqrt(2), atol=1e-9)
    assert pair.margin_low == pytest.approx(np.sqrt(2) * one.margin_low)
    both = (w - w.mean(axis=0)).ravel()
    assert angle_deg(both, pair.direction) == pytest.approx(angle_deg(layer.vector(), one.direction), abs=1e-7)


def test_what_all_classes_share_changes_nothing_that_is_stated():
    engine = federated(7, 5, bias=True)
    direction = max_margin(stacked(engine.shards)).direction.reshape(5, 5)
    rng = np.random.default_rng(0)
    each = direction + 0.02 * rng.standard_normal((5, 5))
    plain = certify(LastLayer(each[:, :4], each[:, 4]).vector(), engine)
    assert plain.verdict in (Status.CERTIFIED, Status.SEPARABLE)
    for size in (1.0, 1e3, 1e6):
        moved = each + size * rng.standard_normal(5)
        found = certify(LastLayer(moved[:, :4], moved[:, 4]).vector(), engine)
        assert found.angle_deg_max == pytest.approx(plain.angle_deg_max, abs=1e-14 * size * 1e4 + 1e-9)
    shared = certify(LastLayer(moved[:, :4], moved[:, 4]).vector(shared=True), engine)
    assert not shared.angle_deg_max < 89  # it would count as an angle


@pytest.mark.parametrize("seed", range(5))
def test_no_max_margin_model_has_anything_that_all_classes_share(seed):
    exact = max_margin(stacked(federated(seed, 5, bias=True).shards)).direction.reshape(5, 5)
    np.testing.assert_allclose(exact.sum(axis=0), 0.0, atol=1e-9)


def test_a_head_that_tells_no_classes_apart_is_refused():
    with pytest.raises(ValueError, match="all classes have the same coefficients"):
        LastLayer(np.ones((3, 4)) * 0.1, np.full(3, 0.7)).vector()


X, Y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), np.array([0, 2, 1])

FEW = HeadRows(3, bias=True)
NETWORK = HeadRows(3, bias=True, network="[]")

MISFITS = {
    "numbers for a network": (NETWORK, Features("a", X, Y), "its features are numbers, but the model is a network"),
    "a function for none": (FEW, Features("a", lambda _: X, Y), "give Certified head="),
    "rows for a network": (NETWORK, Shard("a", ClassRows(X, Y, 3)), "it holds rows, but the model is a network"),
    "rows of more classes": (FEW, Shard("a", ClassRows(X, Y, 6)), "it holds rows of 6 classes, and the model has 3"),
    "rows of two classes": (FEW, Shard("a", X), "it holds rows of 2 classes, and the model has 3"),
    "many for two": (HeadRows(2, bias=True), Shard("a", ClassRows(X, Y, 3)), "it holds rows of 3 classes"),
    "a table": (FEW, object(), "give Certified the recipe"),
    "fewer labels": (FEW, Features("a", X, Y[:2]), r"features of 3 samples, and labels of shape \(2,\)"),
    "a class too many": (HeadRows(2, bias=True), Features("a", X, Y), "not all whole numbers from 0 to 1"),
    "a class below": (FEW, Features("a", X, Y - 1), "not all whole numbers from 0 to 2"),
    "half a class": (FEW, Features("a", X, Y / 2), "not all whole numbers from 0 to 2"),
    "names of classes": (FEW, Features("a", X, Y.astype(str)), "not all whole numbers from 0 to 2"),
    "a feature": (FEW, Features("a", X[0], Y), r"its features have the shape \(2,\): give one row a sample"),
    "more classes than it bears": (
        HeadRows(10**9, bias=True),
        Features("a", X, Y, limits=Limits()),
        "the logits of 1000000000 classes would take 2.4e.04 MB, more than max-mb=256",
    ),
    "what is drawn": (
        NETWORK,
        Features("a", lambda _: np.random.default_rng().standard_normal((3, 2)), Y),
        "its features are others when they are computed again",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_the_head_is_refused_in_words(name):
    encode, held, words = MISFITS[name]
    with pytest.raises(RefusedError, match=words):
        encode(held)


@pytest.mark.parametrize("n_classes", [1, -3])
def test_a_head_of_no_classes_is_refused(n_classes):
    with pytest.raises(RefusedError, match=f"n_classes must be at least 2, or 0 for real targets, got {n_classes}"):
        HeadRows(n_classes, bias=True)


def test_features_are_copied_and_may_be_sparse_or_real_targets():
    sparse = HeadRows(3, bias=True)(Features("a", csr_array(X), Y, weights=[1.0, 2.0, 0.0]))
    whole = HeadRows(3, bias=True)(Features("a", X, Y, weights=[1.0, 2.0, 0.0]))
    np.testing.assert_array_equal(sparse.rows.toarray(), whole.rows.toarray())
    assert whole.n_samples == 2
    before = X.copy()
    HeadRows(2, bias=False)(Features("a", X, [0, 1, 0]))
    np.testing.assert_array_equal(X, before)
    numbers = HeadRows(0, bias=True)(Features("a", X, [0.5, 1.5, 2.5]))
    assert isinstance(numbers, Samples)
    assert numbers.n_features == 3


@pytest.mark.parametrize("problem", [Regularised(C=1.0), LeastSquares(alpha=1.0)], ids=lambda problem: problem.kind)
def test_other_problems_are_certified_of_features_too(problem):
    rng = np.random.default_rng(0)
    x, numbers = rng.standard_normal((60, 3)), isinstance(problem, LeastSquares)
    y = x @ [1.0, 2.0, 3.0] if numbers else (rng.random(60) < 0.5).astype(int)
    nodes = [Features(f"{m}", x[m::3], y[m::3]) for m in range(3)]
    engine = InProcess(nodes).map(HeadRows(0 if numbers else 2, bias=False))
    signs = (2 * y - 1)[:, None]
    plain = [Samples(f"{m}", x[m::3], y[m::3]) if numbers else Shard(f"{m}", (x * signs)[m::3]) for m in range(3)]
    w = rng.standard_normal(3)
    assert certify(w, engine, problem=problem) == certify(w, InProcess(plain), problem=problem)
