"""Figures: labels beside their lines without overlap, nothing empty, the same bytes twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import examples
from localgd.evaluation.measures import Calibration
from localgd.report import evaluation, plots
from localgd.report.figure import PALETTE, Line, Panel, canvas, figure_of, save

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


@pytest.mark.parametrize("last", [1, 2, 3, 7, 12, 40, 150, 3000])
@pytest.mark.parametrize("first", [1, 4, 9, 13])
@pytest.mark.parametrize("log", [True, False])
def test_rounds_are_whole_numbers(first, last, log):
    rounds = np.arange(first, first + last)
    axes = figure_of([Panel("t", "rounds", "y", [Line(rounds, 1 / rounds)], log_x=log)]).axes[0]
    shown = [tick.get_text() for tick in ticks_of(axes.xaxis)]
    assert len(shown) >= min(last, 2)
    assert all(text.isdigit() for text in shown)


@pytest.mark.parametrize("n_rounds", [1, 2, 6, 30])
def test_so_they_are_in_the_figure_of_a_run(n_rounds, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "canvas", lambda *size: drawn.append(canvas(*size)) or drawn[-1])
    falls = [1 / (k + 1) for k in range(n_rounds + 1)]
    names = ("low", "high", "angle_deg_max", "true_angle_deg", "loss", "accuracy")
    columns = {"round": [*range(n_rounds + 1)], "gap": [np.nan] * len(falls), **dict.fromkeys(names, falls)}
    plots.convergence(columns, tmp_path / "convergence.png")
    for axes in drawn[0][0].axes:
        assert all(tick.get_text().isdigit() for tick in ticks_of(axes.xaxis))


def test_the_ends_of_a_share_do_not_make_its_axis_one_of_counts():
    axes = figure_of([Panel("ROC curve", "share", "share", [Line([0, 0, 1], [0, 1, 1])])]).axes[0]
    assert len(ticks_of(axes.xaxis)) > 2


def test_labels_of_points_have_their_mark_before_them_and_no_line_through_others():
    panel = Panel("t", "x", "", [Line([3, 1], [0, 1], "model", 1, "points"), Line([1, 2], [0, 1], "class", 0, "rings")])
    axes = figure_of([panel]).axes[0]
    assert not [text for text in axes.texts if not text.get_text()]  # which a thin line is
    marks = axes.lines[2:]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(marks) == len(boxes) == 2
    for mark, box in zip(marks, boxes, strict=True):
        x, y = mark.get_transform().transform(mark.get_xydata())[0]
        assert axes.get_window_extent().x1 < x < box.x0
        assert box.y0 < y < box.y1


def test_bins_of_few_rows_are_hollow_with_what_they_hold():
    place = np.arange(10) / 10 + 0.05
    held = np.array([40.0, 2, 0, 10, 9, 1, 50, 60, 70, 80])
    seen = np.where(held > 0, place, np.nan)
    calibration = Calibration(held, seen, seen, np.zeros(10), 0.0, 1.0)
    told, _, small = evaluation._reliability(calibration, weighted=False).lines
    assert (told.style, np.asarray(told.x).size) == ("line+points", 10)
    assert (small.style, small.label, small.notes) == ("hollow", "fewer than 10 rows", ["2", "9", "1"])
    assert np.asarray(small.x).tolist() == place[[1, 4, 5]].tolist()
    axes = figure_of([evaluation._reliability(calibration, weighted=True)]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["2", "9", "1", "weight below 10"]


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
