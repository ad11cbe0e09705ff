"""How values are spelled: what is missing, what is a number, and what is one only to the people who wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from localgd.data.gaps import remedy
from localgd.errors import shown
from localgd.rounding import FloatArray

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
"""What stands for a missing value among numbers written as text, in any case; in text only the blank does."""

_SOME, _NEARLY_ALL = 20, 0.9
"""A column of more values than a few, of which more than such a share differ, is likely to be an id."""

CODE = r"^\s*[-+]?0\d"
"""Digits that are a code: as a number they would lose the 0."""

_LOCAL_NUMBER = (
    r"^[-+\x{2212}]?\s*[€$£¥]?\s*"
    r"(?:(?:\d{1,3}(?:[ '\x{2019}.,\x{a0}\x{202f}]\d{3})+|\d+)(?:[.,]\d*)?|[.,]\d+)"
    r"(?:[eE][-+]?\d+)?\s*[%€$£¥]?$"
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"^(?i)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    r"|\d{1,2}\.?[ -]" + _MONTH + r"[ ,-]+\d{2,4}|" + _MONTH + r" \d{1,2},? \d{4})(?:[T ].*)?$"
)
_ISO = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?$"
_DOTTED = ((r"^(\d)\.", "0${1}."), (r"^(\d\d)\.(\d)\.", "${1}.0${2}."), (r"^(\d\d)\.(\d\d)\.(\d{4})", "${3}-${2}-${1}"))
"""What makes YYYY-MM-DD of DD.MM.YYYY, whose dots say that the day stands first."""

_UNCLEAR = (
    (re.compile(r"\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2}(?!\d)"), "where day, month and a year of two digits stand"),
    (re.compile(r"\d{1,2}[-/ ]\d{1,2}[-/ ]\d{4}"), "whether day or month stands first"),
)
"""Dates that mean one thing here and another there, and what cannot be told of them."""

_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
"""A number as half of Europe writes it, if a comma groups no digits by three."""

_NO_DATES = [
    float((date.fromisoformat(day) - date(1970, 1, 1)).days)
    for day in (
        *("0001-01-01", "1753-01-01", "1800-01-01", "1899-12-30", "1899-12-31", "1900-01-01"),
        *("2099-12-31", "2199-12-31", "2999-01-01", "2999-12-31", "9999-01-01", "9999-12-31"),
    )
]
"""Days that hardly any row means; no others, as what is said of them leaves a node."""

_DAY = 24 * 3600 * 1_000_000
"""Microseconds of a day."""
_LOOKS = {
    "numbers, this one in a local style": (
        _LOCAL_NUMBER,
        "write numbers with a point, like 1234.5, or say decimal=',' of CSV files with commas (--decimal , or NODE=,)",
    ),
    "dates": (_DATE, "take them as days since 1970 with dates=[…] (--dates COLUMN)"),
}


def as_numbers(columns: Sequence[pl.Series]) -> FloatArray:
    """Return columns as numbers, shape (n, k): NaN where missing or not a number, ``true``/``false`` as 1/0.

    Examples
    --------
    >>> as_numbers([pl.Series(["1.5", "True", "NA", "abc"])]).ravel()
    array([1.5, 1. , nan, nan])
    """
    numbers = np.empty((len(columns), columns[0].len() if columns else 0))
    spelled = [j for j, column in enumerate(columns) if column.dtype == pl.String]
    for j in set(range(len(columns))).difference(spelled):
        numbers[j] = columns[j].cast(pl.Float64).to_numpy()
    if spelled:  # joined, as thousands of short columns would cost a call each
        joined = pl.concat([columns[j] for j in spelled], rechunk=True)
        numbers[spelled] = _spelled_numbers(joined).reshape(len(spelled), -1)
    return numbers.T


def _spelled_numbers(text: pl.Series) -> FloatArray:
    numbers = text.cast(pl.Float64, strict=False).to_numpy(writable=True)
    odd = np.flatnonzero(~np.isfinite(numbers))
    if odd.size:
        plain = text.gather(odd).str.strip_chars()
        words = plain.str.to_lowercase()
        truth = words.replace_strict({"true": 1.0, "false": 0.0}, default=None, return_dtype=pl.Float64)
        numbers[odd] = plain.cast(pl.Float64, strict=False).fill_null(truth).to_numpy()
    return numbers


def not_numbers(columns: Sequence[pl.Series], numbers: FloatArray) -> NDArray[np.bool_]:
    """Return where columns, whose `as_numbers` are given, hold text that is neither a number nor a missing value."""
    wrong: NDArray[np.bool_] = np.isnan(numbers) & np.array(
        [column.dtype == pl.String for column in columns], dtype=bool
    )
    spelled = np.flatnonzero(wrong.any(axis=0)).tolist()
    if spelled:
        gaps = wrong[:, spelled].T.ravel()
        words = pl.concat([columns[j] for j in spelled], rechunk=True).filter(gaps).str.strip_chars().str.to_lowercase()
        gaps[gaps] = (words.is_not_null() & ~words.is_in(MISSING)).to_numpy()
        wrong[:, spelled] = gaps.reshape(len(spelled), -1).T
    return wrong


def finite_numbers(columns: Sequence[pl.Series], place: Callable[[int], str]) -> FloatArray:
    """Return columns of numbers, bools, or text that spells them, as finite numbers, (n, k): NaN where missing.

    Raises
    ------
    ValueError
        If an entry is text or infinite; names its `place` and the value.
    """
    plain = [column if is_number_type(column.dtype) else column.cast(pl.String) for column in columns]
    numbers = as_numbers(plain)
    wrong = np.isinf(numbers) | not_numbers(plain, numbers)
    if wrong.any():
        row, j = (int(i) for i in np.argwhere(wrong)[0])
        spelled = plain[j].dtype == pl.String
        comma = spelled and re.fullmatch(_COMMA, plain[j][row])
        way = "if commas stand before fractions, say decimal=',' (--decimal ,); else " if comma else ""
        none = f", or, if it stands for a missing value, say so with {remedy(plain[j][row])}" if spelled else ""
        raise ValueError(
            f"{place(row)}: column {columns[j].name!r} holds {shown(plain[j][row])}, no finite number; {way}correct "
            f"it or leave it blank{none}"
        )
    return numbers


def as_days(column: pl.Series, place: Callable[[int], str]) -> pl.Series:
    """Return dates as days since 1970, null where missing: of type Date or Datetime, or as text.

    In text a date is YYYY-MM-DD or DD.MM.YYYY, with or without a time HH:MM[:SS] behind it; with dots, day and month
    may have one digit.

    Raises
    ------
    ValueError
        If an entry is no date, or written in another way; names its `place` and the value.

    Examples
    --------
    >>> as_days(pl.Series("d", ["1970-01-03", " 1970-01-02 06:00", "", "3.1.1970"]), str).to_list()
    [2.0, 1.25, None, 2.0]
    """
    if is_date_type(column.dtype):
        local = column.dt.replace_time_zone(None) if isinstance(column.dtype, pl.Datetime) else column
        return local.cast(pl.Datetime("us")).to_physical() / _DAY
    text = as_text(column)
    missing = text.is_null() | text.str.to_lowercase().is_in(MISSING)
    written = text
    for pattern, plain in _DOTTED:
        written = written.str.replace(pattern, plain)
    written = written.set(~written.str.contains(_ISO).fill_null(value=False), None)
    days = written.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).to_physical().cast(pl.Float64)
    parts = [written.str.slice(at, size).cast(pl.Float64, strict=False) for at, size in ((11, 2), (14, 2), (17, None))]
    hours, minutes, seconds = (part.fill_null(0.0) for part in parts)
    days += (hours * 3600 + minutes * 60 + seconds) / 86400
    days = days.set((hours > 23) | (minutes > 59) | (seconds >= 60), None)
    wrong = (~missing & days.is_null()).arg_true()
    if wrong.len():
        row = int(wrong[0])
        unclear = next((f", as nobody can tell here {what}" for p, what in _UNCLEAR if p.match(text[row])), "")
        raise ValueError(
            f"{place(row)}: column {column.name!r} holds {shown(text[row])}, no date; write it YYYY-MM-DD or "
            f"DD.MM.YYYY, with or without a time HH:MM:SS{unclear}; correct it or leave it blank, or, "
            f"if it stands for a missing value, say so with {remedy(text[row])}"
        )
    return days.alias(column.name)


def stand_ins(column: pl.Series, days: pl.Series) -> list[str]:
    """Return, as they are written, the dates of a column that programs write where they know none.

    Examples
    --------
    >>> column = pl.Series(["1.1.1900", "2023-05-01", "9999-12-31", None])
    >>> stand_ins(column, as_days(column, str))
    ['1.1.1900', '9999-12-31']
    """
    odd = days.is_in(_NO_DATES).fill_null(value=False)
    text = column.dt.strftime("%Y-%m-%d") if is_date_type(column.dtype) else as_text(column)
    return sorted(text.filter(odd).unique())


def loses_digits(column: pl.Series) -> bool:
    """Return whether two values of a column may be one number: by leading zeros, or by digits beyond those of float64.

    Examples
    --------
    >>> [loses_digits(pl.Series(values)) for values in (["01", "1"], ["0.5", "10"], [2**53], [1.5])]
    [True, False, True, False]
    """
    if column.dtype == pl.String:
        return bool(column.str.contains(rf"{CODE}|^\s*[-+]?\d{{16}}").any())
    least: Any = column.min() if column.dtype.is_integer() else None
    most: Any = column.max()
    return least is not None and max(-least, most) >= 2**53


def refuse_odd(columns: Sequence[pl.Series], source: str) -> None:
    """Raise a ValueError if a column holds what is neither a number, a text, a truth value nor a date.

    Examples
    --------
    >>> refuse_odd([pl.Series("c", [[1], [2]])], "a.parquet")
    Traceback (most recent call last):
    ValueError: a.parquet: column 'c' holds List(Int64); turn it into numbers or text, or leave it out
    """
    for column in columns:
        if column.dtype.is_nested() or column.dtype in {pl.Binary, pl.Object}:
            raise ValueError(
                f"{source}: column {column.name!r} holds {column.dtype}; turn it into numbers or text, or leave it out"
            )


def is_date_type(dtype: Any) -> bool:
    """Return whether a column of this type holds dates, with or without a time, in whatever unit or zone."""
    return isinstance(dtype, pl.Date | pl.Datetime)


def is_number_type(dtype: Any) -> bool:
    """Return whether a column of this type holds numbers (or bools, or nothing at all)."""
    return dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}


def as_text(column: pl.Series) -> pl.Series:
    """Return a column as String: null where blank, whole numbers with all their digits and no decimal point.

    Examples
    --------
    >>> as_text(pl.Series([1.0, 2.5, None])).to_list(), as_text(pl.Series([" a", ""])).to_list()
    (['1', '2.5', None], ['a', None])
    """
    if column.dtype.is_float() or column.dtype.is_decimal():
        values = column.cast(pl.Float64).fill_nan(None).to_list()
        texts = [None if v is None else str(int(v)) if v.is_integer() else repr(v) for v in values]
        return pl.Series(column.name, texts, dtype=pl.String)
    plain = column.cast(pl.String).str.strip_chars()
    return plain.set(plain == "", None)


def like_ids(columns: Sequence[pl.Series]) -> bool:
    """Return whether nearly every value of a column, per node, is another, and none a number with a fraction.

    Examples
    --------
    >>> [like_ids([pl.Series(range(50)), pl.Series([f"P{i % most}" for i in range(50)])]) for most in (50, 9)]
    [True, False]
    >>> like_ids([pl.Series([i + 0.5 for i in range(50)])])
    False
    """
    present = [column.drop_nulls() for column in map(as_text, columns)]
    n_values, n_distinct = (sum(sizes) for sizes in zip(*((len(c), c.n_unique()) for c in present), strict=True))
    numbers = [column.cast(pl.Float64, strict=False).drop_nulls().drop_nans() for column in present]
    broken = any((column % 1 != 0).any() for column in numbers)
    return n_values > _SOME and n_distinct > _NEARLY_ALL * n_values and not broken


def lookalike(texts: Sequence[pl.Series]) -> tuple[int, int, str] | None:
    """Return part and row of the first value that looks like a number or a date, if most of a column do, and a remedy.

    Examples
    --------
    >>> lookalike([pl.Series(["2020-01-31", "1.2.20"]), pl.Series(["cold"])])
    (0, 0, 'dates; take them as days since 1970 with dates=[…] (--dates COLUMN)')
    """
    present = sum(int((~text.str.to_lowercase().is_in(MISSING)).sum()) for text in texts)
    for what, (pattern, way) in _LOOKS.items():
        alike = [text.str.contains(pattern).fill_null(value=False) for text in texts]
        if sum(int(mask.sum()) for mask in alike) <= present / 2:
            continue
        for part, (text, mask) in enumerate(zip(texts, alike, strict=True)):
            rows = (mask & text.cast(pl.Float64, strict=False).is_null()).arg_true()
            if rows.len():
                return part, int(rows[0]), f"{what}; {way}"
    return None


def label_array(labels: Sequence[Any]) -> NDArray[Any]:
    """Return labels as an array; of Python objects where float64 would lose digits.

    Examples
    --------
    >>> label_array([0, 1]).dtype, label_array([2**53 + 1, 0.5]).dtype
    (dtype('int64'), dtype('O'))
    """
    array = np.array(labels)
    return array if array.dtype.kind != "f" or array.tolist() == list(labels) else np.array(labels, dtype=object)


def spelled_labels(texts: Sequence[pl.Series]) -> list[NDArray[Any]]:
    """Return labels written as text, per node: numbers if all of them are, whole ones to the last digit.

    They are codes, and stay text, if one begins with a 0 that a number does not need.

    Examples
    --------
    >>> spelled_labels([pl.Series(["0", "9007199254740993"])])[0].tolist()
    [0, 9007199254740993]
    >>> spelled_labels([pl.Series(["01", "2"])])[0].tolist()
    ['01', '2']
    """
    distinct = pl.concat(texts).unique()
    numbers = distinct.cast(pl.Float64, strict=False).is_finite().fill_null(value=False).all()
    if not numbers or distinct.str.contains(CODE).any():
        return [np.array(text.to_list(), dtype=np.str_) for text in texts]
    values = {
        text: int(text.partition(".")[0]) if re.fullmatch(r"[-+]?\d+(\.0*)?", text) else float(text)
        for text in distinct.to_list()
    }
    return [label_array([values[text] for text in part.to_list()]) for part in texts]
