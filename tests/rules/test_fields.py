"""Every field of every rule does something: what it changes can be seen by who runs it."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest

from common import METHODS, PENALISED
from localgd import (
    Angle,
    ClassRows,
    Exponential,
    Gap,
    Int8,
    MarginRatio,
    SampledNodes,
    Shard,
    TopK,
)
from localgd.data.coding import ClassCounts
from localgd.data.encodings import Category, Number
from localgd.data.recipe import Recipe
from localgd.data.survey import Moments as ColumnMoments
from localgd.data.survey import Survey, Tally
from localgd.engine.policy import Policy
from localgd.evaluation.counting import Decisions, Histogram, Residuals, SigmoidLoss
from localgd.methods.auto import Auto
from localgd.methods.served import ENCODERS, TASKS
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
from localgd.rules.newton_cg import Along, NewtonCG
from localgd.rules.normalised import Normalised
from localgd.rules.probes import Sizes, Smoothness, TemperedDual
from localgd.rules.project import Project
from localgd.rules.server import Anchored, Chain, Extrapolation, Momentum, chain, mean
from localgd.rules.squares import ConjugateGradients, NormalEquations
from localgd.run.checkpoint import Checkpoints
from rules.looks import (
    BIASED,
    NOISY,
    TABLES,
    TARGETS,
    answered,
    chosen,
    coding,
    drawn,
    encoded,
    failing,
    fitting,
    judged,
    left_behind,
    local,
    once,
    over,
    part_over,
    plain,
    rounds,
    solving,
    squares,
    under,
    weighed,
)

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
        {
            "numbers": ("b",),
            "categories": ("d",),
            "texts": ("c",),
            "min_group": 2,
            "classes": False,
            "no_labels": ("0",),
            "label_maps": (("0", ((0, 2),)),),
        },
    ),
    ColumnMoments: (
        once(TABLES, exponent=np.zeros(1), center=np.zeros(1)),
        ColumnMoments(("a",)),
        {"numbers": ("b",)},
    ),
    ClassCounts: (
        answered(TABLES),
        ClassCounts((0, 5), ((1, 5),)),
        {"classes": (5, 0), "spellings": ((1, 0),), "min_group": 2, "label_maps": (("0", ((0, 5), (1, 0))),)},
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
            "spellings": (("uno", 1),),
            "notes": ("a node has no rows of class 0",),
            "class_weights": (1.0, 2.0),
            "gaps": (("c", "z"),),
            "label_maps": (("0", (("uno", 1),)),),
            "empty": ("d",),
        },
    ),
    Decisions: (
        answered(NOISY, thresholds=np.zeros(1), n_classes=np.array(2.0)),
        Decisions(),
        {"min_group": 3, "by_node": False},
    ),
    Histogram: (answered(NOISY, cuts=np.array([[0.0, 1.0]])), Histogram(), {"min_group": 3}),
    SigmoidLoss: (
        answered(NOISY, sigmoids=np.zeros((1, 1, 2)), targets=np.array([[0.2, 0.8]])),
        SigmoidLoss(),
        {"min_group": 3},
    ),
    Residuals: (answered(TARGETS, center=np.zeros(())), Residuals(), {"min_group": 3, "by_node": False}),
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
    Along: (under(NewtonCG(problem=BIASED)), Along(BIASED), {"problem": Regularised(EXP)}),
    LeastSquares: (fitting, LeastSquares(2.0), {"alpha": 1.0, "intercept": True, "positive": True}),
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
    NewtonCG: (over(Along(BIASED)), NewtonCG(problem=BIASED), {"problem": Regularised(C=0.1)}),
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
