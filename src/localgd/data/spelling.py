"""One value in several spellings: which mean the same at other nodes, and which must be asked about.

Two values mean the same if they differ in case, outer or double blanks or Unicode form only, or are the same number;
where all of a column are, 0 and false are one, and 1 and true. Codes are not numbers: 01 is not 1. Nodes spell apart;
what one node has in two spellings is two values to it, so somebody has to say what is meant.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from localgd.data.doubts import Doubt, InDoubtError
from localgd.errors import shown, told_apart

Label: TypeAlias = str | int | float | bool
Pairs: TypeAlias = tuple[tuple[Label, Label], ...]
LabelMaps: TypeAlias = tuple[tuple[str, Pairs], ...]
"""What labels mean at nodes, by their names, where that is not what they mean elsewhere."""

_DECIMAL = re.compile(r"([-+]?)(0|[1-9]\d*|(?=\.\d))(?:\.(\d*))?", re.ASCII)
_UNSEEN = " \t\u200b\u200e\u200f\u2060\ufeff"
"""Blanks, and signs that show as nothing."""

_TRUTH = {"false": "0", "true": "1"}


def plain_label(value: Any) -> Label:
    """Return a label as a Python value, whole numbers as int: the same class on a node with 1 and one with 1.0.

    Examples
    --------
    >>> plain_label(np.float64(1.0)), plain_label(np.str_("ill")), plain_label(np.True_)
    (1, 'ill', True)
    """
    plain: Label = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def plain_names(names: Iterable[Any]) -> list[str]:
    """Return the names of columns, or what is said of them: in one Unicode form, blanks and line breaks as one blank.

    Examples
    --------
    >>> plain_names(["blood  pressure ", "age", 3])
    ['blood pressure', 'age', '3']
    """
    return [unicodedata.normalize("NFC", " ".join(str(name).split())) for name in names]


def listed(values: Sequence[Label]) -> str:
    """Return labels in words, the first ten.

    Examples
    --------
    >>> listed(["ill", "well"])
    "'ill', 'well'"
    """
    return ", ".join(shown(value) for value in values[:10]) + (", …" if len(values) > 10 else "")


def key(value: Label) -> str:
    """Return what a value is, however it is spelled: texts that mean the same have the same key.

    Examples
    --------
    >>> key(1), key("1.00"), key("01"), key(2**53 + 1), key("CAF" + chr(0xC9)) == key("cafe" + chr(0x301) + " ")
    ('1', '1', '01', '9007199254740993', True)
    >>> key("West  wing")
    'west wing'
    """
    text = str(value).strip()
    if not text.isascii():
        text = "".join(map(_plain_form, text)).strip(_UNSEEN)
    text = " ".join(text.split())
    number = _DECIMAL.fullmatch(text)
    if number:
        sign, whole, rest = number.groups()
        digits = f"{whole or '0'}.{rest or ''}".rstrip("0").rstrip(".")
        return f"-{digits}" if sign == "-" and digits != "0" else digits
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _plain_form(sign: str) -> str:
    """Return a sign that is only wider, narrower or no place for a line break as the plain one; ² is no 2."""
    same = unicodedata.decomposition(sign).startswith(("<wide>", "<narrow>", "<noBreak>"))
    return unicodedata.normalize("NFKC", sign) if same else sign


def said_map(text: str, flag: str) -> dict[str, Label]:
    """Return what a text like ``no=0,yes=1`` says: numbers if all that is meant are.

    Raises
    ------
    ValueError
        If it says something else, or what a value means twice; names the flag.

    Examples
    --------
    >>> said_map("no=0, yes=1", "label-map"), said_map("Yes=yes", "label-map")
    ({'no': 0, 'yes': 1}, {'Yes': 'yes'})
    """
    said: dict[str, str] = {}
    for part in text.split(","):
        one, _, meant = (piece.strip() for piece in part.partition("="))
        if not one or not meant or one in said:
            raise ValueError(f"{flag} is VALUE=MEANING,VALUE=MEANING, each value once, got {shown(text)}")
        said[one] = meant
    numbers = all(map(_DECIMAL.fullmatch, said.values()))
    return {one: plain_label(float(to) if "." in to else int(to)) if numbers else to for one, to in said.items()}


def said_maps(texts: Iterable[str], flag: str) -> dict[str, dict[str, Label]]:
    """Return what texts like ``ward:North=north`` say, each of a column.

    Raises
    ------
    ValueError
        If one names no column, or as `said_map`.

    Examples
    --------
    >>> said_maps(["ward:North=north,S=south"], "category-map")
    {'ward': {'North': 'north', 'S': 'south'}}
    """
    maps: dict[str, dict[str, Label]] = {}
    for text in texts:
        first, equals, rest = text.partition("=")
        column, _, one = first.rpartition(":")
        if not column:
            raise ValueError(f"{flag} is COLUMN:VALUE=MEANING,VALUE=MEANING, got {shown(text)}")
        maps.setdefault(column, {}).update(said_map(one + equals + rest, flag))
    return maps


def check_map(parameter: str, mapping: Any) -> None:
    """Refuse what does not map texts, numbers and truth values to such.

    Examples
    --------
    >>> check_map("label_map", {"no": None})
    Traceback (most recent call last):
    ValueError: label_map maps 'no' to None; map texts, numbers or truth values to such, like {'no': 0, 'yes': 1}
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{parameter} must be a mapping, like {{'no': 0, 'yes': 1}}, got {shown(mapping)}")  # noqa: TRY004  all refusals are of one kind
    for one, to in mapping.items():
        plain = [plain_label(value) for value in (one, to)]
        if not all(isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)) for value in plain):
            said = "map texts, numbers or truth values to such, like {'no': 0, 'yes': 1}"
            raise ValueError(f"{parameter} maps {shown(one)} to {shown(to)}; {said}")


def confusable(values: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of texts that mean the same, or would if they were truth values, each sorted.

    Examples
    --------
    >>> confusable(["Yes", "no", "yes", "1", "TRUE", "01"])
    [('1', 'TRUE'), ('Yes', 'yes')]
    """
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(_TRUTH.get(key(value), key(value)), []).append(value)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def places(values: Iterable[Any], known: Sequence[Label], spellings: Pairs = ()) -> list[int]:
    """Return the place of every value among those known, however it is spelled; -1 for none, or where it is in doubt.

    Examples
    --------
    >>> places([" Yes", "NO", "ja"], ["no", "yes"]), places([True, "0.0"], [0, 1]), places(["a"], ["A", "a"])
    ([1, 0, -1], [1, 0], [1])
    """
    written = {str(plain_label(value)): place for place, value in enumerate(known)}
    written = {str(plain_label(one)): written[str(plain_label(meant))] for one, meant in spellings} | written
    folded: dict[str, set[int]] = {}
    for text, place in written.items():
        folded.setdefault(key(text), set()).add(place)
    if not {key(plain_label(value)) for value in known} - {*_TRUTH, *_TRUTH.values()}:
        for word, digit in _TRUTH.items():
            either = folded.get(word, set()) | folded.get(digit, set())
            folded[word] = folded[digit] = either
    found = []
    for text in (str(plain_label(value)) for value in values):
        near = folded.get(key(text), set())
        found.append(written[text] if text in written else min(near) if len(near) == 1 else -1)
    return found


@dataclass(frozen=True)
class Joined:
    """Values that nodes have, each in one spelling.

    Parameters
    ----------
    values : tuple
        Numbers and truth values before texts, sorted.
    spellings : tuple of (as written, as meant)
        Where the two differ.
    """

    values: tuple[Label, ...]
    spellings: Pairs

    @property
    def said(self) -> str:
        """What was taken for what, in words; empty if nothing was.

        Examples
        --------
        >>> Joined((0, 1), (("no", 0), ("yes", 1))).said
        "'no' is taken for 0, 'yes' for 1"
        """
        parts = [
            f" {'' if at else 'is taken '}for ".join(told_apart(one, meant))
            for at, (one, meant) in enumerate(self.spellings[:11])
        ]
        return ", ".join(parts[:10]) + (", …" if len(parts) > 10 else "")


@dataclass(frozen=True)
class Speller:
    """What the values of a column mean.

    Parameters
    ----------
    what : str
        What error messages call the column.
    remedy : str
        The parameter and the flag that say what a value means.
    mapping : mapping from value to value
        What was said.
    texts : bool, default False
        Values stay texts, whatever they spell.
    """

    what: str
    remedy: tuple[str, str]
    mapping: Mapping[Any, Any]
    texts: bool = False

    def joined(self, met: Sequence[tuple[Label, int]], together: Collection[Sequence[Label]]) -> Joined:
        """Return the values met, with how often each was, in one spelling; `together` are those of a node each.

        Raises
        ------
        InDoubtError
            If a node has values in two spellings and nothing says what is meant: of all of them.
        """
        meant = [self.meant(value) for value, _ in met]
        keys = {key(value) for value in meant}
        truth = not keys - {*_TRUTH, *_TRUTH.values()} and bool(keys & _TRUTH.keys() and keys & {*_TRUTH.values()})
        groups: dict[str, dict[Label, int]] = {}
        group_of = {}
        for (value, weight), to in zip(met, meant, strict=True):
            group = group_of[_written(value)] = self._group(to, truth=truth)
            weights = groups.setdefault(group, {})
            weights[to] = weights.get(to, 0) + weight
        twins = self._twins(together, group_of)
        if pairs := _pairs(twins, {_written(value): weight for value, weight in met}):
            raise InDoubtError(self._doubt(pairs, together, group_of))
        chosen = self._chosen(groups, truth=truth)
        spellings = {written: chosen[group_of[written]] for written in group_of}
        spellings = self._said(chosen, truth=truth) | spellings
        apart = tuple((one, to) for one, to in sorted(spellings.items()) if one != _written(to))

        def order(value: Label) -> tuple[bool, Label, Label]:
            """Which of two classes comes first must not hang on how most nodes spell them."""
            return isinstance(value, str), key(value) if apart and isinstance(value, str) else value, value

        return Joined(tuple(sorted(chosen.values(), key=order)), apart)

    def _said(self, chosen: Mapping[str, Label], *, truth: bool) -> dict[str, Label]:
        """Return what the mapping says of spellings, met or not: rows to come may have them, or a node left out."""
        groups = {_written(one): self._group(plain_label(to), truth=truth) for one, to in self.mapping.items()}
        values = set(map(_written, chosen.values()))
        return {one: chosen[group] for one, group in groups.items() if group in chosen and one not in values}

    def meant(self, value: Label) -> Label:
        """Return what the mapping says of a value: exactly as written, else however it is spelled; else the value.

        Raises
        ------
        ValueError
            If it is another spelling of several that the mapping tells apart.

        Examples
        --------
        >>> speller = Speller("label", ("label_map", "--label-map "), {"no": 0, 1: "yes"})
        >>> speller.meant("NO "), speller.meant("1.0"), speller.meant("ja")
        (0, 'yes', 'ja')
        """
        said = {_written(one): plain_label(to) for one, to in self.mapping.items()}
        if _written(value) in said:
            return said[_written(value)]
        near = {to for one, to in said.items() if key(one) == key(value)}
        if len(near) > 1:
            raise ValueError(
                f"{self.what} holds {shown(value)}, which {self.remedy[0]} does not tell apart; map it, too"
            )
        return near.pop() if near else value

    def _group(self, value: Label, *, truth: bool) -> str:
        """Return what tells a value from others: its key, or itself if the mapping tells it from others of the key."""
        own = key(value)
        if len({_written(to) for to in self.mapping.values() if key(plain_label(to)) == own}) > 1:
            return f"={_written(value)}"
        return _TRUTH.get(own, own) if truth else own

    def _twins(self, together: Collection[Sequence[Label]], group_of: Mapping[str, str]) -> list[list[str]]:
        """Return the spellings that a node has beside another of the group, group by group; none that was mapped."""
        said = {_written(one) for one in self.mapping}
        twins: dict[str, set[str]] = {}
        for values in together:
            here: dict[str, set[str]] = {}
            for text in map(_written, values):
                if text not in said and text in group_of:
                    here.setdefault(group_of[text], set()).add(text)
            for group, texts in here.items():
                if len(texts) > 1:
                    twins.setdefault(group, set()).update(texts)
        return [sorted(texts) for _, texts in sorted(twins.items())]

    def _doubt(self, pairs: Mapping[str, str], together: Collection[Sequence[Label]], group_of: Any) -> Doubt:
        """Return what is in doubt, after a look whether the flag that it prints would settle it."""
        parameter, (flag, column) = self.remedy[0], self.remedy[1].split(" ", 1)
        said = {_written(one): _written(plain_label(to)) for one, to in self.mapping.items()}
        doubt = Doubt(self.what, (parameter, flag, column), pairs, said, writable=True)
        (text,) = shlex.split(doubt.flag(pairs))[1:]
        try:
            mapping = said_maps([text], flag)[column[:-1]] if column else said_map(text.removeprefix(":"), flag)
        except (ValueError, KeyError):
            return replace(doubt, writable=False)
        return replace(doubt, writable=not replace(self, mapping=mapping)._twins(together, group_of))  # noqa: SLF001  its own

    def _chosen(self, groups: Mapping[str, Mapping[Label, int]], *, truth: bool) -> dict[str, Label]:
        """Return one spelling for each group: numbers if all are and one is stored so, likewise truth values."""
        kinds = {str} if self.texts else {type(value) for values in groups.values() for value in values}
        if kinds <= {bool} or (kinds == {bool, str} and not groups.keys() - _TRUTH.keys()):
            return {group: key(next(iter(values))) == "true" for group, values in groups.items()}
        if not self.texts and (truth or (kinds != {str} and all(map(_DECIMAL.fullmatch, groups)))):
            return {group: float(group) if "." in group else int(group) for group in groups}
        return {group: self._spelled(group, values) for group, values in groups.items()}

    def _spelled(self, group: str, values: Mapping[Label, int]) -> str:
        """Return the spelling that was meant, else the shortest of a number, else the one met most often."""
        texts: dict[str, int] = {}
        for value, weight in values.items():
            texts[_written(value)] = texts.get(_written(value), 0) + weight
        meant = [text for text in texts if text in {_written(to) for to in self.mapping.values()}]
        if meant:
            return min(meant)
        if _DECIMAL.fullmatch(group):
            return min(texts, key=lambda text: (len(text), text))
        return min(texts, key=lambda text: (-texts[text], text != unicodedata.normalize("NFC", text.strip()), text))


def _written(value: Any) -> str:
    return str(plain_label(value))


def _pairs(twins: Sequence[Sequence[str]], weights: Mapping[str, int]) -> dict[str, str]:
    """Return each spelling with the one of its group that is met most often."""
    most = [max(texts, key=lambda text: weights[text]) for texts in twins]
    return {text: one for one, texts in zip(most, twins, strict=True) for text in texts if text != one}
