"""Where a bound could say what is not so by a hair, or by what somebody derives from a class of ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from localgd import Exponential, Gap, InProcess, Logistic, Regularised, Shard, Status, certify, train
from localgd.methods.exact import lbfgs, newton, newton_cg
from localgd.problems.certificate import Certificate
from localgd.problems.least_squares import LeastSquares, Squares
from localgd.problems.regularised import Appraise, Curvature
from localgd.run.loop import joined


@pytest.mark.parametrize("share", [0.3, 0.1, 0.01])
@pytest.mark.parametrize("method", [newton(), newton_cg(), lbfgs()], ids=lambda method: method.name)
@pytest.mark.parametrize("C", [1e3, 1e10, 1e16, 1e18, 1e20, 1e30, 1e60])
def test_a_gap_is_a_part_of_what_the_objective_is_at_least(C, method, share):
    run = train(InProcess([Shard("a", [[1.0]])]), method, problem=Regularised(C=C), goal=Gap(share))
    w = np.longdouble(run.w[0])
    value = np.log1p(np.exp(-w)) + w * w / (2 * np.longdouble(C))
    assert run.certificate.objective_low <= value <= run.certificate.objective
    w = np.longdouble(0)
    for _ in range(400):  # Newton's method in more digits, from below: monotone
        p = 1 / (1 + np.exp(w))
        w += (p - w / np.longdouble(C)) / (p * (1 - p) + 1 / np.longdouble(C))
    least = np.log1p(np.exp(-w)) + w * w / (2 * np.longdouble(C))
    assert not Gap(share).met(run.certificate) or value - least <= share * value * (1 + 1e-12)


@dataclass(frozen=True)
class Tempered(Logistic):
    """Somebody's loss, made from ours."""

    def value(self, margin):
        return 4 * np.logaddexp(0, -margin / 4)

    def slope(self, margin):
        return super().slope(margin / 4)


@pytest.mark.parametrize("loss", [Tempered(), Exponential()], ids=["derived", "exponential"])
def test_only_the_loss_itself_is_certified(loss):
    engine = InProcess([Shard("a", [[1.0, 0.2], [-0.5, 1.0], [-1.0, -0.3]])])
    found = certify(np.array([0.5, 0.1]), engine, problem=Regularised(loss=loss, C=1.0))
    assert found.status.startswith("undecided: no certificate, as the loss is ")
    assert math.isnan(found.objective)
    assert math.isnan(found.angle_deg_max)


def test_the_last_look_is_no_task_that_somebody_derived():
    @dataclass(frozen=True)
    class Damped(Curvature):
        pass

    @dataclass(frozen=True)
    class Other(Squares):
        pass

    assert type(Regularised(C=1.0).look(Damped())) is Appraise
    assert type(LeastSquares().look(Other())) is Squares


def test_what_an_earlier_method_proved_is_in_the_verdict_too():
    earlier = replace(Certificate(), margin_low=1e-9, margin_high=1.0)
    assert joined(earlier, Certificate()).verdict is Status.SEPARABLE


@pytest.mark.parametrize("C", [1e300, 1e-300, 5e-324, 1e308])
def test_a_penalty_that_leaves_float64_is_refused(C):
    with pytest.raises(ValueError, match="C must be a positive number, 1e-100 to 1e100"):
        Regularised(C=C)
