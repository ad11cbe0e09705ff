"""Scores as rows: a federation whose model gives each row a score of one's own choice."""

from __future__ import annotations

import numpy as np

from localgd import InProcess, Message, Shard

ONE = Message(0, np.array([1.0, 0.0]))
"""The model under which the score of such a row is the number that it was made of."""


def of_scores(scores, positive, groups, weights=None):
    """A node for each group, with rows of one column and a bias."""
    signed = np.column_stack([scores, np.ones(len(scores))]) * np.where(positive, 1.0, -1.0)[:, None]
    nodes = [(name, groups == name) for name in np.unique(groups)]
    return InProcess(
        Shard(f"{name}", signed[own], weights=None if weights is None else weights[own])
        for name, own in nodes
        if weights is None or weights[own].any()
    )
