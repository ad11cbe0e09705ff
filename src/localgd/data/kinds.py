"""What kind every column is, the same at all nodes, from what they tell of their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from localgd.core import Report
from localgd.data.columns import check_known, if_id, one_role, option
from localgd.data.differ import RENAME, respelled
from localgd.data.numbering import doubt
from localgd.data.survey import MANY, likely_ids, tallies
from localgd.data.table import MOST_COLUMNS, numbered
from localgd.errors import listing, told_apart


def empty_columns(survey: Report) -> tuple[str, ...]:
    """Return the columns in which no row of any node has a value."""
    blank = {name: count for (_, name, kind), count in tallies(survey, "column") if kind == "blank"}
    return tuple(sorted(name for name, count in blank.items() if count == survey.n_nodes))


def kinds_of(
    survey: Report, text: tuple[str, ...], categorical: tuple[str, ...], away: Collection[str]
) -> dict[str, str]:
    """Return ``number``, ``sparse``, ``category`` or ``words`` for every column, in the order of the table.

    Columns to be put `away` are left out.
    """
    stored = {name: kind for name, kind in _stored(survey).items() if name not in away}
    for parameter, names in (("text", text), ("categorical", categorical)):
        check_known(parameter, names, list(stored), "the tables")
        for name in names:
            if stored[name] == "sparse" or (parameter == "text" and stored[name] != "text"):
                raise ValueError(f"{parameter}={name!r} is a column of numbers ({stored[name]}); leave it out")
    one_role({"text": text, "categorical": categorical})
    for (name, floor), n_rows in tallies(survey, "distinct"):
        if name not in {*text, *categorical} and (floor == MANY or n_rows > survey.n_rows / 2):
            raise ValueError(too_many(name, f"more than {floor}"))
    category = {name for name in stored if stored[name] == "text"} | set(categorical)
    return {n: "words" if n in text else "category" if n in category else kind for n, kind in stored.items()}


def _stored(survey: Report) -> dict[str, str]:
    """Return how every column is stored, ``number``, ``sparse`` or ``text``: the same at all nodes that know."""
    spans = list(tallies(survey, "numbered"))
    if spans:
        return _stored_by_number(survey, spans)
    found: dict[tuple[int, str], dict[str, int]] = {}
    for (width, kind), count in tallies(survey, "plain"):
        if count == survey.n_nodes:
            return dict.fromkeys(numbered(width), kind)
        for at in enumerate(numbered(width)):
            kinds = found.setdefault(at, {})
            kinds[kind] = kinds.get(kind, 0) + count
    for (place, name, kind), count in sorted(tallies(survey, "column")):
        kinds = found.setdefault((place, name), {})
        kinds[kind] = kinds.get(kind, 0) + count
    stored, lacking = dict[str, str](), list[tuple[int, str, str, int]]()
    for (place, name), nodes in found.items():
        blank = nodes.pop("blank", 0)
        kind, count = next(iter(nodes.items()), ("number", 0))
        if len(nodes) > 1:
            held = ", ".join(f"{kind} at {count}" for kind, count in nodes.items())
            first = if_id(name) if 2 * likely_ids(survey).get(name, 0) > survey.n_rows else ""
            raise ValueError(
                f"column {name!r} is stored in more than one way (nodes: {held}); {first}code it alike, or, if it "
                f"holds categories, declare it with {option('categorical', name)}"
            )
        if blank + count != survey.n_nodes:
            lacking.append((place, name, kind, blank + count))
        stored[name] = kind
    if lacking:
        raise ValueError(_lacking(lacking, survey.n_nodes))
    return stored


def _lacking(columns: Sequence[tuple[int, str, str, int]], n_nodes: int) -> str:
    """Return the error of columns, each with its place, its kind and the number of nodes, that some nodes lack."""
    at = Counter[str]()
    for _, name, _, count in columns:
        at[name] += count
    spelled = [group for group in respelled(sorted(at)) if sum(at[name] for name in group) <= n_nodes]
    if spelled:
        apart = listing(" and ".join(told_apart(*group)) for group in spelled)
        return f"columns of some nodes differ in spelling from those of others: {apart}; {RENAME}"
    said = [f"column {name!r} (place {place}, {kind}) is at {count}" for place, name, kind, count in columns]
    where = f"{listing(said, noun='columns')} of {n_nodes} nodes only"
    return f"{where}; give all nodes the same columns in the same order, or drop those (--drop)"


def _stored_by_number(survey: Report, spans: Sequence[tuple[tuple[int, ...], int]]) -> dict[str, str]:
    """Return the columns of all svmlight nodes together: what a node does not reach is zero there."""
    if sum(count for _, count in spans) != survey.n_nodes:
        raise ValueError("some nodes hold svmlight files and others do not; give all nodes one format")
    first, last = min(first for (first, _), _ in spans), max(last for (_, last), _ in spans)
    if first < 0 or last >= MOST_COLUMNS:
        raise ValueError(
            f"a node numbers its columns from {first} to {last}; number them from 0 or 1, to less than {MOST_COLUMNS:,}"
        )
    doubt((begin, end) for (begin, end), _ in spans if end > 0)
    dropped = {number: count for (number,), count in tallies(survey, "dropped")}
    for number, count in dropped.items():
        reach = sum(nodes for (begin, end), nodes in spans if begin <= number <= end)
        if count < reach:
            raise ValueError(
                f"column 'x{number}' is left out at {count} of {reach} nodes that reach it; drop it at all of them"
            )
    names = enumerate(numbered(last + 1, first), start=first)  # the same texts as in the tables
    return {name: "sparse" for number, name in names if number not in dropped}


def too_many(name: str, how_many: str) -> str:
    """Return the error of a column of text with more values than categories have."""
    return (
        f"column {name!r} has {how_many} distinct values, in more than half the rows: it looks like text or an id; "
        f"drop it with {option('drop', name)}, or declare it with {option('text', name)} or "
        f"{option('categorical', name)}; if texts among numbers stand for missing values, say so (--missing-values)"
    )
