"""What is said to stand for a missing value is one, exactly as if its cell were blank, in rows to come, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from localgd import InProcess, Recipe, from_arrays, load, prepare
from localgd.data.gaps import gaps_of
from localgd.data.load import load_unlabelled
from localgd.data.unmet import unmet

SAID = {"": ["k.A.", "unbekannt"], "packs": [9], "seen": ["--"]}


def rows(seed: int, *, blank: bool, n: int = 60) -> pl.DataFrame:
    """Make rows in which about a tenth of every column is missing, blank or in words."""
    rng = np.random.default_rng(seed)
    columns = {
        "age": (rng.integers(20, 90, n).astype(str), " k.a. "),
        "packs": (rng.integers(0, 9, n).astype(str), "9"),
        "other": (rng.integers(8, 11, n).astype(str), "9"),  # an honest 9
        "smoker": (rng.choice(["yes", "no"], n), "Unbekannt"),
        "seen": (np.char.add("2020-01-1", rng.integers(0, 9, n).astype(str)), "--"),
    }
    found = {}
    for name, (values, word) in columns.items():
        gone = (rng.random(n) < 0.1) & (name != "other")
        found[name] = [
            (None if blank else word) if away else str(value) for value, away in zip(values, gone, strict=True)
        ]
    return pl.DataFrame({**found, "ill": rng.integers(0, 2, n)})


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows as a typed file has them: text only where words are."""
    return frame.with_columns(pl.col(name).cast(pl.Int64) for name in ("packs", "other"))


def written(folder, kind: str, *, blank: bool):
    folder.mkdir()
    for seed, name in enumerate("ab"):
        frame = rows(seed, blank=blank)
        if kind == "csv" or (kind == "both" and name == "a"):
            frame.write_csv(folder / f"{name}.csv")
        else:  # numbers among which are words can but be text
            numbers = typed(frame).with_columns(pl.col("age").cast(pl.Int64)) if blank else typed(frame)
            numbers.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("kind", ["csv", "parquet", "both"])
def test_the_recipe_and_the_rows_are_those_of_blank_cells(tmp_path, kind):
    how = {"label": "ill", "dates": ["seen"]}
    said = load(written(tmp_path / "words", kind, blank=False), **how, missing_values=SAID)
    blank = load(written(tmp_path / "blank", kind, blank=True), **how)
    for one, other in zip(said, blank, strict=True):
        assert one.features.equals(other.features)
        assert one.gaps == gaps_of(SAID)
    recipe, plain = (prepare(InProcess(tables))[1] for tables in (said, blank))
    assert recipe == replace(plain, gaps=gaps_of(SAID))
    assert plain.n_missing > 20
    for one, other in zip(said, blank, strict=True):
        np.testing.assert_array_equal(recipe.matrix(one), plain.matrix(other))


@pytest.fixture(scope="module")
def recipe():
    frame = rows(0, blank=False)
    tables = from_arrays(typed(frame.drop("ill")), frame["ill"], dates=["seen"], missing_values=SAID)
    return prepare(InProcess(tables), scale="standard")[1]


def test_rows_to_come_are_read_likewise(recipe, tmp_path):
    known = Recipe.from_dict(recipe.to_dict())
    assert known == recipe
    new, blank = (rows(7, blank=blank) for blank in (False, True))
    expected = known.matrix(blank)
    np.testing.assert_array_equal(known.matrix(new), expected)
    np.testing.assert_array_equal(known.matrix(typed(new)), expected)
    new.write_csv(tmp_path / "new.csv")
    table = load_unlabelled(tmp_path / "new.csv")
    np.testing.assert_array_equal(known.matrix(table), expected)
    assert unmet(InProcess([replace(table, labels=new["ill"].to_numpy())]), known) == {}
    other = new.with_columns(pl.col("age").replace({" k.a. ": "n. b."}))
    other.write_csv(tmp_path / "other.csv")
    more = load_unlabelled(tmp_path / "other.csv", missing_values=["N. B."])
    np.testing.assert_array_equal(known.matrix(more), expected)


def test_a_text_among_numbers_and_dates_is_refused_with_what_makes_it_a_missing_value(recipe):
    frame = pl.DataFrame({"y": [0, 1, 0, 1]})
    remedy = r"missing_values=\['k.A.'\] \(--missing-values k.A.\)"
    with pytest.raises(ValueError, match=f"holds 'k.A.', no date; .* say so with {remedy}"):
        from_arrays(frame.select(x=pl.Series(["1.2.2020", "k.A.", "", "NA"])), frame["y"], dates=["x"])
    with pytest.raises(ValueError, match=r"holds 'n. b.', no finite number; .*missing_values=\['n. b.'\]"):
        recipe.matrix(rows(7, blank=True).with_columns(age=pl.lit("n. b.")))
    with pytest.raises(ValueError, match=r"holds 'n. b.', unseen in training .*missing_values=\['n. b.'\]"):
        recipe.matrix(rows(7, blank=True).with_columns(smoker=pl.lit("n. b.")))


@pytest.mark.parametrize(
    ("words", "flag"),
    [("k.A.", "k.A."), ("not known", "'not known'"), ("see: letter", "':see: letter'"), ("a,b", None)],
)
def test_the_flag_is_printed_where_one_can_say_it(tmp_path, words, flag):
    cells = ["1", "2", "3", f'"{words}"']
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{cell},{place % 2}\n" for place, cell in enumerate(cells)))
    with pytest.raises(ValueError, match="column 'x' holds") as error:
        load(tmp_path / "a.csv", label="y")
    assert f"say so with missing_values=[{words!r}]" in str(error.value)
    assert ("--missing-values" in str(error.value)) == (flag is not None)
    if flag is not None:
        assert f"(--missing-values {flag})" in str(error.value)
    table = load(tmp_path / "a.csv", label="y", missing_values=[words])[0]
    assert table.features["x"].to_list() == [1.0, 2.0, 3.0, None]


def test_one_site_that_holds_only_the_text_is_told_what_makes_it_a_missing_value(tmp_path):
    pl.DataFrame({"x": [1, 2, 3], "y": [0, 1, 0]}).write_csv(tmp_path / "a.csv")
    pl.DataFrame({"x": ["--"] * 2, "y": [0, 1]}).write_csv(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"numbers in .*a.csv.* but text in .*missing_values=\['--'\]"):
        load(tmp_path, label="y")
    assert [table.features["x"].null_count() for table in load(tmp_path, label="y", missing_values=["--"])] == [0, 2]


def test_labels_and_nodes_that_stand_for_nothing_are_refused_by_their_row(tmp_path):
    frame = pl.DataFrame({"x": [1, 2, 3], "site": ["a", "b", "k.A."], "y": ["n", "k.A.", "j"]})
    frame.write_csv(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="row 3: no label in column 'y'"):
        load(tmp_path / "rows.csv", label="y", drop=["site"], missing_values=["k.A."])
    with pytest.raises(ValueError, match="row 4: no node in column 'site'"):
        load(tmp_path / "rows.csv", label="x", node="site", drop=["y"], missing_values={"site": ["K.A."]})


def test_what_cannot_be_meant_is_refused():
    frame = pl.DataFrame({"x": [1.0, 2.0], "w": ["a", "b"]})
    with pytest.raises(ValueError, match="missing_values='z' is not a column of the arrays given"):
        from_arrays(frame, [0, 1], missing_values={"z": ["-"]})
    with pytest.raises(ValueError, match="missing_values: the arrays given holds arrays"):
        from_arrays(np.eye(2), [0, 1], missing_values=[1])
    for odd in ("k.A.", [None], [True], {"w": "k.A."}, 3):
        with pytest.raises(ValueError, match="missing_values must be a list of texts and numbers"):
            from_arrays(frame, [0, 1], missing_values=odd)
    with pytest.raises(ValueError, match="gaps must be pairs"):
        Recipe((), (0, 1), True, False, gaps=(("", 1),))
    here, there = (from_arrays(frame, [0, 1], missing_values=said)[0] for said in (["k.A."], []))
    with pytest.raises(ValueError, match=r"'k\.a\.' stands for a missing value at 1 of 2 nodes; say the same of all"):
        prepare(InProcess([here, replace(there, node_id="b")]))


def test_a_word_of_categories_that_may_be_missing_is_said_and_stays_one_unless_it_is_said():
    frame = pl.DataFrame({"country": ["NA", "DE", "k.A.", "DE"]})
    _, recipe = prepare(InProcess(from_arrays(frame, [0, 1, 0, 1])))
    assert recipe.columns[0].categories == ("DE", "NA", "k.A.")
    both = "missing_values=['NA', 'k.A.'] (--missing-values NA,k.A.)"
    assert (
        f"'NA' and 'k.A.' count as categories; if that stands for a missing value, say so with {both}" in recipe.summary
    )
    _, recipe = prepare(InProcess(from_arrays(frame, [0, 1, 0, 1], missing_values=["k.A."])))
    assert recipe.columns[0].levels == ("DE", "NA", "?")


@pytest.mark.parametrize("how", ["-9", "-9.0", " -9.00 ", "-9e0", "-9,0"])
def test_a_number_is_missing_however_it_is_written(tmp_path, how):
    cells = ["120", "131", how, "118", "140", "127"]
    frame = pl.DataFrame({"sbp": cells, "ward": list("abcabc"), "y": [0, 1, 0, 1, 0, 1]})
    frame.write_csv(tmp_path / "a.csv", separator=";")
    numbers = [float(cell.replace(",", ".")) for cell in cells]
    frame.with_columns(sbp=pl.Series(numbers)).write_parquet(tmp_path / "b.parquet")
    tables = load(tmp_path, label="y", decimal={"a": ","} if "," in how else ".", missing_values={"sbp": [-9]})
    expected = [120.0, 131.0, None, 118.0, 140.0, 127.0]
    assert [table.features["sbp"].to_list() for table in tables] == [expected] * 2
    _, recipe = prepare(InProcess(tables))
    assert recipe.columns[0].n_missing == 2
    new = load_unlabelled(tmp_path / "a.csv", decimal="," if "," in how else ".")
    np.testing.assert_array_equal(recipe.matrix(new), recipe.matrix(tables[1]))


def test_it_is_so_of_categories_and_labels_whatever_kind_their_file_alone_suggests(tmp_path):
    (tmp_path / "a.csv").write_text("smoker,y\n0.0,0\n9.0,1\n1.0,0\n")  # as pandas writes whole numbers with gaps
    (tmp_path / "b.csv").write_text("smoker,y\n0,0\n9,1\nno,0\n")
    tables = load(tmp_path, label="y", categorical=["smoker"], missing_values={"smoker": ["9"]})
    assert [table.features["smoker"].null_count() for table in tables] == [1, 1]
    with pytest.raises(ValueError, match=r"a\.csv, row 3: no label in column 'smoker'"):
        load(tmp_path, label="smoker", missing_values=[9])


def test_what_no_value_of_any_node_is_is_said():
    here, there = pl.DataFrame({"x": [1.0, -9.0], "w": ["a", "b"]}), pl.DataFrame({"x": [1.0, 2.0], "w": ["--", "b"]})
    said = {"": [-9, "--", "n.b."], "x": [999], "w": ["b"]}
    tables = [from_arrays(frame, [0, 1], missing_values=said)[0] for frame in (here, there)]
    _, recipe = prepare(InProcess([tables[0], replace(tables[1], node_id="b")]))
    assert [line for line in recipe.notes if line.startswith("missing_values")] == [
        "missing_values: no value of any node is 'n.b.'",
        "missing_values: no value of column 'x' of any node is '999'",
    ]


@pytest.mark.parametrize("word", ["-", "None"])
def test_a_sign_or_what_python_writes_for_nothing_is_said_where_it_counts_as_a_category(word):
    _, recipe = prepare(InProcess(from_arrays(pl.DataFrame({"icd": ["I10", "E11", word, "I10"]}), [0, 1, 0, 1])))
    assert f"'{word}' counts as a category; if that stands for a missing value, say so with" in recipe.summary
    honest = pl.DataFrame({"test": ["+", "-", "+", "-"], "allergy": ["none", "nuts", "none", "nuts"]})
    assert "counts as" not in prepare(InProcess(from_arrays(honest, [0, 1, 0, 1])))[1].summary
