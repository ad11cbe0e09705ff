"""Many classes as signed rows, from tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse

from localgd import InProcess, Shard, from_arrays, prepare
from localgd.data.classes import signed
from localgd.data.recipe import Recipe
from localgd.layouts import ClassRows


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(0, 5), st.integers(1, 4), st.booleans())
def test_rows_are_those_of_the_definition(seed: int, n_classes: int, n: int, d: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.6)
    y = rng.integers(n_classes, size=n)
    unit = np.eye(n_classes)
    expected = [np.kron(unit[y[i]] - unit[c], x[i]) for i in range(n) for c in range(n_classes) if c != y[i]]
    found = ClassRows(csr_array(x) if sparse else x, y, n_classes).explicit()
    np.testing.assert_array_equal(found.toarray(), np.reshape(expected, found.shape))
    assert found.has_canonical_format
    assert found.nnz == 2 * (n_classes - 1) * np.count_nonzero(x)


@pytest.mark.parametrize("storage", [np.array, csr_array])
def test_two_classes_stay_as_they_are_stored(storage: Any) -> None:
    shard = signed("a", storage([[1.0, 0.0], [0.0, 2.0]]), np.array([0, 1]), 2)
    assert issparse(shard.rows) is (storage is csr_array)
    assert shard.versus == 1
    rows: Any = shard.rows.toarray() if isinstance(shard.rows, csr_array) else shard.rows
    np.testing.assert_array_equal(rows, [[-1, 0], [0, 2]])


@pytest.mark.parametrize("sparse", [False, True])
def test_a_node_may_lack_classes_that_others_have(sparse: bool) -> None:
    X = np.arange(1.0, 13.0).reshape(6, 2)
    y = ["c", "a", "a", "b", "b", "c"]
    engine, recipe = prepare(InProcess(from_arrays(csr_array(X) if sparse else X, y, [0, 0, 1, 1, 1, 1])))
    assert recipe.classes == ("a", "b", "c")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for shard in engine.shards.values():
        assert isinstance(shard, Shard)
        assert (shard.versus, shard.n_features) == (2, 9)
    assert [shard.n_samples for shard in engine.shards.values()] == [2, 4]
    first: Any = engine.shards["0"].rows
    w = np.random.default_rng(0).standard_normal((3, 3))
    scores = np.column_stack([X, np.ones(6)]) @ w.T
    margins = [scores[0, 2] - scores[0, 0], scores[0, 2] - scores[0, 1], scores[1, 0] - scores[1, 1]]
    np.testing.assert_allclose((first @ w.ravel())[:3], margins)


def test_categories_text_and_gaps_are_prepared_as_ever() -> None:
    frame = pl.DataFrame({"size": [1.0, None, 3.0, 5.0], "town": ["york", "hull", None, "york"], "n": [1.0] * 4})
    engine, recipe = prepare(InProcess(from_arrays(frame, [3, 1, 2, 1], ["a", "a", "b", "b"])), scale="standard")
    assert recipe.classes == (1, 2, 3)
    plain: Any = recipe.matrix(frame)
    rows: Any = engine.shards["b"].rows.toarray()
    np.testing.assert_array_equal(rows, ClassRows(plain[2:], np.array([1, 0]), 3).explicit().toarray())
