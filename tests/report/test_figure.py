"""Figures: labels beside their lines without overlap, nothing empty, the same bytes twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import examples
from localgd.report.figure import PALETTE, Line, Panel, figure_of, save

ROUNDS = np.arange(1, 200)


def crowded(n=7, **options):
    lines = [Line(ROUNDS, 40 / np.log(ROUNDS + 2 + 0.01 * i), f"L = {10**i}", i) for i in range(n)]
    return Panel("Angle", "rounds", "angle (degrees)", lines, True, True, **options)


def ticks_of(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def labels_of(figure):
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        texts = [*axes.texts, *ticks_of(axes.xaxis), *ticks_of(axes.yaxis), axes.xaxis.label, axes.yaxis.label]
        yield [text.get_window_extent(renderer) for text in texts if text.get_text()]


@pytest.mark.parametrize("n_panels", [1, 2, 3, 4, 6])
def test_no_label_lies_on_another_nor_outside_the_figure(n_panels):
    figure = figure_of([crowded(levels=[(10.0, "10 degrees")])] * n_panels)
    for boxes in labels_of(figure):
        assert len(boxes) > 8
        for a, b in itertools.combinations(boxes, 2):
            assert not a.overlaps(b)
        for box in boxes:
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1


@settings(max_examples=examples(20))
@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=12))
def test_labels_never_overlap_wherever_the_lines_end(ends):
    figure = figure_of([Panel("t", "x", "y", [Line([0, 1], [1, end], f"line {end:.3g}") for end in ends])])
    for a, b in itertools.combinations(
        [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()], 2
    ):
        assert not a.overlaps(b)


def test_a_point_is_seen_inside_the_ring_that_it_is_held_to():
    same = [Line([0.6, 0.9], [0, 1], "model", 1, "points"), Line([0.6, 0.5], [0, 1], "class", 0, "rings")]
    figure = figure_of([Panel("Accuracy by node", "share of rows", "", same, categories=["a", "b"])])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    x, y = figure.axes[0].transData.transform((0.6, 0))
    around = pixels[round(len(pixels) - y) - 9 : round(len(pixels) - y) + 10, round(x) - 9 : round(x) + 10].reshape(
        -1, 3
    )
    for color in (PALETTE[0], PALETTE[1]):
        wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(around - wanted).max(axis=1) < 40).sum() >= 10


def test_an_empty_panel_is_refused():
    with pytest.raises(ValueError, match="shows nothing"):
        figure_of([Panel("gaps", "rounds", "degrees", [Line([1, 2], [np.nan, np.nan])])])
    with pytest.raises(ValueError, match="at least one panel"):
        figure_of([])


def test_the_same_panels_give_the_same_bytes(tmp_path):
    bytes_of = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        bytes_of.append([path.read_bytes() for path in save([crowded()], tmp_path / name / "figure")])
    assert bytes_of[0] == bytes_of[1]


def test_categories():
    named = Panel("t", "degrees", "", [Line([1, 2], [0, 1], style="points")], categories=["ridge", "svm"])
    assert [text.get_text() for text in figure_of([named]).axes[0].get_yticklabels()] == ["ridge", "svm"]
