"""The last layer of a model that Flower trained."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord

from localgd.data.heads import LastLayer
from localgd.rounding import FloatArray


def last_layer(arrays: ArrayRecord, head: str | None = None) -> LastLayer:
    """Return the last layer of a model: the one that is called `head`, or all there is.

    A ValueError if there is no model, as when no round of training came to its end, or that is no linear layer.

    Examples
    --------
    >>> last_layer(ArrayRecord([np.ones((3, 2)), np.zeros(3)])).n_classes
    3
    """
    if not arrays:
        raise ValueError("the strategy has made no model: no round of training came to its end")
    names = list(arrays) if head is None else [name for name in (f"{head}.weight", f"{head}.bias") if name in arrays]
    dims = [len(arrays[name].shape) for name in names]
    if head is None and max(dims) < 2:
        return LastLayer(np.concatenate([_numbers(arrays, name).ravel() for name in names])[None])
    if dims == [2]:
        return LastLayer(_numbers(arrays, names[0]))
    if len(dims) == 2 and dims[0] == 2 and dims[1] < 2:
        coef, intercept = (_numbers(arrays, name) for name in names)
        if intercept.size == len(coef):
            return LastLayer(coef, intercept.ravel())
    listed = ", ".join(f"{name} {tuple(array.shape)}" for name, array in list(arrays.items())[-6:])
    called = "single" if head is None else f"{head!r} for a"
    raise ValueError(
        f"the model has no {called} linear layer, a row of coefficients for each logit and as many intercepts or none "
        f"(its arrays, or the last of them: {listed}): of a network name the last layer, as in head='fc' for arrays "
        "called fc.weight and fc.bias"
    )


def _numbers(arrays: ArrayRecord, name: str) -> FloatArray:
    return np.asarray(arrays[name].numpy(), dtype=np.float64)
