"""Only the sum of the reports is needed: masks that cancel in it hide every node, and the certificate stays true."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from common import METHODS, random_rows, stacked
from localgd import InProcess, train
from localgd.duals.dual import Dual
from localgd.engine.policy import in_order
from localgd.reference.max_margin import max_margin
from localgd.rounding import norm

BITS = 40
"""Bits after the point: numbers are sent as whole multiples of 2⁻⁴⁰, modulo 2¹²⁸, so that masks cancel exactly."""

MODULUS = 1 << 128
ROUNDED_DOWN, ROUNDED_UP = {"mass"}, {"error"}


def numbers(report):
    """What adds, by name: the sums, and an update with its mass and error."""
    update = report.duals.get("update")
    parts = {} if update is None else dict(zip(("mass", "error"), np.array(update.parts)[:, None], strict=True))
    return {**report.sums, **parts, **({} if update is None else {"update": update.vector})}


def encoded(name, value):
    scaled = np.ldexp(np.atleast_1d(value), BITS)
    whole = np.floor(scaled) if name in ROUNDED_DOWN else np.ceil(scaled) if name in ROUNDED_UP else np.rint(scaled)
    return [int(number) for number in whole.ravel()]


def decoded(total):
    signed = [number - MODULUS if number >= MODULUS // 2 else number for number in total]
    return np.ldexp(np.array(signed, dtype=np.float64), -BITS)


class Masked(InProcess):
    """A server that gets masked reports only: pairs of nodes share a secret, one adds it and the other takes it off."""

    seen: list

    def round(self, task, message, nodes=None):
        names = self.node_ids if nodes is None else tuple(sorted(nodes))
        reports = self.nodes.run(task, message, names)
        parts = {node: numbers(report) for node, report in reports.items()}
        quantities = sorted({name for held in parts.values() for name in held})
        shapes = {name: next(np.shape(held[name]) for held in parts.values() if name in held) for name in quantities}
        rng = np.random.default_rng([message.round, 7])
        masked = {}
        for node, held in parts.items():
            masked[node] = [
                number for name in quantities for number in encoded(name, held.get(name, np.zeros(shapes[name])))
            ]
        size = len(next(iter(masked.values())))
        for a, b in itertools.combinations(names, 2):
            secret = [int.from_bytes(rng.bytes(16), "big") for _ in range(size)]
            masked[a] = [(x + mask) % MODULUS for x, mask in zip(masked[a], secret, strict=True)]
            masked[b] = [(x - mask) % MODULUS for x, mask in zip(masked[b], secret, strict=True)]
        self.seen.append((reports, masked))
        flat = decoded([sum(column) % MODULUS for column in zip(*masked.values(), strict=True)])
        sums, at = {}, 0
        for name in quantities:
            width = int(np.prod(shapes[name], dtype=int))
            sums[name], at = flat[at : at + width].reshape(shapes[name]), at + width
        total, duals = in_order(reports), {}
        if "update" in sums:
            vector, (mass,), (error,) = (sums.pop(name) for name in ("update", "mass", "error"))
            error += len(names) * 2.0 ** -(BITS + 1) * np.sqrt(vector.size)  # what was rounded off the updates
            duals["update"] = Dual.proved(vector, mass, error, len(names))
        return replace(total, sums=sums, duals=duals)


@pytest.mark.parametrize("name", ["local-gd", "modified, projection", "fedexp", "local-gd, by size"])
def test_the_server_sees_noise_and_proves_as_much(name):
    shards = random_rows(4)
    answer = max_margin(stacked(shards))
    plain = train(InProcess(shards), METHODS[name], n_rounds=60)
    engine = Masked(shards)
    Masked.seen = []
    run = train(engine, METHODS[name], n_rounds=60, reference=answer.direction)
    assert norm(run.w - plain.w) <= 1e-6 * norm(plain.w)
    assert run.certificate.margin_low <= answer.margin_high
    assert answer.margin_low <= run.certificate.margin_high
    assert run.history[-1].true_angle_deg <= run.certificate.angle_deg_max
    assert run.certificate.angle_deg_max == pytest.approx(plain.certificate.angle_deg_max, rel=1e-3)


def test_masked_reports_say_nothing_alone():
    """What one node sends is spread evenly over all numbers, whatever its rows: only all of them together decode."""
    engine = Masked(random_rows(4))
    Masked.seen = []
    train(engine, METHODS["local-gd"], n_rounds=30)
    shares = [number / MODULUS for _, masked in engine.seen for number in masked["node-0"]]
    counts, _ = np.histogram(shares, bins=8, range=(0, 1))
    expected = len(shares) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 30  # χ² with 7 degrees of freedom: one in 10,000 is above
