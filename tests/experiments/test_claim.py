"""A verdict says what its numbers say, and nothing can only pass."""

from __future__ import annotations

import math

import polars as pl
import pytest

from localgd.experiments.claim import Check, Experiment, Verdict, Word, worst

SOUND = Check("error", 0.01, 0.03)
BROKEN = Check("error", 0.04, 0.03)
SCOPE = Check("angle", 5.0, 1.0, limits="slow")


def test_the_word_follows_the_checks():
    assert str(Verdict((SOUND,))) == "holds"
    assert str(Verdict((SOUND, SCOPE))) == "holds with limits: slow"
    assert str(Verdict((SOUND, BROKEN, SCOPE))) == "does not hold: error"
    assert Verdict((BROKEN, SCOPE)).word is Word.FAILS


@pytest.mark.parametrize("sense", ["at most", "at least"])
def test_nan_never_passes(sense):
    assert not Check("error", math.nan, 0.0, sense).passes


def test_what_was_not_measured_refutes_even_where_a_failure_would_only_limit():
    unknown = Check("angle", math.nan, 1.0, limits="slow")
    assert str(Verdict((SOUND, unknown))) == "does not hold: not measured: angle"


def test_at_least_is_the_other_side():
    assert Check("n", 3.0, 3.0, "at least").passes
    assert not Check("n", 2.0, 3.0, "at least").passes
    with pytest.raises(ValueError, match="sense"):
        Check("n", 2.0, 3.0, "above")


def test_a_verdict_that_nothing_could_overturn_is_refused():
    with pytest.raises(ValueError, match="refutes"):
        Verdict((SCOPE,))


def test_worst_of_nothing_or_of_gaps_is_nan():
    assert worst(pl.Series([1.0, 2.0])) == 2.0
    for gaps in ([], [1.0, None], [1.0, math.nan]):
        assert math.isnan(worst(pl.Series(gaps, dtype=pl.Float64)))


def test_cells_that_differ_only_in_the_method_share_a_seed():
    blank = {"title": "", "claim": "", "source": "", "quick": (), "full": (), "caption": ""}
    one = Experiment(name="one", run=None, judge=None, draw=None, **blank)
    other = Experiment(name="other", run=None, judge=None, draw=None, **blank)
    cell = {"data": "a", "replicate": 0, "local_steps": 1}
    assert one.seed(cell) == one.seed(cell | {"local_steps": 10})
    seeds = {one.seed(cell), one.seed(cell | {"data": "b"}), one.seed(cell | {"replicate": 1}), other.seed(cell)}
    assert len(seeds) == 4
