"""Homogeneous networks in NumPy, many at once: scores, gradients, Local-GD, and how near a KKT point a network is.

Without biases a network of D layers has f(cθ; x) = c^D f(θ; x). On rows it separates, gradient flow on the logistic
loss turns θ towards a KKT point of ``min ½|θ|² s.t. q_i(θ) >= 1``, where ``q_i = y_i f(θ; x_i)`` (Lyu, Li, ICLR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import expit

from localgd.rounding import FloatArray, norm


@dataclass(frozen=True)
class Homogeneous:
    """A network of linear layers without biases, with or without a ReLU between them, and one score at the end.

    Parameters of several networks may stand in an array of shape (…, n_parameters), each network with its own rows.

    Parameters
    ----------
    widths : tuple of int
        Inputs, then the units of every layer; the last is 1.
    relu : bool
        Whether a ReLU follows every layer but the last; without, all layers are one linear map.

    Examples
    --------
    >>> Homogeneous((10, 40, 1), relu=True).degree, Homogeneous((10, 40, 1), relu=True).n_parameters
    (2, 440)
    """

    widths: tuple[int, ...]
    relu: bool

    @property
    def degree(self) -> int:
        """D: how many layers there are."""
        return len(self.widths) - 1

    @property
    def n_parameters(self) -> int:
        """How many numbers θ has."""
        return sum(a * b for a, b in pairwise(self.widths))

    def layers(self, parameters: FloatArray) -> list[FloatArray]:
        """Return the weights of every layer, (…, outputs, inputs): views of the parameters."""
        found, at = [], 0
        for inputs, outputs in pairwise(self.widths):
            part = parameters[..., at : at + inputs * outputs]
            found.append(part.reshape(*part.shape[:-1], outputs, inputs))
            at += inputs * outputs
        return found

    def start(self, rng: np.random.Generator) -> FloatArray:
        """Return parameters drawn with variance 1/inputs in each layer."""
        drawn = [rng.normal(size=a * b) / np.sqrt(a) for a, b in pairwise(self.widths)]
        return np.concatenate(drawn)

    def scores(self, parameters: FloatArray, X: FloatArray) -> FloatArray:
        """Return f(θ; x) of every row, (…, n)."""
        return self._forward(parameters, X)[-1][..., 0]

    def _forward(self, parameters: FloatArray, X: FloatArray) -> list[FloatArray]:
        """Return the inputs of every layer, and the output of the last."""
        held = [X]
        for number, weights in enumerate(self.layers(parameters), start=1):
            out = held[-1] @ weights.swapaxes(-1, -2)
            held.append(np.maximum(out, 0, out=out) if self.relu and number < self.degree else out)
        return held

    def pull(self, parameters: FloatArray, X: FloatArray, y: FloatArray, out: FloatArray) -> FloatArray:
        """Write ``(1/n) Σ s_i ∇q_i(θ)`` into `out`, s_i = 1/(1 + e^q_i) the slope of the logistic loss; return q.

        It is minus the gradient of the mean logistic loss. At a kink the ReLU has slope 0.

        Parameters
        ----------
        parameters : (…, n_parameters) float64 array
            θ.
        X : (…, n, inputs) float64 array
            Rows.
        y : (…, n) float64 array
            Labels, ±1.
        out : (…, n_parameters) float64 array
            Is overwritten.

        Returns
        -------
        (…, n) float64 array
            q_i, the margins.
        """
        *held, last = self._forward(parameters, X)
        q = y * last[..., 0]
        back = (expit(-q) * y / y.shape[-1])[..., None]
        places = zip(self.layers(parameters), held, self.layers(out), strict=True)
        for depth, (weights, inputs, place) in enumerate(reversed(list(places)), start=1):
            np.matmul(back.swapaxes(-1, -2), inputs, out=place)
            if depth < self.degree:
                back = back @ weights
                if self.relu:
                    back *= inputs > 0
        return q

    def map(self, parameters: FloatArray) -> FloatArray:
        """Return the one linear map that layers without ReLU are, (…, inputs)."""
        first, *others = self.layers(parameters)
        for weights in others:
            first = weights @ first
        return first[..., 0, :]


@dataclass(frozen=True)
class Standing:
    """How far training has turned a network towards a KKT point of its largest margin.

    Attributes
    ----------
    margin : float
        ``min_i q_i / |θ|^D``: at most 0 unless all rows are classified rightly.
    residual : float
        ``|θ/|θ| − Σ λ_i ∇q_i(θ)|``, where λ_i goes with the loss slope and the sum has length 1: 0 at a KKT point, 2
        at most.
    complementarity : float
        ``D Σ λ_i (q_i − min q)`` in units of |θ|: how much of the sum is of rows above the margin; 0 at a KKT point.
    loss : float
        Mean logistic loss.
    """

    margin: float
    residual: float
    complementarity: float
    loss: float


def standing(network: Homogeneous, theta: FloatArray, X: FloatArray, y: FloatArray) -> Standing:
    """Measure a network over nodes: each gives the sums over its rows and its smallest margin, and no row.

    Parameters
    ----------
    network : Homogeneous
        Its layers.
    theta : (n_parameters,) float64 array
        θ, the same at all nodes.
    X : (M, n, inputs) float64 array
        Rows of M nodes.
    y : (M, n) float64 array
        Their labels, ±1.

    Returns
    -------
    Standing
        The same, but for rounding, as if one node held all rows.
    """
    at_nodes = np.broadcast_to(theta, (len(X), theta.size))
    pulls = np.empty_like(at_nodes)
    q = network.pull(at_nodes, X, y, pulls)
    slopes = expit(-q)
    sums = {"slope": slopes.mean(axis=-1), "slope·q": (slopes * q).mean(axis=-1), "lowest": q.min(axis=-1)}
    pull, lowest = pulls.mean(axis=0), float(sums["lowest"].min())
    above = float(sums["slope·q"].mean() - lowest * sums["slope"].mean())
    length = norm(theta)
    return Standing(
        margin=lowest / length**network.degree,
        residual=norm(theta / length - pull / norm(pull)),
        complementarity=network.degree * above / (norm(pull) * length),
        loss=float(np.logaddexp(0, -q).mean()),
    )


def local_gd(
    network: Homogeneous, theta: FloatArray, X: FloatArray, y: FloatArray, *, lr: float, local_steps: int, rounds: int
) -> FloatArray:
    """Return what plain Local-GD makes of several networks at once: gradient steps at each node, then their mean.

    Parameters
    ----------
    network : Homogeneous
        Its layers.
    theta : (R, n_parameters) float64 array
        Where R runs start.
    X : (R, M, n, inputs) float64 array
        Rows of the M nodes of each run.
    y : (R, M, n) float64 array
        Their labels, ±1.
    lr : float > 0
        Step size η.
    local_steps, rounds : int
        L and k.

    Returns
    -------
    (R, n_parameters) float64 array
        The shared model of each run.
    """
    nodes = np.empty((*X.shape[:2], network.n_parameters))
    pull = np.empty_like(nodes)
    for _ in range(rounds):
        nodes[:] = theta[:, None]
        for _ in range(local_steps):
            network.pull(nodes, X, y, pull)
            pull *= lr
            nodes += pull
        theta = nodes.mean(axis=1)
    return theta
