"""What tells whether code of one's own is right: a method, a training loop over ranks, a linear model over groups."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localgd.testing.ddp import assert_matches_ddp
    from localgd.testing.pooled import assert_matches_pooled
    from localgd.testing.ranks import in_ranks

__all__ = ["assert_matches_ddp", "assert_matches_pooled", "in_ranks"]

HOMES = {"assert_matches_ddp": "ddp", "assert_matches_pooled": "pooled", "in_ranks": "ranks"}


def __getattr__(name: str) -> Any:
    """Import a name on first use: pytest loads this package for its plugin in every run, also of other tests."""
    if name not in HOMES:
        raise AttributeError(f"module 'localgd.testing' has no attribute {name!r}")
    return getattr(import_module(f"localgd.testing.{HOMES[name]}"), name)
