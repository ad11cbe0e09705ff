"""Replay runs in exact fractions: the model is within its error of Σ α_i z_i, and Σ α_i is at least its mass."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from common import random_rows
from localgd import InProcess
from localgd.kernels import pick
from localgd.kernels.reference import Steps
from localgd.losses import Exponential
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps
from localgd.rules.normalised import Normalised, NormalisedState
from localgd.rules.server import Momentum, chain, mean

D, LR, STEPS = 3, 0.05, 4


def moved_exactly(shards, message):
    """Σ_m (1/3) Σ a_i z_i and Σ_m (1/3) Σ a_i, in fractions of the coefficients that the nodes computed."""
    move, mass = [Fraction(0)] * D, Fraction(0)
    for shard in shards:
        lr = LR * float(message.extra.get("scale", 1.0))
        steps = Steps(STEPS, lr, Exponential())
        a = pick(shard, STEPS)(shard, message.w, shard.margins(message.w), steps)
        mass += sum(Fraction(float(x)) for x in a) / len(shards)
        for j in range(D):
            products = (Fraction(float(x)) * Fraction(float(z[j])) for x, z in zip(a, shard.rows, strict=True))
            move[j] += sum(products) / len(shards)
    return move, mass


def apart(w, exact):
    return math.sqrt(float(sum((Fraction(float(x)) - e) ** 2 for x, e in zip(w, exact, strict=True))))


def plus(a, b, share=Fraction(1)):
    return [x + share * y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(
    "merge",
    [
        Late(mean()),
        Late(chain(mean(), Momentum(momentum=0.7, server_lr=0.9))),
        Late(chain(mean(), Momentum(momentum=0.9, server_lr=0.7, nesterov=True))),
        Late(Normalised()),
    ],
    ids=["mean", "slowmo", "nesterov", "normalised"],
)
def test_error_and_mass_hold_for_the_model_and_for_every_tail(merge):
    shards = random_rows(12, n_nodes=3, n=3, d=D)
    engine = InProcess(shards)
    task = GradientSteps(local_steps=STEPS, lr=LR, loss=Exponential())
    state = merge.init(np.zeros(D))
    w, mass = [Fraction(0)] * D, Fraction(0)
    velocity, inertia = [Fraction(0)] * D, Fraction(0)
    inner = next(iter(getattr(merge.merge, "parts", ())), Momentum(0.0))
    beta, alpha = Fraction(inner.momentum), Fraction(inner.server_lr)
    past = {0: (w, mass)}
    for _ in range(30):
        message = merge.message(state)
        before = state
        move, added = moved_exactly(shards, message)
        state = merge.step(state, engine.round(task, message))
        if isinstance(state, NormalisedState) and state.share < before.share:
            pytest.fail("the replay knows no way back; take a smaller step")
        velocity, inertia = plus(move, velocity, beta), added + beta * inertia
        ahead, weight = velocity, inertia
        if inner.nesterov:
            ahead, weight = plus(move, velocity, beta), added + beta * inertia
        w, mass = plus(w, ahead, alpha), mass + alpha * weight
        past[state.round] = (w, mass)
        assert 0 < apart(state.w, w) <= state.model.error < 1e-10
        assert Fraction(state.model.mass) <= mass
        for tail in state.tails:
            start, start_mass = past[tail.round]
            assert apart(tail.w, plus(w, start, Fraction(-1))) <= tail.model.error
            assert Fraction(tail.model.mass) <= mass - start_mass
        readout = next(tail for tail in state.tails if tail.model is state.readout)
        assert 2 * readout.round <= state.round
        assert state.round < 4 or readout.round >= 0.4 * state.round


def test_a_step_that_raised_the_loss_is_undone_tails_included():
    shards = random_rows(12, n_nodes=3, n=3, d=D)
    engine = InProcess(shards)
    task = GradientSteps(local_steps=STEPS, lr=200.0, loss=Exponential())
    merge = Late(Normalised())
    state = merge.init(np.zeros(D))
    undone = 0
    losses = []
    for _ in range(60):
        report = engine.round(task, merge.message(state))
        following = merge.step(state, report)
        if following.share < state.share:
            undone += 1
            assert np.array_equal(following.w, state.accepted.w)
            assert following.model.mass == state.accepted.model.mass
            assert following.tails == state.accepted.tails
        else:
            losses.append(float(report.sums["loss"]))
        state = following
    assert undone > 0
    assert losses == sorted(losses, reverse=True)
