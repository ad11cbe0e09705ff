"""Certificates under weights that are very unlike, against answers in extended precision and exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from common import examples, stacked
from localgd import (
    InProcess,
    LeastSquares,
    Regularised,
    Samples,
    Shard,
    certify,
    conjugate_gradients,
    newton,
    normal_equations,
    train,
)
from targets import dot, solved


def uneven(rng, n, spread):
    """Weights of very unlike sizes, some of them 0; the first is not."""
    out = 10.0 ** rng.uniform(-spread, spread, n) * (rng.random(n) < 0.9)
    out[0] = 1.0
    return out


def pooled(nodes):
    return stacked(nodes), np.concatenate([node.weigh(np.ones(node.n_rows)) for node in nodes])


def logistic_answer(z, s, C, near, free):
    """The minimiser by Newton's method in extended precision, and F."""
    wide = np.longdouble
    z, s, w = z.astype(wide), s.astype(wide), near.astype(wide)
    total_weight, kept = s.sum(), np.ones(len(w), dtype=wide)
    kept[-1] = 0 if free else 1
    strength = 1 / (wide(C) * total_weight)
    for _ in range(40):
        p = 1 / (1 + np.exp(z @ w))
        slope = strength * kept * w - z.T @ (s * p) / total_weight
        curvature = (z.T * (s * p * (1 - p))) @ z / total_weight + np.diag(strength * kept)
        step = np.zeros(len(w), dtype=wide)
        for _ in range(5):
            step -= np.linalg.solve(curvature.astype(float), (slope + curvature @ step).astype(float)).astype(wide)
        w = w + step

    def value(v):
        m, v = z @ v.astype(wide), v.astype(wide)
        losses = np.log1p(np.exp(-np.abs(m))) + np.maximum(-m, 0)
        return (s * losses).sum() / total_weight + strength / 2 * ((kept * v) @ v)

    return w, value


def test_certificates_of_very_unlike_weights_hold_for_penalised_losses():
    held = 0
    for seed in range(examples(120)):
        rng = np.random.default_rng(seed)
        d, free, C = int(rng.integers(2, 5)), bool(rng.random() < 0.5), 10 ** rng.uniform(-2, 2)
        nodes = []
        for place in range(3):
            x = rng.standard_normal((rng.integers(2, 8), d)) * 10 ** rng.uniform(-1, 1)
            x[:, -1] = 1.0 if free else x[:, -1]
            signs = rng.choice([-1.0, 1.0], len(x))
            nodes.append(Shard(f"{place}", x * signs[:, None], weights=uneven(rng, len(x), 5)))
        z, s = pooled(nodes)
        if free and np.ptp(np.sign(z[:, -1])) == 0:
            continue
        engine, problem = InProcess(nodes), Regularised(C=C, intercept=free)
        w = train(engine, newton(), problem=problem, n_rounds=60).w
        exact, value = logistic_answer(z, s, C, w, free)
        for model in (w, w + rng.standard_normal(d) * 10 ** rng.uniform(-8, 0), w * (1 + 1e-9)):
            found = certify(model, engine, problem=problem)
            away = np.linalg.norm((model - exact).astype(float)[: d - free])
            assert away <= found.distance * (1 + 1e-9) + 1e-18
            assert value(model) - value(exact) <= found.gap * (1 + 1e-6) + 1e-18
            assert found.objective_low * (1 - 1e-15) <= value(model) <= found.objective * (1 + 1e-15)
            held += 1
    assert held > examples(120)


def test_certificates_of_very_unlike_weights_hold_for_squares():
    """Against exact fractions."""
    for seed in range(examples(60)):
        rng = np.random.default_rng(seed)
        d, free, alpha = int(rng.integers(1, 4)), bool(rng.random() < 0.5), float(rng.choice([0.0, 1e-3, 0.5, 10.0]))
        nodes = []
        for place in range(2):
            x = np.round(rng.standard_normal((d + 3, d)) * 8) / 8 * 10.0 ** rng.integers(-1, 2)
            x = np.hstack([x, np.ones((len(x), 1))]) if free else x
            targets = np.round(rng.standard_normal(len(x)) * 16) / 16
            nodes.append(Samples(f"{place}", x, targets, weights=uneven(rng, len(x), 4)))
        rows, s = pooled(nodes)
        if np.linalg.matrix_rank(rows) < rows.shape[1]:
            continue
        z = [[Fraction(v) for v in row] for row in rows.tolist()]
        s, y = ([Fraction(v) for v in values.tolist()] for values in (s, np.concatenate([n.targets for n in nodes])))
        kept = [Fraction(alpha)] * d + [Fraction(0)] * free
        normal = [
            [sum(a * r[i] * r[j] for a, r in zip(s, z, strict=True)) + (i == j) * kept[i] for j in range(d + free)]
            for i in range(d + free)
        ]
        exact = solved(normal, [sum(a * r[i] * t for a, r, t in zip(s, z, y, strict=True)) for i in range(d + free)])

        def value(v, z=z, s=s, y=y, kept=kept):
            squares = (a * (t - dot(r, v)) ** 2 for a, r, t in zip(s, z, y, strict=True))
            return sum(squares) + sum(c * x * x for c, x in zip(kept, v, strict=True))

        engine, problem = InProcess(nodes), LeastSquares(alpha, free)
        for method in (normal_equations(), conjugate_gradients()):
            w = train(engine, method, problem=problem, n_rounds=100).w
            for model in (w, w + rng.standard_normal(w.size) * 10 ** rng.uniform(-8, 0)):
                found, v = certify(model, engine, problem=problem), [Fraction(x) for x in model.tolist()]
                away = sum((a - b) ** 2 for a, b in zip(v[:d], exact[:d], strict=True))
                assert np.isinf(found.distance) or away <= Fraction(found.distance) ** 2
                assert np.isinf(found.gap) or value(v) - value(exact) <= Fraction(found.gap)
                assert Fraction(found.objective_low) <= value(v) <= Fraction(found.objective)
