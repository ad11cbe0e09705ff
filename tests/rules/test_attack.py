"""What a sceptical user found: each of these went wrong once."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from common import random_rows, with_bias
from localgd import InProcess, LocalGDClassifier, Shard, Status, auto, certify, interior_point, newton, train
from localgd.core import Message
from localgd.problems.duality_gap import minimiser_certificate
from localgd.problems.regularised import Appraise, Regularised
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg


def separable(seed=1, n=100, d=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = X[:, 0] > 0
    X[:, 0] += np.where(y, 1, -1)
    return X, y, np.arange(n) % 4


def test_wide_rows_with_a_penalty_reach_the_pooled_model():
    """Too wide for d×d sums: control variates had crept; one gradient a round is enough."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 4500)), rng.standard_normal(60) > 0
    clf = LocalGDClassifier(C=1.0).fit(X, y, groups=np.arange(60) % 3)
    assert "auto took newton-cg" in clf.certificate_.status
    assert clf.n_iter_ < 100
    assert clf.certificate_.angle_deg_max < 1e-4
    pooled = LogisticRegression(C=1.0, tol=1e-12, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(clf.coef_, pooled.coef_, atol=1e-7)


def test_a_row_of_another_size_does_not_hide_that_a_plane_separates_them():
    """The interior point measures by the longest row, and gives up; consensus measures every row by itself."""
    X, y, groups = separable()
    X[0] *= 1e8
    clf = LocalGDClassifier().fit(X, y, groups=groups)
    assert clf.certificate_.verdict is Status.CERTIFIED
    assert clf.certificate_.kind == "max-margin"
    signed = np.hstack([X, np.ones((len(X), 1))]) * np.where(y, 1.0, -1.0)[:, None]
    true = angle_deg(np.append(clf.coef_, clf.intercept_), max_margin(signed).direction)
    assert true <= clf.certificate_.angle_deg_max < 0.01


def test_a_model_about_which_nothing_is_proved_comes_with_a_warning():
    X, y, groups = separable()
    X[:, 2] *= 1e8
    with pytest.warns(ConvergenceWarning, match="undecided"):
        LocalGDClassifier().fit(X, y, groups=groups)


def test_no_bound_is_written_as_90_degrees():
    engine = InProcess(with_bias(random_rows(3, n=30), 3, 0.3))
    found = certify(np.ones(6), engine, problem=Regularised(C=1e-9))
    assert "90°" not in found.status
    assert found.verdict is not Status.CERTIFIED


@pytest.mark.parametrize("seed", range(8))
def test_the_objective_is_rounded_up_even_where_margins_cancel(seed):
    """|z||w| far above the margin: the error of the margins counts. Against 60 digits."""
    rng = np.random.default_rng(seed)
    shards = [Shard(s.node_id, s.rows + 10.0 ** rng.integers(0, 7)) for s in with_bias(random_rows(seed), seed, 0.2)]
    w = rng.standard_normal(6) * 100
    problem = Regularised(C=133.0)
    report = InProcess(shards).round(Appraise(problem), Message(0, w))
    found = minimiser_certificate(w, report, problem)
    with localcontext(prec=60, Emax=10**12, Emin=-(10**12)):
        total = Decimal(0)
        for row in np.vstack([s.rows for s in shards]):
            m = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, w, strict=True))
            total += (1 + (-Decimal(m.numerator) / m.denominator).exp()).ln()
        size = sum(Fraction(float(v)) ** 2 for v in w)
        exact = total / report.n_rows + Decimal(size.numerator) / size.denominator / (2 * 133 * report.n_rows)
    assert Decimal(found.objective) >= exact


@pytest.mark.parametrize(
    ("w", "C", "message"),
    [
        ([1e308, 1e308], 1.0, "too large for these rows"),
        ([1.0, 1.0], "1", "C must be a positive number"),
        ([0.0, 0.0], 1.0, "got only zeros"),
    ],
)
def test_certify_with_a_penalty_refuses_in_words(w, C, message):
    shards = [Shard("a", [[1.0, 0.2], [0.3, -1.0]]), Shard("b", [[1.0, -0.2]])]
    with pytest.raises(ValueError, match=message):
        certify(np.array(w), InProcess(shards), problem=Regularised(C=C))


def test_a_method_that_ends_says_why():
    contradiction = [Shard("a", [[1.0, 0.2], [0.1, 1.0]]), Shard("b", [[-1.0, -0.2]])]
    run = train(InProcess(contradiction), newton())
    assert "it ended, as " in run.certificate.status
    separated = train(InProcess(random_rows(1)), newton())
    assert "some plane separates the rows, so the loss has no minimiser" in separated.certificate.status


@pytest.mark.parametrize("make", [interior_point, newton, auto])
@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_limits_are_checked_at_once(make, limit):
    with pytest.raises(ValueError, match="max_mb must be a positive number"):
        make(max_mb=limit)
