"""The node's side of a model that Flower trains: samples and classes, and the rows that its last layer meets."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from scipy.sparse import csr_array, issparse

from localgd.data.classes import signed
from localgd.data.heads import head_rows
from localgd.layouts import ClassRows
from localgd.layouts.csr import biased
from localgd.limits import Limits, RefusedError
from localgd.rows import Shard


@dataclass(frozen=True, eq=False)
class Features:
    """One node's samples as they feed the last layer of a model, and their classes; they never leave the node.

    `Certified` appends the ones of a bias, and gives the classes their signs or their rows, as the model has it.

    Parameters
    ----------
    node_id : str
        Name of the node.
    x : (n, d) array, tensor or CSR array, or a function that returns one
        The features: of a linear model the samples as they are. Of a network a function of its final arrays, an
        `ArrayRecord`, that returns what goes into its last layer; it must return the same if it is called again.
    labels : (n,) array
        The classes, from 0 to C − 1, as the logits are numbered; of one logit, 1 where it is to be positive. For
        `LeastSquares` the targets.
    weights : (n,) float64 array, optional
        What each sample counts, as of `localgd.Shard`.
    limits : Limits, optional
        What may be summed of the rows for others; set by the node.

    Examples
    --------
    >>> site = Features("site", [[1.0, 2.0], [3.0, 4.0]], [0, 1])
    >>> HeadRows(2, bias=True)(site).rows.tolist()
    [[-1.0, -2.0, -1.0], [3.0, 4.0, 1.0]]
    """

    node_id: str
    x: Any
    labels: Any
    weights: Any = field(default=None, kw_only=True, repr=False)
    limits: Limits | None = field(default=None, kw_only=True, repr=False)


@dataclass(frozen=True)
class HeadRows:
    """Turn a node's `Features` into the rows of a last layer; rows that are already of its kind stay as they are.

    Of one or two logits these are y·x with y = ±1, of more `localgd.ClassRows`; x ends with a one if there is a bias.

    Parameters
    ----------
    n_classes : int
        Classes, 2 or more; 0 for real targets.
    bias : bool
        Whether the layer has one.
    network : str
        All arrays of the network that it is the last layer of, as `written`; "" for a linear model.
    """

    n_classes: int
    bias: bool
    network: str = ""

    def __post_init__(self) -> None:
        """Check the number of classes."""
        if self.n_classes < 0 or self.n_classes == 1:
            raise RefusedError(f"n_classes must be at least 2, or 0 for real targets, got {self.n_classes}")

    def __call__(self, held: Any) -> Shard:
        """Return the rows; a RefusedError if what the node holds is of another kind."""
        if isinstance(held, Features):
            return self._made(held)
        if not isinstance(held, Shard):
            raise RefusedError("it holds a table: give Certified the recipe, or let its load return Features")
        if self.network:
            raise RefusedError(
                "it holds rows, but the model is a network: let its load return Features, with a function that runs "
                "the layers before the last one"
            )
        data = held.data
        if isinstance(data, ClassRows) and data.n_classes == self.n_classes == 2:
            return signed(held.node_id, _own(data.x.x), data.codes, 2, held.weights)
        if held.versus != max(1, self.n_classes - 1):
            raise RefusedError(
                f"it holds rows of {held.versus + 1} classes, and the model has {max(2, self.n_classes)}: give as many "
                "logits as classes"
            )
        return held

    def _made(self, held: Features) -> Shard:
        x = self._features(held)
        if self.bias:
            x = biased(x) if isinstance(x, csr_array) else np.hstack([x, np.ones((x.shape[0], 1))])
        if held.limits is not None and self.n_classes:
            held.limits.bear(float(x.shape[0]) * self.n_classes, f"the logits of {self.n_classes} classes")
        return head_rows(held.node_id, x, _numbers(held.labels), self.n_classes, weights=held.weights)

    def _features(self, held: Features) -> Any:
        """Return the features; of a network those that it makes, if it makes the same twice."""
        if not self.network:
            if callable(held.x):
                raise RefusedError(
                    "its features are a function, and the model is no network: give Certified head=, the name of its "
                    "last layer, or let x be numbers"
                )
            return _own(held.x)
        if not callable(held.x):
            raise RefusedError(
                "its features are numbers, but the model is a network: let x be a function of the final arrays that "
                "runs the layers before the last one"
            )
        arrays = read(self.network)
        x, again = _own(held.x(arrays)), _own(held.x(arrays))
        if (x != again).nnz if issparse(x) else not np.array_equal(x, again, equal_nan=True):
            raise RefusedError(
                "its features are others when they are computed again, so nothing is proved of the model: take out "
                "what is drawn at random (network.eval() does so for dropout)"
            )
        return x


def _numbers(values: Any) -> Any:
    """Return an array; of a tensor its numbers, wherever it lies."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _own(x: Any) -> Any:
    """Return rows of our own, to be written to."""
    sparse = issparse(x)
    out: Any = csr_array(x, dtype=np.float64, copy=True) if sparse else np.array(_numbers(x), dtype=np.float64)
    if out.ndim != 2:
        raise RefusedError(f"its features have the shape {out.shape}: give one row a sample")
    return out


def written(arrays: ArrayRecord) -> str:
    """Return arrays as text, to travel with the definition of a view."""
    return json.dumps(
        [[name, a.dtype, list(a.shape), a.stype, b64encode(a.data).decode()] for name, a in arrays.items()]
    )


def read(text: str) -> ArrayRecord:
    """Return the arrays that `written` wrote.

    Examples
    --------
    >>> read(written(ArrayRecord([np.arange(3.0)]))).to_numpy_ndarrays()
    [array([0., 1., 2.])]
    """
    parts = json.loads(text)
    return ArrayRecord(
        {name: Array(kind, tuple(shape), how, b64decode(data)) for name, kind, shape, how, data in parts}
    )
