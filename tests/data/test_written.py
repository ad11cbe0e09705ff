"""CSV files as other countries and older programs write them: commas before fractions, other encodings."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import InProcess, load, prepare
from localgd.data.load import load_unlabelled

TEXT = "alter;ort;krank\n41,5;Köln;ja\n1.052,25;Ulm;nein\n-,5;Köln;nein\n;Ulm;ja\n7;Ulm;ja\n"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "utf-16"])
def test_numbers_with_commas_are_those_with_points_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    table = load(tmp_path / "a.csv", label="krank", decimal=",", encoding=encoding)[0]
    assert table.features["alter"].to_list() == [41.5, 1052.25, -0.5, None, 7.0]
    assert table.features["ort"].to_list() == ["Köln", "Ulm", "Köln", "Ulm", "Ulm"]
    assert load_unlabelled(tmp_path / "a.csv", decimal=",", encoding=encoding).features["alter"][1] == "1052.25"


def test_the_error_of_either_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT.encode("cp1252"))
    with pytest.raises(ValueError, match=r"row 2: byte 0xf6 is not UTF-8; .*--encoding cp1252"):
        load(tmp_path / "a.csv", label="krank")
    with pytest.raises(ValueError, match=r"row 2: column 'alter' holds '41,5'.*decimal=',' .*\(--decimal , or"):
        load(tmp_path / "a.csv", label="krank", encoding="cp1252")
    with pytest.raises(ValueError, match="encoding='cp99' is not known"):
        load(tmp_path / "a.csv", label="krank", encoding="cp99")
    with pytest.raises(ValueError, match=r"decimal must be '\.' or ',', got ';'"):
        load(tmp_path / "a.csv", label="krank", decimal=";")


@pytest.mark.parametrize("value", ["1.5", "12.34", ".5", "1.2345"])
def test_a_point_that_groups_no_digits_is_asked_about(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.csv").write_text(f"x;y\n1,5;0\n{value};1\n")
    with pytest.raises(ValueError, match=rf"a\.csv, row 3: column 'x' holds '{value}', but with decimal=','"):
        load(tmp_path / "a.csv", label="y", decimal=",")


def test_texts_with_commas_and_points_stay_as_they_are(tmp_path: Path) -> None:
    values = ["a,b", "1,2,3", "10.0.0.1", "31.12.2020", "v1.5"]
    pl.DataFrame({"x": values, "z": np.arange(5), "y": [0, 1, 0, 1, 0]}).write_csv(tmp_path / "a.csv")
    assert load(tmp_path / "a.csv", label="y", decimal=",")[0].features["x"].to_list() == values


def test_names_of_several_lines_and_a_mark_of_utf_8_are_no_trouble(tmp_path: Path) -> None:
    rows = ";krank\r\n1,5;0\r\n2;1\r\n"
    (tmp_path / "a.csv").write_bytes(f'"Größe\r\nin  cm"{rows}'.encode("cp1252"))
    (tmp_path / "b.csv").write_bytes(f"sep=;\r\nGröße in cm{rows}".encode("utf-8-sig"))
    tables = load(tmp_path, label="krank", decimal=",", encoding="cp1252")
    assert [table.names for table in tables] == [("Größe in cm",)] * 2


def test_files_of_a_folder_may_be_written_each_in_its_way(tmp_path: Path) -> None:
    sites, out = tmp_path / "sites", tmp_path / "RUN"
    sites.mkdir()
    rows = [(f"{i % 7}.5", "ü" if i % 7 > 3 else "ä") for i in range(40)]
    (sites / "a.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows), encoding="utf-8")
    text = "x;y\n" + "".join(f"{x.replace('.', ',')};{y}\n" for x, y in rows)
    (sites / "b.csv").write_bytes(text.encode("cp1252"))
    one, other = load(sites, label="y", decimal={"b": ","}, encoding={"b": "cp1252"})
    assert one.features.equals(other.features)
    assert set(other.labels) == {"ä", "ü"}
    with pytest.raises(ValueError, match=r"b.csv, row 2: column 'x' holds '0,5', and most .*--decimal , or NODE=,"):
        load(sites, label="y", encoding={"b": "cp1252"})
    with pytest.raises(ValueError, match="of this file alone --encoding b=cp1252"):
        load(sites, label="y")
    with pytest.raises(ValueError, match="decimal='c' is not a node of"):
        load(sites, label="y", decimal={"c": ","})
    written = ("--decimal", "b=,", "--encoding", "b=cp1252")
    done = localgd("train", sites, "--label", "y", "--C", "1", "--out", out, *written)
    assert done.returncode == 0, done.stderr
    assert localgd("certify", out, sites).stdout.startswith("certified")
    for name in ("a", "b"):
        assert localgd("evaluate", out, sites / f"{name}.csv").returncode == 0
    assert "--decimal is said once" in localgd("train", sites, "--label", "y", "--decimal", ",", *written).stderr


def test_both_are_for_csv_files_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1])
    for given in ({"decimal": ","}, {"encoding": "latin-1"}):
        with pytest.raises(ValueError, match="decimal and encoding are for CSV files"):
            load(tmp_path / "a.npz", **given)
        with pytest.raises(ValueError, match="decimal and encoding are for CSV files"):
            load_unlabelled(tmp_path / "a.npz", **given)
        with pytest.raises(ValueError, match="bundled with its own columns; leave decimal and encoding out"):
            load("heart", **given)


def test_the_command_line_trains_and_predicts_on_such_files(tmp_path: Path) -> None:
    rows = [(f"{i % 7},{i % 10}", "ja" if i % 7 > 3 else "nein") for i in range(60)]
    path, out = tmp_path / "Ö.csv", tmp_path / "RUN"
    path.write_bytes(("größe;krank\n" + "".join(";".join(row) + "\n" for row in rows)).encode("latin-1"))
    written = ("--decimal", ",", "--encoding", "latin-1")
    done = localgd("train", path, "--label", "krank", "--C", "1", "--out", out, *written)
    assert done.returncode == 0
    (tmp_path / "copy.json").write_text((out / "model.json").read_text())
    assert localgd("predict", tmp_path / "copy.json", path).returncode == 2
    labels = localgd("predict", tmp_path / "copy.json", path, *written).stdout.split()[1:]
    assert localgd("predict", out, path).stdout.split()[1:] == labels
    assert np.mean([label == right for label, (_, right) in zip(labels, rows, strict=True)]) > 0.9
    assert prepare(InProcess(load(path, label="krank", decimal=",", encoding="latin-1")))[1].classes == ("ja", "nein")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ISO-8859-15", "cp437"])
def test_a_file_in_utf_8_is_not_read_in_an_encoding_of_single_bytes(tmp_path: Path, encoding: str) -> None:
    text = "ward,y\nNord,0\nSüd,1\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    (tmp_path / "b.csv").write_bytes(text.encode())
    (tmp_path / "c.csv").write_bytes(text.replace("ü", "u").encode())  # the same bytes in both
    wrong = "Süd".encode().decode(encoding)
    said = (
        rf"b\.csv, row 3: the file is UTF-8, .* {wrong!r} of 'Süd'; .*--encoding NODE={encoding} .*--encoding b=utf-8"
    )
    with pytest.raises(ValueError, match=said):
        load(tmp_path, label="y", encoding=encoding)
    with pytest.raises(ValueError, match=said):
        load_unlabelled(tmp_path / "b.csv", encoding=encoding)
    tables = load(tmp_path, label="y", encoding={"a": encoding, "c": encoding})
    assert [table.features["ward"][1] for table in tables] == ["Süd", "Süd", "Sud"]
    (tmp_path / "b.csv").write_bytes("ward,y\nÁvila,0\nNord,1\n".encode())  # a byte of it is no letter of cp1252
    with pytest.raises(ValueError, match=r"b\.csv, row 2: the file is UTF-8, .* of 'Ávila'; "):
        load(tmp_path, label="y", encoding=encoding)
