"""Codes, merges and duals of strangers that nearly passed: each is refused, or what is proved with it is true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from common import stacked
from engines.flower_grid import LocalGrid
from localgd import InProcess, Int8, Message, NodeError, Report, Shard, local_gd, mean, train
from localgd.core import Field
from localgd.duals.compressors import Compressor
from localgd.flower import FlowerEngine, answer
from localgd.methods.method import Method
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.compressed import Compressed
from localgd.rules.server import Chain, mean_update
from localgd.run.stage import ours

ROWS = [[2.9, 0.1], [1.8, 0.9]], [[1.9, 1.5], [0.3, 0.9]]


def nodes(rows=ROWS):
    return [Shard("ab"[m], z) for m, z in enumerate(rows)]


def assert_true(run, shards):
    best, found = max_margin(stacked(shards)), run.certificate
    assert found.margin_low <= best.margin_high * (1 + 1e-9)
    assert found.margin_high >= best.margin_low * (1 - 1e-9)
    if not np.isnan(found.angle_deg_max):
        assert angle_deg(run.w, best.direction) <= found.angle_deg_max + 1e-6


@dataclass(frozen=True)
class Own(Compressor):
    """A code that loses nothing, yet."""

    form: ClassVar[str] = "own"

    def n_bytes(self, size):
        return 8 * size

    def encode(self, vector):
        return np.frombuffer(vector.tobytes(), np.uint8)

    def decode(self, data, size):  # noqa: ARG002
        return data.view(float)


class InPlace(Own):
    def encode(self, vector):
        vector[np.abs(vector) < np.abs(vector).max()] = 0.0
        return super().encode(vector)


class Reused(Own):
    BUFFER = np.zeros(9)

    def decode(self, data, size):
        self.BUFFER[:size] = data.view(float)
        return self.BUFFER[:size]


class Alternately(Own):
    turns: ClassVar[list[int]] = []

    def encode(self, vector):
        self.turns.append(1)
        return super().encode(vector if len(self.turns) % 2 else 0 * vector)


class Twice(Chain):
    """A merge that asks about w = 0 again and again, and adds up what it hears."""

    def message(self, state):
        return Message(0, 0.0 * state.w)

    def step(self, state, report):
        return replace(state, model=state.model + mean_update(report))


class WithRowsOfItsOwn(Chain):
    def step(self, state, report):
        own = Shard("own", [[0.5, 0.5]]).combination(np.array([9.0]))
        return replace(state, model=state.model + mean_update(report) + own)


def test_a_code_cannot_change_what_it_is_given():
    with pytest.raises(NodeError, match="read-only"):
        train(InProcess(nodes()), local_gd(local_steps=3, lr=1.0).compressed(InPlace()), n_rounds=2)


@pytest.mark.parametrize("code", [Reused, Alternately])
@pytest.mark.parametrize("merge", [mean(), Twice()], ids=["mean", "twice"])
@pytest.mark.parametrize("rows", [ROWS, ([[1.1, 1.0], [1.9, -0.6]], [[2.2, -1.5], [2.1, -0.6]])], ids=["one", "other"])
def test_codes_that_draw_or_use_a_buffer_again_prove_nothing_false(code, merge, rows):
    shards = nodes(rows)
    method = replace(local_gd(local_steps=3, lr=1.0).compressed(code()), merge=merge)
    for n_rounds in range(1, 8):
        assert_true(train(InProcess(shards), method, n_rounds=n_rounds), shards)


def test_a_merge_proves_nothing_by_rows_of_its_own():
    shards = nodes([[[1.0, 0.2]], [[1.0, -0.2]]])
    run = train(InProcess(shards), Method("own", local_gd(lr=0.5).task, WithRowsOfItsOwn()), n_rounds=3)
    assert_true(run, shards)
    assert run.certificate.margin_high >= 1.0


@dataclass(frozen=True)
class OfOtherRows:
    """A task whose dual is of rows that are no node's, and add up to 0."""

    def schema(self, message):
        return {"weight": Field("sum"), "update": Field("dual", message.w.shape)}

    def run(self, message, shard, state):  # noqa: ARG002
        other = Shard("x", [[1.0, 0.0], [-1.0, 0.0]]).combination(np.ones(2))
        return Report(1, 1, {"weight": 1.0}, duals={"update": other}), state


def test_a_dual_of_other_rows_is_refused_even_if_it_is_0():
    with pytest.raises(NodeError, match="no combination of its own rows"):
        InProcess(nodes()).round(OfOtherRows(), Message(0, np.zeros(2)))


@dataclass(frozen=True)
class Boasting:
    """A task that says of a node that it holds other rows than it does."""

    n_rows: int = 1000

    def schema(self, message):  # noqa: ARG002  the same on any
        return {"weight": Field("sum")}

    def run(self, message, shard, state):  # noqa: ARG002
        return Report(1, self.n_rows, {"weight": 1.0}), state


WORDS = {
    OfOtherRows: "its report's update is no combination of its own rows: make it by shard",
    Boasting: "its report speaks for 1000 rows, and the node holds 2: make it by update_report",
}


def test_a_node_speaks_for_the_rows_that_it_holds():
    with pytest.raises(NodeError, match=WORDS[Boasting]):
        InProcess(nodes()).round(Boasting(), Message(0, np.zeros(2)))
    assert InProcess(nodes()).round(Boasting(2), Message(0, np.zeros(2))).n_rows == 4


@pytest.mark.parametrize("task", WORDS)
def test_over_flower_words_that_quote_no_row_are_told_whatever_the_operator_shares(task):
    app = answer(ClientApp(), lambda context: nodes()[0], tasks=[task])  # noqa: ARG005
    engine = FlowerEngine(LocalGrid(app, [{"share-errors": False}]), timeout=5.0, poll=1e-4)
    with pytest.raises(NodeError, match=f"RefusedError: {WORDS[task]}"):
        engine.round(task(), Message(0, np.zeros(2)))


def test_what_is_compressed_twice_is_still_a_strangers():
    task = Compressed(Compressed(OfOtherRows(), Int8()), Int8())
    assert not ours(Method("m", task, mean()))
