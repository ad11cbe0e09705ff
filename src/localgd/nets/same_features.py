"""Whether ranks hold one network: they are asked about inputs that are made up, as no rank's own leave it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from localgd.engine.torchdist import TorchDistributed
from localgd.errors import extra, listing
from localgd.nets.features import Body

with extra("torch", "torch"):
    import torch

ROWS = 4
"""Most inputs of a batch that is made up."""

PLAIN = (bool, int, float, complex, str, tuple, list, dict, set, type(None), np.ndarray, np.generic)
"""What of a module's own attributes is compared by how it is written."""

FAR = 0.02
"""Features that differ by more of the largest are not those of one network, whatever machines compute them."""


def check_same_features(body: Body, engine: TorchDistributed) -> None:
    """Refuse ranks whose networks make other features of one batch, though their parameters and buffers are alike.

    Inputs have the form of the first that rank 0 has: random numbers from 0 to 1, and of whole numbers 0 or 1. Where a
    rank cannot run its network on them nothing is compared.
    """
    form = json.loads(engine.shared(json.dumps(described(body.first)).encode()))
    features = None if form is None else _features(body, made_up(form))
    if engine.agreed(features is None)[0]:
        return
    mine = np.asarray(features, dtype=np.float64)
    theirs = np.frombuffer(engine.shared(mine.tobytes()))
    first = theirs.reshape(mine.shape) if theirs.size == mine.size else np.full(mine.shape, math.inf)
    if not engine.agreed(bool((np.abs(mine - first) > FAR * np.abs(first).max(initial=0.0)).any()))[0]:
        return
    plain = dict(_plain(body.model))
    shared = json.loads(engine.shared(json.dumps(plain).encode()))
    differ = engine.agreed(*(plain.get(name) != value for name, value in shared.items()))
    unlike = listing(name for name, other in zip(shared, differ, strict=True) if other)
    which = f"look at {unlike}, unlike over the ranks" if unlike else "look at what else their modules hold"
    raise ValueError(
        f"ranks make other features of the same inputs, though they hold the same numbers: {which}; give all "
        "of them the same network, without what is a rank's own"
    )


def described(x: Any) -> Any:
    """Return what is to be known of an input to make another of its form, not its numbers; None if there is no telling.

    Examples
    --------
    >>> described((torch.rand(9, 2), {"ids": torch.tensor([1, 7])}))
    [['float32', [4, 2], 0], {'ids': ['int64', [2], 1]}]
    """
    if isinstance(x, torch.Tensor) and not x.is_complex():
        kind = str(x.dtype).removeprefix("torch.")
        return [kind, [min(n, ROWS) if axis == 0 else n for axis, n in enumerate(x.shape)], int(bool((x == 1).any()))]
    if not isinstance(x, Mapping | tuple | list):
        return None
    names, parts = (map(str, x), x.values()) if isinstance(x, Mapping) else ((), x)
    forms = [described(part) for part in parts]
    if None in forms:
        return None
    return dict(zip(names, forms, strict=True)) if isinstance(x, Mapping) else forms


def made_up(form: Any) -> Any:
    """Return an input of this form, the same each time: a whole number is 1 where the input has a 1, and 0 elsewhere.

    Examples
    --------
    >>> x, mask = made_up([["float32", [4, 2], 0], ["int64", [2], 1]])
    >>> x.shape, mask.tolist()
    (torch.Size([4, 2]), [1, 1])
    """
    if isinstance(form, dict):
        return {name: made_up(part) for name, part in form.items()}
    if not form or not isinstance(form[0], str):
        return tuple(made_up(part) for part in form)
    kind, shape, one = form
    dtype = getattr(torch, kind)
    if not dtype.is_floating_point:
        return torch.full(shape, one, dtype=dtype)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _features(body: Body, x: Any) -> Any:
    """Return the features of an input, None if the network cannot be run on it."""
    with suppress(Exception):  # a network may refuse any input that is made up
        features = body.asked(x).detach().cpu().double().numpy()
        return features if np.isfinite(features).all() else None
    return None


def _plain(model: Any) -> Iterator[tuple[str, str]]:
    """Yield what modules hold beside tensors and modules, as text."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training" and isinstance(value, PLAIN):
                yield f"{name}.{key}".lstrip("."), repr(value)
