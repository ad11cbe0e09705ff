"""Codes: what they lose is bounded, what they cost is known beforehand, and the same vector has the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from localgd import Int4, Int8, SignSGD, TopK
from localgd.duals.compressors import BLOCK, compressor_named

CODES = [Int8(), Int4(), SignSGD(), TopK(0.1), TopK(1.0)]
codes = pytest.mark.parametrize("code", CODES, ids=lambda code: code.form)
SIZES = [1, 2, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]


def drawn(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size) * 10.0 ** np.random.default_rng(seed).integers(-3, 4, size)


@codes
@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_of_a_code_depend_on_the_size_alone_and_error_feedback_contracts(code, size):
    x = drawn(size)
    data = code.encode(x)
    assert data.shape == (code.n_bytes(size),)
    assert data.dtype == np.uint8
    assert code.encode(np.zeros(size)).shape == data.shape
    there = code.decoded(data, size)
    assert np.linalg.norm(x - there) < np.linalg.norm(x) * (1 - 1e-4) or np.array_equal(there, x)
    np.testing.assert_array_equal(code.encode(x.copy()), data)


@codes
@given(x=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e300, 1e300)))
def test_a_code_of_finite_numbers_is_one_of_finite_numbers_no_farther_than_0(code, x):
    there = code.decoded(code.encode(x), x.size)
    assert np.isfinite(there).all()
    scale = np.abs(x).max() or 1.0
    assert np.linalg.norm((x - there) / scale) <= np.linalg.norm(x / scale) * (1 + 1e-12)


@pytest.mark.parametrize(("code", "most"), [(Int8(), 127), (Int4(), 7)])
def test_rounding_is_to_the_nearest_multiple_of_the_scale_of_the_block(code, most):
    x = drawn(2 * BLOCK + 3)
    there = code.decoded(code.encode(x), x.size)
    for start in range(0, x.size, BLOCK):
        block = slice(start, start + BLOCK)
        step = np.abs(x[block]).max() / most
        assert np.abs(x[block] - there[block]).max() <= step / 2 * (1 + 1e-12)
        codes_of = there[block] / step
        np.testing.assert_allclose(codes_of, np.rint(codes_of), atol=1e-9)


def test_bits_an_entry():
    size = 100 * BLOCK
    bits = {code.form: 8 * code.n_bytes(size) / size for code in CODES}
    assert bits == {"int8": 8.25, "int4": 4.25, "sign": 1.25, "topk:0.1": 9.6, "topk:1.0": 96.0}


def test_of_equal_entries_the_first_are_sent():
    assert np.flatnonzero(TopK(0.5).decoded(TopK(0.5).encode(np.array([1.0, -1.0, 1.0, -1.0])), 4)).tolist() == [0, 1]


def test_signs_are_scaled_by_the_mean_size_of_their_own_block():
    x = np.concatenate([np.full(BLOCK, -2.0), [3.0, -1.0]])
    np.testing.assert_array_equal(SignSGD().decoded(SignSGD().encode(x), x.size)[-3:], [-2.0, 2.0, -2.0])


@codes
def test_a_form_names_its_compressor(code):
    assert compressor_named(code.form) == code
    assert type(code).from_dict(code.to_dict()) == code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "compress must be int8, int4, sign or topk:SHARE"),
        ("topk", "compress must be int8"),
        ("topk:many", "the share of topk must be a number, got 'many'"),
        ("topk:0", "share of TopK must be above 0 and at most 1, got 0.0"),
        ("topk:1.5", "share of TopK"),
    ],
)
def test_what_is_no_compressor_is_refused_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        compressor_named(text)


@codes
def test_bytes_that_stand_for_no_vector_are_refused(code):
    data = code.encode(drawn(40))
    with pytest.raises(ValueError, match="takes"):
        code.decoded(data[:-1], 40)
    if isinstance(code, TopK):
        with pytest.raises(ValueError, match="places"):
            code.decoded(np.zeros_like(data), 40)
