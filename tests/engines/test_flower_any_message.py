"""Drawn messages: any report is refused in words or sound, and any question is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common import examples, random_rows
from engines.flower_grid import grid_of
from engines.test_flower_refusals import ASKED, QUESTION, TOLD, asked, raw, read
from localgd.engine.flower import records
from localgd.engine.flower.records import RefusedError
from localgd.engine.screening import misfit
from localgd.problems.metrics import Evaluate

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["sum/a", "min/b", "dual/c", "code/update", "proof/c", "per_node/d", "sum/", "w", "extra/x", "row"]
) | st.text(max_size=6)
ARRAYS = st.builds(
    raw,
    st.binary(max_size=40) | st.integers(0, 4).map(lambda n: bytes(8 * n)),
    st.lists(st.integers(-1, 3) | st.integers(), max_size=5).map(tuple),
    st.sampled_from(["float64", "float32", "int64", "uint8", "object", "<U9"]),
    st.sampled_from([records.RAW, "numpy.ndarray", "pickle"]),
)
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(records.VERSION) | JSONS,
        "says": st.just("report") | JSONS,
        "n_nodes": st.just(1) | JSONS,
        "n_rows": st.integers(1, 9) | JSONS,
        "counts": st.lists(st.tuples(st.lists(st.text(max_size=4) | st.integers()), st.integers(0, 9))) | JSONS,
        "flags": st.dictionaries(st.text(max_size=4), st.integers(0, 9)) | JSONS,
        "rows": st.just("") | JSONS,
        "ask": st.just("task") | JSONS,
        "round": st.integers(0, 9) | JSONS,
        "session": st.just("") | JSONS,
        "view": st.just("") | JSONS,
        "task": st.just(TOLD) | JSONS,
        "definition": st.none() | JSONS,
    },
)
SOUND = {"version": records.VERSION, "says": "report", "session": "", "round": 0, "rows": ""}
SOUND |= {"n_nodes": 1, "n_rows": 7, "counts": [], "flags": {}}


@given(HEADS, st.booleans(), st.dictionaries(NAMES, ARRAYS, max_size=3))
@settings(max_examples=examples(400))
def test_any_report_is_refused_or_sound(head, complete, arrays):
    whole = {**SOUND, **{name: value for name, value in head.items() if name in SOUND}} if complete else head
    content = RecordDict({"arrays": ArrayRecord(arrays), "head": ConfigRecord({"json": json.dumps(whole)})})
    try:
        report = read(content)
    except RefusedError:
        return
    whole_numbers = [report.n_nodes, report.n_rows, *report.counts.values(), *report.flags.values()]
    assert all(type(count) is int and 0 <= count < 2**53 for count in whole_numbers)
    assert all(isinstance(key, tuple) and key for key in report.counts)
    for part in (report.sums, report.maxs, report.mins):
        assert isinstance(part, Mapping)
        assert all(array.dtype.name in records.CODES and not array.flags.writeable for array in part.values())
    words = misfit(report, Evaluate().schema(ASKED), "node-2", "Evaluate")
    assert words.isprintable()


@given(HEADS, st.booleans(), st.dictionaries(NAMES, ARRAYS, max_size=3))
@settings(max_examples=examples(200))
def test_any_question_is_answered(head, complete, arrays):
    whole = (
        {"version": records.VERSION, **QUESTION, **{k: v for k, v in head.items() if k in QUESTION}}
        if complete
        else head
    )
    content = RecordDict({"arrays": ArrayRecord(arrays), "head": ConfigRecord({"json": json.dumps(whole)})})
    said = records.opened(asked(GRID, content), 1.0).head
    assert said["says"] in {"report", "error", "name", "lacks"}
    if said["says"] == "error":
        assert said["error"].startswith(("RefusedError: ", "ValueError: matmul"))


GRID = grid_of(random_rows(1))
