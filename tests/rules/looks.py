"""How rules are looked at: what nodes are sent, what comes back, and what becomes of the model."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import polars as pl

from common import random_rows, with_bias
from engines.tasks import FailOn
from localgd import (
    InProcess,
    Message,
    NodeError,
    Samples,
    Shard,
    conjugate_gradients,
    local_gd,
    train,
)
from localgd.data.table import Table
from localgd.data.unmet import unmet
from localgd.problems.certificate import Certificate
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import Squares
from localgd.problems.regularised import Regularised
from localgd.rules.descent import ControlVariates
from localgd.rules.probes import Sizes
from localgd.rules.server import chain, mean

NOISY = with_bias(random_rows(5), noise=0.1)
ROWS = {True: NOISY, False: random_rows(6)}
BIASED = Regularised(C=1.0, intercept=True)
TARGETS = [Samples(shard.node_id, shard.rows, np.arange(float(shard.n_rows))) for shard in random_rows(6)]
TABLES = [
    Table(
        f"{place}",
        pl.DataFrame(
            {"a": [1.0, 2.0, 5.0], "b": [float(place), 0.0, 9.0], "c": ["x", "x", "y"], "d": ["one", "two", "two"]}
        ),
        np.array([0, 1, 1]),
    )
    for place in range(2)
]


def plain(thing):
    """Arrays, and whatever holds them, as what compares by value."""
    if isinstance(thing, np.ndarray | np.generic):
        return thing.tolist()
    if isinstance(thing, dict):
        return {name: plain(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(value) for value in thing]
    if is_dataclass(thing):
        return {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
    return "nan" if isinstance(thing, float) and math.isnan(thing) else thing


def rounds(task, merge, number=6):
    """So many rounds, as `train` runs them: what is sent, what comes back, and the model that is handed out."""
    engine = InProcess(ROWS[isinstance(getattr(task, "problem", None), Regularised)])
    if hasattr(merge, "problem"):
        merge = merge.bound(merge.problem, task)
    state, seen = merge.init(np.zeros(engine.round(Sizes(), Message()).mins["n_features_min"].astype(int))), []
    for _ in range(number):
        message = merge.message(state)
        report = engine.round(task, message)
        state = merge.step(state, report)
        seen.append((message, report, state.w, state.readout.vector))
    return seen


def under(merge):
    """A task, seen under this merge."""
    return lambda task, _: rounds(task, merge)


def local(task, _):
    """Local steps for the hard margin, and on a penalised loss."""
    plain = replace(task, problem=HardMargin(), variates=False)
    return rounds(plain, mean()), rounds(replace(task, loss=None), ControlVariates(problem=BIASED))


def over(*tasks):
    """A merge, seen over these tasks."""
    return lambda merge, _: [rounds(task, merge, number=12) for task in tasks]


def part_over(task):
    """A part of a chain, seen over this task."""
    return lambda part, _: rounds(task, chain(mean(), part), number=12)


def coding(compressor, _):
    """The bytes that stand for a vector."""
    return compressor.encode(np.arange(9.0))


def once(held, **extra):
    """A task that is asked for one report."""

    def seen(task, _):
        d = held[0].n_features if isinstance(held[0], Shard) else 2
        return InProcess(held).round(task, Message(0, np.arange(float(d)), extra))

    return seen


def answered(held, **extra):
    """A task that is asked for one report, or what it refuses with."""
    ask = once(held, **extra)

    def seen(task, folder):
        try:
            return ask(task, folder)
        except NodeError as error:
            return f"{error}"

    return seen


def fitting(problem, _):
    """What a problem of real targets makes of them."""
    run = train(InProcess(TARGETS), conjugate_gradients(), problem=problem)
    return run.w, run.columns()["loss"]


def solving(merge, _):
    """What a server for real targets asks for, and its models."""
    engine = InProcess(TARGETS)
    state, seen = merge.init(np.zeros(5)), []
    while not state.done:
        message = merge.message(state)
        state = merge.step(state, engine.round(Squares(), message))
        seen.append((message, state.w))
    return seen


def squares(task, _):
    """A task of least squares, under the mean."""
    merge, engine = mean(), InProcess(TARGETS)
    state, seen = merge.init(np.zeros(5)), []
    for _ in range(3):
        report = engine.round(task, merge.message(state))
        state = merge.step(state, report)
        seen.append((report, state.w))
    return seen


def failing(policy, _):
    """What becomes of a node that fails, and how it is told."""
    engine = InProcess(random_rows(1), **asdict(policy))
    report = engine.round(FailOn("node-1"), Message(0))
    return report.n_nodes, [failure.outcome for failure in engine.failures]


def left_behind(checkpoints, folder):
    """The files that lie in a folder after every round."""
    seen = []

    def on_round(info):  # noqa: ARG001
        seen.append(sorted(f"{path.relative_to(folder)}" for path in folder.rglob("*.npz")))

    checkpoints = replace(checkpoints, folder=folder / checkpoints.folder)
    method = local_gd(local_steps=2, lr=0.1)
    train(InProcess(random_rows(1)), method, n_rounds=5, checkpoints=checkpoints, on_round=on_round)
    return seen, sorted(f"{path.relative_to(folder)}" for path in folder.rglob("*.npz"))


def drawn(nodes, _):
    """Who takes part in some rounds."""
    return [nodes(round_, tuple("abcdefgh")) for round_ in range(5)]


def chosen(choice, _):
    """What is chosen for some rows, and which model it makes."""
    run = train(InProcess(NOISY), choice, problem=BIASED, n_rounds=5)
    return run.method.name, run.w


def weighed(problem, _):
    """What it makes of numbers."""
    return problem.strength(10), problem.pull(np.ones(6)), problem.loss_for(None, 1).name


def judged(goal, _):
    """Which of some certificates are enough."""
    shares = (0.1, 0.3, 0.5, 0.7, 0.9)
    return [goal.met(Certificate(0, 1, 10 * x, 1 - x, objective_low=1.0, gap=x)) for x in shares]


def encoded(recipe, _):
    """What a node's rows become, a row with a value that nobody knows, a label in other words, and what is said."""
    unknown = pl.DataFrame({"a": [0.0], "b": [1.0], "c": ["z"]})
    try:
        matrix = recipe.matrix(unknown)
    except ValueError as error:
        matrix = f"{error}"
    try:
        codes = recipe.codes(replace(TABLES[0], labels=np.array(["0", "uno", "uno"])))
    except ValueError as error:
        codes = f"{error}"
    shard = recipe(TABLES[0])
    rows, weights = shard.rows, shard.weights
    kept = rows.toarray() if hasattr(rows, "toarray") else rows
    return type(rows).__name__, kept, weights, matrix, codes, recipe.summary, unmet(InProcess(TABLES), recipe)
