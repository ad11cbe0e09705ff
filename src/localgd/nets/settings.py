"""What `LocalSGD` may be asked for: what means nothing is refused before a rank waits for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localgd.errors import check_flag, check_kind, check_mapping, check_positive, check_whole, extra
from localgd.nets.beside import check_asked, check_copied
from localgd.nets.outer import Outer

with extra("torch", "torch"):
    from torch import optim

CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "weights": ("batch", "examples", "equal"),
    "compress": (None, "bf16", "int8", "int4"),
    "on_failure": ("raise", "skip"),
}
"""Settings that are one of a few words."""


def check_settings(given: Mapping[str, Any]) -> None:
    """Refuse settings of `LocalSGD`, by name, that mean nothing, or that go without each other."""
    for name, choices in CHOICES.items():
        if not any(given[name] is choice or given[name] == choice for choice in choices):
            *known, last = map(repr, choices)
            raise ValueError(f"{name} must be {', '.join(known)} or {last}, got {given[name]!r}")
    check_whole("warmup", given["warmup"], 0)
    check_flag("overlap", given["overlap"])
    check_positive("timeout", given["timeout"])
    check_mapping("buffers", given["buffers"])
    check_kind("sync_every", given["period"], "next", "a number of steps, or a rule such as qsr(4, 0.02)")
    check_kind("outer", given["outer"], Outer, "average(), slowmo(…) or diloco(…)")
    if given["callback"] is not None:
        check_kind("callback", given["callback"], "__call__", "a function of a Sync")
    if given["overlap"] and (given["compare_every"] or given["shadow"]):
        raise ValueError(
            "overlap=True goes without compare_every and shadow, which look at ranks where they are together; leave "
            "one of them out"
        )
    if given["overlap"] and given["compress"]:
        raise ValueError(
            f"overlap=True goes with compress=None, got {given['compress']!r}: codes are made, summed and made again, "
            "which local steps cannot go on beside"
        )
    check_optimizer(given["optimizer"])
    check_asked(given["loss"], given["compare_every"], **{name: given[name] for name in ("shadow", "probe", "other")})
    if given["loss"] is not None:
        check_copied(given["optimizer"])


def check_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimizer of torch.

    Examples
    --------
    >>> check_optimizer([])
    Traceback (most recent call last):
    TypeError: optimizer must be one torch.optim.Optimizer, got a list: give one, of all parameters, in groups ...
    """
    if isinstance(optimizer, optim.Optimizer):
        return
    got = f"got a {type(optimizer).__name__}"
    if optimizer is None:
        got = "got None"
    elif isinstance(optimizer, type):
        got = f"got the class {optimizer.__name__}: make one, of the model's parameters"
    elif isinstance(optimizer, list | tuple | dict):
        got = f"{got}: give one, of all parameters, in groups if they have settings of their own"
    elif isinstance(getattr(optimizer, "optimizer", None), optim.Optimizer):
        got = f"{got}, which holds one: give its .optimizer"
    raise TypeError(f"optimizer must be one torch.optim.Optimizer, {got}")
