"""Separable Gaussian problems whose pooled margins are known to nine digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localgd.errors import nearest
from localgd.rows import Shard


@dataclass(frozen=True)
class GaussianProblem:
    """Gaussian rows labelled by a hidden direction, each node's cloud moved by its own mean.

    Node m draws ``x = g/√d + shift·h_m/√d`` with g, h_m standard normal, and ``y = sign(x·w)`` for one hidden unit
    vector w; the signed rows y·x are divided by the largest norm among them.

    Parameters
    ----------
    n_nodes, rows_per_node, n_features : int
        Sizes, at least 1.
    shift : float
        How far apart the nodes' means are; 0 for identical distributions.
    seed : int
        Seed of the generator.
    margin : float
        The pooled max margin max_w min_i z_i·w/|w|, from an interior-point solve with residual below 1e-9.

    Examples
    --------
    >>> [shard.node_id for shard in GaussianProblem(2, 3, 4, 0.0, 0).shards()]
    ['node-00', 'node-01']
    """

    n_nodes: int
    rows_per_node: int
    n_features: int
    shift: float
    seed: int
    margin: float | None = None

    def shards(self) -> list[Shard]:
        """Return one shard per node, named ``node-00``, ``node-01``, …; the largest row norm is 1."""
        rng = np.random.default_rng(self.seed)
        w = rng.standard_normal(self.n_features)
        w /= np.linalg.norm(w)
        nodes = []
        for _ in range(self.n_nodes):
            mean = self.shift * rng.standard_normal(self.n_features) / np.sqrt(self.n_features)
            x = rng.standard_normal((self.rows_per_node, self.n_features)) / np.sqrt(self.n_features) + mean
            y = np.sign(x @ w)
            y[y == 0] = 1
            nodes.append(x * y[:, None])
        rows = np.stack(nodes)
        rows /= np.linalg.norm(rows, axis=2).max()
        return [Shard(f"node-{m:02d}", node) for m, node in enumerate(rows)]


KNOWN = {
    "gauss-400": GaussianProblem(10, 30, 400, 0.0, 0, 0.043795052),
    "gauss-400-shifted": GaussianProblem(10, 30, 400, 1.0, 0, 0.036995052),
    "gauss-2000": GaussianProblem(10, 30, 2000, 0.0, 0, 0.054758614),
    "gauss-2000-shifted": GaussianProblem(10, 30, 2000, 1.0, 0, 0.047581657),
    "hard": GaussianProblem(10, 100, 50, 1.0, 0, 0.004656721),
    "many-nodes": GaussianProblem(50, 20, 500, 0.5, 0, 0.017249044),
    "rate-law": GaussianProblem(10, 30, 2000, 0.0, 1, 0.052372),
}
"""The named problems."""


def gaussian_problem(name: str) -> list[Shard]:
    """Return the shards of a named problem of `KNOWN`.

    Raises
    ------
    ValueError
        If there is no problem of this name.

    Examples
    --------
    >>> shards = gaussian_problem("hard")
    >>> len(shards), shards[0].rows.shape, KNOWN["hard"].margin
    (10, (100, 50), 0.004656721)
    """
    if name not in KNOWN:
        raise ValueError(f"name={name!r} is no known problem{nearest(name, KNOWN)}")
    return KNOWN[name].shards()
