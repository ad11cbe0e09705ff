"""Values that a node has in two spellings: all of them asked about at once, with what settles all of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localgd.errors import cut, shown, told_apart

MOST_PAIRS = 20
"""Pairs that a message asks about."""


@dataclass(frozen=True)
class Doubt:
    """What is in doubt of a column.

    Parameters
    ----------
    what : str
        What error messages call the column.
    remedy : tuple of str
        The parameter that settles it, the flag, and what stands before a value there.
    pairs : mapping from text to text
        A spelling, and another that a node has beside it.
    said : mapping from text to text
        What was said already, and has to be said again.
    writable : bool
        Whether a flag can say it; it cannot of values with a comma, say.
    """

    what: str
    remedy: tuple[str, str, str]
    pairs: Mapping[str, str]
    said: Mapping[str, str]
    writable: bool

    def first(self, n_pairs: int) -> Doubt:
        """Return that of so many pairs."""
        return Doubt(self.what, self.remedy, dict([*self.pairs.items()][:n_pairs]), self.said, self.writable)

    def flag(self, pairs: Mapping[str, str]) -> str:
        """Return the flag that says what was said, and these pairs."""
        _, flag, column = self.remedy
        meanings = ",".join(f"{cut(one)}={cut(to)}" for one, to in {**self.said, **pairs}.items())
        before = column or (":" if ":" in meanings.partition("=")[0] else "")  # a colon of the label's own
        return f"{flag} {shlex.quote(before + meanings)}"

    @property
    def parameter(self) -> str:
        """The parameter that says the pairs in Python."""
        before, _, after = self.remedy[0].rpartition("…")
        return f"{before}{', '.join(f'{shown(one)}: {shown(to)}' for one, to in self.pairs.items())}{after}"


class InDoubtError(ValueError):
    """Nodes have values in two spellings, and nothing says what is meant: names all of them, and one remedy.

    Examples
    --------
    >>> raise InDoubtError(Doubt("label", ("label_map={…}", "--label-map", ""), {"no": "No", "yes": "Yes"}, {}, True))
    Traceback (most recent call last):
    localgd.data.doubts.InDoubtError: label: a node has both 'No' and 'no', and both 'Yes' and 'yes', which are two \
values or one in two spellings; correct them, or say what is meant: --label-map no=No,yes=Yes takes each pair for one \
(in Python label_map={'no': 'No', 'yes': 'Yes'}); where a pair is two values, say that each means itself
    """

    def __init__(self, *doubts: Doubt) -> None:
        self.doubts = doubts
        n_pairs, asked = sum(len(doubt.pairs) for doubt in doubts), list[Doubt]()
        left = MOST_PAIRS
        for doubt in doubts:
            asked += [doubt.first(left)] if left > 0 else []
            left -= len(doubt.pairs)
        super().__init__(_one(doubts[0]) if n_pairs == 1 else _several(asked, n_pairs))


def _one(doubt: Doubt) -> str:
    ((text, other),) = doubt.pairs.items()
    said = f"{doubt.flag(doubt.pairs)} for one, {doubt.flag({text: text, other: other})} for two (in Python "
    said = f"{said}{doubt.remedy[0]})" if doubt.writable else f"{doubt.parameter} (in Python: no flag can say it)"
    return (
        f"{doubt.what}: a node has both {' and '.join(told_apart(other, text))}, which are two values or one in two "
        f"spellings; correct it, or say what is meant: {said}"
    )


def _several(asked: Sequence[Doubt], n_pairs: int) -> str:
    columns = [
        f"{doubt.what}: a node has {', and '.join('both ' + ' and '.join(told_apart(b, a)) for a, b in pairs)}"
        for doubt in asked
        if (pairs := doubt.pairs.items())
    ]
    more = n_pairs - sum(len(doubt.pairs) for doubt in asked)
    rest = f" (and {more:,} more such pairs, asked about next)" if more else ""
    flags = " ".join(doubt.flag(doubt.pairs) for doubt in asked if doubt.writable)
    python = f"in Python {', '.join(doubt.parameter for doubt in asked)}"
    unsaid = [doubt.what for doubt in asked if not doubt.writable]
    python += f"; no flag can say it of {', '.join(unsaid)}" if unsaid else ""
    remedy = f"{flags} takes each pair for one ({python})" if flags else f"as one each, {python}"
    return (
        f"{'; '.join(columns)}{rest}, which are two values or one in two spellings; correct them, or say what is "
        f"meant: {remedy}; where a pair is two values, say that each means itself"
    )


def settled(*checks: Callable[[], Any]) -> list[Any]:
    """Return what each of these returns.

    Raises
    ------
    InDoubtError
        If some of them leave something in doubt: with what all of them do.
    """
    found: list[Any] = []
    doubts: list[Doubt] = []
    for check in checks:
        try:
            found.append(check())
        except InDoubtError as error:
            doubts += error.doubts
    if doubts:
        raise InDoubtError(*doubts)
    return found
