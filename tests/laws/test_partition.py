"""The laws of every partitioner: disjoint, covering, never empty, and a function of the seed alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from localgd.data.partition import ByFeature, ByLabel, BySize, Dirichlet, Iid, Partitioner, partition, partitioner
from localgd.data.table import Table

PARTITIONERS = [Iid(), ByLabel(), Dirichlet(alpha=5.0), BySize(), BySize(power=3.0), ByFeature("x1")]


def rows(n_rows: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    return Table("all", rng.standard_normal((n_rows, 2)), np.arange(n_rows) % 2, source="all.npz")


def row_numbers(tables: list[Table]) -> list[list[int]]:
    return [table.row_numbers.tolist() for table in tables]


@pytest.mark.parametrize("how", PARTITIONERS, ids=repr)
@given(n_nodes=st.integers(1, 12), extra=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_every_row_is_at_exactly_one_node_and_no_node_is_empty(
    how: Partitioner, n_nodes: int, extra: int, seed: int
) -> None:
    table = rows(n_nodes + extra + (40 if isinstance(how, Dirichlet) else 0))
    nodes = partition(table, how, n_nodes, seed=seed)
    assert len(nodes) == n_nodes
    assert min(node.n_rows for node in nodes) >= 1
    assert sorted(np.concatenate(row_numbers(nodes)).tolist()) == table.row_numbers.tolist()
    assert [node.node_id for node in nodes] == sorted(node.node_id for node in nodes)
    for node in nodes:
        np.testing.assert_array_equal(node.features, table.features[node.row_numbers - 1])
        np.testing.assert_array_equal(node.labels, table.labels[node.row_numbers - 1])


@pytest.mark.parametrize("how", PARTITIONERS, ids=repr)
@given(seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_split(how: Partitioner, seed: int) -> None:
    table = rows(80)
    assert row_numbers(partition(table, how, 5, seed=seed)) == row_numbers(partition(table, how, 5, seed=seed))


@pytest.mark.parametrize("how", [p for p in PARTITIONERS if not isinstance(p, ByFeature)], ids=repr)
@given(seed=st.integers(0, 2**31))
def test_another_seed_gives_another_split(how: Partitioner, seed: int) -> None:
    table = rows(80)
    assert row_numbers(partition(table, how, 5, seed=seed)) != row_numbers(partition(table, how, 5, seed=seed + 1))


@given(n_rows=st.integers(1, 100), n_nodes=st.integers(1, 100))
def test_iid_sizes_differ_by_at_most_one(n_rows: int, n_nodes: int) -> None:
    if n_nodes <= n_rows:
        sizes = [node.n_rows for node in partition(rows(n_rows), Iid(), n_nodes)]
        assert max(sizes) - min(sizes) <= 1


def test_iid_is_shuffled_even_when_the_rows_come_sorted_by_label() -> None:
    table = Table("all", np.ones((400, 1)), np.repeat([0, 1], 200))
    shares = [node.labels.mean() for node in partition(table, "iid", 4)]
    assert 0.3 < min(shares) <= max(shares) < 0.7


def test_by_label_gives_single_class_nodes() -> None:
    nodes = partition(rows(40), "by_label", 4)
    assert [set(node.labels.tolist()) for node in nodes] == [{0}, {0}, {1}, {1}]


def test_a_small_alpha_concentrates_classes_and_a_large_one_evens_them() -> None:
    table = rows(600)
    skewed, even = (
        [node.labels.mean() for node in partition(table, Dirichlet(alpha), 4, seed=3)] for alpha in (0.2, 1e6)
    )
    assert max(skewed) - min(skewed) > 0.4
    assert max(even) - min(even) < 0.01


def test_by_size_follows_the_power_law() -> None:
    sizes = [node.n_rows for node in partition(rows(1000), BySize(power=2.0), 4)]
    expected = 4 ** np.array([0, 0, 0, 0]) + 996 * np.arange(1, 5) ** -2.0 / (np.arange(1, 5) ** -2.0).sum()
    np.testing.assert_allclose(sizes, expected, atol=1.5)
    assert {node.n_rows for node in partition(rows(100), BySize(power=0.0), 4)} == {25}


@pytest.mark.parametrize("storage", ["dense", "sparse", "frame"])
def test_by_feature_gives_each_node_a_range(storage: str) -> None:
    dense = rows(60).features
    features = {"dense": dense, "sparse": csr_array(dense), "frame": pl.DataFrame(dense, schema=["x0", "x1"])}[storage]
    nodes = partition(Table("all", features, np.zeros(60)), "by_feature:x1", 3)
    values = [dense[node.row_numbers - 1, 1] for node in nodes]
    assert values[0].max() < values[1].min() <= values[1].max() < values[2].min()


def test_by_feature_sorts_text_and_puts_missing_values_last() -> None:
    table = Table("all", pl.DataFrame({"town": ["c", None, "a", "b"]}), np.zeros(4))
    assert row_numbers(partition(table, ByFeature("town"), 4)) == [[3], [4], [1], [2]]


def test_names_are_padded_so_that_they_sort_by_number() -> None:
    names = [node.node_id for node in partition(rows(30), "iid", 11)]
    assert (names[0], names[-1]) == ("node-00", "node-10")


@pytest.mark.parametrize("n_nodes", [0, -1, 6])
def test_too_many_or_too_few_nodes(n_nodes: int) -> None:
    with pytest.raises(ValueError, match=rf"n_nodes={n_nodes} must be from 1 to the 5 rows of all\.npz"):
        partition(rows(5), "iid", n_nodes)


def test_dirichlet_gives_up_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"n_nodes=50 with alpha=0\.01 .* take fewer nodes or a larger alpha"):
        partition(rows(60), Dirichlet(0.01), 50)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("iid", Iid()), ("dirichlet", Dirichlet()), ("by_size:2", BySize(2.0)), ("by_feature:a:b", ByFeature("a:b"))],
)
def test_specs(spec: str, expected: Partitioner) -> None:
    assert partitioner(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("idd", "'idd' is no partitioner"),
        ("iid:2", "'iid:2' is no partitioner; write iid,"),
        ("by-label", r"'by-label' is no partitioner; did you mean 'by_label'\? Write iid,"),
        ("by-size:2", "did you mean 'by_size'"),
        ("by_feature", "by_feature:column"),
        ("dirichlet:many", "'many' is not a number"),
        ("dirichlet:0", "alpha must be a finite number above 0, got 0.0"),
        ("dirichlet:nan", "alpha must be"),
        ("by_size:-1", "power must be a finite number of at least 0"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partitioner(spec)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"column='y' is not a column of all\.npz"):
        partition(rows(5), ByFeature("y"), 2)
