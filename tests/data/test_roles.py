"""A column has one role: the label, the node, the weight, dropped, a date, a text or a category."""

from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from command import localgd
from localgd import load

SINGLE = ("label", "node", "weight")
OF_LOAD = (*SINGLE, "drop", "dates", "categorical")
FLAGS: dict[str, tuple[str, str]] = {name: ("--" + name, "age") for name in (*OF_LOAD, "text")}
FLAGS |= {"category-map": ("--category-map", "age:1=2")}
ALIKE = ("categorical", "category-map")
"""Both say that it is a category."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    numbers = list(range(40))
    columns = {"age": numbers, "x": numbers[::-1], "ill": [0, 1] * 20, "site": ["a"] * 20 + ["b"] * 20}
    pl.DataFrame(columns).write_csv(tmp_path / "ages.csv")
    return tmp_path / "ages.csv"


@pytest.mark.parametrize("pair", [*combinations(OF_LOAD, 2)], ids="-".join)
def test_two_roles_of_one_column_are_refused(pair: tuple[str, str], table: Path) -> None:
    said: dict[str, Any] = {"label": "ill"} | {role: "age" if role in SINGLE else ["age"] for role in pair}
    with pytest.raises(ValueError, match=r"column 'age' is said to be .* and .*; keep one of them") as refused:
        load(table, **said)
    assert all(f"(--{role})" in str(refused.value) for role in pair)


@pytest.mark.parametrize("pair", [pair for pair in combinations(FLAGS, 2) if pair != ALIKE], ids="-".join)
def test_so_are_two_flags(pair: tuple[str, str], table: Path) -> None:
    words = [word for role in pair for word in FLAGS[role]]
    done = localgd("train", table, *(() if "label" in pair else ("--label", "ill")), *words)
    assert done.returncode == 2, done.stderr
    assert "error: column 'age' is said to be" in done.stderr
    assert all(f"(--{role})" in done.stderr for role in pair)


def test_what_a_run_was_told_of_a_column_gives_way_to_what_is_said_now(table: Path, tmp_path: Path) -> None:
    trained = localgd("train", table, "--label", "ill", "--drop", "site", "--C", "1", "--out", tmp_path / "RUN")
    assert trained.returncode == 0, trained.stderr
    done = localgd("evaluate", tmp_path / "RUN", table, "--node", "site", "--json")
    assert done.returncode == 0, done.stderr
    assert "'a'" not in done.stderr
