"""What preparation has learned: how each column becomes numbers. JSON both ways, applied on any node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import count, groupby
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from localgd.data.arrays import unlabelled
from localgd.data.classes import signed
from localgd.data.coding import check_labelled, codes_of, labels_at, weighed
from localgd.data.encodings import (
    KINDS,
    Category,
    Encoding,
    Number,
    Unseen,
    Words,
    check_spellings,
    check_texts,
    scaled,
)
from localgd.data.gaps import Gaps, check_gaps
from localgd.data.numbering import check_counted
from localgd.data.spelling import Label, LabelMaps, Pairs, plain_label
from localgd.data.table import Table
from localgd.data.values import as_days, finite_numbers, is_number_type, refuse_odd
from localgd.errors import check_flag, check_kind, plain, shown
from localgd.layouts.csr import biased
from localgd.layouts.layout import Rows
from localgd.layouts.prepared import Prepared, mapped
from localgd.rounding import FloatArray, is_number
from localgd.rows import Samples, Shard


@dataclass(frozen=True)
class Recipe:
    """How rows become numbers, the same on every node.

    Parameters
    ----------
    columns : tuple of Number, Category or Words
        One per column of the table.
    classes : tuple of two or more labels, or of none
        Sorted. Of two, the second is y = +1. None where labels are real targets.
    intercept : bool
        Whether a last column holds the bias: 1 in plain rows, y in signed ones.
    sparse : bool
        Whether rows are stored as CSR.
    unseen : "error" or "zeros"
        What a category that is not among the known ones means: a mistake, or all zeros.
    spellings : tuple of (label as written, class)
        Labels of training that are a class in another spelling, or that `prepare` was told to take for it.
    notes : tuple of str
        What a person should know of the preparation, a line each: what was joined, left out or looks odd.
    class_weights : tuple of float
        What a row of each class counts in training, beside its own weight; empty if that is 1 for all.
    gaps : tuple of (column or "", text)
        What stands for a missing value, as somebody said of the rows of training (`localgd.data.gaps`).
    label_maps : tuple of (node, pairs of label as written and class)
        What labels of one node mean, where `prepare` was told so of that node.
    empty : tuple of str
        Columns that training left out, as no row had a value there.

    Examples
    --------
    >>> recipe = Recipe((Number("age", 50.0, 50.0, 10.0), Category("sex", ("f", "m"))), ("ill", "well"), True, False)
    >>> recipe.feature_names
    ('age', 'sex=f', 'sex=m', '(bias)')
    >>> recipe.matrix(pl.DataFrame({"sex": ["m", "f"], "age": [60.0, None]}))
    array([[1., 0., 1., 1.],
           [0., 1., 0., 1.]])
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    columns: tuple[Encoding, ...]
    classes: tuple[Label, ...]
    intercept: bool
    sparse: bool
    unseen: Unseen = "error"
    spellings: Pairs = ()
    notes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    gaps: Gaps = ()
    label_maps: LabelMaps = ()
    empty: tuple[str, ...] = ()

    @property
    def unweighted(self) -> Recipe:
        """The recipe without weights of classes: those are for training, and no part of how well a model decides."""
        return replace(self, class_weights=()) if self.class_weights else self

    def __post_init__(self) -> None:
        """Check once that each part is of its kind: a recipe may come from a file that anybody wrote."""
        for column in self.columns:
            check_kind("a column", column, Number | Category | Words, "Number(…), Category(…) or Words(…)")
        check_texts("names of columns", tuple(column.name for column in self.columns))
        for name in ("intercept", "sparse"):
            check_flag(name, getattr(self, name))
        if self.unseen not in get_args(Unseen):
            raise ValueError(f"unseen must be one of {', '.join(get_args(Unseen))}, got {self.unseen!r:.100}")
        if not all(isinstance(value, str) or is_number(value) or isinstance(value, bool) for value in self.classes):
            raise ValueError(f"classes must be texts, numbers or truth values, got {self.classes!r:.100}")
        if len(set(self.classes)) < len(self.classes) or len(self.classes) == 1:
            raise ValueError(f"classes must be none, or two or more that differ, got {self.classes!r:.100}")
        right = all(is_number(weight) and 0 <= weight < math.inf for weight in self.class_weights)
        if not right or len(self.class_weights) not in (0, len(self.classes)):
            raise ValueError(f"class_weights must be a number of at least 0 a class, got {self.class_weights!r:.100}")
        check_spellings("labels", self.spellings, self.classes)
        check_gaps(self.gaps)
        check_texts("empty", self.empty)
        for node, pairs in self.label_maps:
            check_spellings(f"labels of node {node!r:.100}", pairs, self.classes)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One name per encoded column, each once; the bias is ``(bias)``."""
        names = [name for column in self.columns for name in column.feature_names]
        names += ["(bias)"] if self.intercept else []
        numbers = all(isinstance(column, Number) for column in self.columns)  # their names are known to differ
        return tuple(names) if numbers and names.count("(bias)") < 2 else tuple(_distinct(names))

    @property
    def n_missing(self) -> int:
        """How many missing values training met, over all nodes."""
        return sum(0 if isinstance(column, Words) else column.n_missing for column in self.columns)

    @property
    def summary(self) -> str:
        """What the columns are, in one line, and the notes below it."""
        return "\n".join([self.columns_said, *self.notes])

    def n_missing_in(self, table: Table) -> int:
        """Return how many values the rows of a table lack that the recipe fills.

        Examples
        --------
        >>> recipe = Recipe((Number("age"), Category("sex", ("f", "m"), "category")), (0, 1), True, False)
        >>> frame = pl.DataFrame({"age": [60.0, None, 50.0], "sex": ["f", None, None], "bed": [None, None, None]})
        >>> recipe.n_missing_in(Table("a", frame, np.zeros(0)))
        3
        """
        table = table.blanked(self.gaps)
        frame: Any = table.features
        if not isinstance(frame, pl.DataFrame):
            return int(np.isnan(frame.data if isinstance(frame, csr_array) else frame).sum())
        filled = [
            c for c in self.columns if isinstance(c, Number) or (isinstance(c, Category) and c.missing != "unseen")
        ]
        missing = 0
        for column, values in zip(filled, table.series([c.name for c in filled]), strict=True):
            dated = isinstance(column, Number) and column.dates and not is_number_type(values.dtype)
            plain = as_days(values, table.place) if dated else values
            number = isinstance(column, Number)
            missing += int(np.isnan(finite_numbers([plain], table.place)).sum()) if number else values.null_count()
        return missing

    @property
    def columns_said(self) -> str:
        """What the columns are, in one line, and how many missing values training filled."""
        return self.columns_with(self.n_missing)

    def columns_with(self, n_missing: int) -> str:
        """Return what the columns are, in one line, and that so many missing values are filled.

        Examples
        --------
        >>> Recipe((Number("age"), Category("sex", ("f", "m"))), (0, 1), True, False).columns_with(3)
        '1 number, 1 column of 2 categories; 3 missing values filled'
        """
        numbers = sum(isinstance(column, Number) for column in self.columns)
        categories = [len(column.categories) for column in self.columns if isinstance(column, Category)]
        words = [len(column.vocabulary) for column in self.columns if isinstance(column, Words)]
        parts = [
            _count(numbers, "number"),
            f"{_count(len(categories), 'column')} of {_count(sum(categories), 'category', 'categories')}",
            f"{_count(len(words), 'text column')} of {_count(sum(words), 'word')}",
        ]
        said = ", ".join(part for part, found in zip(parts, (numbers, categories, words), strict=True) if found)
        return f"{said}; {_count(n_missing, 'missing value')} filled" if n_missing else said

    def matrix(self, features: Any, *, unseen: Unseen | None = None) -> Rows:
        """Return rows ready for ``@ w``, without the sign of a label.

        Parameters
        ----------
        features : Table, polars or pandas DataFrame, array or sparse array
            Columns are found by name (by position in an array); others are ignored.
        unseen : "error" or "zeros", optional
            What to do with a category that training never met: raise, or encode as all zeros; as the recipe says by
            default.

        Returns
        -------
        (n, d) float64 array or CSR array

        Raises
        ------
        ValueError
            If columns are missing, or hold what the recipe cannot encode; names row, column and value.
        """
        unseen = self.unseen if unseen is None else unseen
        if unseen not in {"error", "zeros"}:
            raise ValueError(f"unseen must be 'error' or 'zeros', got {unseen!r}")
        table = (features if isinstance(features, Table) else unlabelled(features)).blanked(self.gaps)
        frame = table.features
        if isinstance(frame, pl.DataFrame):
            _check_columns([c.name for c in self.columns], frame.columns, table.source)
            blocks = list(self._blocks(table, unseen))
        else:
            blocks = [self._numbers(table, named=isinstance(features, Table))]
        if self.sparse:
            alone = len(blocks) == 1
            rows = csr_array(blocks[0] if alone else hstack([csr_array(block) for block in blocks], format="csr"))
            return biased(rows) if self.intercept else rows.copy()
        out = np.ones((table.n_rows, len(self.feature_names)))  # the last column stays 1 if it is the bias
        end = 0
        for block in blocks:
            start, end = end, end + block.shape[1]
            out[:, start:end] = block.toarray() if isinstance(block, csr_array) else block
        return out

    def _blocks(self, table: Table, unseen: Unseen) -> Iterator[Rows]:
        """Yield the encoded columns of a frame, in order; numbers side by side go together."""
        series = table.series([column.name for column in self.columns])
        refuse_odd(series, table.source)
        for kind, run in groupby(zip(self.columns, series, strict=True), lambda pair: type(pair[0])):
            pairs: Any = list(run)
            if kind is Number:
                days = [as_days(c, table.place) if n.dates and not is_number_type(c.dtype) else c for n, c in pairs]
                values = finite_numbers(days, table.place)
                for place in np.flatnonzero([number.fill is None for number, _ in pairs]):
                    table.refuse_gaps(np.isnan(values[:, place]), f"column {pairs[place][0].name!r} holds nothing")
                yield scaled(values, [number for number, _ in pairs])
            else:
                yield from (encoding.block(column, table, unseen) for encoding, column in pairs)

    def _numbers(self, table: Table, *, named: bool) -> Rows:
        """Return the encoded rows of a table of arrays, whose columns are all numbers."""
        features: Any = table.features
        names = tuple(column.name for column in self.columns)
        if not all(isinstance(column, Number) for column in self.columns):
            raise ValueError(
                f"{table.source}: an array, but the recipe has categories or text; give a frame with {names}"
            )
        if named and names != table.names:
            check_counted(table, names)
            if not isinstance(features, csr_array):  # an svmlight file does not write zeros: what it lacks is zero
                _check_columns(names, table.names, table.source)
            features = table.columns(names)
        if features.shape[1] != len(names):
            raise ValueError(
                f"{table.source}: {features.shape[1]} columns where the recipe has {len(names)}; give those"
            )
        numbers: Any = self.columns
        if isinstance(features, csr_array) and not any(number.center for number in numbers):
            data = np.array([number.scale for number in numbers])[features.indices]
            np.divide(features.data, data, out=data)
            return csr_array((data, features.indices, features.indptr), features.shape)
        return scaled(features.toarray() if isinstance(features, csr_array) else features.copy(), numbers)

    def codes(self, table: Table) -> NDArray[np.intp]:
        """Return the place of every row's label among the classes, however it is spelled.

        Raises
        ------
        ValueError
            If a label is none of the classes, or the table has no labels; names row and value.
        """
        return codes_of(labels_at(table, self.label_maps), self.classes, self.spellings)

    def targets(self, table: Table) -> FloatArray:
        """Return every row's label as a number.

        Raises
        ------
        ValueError
            If one is none, or the table has no labels; names row and value.
        """
        check_labelled(table)
        texts: Any = () if table.labels.dtype.kind in "biuf" else table.labels
        row = next((row for row, value in enumerate(texts) if not _is_number(value)), None)
        if row is not None:
            raise ValueError(
                f"{table.place(row)}: label {shown(plain_label(table.labels[row]))} is no number to fit; name another "
                "column, correct it, or remove the row"
            )
        return np.asarray(table.labels, dtype=np.float64)

    def __call__(self, table: Table) -> Shard:
        """Return the table's signed rows, or rows and targets, as a shard: a recipe is what `Engine.map` takes."""
        if not isinstance(table, Table):
            raise TypeError(f"node {table.node_id!r} holds rows that are prepared already; give nodes that hold tables")
        rows = self._in_place(table) or self.matrix(table)
        if not self.classes:
            return Samples(table.node_id, rows, self.targets(table), weights=table.weights)
        codes = self.codes(table)
        weights = weighed(table.weights, codes, self.class_weights)
        return signed(table.node_id, rows, codes, len(self.classes), weights)

    def _in_place(self, table: Table) -> Prepared | None:
        """Return the rows of a mapped file, which are to stay where they are; None if there is no such file."""
        x, names = table.features, tuple(column.name for column in self.columns)
        if self.sparse or not isinstance(x, np.ndarray) or not mapped(x) or names != table.names:
            return None
        numbers: Any = self.columns
        center, scale = (np.array([getattr(number, part) for number in numbers]) for part in ("center", "scale"))
        return Prepared(x, None, center, scale, self.intercept)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON-able values."""
        kinds = {kind: name for name, kind in KINDS.items()}
        columns = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns]
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"columns", "classes"}}
        return {"columns": columns, "classes": list(self.classes), **rest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` wrote, also after a trip through JSON.

        Raises
        ------
        ValueError
            If an entry is missing or unknown.
        """
        try:
            columns = []
            for column in values["columns"]:
                own: dict[str, Any] = {k: _tupled(v) for k, v in column.items() if k != "kind"}
                columns.append(KINDS[column["kind"]](**own))
            flags = values["intercept"], values["sparse"], values.get("unseen", "error")
            spellings, notes = _tupled(values.get("spellings", ())), tuple(map(plain, values.get("notes", ())))
            rest = (_tupled(values.get(name, ())) for name in ("class_weights", "gaps", "label_maps", "empty"))
            return cls(tuple(columns), _tupled(values["classes"]), *flags, spellings, notes, *rest)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"values is no recipe ({type(error).__name__}: {error}); write it with to_dict") from error


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names, with a number behind one that another column has, as ``a`` of ``b=c`` and ``a=b`` of ``c`` may."""
    found: dict[str, None] = {}
    for name in names:
        own = name
        for place in count(2):
            if own not in found:
                break
            own = f"{name} ({place})"
        found[own] = None
    return list(found)


def _tupled(values: Any) -> Any:
    return tuple(map(_tupled, values)) if isinstance(values, list | tuple) else values


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _check_columns(needed: Any, given: Any, source: str) -> None:
    held = set(given)
    absent = [name for name in needed if name not in held]
    if absent:
        listed = ", ".join(map(repr, absent[:8])) + (", …" if len(absent) > 8 else "")
        said = f"column {listed} was" if len(absent) == 1 else f"columns {listed} were"
        raise ValueError(
            f"{source}: {said} used in training but not found among the features; was one given as label or node, or "
            "dropped? Give the rows with the columns of training, or have them filled (--fill-missing-columns)"
        )
