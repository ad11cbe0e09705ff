"""What goes wrong, in the words of the command line: flags where Python has parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click

CALLED = {"holdout": "share"}
"""Parameters that are called otherwise in Python."""

_OF_IT = r"(?: of [\w' ]+)? (?:must|has no meaning|has no value|names|sets)\b"
_FIRST = re.compile(rf"(^(?:[\w-]+: )?|; and )(\w+)(?:(=True)|(=)|(?={_OF_IT}))")
"""A parameter that a part of a message begins with: ``n_rounds must …``, ``local-gd: local_steps has no value …``."""

_WITHIN = re.compile(r"(?<![-\w'./])([a-z]+(?:_[a-z]+)+)(?:(=True\b)|(=)(?=[\d'])|(?![=\w./(\[]))")
"""One in the middle, which its underscore tells from a word: ``a smaller min_group``, ``min_group=5``."""

_TWICE = re.compile(r"(--[\w-]+(?: [^\s()]+)?) \(\1\)|(--[\w-]+), \2\b(?!-)")


def flags_of(params: Iterable[click.Parameter]) -> dict[str, str]:
    """Return the flags of a command by what Python may call them."""
    found: dict[str, str] = {}
    for param in params:
        if isinstance(param, click.Option):
            flag = next((one for one in param.opts if one.startswith("--")), param.opts[0])
            name = param.name or ""
            plain = flag.removeprefix("--").replace("-", "_")
            found |= dict.fromkeys([name, plain, f"{plain}s", CALLED.get(name, name)], flag)
    return found


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Return a message that names flags in place of parameters, and says of a column without a name that it has none.

    Examples
    --------
    >>> flags = {"n_rounds": "--n-rounds", "drop": "--drop", "min_group": "--min-group"}
    >>> in_flags("n_rounds must be 1", flags), in_flags("drop='agee' is not a column", flags)
    ('--n-rounds must be 1', "--drop 'agee' is not a column")
    >>> in_flags("node 'a': it has fewer than min_group=5 rows; ask for a smaller min_group", flags)
    "node 'a': it has fewer than --min-group 5 rows; ask for a smaller --min-group"
    >>> in_flags("say that they are 4: n_classes=4 (--n-classes 4)", {"n_classes": "--n-classes"})
    'say that they are 4: --n-classes 4'
    """

    def said(name: str, found: re.Match[str], before: str = "") -> str:
        *_, yes, equals = found.groups()
        return f"{before}{flags[name]}{' ' if equals and not yes else ''}" if name in flags else found[0]

    message = _FIRST.sub(lambda found: said(found[2], found, found[1]), message)
    message = _WITHIN.sub(lambda found: said(found[1], found), message)
    return _TWICE.sub(lambda found: found[1] or found[2], message).replace("column ''", "the column without a name")
