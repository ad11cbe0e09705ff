"""The command line; `localgd.cli.app` has its commands."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, as `argv` or as the process was given it, and return the exit code.

    Expected errors become one clear line, and so does Ctrl-C, or SIGTERM, wherever it finds the program.
    """
    number: int | None = None
    try:
        from localgd.report.interrupts import INTERRUPTS  # in here, as a signal may come meanwhile

        with INTERRUPTS.answered():
            try:
                code, trouble = _run(argv)
            finally:
                number = INTERRUPTS.number
        if number is None:
            sys.stderr.write(trouble)
            return code
    except (Exception, KeyboardInterrupt) as error:  # the one may have become the other on its way here
        if number is None and not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        if argv is None:  # the process ends, with this code: a signal changes nothing any more
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, signal.SIG_IGN)
    sys.stderr.write("interrupted\n")
    return 128 + (number or 2)


def _run(argv: Sequence[str] | None) -> tuple[int, str]:
    """Run the command line; return the exit code, and what went wrong."""
    from localgd.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ° or ≤ shows a question mark, not a traceback
    try:
        app(argv, prog_name="localgd")
    except SystemExit as end:  # how typer always ends
        return int(end.code or 0), ""
    except Exception as error:
        message, code = _expected(error)
        if code is None:
            raise
        from localgd.cli.wording import in_flags
        from localgd.errors import plain

        lines = f"error: {in_flags(message, vars(error).get('flags', {}))}".split("\n")
        return code, "".join(f"{plain(line)}\n" for line in lines)  # a name in a file may hold what a terminal obeys
    return 0, ""


def _expected(error: Exception) -> tuple[str, int | None]:
    """Return what an error says to users, and its exit code: None if it is a fault of the program."""
    from localgd.cli.flags import BAD_INPUT, FAILED
    from localgd.errors import EngineError, MissingExtraError, NodeError

    match error:
        case NodeError(__cause__=ValueError()):
            return f"node {error.node_id!r}: {error.__cause__}", BAD_INPUT
        case ValueError() | FileExistsError() | FileNotFoundError() | MissingExtraError():
            return str(error), BAD_INPUT
        case NodeError() | OSError() | EngineError():
            return str(error), FAILED
        case _:
            return str(error), None
