"""Fixtures for pytest, which finds them where localgd is installed; each imports what it needs when a test asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_matches_pooled() -> Callable[..., Any]:
    """Return `localgd.testing.assert_matches_pooled`."""
    from localgd.testing.pooled import assert_matches_pooled  # noqa: PLC0415  only for those who ask

    return assert_matches_pooled


@pytest.fixture
def assert_matches_ddp() -> Callable[..., Any]:
    """Return `localgd.testing.assert_matches_ddp`."""
    from localgd.testing.ddp import assert_matches_ddp  # noqa: PLC0415

    return assert_matches_ddp


@pytest.fixture
def localgd_ranks() -> Callable[..., list[Any]]:
    """Return `localgd.testing.in_ranks`, which runs a function in ranks of gloo."""
    from localgd.testing.ranks import in_ranks  # noqa: PLC0415

    return in_ranks
