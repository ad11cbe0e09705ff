"""How a column becomes numbers: as it is, one column for each category, or TF-IDF of its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from localgd.data.gaps import remedy
from localgd.data.spelling import places
from localgd.data.table import Table
from localgd.data.values import as_text
from localgd.errors import check_kind, check_whole, cut, shown
from localgd.layouts.layout import Rows
from localgd.rounding import FloatArray, is_number

Unseen: TypeAlias = Literal["error", "zeros"]
OfMissing: TypeAlias = Literal["category", "zeros", "most-frequent", "unseen"]


LARGEST = 1e300
"""Beyond, a number has no room for what is added to it."""


def check_texts(name: str, values: Any) -> None:
    """Refuse what is no tuple of distinct texts."""
    if not (isinstance(values, tuple) and all(isinstance(value, str) for value in values)):
        raise ValueError(f"{name} must be texts, got {values!r:.100}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must differ from each other, got {values!r:.100}")


def check_spellings(what: str, pairs: Any, known: tuple[Any, ...]) -> None:
    """Refuse what are no pairs of a value as written and one of those known."""
    listed = isinstance(pairs, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
    if not listed or not all(isinstance(one, str | int | float) and meant in known for one, meant in pairs):
        raise ValueError(f"{what}: spellings must be pairs, as written and as meant, got {pairs!r:.100}")


@dataclass(frozen=True, slots=True)  # wide rows have many
class Number:
    """A column of numbers: ``(x − center) / scale``, with `fill` for a missing x; training met `n_missing` of them.

    With None for `fill`, a missing x is refused. If they were `dates`, x is days since 1970, of dates or already as
    numbers.
    """

    name: str
    fill: float | None = 0.0
    center: float = 0.0
    scale: float = 1.0
    n_missing: int = 0
    dates: bool = False

    def __post_init__(self) -> None:
        """Check every field once."""
        check_kind("the name of a column", self.name, str, "a text")
        check_whole("n_missing", self.n_missing, 0)
        numbers = {"center": self.center, "scale": self.scale} | ({} if self.fill is None else {"fill": self.fill})
        for name, value in numbers.items():
            least = 1 / LARGEST if name == "scale" else -LARGEST
            if not (is_number(value) and least <= value <= LARGEST):
                raise ValueError(
                    f"column {self.name!r}: {name} must be a number from {least:g} to {LARGEST:g}, got {value!r:.100}"
                )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name,)


@dataclass(frozen=True)
class Category:
    """A column of categories: one column of zeros and ones for each.

    A missing value is a category of its own (`missing` = "category"), all zeros ("zeros"), the category `fill`
    ("most-frequent"), or, if training never met one, unseen ("unseen"). Training met `n_missing`. A value in another
    spelling (`localgd.data.spelling`) is the category that it means; `spellings` are those of training.
    """

    name: str
    categories: tuple[str, ...]
    missing: OfMissing = "unseen"
    fill: str | None = None
    n_missing: int = 0
    spellings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check every field once."""
        check_kind("the name of a column", self.name, str, "a text")
        check_texts(f"categories of column {self.name!r}", self.categories)
        check_whole("n_missing", self.n_missing, 0)
        if self.missing not in get_args(OfMissing):
            raise ValueError(f"missing must be one of {', '.join(get_args(OfMissing))}, got {self.missing!r:.100}")
        if self.fill not in (None, *self.categories):
            raise ValueError(f"column {self.name!r}: fill must be one of its categories, got {self.fill!r:.100}")
        check_spellings(f"column {self.name!r}", self.spellings, self.categories)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, like ``odor=almond``; a missing value is ``odor=?`` (see `levels`)."""
        return tuple(f"{self.name}={level}" for level in self.levels)

    @property
    def levels(self) -> tuple[str, ...]:
        """The categories, and ``?`` where a missing value is one: ``(missing)`` if a category is called ``?``.

        Examples
        --------
        >>> Category("odor", ("almond", "?"), "category").levels
        ('almond', '?', '(missing)')
        """
        if self.missing != "category":
            return self.categories
        missing = "(missing)" if "?" in self.categories else "?"
        while missing in self.categories:
            missing = f"({missing})"
        return (*self.categories, missing)

    def codes(self, column: pl.Series, table: Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the place of every row's value among the levels, −1 for none, and where training met no such value."""
        text = table.text(column)
        if self.fill is not None:
            text = text.fill_null(self.fill)
        values = text.drop_nulls().unique(maintain_order=True).to_list()
        codes = text.replace_strict(values, places(values, self.categories, self.spellings), default=-1)
        code = codes.fill_null(-1).to_numpy()
        blank = text.is_null().to_numpy()
        if self.missing == "category":
            code = np.where(blank, len(self.categories), code)
        return code, (code < 0) & ~(blank & (self.missing == "zeros"))

    def block(self, column: pl.Series, table: Table, unseen: Unseen) -> Rows:
        """Return the encoded column as CSR, shape (n, number of categories)."""
        code, strange = self.codes(column, table)
        if unseen == "error" and strange.any():
            row = int(np.argmax(strange))
            known = ", ".join(cut(one) for one in self.categories[:10]) + (", …" if len(self.categories) > 10 else "")
            held = table.text(column)[row]
            value = "nothing" if held is None else shown(held)
            none = f"if it stands for a missing value, say so with {remedy(held)}; " if held else ""
            none = "" if self.missing == "unseen" else none  # that would be refused, too
            raise ValueError(
                f"{table.place(row)}: column {self.name!r} holds {value}, unseen in training (known: {known}); "
                f"correct it; {none}or treat what is unseen as zeros with unseen='zeros' (--unseen zeros)"
            )
        rows = np.flatnonzero(code >= 0)
        shape = (column.len(), len(self.feature_names))
        return csr_array((np.ones(rows.size), (rows, code[rows])), shape=shape)


@dataclass(frozen=True)
class Words:
    """A column of text: TF-IDF of its words, each row of Euclidean norm 1 (or 0, without any known word)."""

    name: str
    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check every field once."""
        check_kind("the name of a column", self.name, str, "a text")
        check_texts(f"words of column {self.name!r}", self.vocabulary)
        numbers = isinstance(self.idf, tuple) and all(map(is_number, self.idf)) and np.isfinite(self.idf).all()
        if not numbers or len(self.idf) != len(self.vocabulary):
            raise ValueError(f"column {self.name!r}: idf must be a finite number for each of its words")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, like ``sentence:good``."""
        return tuple(f"{self.name}:{word}" for word in self.vocabulary)

    def block(self, column: pl.Series, table: Table, unseen: Unseen) -> Rows:  # noqa: ARG002 - one signature for all
        """Return the encoded column as CSR, shape (n, number of words)."""
        from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - heavy, and only text needs it

        texts = as_text(column).fill_null("").str.normalize("NFC").to_list()
        counts = csr_array(CountVectorizer(vocabulary=self.vocabulary).transform(texts), dtype=np.float64)
        weighted = csr_array(counts @ diags_array(np.array(self.idf)))
        norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
        return csr_array(diags_array(1 / np.where(norms > 0, norms, 1.0)) @ weighted)


Encoding: TypeAlias = "Number | Category | Words"
KINDS: dict[str, type[Encoding]] = {"number": Number, "category": Category, "words": Words}


def scaled(values: FloatArray, numbers: Sequence[Number]) -> FloatArray:
    """Fill, center and scale columns of numbers, in place."""
    fills = np.array([np.nan if number.fill is None else number.fill for number in numbers])
    np.copyto(values, fills, where=np.isnan(values))
    values -= np.array([number.center for number in numbers])
    values /= np.array([number.scale for number in numbers])
    return values
