"""The bounds on the area under the ROC curve: they hold that of the pooled rows, whatever the scores."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from common import examples
from evaluation.federations import ONE, of_scores
from localgd.evaluation.auc import ranked
from localgd.evaluation.cells import at_ordinals, bounded, finer, first_cuts, groups, ordinals, placed

PLAIN = {"min_group": 1, "width": 1e-4, "n_rounds": 3, "n_cuts": 10_000}


def draws(seed):
    """Scores with ties or without, of any size, at several nodes, with weights or without."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 120))
    positive = rng.random(n) < rng.uniform(0.05, 0.95)
    positive[:2] = True, False
    scores = rng.standard_normal(n) * 10.0 ** rng.integers(-8, 9) + rng.choice([0.0, 1.0]) * positive
    if rng.random() < 0.6:
        scores = rng.choice(scores[: rng.integers(1, 12)], n)  # ties
    if rng.random() < 0.2:
        scores = np.nextafter(1.0, rng.choice([0.0, 2.0], n))  # next to each other
    weights = (None, np.round(rng.exponential(size=n), 2), rng.exponential(size=n))[rng.integers(3)]
    if weights is not None:
        weights[:2] += 0.5
    return scores, positive, rng.integers(0, rng.integers(1, 5), n), weights, rng


@settings(max_examples=examples(1000), deadline=None)
@given(st.integers(0, 2**32))
def test_the_bounds_hold_scikit_learns_area_whatever_the_ties_and_weights(seed):
    scores, positive, groups_, weights, rng = draws(seed)
    engine = of_scores(scores, positive, groups_, weights)
    settings_ = {**PLAIN, "n_cuts": int(rng.choice([2, 10, 1000])), "n_rounds": int(rng.integers(1, 5))}
    (found,), _ = ranked(engine, ONE, 1, **settings_)
    true = roc_auc_score(positive, scores, sample_weight=weights)
    assert found.area.low <= true <= found.area.high


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32))
def test_the_bounds_hold_when_few_rows_are_told_together_only(seed):
    scores, positive, groups_, _, rng = draws(seed)
    min_group = int(rng.integers(2, 9))
    for name in np.unique(groups_):
        own = groups_ == name
        if any(0 < count < min_group for count in (positive[own].sum(), (~positive[own]).sum())):
            groups_[own] = 99
    few = [(groups_ == 99) & side for side in (positive, ~positive)]
    if any(0 < side.sum() < min_group for side in few):
        groups_[:] = 0
    if min(positive.sum(), (~positive).sum()) < min_group:
        return
    (found,), _ = ranked(of_scores(scores, positive, groups_), ONE, 1, **{**PLAIN, "min_group": min_group})
    assert found.area.low <= roc_auc_score(positive, scores) <= found.area.high


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_three_rounds_bring_the_bounds_of_a_hundred_thousand_scores_within_1e_4(apart):
    rng = np.random.default_rng(0)
    positive = rng.random(10**5) < 0.5
    scores = rng.standard_normal(10**5) + apart * positive
    (found,), n_rounds = ranked(of_scores(scores, positive, rng.integers(0, 7, 10**5)), ONE, 1, **PLAIN)
    assert n_rounds <= 3
    assert found.area.width <= 1e-4
    assert found.area.low <= roc_auc_score(positive, scores) <= found.area.high


def test_ties_count_as_a_half_exactly():
    scores, positive = np.repeat([1.0, 2.0, 3.0], 4), np.tile([True, False], 6)
    (found,), n_rounds = ranked(of_scores(scores, positive, np.arange(12) % 3), ONE, 1, **PLAIN)
    pairs = [(a, b) for a in scores[positive] for b in scores[~positive]]
    true = Fraction(sum(2 * (a > b) + (a == b) for a, b in pairs), 2 * len(pairs))
    assert n_rounds == 1
    assert found.area.low <= true <= found.area.high
    assert found.area.width < 1e-11


def test_where_rows_are_told_together_further_rounds_do_not_help_and_the_search_ends():
    rng = np.random.default_rng(1)
    positive = rng.random(400) < 0.5
    engine = of_scores(rng.standard_normal(400) + positive, positive, np.zeros(400, dtype=int))
    (plain,), _ = ranked(engine, ONE, 1, **PLAIN)
    (joined,), n_rounds = ranked(engine, ONE, 1, **{**PLAIN, "min_group": 20, "n_rounds": 50})
    assert n_rounds < 10
    assert joined.area.width > 10 * plain.area.width
    assert joined.area.low <= plain.area.low <= plain.area.high <= joined.area.high


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32))
def test_no_cell_that_is_told_holds_too_few_rows(seed):
    rng = np.random.default_rng(seed)
    sizes, min_group = rng.integers(0, 12, rng.integers(1, 30)), int(rng.integers(2, 9))
    if 0 < sizes.sum() < min_group:
        return
    (low, high), _ = placed(sizes, sizes.astype(float), min_group)
    for told in (low, high):
        assert ((told == 0) | (told >= min_group)).all()
        assert told.sum() == sizes.sum()
    above = np.cumsum(sizes[::-1])[::-1]
    assert (np.cumsum(low[::-1])[::-1] <= above).all()
    assert (above <= np.cumsum(high[::-1])[::-1]).all()
    filled = np.flatnonzero(sizes)
    assert all(sizes[filled][groups(sizes[filled], min_group) == g].sum() >= min_group for g in (0,) if filled.size)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32))
def test_bounds_on_cells_hold_them_and_depend_on_no_small_one(seed):
    rng = np.random.default_rng(seed)
    sizes, min_group = rng.integers(0, 30, (1, rng.integers(2, 5))), int(rng.integers(2, 9))
    if 0 < sizes.sum() < min_group:
        return
    low, high = bounded(sizes, sizes.astype(float), min_group)
    assert ((low <= sizes) & (sizes <= high)).all()
    few = np.flatnonzero((sizes[0] > 0) & (sizes[0] < min_group))
    if len(few) >= 2 and sizes[0, few[0]] > 1 and sizes[0, few[1]] + 1 < min_group and few.size == 2:
        other = sizes.copy()
        other[0, few] += [-1, 1]
        for told, same in zip(bounded(other, other.astype(float), min_group), (low, high), strict=True):
            np.testing.assert_array_equal(told, same)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32))
def test_finer_cuts_are_sorted_and_split_what_is_in_doubt(seed):
    rng = np.random.default_rng(seed)
    cuts = np.unique(rng.standard_normal(rng.integers(1, 20)) * 10.0 ** rng.integers(-300, 300))
    doubt = rng.integers(0, 3, cuts.size + 1) * rng.random(cuts.size + 1)
    found = finer(cuts, doubt > 0, doubt, int(rng.integers(1, 50)))
    assert (np.diff(found) > 0).all()
    assert np.isfinite(found).all()
    if doubt.any():
        bin_ = int(doubt.argmax())
        low = cuts[bin_ - 1] if bin_ else -np.inf
        high = cuts[bin_] if bin_ < cuts.size else np.inf
        assert ((found > low) & (found < high)).any() or np.nextafter(low, high) == high
    assert (at_ordinals(ordinals(cuts)) == cuts).all()
    assert (np.diff(first_cuts(100)) > 0).all()
