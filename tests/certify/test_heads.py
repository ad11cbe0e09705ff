"""The last layers of models, attacked: what is certified of them holds against exact answers on the pooled rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common import examples, stacked
from localgd import Angle, InProcess, certify
from localgd.flower import Features
from localgd.flower.features import HeadRows
from localgd.flower.head import LastLayer
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
