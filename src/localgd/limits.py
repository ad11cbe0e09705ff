"""What a node's operator allows, whatever a server asks: sums of enough rows, and work of bearable size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from localgd.rounding import FloatArray

SHOWN = 5
"""Columns that a refusal names."""

NEARLY = 1 - 1e-9
"""So many rows of equal share are that many, whatever the rounding."""


class RefusedError(ValueError):
    """What came over the network, a node's own configuration, or what a task says of its rows, is not fit for use.

    It says why, and nothing of any row, so that a node sends its words on.
    """


def n_effective(shares: FloatArray) -> FloatArray:
    """Return (Σ s_i)²/Σ s_i² for shares s >= 0, of every column: on how many rows a sum rests; inf if all are 0.

    Examples
    --------
    >>> n_effective(np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1e-9]])).round(6).tolist()
    [3.0, 1.0]
    """
    most = shares.max(axis=0, initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # shares that are not finite rest on nothing: NaN
        parts = shares / most
        found = parts.sum(axis=0) ** 2 / (parts * parts).sum(axis=0)
    return np.asarray(np.where(most == 0.0, math.inf, found))


@dataclass(frozen=True)
class Limits:
    """Limits that a node's operator sets, and no server can change.

    A node's rows carry them, and a sum for others is held against them where it is formed (`Shard.combination`,
    `Shard.combine`, `Shard.second_moment`), whatever the server asks. They do not hold the code of a task: one that
    makes what it sends of `Shard.own_sum`, or of the rows, can send anything.

    Parameters
    ----------
    min_rows : int, at least 1
        On how many rows a combination Σ a_i z_i must rest, measured by (Σ |a_i z_i|)²/Σ |a_i z_i|² and, of rows
        that are not 0, by (Σ |a_i|)²/Σ |a_i|²; a sum of second moments by |a_i||z_i|². Sums in which all coefficients
        are 0 say nothing, and pass.
    min_batch : int, at least 1
        Samples in a mini-batch.
    min_group : int, at least 1
        A category, or a word, that fewer rows of the node have is not told, and no cell of a table of decisions.
    max_local_steps : int, at least 1
        Local steps in a round.
    max_duals : int, at least 1
        Dual vectors in a report.
    max_mb : float > 0
        Megabytes of a report, of a d×d or n×n sum, and of what a task draws or remembers.

    Raises
    ------
    RefusedError
        If one is out of its range.

    Examples
    --------
    >>> Limits().within({"min-rows": 20}).min_rows
    20
    >>> Limits().rest(np.array([1.0, 0.1, 0.1]))
    Traceback (most recent call last):
    localgd.limits.RefusedError: it sends no sum that rests on fewer than min-rows=8 of its rows; ...
    """

    min_rows: int = 8
    min_batch: int = 8
    min_group: int = 8
    max_local_steps: int = 10_000
    max_duals: int = 64
    max_mb: float = 256.0

    def __post_init__(self) -> None:
        """Check every field once."""
        for name, key in KEYS.items():
            value, whole = getattr(self, name), name != "max_mb"
            if type(value) not in ((int,) if whole else (int, float)) or not value > 0:  # True is an int, too
                kind = "whole number of at least 1" if whole else "number above 0"
                raise RefusedError(f"{key} must be a {kind}; correct its node-config")

    def within(self, config: Mapping[str, Any]) -> Limits:
        """Return the limits with what a node-config says of them, under names like ``min-rows``."""
        return replace(self, **{name: config[key] for name, key in KEYS.items() if key in config})

    def _refused(self, what: str, name: str) -> RefusedError:
        """Return a refusal to do something, with the limit in it, and who may change that."""
        return RefusedError(f"it {what.format(getattr(self, name))}; its operator may set {KEYS[name]}")

    def rest(self, shares: FloatArray) -> None:
        """Refuse a sum of terms of these sizes, one for each row (or sample), if it rests on too few.

        Each column of an (n, k) array is a sum of its own.
        """
        if self.min_rows > 1 and not (n_effective(shares) >= NEARLY * self.min_rows).all():
            raise self._refused(
                "sends no sum that rests on fewer than min-rows={} of its rows; take a method whose sums rest on more, "
                "or stop earlier (on separable rows few of them carry the last rounds)",
                "min_rows",
            )

    def enough(self, names: Sequence[str], n_present: FloatArray) -> None:
        """Refuse sums of columns over so many rows each, if some row has a value there, but too few have."""
        few = [f"{name!r}" for name, n in zip(names, n_present, strict=True) if 0 < n < self.min_rows]
        if few:
            which = f"{', '.join(few[:SHOWN])}{' and more' * (len(few) > SHOWN)}".replace("{", "{{").replace("}", "}}")
            raise self._refused(
                f"sums no column that fewer than min-rows={{}} of its rows have a value in: drop {which}", "min_rows"
            )

    def bear(self, n_numbers: float, what: str) -> None:
        """Refuse to hold or send so many numbers, if they are more than `max_mb` megabytes."""
        if not 8 * n_numbers <= self.max_mb * 1e6:
            size = 8 * min(n_numbers, 1e300) / 1e6
            raise RefusedError(
                f"{what} would take {size:.3g} MB, more than max-mb={self.max_mb:g}; take a method "
                "without it, or fewer columns; its operator may set max-mb"
            )

    def admit(self, task: Any, sizes: Mapping[str, int], n_duals: int, n_rows: int, local_steps: int) -> None:
        """Refuse a task that is beyond the limits.

        Looked at are its fields called min_group, batch_size and memory; how many numbers each field of its report
        holds, as its schema declares, and how many of them are duals; the rows of the node, and its local steps.
        """
        batch = getattr(task, "batch_size", None)
        if getattr(task, "min_group", self.min_group) < self.min_group:
            raise self._refused(
                "tells no category, no word and no cell of a table of fewer than {0} rows; give min-group={0} or more",
                "min_group",
            )
        if batch is not None and batch < self.min_batch:
            raise self._refused("takes no batches of fewer than min-batch={} samples; give larger ones", "min_batch")
        if local_steps > self.max_local_steps:
            raise self._refused(
                "takes no more than max-local-steps={} local steps a round; give fewer", "max_local_steps"
            )
        if n_duals > self.max_duals:
            raise self._refused("sends no more than max-duals={} dual vectors a round; ask for fewer", "max_duals")
        self.bear(sum(sizes.values()), "its report")
        if batch is not None:
            self.bear(float(local_steps) * min(batch, n_rows), "the batches")
        self.bear(4.0 * float(getattr(task, "memory", 0) or 0) * n_rows, "the memory")


KEYS = {field.name: field.name.replace("_", "-") for field in fields(Limits)}
"""What a node-config calls each limit."""
