"""Found by attack: paths on which an earlier certificate claimed more than held. None may come back."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from common import examples, random_rows, stacked
from localgd import InProcess, SampledNodes, Shard, Status, certify, local_gd, local_sgd, modified_local_gd, train
from localgd.duals.dual import Dual
from localgd.problems.hard_margin import certificate
from localgd.reference.max_margin import max_margin
from localgd.rounding import acos_above, angle_above, norm

THREE = [[1.0, 0.3], [1.0, -0.1], [1.0, 0.2]]


def shard(name, rows, size=1.0):
    return Shard(name, np.array(rows) * size)


CASES = {
    "a step of e^-375 must not read as a step of 0": (
        [shard("a", [[30.0, 0]]), shard("b", [[-1.0, 2]])],
        local_gd(local_steps=1, lr=2.0),
        (3, 6),
    ),
    "saturated nodes": (
        [shard("a", [[100, 10.0], [100, -10]]), shard("b", [[1, 0.5], [1, -0.5]])],
        local_gd(local_steps=1000),
        (100,),
    ),
    "rows of 1e-29, proximal form": (
        [shard("a", [[1.0, 0.3], [1, -0.1]], 1e-29), shard("b", [[0.5, 0.4]], 1e-29)],
        modified_local_gd(form="proximal", local_steps=5),
        (5,),
    ),
    "rows of 1e-29, a step size of their own": (
        [shard("a", [[1.0, 0.3], [1, -0.1]], 1e-29), shard("b", [[0.5, 0.4]], 1e-29)],
        local_gd(local_steps=5, lr=1.0),
        (5,),
    ),
    "lr 1e-161": ([shard("a", THREE)], local_gd(local_steps=1, lr=1e-161), (3,)),
    "lr 5e-162": ([shard("a", THREE)], local_gd(local_steps=1, lr=5e-162), (3,)),
    "lr 1e-300": ([shard("a", THREE)], local_gd(local_steps=1, lr=1e-300), (3,)),
    "lr 1e160": ([shard("a", THREE)], local_gd(local_steps=1, lr=1e160), (3,)),
    "a mass beyond float64": (
        [Shard("a", [[1.0, 0]] + [[0, 1e-11]] * 4)],
        local_gd(local_steps=1, lr=1e308, weighted_by="num-examples"),
        (1,),
    ),
    "rows of 1e-29": ([shard("a", THREE, 1e-29)], local_gd(local_steps=3), (20,)),
    "rows of 1e-29, projections": ([shard("a", THREE, 1e-29)], modified_local_gd(), (5,)),
    "rows of 1e29": ([shard("a", THREE, 1e29)], local_gd(local_steps=3), (20,)),
    "rows of 1e29, projections": ([shard("a", THREE, 1e29)], modified_local_gd(), (5,)),
    "rows of 1e29, a step size of their own": ([shard("a", THREE, 1e29)], local_gd(local_steps=1, lr=0.1), (1, 5)),
    "one outlier column": ([shard("a", [[1e10, 0], [0, 1.0]])], local_gd(local_steps=3), (20,)),
    "one outlier column, projections": ([shard("a", [[1e10, 0], [0, 1.0]])], modified_local_gd(), (20,)),
}


def margin_of(shards):
    """The exact margin, computed on rows of comfortable size."""
    rows = stacked(shards)
    unit = np.abs(rows).max()
    lengths = np.array([norm(row) for row in rows])
    if np.ptp(np.log10(lengths)) > 6:  # rows [R, 0], [0, r] with R ≫ r: 1/γ² = 1/R² + 1/r², which rounds to 1/r²
        return float(lengths.min())
    return max_margin(rows / unit).margin_low * unit


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_in_the_extremes(name):
    shards, method, rounds = CASES[name]
    gamma = margin_of(shards)
    for n_rounds in rounds:
        w0 = np.array([2000.0, 0.0]) if name == "a mass beyond float64" else None
        run = train(InProcess(shards), method, n_rounds=n_rounds, w0=w0)
        found = run.certificate
        assert found.margin_low <= gamma * (1 + 1e-9)
        assert found.margin_high >= gamma * (1 - 1e-9)
        assert found.separable is not False
        assert found.verdict is not Status.NOT_SEPARABLE
        assert np.isfinite(run.w).all()


def test_a_step_below_sqrt_tiny_still_certifies():
    run = train(InProcess(CASES["saturated nodes"][0]), local_gd(local_steps=1000), n_rounds=300)
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.margin_high >= 1.0


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9, 1e-11])
def test_a_tiny_row_elsewhere_is_certified_rightly(small):
    """u* bisects [1, 1] and the tiny row: w = (0.8, 0.6) is about 42 degrees away from nearly (small row)⊥."""
    far = Shard("b", [[small, -0.1 * small]])
    near = Shard("a", [[1.0, 1.0]])
    found = certify(np.array([0.8, 0.6]), InProcess([near, far]))
    tiny = np.array([1.0, -0.1])  # the margin is that of the tiny row alone, the direction its own
    true = np.degrees(np.arccos(np.array([0.8, 0.6]) @ tiny / np.linalg.norm(tiny)))
    assert found.margin_high >= small * np.linalg.norm(tiny) * (1 - 1e-12)
    assert math.isnan(found.angle_deg_max) or found.angle_deg_max >= true - 1e-9


def test_an_unscaled_timestamp_is_not_called_inseparable():
    rng = np.random.default_rng(0)
    label = np.where(rng.random(40) < 0.5, 1.0, -1.0)
    rows = np.column_stack([1.7e9 + rng.integers(0, 10**7, 40), label, np.ones(40)]) * label[:, None]
    shards = [Shard(str(m), rows[m::3]) for m in range(3)]
    for method in (local_gd(local_steps=10), modified_local_gd()):
        found = train(InProcess(shards), method, n_rounds=50).certificate
        assert found.separable is not False
        assert found.margin_high >= 1.0


def test_a_mini_batch_without_a_gradient_is_no_stall():
    rows = Shard("a", [[1000.0, 0.0], [-1.0, 3.0]])
    for seed in range(6):
        method = local_sgd(local_steps=1, batch_size=1, lr=2e-3, seed=seed)
        run = train(InProcess([rows]), method, n_rounds=300)
        assert run.n_rounds == 300
        assert run.certificate.verdict is not Status.STALLED


def test_sampled_nodes_without_a_gradient_are_no_stall():
    shards = [Shard("a", [[1000.0, 0.0]]), Shard("b", [[-1.0, 3.0]])]
    verdicts = []
    train(
        InProcess(shards),
        local_gd(local_steps=1, lr=0.01),
        n_rounds=50,
        nodes=SampledNodes(0.5),
        on_round=lambda info: verdicts.append(info.certificate.verdict),
    )
    assert Status.STALLED not in verdicts


def test_crossed_bounds_are_never_published():
    w = np.array([1.0, 0.0])
    with pytest.raises(ArithmeticError, match="bounds crossed"):
        certificate(w, 0.5, [Dual.proved(w, 4.0, 0.0)])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.integers(-1000, 1000))
def test_norms_do_not_depend_on_the_exponent(values, exponent):
    v = np.array(values)
    scaled = np.ldexp(v, exponent)
    if np.array_equal(np.ldexp(scaled, -exponent), v):
        last_bit = math.ldexp(5e-324, max(exponent, 0))  # of the norm of a v that is itself below the normal numbers
        assert norm(scaled) == pytest.approx(math.ldexp(norm(v), exponent), rel=1e-15, abs=last_bit)


@given(st.floats(0, 1), st.integers(-1000, 900))
def test_angles_do_not_depend_on_the_exponent(cosine, exponent):
    along, length = math.ldexp(cosine, exponent), math.ldexp(1.0, exponent)
    if along > 1e-290:
        assert acos_above(along, length) >= math.acos(along / length) * (1 - 1e-15)
        assert acos_above(along, length) == pytest.approx(math.acos(cosine), abs=1e-7)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_angles_between_vectors_of_any_size(size):
    a, b = np.array([1.0, 0.0]), np.array([1.0, 1.0]) * size
    assert math.degrees(angle_above(a, b)) == pytest.approx(45.0)
    assert math.degrees(angle_above(b, b)) < 1e-12
    assert angle_above(a, np.zeros(2)) == math.inf


def test_bits_do_not_depend_on_the_number_of_blas_threads():
    program = (
        "import numpy as np, hashlib\n"
        "from localgd import *\n"
        "rng = np.random.default_rng(0)\n"
        "u = rng.standard_normal(20000)\n"
        "shards = []\n"
        "for m in range(3):\n"
        "    x = rng.standard_normal((4, 20000)); shards.append(Shard(str(m), x * np.sign(x @ u)[:, None]))\n"
        "run = train(InProcess(shards), local_gd(local_steps=3), n_rounds=5)\n"
        "columns = run.columns(); del columns['seconds']\n"
        "print(hashlib.sha256(run.w.tobytes() + repr(columns).encode()).hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        env = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
        digests.add(done.stdout)
    assert len(digests) == 1


@given(seed=st.integers(0, 10**6), size=st.integers(-90, 90), lr=st.integers(-300, 300), steps=st.sampled_from([1, 20]))
@settings(max_examples=examples(100))
def test_bounds_hold_for_any_step_size_and_rows_of_any_size(seed, size, lr, steps):
    shards = random_rows(seed, n_nodes=2, n=3, d=2)
    pooled = max_margin(stacked(shards))
    factor = math.ldexp(1.0, size)
    scaled = InProcess([Shard(s.node_id, s.rows * factor) for s in shards])
    run = train(scaled, local_gd(local_steps=steps, lr=10.0**lr), n_rounds=4)
    assert run.certificate.margin_low <= pooled.margin_high * factor
    assert run.certificate.margin_high >= pooled.margin_low * factor
    assert run.certificate.separable is not False


@pytest.mark.parametrize("unit", [1e-29, 1e-6, 1e18])
@pytest.mark.parametrize("storage", [np.array, csr_array], ids=["dense", "csr"])
def test_row_norms_are_upper_bounds_for_rows_of_any_size(storage, unit):
    sizes = [unit * size for size in (1e11, 3e8, 1e4, 7.0, 1.0, 0.0)]
    rows = np.array([[3.0 * size, 0.0, 4.0 * size] for size in sizes])
    norms = Shard("a", storage(rows)).norms
    for bound, row in zip(norms, rows, strict=True):
        largest = np.abs(row).max()
        exact = 0.0 if largest == 0 else float(np.sqrt(np.square(row / largest).sum())) * largest
        assert exact <= bound <= exact * (1 + 1e-12) + 1e-307


def test_rounding_of_a_tiny_row_alone_is_covered():
    """Only the tiny row has a coefficient: its own norm, not the largest row's, is what its error scales with."""
    from fractions import Fraction

    rows = np.array([[1.0, 0.0], [1e-11, 3e-12]])
    shard, a = Shard("a", rows), np.array([0.0, 0.1])
    computed = shard.combine(a)
    exact = [Fraction(0.1) * Fraction(float(x)) for x in rows[1]]
    apart = max(abs(Fraction(float(c)) - e) for c, e in zip(computed, exact, strict=True))
    assert apart <= Fraction(shard.combine_error(a))
