"""Reports of several processes, packed and added up, are the sum of the reports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laws.test_report import number, reports, same, whole
from localgd.core import Field, Report
from localgd.engine.packing import Layout, Rank
from localgd.engine.policy import in_order

NODES = ("n0", "n1", "n2", "n3", "n4")
PARTS = {"sum": "sums", "max": "maxs", "min": "mins"}


def schema(kinds: tuple[str, ...]) -> dict[str, Field]:
    """A place for all that `reports` may hold, if arrays of a name are of these kinds."""
    dtypes = {"a": "float64", "b": "float64", "whole": "int64", "short": "float32"}
    arrays = {name: Field(kind, (3,), dtype) for (name, dtype), kind in zip(dtypes.items(), kinds, strict=True)}
    listed = dict.fromkeys(("n", "seed"), Field("per_node", (3,), "int64"))
    flags, counts = dict.fromkeys(("late", "early"), Field("flag")), dict.fromkeys(("colour", "size"), Field("count"))
    return {**arrays, **listed, **flags, **counts, "move": Field("dual", (3,))}


def fitted(report: Report, layout: Layout) -> Report:
    """What there is a place for, of each name under its one kind; tallies go another way."""
    parts = {
        part: {name: value for name, value in getattr(report, part).items() if layout.schema[name].kind == kind}
        for kind, part in PARTS.items()
    }
    return replace(report, **parts, counts={})


KINDS = st.tuples(*[st.sampled_from(["sum", "max", "min"])] * 4)


def several(values):
    return st.tuples(*(reports(values, node) for node in NODES))


def reduced(layout: Layout, parts: list[Report]) -> tuple[Report, int]:
    places = [Rank(rank, len(parts)) for rank in range(len(parts))]
    flats = [layout.packed([part], at, sent=part.n_floats) for part, at in zip(parts, places, strict=True)]
    return layout.report(np.sum(flats, axis=0), len(parts))


@given(several(whole), KINDS, st.integers(1, 5))
def test_packed_reports_add_up_to_the_sum(drawn, kinds, world):
    layout = Layout(schema(kinds), NODES)
    parts = [fitted(part, layout) for part in drawn[:world]]
    total, sent = reduced(layout, parts)
    expected = in_order({f"{rank}": part for rank, part in enumerate(parts)})
    # a dual's mass and error are those of its nodes: how many that is, an engine counts by the nodes that spoke
    assert same(total, expected)
    assert sent == sum(part.n_floats for part in parts)


@given(several(number), KINDS)
def test_the_reports_of_a_process_come_back_as_their_sum_to_the_last_bit(drawn, kinds):
    layout = Layout(schema(kinds), NODES)
    parts = [fitted(part, layout) for part in drawn]
    flat = layout.packed(parts, Rank(0, 1), sent=0)
    assert same(layout.report(flat, 1)[0], in_order({f"{place}": part for place, part in enumerate(parts)}))


def test_a_process_without_reports_adds_nothing():
    layout = Layout({"total": Field("sum"), "low": Field("min"), "high": Field("max"), "n": Field("per_node")}, ("a",))
    full = Report(1, 1, {"total": 1.0}, {"high": -3.0}, {"low": 3.0}, per_node={"n": {"a": 2.0}})
    flats = [layout.packed(those, Rank(at, 3), sent=0) for at, those in enumerate(([], [full], []))]
    assert same(layout.report(np.sum(flats, axis=0), 3)[0], full)
    assert same(layout.report(layout.packed([], Rank(0, 1), sent=0), 1)[0], Report())


def test_something_to_talk_about_is_told():
    layout = Layout({"total": Field("sum")})
    flats = [layout.packed(those, Rank(at, 2), sent=0) for at, those in enumerate(([], None))]
    assert layout.said(np.sum(flats, axis=0), 2)[0]
    assert not layout.said(flats[0], 2)[0]


@given(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 5e-324]))
def test_extremes_arrive_whatever_they_are(extreme):
    layout = Layout({"low": Field("min"), "high": Field("max"), "more": Field("min", optional=True)})
    one = Report(1, 1, {}, {"high": extreme}, {"low": extreme})
    other = Report(1, 1, {}, {"high": 1.0}, {"low": 1.0, "more": np.nan})
    total, _ = reduced(layout, [one, other, Report()])
    np.testing.assert_array_equal(total.mins["low"], np.minimum(extreme, 1.0))
    np.testing.assert_array_equal(total.maxs["high"], np.maximum(extreme, 1.0))
    assert np.isnan(total.mins["more"])


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**53 - 1])
def test_whole_numbers_come_back_as_they_were(value):
    layout = Layout({"sum": Field("sum", (), "int64"), "most": Field("max", (2,), "int64")})
    report = Report(1, 1, {"sum": np.int64(value)}, {"most": np.array([value, 0])})
    total, _ = reduced(layout, [report, Report()])
    assert (int(total.sums["sum"]), total.sums["sum"].dtype) == (value, np.int64)
    assert total.maxs["most"].tolist() == [value, 0]


def test_what_is_small_does_not_keep_the_whole_array_alive():
    report = Report(1, 1, {"total": np.zeros(1000), "loss": 1.0})
    layout = Layout({"total": Field("sum", (1000,)), "loss": Field("sum")})
    flat = layout.packed([report], Rank(0, 1), sent=0)
    found, _ = layout.report(flat, 1)
    assert np.shares_memory(found.sums["total"], flat)
    assert not np.shares_memory(found.sums["loss"], flat)
