"""Every layout of rows answers as the rows written out do, and its errors are bounded."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array, vstack

from common import METHODS, OTHER_ORDER, PENALISED, examples, random_rows
from localgd import ClassRows, Csr, Dense, InProcess, Prepared, Shard, local_gd, prepare, train
from localgd.data.table import Table
from localgd.engine.nodes import fingerprint
from localgd.kernels import pick, reference
from localgd.layouts import Float32, laid
from localgd.layouts.blocks import BLOCK
from localgd.layouts.csr import biased, sealed_csr
from localgd.rounding import norms_above

CLASSES = 4


def plain(rng, n=7, d=5):
    x = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.7)
    x[:, 0] += x[:, 0] == 0
    return x


def prepared(x, signs):
    center, scale = np.linspace(-1, 1, x.shape[1] - 1), np.linspace(0.5, 3, x.shape[1] - 1)
    return Prepared(x[:, :-1], signs, center, scale, bias=True)


LAYOUTS = {
    "dense": lambda x, y: Dense(x),  # noqa: ARG005
    "float32": lambda x, y: laid(x.astype(np.float32)),  # noqa: ARG005
    "prepared": lambda x, y: prepared(x, np.where(y > 1, 1.0, -1.0)),
    "csr": lambda x, y: Csr(csr_array(x)),  # noqa: ARG005
    "classes": lambda x, y: ClassRows(x, y, CLASSES),
    "classes, csr": lambda x, y: ClassRows(csr_array(x), y, CLASSES),
    "classes, float32": lambda x, y: ClassRows(laid(x.astype(np.float32)), y, CLASSES),
    "classes, prepared": lambda x, y: ClassRows(prepared(x, None), y, CLASSES),
    "two classes": lambda x, y: ClassRows(x, y % 2, 2),
}
layouts = pytest.mark.parametrize("name", LAYOUTS)


def case(name, seed):
    rng = np.random.default_rng(seed)
    x, y = plain(rng), rng.integers(CLASSES, size=7)
    data = LAYOUTS[name](x, y)
    rows = data.explicit()
    return rng, data, rows.toarray() if isinstance(rows, csr_array) else rows


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@layouts
@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_the_rows_written_out_do(name, seed):
    rng, data, z = case(name, seed)
    assert data.shape == z.shape
    w, c = rng.standard_normal(z.shape[1]), rng.standard_normal(len(z))
    close(data.margins(w), z @ w)
    close(data.sum(c), z.T @ c)
    close(data.moment(c), z.T @ (z * c[:, None]))
    close(data.diagonal(np.abs(c)), np.square(z).T @ np.abs(c))
    own = (c[:, None] * z).reshape(-1, data.versus, z.shape[1]).sum(axis=1)
    close(data.spread(c, np.ones(7)), z.T @ (z * c[:, None]) - own.T @ own)
    close(data.by_gram(data.gram, c), z @ z.T @ c)
    close(data.trace, np.square(z).sum())
    close(data.over(3.0).margins(w), z @ w / 3)
    assert data.peak == np.abs(z).max()
    assert data.filled().tolist() == z.any(axis=1).tolist()
    assert data.row_length >= (z != 0).sum(axis=1).max()
    lengths = np.linalg.norm(z, axis=1)
    assert (lengths <= data.norms).all()
    close(data.norms, lengths)
    assert laid(data) is data


@pytest.mark.parametrize(
    "make", [Dense, lambda x: Float32(x.astype(np.float32)), Prepared], ids=["f64", "f32", "mapped"]
)
def test_of_many_rows_only_those_are_added_up_that_have_a_coefficient(make):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 300)).astype(np.float32).astype(np.float64)
    rows, c = make(x), np.zeros(5000)
    touched = rng.choice(5000, size=900, replace=False)
    c[touched] = rng.random(900)
    assert rows.few(c) is not None
    assert rows.few(np.ones(5000)) is None
    assert make(x[:100]).few(np.zeros(100)) is None
    np.testing.assert_allclose(rows.sum(c), x.T @ c, rtol=1e-12, atol=1e-12)
    assert rows.sum(np.zeros(5000)).tolist() == [0.0] * 300


@layouts
def test_batches_are_of_samples(name):
    rng, data, z = case(name, 4)
    w, c = rng.standard_normal(z.shape[1]), rng.standard_normal(len(z))
    samples = np.array([3, 0, 3])
    index = data.index(samples)
    taken = data.take(samples)
    assert taken.shape == (3 * data.versus, z.shape[1])
    close(taken.margins(w), z[index] @ w)
    close(taken.sum(c[index]), z[index].T @ c[index])
    close(data.by_gram(data.gram, c, samples), z[index] @ (z.T @ c))
    assert data.index(samples[None]).tolist() == [index.tolist()]


@layouts
def test_shares_tell_what_every_sample_adds_to_each_class(name):
    rng, data, z = case(name, 5)
    c = rng.standard_normal(len(z))
    n_parts = data.n_classes if isinstance(data, ClassRows) else 1
    parts = z.reshape(len(z), n_parts, -1)
    squares = np.square(parts).sum(axis=2)
    for power, sizes in ((0, squares > 0), (1, np.sqrt(squares)), (2, squares)):
        expected = (np.abs(c)[:, None] * sizes).reshape(-1, data.versus, n_parts).sum(axis=1)
        close(data.shares(c, power), expected)
    p = np.abs(c) / (1 + np.abs(c).reshape(-1, data.versus).sum(axis=1)).repeat(data.versus)
    own = (p[:, None, None] * parts).reshape(-1, data.versus, *parts.shape[1:]).sum(axis=1)
    traces = (p[:, None] * squares).reshape(-1, data.versus, n_parts).sum(axis=1) - np.square(own).sum(axis=2)
    close(data.spread_shares(p), traces)
    diagonal = np.diag(data.spread(p, np.ones(7))).reshape(n_parts, -1).sum(axis=1)
    close(traces.sum(axis=0), diagonal)


@layouts
@settings(max_examples=examples(200))
@given(seed=st.integers(0, 10**6), far=st.booleans())
def test_margins_and_combinations_are_off_by_no_more_than_they_say(name, seed, far):
    """Against exact sums, where large entries cancel."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 6)) * 10.0 ** rng.integers(-6, 7, (5, 6))
    shard = Shard("a", LAYOUTS[name](x, rng.integers(CLASSES, size=5)))
    z = shard.rows.toarray() if isinstance(shard.rows, csr_array) else shard.rows
    w = rng.standard_normal(shard.n_features) * 10.0 ** rng.integers(-6, 7, shard.n_features)
    if far:  # margins of nearly 0
        w -= z.T @ np.linalg.lstsq(z.T, w, rcond=None)[0]
    exact = [[Fraction(v) for v in row] for row in z.tolist()]
    model = [Fraction(v) for v in w.tolist()]
    off = max(
        abs(Fraction(float(m)) - sum(a * b for a, b in zip(row, model, strict=True)))
        for m, row in zip(shard.margins(w), exact, strict=True)
    )
    assert off <= shard.margin_error(float(np.linalg.norm(w)))
    c = rng.random(shard.n_rows) * 10.0 ** rng.integers(-6, 7, shard.n_rows)
    dual = shard.combination(c)
    sums = [sum(Fraction(a) * row[j] for a, row in zip(c.tolist(), exact, strict=True)) for j in range(len(w))]
    away = sum((Fraction(float(v)) - s) ** 2 for v, s in zip(dual.vector, sums, strict=True))
    assert away <= Fraction(dual.error) ** 2
    assert dual.mass <= sum(Fraction(a) for a in c.tolist())


@layouts
def test_it_cannot_be_written_to_and_the_rows_of_its_owner_may_change(name):
    rng = np.random.default_rng(0)
    x, y = plain(rng), rng.integers(CLASSES, size=7)
    data = LAYOUTS[name](x, y)
    for part in data.parts:
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 1
    before = data.margins(np.ones(data.shape[1]))
    x += 1.0
    y[:] = 0
    np.testing.assert_array_equal(data.margins(np.ones(data.shape[1])), before)


def test_sparse_rows_that_nobody_can_write_to_are_not_copied_and_those_of_anybody_else_stay_as_they_are():
    own = csr_array(np.eye(3))
    assert not np.shares_memory(Csr(own).x.data, own.data)
    assert own.data.flags.writeable
    twice = csr_array((np.ones(2), np.zeros(2, np.int32), np.array([0, 2])), shape=(1, 1))
    for rows in (own, twice):
        sealed = Csr(sealed_csr(rows)).x
        assert np.shares_memory(sealed.data, rows.data) == (rows is own)
    assert (sealed.toarray().tolist(), twice.nnz) == ([[2.0]], 2)
    x = csr_array([[0.0, 2.0], [0.0, 0.0]])
    with_ones = biased(x)
    assert not any(np.shares_memory(a, b) for a, b in zip(Csr(x).parts, Csr(with_ones).parts, strict=True))
    assert with_ones.toarray().tolist() == [[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]


def test_norms_of_sparse_rows_are_those_of_one_row_after_the_other():
    """Whatever lies in a block of rows: rows of nothing, of zeros that are stored, and of any size."""
    rng = np.random.default_rng(0)
    x = random_array((BLOCK // 20, 60), density=0.5, format="csr", rng=rng, data_sampler=rng.standard_normal)
    x.data *= np.repeat(np.ldexp(1.0, rng.integers(-90, 90, x.shape[0])), np.diff(x.indptr))
    x.data[: x.indptr[5]] = 0.0
    rows = csr_array(vstack([csr_array((1, 60)), x, csr_array((2, 60))]))
    data, written = Csr(rows), rows.toarray()
    assert data.stored == rows.nnz > BLOCK
    exponents = np.frexp(np.abs(written).max(axis=1))[1]
    squares = np.add.accumulate(np.square(np.ldexp(written, -exponents[:, None])), axis=1)[:, -1]
    np.testing.assert_array_equal(data.norms, norms_above(squares, exponents, data.row_length))
    np.testing.assert_array_equal(data.filled(), written.any(axis=1))
    assert data.peak == np.abs(rows.data).max()


def test_a_node_knows_its_rows_again_by_rows_and_classes():
    rng = np.random.default_rng(0)
    x, y = plain(rng), rng.integers(CLASSES, size=7)
    other = (y + 1) % CLASSES
    digests = {fingerprint(Shard("a", LAYOUTS[name](x, codes))) for name in LAYOUTS for codes in (y, other)}
    assert len(digests) == 15  # of rows that are signed the codes are no part


def test_rows_of_two_classes_are_signed_rows():
    rng = np.random.default_rng(1)
    x, y = plain(rng), np.array([0, 1, 1, 0, 1, 0, 0])
    rows = ClassRows(x, y, 2)
    signed = np.where(y == 1, 1.0, -1.0)[:, None] * x
    w = rng.standard_normal(5)
    close(rows.margins(np.concatenate([-w / 2, w / 2])), signed @ w)


@pytest.mark.parametrize(
    ("codes", "n_classes", "words"),
    [
        ([0, 1, 2], 3, r"2 rows need as many codes, got those of shape \(3,\)"),
        ([0, 3], 3, "codes must be 0 to 2, got 0 to 3"),
        ([-1, 0], 3, "codes must be 0 to 2, got -1 to 0"),
        ([0, 0.5], 3, "codes must be whole numbers, got array"),
        ([0, 0], 1, "n_classes must be a whole number of at least 2, got 1"),
    ],
)
def test_codes_that_fit_neither_rows_nor_classes_are_refused(codes, n_classes, words):
    with pytest.raises(ValueError, match=words):
        ClassRows(np.ones((2, 3)), codes, n_classes)


HALVED = ["local-gd", "local-sgd", "modified, projection", "consensus", "interior-point", "fedexp"]


@pytest.mark.parametrize("name", [*HALVED, "newton, free bias", "newton-cg", "lbfgs", "scaffold"])
def test_float32_rows_train_the_model_of_the_same_rows_in_float64(name):
    method = (METHODS | PENALISED)[name]
    halved = [s.data.x.astype(np.float32) for s in random_rows(3, n=12)]
    runs = [
        train(InProcess(Shard(f"{m}", x.astype(dtype)) for m, x in enumerate(halved)), method, n_rounds=10)
        for dtype in (np.float32, np.float64)
    ]
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-7, atol=1e-10)
    assert runs[0].certificate.verdict == runs[1].certificate.verdict
    assert runs[0].certificate.angle_deg_max == pytest.approx(runs[1].certificate.angle_deg_max, rel=1e-6, nan_ok=True)


def test_float32_rows_are_never_written_out_by_local_steps():
    x = np.random.default_rng(0).standard_normal((20_000, 60)).astype(np.float32)
    x[:, 0] = 1.0
    engine = InProcess([Shard("a", x[:10_000]), Shard("b", x[10_000:])])
    tracemalloc.start()
    train(engine, local_gd(local_steps=3, lr=0.1), n_rounds=2)  # a probe of the step size would, one node at a time
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 2


@pytest.mark.parametrize("n_classes", [0, 2, 4])
def test_rows_of_a_mapped_file_stay_there_and_are_the_rows_that_would_be_kept(n_classes, tmp_path):
    rng = np.random.default_rng(n_classes)
    x = rng.standard_normal((40, 6)) * 10.0 ** np.arange(6) + 3
    y = rng.standard_normal(40) if n_classes == 0 else np.arange(40) % n_classes
    weights = rng.integers(0, 3, size=40).astype(float)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    held = []
    for rows in (mapped, x):
        table = Table("a", rows, y, weights=weights)
        engine, _ = prepare(InProcess([table]), scale="standard", classes=n_classes > 0)
        held.append(engine.shards["a"].data)
    kept, there = held[1], held[0]
    inner = there.x if n_classes > 2 else there
    assert isinstance(inner, Prepared)
    assert not isinstance(kept, Prepared)
    for one, other in zip((there.explicit(), there.norms), (kept.explicit(), kept.norms), strict=True):
        plain = [part.toarray() if isinstance(part, csr_array) else part for part in (one, other)]
        assert plain[0].tobytes() == plain[1].tobytes()


@pytest.mark.parametrize("name", [*HALVED, "newton, free bias", "newton-cg", "lbfgs", "scaffold"])
def test_prepared_rows_train_the_model_of_the_rows_written_out(name):
    method, rng = (METHODS | PENALISED)[name], np.random.default_rng(1)
    runs = []
    for written in (False, True):
        shards = []
        for m, shard in enumerate(random_rows(3, n=12)):
            signs = np.where(np.random.default_rng(m).random(shard.n_rows) < 0.5, 1.0, -1.0)
            center, scale = rng.standard_normal(shard.n_features), rng.uniform(0.5, 2, shard.n_features)
            rows = Prepared(shard.rows * signs[:, None] * scale + center, signs, center, scale)
            shards.append(Shard(f"{m}", rows.explicit() if written else rows))
        rng = np.random.default_rng(1)
        runs.append(train(InProcess(shards), method, n_rounds=10))
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-7, atol=1e-10)
    assert runs[0].certificate.verdict == runs[1].certificate.verdict


def test_prepared_rows_are_never_written_out_by_local_steps():
    x = np.random.default_rng(0).standard_normal((20_000, 60))
    rows = Prepared(x, np.where(x[:, 0] > 0, 1.0, -1.0), np.zeros(60), np.full(60, 2.0), bias=True)
    engine = InProcess([Shard("a", rows.take(np.arange(10_000))), Shard("b", rows.take(np.arange(10_000, 20_000)))])
    tracemalloc.start()
    train(engine, local_gd(local_steps=3), n_rounds=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 4


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"signs": [1.0, 0.0]}, "signs must be 1 or -1"),
        ({"signs": [1.0]}, r"needs signs of shape \(2,\)"),
        ({"scale": [1.0, 0.0, 1.0]}, "scale finite and above 0"),
        ({"center": [np.nan, 0.0, 1.0]}, "center must be finite"),
    ],
)
def test_what_does_not_prepare_rows_is_refused(parts, said):
    with pytest.raises(ValueError, match=said):
        Prepared(np.ones((2, 3)), **parts)


def test_no_compiled_kernel_takes_softmax():
    x = np.ones((300_000, 8))
    assert pick(Shard("a", x), 1000) is not reference.coefficients
    assert pick(Shard("a", x), 1000, versus=3) is reference.coefficients
    assert pick(Shard("a", ClassRows(x, np.zeros(len(x)), 4)), 1000) is reference.coefficients
