"""scikit-learn's own checks: a sample of the estimators that covers them, and in the nightly run all of them."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from common import PROFILE
from localgd import LocalGDClassifier, LocalGDClassifierCV, LocalGDRegressor
from localgd.methods.options import NAMES, taken

SEPARABLE_ONLY = {"consensus", "interior-point", "modified-local-gd", "normalised-local-gd"}
"""Methods that have no meaning with C; a name is refused then, which other tests show."""

NUMBERS = {"normal-equations", "conjugate-gradients"}

COVERING = [
    LocalGDClassifier(),
    LocalGDClassifier(C=1.0),
    LocalGDClassifier("consensus"),
    LocalGDClassifier("local-gd", n_rounds=10),
    LocalGDClassifier("local-sgd", n_rounds=10, random_state=0),
    LocalGDClassifier("local-gd", n_rounds=10, multi_class="ovr"),
    LocalGDRegressor(),
    LocalGDRegressor(alpha=0.0),
    LocalGDRegressor(max_mb=0.0),
    LocalGDRegressor(alpha=0.0, max_mb=0.0, fit_intercept=False),
]


def by_name(name, C, multi_class):
    """The classifier of a method, with few enough rounds and steps for a table of them."""
    stepping = {"n_rounds": 30} if {"lr", "lr_schedule"} & taken(name).keys() and name != "scaffold" else {}
    seeded = {"random_state": 0} if name == "local-sgd" else {}
    return LocalGDClassifier(name, C=C, multi_class=multi_class, **stepping, **seeded)


ALL = [
    *COVERING,
    *(
        by_name(name, C, multi_class)
        for name in NAMES
        for C in (None, 1.0)
        for multi_class in (("softmax", "ovr") if name in {"auto", "local-gd"} else ("softmax",))
        if name not in NUMBERS and not (C and name in SEPARABLE_ONLY)
    ),
    LocalGDClassifier(C=1.0, warm_start=True),
    LocalGDClassifier(calibration="sigmoid", random_state=0),
    LocalGDClassifierCV(Cs=3, cv=3),
]


def known_to_fail(estimator):
    """What an estimator is known to fail, and why."""
    repeats = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")
    if getattr(estimator, "method", "") == "scaffold" and estimator.C is None:
        return dict.fromkeys(repeats, "500 rounds end before the last digits are those of an unpenalised minimiser")
    if getattr(estimator, "calibration", None):
        return dict.fromkeys((*repeats, "check_fit2d_1feature"), "it is refused, as a class has too few rows to keep")
    return {}


@parametrize_with_checks(ALL if PROFILE == "nightly" else COVERING, expected_failed_checks=known_to_fail)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # iris has no minimiser, and is told so
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
