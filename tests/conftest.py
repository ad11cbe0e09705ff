"""Hypothesis explores afresh on every machine, the same cases in CI, so that a red run can be repeated; fixtures."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from command import write_sites

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture
def sites(tmp_path):
    """A folder of three sites' files."""
    return write_sites(tmp_path / "sites")
