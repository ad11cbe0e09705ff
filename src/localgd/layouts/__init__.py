"""How rows lie in memory, and the few things that are computed of them, whatever the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse

from localgd.layouts.classes import ClassRows
from localgd.layouts.csr import Csr
from localgd.layouts.dense import Dense
from localgd.layouts.float32 import Float32
from localgd.layouts.layout import Layout
from localgd.layouts.prepared import Prepared

__all__ = ["ClassRows", "Csr", "Dense", "Float32", "Layout", "Prepared", "laid"]


def laid(rows: Any) -> Layout:
    """Return rows as a layout: an array, which stays float32 if it is, a sparse one, or what is a layout already.

    Examples
    --------
    >>> laid([[1.0, 2.0]])
    Dense(x=array([[1., 2.]]))
    """
    if isinstance(rows, Layout):
        return rows
    if issparse(rows):
        return Csr(rows)
    return Float32(rows) if getattr(rows, "dtype", None) == np.float32 else Dense(rows)
