"""A plugin of pytest: scikit-learn's names are those of the adapters, and every outcome is kept in a file."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

import pytest
from adapters import ADAPTED, TOUCHED

OUTCOMES: dict[str, dict[str, object]] = {}


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001
    """Put the adapters where a test module, imported later, looks for names."""
    for module, adapters in ADAPTED.items():
        for adapter in adapters:
            setattr(import_module(module), adapter.__name__, adapter)


def pytest_runtest_setup(item: pytest.Item) -> None:  # noqa: ARG001
    """Forget what earlier tests have touched."""
    TOUCHED.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Keep what became of a test, and whether it was about an adapter."""
    report = (yield).get_result()
    test = item.nodeid.rpartition("::")[2]
    if report.when == "call" or not report.passed:
        error = "" if call.excinfo is None else f"{call.excinfo.typename}: {call.excinfo.value}"
        line = error.strip().splitlines()[0][:160] if error.strip() else ""
        OUTCOMES[test] = {"outcome": report.outcome, "touched": bool(TOUCHED), "error": line}


def pytest_sessionfinish() -> None:
    """Write the outcomes."""
    Path(os.environ["PEERS_OUTCOMES"]).write_text(json.dumps(OUTCOMES), encoding="utf-8")
