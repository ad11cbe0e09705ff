"""A vector and what is proved of it are one value: nothing parts them, and nothing false comes of arithmetic."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from localgd import Shard


def test_a_negative_share_or_weight_drops_the_proof():
    a, b = Shard("a", [[1.0, 0.0], [2.0, 0.0]]), Shard("b", [[0.0, 1.0]])
    one, two = a.combination(np.array([1.0, 0.0])), a.combination(np.array([0.0, 1.0]))
    for false in (two.mixed(-0.4, one), one + two.over(-2.5), one.folded(two.weighted(-0.4)), two.over(1.0, -1.0)):
        assert not false.known
        assert false.margin_upper == math.inf
    assert one.folded(b.combination(np.ones(1)).weighted(2.0)).known


def test_no_copy_of_a_proof_can_be_changed():
    dual = Shard("a", [[3.0, 4.0]]).combination(np.ones(1))
    for again in (copy.copy(dual), copy.deepcopy(dual), pickle.loads(pickle.dumps(dual))):  # noqa: S301  our own
        assert again.mass == dual.mass
        with pytest.raises(ValueError, match="read-only"):
            again.vector[0] = 0.0


def test_a_quotient_taken_again_and_again_counts_its_rounding():
    """A merge of somebody may divide as often as it likes: what the exact numbers make of it is within the error."""
    first = dual = Shard("a", np.array([[0.1, 0.7, 1 / 3]])).combination(np.array([1.0]))
    total, rng = Fraction(1), np.random.default_rng(0)
    for weight, factor in rng.uniform(0.5, 2.0, (1500, 2)):
        dual, total = dual.over(weight, factor), total * Fraction(factor) / Fraction(weight)
    exact = [Fraction(entry) * total for entry in first.vector]
    moved = math.hypot(*(float(Fraction(entry) - wanted) for entry, wanted in zip(dual.vector, exact, strict=True)))
    assert 0 < moved <= dual.error
    assert Fraction(dual.mass) <= total
