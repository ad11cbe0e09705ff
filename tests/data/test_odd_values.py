"""Lists, structs, complex numbers, masks and bytes: refused in words wherever they turn up, never taken for numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from localgd import InProcess, LocalGDClassifier, LocalGDRegressor, from_arrays, load, prepare

Y = [0, 1, 0]
COMPLEX, BYTES = np.array([[1 + 2j], [2], [3]]), np.array([[b"1"], [b"2"], [b"3"]])
MASKED = np.ma.array([[1.0], [2.0], [3.0]], mask=[[0], [1], [0]])
RECORDS = np.array([(1.0,), (2.0,), (3.0,)], dtype=[("a", "f8")])
DAYS = np.array([["2020-01-01"]] * 3, dtype="datetime64[D]")

ARRAYS = {"complex": COMPLEX, "bytes": BYTES, "masked": MASKED, "records": RECORDS, "days": DAYS}
FRAMES: dict[str, list[Any]] = {
    "list": [[1], [2], [3]],
    "struct": [{"a": 1}] * 3,
    "bytes": [b"a", b"b", b"a"],
    "complex": [1j, 2, 3],
    "set": [{1}, {2}, {3}],
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "fit",
    [
        lambda X: from_arrays(X, Y),
        lambda X: LocalGDClassifier().fit(X, Y),
        lambda X: LocalGDRegressor().fit(X, Y),
        lambda X: from_arrays(np.eye(3), X.ravel()),
        lambda X: LocalGDClassifier().fit(np.eye(3), X.ravel()),
        lambda X: from_arrays(np.eye(3), Y, X.ravel()),
    ],
    ids=["rows", "rows to classify", "rows to fit", "labels", "classes", "groups"],
)
def test_arrays_of_no_numbers_are_refused(name: str, fit: Any) -> None:
    with pytest.raises(ValueError, match=r"(X|y|groups) (holds .*; give numbers|is masked in row 2; fill)"):
        fit(ARRAYS[name])


def test_a_mask_that_hides_nothing_is_none() -> None:
    assert from_arrays(np.ma.array(np.eye(3)), np.ma.array(Y))[0].n_rows == 3


def test_sparse_complex_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="X holds complex128"):
        from_arrays(sparse.csr_array(COMPLEX), Y)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("frame", [pd.DataFrame, lambda columns: pl.DataFrame(columns, strict=False)])
def test_columns_of_no_values_are_refused(name: str, frame: Any) -> None:
    with pytest.raises(ValueError, match=r"column 'c' holds .*; turn it into numbers or text"):
        from_arrays(frame({"c": FRAMES[name]}), Y)
    recipe = prepare(InProcess(from_arrays(pd.DataFrame({"c": [1.0, 2.0, 3.0]}), Y)))[1]
    with pytest.raises(ValueError, match=r"column 'c' holds .*; turn it into numbers or text"):
        recipe.matrix(frame({"c": FRAMES[name]}))


@pytest.mark.parametrize("name", ["list", "struct", "bytes"])
@pytest.mark.parametrize("role", ["label", "node", "weight", "categorical"])
def test_columns_of_files_that_are_no_values_are_refused_in_any_role(tmp_path: Path, name: str, role: str) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": Y, "c": FRAMES[name]}).write_parquet(path)
    given = {"label": "y", role: ["c"] if role == "categorical" else "c"}
    with pytest.raises(ValueError, match=r"a\.parquet: column 'c' holds .*; turn it into numbers or text"):
        load(path, **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"X": COMPLEX, "y": Y}, "X holds complex128"),
        ({"X": BYTES, "y": Y}, "X holds .*S1"),
        ({"X": np.eye(3), "y": BYTES.ravel()}, "labels holds .*S1"),
        ({"X": np.eye(3), "y": Y, "site": BYTES.ravel()}, "groups holds .*S1"),
    ],
)
def test_arrays_of_files_that_are_no_numbers_are_refused(tmp_path: Path, given: Any, said: str) -> None:
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(ValueError, match=said):
        load(tmp_path / "a.npz", node="site" if "site" in given else None)


@pytest.mark.parametrize("value", [1j, b"a", (1, 2), {}, [1]], ids=repr)
def test_labels_and_weights_of_no_kind_are_refused_by_row(value: Any) -> None:
    with pytest.raises(ValueError, match=r"row 2: y holds .*; give texts, numbers or truth values"):
        from_arrays(np.eye(3), [0, value, 1])
    with pytest.raises(ValueError, match=r"row 2: sample_weight holds .*; give numbers"):
        from_arrays(np.eye(3), Y, sample_weight=[1.0, value, 1.0])


def test_a_nan_that_numpy_has_made_a_text_is_a_missing_label() -> None:
    with pytest.raises(ValueError, match="row 2: missing entry in y"):
        from_arrays(np.eye(3), np.array(["a", np.nan, "b"]))


def test_polars_categories_of_either_kind_are_categories() -> None:
    kinds = {"c": pl.Enum(["a", "b"]), "d": pl.Categorical}
    frame = pl.DataFrame([pl.Series(name, list("aba"), dtype=kind) for name, kind in kinds.items()])
    assert prepare(InProcess(from_arrays(frame, Y)))[1].feature_names == ("c=a", "c=b", "d=a", "d=b", "(bias)")
