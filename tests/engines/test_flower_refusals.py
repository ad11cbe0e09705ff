"""Whatever comes over the network is refused in clear words, or is what it should be; on both sides."""

from __future__ import annotations

import json
import traceback

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common import random_rows
from engines.flower_grid import grid_of
from localgd import Field, Message, NodeError, Report
from localgd.duals.dual import Dual
from localgd.engine.flower import records
from localgd.engine.flower.records import RefusedError
from localgd.engine.policy import Policy
from localgd.flower import FlowerEngine
from localgd.problems.metrics import Evaluate
from localgd.rules.consensus import DualPart
from localgd.rules.local import GradientSteps

UPDATE = Dual.proved(np.arange(3.0), 2.0, 1e-9, 1)
REPORT = Report(1, 7, {"loss": 2.0}, {}, {"margin": 0.5}, {("colour", "red"): 3}, {"underflow": 1}, {"update": UPDATE})
ASKED = Message(0, np.zeros(5))
CODED = {"update": Field("dual", (3,), coded="int8")}


def read(content):
    """What the server makes of an answer of a node."""
    return records.report_of(records.opened(content, 1.0), "node-2", ASKED, CODED)


def record(arrays=None, **changes):
    """A sound report, but for these changes."""
    good = records.reported(REPORT, "", ASKED)
    head = json.loads(good["head"]["json"]) | changes
    head = {name: value for name, value in head.items() if value is not ...}
    return RecordDict(
        {
            "arrays": ArrayRecord({**good["arrays"], **(arrays or {})}),
            "head": ConfigRecord({"json": json.dumps(head)}),
        }
    )


def raw(data=b"", shape=(0,), dtype="float64", stype=records.RAW):
    return Array(dtype, shape, stype, data)


def bare(text):
    return RecordDict({"arrays": ArrayRecord({}), "head": ConfigRecord({"json": text})})


WRONG_ARRAYS = {
    "too few bytes": ({"sum/step": raw(b"12345678", (2,))}, "8 bytes, but the shape"),
    "too many bytes": ({"sum/step": raw(b"1" * 16, ())}, "16 bytes"),
    "another dtype": ({"sum/step": raw(dtype="float16")}, "'float16' as"),
    "bytes of another dtype": ({"sum/step": raw(b"12345678", (), "float32")}, "8 bytes, but the shape"),
    "a dual of whole numbers": ({"dual/step": raw(b"12345678", (1,), "int64")}, "no vector with a mass and an error"),
    "a proof of three": ({"proof/update": raw(b"1" * 24, (3,))}, "no vector with a mass and an error"),
    "a proof of nothing": ({"proof/step": raw(b"1" * 16, (2,))}, "of no dual that it sent"),
    "kept back of no length": (
        {"proof/update": raw(np.array([1.0, 0.0, 0.0, -1.0, 0.0, 1.0]).tobytes(), (6,))},
        "keeps back what has no length",
    ),
    "a code of another length": ({"code/update": raw(bytes(12), (12,), "uint8")}, "takes 11 bytes, not 12"),
    "a code of something else": ({"code/step": raw(bytes(11), (11,), "uint8")}, "does not declare"),
    "a code of numbers": ({"code/update": raw(bytes(88), (11,))}, "codes, and nothing else, are bytes"),
    "a sum of bytes": ({"sum/step": raw(bytes(3), (3,), "uint8")}, "codes, and nothing else, are bytes"),
    "an object": ({"sum/step": raw(dtype="object")}, "'object' as"),
    "a pickle": ({"sum/step": raw(b"\x80\x04N.", (), stype="pickle")}, "as 'pickle'"),
    "NumPy's own format": ({"sum/step": Array(np.zeros(3))}, "as 'numpy.ndarray'"),
    "a negative size": ({"sum/step": raw(b"", (-1,))}, "has the shape"),
    "many dimensions": ({"sum/step": raw(b"12345678", (1,) * 9)}, "has the shape"),
    "nothing, enormous": ({"sum/step": raw(b"", (0, 2**62, 2**62))}, "has the shape"),
    "beyond any number": ({"sum/step": raw(b"", (0, 10**30))}, "has the shape"),
    "of no kind": ({"row": raw(b"12345678", (1,))}, "of no kind of field"),
    "of another kind": ({"rows/x": raw(b"12345678", (1,))}, "of no kind of field"),
    "a sum without a name": ({"sum/": raw(b"12345678", (1,))}, "of no kind of field"),
}
WRONG_HEADS = {
    "negative rows": ({"n_rows": -1}, "its n_rows is -1"),
    "rows beyond float64": ({"n_rows": 2**53}, "not a whole number"),
    "half a row": ({"n_rows": 1.5}, "its n_rows is 1.5"),
    "true rows": ({"n_rows": True}, "its n_rows is True"),
    "a text of rows": ({"n_rows": "7"}, "its n_rows is '7'"),
    "negative count": ({"counts": [[["a"], -1]]}, r"its count of \['a'\] is -1"),
    "half a count": ({"counts": [[["a"], 0.5]]}, r"its count of \['a'\] is 0.5"),
    "counts by name": ({"counts": {"a": 1}}, "its counts are no JSON list"),
    "a list of counts": ({"counts": [1]}, "its count 1 is no pair"),
    "a count of a text": ({"counts": [["a", 1]]}, "is no pair of a key and a number"),
    "a count of nothing": ({"counts": [[[], 1]]}, "is no pair of a key and a number"),
    "a key of a list": ({"counts": [[[["a"]], 1]]}, "not made of texts and numbers"),
    "a key of null": ({"counts": [[[None], 1]]}, "not made of texts and numbers"),
    "half a letter": ({"counts": [[["\ud800"], 1]]}, "a key of its counts"),
    "a list of flags": ({"flags": ["a"]}, "its flags are no JSON object"),
    "a flag that is true": ({"flags": {"underflow": True}}, "its flag 'underflow' is True"),
    "half a letter of a flag": ({"flags": {"\ud800": 1}}, "a flag is"),
    "another round": ({"round": 1}, "it answers round 1 of another session, or another round than 0"),
    "another session": ({"session": "old"}, "it answers round 0 of another session"),
    "no round": ({"round": ...}, "its head has the entries"),
    "a session that is a number": ({"session": 7}, "the session is 7"),
    "one entry more": ({"more": 1}, "its head has the entries"),
    "one entry less": ({"counts": ...}, "its head has the entries"),
    "another version": ({"version": 1}, "version 1 of the protocol, this side 2"),
    "no version": ({"version": ...}, "version None"),
    "a true version": ({"version": True}, "version True"),
    "a long digest": ({"rows": "x" * 99}, "the digest of its rows"),
}
WRONG_RECORDS = {
    "no record": (RecordDict({}), "it is no message of localgd"),
    "other records": (RecordDict({"model": ArrayRecord({})}), "it is no message of localgd"),
    "a metric for a head": (RecordDict({"arrays": ArrayRecord({}), "head": MetricRecord({})}), "no message of localgd"),
    "no JSON": (bare("{"), "its head is no JSON"),
    "deep JSON": (bare("[" * 100_000), "its head is no JSON"),
    "long numbers": (bare("1" * 5000), "its head is no JSON"),
    "a list": (bare("[]"), "no JSON object"),
    "bytes": (RecordDict({"arrays": ArrayRecord({}), "head": ConfigRecord({"json": b"{}"})}), "version None|no JSON"),
}
WRONG = (
    {name: (record(arrays), words) for name, (arrays, words) in WRONG_ARRAYS.items()}
    | {name: (record(**head), words) for name, (head, words) in WRONG_HEADS.items()}
    | WRONG_RECORDS
)


@pytest.mark.parametrize("name", WRONG)
def test_a_malformed_report_is_that_nodes_failure(name):
    content, words = WRONG[name]
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, on_failure="skip", timeout=1.0, poll=1e-4)
    grid.number = 0
    grid.content = lambda sound: content if grid.number == 3 else sound
    report = engine.round(Evaluate(), Message(0, np.zeros(5)))
    assert report.n_nodes == 3
    (failure,) = engine.failures
    assert failure.node_id == "node-2"
    assert failure.error.startswith("RefusedError: its answer was refused")
    with pytest.raises(RefusedError, match=words):
        read(content)


SCHEMALESS = {
    "two nodes": (record(n_nodes=2), "speaks for itself only"),
    "no node": (record(n_nodes=0), "speaks for no node"),
    "no rows": (record(n_rows=0), "speaks for itself only"),
    "another task's": (record(), "which Evaluate does not declare"),
    "less": (records.reported(Report(1, 7, {"loss": 2.0}), "", ASKED), "lacks correct, margin, weight, which Evaluate"),
    "float32": (
        records.reported(Report(1, 7, {"loss": np.float32(2)}), "", ASKED),
        "loss is of float32, but Evaluate declares float64",
    ),
    "a maximum": (records.reported(Report(1, 7, {}, {"loss": 2.0}), "", ASKED), "is of the kind max, but Evaluate"),
    "listed": (records.reported(Report(1, 7, per_node={"loss": {"b": 2.0}}), "", ASKED), "is of the kind per_node"),
}


@pytest.mark.parametrize("name", SCHEMALESS)
def test_a_report_of_another_schema_is_that_nodes_failure(name):
    content, words = SCHEMALESS[name]
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, on_failure="skip", timeout=1.0, poll=1e-4)
    grid.number = 0
    grid.content = lambda sound: content if grid.number == 3 else sound
    assert engine.round(Evaluate(), ASKED).n_nodes == 3
    (failure,) = engine.failures
    assert failure.node_id == "node-2"
    assert failure.error.startswith("RefusedError: its answer was refused: its report")
    assert words in failure.error


def test_an_old_answer_does_not_pass_for_a_new_one():
    """A node, or whoever is in between, that sends again what it has sent before: another round, another session."""
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, on_failure="skip", timeout=1.0, poll=1e-4)
    kept = {}

    def again(sound):
        place = (grid.number - 1) % 4
        return kept.setdefault(place, sound) if place == 2 else sound

    grid.number, grid.content = 0, again
    assert engine.round(Evaluate(), Message(0, np.zeros(5), session="one")).n_nodes == 4
    for message in (Message(1, np.zeros(5), session="one"), Message(0, np.zeros(5), session="two")):
        assert engine.round(Evaluate(), message).n_nodes == 3
        assert engine.failures[-1].node_id == "node-2"
        assert "it answers round 0 of another session, or another round" in engine.failures[-1].error
    assert engine.round(Evaluate(), Message(0, np.zeros(5), session="one")).n_nodes == 4


def test_arrays_of_every_dtype_come_back_as_they_were():
    sums = {name: np.array([1, -2, 3], name) for name in ("float64", "float32", "int64")}
    listed = {"n": {"node-2": np.int64(2**53)}}
    found = read(records.reported(Report(1, 7, sums, per_node=listed), "", ASKED))
    for name, array in sums.items():
        assert found.sums[name].dtype == name
        np.testing.assert_array_equal(found.sums[name], array)
    assert found.per_node["n"]["node-2"] == 2**53
    assert found.per_node["n"]["node-2"].dtype == np.int64


SIGNS = "\x1b[2J\nEverything is fine\r"


def test_what_a_node_says_is_escaped_before_it_reaches_an_error_or_a_log():
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, on_failure="skip", timeout=1.0, poll=1e-4)
    said = {
        "an error": records.closed({"says": "error", "error": SIGNS, "trace": f"line 1\n{SIGNS}"}),
        "a field": records.reported(Report(1, 7, {SIGNS: 1.0}), "", ASKED),
        "a key": records.reported(Report(1, 7, counts={(SIGNS,): 1}), "", ASKED),
        "an entry": records.closed({"says": "report", SIGNS: 1}),
        "a word": records.closed({"says": SIGNS}),
    }
    for content in said.values():
        grid.number = 0
        grid.content = lambda sound, content=content: content if grid.number == 3 else sound
        assert engine.round(Evaluate(), ASKED).n_nodes == 3
        failure = engine.failures[-1]
        assert failure.node_id == "node-2"
        assert "Everything is fine" in failure.error
        assert failure.error.isprintable()
        assert all(line.isprintable() for line in failure.trace.split("\n"))
    grid.number, engine.policy = 0, Policy()
    grid.content = lambda sound: said["an error"] if grid.number == 3 else sound
    with pytest.raises(NodeError) as caught:
        engine.round(Evaluate(), ASKED)
    shown = "".join(traceback.format_exception(caught.value))
    assert not {"\x1b", "\r"} & set(shown)
    assert "\nEverything" not in shown


def test_a_node_whose_name_cannot_be_printed_is_not_let_in():
    grid = grid_of(random_rows(1))
    grid.contexts[2**63 + 1].node_config["node-name"] = SIGNS
    with pytest.raises(RuntimeError, match=r"its name is '\\x1b\[2J\\nEvery.*holds signs that cannot be printed"):
        FlowerEngine(grid, timeout=1.0)


def test_a_report_larger_than_agreed_is_refused():
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, timeout=1.0, max_mb=0.01)
    grid.content = lambda sound: record({"sums/big": raw(bytes(80_000), (10_000,))})  # noqa: ARG005
    with pytest.raises(NodeError, match=r"it has 0\.080\d MB, more than max_mb=0\.01"):
        engine.round(Evaluate(), Message(0, np.zeros(5)))


def test_a_node_that_has_forgotten_may_say_so_and_nothing_else():
    engine_of = {True: DualPart(), False: Evaluate()}
    for more, task, taken in ((False, True, True), (True, True, False), (False, False, False)):
        grid = grid_of(random_rows(1))
        engine = FlowerEngine(grid, on_failure="skip", timeout=1.0, poll=1e-4)
        lost = Report(0, 0, {"loss": 1.0} if more else {}, flags={"forgotten": 1})
        grid.number = 0
        content = records.reported(lost, "", ASKED)
        grid.content = lambda sound, grid=grid, content=content: content if grid.number == 3 else sound
        report = engine.round(engine_of[task], ASKED)
        assert (report.n_nodes, report.flags) == (3, {"forgotten": 1} if taken else {})
        assert bool(engine.failures) != taken


# the node's side

TOLD = records.told(Evaluate())
QUESTION = {"ask": "task", "session": "s", "round": 0, "task": TOLD, "view": "", "definition": None}

WRONG_QUESTIONS = {
    "no version": ({"version": ...}, "version None"),
    "a negative round": ({"round": -1}, "the round is -1"),
    "half a round": ({"round": 0.5}, "the round is 0.5"),
    "a view that is a number": ({"view": 7}, "the view is 7"),
    "a long session": ({"session": "x" * 99}, "the session is"),
    "a task that is a text": ({"task": "Evaluate"}, "told as a name and fields"),
    "an unknown task": ({"task": {"name": "os.system", "fields": "{}"}}, "'os.system' is not on the list"),
    "an unknown field": ({"task": {**TOLD, "fields": '{"rm": 1}'}}, "fields of metrics.Evaluate are not"),
    "fields that are no JSON": ({"task": {**TOLD, "fields": "__import__"}}, "fields of metrics.Evaluate are not"),
    "fields that are no text": ({"task": {**TOLD, "fields": {}}}, "fields of metrics.Evaluate are no text"),
    "a bad field": (
        {"task": {"name": records.name_of(GradientSteps), "fields": '{"local_steps": 0}'}},
        "fields of local",
    ),
    "a view that it is not": ({"view": "abc", "definition": []}, "not that of the view it names"),
    "a definition that is no list": ({"view": "abc", "definition": {"a": 1}}, "must be a list"),
    "one entry more": ({"path": "/etc/passwd"}, "its head has the entries"),
    "another question": ({"ask": "rows", "path": "/"}, "its head has the entries"),
}


def asked(grid, content):
    """What a node answers, from over the wire."""
    message = grid.create_message(content, records.QUERY, 2**63, "")
    (reply,) = grid.send_and_receive([message])
    assert not reply.has_error()
    return reply.content


@pytest.mark.parametrize("name", WRONG_QUESTIONS)
def test_a_malformed_question_is_refused_by_the_node(name):
    changes, words = WRONG_QUESTIONS[name]
    head = {
        name: value for name, value in ({"version": records.VERSION} | QUESTION | changes).items() if value is not ...
    }
    arrays = records.closed({}, {"w": np.zeros(5)})["arrays"]
    grid = grid_of(random_rows(1))
    content = RecordDict({"arrays": arrays, "head": ConfigRecord({"json": json.dumps(head)})})
    said = records.opened(asked(grid, content), 1.0).head
    assert said["says"] == "error"
    assert said["error"].startswith("RefusedError: ")
    assert words in said["error"]
    assert not grid.contexts[2**63].state


@pytest.mark.parametrize(
    "arrays", [{}, {"v": np.zeros(5)}, {"w": np.zeros((5, 1))}, {"w": np.zeros(5), "y": np.ones(1)}]
)
def test_a_question_with_other_arrays_is_refused_by_the_node(arrays):
    said = records.opened(asked(grid_of(random_rows(1)), records.closed(QUESTION, arrays)), 1.0).head
    assert "its arrays are" in said["error"]


def test_a_refusal_is_told_even_where_errors_are_not_shared():
    grid = grid_of(random_rows(1))
    grid.contexts[2**63].node_config["share-errors"] = False
    said = records.opened(asked(grid, bare("{")), 1.0).head
    assert said["error"] == "RefusedError: its head is no JSON (JSONDecodeError)"
