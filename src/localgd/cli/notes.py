"""What a command says beside its result: at once on standard error, and in its JSON, where there is one."""

from __future__ import annotations

from collections.abc import Iterable

import typer


class Notes(list[str]):
    """Lines that were said, in their order."""

    def say(self, lines: Iterable[str]) -> None:
        """Print lines on standard error, and keep them."""
        for line in lines:
            typer.echo(line, err=True)
            self.append(line)
