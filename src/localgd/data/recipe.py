"""What preparation has learned: how each column becomes numbers. JSON both ways, applied on any node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from scipy.sparse import csr_array, diags_array, hstack

from localgd.core import Rows, Shard
from localgd.data.arrays import unlabelled
from localgd.data.columns import as_text, number_column
from localgd.data.table import Table
from localgd.rounding import FloatArray

Label: TypeAlias = "str | int | float | bool"
Unseen: TypeAlias = Literal["error", "zeros"]


@dataclass(frozen=True)
class Number:
    """A column of numbers: ``(x − center) / scale``, with `fill` for x where it is missing."""

    name: str
    fill: float = 0.0
    center: float = 0.0
    scale: float = 1.0

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name,)

    def block(self, column: pl.Series, table: Table, unseen: Unseen) -> Rows:  # noqa: ARG002 - one signature for all
        """Return the encoded column, shape (n, 1)."""
        values = number_column(column, table.place).fill_null(self.fill).to_numpy()
        return ((values - self.center) / self.scale)[:, None]


@dataclass(frozen=True)
class Category:
    """A column of categories: one column of zeros and ones for each.

    A missing value is a category of its own (`missing` = "category"), all zeros ("zeros"), the category `fill`
    ("most-frequent"), or, if training never met one, unseen ("unseen").
    """

    name: str
    categories: tuple[str, ...]
    missing: Literal["category", "zeros", "most-frequent", "unseen"] = "unseen"
    fill: str | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, like ``odor=almond``; a missing value is ``odor=?``."""
        return tuple(f"{self.name}={c}" for c in (*self.categories, *(["?"] if self.missing == "category" else [])))

    def block(self, column: pl.Series, table: Table, unseen: Unseen) -> Rows:
        """Return the encoded column as CSR, shape (n, number of categories)."""
        text = as_text(column)
        if self.fill is not None:
            text = text.fill_null(self.fill)
        codes = text.replace_strict(self.categories, range(len(self.categories)), default=-1)
        code = codes.fill_null(-1).to_numpy()
        blank = text.is_null().to_numpy()
        if self.missing == "category":
            code = np.where(blank, len(self.categories), code)
        strange = (code < 0) & ~(blank & (self.missing == "zeros"))
        if unseen == "error" and strange.any():
            row = int(np.argmax(strange))
            known = ", ".join(self.categories[:10]) + (", …" if len(self.categories) > 10 else "")
            value = "nothing" if blank[row] else repr(text[row])
            raise ValueError(
                f"{table.place(row)}: column {self.name!r} holds {value}, unseen in training (known: {known}); "
                "correct it, or encode with unseen='zeros'"
            )
        rows = np.flatnonzero(code >= 0)
        shape = (text.len(), len(self.feature_names))
        return csr_array((np.ones(rows.size), (rows, code[rows])), shape=shape)


@dataclass(frozen=True)
class Words:
    """A column of text: TF-IDF of its words, each row of Euclidean norm 1 (or 0, without any known word)."""

    name: str
    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, like ``sentence:good``."""
        return tuple(f"{self.name}:{word}" for word in self.vocabulary)

    def block(self, column: pl.Series, table: Table, unseen: Unseen) -> Rows:  # noqa: ARG002 - one signature for all
        """Return the encoded column as CSR, shape (n, number of words)."""
        from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - heavy, and only text needs it

        texts = as_text(column).fill_null("").to_list()
        counts = csr_array(CountVectorizer(vocabulary=self.vocabulary).transform(texts), dtype=np.float64)
        weighted = csr_array(counts @ diags_array(np.array(self.idf)))
        norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
        return csr_array(diags_array(1 / np.where(norms > 0, norms, 1.0)) @ weighted)


Encoding: TypeAlias = "Number | Category | Words"
_KINDS: dict[str, type[Encoding]] = {"number": Number, "category": Category, "words": Words}


@dataclass(frozen=True)
class Recipe:
    """How rows become numbers, the same on every node.

    Parameters
    ----------
    columns : tuple of Number, Category or Words
        One per column of the table.
    classes : pair of labels
        Sorted; the second is y = +1.
    intercept : bool
        Whether a last column holds the bias: 1 in plain rows, y in signed ones.
    sparse : bool
        Whether rows are stored as CSR.

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
    classes: tuple[Label, Label]
    intercept: bool
    sparse: bool

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One name per encoded column; the bias is ``(bias)``."""
        names = [name for column in self.columns for name in column.feature_names]
        return (*names, "(bias)") if self.intercept else tuple(names)

    def matrix(self, features: Any, *, unseen: Unseen = "error") -> Rows:
        """Return rows ready for ``@ w``, without the sign of a label.

        Parameters
        ----------
        features : Table, polars or pandas DataFrame, array or sparse array
            Columns are found by name (by position in an array); others are ignored.
        unseen : "error" or "zeros"
            What to do with a category that training never met: raise, or encode as all zeros.

        Returns
        -------
        (n, d) float64 array or CSR array

        Raises
        ------
        ValueError
            If columns are missing, or hold what the recipe cannot encode; names row, column and value.
        """
        if unseen not in {"error", "zeros"}:
            raise ValueError(f"unseen must be 'error' or 'zeros', got {unseen!r}")
        table = features if isinstance(features, Table) else unlabelled(features)
        frame = table.features
        if not isinstance(frame, pl.DataFrame):
            blocks = [self._numbers(table, named=isinstance(features, Table))]
        else:
            _check_columns([c.name for c in self.columns], frame.columns, table.source)
            blocks = [column.block(frame[column.name], table, unseen) for column in self.columns]
        if self.intercept:
            blocks.append(np.ones((table.n_rows, 1)))
        if self.sparse:
            return csr_array(hstack([csr_array(block) for block in blocks], format="csr"))
        return np.hstack([block.toarray() if isinstance(block, csr_array) else block for block in blocks])

    def _numbers(self, table: Table, *, named: bool) -> Rows:
        """Return the encoded rows of a table of arrays, whose columns are all numbers."""
        features: Any = table.features
        names = tuple(column.name for column in self.columns)
        if not all(isinstance(column, Number) for column in self.columns):
            raise ValueError(
                f"{table.source}: an array, but the recipe has categories or text; give a frame with {names}"
            )
        if named and names != table.names:
            at = {name: j for j, name in enumerate(table.names)}
            if isinstance(features, csr_array):
                # An svmlight file does not write zeros: a column it lacks is zero.
                for name in names:
                    at.setdefault(name, len(at))
                parts = (features.data, features.indices, features.indptr)
                features = csr_array(parts, shape=(table.n_rows, len(at)))
            _check_columns(names, at, table.source)
            features = features[:, [at[name] for name in names]]
        if features.shape[1] != len(names):
            raise ValueError(
                f"{table.source}: {features.shape[1]} columns where the recipe has {len(names)}; give those"
            )
        numbers: Any = self.columns
        center = np.array([number.center for number in numbers])
        scale = np.array([number.scale for number in numbers])
        if isinstance(features, csr_array) and not center.any():
            return csr_array(
                (features.data / scale[features.indices], features.indices, features.indptr), features.shape
            )
        dense = features.toarray() if isinstance(features, csr_array) else features
        return np.asarray((dense - center) / scale)

    def signs(self, table: Table) -> FloatArray:
        """Return y = ±1 for every row of a table.

        Raises
        ------
        ValueError
            If a label is neither class, or the table has no labels; names row and value.
        """
        if table.labels.size == 0:
            raise ValueError(f"{table.source}: the rows have no labels; load them with their label column")
        values, codes = np.unique(table.labels, return_inverse=True)
        known = [plain_label(value) for value in values]
        strange = np.array([value not in self.classes for value in known])[codes]
        if strange.any():
            row = int(np.argmax(strange))
            raise ValueError(
                f"{table.place(row)}: label {plain_label(table.labels[row])!r} is neither {self.classes[0]!r} nor "
                f"{self.classes[1]!r}; correct it or remove the row"
            )
        return np.array([1.0 if value == self.classes[1] else -1.0 for value in known])[codes]

    def encode(self, table: Table) -> Shard:
        """Return the table's signed rows y·x as a shard; what `Engine.map` takes."""
        rows: Any = self.matrix(table)
        signs = self.signs(table)
        return Shard(table.node_id, csr_array(diags_array(signs) @ rows) if self.sparse else rows * signs[:, None])

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON-able values."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        columns = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns]
        return {
            "columns": columns,
            "classes": list(self.classes),
            "intercept": self.intercept,
            "sparse": self.sparse,
        }

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
                fields: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list | tuple) else v for k, v in column.items() if k != "kind"
                }
                columns.append(_KINDS[column["kind"]](**fields))
            classes = values["classes"]
            return cls(tuple(columns), (classes[0], classes[1]), bool(values["intercept"]), bool(values["sparse"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"values is no recipe ({type(error).__name__}: {error}); write it with to_dict") from error


def plain_label(value: Any) -> Label:
    """Return a label as a Python value, whole numbers as int: the same class on a node with 1 and one with 1.0.

    Examples
    --------
    >>> plain_label(np.float64(1.0)), plain_label(np.str_("ill")), plain_label(np.True_)
    (1, 'ill', True)
    """
    plain: Label = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _check_columns(needed: Any, given: Any, source: str) -> None:
    held = set(given)
    absent = [name for name in needed if name not in held]
    if absent:
        raise ValueError(
            f"{source}: no column {', '.join(map(repr, absent[:8]))}{', …' if len(absent) > 8 else ''}, which training "
            "used; add it"
        )
