"""Loading real files: every layout, and every fault with its file, row and remedy."""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array, csr_matrix, issparse
from sklearn.datasets import dump_svmlight_file

from localgd.data.arrays import from_arrays
from localgd.data.load import load, load_unlabelled
from localgd.data.table import Table

A = "age,town,ill\n50,york,yes\n60,hull,no\n"
B = "age,town,ill\n40,york,no\n"


def write(folder: Path, **files: str | bytes) -> Path:
    """Write ``name__suffix`` files: the double underscore is a dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


def refused(source: Any, *parts: str, **options: Any) -> None:
    """Check that loading fails with a ValueError whose text has all parts, in this order."""
    with pytest.raises(ValueError, match=".*".join(re.escape(part) for part in parts)):
        load(source, **options)


def test_a_folder_of_csv_files(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")
    tables = load(write(tmp_path, b__csv=B, a__csv__gz=gzip.compress(A.encode()), README__md="notes"), label="ill")
    assert [(t.node_id, t.names) for t in tables] == [("a", ("age", "town")), ("b", ("age", "town"))]
    assert tables[0].features.to_dict(as_series=False) == {"age": [50.0, 60.0], "town": ["york", "hull"]}
    assert tables[0].labels.tolist() == ["yes", "no"]
    assert tables[0].place(1) == f"{tmp_path / 'a.csv.gz'}, row 3"


def test_columns_in_another_order_are_put_in_order(tmp_path: Path) -> None:
    tables = load(write(tmp_path, a__csv=A, b__csv="ill,town,age\nno,york,40\n"), label="ill")
    assert tables[1].names == ("age", "town")
    assert tables[1].features.row(0) == (40.0, "york")


def test_csv_and_parquet_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, a__csv=A)
    pl.DataFrame({"age": [40], "town": ["york"], "ill": ["no"]}).write_parquet(tmp_path / "b.parquet")
    tables = load(tmp_path, label="ill")
    assert tables[1].features.row(0) == (40.0, "york")
    assert tables[1].place(0) == f"{tmp_path / 'b.parquet'}, row 1"


def test_one_file_with_a_node_column(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("site,x,y\nq,1,0\np,2,1\nq,3,1\n")
    tables = load(path, label="y", node="site")
    assert [(t.node_id, t.n_rows, t.names) for t in tables] == [("p", 1, ("x",)), ("q", 2, ("x",))]
    assert tables[1].place(1) == f"{path} (node 'q'), row 4"
    assert tables[1].labels.dtype == np.int64


def test_one_file_without_a_node_column_is_one_node(tmp_path: Path) -> None:
    (table,) = load(write(tmp_path, a__csv=A) / "a.csv", label="ill", drop=["town"])
    assert (table.node_id, table.n_rows, table.names) == ("a", 2, ("age",))


def test_parquet_with_a_node_column(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    frame = pl.DataFrame({"site": [1, 2, 1], "x": [True, None, False], "z": ["u", None, "v"], "y": [True, False, True]})
    frame.write_parquet(path)
    tables = load(path, label="y", node="site")
    assert [t.node_id for t in tables] == ["1", "2"]
    assert tables[0].features.to_dict(as_series=False) == {"x": [1.0, 0.0], "z": ["u", "v"]}
    assert tables[1].features.to_dict(as_series=False) == {"x": [None], "z": [None]}
    assert tables[0].labels.tolist() == [True, True]


def test_missing_values_and_spellings(tmp_path: Path) -> None:
    text = 'n,flag,t,y\n1,True,"a, b",0\n,False,,1\nNA,,NA,0\n 2e1 ,TRUE," c ",1\n'
    (table,) = load(write(tmp_path, a__csv=text) / "a.csv", label="y")
    assert table.features.to_dict(as_series=False) == {
        "n": [1.0, None, None, 20.0],
        "flag": [1.0, 0.0, None, 1.0],
        "t": ["a, b", None, "NA", "c"],
    }


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (table,) = load(write(tmp_path, a__csv="\ufeffx,y\r\n1,0\r\n\r\n2,1\r\n") / "a.csv", label="y")
    assert table.names == ("x",)
    assert table.row_numbers is not None
    assert table.row_numbers.tolist() == [2, 4]


def test_dense_npz(tmp_path: Path) -> None:
    columns = np.array(["p", "q"])
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1], columns=columns)
    np.savez(tmp_path / "b.npz", X=2 * np.eye(2), y=[0, 1], columns=columns[::-1])
    tables = load(tmp_path)
    assert [t.names for t in tables] == [("p", "q")] * 2
    np.testing.assert_array_equal(tables[1].features, [[0, 2], [2, 0]])
    assert load(tmp_path, drop=["p"])[0].names == ("q",)


def test_sparse_npz_with_a_node_array(tmp_path: Path) -> None:
    X = csr_array(np.diag([1.0, 2.0, 3.0]))
    path = tmp_path / "all.npz"
    parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    np.savez(path, **parts, label=[0, 1, 1], site=[2, 1, 2])
    tables = load(path, label="label", node="site")
    assert [(t.node_id, t.n_rows) for t in tables] == [("1", 1), ("2", 2)]
    np.testing.assert_array_equal(tables[1].features.toarray(), [[1, 0, 0], [0, 0, 3]])


@pytest.mark.parametrize("zero_based", [False, True])
def test_svmlight_files_share_their_columns(tmp_path: Path, zero_based: bool) -> None:
    one, two = np.array([[1.0, 0, 0], [0, 2, 0]]), np.array([[3.0, 0, 4]])
    dump_svmlight_file(one, [0, 1], str(tmp_path / "a.svm"), zero_based=zero_based, comment="written by a test")
    dump_svmlight_file(two, [1], str(tmp_path / "b.libsvm"), zero_based=zero_based)
    tables = load(tmp_path)
    assert all(issparse(t.features) for t in tables)
    assert tables[0].names == (("x0", "x1", "x2") if zero_based else ("x1", "x2", "x3"))
    np.testing.assert_array_equal(tables[0].features.toarray(), one)
    np.testing.assert_array_equal(tables[1].features.toarray(), two)


def test_the_name_of_a_bundled_set() -> None:
    assert [t.node_id for t in load("heart")] == ["Cleveland", "Hungary", "Switzerland", "VA Long Beach"]
    refused("heart", "'heart' is bundled with its own columns", label="num")


def test_what_is_not_there() -> None:
    refused("mushrom", "'mushrom' is neither a folder, a file nor a bundled data set", "did you mean 'mushroom'?")
    refused("/no/such.csv", "Known are: mushroom, sentences, heart, bladder, golub")
    refused("", "source is empty; give a folder, a file or the name of a bundled data set")


def test_near_names_in_the_same_folder_are_offered(tmp_path: Path) -> None:
    write(tmp_path, patients__csv=A)
    refused(tmp_path / "patient.csv", f"did you mean {str(tmp_path / 'patients.csv')!r}?")


def test_arrays_are_sent_to_from_arrays() -> None:
    with pytest.raises(TypeError, match=r"source is of type tuple, not a path .* use localgd\.from_arrays\(X, y"):
        load((np.eye(2), [0, 1]))  # type: ignore[arg-type]


def test_label_and_node_columns(tmp_path: Path) -> None:
    path = write(tmp_path, a__csv=A) / "a.csv"
    refused(path, f"{path}: which column is the label? Give label (--label), one of: age, town, ill")
    refused(path, "label='il' is not a column of", "did you mean 'ill'?", label="il")
    refused(path, "node='twon' is not a column of", "did you mean 'town'?", label="ill", node="twon")
    refused(path, "drop='agee' is not a column of", "did you mean 'age'?", label="ill", drop=["agee"])
    refused(path, "no column is left", label="ill", drop=["age", "town"])
    refused(tmp_path, "is a folder, where each file is one node; leave node out", label="ill", node="town")


FAULTS: list[tuple[str, str | bytes, tuple[str, ...]]] = [
    (
        "text in a number column",
        "x,y\n1,0\n2,1\nabc,1\n",
        ("a.csv, row 4: column 'x' holds 'abc' but 2 of 3", "correct the value or leave it blank", "--categorical x"),
    ),
    ("infinite", "x,y\n1,0\n-inf,1\n", ("a.csv, row 3: column 'x' holds '-inf'", "correct it or leave it blank")),
    ("no label", "x,y\n1,0\n2,\n", ("a.csv, row 3: no label in column 'y'; fill it in",)),
    ("nothing", "", ("a.csv: the file is empty",)),
    ("header only", "x,y\n", ("a.csv: the file has no rows; add some, or remove it",)),
    ("header twice", "x,x,y\n1,2,0\n", ("a.csv, row 1: two columns are called 'x'; rename one",)),
    ("too many fields", "x,y\n1,0\n1,2,0\n", ("a.csv, row 3: 3 fields where the header has 2",)),
    ("cut short", "x,y\n1,0\n2,1\n3", ("a.csv, row 4: 1 fields where the header has 2; the row is cut short",)),
    ("not UTF-8", b"x,y\n1,0\n\xe9,1\n", ("a.csv, row 3: byte 0xe9 is not UTF-8; save the file with UTF-8",)),
    ("binary", b"\x00\x01\xff\xfe" * 9, ("a.csv, row 1: byte 0xff is not UTF-8",)),
]


@pytest.mark.parametrize(("content", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_faults_in_a_csv_file(tmp_path: Path, content: str | bytes, message: tuple[str, ...]) -> None:
    refused(write(tmp_path, a__csv=content) / "a.csv", *message, label="y")


def test_a_declared_category_may_look_like_a_number(tmp_path: Path) -> None:
    path = write(tmp_path, a__csv="x,y\n1,0\n2,1\nabc,1\n") / "a.csv"
    assert load(path, label="y", categorical=["x"])[0].features["x"].to_list() == ["1", "2", "abc"]


def test_a_row_without_a_node(tmp_path: Path) -> None:
    path = write(tmp_path, a__csv="s,x,y\np,1,0\n,2,1\n") / "a.csv"
    refused(path, f"{path}, row 3: no node in column 's'; fill it in", label="y", node="s")


def test_truncated_files_of_every_kind(tmp_path: Path) -> None:
    write(tmp_path, a__csv__gz=gzip.compress((A * 99).encode()))
    pl.DataFrame({"x": range(99), "y": [0] * 99}).write_parquet(tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", X=np.eye(9), y=np.arange(9))
    with gzip.open(tmp_path / "a.svm.gz", "wt") as file:
        file.write("1 1:2\n" * 99)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for length in (len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:length])
            refused(path, f"{path}: cannot be read", "cut short, damaged or of another format", label="y")


def test_garbage_in_the_middle_of_a_gzip(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress("".join(f"{i},{i * i}\n" for i in range(999)).encode()))
    raw[len(raw) // 2] ^= 0xFF
    refused(write(tmp_path, a__csv__gz=bytes(raw)) / "a.csv.gz", "a.csv.gz: cannot be read", label="y")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "a.npz", X=np.array([[Trap()]], dtype=object), y=np.zeros(1))
    refused(tmp_path / "a.npz", "a.npz: holds pickled Python objects", "save plain arrays with numpy.savez")
    assert not (tmp_path / "sprung").exists()


def test_faults_in_an_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, Z=np.eye(2), y=[0, 1])
    refused(path, "a.npz: no array 'X' among ['Z', 'y']")
    np.savez(path, X=np.eye(2))
    refused(path, "a.npz: no label array 'y'")
    refused(path, "a.npz: no array 'site' among ['X']", node="site")
    np.savez(path, X=np.array([[1.0, 2.0], [3.0, np.nan]]), y=[0, 1])
    refused(path, "a.npz, row 2: column 'x1' holds nan; impute the value or remove the row")
    np.savez(path, X=np.eye(2), y=[0, 1, 1])
    refused(path, "a.npz: 2 rows but labels of shape (3,)")
    np.savez(path, X=np.zeros((0, 2)), y=[])
    refused(path, "a.npz: node 'a' has no rows")
    np.savez(path, X=np.array([["u"]]), y=[0])
    refused(path, "a.npz: X must be an array of real numbers")
    np.savez(path, X=np.eye(2), y=[0, 1], columns=["p"])
    refused(path, "a.npz: 2 columns need as many distinct names, got 1")
    np.savez(path, X=np.eye(2), y=[0, 1], columns=["p", "p"])
    refused(path, "a.npz: 2 columns need as many distinct names, two are called 'p'; name each once")
    np.savez(path, X=np.eye(2), y=[0, np.nan])
    refused(path, "a.npz, row 2: the label is nan; fill it in or remove the row")
    np.savez(path, X=np.eye(2), y=[0, 1])
    refused(path, "a.npz: no array 'z' among ['X', 'y']; add it, or say which one is the label", label="z")
    np.savez(path, data=[1.0], indices=[9], indptr=[0, 1], shape=[1, 2], y=[0])
    refused(path, "a.npz: data, indices, indptr and shape are no CSR matrix")
    with path.open("wb") as file:
        np.save(file, np.eye(2))
    refused(path, "a.npz: holds one array, not named ones")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 1:2\n0 1:nan\n", "a.svm, row 2: column 'x1' holds nan"),
        ("# title\n1 1:2\n0 1:two\n", "a.svm, row 3: '1:two' is not label or index:value"),
        ("1 1:2\nyes 1:2\n", "a.svm, row 2: 'yes' is not label or index:value"),
        ("1 1:2\nnan 1:2\n", "a.svm, row 2: 'nan' is not label or index:value"),
        ("1 -1:2\n", "a.svm, row 1: a negative column index"),
        ("# title\n", "a.svm: the file is empty"),
    ],
)
def test_faults_in_an_svmlight_file(tmp_path: Path, content: str, message: str) -> None:
    refused(write(tmp_path, a__svm=content) / "a.svm", message)


def test_columns_that_differ_name_both_nodes(tmp_path: Path) -> None:
    write(tmp_path, a__csv=A, b__csv="age,city,ill\n40,york,no\n")
    refused(
        tmp_path,
        "the columns of",
        "a.csv and",
        "b.csv differ: only",
        "(node 'a') has 'town'; only",
        "(node 'b') has 'city'; give every node the same columns",
        label="ill",
    )


def test_arrays_that_differ_name_both_nodes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1])
    np.savez(tmp_path / "b.npz", X=np.eye(3), y=[0, 1, 1])
    refused(tmp_path, "a.npz and", "b.npz differ: only", "(node 'b') has 'x2'")
    dump_svmlight_file(np.eye(2), [0, 1], str(tmp_path / "b.svm"), zero_based=True)
    (tmp_path / "b.npz").unlink()
    refused(tmp_path, "a.npz is dense but", "b.svm is sparse; store all nodes alike")


def test_numbers_at_one_node_and_text_at_another(tmp_path: Path) -> None:
    write(tmp_path, a__csv="x,y\n1,0\n2,1\n", b__csv="x,y\nlow,0\nhigh,1\n")
    parts = ("column 'x' holds numbers in", "a.csv (node 'a') but text in", "b.csv (node 'b'); code it alike")
    refused(tmp_path, *parts, label="y")
    assert load(tmp_path, label="y", categorical=["x"])[0].features["x"].to_list() == ["1", "2"]


def test_types_in_parquet_files_must_agree_too(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1.0], "y": [0]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"x": ["1.0"], "y": [1]}).write_parquet(tmp_path / "b.parquet")
    refused(tmp_path, "column 'x' holds numbers in", "a.parquet (node 'a') but text in", "b.parquet", label="y")
    pl.DataFrame({"x": [[1.0]], "y": [1]}).write_parquet(tmp_path / "a.parquet")
    refused(tmp_path, "a.parquet: column 'x' holds List(Float64); turn it into numbers or text, or drop it", label="y")


def test_a_node_with_few_values_follows_the_others(tmp_path: Path) -> None:
    """A street column holds the number 7 at a node of one row; a column may be blank at a node."""
    many = "street,n,y\n" + "".join(f"lane {i},{i},{i % 2}\n" for i in range(30))
    tables = load(write(tmp_path, a__csv=many, b__csv="street,n,y\n7,,0\n"), label="y")
    assert tables[1].features.row(0) == ("7", None)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    refused(write(tmp_path / "empty"), "empty: no node files; put one file per node there")
    refused(write(tmp_path / "odd", a__csv=A, b__dat="?"), "b.dat: unknown kind of file", label="ill")
    refused(tmp_path / "odd" / "b.dat", "b.dat: unknown kind of file")
    only = write(tmp_path / "only", b__xlsx="?", notes__md="?")
    refused(only, "only: no node files, only b.xlsx, notes.md; put one file per node there, ending in .csv")
    refused(write(tmp_path / "same", a__csv=A, a__parquet=B), "name the same node 'a'; rename one", label="ill")
    mixed = write(tmp_path / "mixed", a__csv=A, b__svm="1 1:2\n")
    refused(mixed, "a.csv is a table with named columns but", "b.svm holds arrays", label="ill")
    svm = write(tmp_path / "svm", b__svm="1 1:2\n")
    refused(svm / "b.svm", "b.svm has no node column", node="site")
    refused(svm, "categorical=['x1']", categorical=["x1"])
    refused(svm, "label='ill'", "b.svm has no names for columns", "leave label out", label="ill")
    assert load(svm, label="y")[0].labels.tolist() == [1]


def test_what_lies_beside_the_nodes_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, a__csv=A, report__xlsx="?", README__md="?", figure__png="?", __hidden="?")
    write(tmp_path / "RUN", b__csv=B)
    assert [table.node_id for table in load(tmp_path, label="ill")] == ["a"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_frames_from_pandas_and_polars_agree(missing: Any) -> None:
    data = {"n": [1.0, None, 3.0], "i": [1, 2, 3], "b": [True, False, True], "t": ["u", None, "w"]}
    pandas = pd.DataFrame({**data, "t": ["u", missing, "w"]})
    pandas["c"] = pd.Categorical(["p", "q", "p"])
    frame = pl.DataFrame({**data, "c": ["p", "q", "p"]})
    one = from_arrays(pandas, pd.Series(["a", "b", "a"]), pd.Series([1, 2, 1]))
    two = from_arrays(frame, pl.Series(["a", "b", "a"]), [1, 2, 1])
    assert [t.node_id for t in one] == [t.node_id for t in two] == ["1", "2"]
    for a, b in zip(one, two, strict=True):
        assert a.features.equals(b.features)
        assert a.labels.tolist() == b.labels.tolist()


def test_arrays_stay_as_they_were() -> None:
    X = csr_matrix((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    (table,) = from_arrays(X, [1])
    assert X.indices.tolist() == [1, 0]
    np.testing.assert_array_equal(table.features.toarray(), [[2.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(2), [0]), r"y has shape \(1,\) for 2 rows"),
        ((np.eye(2), [0, np.nan]), "the arrays given, row 2: missing entry in y"),
        ((np.eye(2), [0, 1], ["a", None]), "groups has no value in the arrays given, row 2; say which node"),
        ((np.ones(2), [0, 1]), r"X must have rows and columns, got shape \(2,\)"),
        ((np.eye(2), [0, 1], ["a", np.nan]), "groups has no value in the arrays given, row 2; say which node"),
        ((np.eye(2), [0, 1], ["a", " "]), "groups has no value in the arrays given, row 2; say which node"),
        ((np.eye(2), [0, 1], ["a", pd.NA]), "groups has no value in the arrays given, row 2; say which node"),
        ((np.eye(2), [0, 1], 7), r"groups has shape \(\) for 2 rows; give one entry per row"),
        ((pd.DataFrame(np.eye(2), columns=["a", "a"]), [0, 1]), "two columns are called 'a'; rename one"),
        ((pl.DataFrame({"d": ["2020-01-31", "2020-02-01"]}), [0, 1]), "row 1: column 'd' holds '2020-01-31', and most"),
        ((csr_array(np.diag([1, np.inf])), [0, 1]), "the arrays given, row 2: column 'x1' holds inf"),
        ((np.array([["a"]]), [0]), "the arrays given: X must be an array of real numbers"),
    ],
)
def test_faults_in_arrays(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(*arguments)


def test_tables_cannot_be_changed_by_accident() -> None:
    table = Table("a", np.eye(2), np.array([0, 1]))
    for array in (table.features, table.labels, table.row_numbers):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5  # type: ignore[index]


def test_rows_to_predict_on(tmp_path: Path) -> None:
    path = write(tmp_path, a__csv="age,town\n50,york\n") / "a.csv"
    table = load_unlabelled(path)
    assert (table.names, table.labels.size, table.place(0)) == (("age", "town"), 0, f"{path}, row 2")
    with pytest.raises(ValueError, match="not a file that can be read"):
        load_unlabelled(tmp_path)
