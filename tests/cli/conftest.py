"""A small table of patients, and a run on it, for the tests of the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command import TRAIN, localgd, patients


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "patients.csv"
    patients().write_csv(path)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    patients().write_csv(folder / "patients.csv")
    done = localgd("train", folder / "patients.csv", *TRAIN, "--out", folder / "RUN")
    assert done.returncode == 0, done.stderr
    return folder / "RUN"


@pytest.fixture
def run(first, table):
    """A run on the table, to do with as one likes."""
    return Path(shutil.copytree(first, table.with_name("RUN")))
