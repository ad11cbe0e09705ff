"""Axes that people can read: plain numbers at 1, 2 and 5 rather than powers of ten."""

from __future__ import annotations

from typing import Any

import numpy as np

from localgd.rounding import FloatArray


def plain_log_axis(axis: Any, values: FloatArray) -> None:
    """Scale an axis by the logarithm where its values allow it, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415  half a second for figures

    if values.size < 2 or not values.min() > 0 or values.max() == values.min():
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = np.log10(values.max() / values.min())
    axis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,), numticks=12 if decades < 6 else 7)
    )
    axis.set_minor_locator(NullLocator())
    powers = values.min() < 1e-4 or values.max() > 1e6
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value) if powers else f"{value:g}"))


def _power(value: float) -> str:
    """Return 10ᵏ, or 2·10ᵏ and 5·10ᵏ between."""
    exponent = int(np.floor(np.log10(value) + 1e-9))
    digit = round(value / 10.0**exponent)
    return f"{'' if digit == 1 else f'{digit}·'}$10^{{{exponent}}}$"
