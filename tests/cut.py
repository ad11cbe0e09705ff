"""Cutting a run short, and comparing it to one that was not."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np


class CutError(Exception):
    """Power failure."""


def cut_at(round_: int) -> Any:
    def on_round(info: Any) -> None:
        if info.row.round == round_:
            raise CutError

    return on_round


def history(run: Any) -> Any:
    """All that rows say, but for the seconds."""
    return np.array([list(asdict(replace(row, seconds=0.0)).values()) for row in run.history])


def assert_same_run(found: Any, expected: Any) -> None:
    """Same bits of the model, the history and the certificate."""
    np.testing.assert_array_equal(found.w, expected.w)
    np.testing.assert_array_equal(history(found), history(expected))
    assert found.certificate.to_dict() == expected.certificate.to_dict()
    assert found.failures == expected.failures
