"""Reports of several processes, packed and added up, are the sum of the reports."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laws.test_report import number, reports, same, whole
from localgd.core import Report, in_order
from localgd.engine.packing import Layout, Place


def reduced(parts: list[Report]) -> tuple[Report, int]:
    layout = layout_of(parts)
    places = [Place(rank, len(parts)) for rank in range(len(parts))]
    flats = [layout.packed([part], at, sent=part.n_floats) for part, at in zip(parts, places, strict=True)]
    return layout.report(np.sum(flats, axis=0), len(parts))


def layout_of(parts: list[Report]) -> Layout:
    layout = Layout()
    for part in parts:
        layout = layout.widened(part)
    return layout


@given(st.lists(reports(whole), min_size=1, max_size=5))
def test_packed_reports_add_up_to_the_sum(parts):
    total, sent = reduced(parts)
    assert same(total, in_order({f"{rank}": part for rank, part in enumerate(parts)}))
    assert sent == sum(part.n_floats for part in parts)


@given(st.lists(reports(number), min_size=1, max_size=5))
def test_the_reports_of_a_process_come_back_as_their_sum_to_the_last_bit(parts):
    layout = layout_of(parts)
    assert all(layout.fits(part) for part in parts)
    flat = layout.packed(parts, Place(0, 1), sent=0)
    assert same(layout.report(flat, 1)[0], in_order({f"{place}": part for place, part in enumerate(parts)}))


def test_a_name_of_two_kinds_is_told_apart():
    layout = layout_of([Report(1, 1, {"a": 1.0}, {"a": 1.0}, {"a": 1})])
    for report in (Report(1, 1, {"a": 2.0}), Report(1, 1, {}, {"a": 2.0}), Report(1, 1, {}, {}, {"a": 2})):
        assert same(layout.report(layout.packed([report], Place(0, 1), sent=0), 1)[0], report)


def test_a_quantity_is_missed_only_in_processes_that_have_nodes_reporting():
    full, short, idle = [Report(1, 1, {"total": 1.0})], [Report(1, 1)], []
    layout = layout_of(full)
    for others, uneven in (([full, idle], False), ([full, short], True), ([full, short, idle], True)):
        flats = [layout.packed(those, Place(at, len(others)), sent=0) for at, those in enumerate(others)]
        assert layout.uneven(np.sum(flats, axis=0)) == uneven


@given(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 5e-324]))
def test_lows_arrive_whatever_they_are(low):
    total, _ = reduced([Report(1, 1, {}, {"low": low}), Report(1, 1, {}, {"low": 1.0, "more": np.nan}), Report()])
    np.testing.assert_array_equal(total.lows["low"], np.minimum(low, 1.0))
    assert np.isnan(total.lows["more"])


def test_what_is_small_does_not_keep_the_whole_array_alive():
    report = Report(1, 1, {"total": np.zeros(1000), "loss": 1.0})
    layout = Layout().widened(report)
    flat = layout.packed([report], Place(0, 1), sent=0)
    found, _ = layout.report(flat, 1)
    assert np.shares_memory(found.sums["total"], flat)
    assert not np.shares_memory(found.sums["loss"], flat)


def test_a_report_that_does_not_fit_is_told_from_one_that_does():
    layout = Layout().widened(Report(1, 1, {"total": np.zeros(2)}, {"low": 1.0}, {"all": 1}))
    for other in (
        Report(1, 1, {"total": np.zeros(3)}),
        Report(1, 1, {"total": 1.0}),
        Report(1, 1, {"more": 1.0}),
        Report(1, 1, {}, {"more": 1.0}),
        Report(1, 1, {}, {}, {"some": 1}),
    ):
        assert not layout.fits(other)
        assert layout.widened(other).fits(other)
