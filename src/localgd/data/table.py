"""One node's rows as they came: columns, labels, and where each row stood in its file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from localgd.data.gaps import Gaps, blanked
from localgd.data.groups import blocks, refuse_masked
from localgd.data.spelling import confusable
from localgd.data.values import as_numbers, as_text
from localgd.errors import shown, told_apart
from localgd.layouts.layout import Rows
from localgd.limits import Limits
from localgd.rounding import FloatArray, frozen, real_array

IntArray: TypeAlias = NDArray[np.int64]
Features: TypeAlias = "pl.DataFrame | FloatArray | csr_array[np.float64]"

MOST_COLUMNS = 10**7
"""A slip in one number must not fill the memory."""


def check_width(n_columns: int, place: str) -> None:
    """Refuse more columns than anybody means, before anything of their number is made."""
    if n_columns > MOST_COLUMNS:
        most = f"more than {MOST_COLUMNS:,}; mend the number, or leave no gaps"
        raise ValueError(f"{place}: {n_columns:,} columns, {most}")


_NAMES: list[tuple[str, ...]] = [()]
"""The names of as many columns as anybody has asked for, so that files of unlike widths have them in common."""


@lru_cache(maxsize=4)
def numbered(n_columns: int, first: int = 0) -> tuple[str, ...]:
    """Return the names of columns that have none, the same ones for all nodes: of wide rows they are the larger part.

    Examples
    --------
    >>> numbered(3), numbered(3, 1)
    (('x0', 'x1', 'x2'), ('x1', 'x2'))
    """
    known = _NAMES[0]
    if len(known) < n_columns:
        _NAMES[0] = known = (*known, *(f"x{j}" for j in range(len(known), n_columns)))
    return known[first:n_columns]


@dataclass(frozen=True, eq=False)
class Table:
    """One node's rows before preparation.

    Parameters
    ----------
    node_id : str
        Name of the node.
    features : polars DataFrame, (n, k) float64 array or CSR array
        A frame has Float64 columns (numbers, null where missing) and String columns (categories or text), as soon as
        they are decided over all nodes (`localgd.data.columns.alike`); arrays hold finite numbers.
    labels : (n,) array of numbers, strings or bools
        One per row; of length 0 if the rows have none (prediction).
    names : tuple of str
        One per column; ``x0, x1, …`` if left empty.
    source : str
        Where the rows came from, as error messages say it.
    row_numbers : (n,) int array, optional
        The rows' places in `source`, from 1 (in a CSV file the header is row 1); 1, 2, … by default.
    numbered : bool, default False
        Whether columns are called by their numbers, ``x0, x1, …``, and those that the rows do not reach are zero, as
        in svmlight files.
    as_written : bool, default False
        Whether every column is text from a file without types (CSV), labels and node included.
    drawn : bool, default False
        Whether the rows are some of one table that was split by chance or rule: its nodes spell alike.
    codes : mapping from column to Series of String
        Columns of numbers as they were written, where that says more than the number: 01 beside 1.
    notes : tuple of str
        What was done to the rows while they were read, that a person should know.
    dates : tuple of str
        Columns of numbers that were dates, as days since 1970.
    limits : Limits, optional
        What may be told of the rows, as the node's operator says; anything by default.
    weights : (n,) float64 array, optional
        What each row counts in training, at least 0; 1 by default. Columns are prepared as if there were none.
    gaps : tuple of (column or "", text)
        What stood for a missing value, as somebody said, and is one now (`localgd.data.gaps`).
    met : tuple of (column or "", text)
        Those of the `gaps` that some value was.
    told : bool, default False
        Whether labels are already what somebody said that they mean.

    Raises
    ------
    ValueError
        If there is no row, an array entry or label is not finite, labels, names, weights or row numbers do not fit, or
        a weight is not finite or below 0.

    Examples
    --------
    >>> table = Table("a", np.eye(2), np.array([0, 1]), source="a.npz")
    >>> table.n_rows, table.names, table.place(1)
    (2, ('x0', 'x1'), 'a.npz, row 2')
    """

    node_id: str
    features: Features
    labels: NDArray[Any]
    names: tuple[str, ...] = ()
    source: str = "the arrays given"
    row_numbers: IntArray | None = None
    numbered: bool = False
    as_written: bool = False
    drawn: bool = False
    codes: Mapping[str, pl.Series] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    limits: Limits | None = None
    weights: FloatArray | None = None
    gaps: Gaps = ()
    met: Gaps = ()
    told: bool = False

    def __post_init__(self) -> None:
        """Check that the parts fit each other and freeze the arrays."""
        features: Any = self.features
        refuse_masked(f"{self.source}: labels", self.labels)
        if not isinstance(features, pl.DataFrame):
            refuse_masked(f"{self.source}: X", features)
            features = _csr(features) if issparse(features) else _dense(features, self.source)
            object.__setattr__(self, "features", features)
        n_rows, n_columns = features.shape
        if n_rows == 0:
            raise ValueError(f"{self.source}: node {self.node_id!r} has no rows; add some or leave the node out")
        check_width(n_columns, self.source)
        names = features.columns if isinstance(features, pl.DataFrame) else self.names
        object.__setattr__(self, "names", tuple(names) or numbered(n_columns))
        numbers = np.arange(1, n_rows + 1) if self.row_numbers is None else np.asarray(self.row_numbers)
        for part, values in (("row_numbers", numbers), ("labels", np.asarray(self.labels))):
            object.__setattr__(self, part, frozen(values, values.dtype))
        if len(self.names) != n_columns or len(set(self.names)) != n_columns:
            twice = [repr(name) for name, count in Counter(self.names).items() if count > 1]
            said = f"two are called {twice[0]}" if twice else f"got {len(self.names)}"
            raise ValueError(f"{self.source}: {n_columns} columns need as many distinct names, {said}; name each once")
        weights = np.ones(n_rows) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        for what, given in (("labels", self.labels), ("row numbers", numbers), ("weights", weights)):
            if given.ndim != 1 or given.size not in ({0, n_rows} if what == "labels" else {n_rows}):
                raise ValueError(f"{self.source}: {n_rows} rows but {what} of shape {given.shape}; give one per row")
        if self.weights is not None:
            object.__setattr__(self, "weights", frozen(weights))
            self._check_weights(weights)
        self._check_finite()
        if self.labels.dtype.kind == "f" and not np.isfinite(self.labels).all():
            row = int(np.argmin(np.isfinite(self.labels)))
            raise ValueError(f"{self.place(row)}: the label is {self.labels.item(row)}; fill it in or remove the row")

    def _check_weights(self, weights: FloatArray) -> None:
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{self.place(row)}: the weight is {weights.item(row)}; give a number of at least 0")

    def _check_finite(self) -> None:
        features: Any = self.features
        if isinstance(features, pl.DataFrame):
            return
        finite = np.isfinite(features.data if isinstance(features, csr_array) else features)
        if finite.all():
            return
        places = features.tocoo().coords if isinstance(features, csr_array) else np.indices(features.shape)
        row, column = (int(place[~finite][0]) for place in places)
        raise ValueError(
            f"{self.place(row)}: column {self.names[column]!r} holds {features[row, column]}; impute the value or "
            "remove the row"
        )

    @property
    def n_rows(self) -> int:
        """Number of rows n."""
        return int(self.features.shape[0])

    def place(self, row: int) -> str:
        """Return where the row with this index came from, as error messages say it."""
        numbers: Any = self.row_numbers
        return f"{self.source}, row {numbers[row]}"

    def blanked(self, gaps: Gaps) -> Table:
        """Return the table with nothing where a value of its frame stands for nothing.

        Examples
        --------
        >>> table = Table("a", pl.DataFrame({"ward": ["k.A.", "b"]}), np.zeros(0)).blanked((("", "k.a."), ("", "none")))
        >>> table.features["ward"].to_list(), table.gaps, table.met
        ([None, 'b'], (('', 'k.a.'), ('', 'none')), (('', 'k.a.'),))
        """
        frame: Any = self.features
        if not isinstance(frame, pl.DataFrame) or set(gaps) <= set(self.gaps):
            return self
        codes = {name: blanked(pl.DataFrame([column]), gaps)[0][name] for name, column in self.codes.items()}
        frame, met = blanked(frame, gaps)
        gaps, met = (tuple(sorted({*one, *other})) for one, other in ((self.gaps, gaps), (self.met, met)))
        return replace(self, features=frame, codes=codes, gaps=gaps, met=met)

    def refuse_gaps(self, gaps: Any, what: str) -> None:
        """Raise a ValueError that names the first of the rows where something is missing, if there are any."""
        rows = np.flatnonzero(gaps)
        if rows.size:
            raise ValueError(f"{self.place(int(rows[0]))}: {what}; fill it in or remove the row")

    def series(self, names: Sequence[str]) -> list[pl.Series]:
        """Return columns of a table of a frame, in this order; fast for thousands of them."""
        frame: Any = self.features
        held = {column.name: column for column in frame.get_columns()}
        return [held[name] for name in names]

    def text(self, column: pl.Series) -> pl.Series:
        """Return a column of the table as String, as it was written."""
        return as_text(self.codes.get(column.name, column))

    def columns(self, names: Sequence[str]) -> Rows:
        """Return columns of numbers in this order, NaN where missing; those that a sparse table lacks are zero.

        Examples
        --------
        >>> Table("a", csr_array([[1.0, 2.0]]), np.array([0])).columns(["x1", "x7"]).toarray().tolist()
        [[2.0, 0.0]]
        """
        features: Any = self.features
        if isinstance(features, pl.DataFrame):
            return as_numbers(self.series(names)).reshape(self.n_rows, len(names))
        if tuple(names) == self.names:
            return features  # type: ignore[no-any-return]
        at = {name: j for j, name in enumerate(self.names)}
        if isinstance(features, csr_array):
            for name in names:
                at.setdefault(name, len(at))
            parts = (features.data, features.indices, features.indptr)
            features = csr_array(parts, shape=(self.n_rows, len(at)))
        return features[:, [at[name] for name in names]]  # type: ignore[no-any-return]

    def take(self, index: NDArray[Any] | Sequence[int], node_id: str | None = None) -> Table:
        """Return the rows with these indices as another table, of node `node_id` if given.

        Examples
        --------
        >>> Table("a", np.eye(3), np.array([0, 1, 1])).take([2], "b").place(0)
        'the arrays given, row 3'
        """
        chosen = np.asarray(index, dtype=np.int64)
        features: Any = self.features
        numbers: Any = self.row_numbers
        return replace(
            self,
            node_id=self.node_id if node_id is None else node_id,
            features=features[chosen],
            labels=self.labels[chosen] if self.labels.size else self.labels,
            codes={name: column[chosen] for name, column in self.codes.items()},
            row_numbers=numbers[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def split(self, names: NDArray[np.str_], remedy: str = "give them one name") -> list[Table]:
        """Return one table per distinct name, named by it, in sorted order; the remedy is for names spelled alike."""
        parts = [(name, self.take(rows, name)) for name, rows in blocks(names)]
        said = (*self.notes, *twins({name: part.n_rows for name, part in parts}, remedy))
        return [replace(part, source=f"{self.source} (node {name!r})", notes=said) for name, part in parts]


def twins(sizes: Mapping[str, int], remedy: str) -> list[str]:
    """Return in a line each which names of nodes may be of one, with what joins them.

    In the remedy, ``{python}`` and ``{flag}`` are what turns the others into the one of the most rows.

    Examples
    --------
    >>> twins({"Bonn": 9, "bonn": 2, "Rome": 5}, "join them with --node-map {flag}")
    ["nodes 'Bonn' and 'bonn' differ in spelling only: if they are one node, join them with --node-map bonn=Bonn"]
    """
    notes = []
    for group in confusable(sizes):
        most = max(group, key=lambda name: sizes[name])
        others = [name for name in group if name != most]
        python = f"{{{', '.join(f'{shown(name)}: {shown(most)}' for name in others)}}}"
        how = remedy.format(python=python, flag=shlex.quote(",".join(f"{name}={most}" for name in others)))
        notes.append(f"nodes {' and '.join(told_apart(*group))} differ in spelling only: if they are one node, {how}")
    return notes


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Raise a ValueError if two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and not twice[0]:
        places = ", ".join(f"{place + 1}" for place, name in enumerate(names) if not name)
        raise ValueError(f"{where}: columns {places} have no name; give them names, or take all but one away")
    if twice:
        raise ValueError(f"{where}: two columns are called {twice[0]!r}; rename one")


def _csr(features: Any) -> csr_array[np.float64]:
    if features.ndim != 2:
        raise ValueError(f"X must have rows and columns, got shape {features.shape}; reshape it")
    rows = csr_array(features, dtype=np.float64)
    if not rows.has_canonical_format:
        rows = rows.copy()  # the caller's own array stays as it is
        rows.sum_duplicates()
    return rows


def _dense(features: Any, source: str) -> FloatArray:
    try:
        array = real_array("X", features)
    except ValueError as error:
        raise ValueError(f"{source}: {error}; give numbers, or a frame with columns") from error
    if array.ndim != 2:
        raise ValueError(f"{source}: X must have rows and columns, got shape {array.shape}; reshape it")
    return array
