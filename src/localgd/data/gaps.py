"""Values that somebody says stand for a missing one, in every column or in one: ``k.A.``, ``unknown``, ``-999``.

They come beside those of `localgd.data.values.MISSING`, which are missing among numbers whatever is said.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import polars as pl

from localgd.data.spelling import plain_label, plain_names
from localgd.errors import SHOWN, shown

Gaps: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of a column, or "" for all of them, and a text that stands for a missing value there; sorted, each once."""

MissingValues: TypeAlias = "Collection[str | float] | Mapping[str, Collection[str | float]]"
"""The same as Python says it: of all columns, or of each by its name, where "" is all of them."""


def gaps_of(said: MissingValues) -> Gaps:
    """Return what `missing_values` says; in any case, and without outer blanks.

    Raises
    ------
    ValueError
        If it is no collection of texts and numbers, nor a mapping from columns to such.

    Examples
    --------
    >>> gaps_of(["k.A.", -999]), gaps_of({"smoker": [9], "": ["--"]})
    ((('', '-999'), ('', 'k.a.')), (('', '--'), ('smoker', '9')))
    >>> gaps_of("k.A.")
    Traceback (most recent call last):
    ValueError: missing_values must be a list of texts and numbers, or a mapping from columns to such, got 'k.A.'
    """
    by_column = said if isinstance(said, Mapping) else {"": said}
    found = set[tuple[str, str]]()
    for column, values in by_column.items():
        listed = isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping)
        plain = [plain_label(value) for value in values] if listed else []
        kinds = all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in plain)
        if not (listed and kinds and isinstance(column, str)):
            what = "a list of texts and numbers, or a mapping from columns to such"
            raise ValueError(f"missing_values must be {what}, got {shown(said)}")
        found |= {(plain_names([column])[0], f"{value}".strip().lower()) for value in plain}
    return tuple(sorted(pair for pair in found if pair[1]))  # a blank is missing anyway


def check_gaps(gaps: Any) -> None:
    """Refuse what are no pairs of texts: a recipe may come from a file that anybody wrote."""
    pairs = isinstance(gaps, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in gaps)
    if not pairs or not all(isinstance(text, str) for pair in gaps for text in pair):
        raise ValueError(f"gaps must be pairs of a column and a text, got {gaps!r:.100}")


def said_values(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return what texts like ``k.A.,--`` and ``smoker:9,unknown`` say, of all columns and of one.

    A text that has a colon itself is one of all columns if a colon stands before it.

    Examples
    --------
    >>> said_values(["k.A.,--", "smoker:9", ":see: letter"])
    {'': ['k.A.', '--', 'see: letter'], 'smoker': ['9']}
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        column, colon, values = text.partition(":")
        column, values = (column.strip(), values) if colon else ("", text)
        found.setdefault(column, []).extend(value.strip() for value in values.split(","))
    return found


def blanked(frame: pl.DataFrame, gaps: Gaps) -> tuple[pl.DataFrame, Gaps]:
    """Return a frame with nothing where a value stands for nothing, and the pairs of the gaps that such values met.

    A text that spells a number is every value that is that number, however it is written, in a column of text, too,
    as a file without types tells no other: what kind a column is, all nodes decide together, and later. A value of a
    type of dates is the text YYYY-MM-DD.

    Examples
    --------
    >>> frame = pl.DataFrame({"age": [62, 9], "smoker": ["9.0", "1"], "ward": [" K.A.", "b"]})
    >>> frame, met = blanked(frame, gaps_of({"": ["k.a.", "unknown"], "smoker": ["9"]}))
    >>> frame.rows(), met
    ([(62, None, None), (9, '1', 'b')], (('', 'k.a.'), ('smoker', '9')))
    """
    changed, met = [], set[tuple[str, str]]()
    for column in frame.get_columns() if gaps else ():
        own = [(name, text) for name, text in gaps if name in {"", column.name}]
        values, gone = _gone(column, {text for _, text in own})
        if gone is not None and gone.any():
            changed.append(values.set(gone, None))
            distinct = values.filter(gone).unique()
            met |= {pair for pair in own if (at := _gone(distinct, {pair[1]})[1]) is not None and at.any()}
    return frame.with_columns(changed) if changed else frame, tuple(sorted(met))


def _gone(column: pl.Series, texts: set[str]) -> tuple[pl.Series, pl.Series | None]:
    """Return a column, of a kind in which a value can be taken away, and where its values are among the texts."""
    numbers = pl.Series(sorted(texts), dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls().drop_nans()
    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        values = column.cast(pl.String)
        plain = values.str.strip_chars().str.to_lowercase()
        gone = plain.is_in(texts).fill_null(value=False)
        if numbers.len():
            gone |= plain.cast(pl.Float64, strict=False).is_in(numbers.to_list()).fill_null(value=False)
        return values, gone
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return column, column.dt.strftime("%Y-%m-%d").is_in(texts).fill_null(value=False)
    if not column.dtype.is_numeric() or not numbers.len():
        return column, None
    values = column.cast(pl.Float64) if column.dtype.is_decimal() else column
    return values, values.cast(pl.Float64).is_in(numbers.to_list()).fill_null(value=False)


def remedy(*texts: str) -> str:
    """Return how to say that texts stand for a missing value, in Python and, if a flag can, on the command line.

    Examples
    --------
    >>> remedy("k.A.")
    "missing_values=['k.A.'] (--missing-values k.A.)"
    """
    words = [text.strip() for text in texts]
    if max(map(len, words)) > SHOWN:  # no words for nothing
        return "missing_values (--missing-values)"
    said = ",".join(words)
    flag = f" (--missing-values {shlex.quote(f':{said}' if ':' in said else said)})"
    return f"missing_values=[{', '.join(map(shown, words))}]{'' if any(',' in word for word in words) else flag}"
