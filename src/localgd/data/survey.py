"""What nodes tell of their tables while columns are prepared: kinds, tallies, sums; never a row.

Values of a category column, words of a text column and the classes do leave a node, as tallies.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from localgd.core import CountKey, Field, Message, Report, Schema
from localgd.data.coding import labels_at
from localgd.data.gaps import Gaps
from localgd.data.spelling import LabelMaps, confusable, key, plain_label
from localgd.data.table import Table, numbered
from localgd.data.values import as_text
from localgd.errors import shown

FEW, MANY = 20, 200
"""Text with more distinct values than this, and than half the rows, is no category: few count if most rows are so."""

EVEN = 0.9
"""A larger share of one class is said to be uneven: a model that always says this class is right as often."""

UNIQUE = "unique"
"""Instead of a number: every row of a node has another label, and there are more than a few."""


@dataclass(frozen=True)
class Survey:
    """Tell kinds of columns, and whether text or labels look like ids; no value of any column, and no label."""

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the tallies."""
        names = ("column", "distinct", "id", "labels", "numbered", "dropped", "drawn", "note", "date", "plain")
        return dict.fromkeys((*names, "gap", "met"), Field("count"))

    def run(self, message: Message, shard: Table, state: None) -> tuple[Report, None]:  # noqa: ARG002
        """Return ``column``, and ``distinct``, ``id`` and ``labels``, the rows of nodes where those look like ids."""
        features = shard.features
        counts: dict[CountKey, int] = _numbered(shard) if shard.numbered else {}
        columns = features.get_columns() if isinstance(features, pl.DataFrame) else [None] * len(shard.names)
        counts |= {("drawn",): 1} if shard.drawn else {}
        counts |= {("note", note): 1 for note in shard.notes}
        counts |= {("date", name): 1 for name in shard.dates}
        counts |= {("gap", *pair): 1 for pair in shard.gaps}
        counts |= {("met", *pair): 1 for pair in shard.met}
        plain = not shard.numbered and not isinstance(features, pl.DataFrame) and shard.names == numbered(len(columns))
        if plain:  # of wide rows, a word on each column would be more than the rows
            counts["plain", len(columns), "sparse" if isinstance(features, csr_array) else "number"] = 1
        named = [] if shard.numbered or plain else list(zip(shard.names, columns, strict=True))
        for place, (name, column) in enumerate(named):
            kind = "sparse" if isinstance(features, csr_array) else "number"
            if column is not None and column.null_count() == shard.n_rows:
                kind = "blank"  # a node that read its own file cannot tell numbers from text here
            elif column is not None and column.dtype == pl.String:
                kind = "text"
                for floor in _passed(column.drop_nulls().n_unique(), shard.n_rows):
                    counts["distinct", name, floor] = shard.n_rows
            if kind == "number" and column is not None and name not in shard.dates and _is_id(column):
                counts["id", name] = shard.n_rows
            counts["column", place, name, kind] = 1
        n_labels = len(np.unique(shard.labels))
        unique = [UNIQUE] if n_labels == shard.n_rows > FEW else []
        looks: list[int | str] = [*_passed(n_labels, shard.n_rows), *unique]
        counts |= {("labels", look): shard.n_rows for look in looks}
        return Report(1, shard.n_rows, counts=counts), None


@dataclass(frozen=True)
class Tally:
    """Name the classes, count values of category columns and rows that hold each word; find the largest numbers.

    A node says its classes together, and which categories it has that are spelled alike (`localgd.data.spelling`).

    A value or a word that fewer than `min_group` rows of the node have is not told, nor are labels, if there are more
    than any classes would be, or they are no `classes`. They are told as `label_maps` say that they mean at the node;
    one that has 1, 2, … says its name. A label that is one of `no_labels` is refused by its row.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    texts: tuple[str, ...]
    min_group: int = 1
    classes: bool = True
    no_labels: tuple[str, ...] = ()
    label_maps: LabelMaps = ()

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return an entry for each number, and the tallies."""
        numbers = {"present": Field("sum", (len(self.numbers),)), "peak": Field("max", (len(self.numbers),))}
        counts = ("label", "uneven", "category", "alike", "missing", "word", "from 1")
        return {**numbers, **dict.fromkeys(counts, Field("count"))}

    def run(self, message: Message, shard: Table, state: None) -> tuple[Report, None]:  # noqa: ARG002
        """Return sums ``present``, maxima ``peak`` = max|x|, and what there is of each kind as counts."""
        shard = labels_at(shard, self.label_maps)
        labels, sizes = np.unique(shard.labels if self.classes else np.zeros(0), return_counts=True)
        if len(labels) > MANY or len(labels) == shard.n_rows > FEW:
            raise ValueError(no_classes(f"{len(labels)}", f"{shard.n_rows} rows"))
        _refuse_labels(shard, labels, self.no_labels)
        counts = _of_labels(shard, labels, sizes)
        frame: Any = shard.features
        for name in self.categories:
            values = dict(shard.text(frame[name]).value_counts(name="count").iter_rows())
            if None in values:
                counts["missing", name] = values.pop(None)
            told = {value: count for value, count in values.items() if count >= self.min_group}
            counts |= {("category", name, value): count for value, count in told.items()}
            counts |= {("alike", name, *group): 1 for group in confusable(told)}
        for name in self.texts:
            for word, count in _document_frequencies(as_text(frame[name])).items():
                if count >= self.min_group:
                    counts["word", name, word] = count
        x: Any = shard.columns(self.numbers)
        if isinstance(x, csr_array):
            present = np.full(x.shape[1], float(shard.n_rows))
            peak = np.asarray(abs(x).max(axis=0).toarray()).ravel()
        else:
            present = (~np.isnan(x)).sum(axis=0, dtype=np.float64)
            peak = np.abs(np.nan_to_num(x)).max(axis=0, initial=0.0)
        _check_enough(shard, self.numbers, present)
        return Report(1, shard.n_rows, {"present": present}, {"peak": peak}, counts=counts), None


@dataclass(frozen=True)
class Moments:
    """Sum the deviations of numbers from a center, and their squares, in units of a power of two per column."""

    numbers: tuple[str, ...]

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return an entry for each number."""
        return dict.fromkeys(("first", "second"), Field("sum", (len(self.numbers),)))

    def run(self, message: Message, shard: Table, state: None) -> tuple[Report, None]:  # noqa: ARG002
        """Return sums ``first`` = Σ(x·2⁻ᵉ − c) and ``second`` = Σ(x·2⁻ᵉ − c)² over present values."""
        exponent = message.extra["exponent"].astype(np.int64)
        center = message.extra["center"]
        x: Any = shard.columns(self.numbers)
        if isinstance(x, csr_array):
            deviation = x.copy()
            deviation.data = np.ldexp(x.data, -exponent[x.indices]) - center[x.indices]
            zeros = shard.n_rows - np.bincount(x.indices, minlength=x.shape[1])
            first = deviation.sum(axis=0) - zeros * center
            second = deviation.power(2).sum(axis=0) + zeros * center**2
        else:
            _check_enough(shard, self.numbers, (~np.isnan(x)).sum(axis=0, dtype=np.float64))
            dense = np.nan_to_num(np.ldexp(x, -exponent) - center)
            first, second = dense.sum(axis=0), (dense**2).sum(axis=0)
        return Report(1, shard.n_rows, {"first": first, "second": second}), None


def _is_id(column: pl.Series) -> bool:
    """Return whether every row has another whole number, and there are more than a few."""
    present = column.drop_nulls()
    if len(present) <= FEW or bool((present.head(FEW) % 1 != 0).any()):
        return False
    return not bool((present % 1 != 0).any()) and present.n_unique() == len(present)


def _numbered(table: Table) -> dict[CountKey, int]:
    """Return what there is to tell of columns that are numbered: the first, the last, and those left out between."""
    numbers = np.fromiter((int(name.removeprefix("x")) for name in table.names), np.int64, len(table.names))
    first, last = (int(numbers.min()), int(numbers.max())) if numbers.size else (1, 0)
    left_out = np.setdiff1d(np.arange(first, last + 1), numbers).tolist()
    return {("numbered", first, last): 1, **{("dropped", number): 1 for number in left_out}}


def tallies(report: Report, what: str) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield what nodes counted of a kind: what it is of, and the number."""
    for (head, *parts), count in report.counts.items():
        if head == what:
            yield tuple(parts), count


def likely_ids(survey: Report) -> dict[str, int]:
    """Return the rows of nodes where most values of a column differ, by its name."""
    found = {name: n_rows for (name, floor), n_rows in tallies(survey, "distinct") if floor == FEW}
    for (name,), n_rows in tallies(survey, "id"):
        found[name] = found.get(name, 0) + n_rows
    return found


def same_gaps(survey: Report) -> Gaps:
    """Return what stands for a missing value at all nodes.

    Raises
    ------
    ValueError
        If it does at some of them only: rows to come could not be read as all of these were.
    """
    found = dict(tallies(survey, "gap"))
    for (column, text), count in found.items():
        if count < survey.n_nodes:
            where = f" in column {shown(column)}" if column else ""
            raise ValueError(
                f"missing_values: {shown(text)}{where} stands for a missing value at {count} of {survey.n_nodes} "
                "nodes; say the same of all of them"
            )
    return tuple(sorted(found))


def _passed(n_distinct: int, n_rows: int) -> list[int]:
    """Return the numbers up to which distinct values would be few, and that so many in so many rows have passed."""
    return [floor for floor in (FEW, MANY) if n_distinct > max(floor, n_rows / 2)]


def no_classes(how_many: str, rows: str) -> str:
    """Return the error of a label column that holds no classes."""
    return (
        f"label: {how_many} distinct values in {rows}: it looks like a number to predict or an id, not a class; name "
        f"another column, or merge values until {FEW} are left; to predict numbers is a regression: `localgd train "
        "--task regression`, in Python prepare(…, classes=False)"
    )


def _of_labels(shard: Table, labels: Any, sizes: Any) -> dict[CountKey, int]:
    """Return what there is to tell of a node's labels: which there are, and not how many rows of each."""
    counts: dict[CountKey, int] = {}
    plain = [plain_label(one) for one in labels]
    if plain:
        counts["label", *(part for value in plain for part in (type(value).__name__, value))] = 1
    if len(plain) > 1 and {key(one) for one in plain} == {f"{number}" for number in range(1, len(plain) + 1)}:
        counts["from 1", shard.node_id] = 1
    if len(plain) > 1 and sizes.max() > EVEN * shard.n_rows:
        counts["uneven",] = 1
    return counts


def _refuse_labels(table: Table, labels: Any, refused: Collection[str]) -> None:
    """Refuse labels, by the first row, that stand for a missing value."""
    for label in (one for one in labels.tolist() if str(one) in refused):
        what = f"{table.place(int(np.argmax(table.labels == label)))}: the label is {shown(label)}"
        flag = f"--label-map {shlex.quote(f'{label}={label}')}"
        raise ValueError(
            f"{what}, which stands for a missing value; correct it, leave the row out, or, if it is a class, say so "
            f"with label_map={{{shown(label)}: …}} ({flag})"
        )


def _check_enough(table: Table, names: Sequence[str], n_present: Any) -> None:
    """Hold the number of values that columns of these names have against the limits."""
    if table.limits is not None:
        table.limits.enough(names, n_present)


def _document_frequencies(texts: pl.Series) -> dict[str, int]:
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - heavy, and only text needs it

    words = CountVectorizer().build_analyzer()
    lines = texts.drop_nulls().str.normalize("NFC").to_list()
    frequencies = Counter(word for line in lines for word in set(words(line)))
    return dict(sorted(frequencies.items()))
