"""Merges that somebody writes by the operations of duals: what they keep of a proof, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from common import random_rows
from localgd import (
    Dual,
    InProcess,
    Logistic,
    Method,
    Shard,
    chain,
    check_method,
    mean,
    train,
    update_fields,
    update_report,
)
from localgd.rules.local import GradientSteps
from localgd.rules.server import Chain, Momentum, added, mean_update
from localgd.testing.check import MethodError

STEPS_LOSS = Logistic()
STEPS = GradientSteps(local_steps=5, lr=0.1)


@dataclass(frozen=True)
class Plain:
    """Heavy ball as anybody would write it down."""

    momentum: float = 0.9

    def __call__(self, update, kept, report):  # noqa: ARG002
        velocity = self.momentum * kept + update
        return velocity, velocity


def test_momentum_by_plain_sums_proves_what_the_librarys_own_does():
    engine = InProcess(random_rows(3))
    ours, theirs = (
        train(engine, Method("m", STEPS, chain(mean(), part)), n_rounds=30) for part in (Momentum(0.9), Plain(0.9))
    )
    np.testing.assert_allclose(theirs.w, ours.w, rtol=1e-12)
    assert theirs.dual.known
    assert theirs.certificate.angle_deg_max == pytest.approx(ours.certificate.angle_deg_max, rel=1e-6)
    assert check_method(Method("m", STEPS, chain(mean(), Plain()))).certified


@pytest.mark.parametrize(
    "make", [lambda zero: 0.9 * zero, lambda zero: zero + zero, lambda zero: zero.mixed(0.5, zero)]
)
def test_what_is_made_of_nothing_is_empty_still(make):
    made, one = make(Dual.zeros(2)), Shard("a", [[3.0, 4.0]]).combination(np.array([2.0]))
    assert made.empty
    assert (made + one).known
    assert (made + one).mass == pytest.approx(2.0, rel=1e-12)
    assert not (-1.0 * made + Dual(np.ones(2))).known


@dataclass(frozen=True)
class Forgetful(Chain):
    """The mean, whose model is made of vectors."""

    def step(self, state, report):
        there = added(state, mean_update(report))
        return replace(there, model=Dual(there.w))


def test_a_merge_that_loses_the_proof_is_told_so():
    found = check_method(Method("m", STEPS, Forgetful()))
    assert "the model that Forgetful makes of them is none" in str(found)


@dataclass(frozen=True)
class Signed:
    def __call__(self, update, kept, report):  # noqa: ARG002
        return np.sign(update.vector), kept


@dataclass(frozen=True)
class Generated:
    """A memory that no file can hold."""

    state_type: ClassVar = object
    weighted_by: str = "uniform"
    loss: Logistic = STEPS_LOSS

    def schema(self, message):
        return update_fields(message)

    def init(self, shard):  # noqa: ARG002
        return {"chance": np.random.PCG64(0)}

    def run(self, message, shard, state):  # noqa: ARG002
        return update_report(shard, shard.combination(np.ones(shard.n_rows)), self.weighted_by), state


def test_what_is_no_dual_is_told_what_to_do():
    one = Shard("a", [[3.0, 4.0]]).combination(np.array([2.0]))
    with pytest.raises(TypeError, match=r"difference of duals .* a\.vector - b\.vector"):
        one - one
    with pytest.raises(TypeError, match="a dual times an array is no multiple of it; take its vector"):
        np.ones(2) * one
    with pytest.raises(ValueError, match=r"must return two duals.*Dual\(vector\)"):
        train(InProcess(random_rows(1)), Method("m", STEPS, chain(mean(), Signed())), n_rounds=1)


def test_a_state_that_cannot_be_written_is_named_with_what_could_be():
    with pytest.raises(MethodError, match=r"Generated: its state, .*PCG64.* cannot be written.*make it of numbers"):
        check_method(Method("m", Generated(), mean()))
