"""Svmlight files of which one counts columns from 0 and others from 1 do not shift in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import dump_svmlight_file

from command import localgd
from localgd import InProcess, load, prepare

RNG = np.random.default_rng(0)
X = (np.abs(RNG.normal(size=(90, 6))) + 0.1).round(3)
Y = (X[:, 0] + X[:, 5] > X[:, 1] + X[:, 4]).astype(int)


def write(folder: Path, name: str, rows: slice, *, first: int, columns: slice = slice(0, 6)) -> Path:
    kept = np.zeros_like(X[rows])
    kept[:, columns] = X[rows, columns]
    path = folder / f"{name}.svm"
    dump_svmlight_file(csr_array(kept), Y[rows], str(path), zero_based=first == 0)
    return path


A, B, C = slice(0, 30), slice(30, 60), slice(60, 90)


def test_files_that_count_apart_are_refused_where_that_is_clear(tmp_path: Path) -> None:
    write(tmp_path, "a", A, first=0), write(tmp_path, "b", B, first=1), write(tmp_path, "c", C, first=1)
    with pytest.raises(
        ValueError, match="from 0 to 5, and others never from 0, but to 6: these seem to count"
    ) as caught:
        load(tmp_path)
    assert f"{tmp_path}/a.svm from 0 to 5; {tmp_path}/b.svm from 1 to 6" in str(caught.value)
    path = tmp_path / "b.svm"
    told = path.read_text().splitlines()
    path.write_text("\n".join([f"{told[0].split()[0]} 0:0 {told[0].partition(' ')[2]}", *told[1:]]))
    write(tmp_path, "c", C, first=0)
    assert load(tmp_path)[1].names == tuple(f"x{j}" for j in range(7)), "as an entry 0:0 says, it counts from 0"


def test_nodes_that_were_loaded_one_by_one_are_refused_too(tmp_path: Path) -> None:
    paths = [write(tmp_path, name, rows, first=first) for name, rows, first in (("a", A, 0), ("b", B, 1))]
    apart = [load(path)[0] for path in paths]
    with pytest.raises(ValueError, match="from 0 to 5, and others never from 0, but to 6"):
        prepare(InProcess(apart))


def test_where_nobody_can_know_it_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", A, first=0), write(tmp_path, "b", B, first=0, columns=slice(1, 6))
    paths = [tmp_path / "a.svm", tmp_path / "b.svm"]
    said = "column 0 is used, and elsewhere it is not; if the others count their columns from 1, shift those"
    together, apart = (prepare(InProcess(tables))[1] for tables in (load(tmp_path), [load(p)[0] for p in paths]))
    assert f"{said} (at 1 of 2 nodes)" in together.notes
    assert apart == together
    for first in (0, 1):
        alike = tmp_path / f"from {first}"
        alike.mkdir()
        write(alike, "a", A, first=first), write(alike, "b", B, first=first)
        assert not any("column 0" in note for note in prepare(InProcess(load(alike)))[1].notes)


@pytest.mark.parametrize("first", [0, 1])
def test_rows_that_a_model_meets_count_as_in_training(tmp_path: Path, first: int) -> None:
    folder = tmp_path / "sites"
    folder.mkdir()
    write(folder, "a", A, first=first), write(folder, "b", B, first=first)
    assert localgd("train", folder, "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    right, wrong = (write(tmp_path, f"c{n}", C, first=n) for n in (first, 1 - first))
    assert localgd("predict", tmp_path / "RUN", right).returncode == 0
    for command in ("predict", "evaluate", "certify"):
        done = localgd(command, tmp_path / "RUN", wrong)
        if first == 1:
            assert done.returncode == 2, done.stdout
            assert f"{wrong}, row 1: column 0 is used, but the model counts its columns from 1" in done.stderr
        else:  # a file to predict on may hold more columns
            said = f"{wrong}: column 0 is never used, and column 6 is one further than the model has"
            assert done.stderr.count(said) == 1, done.stderr
        assert "column 0" not in localgd(command, tmp_path / "RUN", right).stderr


def test_a_column_0_that_training_left_out_is_left_out_of_what_is_predicted(tmp_path: Path) -> None:
    path = write(tmp_path, "a", slice(0, 60), first=0)
    assert localgd("train", path, "--drop", "x0", "--C", "1", "--out", tmp_path / "RUN").returncode == 0
    whole, part = write(tmp_path, "b", C, first=0), write(tmp_path, "c", C, first=0, columns=slice(1, 6))
    found, expected = (localgd("predict", tmp_path / "RUN", file, "--proba") for file in (whole, part))
    assert (found.returncode, found.stdout) == (0, expected.stdout), found.stderr
    assert localgd("evaluate", tmp_path / "RUN", whole).returncode == 0
