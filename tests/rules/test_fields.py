"""Every field of every rule does something: what it changes can be seen by who runs it."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from common import METHODS, PENALISED, random_rows, with_bias
from engines.tasks import FailOn
from localgd import (
    Angle,
    ClassRows,
    Exponential,
    Gap,
    InProcess,
    Int8,
    MarginRatio,
    Message,
    SampledNodes,
    Samples,
    Shard,
    TopK,
    conjugate_gradients,
    local_gd,
    train,
)
from localgd.data.encodings import Category, Number
from localgd.data.recipe import Recipe
from localgd.data.survey import Moments as ColumnMoments
from localgd.data.survey import Survey, Tally
from localgd.data.table import Table
from localgd.engine.policy import Policy
from localgd.methods.auto import Auto
from localgd.methods.served import ENCODERS, TASKS
from localgd.problems.certificate import Certificate
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares, Squares
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Appraise, Curvature, Regularised
from localgd.rules.compressed import Compressed
from localgd.rules.consensus import Consensus, DualPart
from localgd.rules.descent import ControlVariates, LimitedMemory, Newton
from localgd.rules.interior import InteriorPoint, Mehrotra
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.normalised import Normalised
from localgd.rules.probes import Sizes, Smoothness, TemperedDual
from localgd.rules.project import Project
from localgd.rules.server import Anchored, Chain, Extrapolation, Momentum, chain, mean
from localgd.rules.squares import ConjugateGradients, NormalEquations
from localgd.run.checkpoint import Checkpoints

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
LOCAL = GradientSteps(local_steps=3, lr=0.1, problem=BIASED, n_samples=30)
BATCHES = replace(LOCAL, batch_size=3)
FAR = replace(LOCAL, local_steps=5, lr=40.0, variates=True)  # too far: the way back is taken
RECIPE = Recipe((Number("a"), Number("b"), Category("c", ("x", "y"))), (0, 1), intercept=True, sparse=False)
BY_SIZE = "num-examples"

# What is looked at, a rule to begin with, and another value for each of its fields.
TABLE = {
    Survey: (once(TABLES), Survey(), {}),
    Tally: (
        once(TABLES),
        Tally(("a",), ("c",), ("d",)),
        {"numbers": ("b",), "categories": ("d",), "texts": ("c",), "min_group": 2, "classes": False},
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
    Sizes: (once(NOISY), Sizes(), {}),
    Smoothness: (once([Shard("a", ClassRows(np.eye(2), [0, 2], 3))]), Smoothness(), {"versus": 2}),
    Evaluate: (once(NOISY), Evaluate(), {"loss": EXP, "weighted_by": BY_SIZE}),
    TemperedDual: (once(NOISY, low=np.zeros(()), tau=np.ones(1)), TemperedDual(), {}),
    GradientSteps: (
        local,
        replace(STEPS, problem=BIASED, n_samples=30),
        {
            "local_steps": 7,
            "lr": 0.05,
            "lr_schedule": "inverse-sqrt",
            "loss": EXP,
            "batch_size": 2,
            "replacement": True,
            "prox": 0.5,
            "weighted_by": BY_SIZE,
            "seed": 5,
            "variates": True,
            "problem": Regularised(C=0.1),
            "n_samples": 100,
        },
    ),
    Compressed: (under(mean()), Compressed(STEPS, TopK(0.4)), {"task": Project(), "compressor": Int8()}),
    TopK: (coding, TopK(0.4), {"share": 0.2}),
    Project: (under(mean()), Project(), {"loss": EXP, "weighted_by": BY_SIZE}),
    DualPart: (under(Consensus()), DualPart(), {"loss": EXP, "weighted_by": BY_SIZE, "memory": 1}),
    InteriorPoint: (under(Mehrotra()), InteriorPoint(start=1.0), {"start": 2.0, "loss": EXP, "weighted_by": BY_SIZE}),
    Appraise: (under(LimitedMemory(problem=BIASED)), Appraise(BIASED), {"problem": Regularised(EXP)}),
    Curvature: (under(Newton(problem=BIASED)), Curvature(BIASED), {"problem": Regularised(EXP)}),
    LeastSquares: (fitting, LeastSquares(2.0), {"alpha": 1.0, "intercept": True}),
    NormalEquations: (solving, NormalEquations(), {"problem": LeastSquares(2.0), "tol": 0.5, "max_mb": 1e-6}),
    ConjugateGradients: (solving, ConjugateGradients(), {"problem": LeastSquares(2.0), "tol": 0.5}),
    SquaresSteps: (
        squares,
        SquaresSteps(local_steps=5, lr=0.01),
        {"local_steps": 7, "lr": 0.02, "weighted_by": BY_SIZE},
    ),
    Squares: (once(TARGETS), Squares(), {"intercept": True}),
    Chain: (over(STEPS), mean(), {"parts": (Momentum(0.5),)}),
    Anchored: (over(STEPS), Anchored(mean()), {"merge": chain(mean(), Momentum())}),
    Late: (over(STEPS), Late(mean()), {"merge": chain(mean(), Momentum())}),
    Extrapolation: (part_over(Project()), Extrapolation(), {"relaxation": 1.0}),
    Momentum: (part_over(STEPS), Momentum(), {"momentum": 0.5, "server_lr": 0.7, "nesterov": True}),
    Normalised: (over(STEPS), Normalised(), {}),
    Consensus: (over(DualPart()), Consensus(), {"memory": 5}),
    Mehrotra: (over(InteriorPoint(start=1.0)), Mehrotra(), {"max_mb": 1e-6}),
    Newton: (over(Curvature(BIASED)), Newton(problem=BIASED), {"problem": Regularised(C=0.1), "max_mb": 1e-6}),
    LimitedMemory: (
        over(Appraise(BIASED)),
        LimitedMemory(problem=BIASED),
        {"problem": Regularised(C=0.1), "memory": 1},
    ),
    ControlVariates: (
        over(replace(LOCAL, variates=True), FAR),
        ControlVariates(problem=BIASED),
        {"problem": Regularised(C=0.1), "memory": 1, "lr": 0.5},
    ),
    Regularised: (
        weighed,
        Regularised(C=2.0, intercept=True),
        {"loss": EXP, "C": 1.0, "intercept": False, "n_blocks": 2},
    ),
    Auto: (chosen, Auto(), {"max_mb": 1e-6, "tol": 0.5}),
    Angle: (judged, Angle(6.0), {"deg": 4.0}),
    MarginRatio: (judged, MarginRatio(0.4), {"ratio": 0.6}),
    Gap: (judged, Gap(0.4), {"share": 0.6}),
    Policy: (failing, Policy("skip"), {"on_failure": "raise", "min_nodes": 4, "retries": 1, "debug": True}),
    Checkpoints: (
        left_behind,
        Checkpoints("here", every_seconds=math.inf),
        {"folder": "there", "every_rounds": 2, "every_seconds": 0.0},
    ),
    SampledNodes: (drawn, SampledNodes(0.5), {"fraction": 0.25, "seed": 1}),
}

FIELDS = [
    pytest.param(rule, field.name, id=f"{rule.__name__}.{field.name}") for rule in TABLE for field in fields(rule)
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
    merges = [method.merge for method in (*METHODS.values(), *PENALISED.values())]
    inner = [merge.merge if isinstance(merge, Anchored | Late) else merge for merge in merges]
    parts = [part for merge in inner if isinstance(merge, Chain) for part in merge.parts]
    assert {*TASKS, *ENCODERS, *map(type, (*merges, *inner, *parts))} <= TABLE.keys()


def test_the_table_has_no_fields_that_are_gone():
    known = {(rule, field.name) for rule in TABLE for field in fields(rule)}
    assert {(rule, name) for rule, (_, _, others) in TABLE.items() for name in others} <= known


def test_what_a_field_changes_is_more_than_rounding():
    """The model itself, where local steps or their batches are others."""
    _, _, others = TABLE[GradientSteps]
    for before, apart in (
        (STEPS, {"problem", "n_samples", "variates"}),
        (BATCHES, {"loss", "weighted_by", "variates"}),
    ):
        changes = {name: {name: value} for name, value in others.items() if name not in apart} | {"none": {}}
        ends = [rounds(replace(before, **change), mean())[-1][2] for change in changes.values()]
        for one, other in combinations(ends, 2):
            assert not np.allclose(one, other, rtol=1e-6)
