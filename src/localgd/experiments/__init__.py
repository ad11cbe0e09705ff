"""Every claim about Local-GD as an experiment: one file each, judged by the numbers it measures."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localgd.experiments.claim import Experiment

ROOMS = {
    "direction": "direction",
    "rate-law": "rate_law",
    "modified": "modified",
    "heterogeneity": "heterogeneity",
    "budget": "budget",
    "local-sgd": "local_sgd",
    "non-separable": "nonseparable",
    "regression": "regression",
    "last-layer": "last_layer",
    "centralized": "centralized",
    "networks": "networks",
    "digits": "digits",
}
"""The experiments by name, in the order they are shown, and the modules they live in."""

NAMES = tuple(ROOMS)


def experiments(names: Iterable[str] = NAMES) -> dict[str, Experiment]:
    """Import and return experiments by name.

    Examples
    --------
    >>> list(experiments(["direction"]))
    ['direction']
    """
    return {name: import_module(f"localgd.experiments.{ROOMS[name]}").EXPERIMENT for name in names}
