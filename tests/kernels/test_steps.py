"""Every kernel takes the same steps as the reference."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array

from localgd.kernels import CACHED_ENTRIES, COSTLY_FROM, csr, dense, gram, pick, reference
from localgd.losses import Exponential, Logistic
from localgd.rows import Shard

AGREE = 1e-10

LOSSES = {"logistic": Logistic(), "exponential": Exponential()}


def shards(n: int, d: int) -> tuple[Shard, Shard]:
    rng = np.random.default_rng(n * 1000 + d)
    rows = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.4) / np.sqrt(d)
    return Shard("dense", rows), Shard("csr", csr_array(rows))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shrink", [1.0, 0.9])
@pytest.mark.parametrize("batch", [None, (4, False), (4, True)])
@pytest.mark.parametrize(("n", "d"), [(6, 30), (30, 6), (1, 4), (5, 1)])
def test_gram_dense_csr_and_reference_agree(n, d, batch, shrink, loss):
    at_dense, at_csr = shards(n, d)
    rng = np.random.default_rng(0)
    w = rng.standard_normal(d)
    w.flags.writeable = False
    batches = None
    if batch is not None:
        size, replacement = min(batch[0], n), batch[1]
        batches = np.stack([rng.choice(n, size=size, replace=replacement) for _ in range(50)])
    steps = reference.Steps(50, 0.7, LOSSES[loss], shrink, batches)
    expected = reference.coefficients(at_dense, w, at_dense.margins(w), steps)
    for kernel, shard in [
        (reference.coefficients, at_csr),
        (gram.coefficients, at_dense),
        (gram.coefficients, at_csr),
        (dense.coefficients, at_dense),
        (csr.coefficients, at_csr),
    ]:
        found = kernel(shard, w, shard.margins(w), steps)
        assert (found >= 0).all()
        np.testing.assert_allclose(found, expected, rtol=AGREE, atol=AGREE)


@pytest.mark.parametrize("margin", [-1e4, -800.0, -40.0, -1.0, 0.0, 1.0, 40.0, 740.0, 1e4])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_compiled_slopes_are_the_losses_own(loss, margin):
    expected = loss.slope(np.array([margin]))[0]
    assert np.isfinite(expected)
    assert dense.slope(loss.loss_id, margin) == pytest.approx(expected, rel=1e-13, abs=1e-307)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_slope_is_minus_the_derivative_and_curvature_bounds_its_change(loss):
    margins = np.linspace(0.0, 5.0, 101)
    step = 1e-6
    numeric = (loss.value(margins - step) - loss.value(margins + step)) / (2 * step)
    np.testing.assert_allclose(loss.slope(margins), numeric, rtol=1e-6)
    change = (loss.slope(margins - step) - loss.slope(margins + step)) / (2 * step)
    assert (change <= loss.curvature * (1 + 1e-6)).all()


def test_the_table_picks_by_size_only():
    wide, wide_csr = shards(10, 80)
    tall, tall_csr = shards(400, 20)
    assert pick(wide, 100) is gram.coefficients
    assert pick(wide, 1) is reference.coefficients
    assert pick(wide_csr, 100) is gram.coefficients
    assert pick(tall, 100) is reference.coefficients
    assert pick(Shard("small", np.ones((300, 200))), 100) is gram.coefficients
    assert pick(Shard("as large as the rows", np.ones((700, 700))), 100) is gram.coefficients
    assert pick(Shard("larger than the rows", np.ones((800, 700))), 100) is reference.coefficients
    long = -(-COSTLY_FROM // tall_csr.rows.nnz)
    assert pick(tall_csr, long) is csr.coefficients
    assert pick(tall_csr, long, batch_size=40) is reference.coefficients
    assert pick(tall_csr, 10 * long, batch_size=40) is csr.coefficients
    assert pick(tall, long) is reference.coefficients
    assert pick(tall, 10 * long, batch_size=40) is dense.coefficients
    large = Shard("large", np.ones((CACHED_ENTRIES // 5 + 1, 5)))
    assert pick(large, 10) is dense.coefficients


def test_small_problems_never_start_the_compiler():
    program = (
        "from localgd import InProcess, local_gd, train\n"
        "from localgd.data.synthetic import gaussian_problem\n"
        "from localgd.kernels import csr, dense\n"
        "train(InProcess(gaussian_problem('gauss-400')), local_gd(local_steps=100), n_rounds=2)\n"
        "print(len(dense._steps.signatures), len(csr._steps.signatures))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]
