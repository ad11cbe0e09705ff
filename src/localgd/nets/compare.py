"""What a mean update is worth: its direction and length against that of synchronous steps from the same anchor."""

from __future__ import annotations

import math
from typing import Any

from localgd.nets.places import Places
from localgd.nets.record import Against


def against(places: Places, anchor: Any, total: Any, factor: float) -> Against:
    """Return cosine and ratio of ``factor·total`` and of how far tensors came from the anchor.

    Examples
    --------
    >>> import torch
    >>> places = Places([("w", torch.tensor([0.0, 3.0]))])
    >>> against(places, torch.zeros(2), torch.tensor([0.0, 12.0]), 0.5)
    Against(cosine=1.0, ratio=2.0)
    """
    product = mean = synchronous = 0.0
    for tensor, at, begin in places.pieces(total, anchor):
        moved = (tensor - begin.to(tensor.dtype)).double()
        update = at.double()
        product += float((moved * update).sum())
        synchronous += float(moved.square().sum())
        mean += float(update.square().sum())
    lengths = math.sqrt(mean) * math.sqrt(synchronous)
    ratio = factor * math.sqrt(mean / synchronous) if synchronous else math.nan
    return Against(product / lengths if lengths else math.nan, ratio)
