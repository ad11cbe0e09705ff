"""What people write into tables: other separators and line ends, local numbers, dates, marks for what is missing."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from localgd.data.arrays import from_arrays
from localgd.data.load import load, load_unlabelled
from localgd.data.prepare import prepare
from localgd.engine.inprocess import InProcess


def csv(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def column(folder: Path, values: list[str], **options: Any) -> list[Any]:
    """The column x of a CSV file, quoted where needed, as it is loaded."""
    rows = "".join(f'"{value}",{i % 2}\n' for i, value in enumerate(values))
    return load(csv(folder, "x,y\n" + rows), label="y", **options)[0].features["x"].to_list()


@pytest.mark.parametrize("values", ["12,5 13,25 8,0", "12% 15% 7.5%", "1'234 999 12'345", "€5 $7 8€", "1.234,5 2 3,5"])
def test_numbers_in_a_local_style_are_not_taken_for_categories(tmp_path: Path, values: str) -> None:
    given = values.split()
    with pytest.raises(
        ValueError, match=r"a\.csv, row 2: column 'x' holds .*numbers, this one in a local style; write .*point"
    ):
        column(tmp_path, given)
    assert column(tmp_path, given, categorical=["x"]) == given


@pytest.mark.parametrize(
    "given", [["1 234", "1 300", "12"], ["1\u202f234", "2\u00a0345"], ["\u22125", "\u22126,5"], ["7", "8,5"]]
)
def test_spaces_and_typographic_signs_in_numbers(tmp_path: Path, given: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--drop x\), or declare it with categorical=\['x'\] \(--categorical x\)"):
        column(tmp_path, given)


@pytest.mark.parametrize(
    "given",
    [
        ["2020-01-31", "2020-02-01", "?"],
        ["31.01.2020", "1.2.21"],
        ["1/2/2020 10:30", "3/4/2021 11:00"],
        ["2020-01-31T10:30:00Z", "2020-01-31T10:30:01Z"],
        ["3 March 2020", "4 Apr 2020"],
        ["Mar 3, 2020", "April 4, 2020"],
    ],
    ids=lambda given: given[0],
)
def test_dates_are_not_taken_for_categories(tmp_path: Path, given: list[str]) -> None:
    with pytest.raises(ValueError, match=r"row 2: column 'x' holds .* look like dates; take them as days since 1970"):
        column(tmp_path, given)
    assert column(tmp_path, given, categorical=["x"]) == given


@pytest.mark.parametrize(
    "given",
    [["10.0.0.1", "1.2.3"], ["10-20", "20-30"], ["+44 20 7946", "x"], ["a1", "b2", "12,5"], ["SEPT2", "MARCH1"]],
)
def test_categories_with_digits_stay_categories(tmp_path: Path, given: list[str]) -> None:
    assert column(tmp_path, given) == given


def test_typed_text_is_looked_at_too(tmp_path: Path) -> None:
    pl.DataFrame({"x": ["12,5", "13,0"], "y": [0, 1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 1: column 'x' holds '12,5'"):
        load(tmp_path / "a.parquet", label="y")
    frame = pl.DataFrame({"x": ["12,5", "13,0"]})
    assert from_arrays(frame, [0, 1], categorical=["x"])[0].features["x"].to_list() == ["12,5", "13,0"]


@pytest.mark.parametrize("mark", ["NA", "n/a", "N/A", "nan", "NaN", "null", "NULL", "None", "?", "-", "", " "])
def test_marks_for_a_missing_number(tmp_path: Path, mark: str) -> None:
    assert column(tmp_path, ["1", mark, "2.5"]) == [1.0, None, 2.5]


BIG = ["9007199254740993", "9007199254740992"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (BIG, (9007199254740992, 9007199254740993)),
        (["-1", "+1.0"], (-1, 1)),
        (["123456789012345678901", "123456789012345678902"], (123456789012345678901, 123456789012345678902)),
        (["0.5", "9007199254740993"], (0.5, 9007199254740993)),
        (["007a", "1e3"], ("007a", "1e3")),
    ],
)
def test_labels_keep_their_digits(tmp_path: Path, labels: list[str], classes: tuple[Any, ...]) -> None:
    path = csv(tmp_path, "x,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    engine, recipe = prepare(InProcess(load(path, label="y")))
    assert recipe.classes == classes
    assert [type(value) for value in recipe.classes] == [type(value) for value in classes]
    np.testing.assert_array_equal(np.sort(engine.shards["a"].rows[:, -1]), [-1, 1])


@pytest.mark.parametrize("kind", ["csv", "svm", "parquet", "arrays", "objects"])
def test_three_classes_are_never_merged_to_two(tmp_path: Path, kind: str) -> None:
    labels = [*BIG, "1.5" if kind == "arrays" else "1"]
    if kind == "csv":
        tables = load(csv(tmp_path, "x,y\n" + "".join(f"1,{label}\n" for label in labels)), label="y")
    elif kind == "svm":
        tables = load(csv(tmp_path, "".join(f"{label} 1:1\n" for label in labels), "a.svm"))
    elif kind == "parquet":
        pl.DataFrame({"x": [1, 2, 3], "y": [int(v) for v in labels]}).write_parquet(tmp_path / "a.parquet")
        tables = load(tmp_path / "a.parquet", label="y")
    else:
        tables = from_arrays(np.eye(3), [float(v) if "." in v else int(v) for v in labels])
    engine, recipe = prepare(InProcess(tables))
    assert recipe.classes == (1.5 if kind == "arrays" else 1, 9007199254740992, 9007199254740993)
    assert next(iter(engine.shards.values())).rows.shape[0] == 6


def test_one_class_is_said_in_plain_words() -> None:
    with pytest.raises(ValueError, match="all 2 rows of all nodes are 1; two classes"):
        prepare(InProcess(from_arrays(np.eye(2), [np.float64(1), np.float64(1)])))


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_line_ends_and_separators(tmp_path: Path, separator: str, end: str) -> None:
    text = '"weight, kg"|town|y\n1|a|0\n2|"b|c, d"|1\n\n3||1\n'
    path = csv(tmp_path, text.replace("|", separator).replace("\n", end))
    (table,) = load(path, label="y")
    assert table.features["weight, kg"].to_list() == [1.0, 2.0, 3.0]
    assert table.features["town"].to_list() == ["a", f"b{separator}c, d", None]
    assert table.place(2) == f"{path}, row 5"
    assert load_unlabelled(path).n_rows == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x;y\n1,5;0\n2,5;1\n", r"row 2: column 'x' holds '1,5', .* write numbers with a point"),
        ("x;y\n1;0\n2;1;1\n", r"row 3: 3 fields where the header has 2; .* or a semicolon in a text lacks its quotes"),
        ("x;y\tz\n1;0\t1\n", r"row 1: both semicolons and tabs; separate the columns by commas"),
        ("x,x\r1,0\r", r"row 1: two columns are called 'x'; rename one"),
        ("x,y\r1,0\rinf,1\r", r"row 3: column 'x' holds 'inf'"),
        ('x,y\n"' + "a" * 200_000 + '",1,1\n', r"cannot be read \(Error: field larger than field limit"),
    ],
)
def test_faults_are_named_whatever_the_separator(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"a\.csv(, |: )" + message):
        load(csv(tmp_path, text), label="y")


def test_bytes_that_are_not_utf8_are_found_in_files_with_old_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,y\r1,0\r\xe9,1\r")
    with pytest.raises(ValueError, match=r"a\.csv, row 3: byte 0xe9 is not UTF-8"):
        load(tmp_path / "a.csv", label="y")
    (tmp_path / "a.svm").write_bytes(b"1 1:2\r0 1:1\r1 1:\xe9\r")
    with pytest.raises(ValueError, match=r"a\.svm, row 3: byte 0xe9 is not UTF-8"):
        load(tmp_path / "a.svm")


def test_svmlight_files_are_read_line_by_line_whatever_ends_a_line_zipped_or_not(tmp_path: Path) -> None:
    rows = b"\xef\xbb\xbf1 1:2 # a word\n\n0 2:0.5\n1 1:1"
    for name, content in {
        "unix.svm": rows,
        "windows.svm": rows.replace(b"\n", b"\r\n"),
        "old.svm": rows.replace(b"\n", b"\r"),
        "zipped.svm.gz": gzip.compress(rows),
    }.items():
        (tmp_path / name).write_bytes(content)
        [table] = load(tmp_path / name)
        assert table.features.toarray().tolist() == [[2.0, 0.0], [0.0, 0.5], [1.0, 0.0]]
        assert (table.labels.tolist(), table.place(1)) == ([1, 0, 1], f"{tmp_path / name}, row 3")
    (tmp_path / "zipped.svm.gz").write_bytes(gzip.compress(rows)[:-9])
    with pytest.raises(ValueError, match=r"zipped\.svm\.gz: cannot be read \(EOFError"):
        load(tmp_path / "zipped.svm.gz")
