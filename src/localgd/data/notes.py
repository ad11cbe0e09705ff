"""What a person should know of the columns before a model is trained on them, a line each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

from localgd.core import Report
from localgd.data.columns import option
from localgd.data.encodings import Category, Encoding
from localgd.data.gaps import remedy
from localgd.data.numbering import doubt
from localgd.data.spelling import Joined, key, listed
from localgd.data.survey import likely_ids, tallies
from localgd.data.values import MISSING
from localgd.errors import shown

_ID = re.compile(r"(?i)(?:.*[\W_])?(?:id|ids|index|idx|mrn|uuid|guid|row|rownum|record)(?:[\W_]?(?:nr|no|number))?")
_PLACE = re.compile(
    r"(?i)(?:.*[\W_])?(?:node|site|hospital|clinic|cent(?:er|re)|lab|laboratory|region|country|state|city|bank|branch|"
    r"store|school|institution|provider|client|device|source|group|habitat|cohort|study|batch)(?:[\W_]?(?:id|name|nr|code))?"
)
_MOST_NODES = 100

_YES_OR_NO = (("0", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
"""Pairs of words for the same question; a column that has several is likely to ask it at unlike nodes."""


_UNKNOWN = frozenset(MISSING) - {"none", "-"} | {
    *("--", "---", ".", "n.a.", "#n/a", "#null!", "missing", "unknown", "not known", "unk", "n.d.", "not available"),
    *("k.a.", "k. a.", "keine angabe", "unbekannt", "fehlt", "fehlend", "inconnu", "desconocido", "sconosciuto"),
}
"""What seldom names a category, in any case: that there is none of something, or a sign, may."""


_NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:[.,]\d+)?\s*([^\W\d_].*|[%‰°€$£µ].*|)")
"""A number, and the unit behind it; none of digits that are a code."""

_MANY_NUMBERS, _NEARLY_ALL = 10, 0.9
"""So many categories that are numbers, and such a share of all, are hardly meant as categories."""


def notes_of(
    survey: Report,
    columns: Sequence[Encoding],
    kinds: Mapping[str, str],
    declared: Collection[str] = (),
    mapped: Collection[str] = (),
) -> list[str]:
    """Return what nodes did while they read, what looks like an id or a node, and what was joined.

    A column that was `declared` as one of categories may hold numbers, unless it is one as its values were `mapped`.
    """
    told = {note: count for (note,), count in tallies(survey, "note")}
    never = {pair for pair, _ in tallies(survey, "gap")}.difference(pair for pair, _ in tallies(survey, "met"))
    spans = [(span, count) for span, count in tallies(survey, "numbered") if span[1] > 0]
    if apart := doubt((first, last) for (first, last), _ in spans):  # of files that nodes read by themselves
        told.setdefault(apart, sum(count for (first, _), count in spans if first == 0))
    notes = [f"{note} (at {count} of {survey.n_nodes} nodes)" for note, count in sorted(told.items())]
    notes += [
        f"missing_values: no value{f' of column {shown(name)}' if name else ''} of any node is {shown(text)}"
        for name, text in sorted(never)
    ]
    rows = {name: count for (name,), count in tallies(survey, "id")}
    for name in (name for name, kind in kinds.items() if kind == "number"):
        unlike = rows.get(name, 0) > survey.n_rows / 2
        if unlike or _ID.fullmatch(name):
            why = "holds another whole number in every row" if unlike else "has the name of one"
            notes.append(f"column {name!r} {why}: if it is an id, leave it out with {option('drop', name)}")
    likely = likely_ids(survey)
    for column in (one for one in columns if isinstance(one, Category) and likely.get(one.name, 0) > survey.n_rows / 2):
        many = f"column {column.name!r}: {len(column.categories):,} categories in {survey.n_rows:,} rows"
        notes.append(f"{many}, most in a row each: if it is an id, leave it out with {option('drop', column.name)}")
    if survey.n_nodes == 1:
        notes.append(_forgotten(columns))
    notes += [note for column in columns if isinstance(column, Category) for note in _doubts(column)]
    said = {*declared}.difference(mapped)
    notes += [
        note
        for column in columns
        if isinstance(column, Category) and column.name not in said
        for note in _numbers(column, mapped=column.name in mapped)
    ]
    joined = [(column.name, Joined((), column.spellings)) for column in columns if isinstance(column, Category)]
    notes += [f"column {name!r} in other spellings: {found.said}" for name, found in joined if found.spellings]
    return notes


def _doubts(column: Category) -> Iterator[str]:
    """Yield what looks like a missing value, or like one thing in two words, and is taken for categories."""
    if blanks := [value for value in column.categories if _unknown(value, column.categories)]:
        counts = "counts as a category" if len(blanks) == 1 else "count as categories"
        none = f"if that stands for a missing value, say so with {remedy(*blanks)}"
        yield f"column {column.name!r}: {' and '.join(map(shown, blanks))} {counts}; {none}"
    own = {key(value) for value in column.categories}
    codings = [" and ".join(pair) for pair in _YES_OR_NO if own >= {*pair}]
    if len(codings) > 1:
        yield (
            f"column {column.name!r} holds {', but also '.join(codings)}: where they mean the same, say so "
            f"(--category-map {shlex.quote(f'{column.name}:no=0,yes=1')})"
        )


def _unknown(value: str, beside: Collection[str]) -> bool:
    """Return whether a category is likely to be no value: "None" as Python writes it, and "-" that is no sign."""
    return value.lower() in _UNKNOWN or value == "None" or (value == "-" and "+" not in beside)


def _numbers(column: Category, *, mapped: bool) -> Iterator[str]:
    """Yield that nearly all categories are numbers, with or without a unit, and how to have one number of them."""
    found = {value: number[1].strip() for value in column.categories if (number := _NUMBER.fullmatch(value))}
    units = {unit for unit in found.values() if unit}
    if len(found) < max(_MANY_NUMBERS, _NEARLY_ALL * len(column.categories)) or not _one_unit(units):
        return
    example = next((value for value, unit in found.items() if unit), "")
    behind = f", with a unit like {shown(example)}" if units else ""
    ways = ["take the unit out of the values"] if units else []
    ways += [f"leave --category-map {shlex.quote(column.name)}:… out and correct the values"] if mapped else []
    others = [value for value in column.categories if value not in found]
    stand = "stands" if len(others) == 1 else "stand"
    ways += [f"if {listed(others)} {stand} for a missing value, say so with {remedy(*others)}"] if others else []
    ways = ways or ["store them as numbers, not as texts"]
    yield (
        f"column {column.name!r}: {len(found)} of {len(column.categories)} categories are numbers{behind}, and each "
        f"counts by itself; to have numbers, {'; '.join(ways)}"
    )


def _one_unit(units: Collection[str]) -> bool:
    """Return whether all units are one, in the singular or the plural, or there is none."""
    return all(unit.startswith(min(units, key=len)) for unit in units)


def _forgotten(columns: Sequence[Encoding]) -> str:
    """Return that there is one node, and the columns that could say which node a row belongs to."""
    few = [c.name for c in columns if isinstance(c, Category) and 2 < len(c.categories) <= _MOST_NODES]
    named = [column.name for column in columns if _PLACE.fullmatch(column.name)]
    found = list(dict.fromkeys([*named, *few]))[:5]
    could = f"; columns that could say which: {', '.join(map(repr, found))}" if found else ""
    return f"all rows are on one node; if they are kept in several, say so with groups, or node (--node COLUMN){could}"
