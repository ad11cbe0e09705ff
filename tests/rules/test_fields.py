"""Every field of every rule does something: what it changes can be seen by who runs it."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass, replace
from itertools import product

import numpy as np
import polars as pl
import pytest

from common import METHODS, PENALISED, random_rows, with_bias
from engines.tasks import FailOn
from localgd import Exponential, InProcess, Message, Method, SampledNodes, Samples, Shard, local_gd, train
from localgd.data.recipe import Category, Number, Recipe
from localgd.data.survey import Moments as ColumnMoments
from localgd.data.survey import Survey, Tally
from localgd.data.table import Table
from localgd.engine.policy import Policy
from localgd.methods.auto import Auto
from localgd.methods.table import ENCODERS, TASKS
from localgd.problems.least_squares import Moments, Product, Residuals
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Appraise, Curvature, Penalty
from localgd.rules.consensus import Consensus, DualPart
from localgd.rules.descent import ControlVariates, LimitedMemory, Newton
from localgd.rules.interior import InteriorPoint, Mehrotra
from localgd.rules.local import GradientSteps, Project
from localgd.rules.local_squares import LeastSquares
from localgd.rules.penalised import PenalisedSteps
from localgd.rules.probes import Rescaled, Sizes, Smoothness, TemperedDual
from localgd.rules.server import Anchored, Extrapolated, Mean, Normalised, ServerMomentum
from localgd.run.checkpoint import Checkpoints

NOISY = with_bias(random_rows(5), noise=0.1)
ROWS = {True: NOISY, False: random_rows(6)}
BIASED = Penalty(C=1.0, intercept=True)
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
    engine = InProcess(ROWS[getattr(task, "penalty", None) is not None])
    method = Method("any", task, merge).tuned(engine)
    state, seen = method.merge.init(np.zeros(engine.round(Sizes(), Message()).mins["n_features_min"].astype(int))), []
    for _ in range(number):
        message = method.merge.message(state)
        report = engine.round(method.task, message)
        state = method.merge.step(state, report)
        seen.append((message, report, state.w, state.readout.vector))
    return seen


def under(merge):
    """A task, seen under this merge."""
    return lambda task, _: rounds(task, merge)


def over(*tasks):
    """A merge, seen over these tasks."""
    return lambda merge, _: [rounds(task, merge, number=12) for task in tasks]


def once(held, **extra):
    """A task that is asked for one report."""

    def seen(task, _):
        d = held[0].n_features if isinstance(held[0], Shard) else 2
        return InProcess(held).round(task, Message(0, np.arange(float(d)), extra))

    return seen


def squares(task, _):
    """A task of least squares, under the mean."""
    merge, engine = Mean(), InProcess(TARGETS)
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

    def on_round(row, certificate):  # noqa: ARG001
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
    run = train(InProcess(NOISY), choice, n_rounds=5)
    return run.method.name, run.w


def weighed(penalty, _):
    """What it makes of numbers."""
    return penalty.strength(10), penalty.pull(np.ones(6))


def encoded(recipe, _):
    """What a node's rows become, and a row with a value that nobody knows."""
    unknown = pl.DataFrame({"a": [0.0], "b": [1.0], "c": ["z"]})
    try:
        matrix = recipe.matrix(unknown)
    except ValueError as error:
        matrix = f"{error}"
    rows = recipe(TABLES[0]).rows
    return type(rows).__name__, rows.toarray() if hasattr(rows, "toarray") else rows, matrix


EXP = Exponential()
STEPS = GradientSteps(local_steps=5, lr=0.3, batch_size=3)
FAR = PenalisedSteps(local_steps=5, lr=40.0, penalty=BIASED, variates=True)  # too far: the way back is taken
LOCAL = PenalisedSteps(local_steps=3, lr=0.1, penalty=BIASED, n_rows=30)
RECIPE = Recipe((Number("a"), Number("b"), Category("c", ("x", "y"))), (0, 1), intercept=True, sparse=False)
BY_SIZE = "num-examples"

# What is looked at, a rule to begin with, and another value for each of its fields.
TABLE = {
    Survey: (once(TABLES), Survey(), {}),
    Tally: (
        once(TABLES),
        Tally(("a",), ("c",), ("d",)),
        {"numbers": ("b",), "categories": ("d",), "texts": ("c",), "min_group": 2},
    ),
    ColumnMoments: (
        once(TABLES, exponent=np.zeros(1), center=np.zeros(1)),
        ColumnMoments(("a",)),
        {"numbers": ("b",)},
    ),
    Recipe: (
        encoded,
        RECIPE,
        {
            "columns": (Number("a"),),
            "classes": (1, 0),
            "intercept": False,
            "sparse": True,
            "unseen": "zeros",
        },
    ),
    Rescaled: (lambda encode, _: encode(NOISY[1]).rows, Rescaled(2.0), {"divisor": 4.0}),
    Sizes: (once(NOISY), Sizes(), {}),
    Smoothness: (once([Shard("a", np.eye(4), versus=2)]), Smoothness(), {"versus": 2}),
    Evaluate: (once(NOISY), Evaluate(), {"loss": EXP, "weighted_by": BY_SIZE}),
    TemperedDual: (once(NOISY, low=np.zeros(()), tau=np.ones(1)), TemperedDual(), {}),
    GradientSteps: (
        under(Mean()),
        STEPS,
        {
            "local_steps": 7,
            "lr": 0.05,
            "loss": EXP,
            "batch_size": 2,
            "replacement": True,
            "prox": 0.5,
            "weighted_by": BY_SIZE,
            "seed": 5,
        },
    ),
    Project: (under(Mean()), Project(), {"loss": EXP, "weighted_by": BY_SIZE}),
    DualPart: (under(Consensus()), DualPart(), {"loss": EXP, "weighted_by": BY_SIZE, "memory": 1}),
    InteriorPoint: (under(Mehrotra()), InteriorPoint(start=1.0), {"start": 2.0, "loss": EXP, "weighted_by": BY_SIZE}),
    Appraise: (under(LimitedMemory(penalty=BIASED)), Appraise(), {"loss": EXP, "penalty": BIASED}),
    Curvature: (under(Newton(penalty=BIASED)), Curvature(), {"loss": EXP, "penalty": BIASED}),
    PenalisedSteps: (
        under(ControlVariates(penalty=BIASED)),
        LOCAL,
        {
            "local_steps": 7,
            "lr": 0.05,
            "loss": EXP,
            "penalty": Penalty(C=0.1),
            "prox": 0.5,
            "variates": True,
            "n_rows": 100,
        },
    ),
    LeastSquares: (
        squares,
        LeastSquares(local_steps=5, lr=0.01),
        {"local_steps": 7, "lr": 0.02, "weighted_by": BY_SIZE},
    ),
    Residuals: (once(TARGETS), Residuals(), {"intercept": True}),
    Product: (once(TARGETS), Product(), {}),
    Moments: (once(TARGETS), Moments(5), {"n_features": 4}),
    Mean: (over(STEPS), Mean(), {"late": True}),
    Anchored: (over(STEPS), Anchored(), {"late": True}),
    Extrapolated: (over(Project()), Extrapolated(), {"late": True, "relaxation": 1.0}),
    ServerMomentum: (
        over(STEPS),
        ServerMomentum(),
        {"late": True, "momentum": 0.5, "server_lr": 0.7, "nesterov": True},
    ),
    Normalised: (over(STEPS), Normalised(), {"late": True}),
    Consensus: (over(DualPart()), Consensus(), {"memory": 5}),
    Mehrotra: (over(InteriorPoint()), Mehrotra(), {"max_mb": 1e-6}),
    Newton: (over(Curvature(penalty=BIASED)), Newton(penalty=BIASED), {"penalty": Penalty(C=0.1), "max_mb": 1e-6}),
    LimitedMemory: (
        over(Appraise(penalty=BIASED)),
        LimitedMemory(penalty=BIASED),
        {"penalty": Penalty(C=0.1), "memory": 1},
    ),
    ControlVariates: (
        over(replace(LOCAL, variates=True), FAR),
        ControlVariates(penalty=BIASED),
        {"penalty": Penalty(C=0.1), "memory": 1, "lr": 0.5},
    ),
    Penalty: (weighed, Penalty(C=2.0, intercept=True), {"C": 1.0, "intercept": False, "blocks": 2}),
    Auto: (chosen, Auto(C=1.0), {"C": 2.0, "intercept": True, "max_mb": 1e-6}),
    Policy: (failing, Policy("skip"), {"on_failure": "raise", "min_nodes": 4, "retries": 1}),
    Checkpoints: (
        left_behind,
        Checkpoints("here", every_seconds=math.inf),
        {"folder": "there", "every_rounds": 2, "every_seconds": 0.0},
    ),
    SampledNodes: (drawn, SampledNodes(0.5), {"fraction": 0.25, "seed": 1}),
}

IDLE = {(ControlVariates, "lr"): "a run takes the step size of its task over, whatever was given"}

FIELDS = [
    pytest.param(
        rule,
        field.name,
        id=f"{rule.__name__}.{field.name}",
        marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=IDLE[rule, field.name])
        if (rule, field.name) in IDLE
        else (),
    )
    for rule in TABLE
    for field in fields(rule)
]


def seen(rule, name, value, look, folder):
    """What is seen of a rule with this value, or the refusal."""
    folder.mkdir()
    try:
        return plain(look(replace(rule, **{name: value}), folder))
    except (ValueError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("rule", "name"), FIELDS)
def test_every_field_of_every_rule_does_something(rule, name, tmp_path):
    look, before, others = TABLE[rule]
    if name not in others:
        pytest.fail(f"{rule.__name__}.{name} is new: give another value for it in the table")
    value = getattr(before, name)
    assert others[name] != value
    one, again, other = (
        seen(before, name, given, look, tmp_path / folder)
        for folder, given in (("one", value), ("again", value), ("other", others[name]))
    )
    assert not isinstance(one, str), f"the table begins with what is refused: {one}"
    assert one == again, "what is looked at changes by itself"
    assert one != other


def test_every_rule_is_in_the_table():
    merges = {type(method.merge) for method in (*METHODS.values(), *PENALISED.values())}
    assert {*TASKS, *ENCODERS, *merges} <= TABLE.keys()


def test_the_table_has_no_fields_that_are_gone():
    known = {(rule, field.name) for rule in TABLE for field in fields(rule)}
    assert {(rule, name) for rule, (_, _, others) in TABLE.items() for name in others} <= known
    assert IDLE.keys() <= known


def test_what_a_field_changes_is_more_than_rounding():
    """The model itself, where local steps or their batches are others."""
    _, before, others = TABLE[GradientSteps]
    ends = {name: rounds(replace(before, **{name: value}), Mean())[-1][2] for name, value in others.items()}
    ends["none"] = rounds(before, Mean())[-1][2]
    for (_, one), (_, other) in product(ends.items(), repeat=2):
        assert one is other or not np.allclose(one, other, rtol=1e-6)
