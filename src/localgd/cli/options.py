"""Flags for the options of methods, made from their table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from localgd.cli.flags import Source
from localgd.methods.options import OPTIONS


def with_method_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every option of a method; `typer` reads it off the signature.

    The command takes them from its context, by name.
    """
    signature = inspect.signature(command, eval_str=True)
    names = [name for name in signature.parameters if name != "context"]
    flags = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                option.kind | None,
                typer.Option(help=option.described, show_default=option.shown),
            ],
        )
        for option in OPTIONS
        if option.name not in names
    ]

    def given(context: typer.Context, **options: Any) -> None:
        command(context, **{name: options[name] for name in names})

    given.__doc__ = command.__doc__
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    given.__signature__ = signature.replace(parameters=[*parameters, *flags])  # type: ignore[attr-defined]
    given.__annotations__ = {p.name: p.annotation for p in (*parameters, *flags)}
    return given


def with_source(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of a `Source` in place of its parameter of that name; `typer` reads them off, too."""
    signature = inspect.signature(command, eval_str=True)
    own = inspect.signature(Source, eval_str=True).parameters

    def given(*context: typer.Context, **options: Any) -> None:
        source = Source(**{name: options.pop(name) for name in own})
        command(*context, source=source, **options)

    given.__doc__ = command.__doc__
    place, parameters = list(signature.parameters).index("source"), list(signature.parameters.values())
    parameters[place : place + 1] = own.values()
    first, rest = parameters[:place], parameters[place:]
    rest = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in rest]
    given.__signature__ = signature.replace(parameters=[*first, *rest])  # type: ignore[attr-defined]
    given.__annotations__ = {parameter.name: parameter.annotation for parameter in (*first, *rest)}
    return given


def check_flags(values: Mapping[str, Any], command: Callable[..., Any], where: str) -> None:
    """Refuse flags, as a file keeps them, that the command would not have taken: anybody may have written it."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if name in values and not _fits(values[name], parameter.annotation):
            flag = name.replace("_", "-")
            raise ValueError(f"{where} says --{flag} {values[name]!r:.80}: it is damaged, or of another version")


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of the kind that a flag has; a path is kept as a text."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(value, inside[0])
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return type(value) is str and value in inside
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is (str if kind is Path else kind)
