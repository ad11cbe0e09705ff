"""How many cases hypothesis draws, and which: the same ones in CI, so that a red run can be repeated; fixtures."""

from __future__ import annotations

import pytest
from hypothesis import settings

from command import write_sites
from common import PROFILE, examples

settings.register_profile(PROFILE, max_examples=examples(100), derandomize=PROFILE == "ci", deadline=None)
settings.load_profile(PROFILE)


@pytest.fixture
def sites(tmp_path):
    """A folder of three sites' files."""
    return write_sites(tmp_path / "sites")
