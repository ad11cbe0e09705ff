"""What goes wrong on nodes and between processes, and who is told."""

from __future__ import annotations

import math
import reprlib
import textwrap
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from localgd.core import Engine, Failure, Message, Report, Task
from localgd.many.by_node import ByNode, named
from localgd.rounding import is_number, is_whole

SHOWN = 80
"""Most characters of a value in an error message."""

MOST_NAMED = 8
"""Columns, or nodes, that a message lists."""


class NodeError(RuntimeError):
    """A node failed: names the round and the node, and carries the node's own error as its cause.

    Parameters
    ----------
    round_ : int
        The round.
    node_id : str
        The node.
    error : BaseException
        What it raised.
    """

    def __init__(self, round_: int, node_id: str, error: BaseException) -> None:
        self.round = round_
        self.node_id = node_id
        super().__init__(f"round {round_}, node {node_id!r}: {said(error)}")
        self.__cause__ = error


class RemoteError(RuntimeError):
    """What a node in another process or on another machine raised, with the traceback it had there, if it sent one.

    Signs that a terminal obeys are escaped in what it says, and in the traceback.
    """

    def __init__(self, error: str, trace: str = "") -> None:
        self.trace = _plain_lines(trace)
        super().__init__(plain(error))
        if trace:
            lines = textwrap.indent(self.trace, "  | ", lambda _: True)  # none of them passes for one of ours
            self.add_note(f"on the node:\n{lines}")


class RemoteDiskError(RemoteError, OSError):
    """What the system of another process refused, as a disk that is full: no reason to end what can do without."""


class EngineError(RuntimeError):
    """The processes or machines that a run is spread over no longer work together, so it cannot go on.

    It says what they were at, as "round 7", what is wrong, and what to do about it.
    """

    def __init__(self, doing: str, why: str) -> None:
        super().__init__(f"{doing}: {why}")


class MissingExtraError(ModuleNotFoundError):
    """A library that localgd does without, until something needs it, is not installed: names its extra."""

    def __init__(self, extra: str, library: str) -> None:
        super().__init__(f"{library} is missing; get it with: pip install 'localgd[{extra}]'", name=library)


@contextmanager
def extra(name: str, library: str) -> Iterator[None]:
    """Import a library of an extra inside, and say how to get it where it is missing.

    Examples
    --------
    >>> with extra("torch", "a_torch"):
    ...     import a_torch
    Traceback (most recent call last):
    localgd.errors.MissingExtraError: a_torch is missing; get it with: pip install 'localgd[torch]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:  # it is there, and lacks something itself
            raise
        raise MissingExtraError(name, library) from error


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or less than the least one that has a meaning; a setting by node, of any node."""
    for what, number in named(name, value):
        if not is_whole(number, least):
            raise ValueError(f"{what} must be a whole number of at least {least}, got {number!r}")


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Refuse what is no finite number above 0 (or 0, if that may be); a setting by node, of any node."""
    for what, number in named(name, value):
        if not (is_number(number) and number < math.inf and (number > 0 or (or_zero and number == 0))):
            kind = "number of at least 0" if or_zero else "positive number"
            raise ValueError(f"{what} must be a {kind}, got {number!r}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False: a text like "no" would pass for a yes."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")  # noqa: TRY004  a bad value


def check_names(name: str, value: Any) -> None:
    """Refuse what is no collection of texts, such as one text, which is a collection of letters."""
    listed = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
    if not (listed and all(isinstance(one, str) for one in value)):
        raise ValueError(f"{name} must be a list of names, got {reprlib.repr(value)}")


def check_mapping(name: str, value: Any) -> None:
    """Refuse what is neither a mapping nor None."""
    if not isinstance(value, Mapping | None):
        raise ValueError(f"{name} must be a mapping, got {reprlib.repr(value)}")  # noqa: TRY004  a bad value


def check_kind(name: str, value: Any, kind: Any, what: str) -> None:
    """Refuse a value that is not of a class, or lacks a part that all of its kind have, if the kind is that name."""
    there = hasattr(value, kind) if isinstance(kind, str) else isinstance(value, kind)
    if not there or isinstance(value, type):
        raise TypeError(f"{name} must be {what}, got {reprlib.repr(value)}")


def all_of(*checks: Callable[[], Any]) -> list[Any]:
    """Return what each of these returns; a ValueError with all that they refuse, so that nobody mends one by one.

    Examples
    --------
    >>> all_of(lambda: 1, lambda: int("one"), lambda: int("two"))
    Traceback (most recent call last):
    ValueError: invalid literal for int() with base 10: 'one'; and invalid literal for int() with base 10: 'two'
    """
    found: list[Any] = []
    refused: list[ValueError] = []
    for check in checks:
        try:
            found.append(check())
        except ValueError as error:
            refused.append(error)
    if refused:
        raise ValueError("; and ".join(map(str, refused))) from refused[0]
    return found


def check_named(task: Any, node_ids: Collection[str]) -> None:
    """Refuse a task with a setting by node that does not name just these nodes.

    Examples
    --------
    >>> from localgd.rules.local import GradientSteps
    >>> check_named(GradientSteps(local_steps={"site": 5, "sole": 7}), ("sole", "site"))
    >>> check_named(GradientSteps(local_steps={"site": 5, "soul": 7}), ("sole", "site"))
    Traceback (most recent call last):
    ValueError: local_steps names 'soul', which is no node; did you mean 'sole'? Known are: sole, site
    """
    for field in fields(task):
        setting = getattr(task, field.name)
        if not isinstance(setting, ByNode):
            continue
        if unknown := sorted(set(setting.names) - set(node_ids)):
            raise ValueError(f"{field.name} names {unknown[0]!r}, which is no node{nearest(unknown[0], node_ids)}")
        if missing := sorted(set(node_ids) - set(setting.names)):
            raise ValueError(f"{field.name} has no value for node {missing[0]!r}; give one for each node")


def cut(text: str) -> str:
    """Return a text, or the beginning of one that nobody would read to its end.

    Examples
    --------
    >>> cut("ill"), len(cut("x" * 10**6))
    ('ill', 80)
    """
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def shown(value: Any) -> str:
    """Return what a value is to Python, cut where nobody would read on: a cell may hold a book.

    Examples
    --------
    >>> shown("ill"), shown(2.5), shown("ha" * 10**6)[70:]
    ("'ill'", '2.5', "ahahahahah…' (2,000,000 characters)")
    """
    if not isinstance(value, str):
        return cut(repr(value))
    size = f" ({len(value):,} characters)" if len(value) > SHOWN else ""
    return repr(cut(value)) + size


def told_apart(*values: Any) -> list[str]:
    """Return what values are to Python; by their code points, too, where two texts look the same.

    Examples
    --------
    >>> told_apart("Yes", "yes"), told_apart(chr(0xE9), "e" + chr(0x301))[1].isascii()
    (["'Yes'", "'yes'"], False)
    """
    looks = {value: unicodedata.normalize("NFC", value) for value in values if isinstance(value, str)}
    twice = {look for look, n_texts in Counter(looks.values()).items() if n_texts > 1}
    return [
        f"{shown(value)} (in Unicode {cut(value)!a})" if looks.get(value) in twice else shown(value) for value in values
    ]


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``; did you mean 'x'? known are …`` for an error message about an unknown name.

    Examples
    --------
    >>> nearest("clas", ["class", "odor"])
    "; did you mean 'class'? Known are: class, odor"
    """
    known = [one for one in known if one.strip()]  # a column without a name is none to choose
    near = get_close_matches(cut(name), [cut(one) for one in known], n=1)
    listed = ", ".join(cut(one) for one in known[:20]) + (", …" if len(known) > 20 else "")
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" Known are: {listed or 'none'}"


def listing(words: Iterable[str], noun: str = "") -> str:
    """Return words, and how many more there are than anybody would read on.

    Examples
    --------
    >>> listing("abc"), listing(map(str, range(20)), noun="nodes")
    ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, and 12 more nodes')
    """
    known = list(words)
    more = [f"and {len(known) - MOST_NAMED:,} more {noun}".rstrip()] if len(known) > MOST_NAMED else []
    return ", ".join([*known[:MOST_NAMED], *more])


def plain(text: str) -> str:
    r"""Return a text in one line, with every sign that a terminal or a log would obey escaped.

    Examples
    --------
    >>> print(plain("a disk\n\x1b[2J is gone, 名"))
    a disk\n\x1b[2J is gone, 名
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def said(error: BaseException) -> str:
    """Return an error in a line: its kind and what it says, or what it said where it comes from.

    Examples
    --------
    >>> said(KeyError("x")), said(RemoteError("KeyError: 'x'"))
    ("KeyError: 'x'", "KeyError: 'x'")
    """
    return str(error) if isinstance(error, RemoteError) else plain(f"{type(error).__name__}: {error}")


def trace_of(error: BaseException) -> str:
    """Return the traceback of an error, or the one that it brings from elsewhere; empty if there is none."""
    if isinstance(error, RemoteError):
        return error.trace
    return _plain_lines("".join(traceback.format_exception(error))) if error.__traceback__ is not None else ""


def _plain_lines(text: str) -> str:
    return "\n".join(plain(line) for line in text.split("\n"))


def from_all(engine: Engine, task: Task, message: Message) -> Report:
    """Run a round whose report only means something if every node speaks: a NodeError if one is missing."""
    before = len(engine.failures)
    report = engine.round(task, message)
    if report.n_nodes == len(engine.node_ids):
        return report
    unknown = Failure(message.round, "?", "no report", "", "left out")
    lost = next((failure for failure in engine.failures[before:] if failure.outcome == "left out"), unknown)
    failure = NodeError(message.round, lost.node_id, RemoteError(lost.error, lost.trace))
    failure.add_note(f"{type(task).__name__} needs every node, so on_failure='skip' cannot go on without it")
    raise failure
