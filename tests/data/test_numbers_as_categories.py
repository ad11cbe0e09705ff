"""Numbers that are taken for categories are said, and what is said of them makes them numbers."""

from __future__ import annotations

import re
import shlex

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, from_arrays, prepare

ROWS = 200


def summary(values, **how):
    frame = pl.DataFrame({"age": values})
    return prepare(InProcess(from_arrays(frame, [0, 1] * (len(values) // 2))), **how)[1].summary


def ages(form: str = "{}", n: int = 40) -> list[str]:
    return [form.format(20 + place % n) for place in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (ages(), "40 of 40 .* are numbers, and each counts by itself; to have numbers, store them as numbers"),
        (ages("{} Jahre"), "with a unit like '20 Jahre', .* take the unit out of the values"),
        ([*ages("{} Jahre")[2:], "1 Jahr", "2"], "42 of 42 categories are numbers, with a unit"),
        (ages("{},5 mg"), "with a unit like '20,5 mg'"),
        (
            [*ages()[2:], "k.A.", "k.A."],
            r"40 of 41 .* if 'k.A.' stands for a missing value, say so with missing_values",
        ),
    ],
)
def test_many_numbers_are_said_with_what_mends_it(values, why):
    assert re.search(f"column 'age': .*{why}", summary(values))


@pytest.mark.parametrize(
    "values",
    [
        ages(n=9),  # few numbers may well be codes
        [f"{place % 50:03}" for place in range(ROWS)],
        [f"{place % 50}{'ab'[place % 2]}" for place in range(ROWS)],  # house numbers
        [f"{place % 12}-{place % 12 + 1}" for place in range(ROWS)],
        [f"ward {place % 12}" if place % 3 else f"{place % 12}" for place in range(ROWS)],
    ],
    ids=["few", "codes", "letters", "ranges", "words"],
)
def test_codes_and_words_are_no_numbers(values):
    assert "categories are numbers" not in summary(values)


def test_a_column_that_was_declared_is_meant_so_unless_it_is_one_by_its_map(tmp_path):
    said = "categories are numbers"
    assert said not in summary(ages(), categorical=["age"])
    assert said in summary(ages(), categorical=["age"], category_map={"age": {"21": "22"}})
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"age": ages(), "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)})
    frame.write_csv(tmp_path / "a.csv")
    train = ("train", tmp_path / "a.csv", "--label", "y", "--C", "1")
    mapped = localgd(*train, "--category-map", "age:21=22")
    assert "39 of 39 categories are numbers" in mapped.stderr
    assert "to have numbers, leave --category-map age:… out and correct the values" in mapped.stderr
    assert said not in localgd(*train, "--categorical", "age").stderr
    assert said not in localgd(*train).stderr


def test_the_flag_that_is_printed_makes_them_numbers(tmp_path):
    rng = np.random.default_rng(0)
    values = [value if place % 3 else "k.A." for place, value in enumerate(ages())]
    values[1::3] = ["k.A."] * len(values[1::3])
    pl.DataFrame({"age": values, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}).write_csv(
        tmp_path / "a.csv"
    )
    train = ("train", tmp_path / "a.csv", "--label", "y", "--C", "1")
    said = localgd(*train).stderr
    assert "40 of 41 categories are numbers" in said
    flags = shlex.split(re.search(r"\((--missing-values [^)]*)\)", said)[1])
    assert "from 2 numbers" in localgd(*train, *flags).stderr
