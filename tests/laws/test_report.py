"""Report is a commutative monoid."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from localgd.core import Report, in_order

whole = st.integers(-(2**40), 2**40).map(float)  # sums of whole numbers of this size are exact: no rounding to excuse
number = st.floats(-1e6, 1e6, allow_subnormal=False)


def reports(values: st.SearchStrategy[float]) -> st.SearchStrategy[Report]:
    vector = st.lists(values, min_size=3, max_size=3).map(np.array)
    named = st.dictionaries(st.sampled_from(["a", "b", "c"]), vector)
    counts = st.dictionaries(st.sampled_from(["red", "blue"]), st.integers(0, 1000))
    return st.builds(Report, st.integers(0, 9), st.integers(0, 99), named, named, counts)


def same(a: Report, b: Report) -> bool:
    def equal(x, y):
        return set(x) == set(y) and all(np.array_equal(x[name], y[name]) for name in x)

    tallies = (a.n_nodes, a.n_rows, dict(a.counts)) == (b.n_nodes, b.n_rows, dict(b.counts))
    return tallies and equal(a.sums, b.sums) and equal(a.lows, b.lows)


@given(reports(number), reports(number))
def test_addition_commutes_to_the_last_bit(a, b):
    assert same(a + b, b + a)


@given(reports(whole), reports(whole), reports(whole))
def test_addition_associates(a, b, c):
    assert same((a + b) + c, a + (b + c))


@given(reports(number))
def test_the_empty_report_is_the_identity(a):
    assert same(a + Report(), a)
    assert same(Report() + a, a)


@given(st.dictionaries(st.text(min_size=1, max_size=3), reports(number), min_size=1, max_size=5), st.randoms())
def test_the_fold_does_not_depend_on_the_order_given(parts, random):
    names = list(parts)
    random.shuffle(names)
    assert same(in_order(parts), in_order({name: parts[name] for name in names}))


@given(reports(number))
def test_floats_are_counted(a):
    arrays = [*a.sums.values(), *a.lows.values()]
    assert a.n_floats == 2 + sum(array.size for array in arrays) + len(a.counts)
