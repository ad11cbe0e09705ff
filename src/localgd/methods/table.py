"""The methods by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from localgd.methods.auto import auto
from localgd.methods.averaging import (
    fedexp,
    fedprox,
    local_gd,
    local_sgd,
    modified_local_gd,
    normalised_local_gd,
    slowmo,
)
from localgd.methods.exact import consensus, interior_point, lbfgs, newton, scaffold
from localgd.methods.method import Choice, Method

METHODS: dict[str, Callable[..., Method | Choice]] = {
    "auto": auto,
    "local-gd": local_gd,
    "local-sgd": local_sgd,
    "modified-local-gd": modified_local_gd,
    "normalised-local-gd": normalised_local_gd,
    "fedexp": fedexp,
    "fedprox": fedprox,
    "slowmo": slowmo,
    "consensus": consensus,
    "interior-point": interior_point,
    "newton": newton,
    "lbfgs": lbfgs,
    "scaffold": scaffold,
}
"""The methods by name."""


def method_named(name: str, **options: Any) -> Method | Choice:
    """Return the method called `name` with these options.

    Raises
    ------
    ValueError
        If no method has that name (the nearest is suggested) or the method has no such option.

    Examples
    --------
    >>> method_named("local-gd", local_steps=10).task.local_steps
    10
    >>> method_named("local-dg")
    Traceback (most recent call last):
    ValueError: unknown method 'local-dg'; did you mean 'local-gd'? Known: auto, local-gd, ...
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown method {name!r}; did you mean {near!r}? Known: {', '.join(METHODS)}")
    known = inspect.signature(METHODS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{option} has no meaning for method {name!r}; its options are {', '.join(known)}")
    return METHODS[name](**options)
