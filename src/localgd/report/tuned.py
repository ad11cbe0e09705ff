"""A choice of C, as a table, a sentence and a figure."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table as Grid

from localgd.errors import plain
from localgd.evaluation.measures import plain as plain_of
from localgd.report import text
from localgd.report.figure import Line, Panel
from localgd.run.tune import Tuned

MOST_FOLDS = 10
"""Nodes that are listed; the file has all of them."""

SURE = 1e-6
"""What is known of an area to within this needs no word."""


def columns(found: Tuned) -> dict[str, Any]:
    """Return the scores column by column, ready for a data frame: C, the mean and its spread, and each fold."""
    spread = found.told.std(axis=0)
    each = {f"score_{name}": plain_of(of) for name, of in zip(found.folds, found.scores, strict=True)}
    return {"C": found.Cs.tolist(), "mean": found.means.tolist(), "sd": spread.tolist(), **each}


def table(found: Tuned, scoring: str) -> Grid:
    """Return the table of C by score."""
    grid = Grid(title=f"{scoring} on held-out rows", title_justify="left")
    for name in ("C", "mean", "sd", "least fold", "best fold", ""):
        grid.add_column(name, justify="right", no_wrap=True)
    for place, (C, of) in enumerate(zip(found.Cs, found.told.T, strict=True)):
        numbers = (of.mean(), of.std(), of.min(), of.max())
        grid.add_row(f"{C:.4g}", *(f"{one:.4f}" for one in numbers), "← chosen" if place == found.best else "")
    return grid


def in_short(found: Tuned, scoring: str) -> list[str]:
    """Return what was chosen, and what to think of it, in a few lines."""
    C, own = found.Cs[found.best], zip(map(plain, found.folds), found.scores[:, found.best], strict=True)
    always = f" (always the most frequent class: {found.majority:.4f})" if scoring == "accuracy" else ""
    counted, values = text.counted(len(found.folds), "fold"), text.counted(found.Cs.size, "value")
    mean = f"{scoring} {found.means[found.best]:.4f}{always}"
    said = [f"C = {C:.4g}: {mean}; {counted}, {values} of C, {found.n_rounds} rounds"]
    each = [f"{name} {'–' if math.isnan(score) else f'{score:.4f}'}" for name, score in own]
    if found.folds != tuple(f"{place + 1}" for place in range(len(found.folds))):  # they are nodes
        said.append(f"by the node that was left out: {', '.join(each[:MOST_FOLDS])}{', …' * (len(each) > MOST_FOLDS)}")
    if n_missing := len(found.scores) - len(found.told):
        said.append(f"{text.counted(n_missing, 'fold')} without a score, as the rows held out lack a class there")
    if (near := found.strongest) != found.best:
        of_near = f"{found.Cs[near]:.4g} ({found.means[near]:.4f})"
        said.append(f"no worse by more than one standard error of the mean, with a stronger penalty: C = {of_near}")
    if found.best in (0, found.Cs.size - 1) and found.Cs.size > 1:
        side = "smallest" if found.best == 0 else "largest"
        said.append(f"it is the {side} C that was tried; the best may lie beyond: --Cs with others")
    if found.doubt > SURE:
        said.append(f"areas are known to within {found.doubt:.1g}; where that decides, the smaller C is taken")
    return [*said, *text.unmet(found.unmet)]


def panels(found: Tuned, scoring: str) -> list[Panel]:
    """Return the figure: the score against C, with its spread over the folds."""
    means, spread = found.means, found.told.std(axis=0)
    mean = Line(found.Cs, means, "", 1, "line+points", means - spread, means + spread)
    C = found.Cs[found.best]
    chosen = Line([C], [means[found.best]], f"C = {C:.4g}", 2, "points")
    title = "Score on held-out rows, ± sd over the folds"
    return [Panel(title, "C", scoring, [mean, chosen], log_x=True)]
