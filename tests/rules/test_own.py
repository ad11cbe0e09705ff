"""Methods of one's own: those of the library keep the contract, and what breaks it is told by name."""

# ruff: noqa: ARG002  tasks and merges that are wrong in one thing do not use all that they are given

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from common import METHODS, PENALISED
from localgd import (
    LeastSquares,
    Logistic,
    Method,
    Regularised,
    ServerState,
    chain,
    check_method,
    conjugate_gradients,
    mean,
    normal_equations,
    update_fields,
    update_report,
)
from localgd.core import Message
from localgd.duals.dual import Dual
from localgd.rules.server import Momentum
from localgd.testing.check import MethodError


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
