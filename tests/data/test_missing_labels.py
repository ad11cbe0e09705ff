"""A label, or a node, that is a word for a missing value is no class of its own, nor a node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command import localgd
from localgd import InProcess, Recipe, from_arrays, load, prepare
from localgd.data.values import MISSING
from localgd.errors import NodeError

WORDS = [word for word in MISSING if word]


def table(folder: Path, *rows: str, name: str = "a") -> Path:
    path = folder / f"{name}.csv"
    path.write_text("\n".join(["s,x,y", *rows]) + "\n")
    return path


def learned(path: Path, **how: object) -> Recipe:
    return prepare(InProcess(load(path, label="y", node="s")), **how)[1]


@pytest.mark.parametrize("word", [*WORDS, "NA", " N/A ", "None"])
def test_a_label_that_means_missing_is_refused_by_its_row(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, "p,1,ill", "p,2,well", f"q,3,{word}", "q,4,well", "q,4,ill")
    with pytest.raises(NodeError) as caught:
        learned(path)
    assert f"{path} (node 'q'), row 4: the label is {word.strip()!r}, which stands for a missing" in str(caught.value)
    assert "correct it, leave the row out, or, if it is a class" in str(caught.value)
    done = localgd("train", path, "--label", "y", "--node", "s")
    assert (done.returncode, "row 4" in done.stderr) == (2, True)


@pytest.mark.parametrize("word", [*WORDS, "NA"])
def test_what_somebody_says_of_it_counts(tmp_path: Path, word: str) -> None:
    rows = [f"{node},{x},{label}" for node in "pq" for x, label in enumerate(("ill", "well", word))]
    path = table(tmp_path, *rows)
    assert learned(path, label_map={word: "ill"}).classes == ("ill", "well")
    assert set(learned(path, label_map={word: word}).classes) == {"ill", "well", word}
    done = localgd("train", path, "--label", "y", "--node", "s", "--n-rounds", "3", "--label-map", f"{word}=ill")
    assert done.returncode != 2, done.stderr


def test_a_minus_beside_a_plus_is_a_sign(tmp_path: Path) -> None:
    assert learned(table(tmp_path, "p,1,+", "p,2,-", "q,3,-", "q,4,-", "q,5,+")).classes == ("+", "-")
    with pytest.raises(NodeError, match="row 3: the label is '-'"):
        learned(table(tmp_path, "p,1,a", "p,2,-", "q,3,b", "q,1,a"))


def test_so_is_a_label_of_arrays(tmp_path: Path) -> None:
    tables = from_arrays(np.eye(4), np.array(["a", "b", "?", "a"]), ["p", "p", "q", "q"])
    with pytest.raises(NodeError, match=r"the arrays given \(node 'q'\), row 3: the label is '\?'"):
        prepare(InProcess(tables))
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=np.array(["a", "NA", "b"]))
    with pytest.raises(NodeError, match=r"a\.npz, row 2: the label is 'NA'"):
        prepare(InProcess(load(tmp_path / "a.npz")))


@pytest.mark.parametrize("word", ["NA", "nan", "inf", "?"])
def test_a_number_to_fit_that_is_none_is_refused_by_its_row(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, "p,1,0.5", "p,2,1.5", f"q,3,{word}", "q,4,2.5")
    with pytest.raises(NodeError, match=rf"row 4: label '[{word}]+' is no number to fit"):
        learned(path, classes=False)


@pytest.mark.parametrize("word", [*WORDS, "NA"])
def test_a_node_that_is_called_missing_is_refused_by_its_row(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, "p,1,0", f"{word},2,1", "q,3,1")
    with pytest.raises(ValueError, match=r"row 3: column 's' holds .*, no name of a node"):
        load(path, label="y", node="s")
    if word != "nan":  # which arrays take for one
        with pytest.raises(ValueError, match=r"row 2: groups holds .*, no name of a node"):
            from_arrays(np.eye(2), [0, 1], ["p", word])
