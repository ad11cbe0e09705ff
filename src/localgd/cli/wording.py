"""What goes wrong, in the words of the command line: flags where Python has parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click

_OF_IT = r"(?: of [\w' ]+)? (?:must|has no meaning|has no value|names)\b"
_PARAMETER = re.compile(rf"(^(?:[\w-]+: )?|; and )(\w+)(?:(=True)|(=)|(?={_OF_IT}))")
"""A parameter that a part of a message begins with: ``n_rounds must …``, ``local-gd: local_steps has no value …``."""


def flags_of(params: Iterable[click.Parameter]) -> dict[str, str]:
    """Return the flags of a command by what Python may call them."""
    found: dict[str, str] = {}
    for param in params:
        if isinstance(param, click.Option):
            flag = max(param.opts, key=len) if not param.opts[0].startswith("--") else param.opts[0]
            plain = flag.removeprefix("--").replace("-", "_")
            found |= dict.fromkeys([param.name or plain, plain, f"{plain}s"], flag)
    return found


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Return a message that names flags in place of the parameters that it begins with.

    Examples
    --------
    >>> flags = {"n_rounds": "--n-rounds", "drop": "--drop"}
    >>> in_flags("n_rounds must be 1", flags), in_flags("drop='agee' is not a column", flags)
    ('--n-rounds must be 1', "--drop 'agee' is not a column")
    >>> in_flags("node 'a': it has no rows", {"node": "--node"})
    "node 'a': it has no rows"
    """

    def said(found: re.Match[str]) -> str:
        before, name, yes, equals = found.groups()
        if name not in flags:
            return found[0]
        return f"{before}{flags[name]}{' ' if equals and not yes else ''}"

    return _PARAMETER.sub(said, message).replace("column ''", "the column without a name")
