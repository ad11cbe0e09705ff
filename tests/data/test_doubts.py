"""What one node spells in two ways is asked about at once, and what is printed settles all of it."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, from_arrays, prepare
from localgd.data.table import Table


def written(folder: Path, **columns: Sequence[str]) -> Path:
    """Write a table of these columns, each as long as is needed for 120 rows, labels y and a number x."""
    rng = np.random.default_rng(0)
    frame = {name: [values[k % len(values)] for k in range(120)] for name, values in columns.items()}
    pl.DataFrame({"x": rng.standard_normal(120), **frame}).write_csv(folder / "a.csv")
    return folder / "a.csv"


def remedy(message: str) -> list[str]:
    """Return the flags that an error prints."""
    found = re.search(r"say what is meant: (--.*) takes each pair for one \(in Python", message)
    assert found, message
    return shlex.split(found[1])


def test_all_columns_are_asked_about_at_once_and_what_is_printed_settles_them(tmp_path: Path) -> None:
    wards = ["North", "north ", "NORTH", "St. John's", "ST. JOHN'S", "east", "East"]
    path = written(tmp_path, y=["No", "no", "YES", "Yes", "yes"], ward=wards, smoker=["0", "no", "1", "No", "2"])
    words = ("train", path, "--label", "y", "--C", "1", "--categorical", "smoker")
    done = localgd(*words)
    assert done.returncode == 2
    for said in (
        "label: a node has both 'No' and 'no', and both 'YES' and 'Yes', and both 'YES' and 'yes'",
        "column 'ward': a node has",
        "column 'smoker': a node has both 'No' and 'no'",
        "where a pair is two values, say that each means itself",
    ):
        assert said in done.stderr
    done = localgd(*words, *remedy(done.stderr))
    assert done.returncode == 0, done.stderr
    assert "classes No / YES" in done.stderr


def test_of_many_pairs_so_many_are_asked_about_as_anybody_reads(tmp_path: Path) -> None:
    wards = [word for k in range(25) for word in (f"Ward {k:02d}", f"ward {k:02d}")]
    path = written(tmp_path, y=["no", "No", "yes"], ward=wards)
    words, flags = ("train", path, "--label", "y", "--C", "1"), list[str]()
    for more in ("(and 6 more such pairs, asked about next)", ""):
        done = localgd(*words, *flags)
        assert done.returncode == 2
        assert more in done.stderr
        flags = remedy(done.stderr) if more else [*flags[:2], *remedy(done.stderr)]
    assert flags[1] == "no=No"
    done = localgd(*words, *flags)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("values", [["a, b", "A, B"], ["a=b", "A=b", "A=B"], ["x" * 100, "X" * 100]])
def test_what_no_flag_can_say_is_said_in_python(values: list[str]) -> None:
    frame = pl.DataFrame({"c": [*values, "z"] * 3})
    labels = np.arange(len(frame)) % 2
    with pytest.raises(ValueError, match="column 'c': a node has both") as refused:
        prepare(InProcess([Table("a", frame, labels)]))
    assert "no flag can say it" in str(refused.value)
    if values[0] == "a, b":
        assert "category_map={'c': {'a, b': 'A, B'}}" in str(refused.value)
    mapping = {value: min(values) for value in values if value != min(values)}
    recipe = prepare(InProcess([Table("a", frame, labels)]), category_map={"c": mapping})[1]
    assert recipe.columns[0].categories == (min(values), "z")


def test_the_spelling_met_most_often_is_the_one_to_keep() -> None:
    frame = pl.DataFrame({"c": ["NORTH", "North", "north", "north", "east", "east"]})
    with pytest.raises(ValueError, match=r"--category-map c:NORTH=north,North=north takes each pair for one"):
        prepare(InProcess([Table("a", frame, np.arange(6) % 2)]))


def test_pairs_of_other_nodes_are_asked_about_too() -> None:
    labels = ["no", "No", "yes", "yes", "yes", "YES", "no", "no"]
    tables = from_arrays(np.eye(8), labels, groups=["a"] * 4 + ["b"] * 4)
    with pytest.raises(
        ValueError, match=r"--label-map No=no,YES=yes takes each .*label_map=\{'No': 'no', 'YES': 'yes'\}"
    ):
        prepare(InProcess(tables))
    classes = prepare(InProcess(tables), label_map={"No": "no", "YES": "yes"})[1].classes
    assert classes == ("no", "yes")
