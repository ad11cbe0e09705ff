"""Whatever comes over the network is refused in clear words, or is what it should be; on both sides."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common import examples, random_rows
from engines.flower_grid import grid_of
from localgd import Message, NodeError, Report
from localgd.engine.flower import records
from localgd.engine.flower.records import RefusedError
from localgd.flower import FlowerEngine
from localgd.problems.metrics import Evaluate
from localgd.rounding import Dual
from localgd.rules.local import GradientSteps

UPDATE = Dual.proved(np.arange(3.0), 2.0, 1e-9, 1)
REPORT = Report(1, 7, {"loss": 2.0}, {"margin": 0.5}, {"underflow": 1}, {"update": UPDATE})


def record(arrays=None, **changes):
    """A sound report, but for these changes."""
    good = records.reported(REPORT, "")
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
    "too few bytes": ({"sums/step": raw(b"12345678", (2,))}, "8 bytes, but the shape"),
    "too many bytes": ({"sums/step": raw(b"1" * 16, ())}, "16 bytes"),
    "another dtype": ({"sums/step": raw(dtype="float32")}, "'float32' as"),
    "an object": ({"sums/step": raw(dtype="object")}, "'object' as"),
    "a pickle": ({"sums/step": raw(b"\x80\x04N.", (), stype="pickle")}, "as 'pickle'"),
    "NumPy's own format": ({"sums/step": Array(np.zeros(3))}, "as 'numpy.ndarray'"),
    "a negative size": ({"sums/step": raw(b"", (-1,))}, "has the shape"),
    "many dimensions": ({"sums/step": raw(b"12345678", (1,) * 9)}, "has the shape"),
    "nothing, enormous": ({"sums/step": raw(b"", (0, 2**62, 2**62))}, "has the shape"),
    "beyond any number": ({"sums/step": raw(b"", (0, 10**30))}, "has the shape"),
    "neither sum nor low": ({"row": raw(b"12345678", (1,))}, "none of its sums, lows, duals or proofs"),
    "a sum without a name": ({"sums/": raw(b"12345678", (1,))}, "none of its sums, lows, duals or proofs"),
}
WRONG_HEADS = {
    "two nodes": ({"n_nodes": 2}, "speaks for itself only"),
    "no node": ({"n_nodes": 0}, "speaks for itself only"),
    "no rows": ({"n_rows": 0}, "speaks for itself only"),
    "negative rows": ({"n_rows": -1}, "its n_rows is -1"),
    "rows beyond float64": ({"n_rows": 2**53}, "not a whole number"),
    "half a row": ({"n_rows": 1.5}, "its n_rows is 1.5"),
    "true rows": ({"n_rows": True}, "its n_rows is True"),
    "a text of rows": ({"n_rows": "7"}, "its n_rows is '7'"),
    "negative count": ({"counts": {"a": -1}}, "its count of 'a' is -1"),
    "half a count": ({"counts": {"a": 0.5}}, "its count of 'a' is 0.5"),
    "a list of counts": ({"counts": [1]}, "its counts are no JSON object"),
    "half a letter": ({"counts": {"\ud800": 1}}, "a name among its counts"),
    "one entry more": ({"more": 1}, "its head has the entries"),
    "one entry less": ({"counts": ...}, "its head has the entries"),
    "another version": ({"version": 2}, "version 2 of the protocol, this side 1"),
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
        records.report_of(records.opened(content, 1.0))


def test_a_report_larger_than_agreed_is_refused():
    grid = grid_of(random_rows(1))
    engine = FlowerEngine(grid, timeout=1.0, max_mb=0.01)
    grid.content = lambda sound: record({"sums/big": raw(bytes(80_000), (10_000,))})  # noqa: ARG005
    with pytest.raises(NodeError, match=r"it has 0\.0802 MB, more than max_mb=0\.01"):
        engine.round(Evaluate(), Message(0, np.zeros(5)))


def test_a_node_that_has_forgotten_may_say_so_and_nothing_else():
    lost = Report(counts={"forgotten": 1})
    assert records.report_of(records.opened(records.reported(lost, ""), 1.0)).n_nodes == 0
    more = Report(0, 0, {"loss": np.zeros(3)}, {}, {"forgotten": 1})
    with pytest.raises(RefusedError):
        records.report_of(records.opened(records.reported(more, ""), 1.0))


# the node's side

TOLD = records.told(Evaluate())
QUESTION = {"ask": "task", "round": 0, "start": "s", "task": TOLD, "view": "", "definition": None}

WRONG_QUESTIONS = {
    "no version": ({"version": ...}, "version None"),
    "a negative round": ({"round": -1}, "the round is -1"),
    "half a round": ({"round": 0.5}, "the round is 0.5"),
    "a view that is a number": ({"view": 7}, "the view is 7"),
    "a long start": ({"start": "x" * 99}, "the start is"),
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
    head = {name: value for name, value in ({"version": 1} | QUESTION | changes).items() if value is not ...}
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


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["sums/a", "lows/b", "sums/", "w", "extra/x", "row"]) | st.text(max_size=6)
ARRAYS = st.builds(
    raw,
    st.binary(max_size=40) | st.integers(0, 4).map(lambda n: bytes(8 * n)),
    st.lists(st.integers(-1, 3) | st.integers(), max_size=5).map(tuple),
    st.sampled_from(["float64", "float32", "object", "<U9"]),
    st.sampled_from([records.RAW, "numpy.ndarray", "pickle"]),
)
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1) | JSONS,
        "says": st.just("report") | JSONS,
        "n_nodes": st.just(1) | JSONS,
        "n_rows": st.integers(1, 9) | JSONS,
        "counts": st.dictionaries(st.text(max_size=4), st.integers(0, 9)) | JSONS,
        "rows": st.just("") | JSONS,
        "ask": st.just("task") | JSONS,
        "round": st.integers(0, 9) | JSONS,
        "start": st.just("s") | JSONS,
        "view": st.just("") | JSONS,
        "task": st.just(TOLD) | JSONS,
        "definition": st.none() | JSONS,
    },
)
SOUND = {"version": 1, "says": "report", "n_nodes": 1, "n_rows": 7, "counts": {}, "rows": ""}


@given(HEADS, st.booleans(), st.dictionaries(NAMES, ARRAYS, max_size=3))
@settings(max_examples=examples(400))
def test_any_report_is_refused_or_sound(head, complete, arrays):
    whole = {**SOUND, **{name: value for name, value in head.items() if name in SOUND}} if complete else head
    content = RecordDict({"arrays": ArrayRecord(arrays), "head": ConfigRecord({"json": json.dumps(whole)})})
    try:
        report = records.report_of(records.opened(content, 1.0))
    except RefusedError:
        return
    assert report.n_nodes == 1 or (not report.n_nodes and report.counts == {"forgotten": 1})
    assert all(type(count) is int and 0 <= count < 2**53 for count in [report.n_rows, *report.counts.values()])
    for part in (report.sums, report.lows):
        assert isinstance(part, Mapping)
        assert all(array.dtype == np.float64 and not array.flags.writeable for array in part.values())


@given(HEADS, st.booleans(), st.dictionaries(NAMES, ARRAYS, max_size=3))
@settings(max_examples=examples(200))
def test_any_question_is_answered(head, complete, arrays):
    whole = {"version": 1, **QUESTION, **{k: v for k, v in head.items() if k in QUESTION}} if complete else head
    content = RecordDict({"arrays": ArrayRecord(arrays), "head": ConfigRecord({"json": json.dumps(whole)})})
    said = records.opened(asked(GRID, content), 1.0).head
    assert said["says"] in {"report", "error", "name", "lacks"}
    if said["says"] == "error":
        assert said["error"].startswith(("RefusedError: ", "ValueError: matmul"))


GRID = grid_of(random_rows(1))
