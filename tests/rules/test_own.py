"""Methods of one's own: those of the library keep the contract, and what breaks it is told by name."""

# ruff: noqa: ARG002  tasks and merges that are wrong in one thing do not use all that they are given

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from common import METHODS, PENALISED, random_rows
from localgd import (
    InProcess,
    LeastSquares,
    Logistic,
    Method,
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
from localgd.core import Field, Message
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


class NoneForSchema(Sound):
    schema = None


@dataclass(frozen=True)
class Coefficient(Sound):
    first: float = 0.0

    def run(self, message, shard, state):
        a = np.ones(shard.n_rows)
        a[0] = self.first
        return update_report(shard, shard.combination(a), self.weighted_by), state


class Infinite(Sound):
    def run(self, message, shard, state):
        return update_report(shard, np.full(shard.n_features, np.inf), self.weighted_by), state


class Growing(Sound):
    def run(self, message, shard, state):
        return update_report(
            shard, shard.combination(np.full(shard.n_rows, 1e200**message.round)), self.weighted_by
        ), state


class Two(Sound):
    """Of one node, the second dual leaves float64, too."""

    def schema(self, message):
        return {**update_fields(message), "more": Field("dual", message.w.shape)}

    def run(self, message, shard, state):
        report = update_report(shard, np.full(shard.n_features, 1e300), self.weighted_by)
        more = np.full(shard.n_features, 1.0 if shard.node_id == "node-0" else np.inf)
        return replace(report, duals={**report.duals, "more": Dual(more)}), state


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


class Raw(Server):
    def init(self, w0):
        return w0


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


LEAVES = (
    "moves by an update that is not finite, or so long that its square is not a float64: look for a NaN, or take sm"
)

FAULTS = {
    "no schema": (Method("m", NoSchema(), mean()), "its task or merge lacks schema"),
    "no method": (Sound(), "give a localgd.Method of a task and a merge, not Sound"),
    "not frozen": (Method("m", Thawed(), mean()), "Thawed cannot be a key .*make it a frozen dataclass"),
    "no repr": (Method("m", Nameless(), mean()), r"repr\(Nameless\) does not tell what Nameless is set to"),
    "a merge that keeps a field quiet": (Method("m", Sound(), Mute()), r"repr\(Mute\) does not tell pace of Mute"),
    "a part that keeps a field quiet": (
        Method("m", Sound(), chain(mean(), Plain(2.0))),
        r"repr\(Chain\) does not tell pace of Plain",
    ),
    "a part that is a function": (
        Method("m", Sound(), chain(mean(), lambda *given: given[:2])),
        r"repr\(Chain\) does not tell what the function <lambda> is set to, .*: make the function <lambda> a frozen",
    ),
    "a task that keeps a part quiet": (
        Method("m", Sound(loss=Nameless()), mean()),
        r"repr\(Sound\) does not tell what Nameless is set to, .*: make Nameless a frozen dataclass",
    ),
    "no schema but None": (Method("m", NoneForSchema(), mean()), "its task or merge lacks schema; see"),
    "a coefficient that is NaN": (
        Method("m", Coefficient(first=np.nan), mean()),
        f"Coefficient.run on 9 rows .Dense. {LEAVES}",
    ),
    "one that is infinite": (
        Method("m", Coefficient(first=np.inf), mean()),
        f"Coefficient.run on 9 rows .Dense. {LEAVES}",
    ),
    "an infinite vector": (Method("m", Infinite(), mean()), f"Infinite.run on 9 rows .Dense. {LEAVES}"),
    "steps that leave float64 later": (Method("m", Growing(), mean()), f"in round 1 Growing {LEAVES}"),
    "another dual that leaves float64": (Method("m", Two(), mean()), f"Two.run on 9 rows .Dense. {LEAVES}"),
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
    "a bare server's state": (
        Method("m", Sound(), Bare()),
        r"Bare: its state \(dict\) lacks model, .*; derive it from",
    ),
    "an array for a state": (
        Method("m", Sound(), Raw()),
        r"Raw: its state \(ndarray\) lacks model, readout, w, done, end;",
    ),
    "a model that is a vector": (Method("m", Sound(), Vector()), "model must be a Dual"),
    "a model of another width": (Method("m", Sound(), Wide()), r"Wide.step: its model has the shape \(9,\)"),
    "a message that is none": (Method("m", Sound(), Silent()), "Silent.message must return a Message"),
    "a message from elsewhere": (Method("m", Sound(), Early()), "Early.message says round 1 in round 0"),
}


@pytest.mark.parametrize(("task", "merge"), [(Sound, mean()), (Sound(), mean)])
def test_what_was_not_called_is_refused_by_name(task, merge):
    with pytest.raises(TypeError, match=r"(task|merge) must be what (Sound|mean)\(…\) makes, not \2 itself; call it"):
        Method("m", task, merge)


def test_another_dual_that_leaves_float64_is_no_fault_of_a_node():
    run = train(InProcess(random_rows(0)), Method("m", Two(), mean()), n_rounds=3)
    assert (run.certificate.verdict, run.certificate.reason) == (Status.DIVERGED, "round 0 left float64")


def test_a_run_says_of_a_state_what_the_check_says():
    with pytest.raises(
        TypeError, match=r"^m: Raw: its state \(ndarray\) lacks model, readout, w, done, end; derive it from"
    ):
        train(InProcess(random_rows(0)), Method("m", Sound(), Raw()), n_rounds=1)


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
