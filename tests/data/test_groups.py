"""Which node holds a row: one rule for `from_arrays`, the classifier and the regressor."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score

from localgd import LocalGDClassifier, LocalGDClassifierCV, LocalGDRegressor, from_arrays
from localgd.data.groups import node_names
from localgd.data.table import Table

X, Y = np.random.default_rng(0).standard_normal((12, 2)), np.arange(12) % 2

FITS: dict[str, Callable[[Any], Any]] = {
    "from_arrays": lambda groups: from_arrays(X, Y, groups),
    "classifier": lambda groups: LocalGDClassifier("local-gd", n_rounds=2).fit(X, Y, groups=groups),
    "classifier CV": lambda groups: LocalGDClassifierCV(Cs=2, cv=2).fit(X, Y, groups=groups),
    "regressor": lambda groups: LocalGDRegressor().fit(X, Y, groups=groups),
}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a"] * 11 + [np.nan], "no value"),
        (["a"] * 11 + [None], "no value"),
        (["a"] * 11 + [pd.NA], "no value"),
        (["a"] * 11 + [" "], "no value"),
        (np.array(["a"] * 11 + [np.nan]), "no value"),
        (np.array([1.0] * 11 + [np.nan]), "no value"),
        (pd.Series(["a"] * 11 + [pd.NA], dtype="string"), "no value"),
        (pd.Series([1] * 11 + [pd.NA], dtype="Int64"), "no value"),
        (pd.Categorical(["a"] * 11 + [None]), "no value"),
        (pl.Series(["a"] * 11 + [None], dtype=pl.Categorical), "no value"),
        (["a"] * 11 + [1], "holds 1, a number,"),
        ([1] * 11 + [True], "holds True, a truth value,"),
        (np.array(["a"] * 11 + [1], dtype=object), "holds 1, a number,"),
        ([1.0] * 11 + [np.inf], "holds inf"),
        ([b"a"] * 12, "name nodes by texts or finite numbers"),
        ([[1]] * 11 + [[2, 3]], "name nodes by texts or finite numbers"),
        (["a"] * 11, "has shape"),
    ],
    ids=repr,
)
def test_a_row_whose_node_nobody_can_know_is_refused_by_row_everywhere(fit: str, groups: Any, said: str) -> None:
    row = "" if said in {"has shape", "name nodes by texts or finite numbers"} else r".*row 1[12]"
    with pytest.raises(ValueError, match=rf"groups (holds|has)?.*{said}{row}"):
        FITS[fit](groups)


KINDS = (list, tuple, np.array, pd.Series, pd.Categorical, pd.Index, pl.Series)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", [*KINDS, lambda values: pl.Series(values, dtype=pl.Categorical)])
def test_groups_of_any_kind_of_column_are_the_same_nodes(fit: str, kind: Any) -> None:
    FITS[fit](kind(["b", "a", "c"] * 4))
    assert node_names(kind(["b", "a", " c"] * 4), 12).tolist() == ["b", "a", "c"] * 4


def test_numbers_name_the_same_nodes_as_whole_or_broken_ones() -> None:
    assert node_names([1, 2], 2).tolist() == node_names(np.array([1.0, 2.0]), 2).tolist() == ["1", "2"]
    assert node_names([True, False], 2).tolist() == ["true", "false"]


@pytest.mark.parametrize("estimator", [LocalGDClassifier("local-gd", nodes="groups"), LocalGDRegressor(nodes="groups")])
def test_an_estimator_that_asks_for_groups_does_not_fit_without(estimator: Any) -> None:
    for copy in (estimator, clone(estimator), clone(clone(estimator))):
        with pytest.raises(ValueError, match=r"nodes='groups', but fit got no groups.*set_fit_request\(groups=True\)"):
            copy.fit(X, Y)
        copy.fit(X, Y, groups=Y)
    with pytest.raises(ValueError, match="nodes must be None or 'groups', got 'rows'"):
        clone(estimator).set_params(nodes="rows").fit(X, Y, groups=Y)


def test_a_search_that_loses_groups_is_an_error_and_one_that_is_asked_hands_them_on() -> None:
    rng = np.random.default_rng(0)
    rows, sites = rng.standard_normal((60, 3)), np.arange(60) % 4
    labels = (rows[:, 0] + rng.standard_normal(60) > 0).astype(int)
    clf = LocalGDClassifier("local-gd", n_rounds=3, nodes="groups")
    search = {"param_grid": {"local_steps": [1, 10]}, "cv": GroupKFold(4)}
    with pytest.raises(ValueError, match="fit got no groups"):
        GridSearchCV(clf, error_score="raise", **search).fit(rows, labels, groups=sites)
    with pytest.raises(ValueError, match="fit got no groups"):
        cross_val_score(clf, rows, labels, groups=sites, cv=GroupKFold(4), error_score="raise")
    with sklearn.config_context(enable_metadata_routing=True):
        found = GridSearchCV(clf.set_fit_request(groups=True), **search).fit(rows, labels, groups=sites)
    assert found.best_estimator_.history_[0]["n_nodes"] == 4


def test_rows_without_weight_still_say_their_node() -> None:
    weights = np.r_[np.ones(11), 0.0]
    weighted = LocalGDRegressor().fit(X, Y, groups=np.arange(12) % 3, sample_weight=weights)
    np.testing.assert_allclose(weighted.coef_, Ridge().fit(X[:11], Y[:11]).coef_)
    with pytest.raises(ValueError, match="no value in row 11"):
        LocalGDRegressor().fit(X, Y, groups=[1] * 11 + [None], sample_weight=weights)


def test_many_nodes_are_split_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is looked at once: together the parts take as many rows as there are."""
    taken = []
    take = Table.take
    monkeypatch.setattr(
        Table, "take", lambda self, index, node=None: taken.append(len(index)) or take(self, index, node)
    )
    n = 3000
    tables = from_arrays(np.ones((n, 1)), np.arange(n) % 2, np.arange(n)[::-1])
    assert sum(taken) == n
    assert [table.node_id for table in tables[:3]] == ["0", "1", "10"]
    assert tables[0].place(0) == "the arrays given (node '0'), row 3000"
