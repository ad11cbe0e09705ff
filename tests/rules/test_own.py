"""Methods of one's own: the programs of the docs keep the contract, and what breaks it is told by name."""

# ruff: noqa: ARG002  tasks and merges that are wrong in one thing do not use all that they are given

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from common import METHODS, PENALISED, random_rows, stacked
from cut import assert_same_run
from engines.flower_grid import LocalGrid, grid_of
from localgd import (
    InProcess,
    Int8,
    LeastSquares,
    Logistic,
    Method,
    NodeError,
    Regularised,
    ServerState,
    Status,
    chain,
    check_method,
    conjugate_gradients,
    mean,
    normal_equations,
    train,
    update_fields,
    update_report,
)
from localgd.core import Message
from localgd.duals.dual import Dual
from localgd.flower import FlowerEngine, answer
from localgd.methods.served import TASKS
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.server import Extrapolation, Momentum
from localgd.testing.check import MethodError
from own_methods import BLOCKS, PROGRAMS

programs = pytest.mark.parametrize("name", PROGRAMS)
CONTEXT = Context(1, 1, {}, RecordDict(), {})

PROVED = {"heavy-ball": True, "clipped": True, "scheduled": True, "local-adam": False, "signs": False, "noisy": False}


def test_the_page_has_these_programs_of_at_most_forty_lines():
    assert PROGRAMS.keys() == PROVED.keys()
    assert max(len(block.splitlines()) for block in BLOCKS) <= 40


@programs
def test_a_program_of_the_page_keeps_the_contract_and_knows_what_it_proves(name):
    found = check_method(PROGRAMS[name].method)
    assert found.certified is PROVED[name]
    assert str(found).startswith(f"{name}: the contract is kept; ")


@programs
@pytest.mark.parametrize("merge", [mean(), chain(mean(), Momentum(0.5)), chain(mean(), Extrapolation())], ids=repr)
def test_its_certificates_hold_under_every_merge(name, merge):
    for seed in range(3):
        shards = random_rows(seed)
        exact = max_margin(stacked(shards))
        run = train(InProcess(shards), replace(PROGRAMS[name].method, merge=merge), n_rounds=60)
        found = run.certificate
        assert found.margin_low <= exact.margin_high
        assert found.margin_high >= exact.margin_low
        assert np.isnan(found.angle_deg_max) or angle_deg(run.w, exact.direction) <= found.angle_deg_max
        if PROVED[name] and merge == mean():
            assert found.verdict in (Status.CERTIFIED, Status.SEPARABLE)
            assert found.angle_deg_max < 70


@programs
def test_it_runs_over_flower_where_it_is_on_the_list_and_is_refused_by_name_where_it_is_not(name):
    shards, method = random_rows(2), PROGRAMS[name].method

    def engine(*tasks: type) -> FlowerEngine:
        held = {shard.node_id: shard for shard in shards}
        app = answer(ClientApp(), lambda context: held[context.node_config["node-name"]], tasks=(*TASKS, *tasks))
        configs = [{"node-name": name, "min-rows": 1, "min-batch": 1} for name in held]
        return FlowerEngine(LocalGrid(app, configs), n_nodes=len(held), timeout=5.0, poll=1e-4)

    here = train(InProcess(shards), method, n_rounds=8)
    assert_same_run(train(engine(type(method.task)), method, n_rounds=8), here)
    words = rf"{type(method.task).__name__}' is not on the list of this node .*answer\(app, tasks=…\)"
    with pytest.raises(NodeError, match=words):
        train(engine(), method, n_rounds=1)


def test_the_page_has_both_sides_of_a_flower_app(monkeypatch, capsys):
    """Four hospitals, a bundled set, of which anyone may read every row."""
    (block,) = [block for block in BLOCKS if "ServerApp" in block]
    monkeypatch.setitem(sys.modules, "own", PROGRAMS["heavy-ball"])
    app = ModuleType("app")
    exec(compile(block, "own-method.md", "exec"), app.__dict__)  # noqa: S102  our own page
    app.server(LocalGrid(app.client, [{"data": "heart", "partition-id": i} for i in range(4)]), CONTEXT)
    assert "the pooled margin, if any, is at most" in capsys.readouterr().out


@programs
def test_in_a_code_it_is_refused_over_flower_in_words_before_anything_is_sent(name):
    method = PROGRAMS[name].method
    engine = FlowerEngine(grid_of(random_rows(2), tasks=(*TASKS, type(method.task))), timeout=5.0, poll=1e-4)
    words = rf"nodes read the fields of compressed.Compressed as they are declared, .*{type(method.task).__name__}\("
    with pytest.raises(TypeError, match=rf"{words}.*; a task of your own .* leave compressed\(…\) out"):
        train(engine, method.compressed(Int8()), n_rounds=1)


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_of_the_library_keep_it(name):
    assert check_method(METHODS[name]).certified


@pytest.mark.parametrize("name", PENALISED)
def test_so_do_those_of_a_penalised_loss(name):
    assert check_method(PENALISED[name], Regularised(C=1.0)).reason == "its problem's own look proves what is proved"


@pytest.mark.parametrize("method", [normal_equations(), conjugate_gradients()], ids=lambda method: method.name)
def test_so_do_those_of_squared_loss(method):
    assert check_method(method, LeastSquares(alpha=1.0)).certified


@dataclass(frozen=True)
class Sound:
    """One gradient step."""

    loss: Any = Logistic()  # noqa: RUF009
    weighted_by: str = "uniform"

    def schema(self, message):
        return update_fields(message)

    def run(self, message, shard, state):
        a = self.loss.slope(shard.margins(message.w)) / shard.n_rows
        return update_report(shard, shard.combination(a), self.weighted_by), state


class NoSchema:
    loss, weighted_by = Logistic(), "uniform"

    def run(self, message, shard, state): ...


@dataclass
class Thawed:
    loss: Any = Logistic()  # noqa: RUF009
    weighted_by: str = "uniform"

    schema, run = Sound.schema, Sound.run


class Nameless(Sound):
    def __repr__(self):
        return object.__repr__(self)


class WordsForSchema(Sound):
    def schema(self, message):
        return ["update"]


class Undeclared(Sound):
    def run(self, message, shard, state):
        report, state = super().run(message, shard, state)
        return replace(report, sums={**report.sums, "more": 1.0}), state


class OnlyAReport(Sound):
    def run(self, message, shard, state):
        return super().run(message, shard, state)[0]


class Homeless(Sound):
    def run(self, message, shard, state):
        return super().run(message, shard, state)[0], np.zeros(2)


@dataclass(frozen=True)
class Counting(Sound):
    state_type: ClassVar[Any] = list[int]

    def init(self, shard):
        return [0]

    def run(self, message, shard, state):
        return super().run(message, shard, state)[0], [state[0] + 1]


class Scribbling(Counting):
    def run(self, message, shard, state):
        state[0] += 1
        return super().run(message, shard, state)


class OfAnotherType(Counting):
    state_type = list[str]


class OfNoType(Sound):
    def init(self, shard):
        return np.zeros(2)


class Writing(Sound):
    def run(self, message, shard, state):
        w = message.w
        w += 1.0
        return super().run(message, shard, state)


class Fickle(Sound):
    def run(self, message, shard, state):
        noise = np.random.default_rng().standard_normal(shard.n_features)
        return update_report(shard, noise), state


class DenseOnly(Sound):
    def run(self, message, shard, state):
        return update_report(shard, shard.rows.mean(axis=0) @ np.eye(4) * np.linalg.norm(shard.rows)), state


class Borrowed(Sound):
    def run(self, message, shard, state):
        other = type(shard)("b", np.eye(shard.n_features))
        return update_report(shard, other.combination(np.ones(shard.n_features))), state


CALLS = []


class Chatty(Sound):
    """Its answer depends on how often it was asked, by anybody."""

    def run(self, message, shard, state):
        CALLS.append(1)
        return update_report(shard, shard.combination(np.full(shard.n_rows, float(len(CALLS))))), state


@dataclass(frozen=True)
class Server:
    whole_rounds: str = ""

    def init(self, w0):
        return ServerState(Dual(w0))

    def message(self, state):
        return Message(state.round, state.w)

    def step(self, state, report):
        update = report.duals["update"].over(float(report.sums["weight"]))
        return replace(state, model=state.model + update, round=state.round + 1)


class Standing(Server):
    def step(self, state, report):
        return replace(super().step(state, report), round=0)


class InPlace(Server):
    def step(self, state, report):
        object.__setattr__(state, "round", state.round + 1)
        return state


class Bare(Server):
    def init(self, w0):
        return {"w": w0}


class Vector(Server):
    def init(self, w0):
        return replace(super().init(w0), model=w0)


@dataclass(frozen=True)
class Mute(Server):
    pace: float = field(default=1.0, repr=False)


@dataclass(frozen=True)
class Plain:
    pace: float = 1.0

    def __repr__(self):
        return "Plain"

    def __call__(self, update, kept, report):
        return update, kept


class Wide(Server):
    def step(self, state, report):
        return replace(super().step(state, report), model=Dual(np.zeros(9)))


class Silent(Server):
    def message(self, state):
        return state.w


class Early(Server):
    def message(self, state):
        return Message(state.round + 1, state.w)


FAULTS = {
    "no schema": (Method("m", NoSchema(), mean()), "its task or merge lacks schema"),
    "no method": (Sound(), "give a localgd.Method of a task and a merge, not Sound"),
    "not frozen": (Method("m", Thawed(), mean()), "Thawed cannot be a key .*make it a frozen dataclass"),
    "no repr": (Method("m", Nameless(), mean()), r"repr\(Nameless\) does not tell what it is set to"),
    "a merge that keeps a field quiet": (Method("m", Sound(), Mute()), r"repr\(Mute\) does not tell pace of Mute"),
    "a part that keeps a field quiet": (
        Method("m", Sound(), chain(mean(), Plain(2.0))),
        r"repr\(Chain\) does not tell pace of Plain",
    ),
    "a part that is a function": (
        Method("m", Sound(), chain(mean(), lambda *given: given[:2])),
        r"repr\(Chain\) does not tell .* where Chain is in memory",
    ),
    "a schema of words": (Method("m", WordsForSchema(), mean()), "WordsForSchema.schema must return a mapping"),
    "undeclared": (Method("m", Undeclared(), mean()), "its report holds 'more', which Undeclared does not declare"),
    "only a report": (
        Method("m", OnlyAReport(), mean()),
        r"OnlyAReport.* must return \(report, state\), got Report",
    ),
    "a state from nowhere": (Method("m", Homeless(), mean()), r"there is no Homeless.init\(shard\)"),
    "a state written to": (Method("m", Scribbling(), mean()), "Scribbling.run on 9 rows .Dense. writes to the state"),
    "a state of another type": (Method("m", OfAnotherType(), mean()), "OfAnotherType.state_type = .*as another one"),
    "a state of no type": (Method("m", OfNoType(), mean()), "OfNoType keeps a state, so it must declare state_type"),
    "a message written to": (
        Method("m", Writing(), mean()),
        r"output array is read-only \(test_own.py, line",
    ),
    "a fickle answer": (Method("m", Fickle(), mean()), "Fickle.run .*answers the same message in two ways"),
    "rows of one kind": (Method("m", DenseOnly(), mean()), r"TypeError|ValueError.*test_own.py, line"),
    "rows of its own": (Method("m", Borrowed(), mean()), "update is no combination of its own rows"),
    "memory elsewhere": (Method("m", Chatty(), mean()), "Chatty.run .*answers the same message in two ways"),
    "a round that stands": (Method("m", Sound(), Standing()), "after 1 rounds its state must say round=1"),
    "a server's state written to": (Method("m", Sound(), InPlace()), "InPlace.step writes to the state"),
    "a bare server's state": (Method("m", Sound(), Bare()), "AttributeError|the state of Bare lacks model"),
    "a model that is a vector": (Method("m", Sound(), Vector()), "model must be a Dual"),
    "a model of another width": (Method("m", Sound(), Wide()), r"Wide.step: its model has the shape \(9,\)"),
    "a message that is none": (Method("m", Sound(), Silent()), "Silent.message must return a Message"),
    "a message from elsewhere": (Method("m", Sound(), Early()), "Early.message says round 1 in round 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_by_name(name):
    method, words = FAULTS[name]
    with pytest.raises(MethodError, match=words):
        check_method(method)


def test_a_fault_of_all_nodes_is_told_once():
    with pytest.raises(MethodError) as caught:
        check_method(Method("m", Fickle(), mean()))
    assert len(caught.value.faults) == 1


def test_a_sound_one_passes_with_every_part():
    for method in (
        Method("m", Sound(), mean()),
        Method("m", Sound(), Server()),
        Method("m", Counting(), chain(mean(), Momentum(0.5))),
    ):
        assert check_method(method).certified
