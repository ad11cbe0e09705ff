"""Every byte that a node sends is a field of a Report: sums, minima and counts, of shapes that do not know its rows."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from common import METHODS, PENALISED, random_rows, with_bias
from localgd import Angle, InProcess, Regularised, Report, auto, certify, from_arrays, load, prepare, train
from localgd.data.datasets import DATASETS
from localgd.rules.consensus import DualPart
from localgd.rules.interior import InteriorPoint
from localgd.rules.local import Project
from localgd.rules.probes import TemperedDual
from localgd.serialize import pack

N = {"node-0": 31, "node-1": 37, "node-2": 41}
"""Rows of the nodes: numbers that no shape has by chance."""

D = 6

SUMS = {
    # how the model stands, and how the node would move it
    "weight", "loss", "correct", "update_sq_norm", "drift",
    # a penalised loss: its value, gradient, curvature
    "risk", "pull", "blur", "positive", "odds", "curvature",
    # consensus
    "inner", "start",
    # interior point
    "gap", "products", "corrector",
    # preparing
    "present", "first", "second",
}  # fmt: skip
LOWS = {
    "margin", "high", "-since", "-fastest", "-radius", "-peak", "n_features", "-n_features", "-eigenvalue",
    "minus_peak",
}  # fmt: skip
DUALS = {"update", "dual"}
LEAN = (Project, DualPart, InteriorPoint, TemperedDual)
"""Tasks whose sums lean on the few rows nearest to the boundary: docs/privacy.md says that it may be a single one."""

COUNTS = {"cancels", "underflow", "inseparable", "unguessed", "forgotten", "rows"}


class Tapped(InProcess):
    """A federation whose line is tapped: all that nodes say is kept."""

    def _begin(self, nodes, policy):
        super()._begin(nodes, policy)
        run, self.heard = nodes.run, getattr(self, "heard", [])

        def tapped(task, message, waiting):
            answers = run(task, message, waiting)
            self.heard += [(task, node, answer) for node, answer in answers.items()]
            return answers

        nodes.run = tapped

    def map(self, encode):
        mapped = super().map(encode)
        mapped.heard[:0] = self.heard
        self.heard = mapped.heard
        return mapped


def shards(*, bias=False):
    rng = np.random.default_rng(0)
    w = rng.standard_normal(D - bias)
    made = []
    for shard, n in zip(random_rows(0, 3), N.values(), strict=True):
        x = rng.standard_normal((n, D - bias))
        x += 0.3 * np.outer(np.sign(x @ w), w)
        made.append(type(shard)(shard.node_id, x * np.sign(x @ w)[:, None]))
    return with_bias(made, noise=0.1) if bias else made


def fields(report):
    """The report as it would be written, taken apart again: there is nothing else in it."""
    packed = pack(report)
    entries = json.loads(packed.text)
    assert entries.keys() == {"n_nodes", "n_rows", "sums", "lows", "counts", "duals"}
    proofs = 2 * sum(not math.isnan(dual.mass) for dual in report.duals.values())
    assert sum(array.size for array in packed.arrays.values()) + proofs + 2 + len(report.counts) == report.n_floats
    return entries


def whole_vectors(task, value, shard):
    return value.size % shard.n_features == 0 and not isinstance(task, LEAN)


def assert_only_sums(task, report, shard):
    entries = fields(report)
    assert entries["n_nodes"] in (0, 1)
    assert set(entries["sums"]) <= SUMS
    assert set(entries["lows"]) <= LOWS
    assert {name.partition("-")[0] for name in entries["duals"]} <= DUALS
    assert {name for name in entries["counts"] if not name.startswith("[") and not name.isdigit()} <= COUNTS
    unit = shard.rows / shard.norms[:, None]
    labels = np.sign(shard.rows[:, -1])
    for name, value in report.arrays.items():
        assert shard.n_rows not in value.shape, f"{name} has an entry for each row"
        for part in value.reshape(-1, shard.n_features) if whole_vectors(task, value, shard) else []:
            length = np.linalg.norm(part)
            if length > 0:
                assert (np.abs(unit @ (part / length)) < 1 - 1e-9).all(), f"{name} is a row of the node"
        flat = value.ravel()
        for start in range(flat.size - labels.size + 1):
            window = np.sign(flat[start : start + labels.size])
            assert not np.array_equal(window, labels), f"{name} holds the labels"


@pytest.mark.parametrize("name", [*METHODS, *PENALISED])
def test_training_sends_sums_minima_and_counts_only(name):
    method = {**METHODS, **PENALISED}[name]
    penalised = isinstance(method.problem, Regularised)
    engine = Tapped(shards(bias=penalised))
    train(engine, method, n_rounds=15)
    assert len(engine.heard) >= 3 * 4
    for task, node, answer in engine.heard:
        assert isinstance(answer, Report)
        assert_only_sums(task, answer, engine.shards[node])


def test_choosing_and_certifying_send_no_more():
    engine = Tapped(shards())
    run = train(engine, auto())
    certify(run.w + 0.1, engine, goal=Angle(1.0))
    certify(run.w, engine, problem=Regularised(C=1.0))
    for task, node, answer in engine.heard:
        assert_only_sums(task, answer, engine.shards[node])


def table(n=50):
    rng = np.random.default_rng(1)
    illness = np.array(["flu"] * 30 + ["cold"] * 18 + ["a rare illness"] * 2)
    notes = np.array(["cough and fever"] * 25 + ["cough, no fever"] * 24 + ["Ms Meier from Aachen"])
    columns = {"age": rng.integers(20, 90, n), "illness": rng.permutation(illness), "note": rng.permutation(notes)}
    return pl.DataFrame(columns), rng.choice(["no", "yes"], n)


def said(engine):
    return [json.loads(key) for _, _, answer in engine.heard for key in answer.counts]


@pytest.mark.parametrize("min_group", [1, 3, 26])
def test_preparing_tells_categories_and_words_of_groups_that_are_large_enough(min_group):
    frame, labels = table()
    engine = Tapped(from_arrays(frame, labels, groups=["a"] * len(labels)))
    federation, recipe = prepare(engine, text=["note"], min_group=min_group)
    told = {parts[2] for parts in said(federation) if parts[0] == "category"}
    words = {parts[2] for parts in said(federation) if parts[0] == "word"}
    assert told == {"flu", "cold", "a rare illness"} - (
        set() if min_group == 1 else {"a rare illness"} if min_group == 3 else {"cold", "a rare illness"}
    )
    assert ("meier" in words) == (min_group == 1)
    assert recipe.unseen == ("error" if min_group == 1 else "zeros")
    rows = recipe.matrix(frame)  # the rare ones are zeros, not an error
    assert rows.shape[0] == len(labels)


def test_preparing_does_not_tell_how_many_rows_have_a_label():
    frame, labels = table()
    engine = Tapped(from_arrays(frame, labels, groups=["a"] * len(labels)))
    federation, _ = prepare(engine, text=["note"])
    for _, _, answer in federation.heard:
        for key, count in answer.counts.items():
            if json.loads(key)[0] == "label":
                assert count == 1


@pytest.mark.parametrize("name", ["heart", "mushroom"])
def test_preparing_sends_no_array_as_long_as_the_rows(name):
    engine = Tapped(load(name))
    federation, _ = prepare(engine, **DATASETS[name].options)
    for _, node, answer in federation.heard:
        entries = fields(answer)
        assert set(entries["sums"]) <= SUMS
        for value in (*answer.sums.values(), *answer.lows.values()):
            assert engine.shards[node].n_rows not in value.shape
