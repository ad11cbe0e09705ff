"""Rows of some cells of an experiment, and which of its checks they refute."""

from __future__ import annotations

import polars as pl


def measured(experiment, cells):
    """All rows of the cells, each with its parameters, as `localgd reproduce` gathers them."""
    rows = [{**cell, **row} for cell in cells for row in experiment.run(cell, experiment.seed(cell))]
    return pl.DataFrame(rows, infer_schema_length=None)


def refuted(experiment, frame):
    """Places of the checks whose failure refutes the claim."""
    return [k for k, check in enumerate(experiment.verdict(frame).checks) if not check.passes and check.limits is None]
