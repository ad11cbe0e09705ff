"""Report is a commutative monoid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localgd.core import Field, Report
from localgd.duals.dual import Dual
from localgd.engine.policy import in_order

whole = st.integers(-(2**40), 2**40).map(float)  # sums of whole numbers of this size are exact: no rounding to excuse
number = st.floats(-1e6, 1e6, allow_subnormal=False)
vectors = {"float64": number, "int64": st.integers(-(2**40), 2**40), "float32": st.integers(-(2**8), 2**8)}


def named(values, *names):
    return st.dictionaries(st.sampled_from(names), values)


def arrays(values, dtype="float64"):
    return st.lists(values, min_size=3, max_size=3).map(lambda entries: np.array(entries, dtype))


def reports(values: st.SearchStrategy[float], node: str = "node") -> st.SearchStrategy[Report]:
    """Reports of every kind; what they list is of a node of this name."""
    held = named(arrays(values), "a", "b") | named(arrays(vectors["int64"], "int64"), "whole")
    held |= named(arrays(vectors["float32"], "float32"), "short")
    counts = named(st.integers(0, 1000), ("colour", "red"), ("colour", "blue"), ("size", 3), ("size", "3"))
    flags = named(st.integers(1, 9), "late", "early")
    duals = named(arrays(values).map(lambda vector: Dual.proved(vector, 1.0, 0.0, 1)), "move")
    listed = named(arrays(vectors["int64"], "int64").map(lambda value: {node: value}), "n", "seed")
    whole_numbers = st.integers(0, 9), st.integers(0, 99)
    return st.builds(Report, *whole_numbers, held, held, held, counts, flags, duals, listed)


def same(a: Report, b: Report) -> bool:
    def equal(x, y):
        alike = set(x) == set(y) and all(np.array_equal(x[name], y[name]) for name in x)
        return alike and all(x[name].dtype == y[name].dtype for name in x)

    def proved(report):
        return {name: dual.parts for name, dual in report.duals.items()}

    tallies = all(getattr(a, part) == getattr(b, part) for part in ("n_nodes", "n_rows", "counts", "flags"))
    listed = set(a.per_node) == set(b.per_node) and all(
        equal(a.per_node[name], b.per_node[name]) for name in a.per_node
    )
    folded = all(equal(getattr(a, part), getattr(b, part)) for part in ("sums", "maxs", "mins"))
    vectors = equal(*({name: dual.vector for name, dual in report.duals.items()} for report in (a, b)))
    return tallies and listed and folded and vectors and proved(a) == proved(b)


@given(reports(number), reports(number, "other"))
def test_addition_commutes_to_the_last_bit(a, b):
    assert same(a + b, b + a)


@given(reports(whole), reports(whole, "other"), reports(whole, "third"))
def test_addition_associates(a, b, c):
    assert same((a + b) + c, a + (b + c))


@given(reports(number))
def test_the_empty_report_is_the_identity(a):
    assert same(a + Report(), a)
    assert same(Report() + a, a)


@given(st.data(), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=5, unique=True), st.randoms())
def test_the_fold_does_not_depend_on_the_order_given(data, names, random):
    parts = {name: data.draw(reports(number, name)) for name in names}
    random.shuffle(names)
    assert same(in_order(parts), in_order({name: parts[name] for name in names}))


@given(reports(number))
def test_floats_are_counted(a):
    arrays = [*a.sums.values(), *a.maxs.values(), *a.mins.values(), *(dual.vector for dual in a.duals.values())]
    arrays += [value for nodes in a.per_node.values() for value in nodes.values()]
    proofs = 2 * len(a.duals)
    assert a.n_floats == 2 + sum(array.size for array in arrays) + proofs + len(a.counts) + len(a.flags)


def test_maxima_are_maxima_and_minima_minima():
    parts = [Report(1, 1, maxs={"m": [value, 1.0]}, mins={"m": [value, 1.0]}) for value in (2.0, -3.0)]
    total = in_order(dict(zip("ab", parts, strict=True)))
    assert (total.maxs["m"].tolist(), total.mins["m"].tolist()) == ([2.0, 1.0], [-3.0, 1.0])


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("sums", ([1.0], [1.0, 2.0])),
        ("maxs", (1.0, [1.0])),
        ("sums", (np.float32(1), 1.0)),
        ("duals", (np.zeros(2), np.zeros(3))),
    ],
)
def test_what_has_two_shapes_or_dtypes_does_not_add(part, values):
    one, other = (Report(1, 1, **{part: {"q": value}}) for value in values)
    with pytest.raises(ValueError, match="do not add"):
        one + other


def test_a_node_does_not_speak_twice():
    one = Report(1, 1, per_node={"n": {"a": 1.0}})
    with pytest.raises(ValueError, match="values of one node"):
        one + one


@pytest.mark.parametrize("dtype", ["float32", "int64", "float64"])
def test_arrays_keep_their_dtype_and_cannot_be_written_to(dtype):
    report = Report(1, 1, {"q": np.ones(2, dtype)}, per_node={"n": {"a": np.ones(2, dtype)}})
    for array in (report.sums["q"], (report + report.__class__()).sums["q"], report.per_node["n"]["a"]):
        assert array.dtype == dtype
        assert not array.flags.writeable
    assert Report(1, 1, {"q": 3, "r": np.arange(2, dtype=np.int32)}).sums["r"].dtype == np.float64


def test_a_field_is_of_a_kind_and_a_dtype_that_every_engine_carries():
    with pytest.raises(ValueError, match="kind must be one of sum, max, min, count, flag, per_node, dual, got 'avg'"):
        Field("avg")
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, int64, got 'float16'"):
        Field("sum", (), "float16")
