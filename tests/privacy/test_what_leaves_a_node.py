"""Every byte that a node sends is declared by the schema of its task, in shapes that do not know its rows."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from common import METHODS, PENALISED, random_rows, with_bias
from localgd import (
    Angle,
    InProcess,
    Model,
    Regularised,
    Report,
    auto,
    certify,
    evaluate,
    from_arrays,
    load,
    prepare,
    train,
)
from localgd.data.datasets import DATASETS
from localgd.data.probabilities import Probabilities
from localgd.duals.compressors import compressor_named
from localgd.engine.screening import PARTS
from localgd.methods.served import TASKS
from localgd.rules.consensus import DualPart
from localgd.rules.interior import InteriorPoint
from localgd.rules.probes import TemperedDual
from localgd.rules.project import Project
from privacy.declared import PAGE, declared, page

N = {"node-0": 31, "node-1": 37, "node-2": 41}
"""Rows of the nodes: numbers that no shape has by chance."""

D = 6

LEAN = (Project, DualPart, InteriorPoint, TemperedDual)
"""Tasks whose sums lean on the few rows nearest to the boundary: docs/privacy.md says that it may be a single one."""


class Tapped(InProcess):
    """A federation whose line is tapped: all that nodes say is kept."""

    def _begin(self, make):
        super()._begin(make)
        run, self.heard = self.nodes.run, []

        def tapped(task, message, waiting):
            answers = run(task, message, waiting)
            self.heard += [(task, message, node, answer) for node, answer in answers.items()]
            return answers

        self.nodes.run = tapped

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


def values(report):
    """Everything in a report, by the kind and the name of its field."""
    for kind, part in PARTS.items():
        for key, value in getattr(report, part).items():
            yield kind, key[0] if kind == "count" else key, value


def arrays(report):
    """All arrays in a report, with the names of their fields."""
    for kind, name, value in values(report):
        if kind not in {"count", "flag"}:
            held = value.values() if kind == "per_node" else [value.vector if kind == "dual" else value]
            yield from ((name, array) for array in held)


def assert_declared(task, message, report, n_rows):
    """A report is the fields of its schema, which it cannot have from the rows, and nothing else."""
    schema = task.schema(message)
    assert {field.name for field in fields(Report)} == {"n_nodes", "n_rows", *PARTS.values()}
    assert {(kind, name) for kind, name, _ in values(report)} <= {(field.kind, name) for name, field in schema.items()}
    for name, array in arrays(report):
        assert (array.shape, array.dtype.name) == (schema[name].shape, schema[name].dtype)
        assert n_rows not in array.shape, f"{name} has an entry for each row"
    proved = [dual for dual in report.duals.values() if not math.isnan(dual.mass)]
    numbers = sum(2 + 2 * len(dual.kept.shares) for dual in proved) + len(report.counts) + len(report.flags)
    codes = {name: dual.coded for name, dual in report.duals.items() if dual.coded is not None}
    for name, code in codes.items():
        compressor = compressor_named(schema[name].coded)
        np.testing.assert_array_equal(compressor.decoded(code, schema[name].shape[0]), report.duals[name].vector)
        numbers += -(-code.size // 8)
    whole = sum(array.size for name, array in arrays(report) if name not in codes)
    assert 2 + whole + numbers == report.n_floats


def whole_vectors(task, value, shard):
    return value.size % shard.n_features == 0 and not isinstance(task, LEAN)


def assert_only_sums(task, message, report, shard):
    assert report.n_nodes in (0, 1)
    assert_declared(task, message, report, shard.n_rows)
    unit = shard.rows / shard.norms[:, None]
    labels = np.sign(shard.rows[:, -1])
    for name, value in arrays(report):
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
    for task, message, node, answer in engine.heard:
        assert isinstance(answer, Report)
        assert_only_sums(task, message, answer, engine.shards[node])


def test_choosing_and_certifying_send_no_more():
    engine = Tapped(shards())
    run = train(engine, auto())
    certify(run.w + 0.1, engine, goal=Angle(1.0))
    certify(run.w, engine, problem=Regularised(C=1.0))
    for task, message, node, answer in engine.heard:
        assert_only_sums(task, message, answer, engine.shards[node])


def table(n=50):
    rng = np.random.default_rng(1)
    illness = np.array(["flu"] * 30 + ["cold"] * 18 + ["a rare illness"] * 2)
    notes = np.array(["cough and fever"] * 25 + ["cough, no fever"] * 24 + ["Ms Meier from Aachen"])
    columns = {"age": rng.integers(20, 90, n), "illness": rng.permutation(illness), "note": rng.permutation(notes)}
    return pl.DataFrame(columns), rng.choice(["no", "yes"], n)


def said(engine):
    return [key for *_, answer in engine.heard for key in answer.counts]


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
    labels = [count for *_, answer in federation.heard for key, count in answer.counts.items() if key[0] == "label"]
    assert set(labels) == {1}


@pytest.mark.parametrize("name", ["heart", "mushroom"])
def test_preparing_sends_no_array_as_long_as_the_rows(name):
    engine = Tapped(load(name))
    federation, _ = prepare(engine, **DATASETS[name].options)
    for task, message, node, answer in federation.heard:
        assert_declared(task, message, answer, engine.shards[node].n_rows)


@pytest.mark.parametrize("min_group", [1, 8])
def test_evaluation_tells_sums_and_no_cell_of_few_rows(min_group):
    engine = Tapped(shards(bias=True))
    w = np.array([1.0, 0.5, -1.0, 0.2, 0.0, 0.1])
    model = Model.from_vector(w, fit_intercept=True, probabilities=Probabilities())
    evaluate(model, engine, min_group=min_group, n_cuts=100)
    assert {type(task).__name__ for task, *_ in engine.heard} == {"Sizes", "Decisions", "Histogram", "SigmoidLoss"}
    for task, message, node, answer in engine.heard:
        assert_declared(task, message, answer, engine.shards[node].n_rows)
        for name in ("positives", "negatives"):
            told = answer.sums.get(name, np.zeros(1))
            assert ((told == 0) | (told >= min_group)).all()
        curve = answer.sums.get("calibration", np.zeros((4, 1)))
        for told in (curve[2], curve[0] - curve[2], curve[3]):
            assert ((np.abs(told) < 1e-9) | (told >= min_group)).all()
        if min_group > 1 and "most" in answer.maxs:  # single scores are told of groups that are large enough
            scores = engine.shards[node].rows @ message.w * engine.shards[node].rows[:, -1]
            shown = answer.maxs["most"][np.isfinite(answer.maxs["most"])]
            assert all((scores == score).sum() >= min_group for score in shown)


def test_the_page_on_privacy_lists_every_field_of_every_task():
    text = PAGE.read_text()
    assert page(text) == text, "write it anew: python tests/privacy/declared.py"


def test_what_a_task_declares_is_told_without_rows_and_does_not_know_them():
    """The same shapes whoever asks, in words of the columns and of what the message holds."""
    for kind in TASKS:
        for name, field in declared(kind).items():
            plain = {(), (1,), (2,), (3,), (4,), (5,), (6,), (2, 3)}
            tables = {(2, 2), (1, 3), (1, 2, 3), (1, 1, 6), (4, 10)}  # of decisions, histograms, sigmoids, ten bins
            assert field.shape in plain | tables, f"{kind.__name__}: {name}"
