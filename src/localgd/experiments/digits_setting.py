"""The digits, how they are dealt to nodes, and what is tried on them: all that can be known without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

WORLD = 4
BATCH, MOMENTUM = 16, 0.9
TEST, TUNING = 400, 300
LRS = (0.01, 0.03, 0.1, 0.3)
LOCAL_STEPS, MIDDLE = (5, 20, 100), 20
"""L of averaging; SlowMo and DiLoCo have the middle one."""
LEAST_SYNCS = 4
"""Of a training that is worth comparing."""
LOOKS = (1, 2, 5, 10, 20, 40, 60, 100, 200, 300, 400)

SYNCHRONOUS, OTHER_BATCHES = "synchronous", "synchronous, other batches"
FEW = "synchronous, as few syncs"
AVERAGE, SLOWMO, DILOCO = "average", "SlowMo", "DiLoCo"
IID, BY_LABEL = "iid", "by_label"
SPLITS = {IID: "nodes alike", BY_LABEL: "nodes by label"}


@dataclass(frozen=True)
class Digits:
    """Images and labels of every node, those that tune the step size, and those that all models are compared on."""

    x: list[Any]
    y: list[Any]
    x_tuning: Any
    y_tuning: Any
    x_test: Any
    y_test: Any
    seed: int


def digits(split: str, seed: int) -> Digits:
    """Deal the digits: alike, or sorted by label, so that a node has two to four of ten."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  only this experiment pays for it

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8), labels[order]
    test, tuning, own = slice(TEST), slice(TEST, TEST + TUNING), slice(TEST + TUNING, None)
    x, y = images[own], labels[own]
    if split == BY_LABEL:
        sorted_by = np.argsort(y, kind="stable")
        x, y = x[sorted_by], y[sorted_by]
    each = len(y) // WORLD
    parts = [slice(node * each, (node + 1) * each) for node in range(WORLD)]
    return Digits(
        [x[part] for part in parts],
        [y[part] for part in parts],
        images[tuning],
        labels[tuning],
        images[test],
        labels[test],
        seed,
    )
