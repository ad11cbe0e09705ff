"""Files: one value in two spellings, row numbers, gaps, formats, and slips that would eat all memory."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from localgd import InProcess, from_arrays, load, prepare
from localgd.data.load import load_unlabelled


def features(path, *, declared=(), **options):
    """Names of the columns that come out of files."""
    return prepare(InProcess(load(path, label="y", **options)), categorical=declared)[1].feature_names


def write_sites(folder, **sites):
    for name, columns in sites.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)


def categories(names, column):
    return [name for name in names if name.startswith(f"{column}=") and name != f"{column}=?"]


@pytest.mark.parametrize("gap", [True, False], ids=["gaps", "no gaps"])
def test_a_code_that_pandas_turned_to_float_at_one_site_is_the_same_code(tmp_path, gap):
    """fedbiomed#849, pandas#20693: 1, 2, 3 at one site, and 1.0, 2.0, 3.0 at another where values are missing."""
    rng = np.random.default_rng(0)
    y = ["ill", "well"] * 50
    whole = rng.integers(1, 4, 100)
    broken = rng.integers(1, 4, 100).astype(float)
    if gap:
        broken[::17] = np.nan
    write_sites(tmp_path, a={"stage": whole, "y": y}, b={"stage": broken, "y": y})
    assert len(categories(features(tmp_path, categorical=["stage"]), "stage")) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["1", "2", "north", "south"], ["1.0", "2.0", "north", "south"]),
        (["10", "20", "north", "south"], ["10.00", "20.00", "north", "south"]),
        (["café", "bar", "inn", "pub"], ["cafe\u0301", "bar", "inn", "pub"]),
    ],
    ids=["floats", "zeros", "Unicode forms"],
)
def test_values_among_words_that_mean_the_same_are_one_category(tmp_path, one, other):
    """fedbiomed#849: nobody declares a column of words to be categories."""
    y = [0, 1] * 20
    write_sites(tmp_path, a={"ward": one * 10, "y": y}, b={"ward": other * 10, "y": y})
    assert len(categories(features(tmp_path), "ward")) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["yes", "no"], ["Yes", "No"]),
        (["TRUE", "FALSE"], ["true", "false"]),
        (["1", "0"], ["TRUE", "FALSE"]),
        (["malade", "guéri"], ["malade", "gue\u0301ri"]),
        ([1, 0], [1.0, 0.0]),
    ],
    ids=["capitals", "booleans", "numbers", "Unicode forms", "floats"],
)
def test_labels_that_mean_the_same_are_one_class(tmp_path, one, other):
    """fedbiomed#849, for labels."""
    x = np.random.default_rng(0).normal(size=40)
    write_sites(tmp_path, a={"x": x, "y": one * 20}, b={"x": x, "y": other * 20})
    assert len(prepare(InProcess(load(tmp_path, label="y")))[1].classes) == 2


@pytest.mark.parametrize("values", [["01", "1"], [2**53, 2**53 + 1]], ids=["leading zero", "beyond 2^53"])
def test_codes_that_are_declared_to_prepare_stay_apart(tmp_path, values):
    """pandas#20693, the other way about: two codes of one number are two codes."""
    x = np.random.default_rng(0).normal(size=40)
    write_sites(tmp_path, a={"code": values * 20, "x": x, "y": [0, 1] * 20})
    assert len(categories(features(tmp_path, declared=["code"]), "code")) == 2


@pytest.mark.parametrize("values", [["01", "1"], [2**53, 2**53 + 1]], ids=["leading zero", "beyond 2^53"])
def test_codes_that_are_declared_to_load_stay_apart(tmp_path, values):
    """pandas#20693."""
    write_sites(tmp_path, a={"code": values * 20, "y": [0, 1] * 20})
    assert len(categories(features(tmp_path, categorical=["code"]), "code")) == 2


@pytest.mark.parametrize("name", ["__index_level_0__", "", "Unnamed: 0"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_index_of_a_table_is_no_feature(tmp_path, kind, name):
    """pola-rs/polars#7291, pandas#51664, milvus#33197: labels are sorted, so the row number alone tells them."""
    rng = np.random.default_rng(0)
    x, y, site = rng.normal(size=60), np.sort(rng.random(60) < 0.5).astype(int), rng.integers(0, 3, 60)
    frame = pl.DataFrame({name: np.arange(60), "x": x, "y": y})
    for number in range(3):
        part, path = frame.filter(pl.Series(site == number)), tmp_path / f"{number}.{kind}"
        part.write_csv(path) if kind == "csv" else part.write_parquet(path)
    tables = load(tmp_path, label="y")
    recipe = prepare(InProcess(tables))[1]
    assert recipe.feature_names == ("x", "(bias)")
    said = f"column {name!r} is left out, as by its name" if name else "the first column is left out, as without a name"
    assert f"{said} it numbers the rows (at 3 of 3 nodes)" in recipe.summary


@pytest.mark.parametrize("scale", ["standard", None])
@pytest.mark.parametrize("gap", ["age", "bp", None])
def test_a_value_missing_only_when_predicting_becomes_the_mean_of_training(scale, gap):
    """autodeployai/pypmml#34, h2o-3#1038: the docstring of `prepare` says the mean, whatever the scale."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(60, 10, 100).round(1), "bp": rng.normal(120, 15, 100).round()})
    if gap is not None:
        frame.loc[3, gap] = np.nan
    recipe = prepare(InProcess(from_arrays(frame, [0, 1] * 50)), scale=scale)[1]
    found = recipe.matrix(pd.DataFrame({"age": [np.nan], "bp": [140.0]}))[0, 0]
    assert found * recipe.columns[0].scale + recipe.columns[0].center == pytest.approx(frame["age"].mean(), abs=1e-9)


def by_index(folder, index):
    path = folder / "a.svm"
    path.write_text(f"1 3:1 {index}:0.5\n-1 5:1\n1 3:2\n-1 5:2\n")
    return path


def by_width(folder, width):
    path = folder / "a.npz"
    parts = {"data": [1.0, 2.0, 1.0], "indices": [0, 1, 2], "indptr": [0, 1, 2, 3], "y": [0, 1, 0]}
    np.savez(path, **parts, shape=[3, width])
    return path


@pytest.mark.parametrize(
    ("write", "number"),
    [
        *((by_index, index) for index in (30_000_000, 2**31 - 1, 4177197833204390623, 2**64 - 1)),
        *((by_width, width) for width in (30_000_000, 10**12)),
    ],
)
def test_a_number_of_columns_beyond_reason_is_refused_before_memory_is_taken(tmp_path, write, number):
    """dmlc/xgboost#704, #963, scikit-learn#10983: hashed indices fill the memory, or leave int64."""
    path = write(tmp_path, number)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*, more than 10,000,000; mend the number"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("labelled", [True, False], ids=["to train", "to predict"])
def test_a_square_matrix_by_columns_is_not_read_as_its_transpose(tmp_path, labelled):
    """scipy#15726, numpy#7890: `save_npz` writes the format; a square matrix fits either way."""
    expected = sparse.random(40, 40, density=0.2, random_state=1, format="csc")
    path = tmp_path / "a.npz"
    sparse.save_npz(path, expected)
    if labelled:
        with np.load(path) as held:
            np.savez(path, **dict(held), y=np.arange(40) % 2)
    found = load(path)[0].features if labelled else load_unlabelled(path).features
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


@pytest.mark.parametrize("shape", [(40, 40), (40, 30), (30, 40)], ids=str)
@pytest.mark.parametrize("kind", ["csr", "coo", "bsr", "dia", "csc"])
def test_a_matrix_of_any_format_is_read_rightly(tmp_path, kind, shape):
    """scipy#15726."""
    expected = sparse.random(*shape, density=0.2, random_state=1, format="csr")
    sparse.save_npz(tmp_path / "a.npz", expected.asformat(kind))
    found = load_unlabelled(tmp_path / "a.npz").features
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_line_break_in_a_header_cell_is_a_blank_of_the_name(tmp_path, separator, place, end):
    """lovasoa/elm-csv#47, tilo/smarter_csv#192, OpenRefine#764: as spreadsheets write it, in quotes."""
    names = ["Sex", "Outcome"]
    names.insert(place, '"Age\n(years)"')
    rows = [("41", "f", "ill"), ("52", "m", "well"), ("63", "f", "ill")]
    if place:
        rows = [(sex, age, outcome) for age, sex, outcome in rows]
    path = tmp_path / "a.csv"
    path.write_bytes("".join(separator.join(row) + end for row in [names, *rows]).encode())
    table = load(path, label="Outcome")[0]
    assert set(table.names) == {"Age (years)", "Sex"}
    assert table.n_rows == 3


@pytest.mark.parametrize("said", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "sep=\t"], ids=repr)
def test_the_line_in_which_a_spreadsheet_says_its_separator_is_no_header(tmp_path, said):
    """Siblings of OpenRefine#764: it stands above the header, so rows count from there."""
    separator = "\t" if "\t" in said else ";"
    path = tmp_path / "a.csv"
    rows = ["Age;Sex;Outcome", "41;f;ill", "52;m;well", "63;f;"]
    path.write_text("\n".join([said, *(row.replace(";", separator) for row in rows)]) + "\n")
    with pytest.raises(ValueError, match=r"a\.csv, row 5: no label in column 'Outcome'"):
        load(path, label="Outcome")
