"""Compressed runs: the laws of error feedback, what is refused, and how near certificates are to those without."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import (
    COMPRESSED,
    against,
    answer,
    federation,
    penalised,
    random_rows,
    random_samples,
    stacked,
    with_bias,
)
from localgd import (
    Compressor,
    InProcess,
    Int4,
    Int8,
    LeastSquares,
    LocalGDClassifier,
    Message,
    Method,
    Regularised,
    SampledNodes,
    Samples,
    Shard,
    SignSGD,
    TopK,
    check_method,
    consensus,
    fedexp,
    interior_point,
    lbfgs,
    local_gd,
    local_sgd,
    mean,
    modified_local_gd,
    newton,
    newton_cg,
    normalised_local_gd,
    scaffold,
    slowmo,
    train,
    update_fields,
    update_report,
)
from localgd.duals.dual import Dual
from localgd.duals.kept import MOST_SHARES, Kept, Share
from localgd.limits import Limits, RefusedError
from localgd.reference.max_margin import max_margin
from localgd.rules.compressed import Compressed
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps, stable_lr

CODES = [Int8(), Int4(), SignSGD(), TopK(0.2)]
codes = pytest.mark.parametrize("code", CODES, ids=lambda code: code.form)
AVERAGING = [local_gd, local_sgd, modified_local_gd, fedexp, slowmo, normalised_local_gd]


def steps(engine, method, number):
    """So many rounds: what came back, and the states of the server."""
    state, task = method.merge.init(np.zeros(5)), method.task
    for round_ in range(number):
        report = engine.round(task, replace(method.merge.message(state), round=round_))
        state = method.merge.step(state, report)
        yield report, state


def memories(engine, task):
    return [store.after[0] for store in engine.nodes._kept["", task].values()]


@codes
def test_of_all_rounds_together_the_server_lacks_what_the_nodes_keep_back_now(code):
    """e telescopes: Σ c_k = Σ u_k − e_K, whatever was kept back on the way."""
    shards, task = random_rows(3), Compressed(GradientSteps(local_steps=5, lr=0.3), code)
    engine, wanted = InProcess(shards), np.zeros(5)
    for report, state in steps(engine, Method("x", task, mean()), 40):
        before = state.w - report.duals["update"].vector / 4
        plain = engine.round(GradientSteps(local_steps=5, lr=0.3), Message(0, before, session="beside"))
        wanted += plain.duals["update"].vector / 4
    kept = sum(memories(engine, task)) / 4
    np.testing.assert_allclose(state.w, wanted - kept, atol=1e-12)
    assert state.model.kept.bound >= np.linalg.norm(kept)
    assert np.linalg.norm(kept) > 0


@codes
def test_a_mean_over_the_same_nodes_keeps_one_level_and_accumulates_nothing(code):
    engine, task = InProcess(random_rows(3)), Compressed(GradientSteps(local_steps=5, lr=0.3), code)
    for _, state in steps(engine, Method("x", task, mean()), 60):
        (share,) = [share for share in state.model.kept.shares if share.length > 0]
        level = sum(np.linalg.norm(memory) for memory in memories(engine, task)) / 4
        assert share.length == pytest.approx(level, rel=1e-5)
        assert state.model.own_error < 1e-10


def test_a_node_that_was_left_out_costs_one_level_once():
    engine, task = InProcess(random_rows(3)), Compressed(GradientSteps(local_steps=5, lr=0.3), Int4())
    names, state = list(engine.node_ids), mean().init(np.zeros(5))
    for round_ in range(12):
        asked = names[:-1] if round_ == 5 else names
        state = mean().step(state, engine.round(task, Message(round_, state.w), asked))
    assert len([share for share in state.model.kept.shares if share.length > 0]) == 5
    # all nodes after round 4 (whole mean and the mean of three), and those three after round 5; then one, as ever


@pytest.mark.parametrize("make", AVERAGING, ids=lambda make: make.__name__)
def test_a_code_that_loses_nothing_changes_nothing_but_the_last_digits(make):
    engine = InProcess(random_rows(3))
    plain, coded = (train(engine, method, n_rounds=15) for method in (make(), make().compressed(TopK(1.0))))
    np.testing.assert_allclose(coded.w, plain.w, rtol=1e-9)
    assert coded.certificate.margin_high == pytest.approx(plain.certificate.margin_high, rel=1e-9)
    assert coded.certificate.margin_low == pytest.approx(plain.certificate.margin_low, rel=1e-9)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("rows", ["two classes", "many classes"])
def test_certificates_hold_and_say_nearly_what_they_say_without(name, rows):
    shards = random_rows(4) if rows == "two classes" else against(random_samples(4), 4)
    exact, method = max_margin(stacked(shards)), COMPRESSED[name]
    run = train(InProcess(shards), method, n_rounds=60, reference=exact.direction)
    for row in run.history:
        assert not row.angle_deg_max + 1e-6 < row.true_angle_deg
        assert row.low <= exact.margin_low * (1 + 1e-9)
        assert row.high >= exact.margin_low * (1 - 1e-9)
    if "int8" in name:
        plain = train(InProcess(shards), method.compressed(None), n_rounds=60)
        assert run.certificate.margin_high <= plain.certificate.margin_high * 1.1
        assert run.certificate.margin_low >= plain.certificate.margin_low - 1e-3


def test_partial_participation_stays_true():
    shards = random_rows(4)
    exact = max_margin(stacked(shards))
    run = train(
        InProcess(shards),
        local_gd(local_steps=20).compressed(Int8()),
        n_rounds=100,
        nodes=SampledNodes(0.5),
        reference=exact.direction,
    )
    assert run.certificate.angle_deg_max >= run.history[-1].true_angle_deg
    assert run.certificate.separable


def test_int8_for_an_eighth_of_the_numbers_proves_the_same_angle():
    method = local_gd(local_steps=20)
    engine = federation("gauss-2000")
    plain, coded = (train(engine, one, n_rounds=40) for one in (method, method.compressed(Int8())))
    assert coded.certificate.angle_deg_max <= plain.certificate.angle_deg_max * 1.002
    assert 7 * coded.history[-1].floats_up < plain.history[-1].floats_up
    assert coded.history[-1].floats_down == plain.history[-1].floats_down


@codes
def test_error_feedback_comes_ever_nearer_to_the_penalised_minimiser(code):
    method = penalised(local_gd(local_steps=1).compressed(code), 1.0)
    shards = with_bias(random_rows(5), noise=0.1)
    w, away = train(InProcess(shards), penalised(newton(), 1.0)).w, []

    def on_round(info):
        away.append(float(np.linalg.norm(info.w - w) / np.linalg.norm(w)))
        assert not np.linalg.norm(info.w - w) > info.certificate.distance

    train(InProcess(shards), method, n_rounds=300, on_round=on_round)
    assert max(away[-50:]) < 0.5 * min(away[:50])
    assert away[-1] < 0.06


def test_it_is_of_use_for_real_targets_too():
    rng = np.random.default_rng(0)
    nodes = [Samples(f"{m}", x := rng.standard_normal((4, 9)), x @ np.arange(9.0)) for m in range(2)]
    engine = InProcess(nodes)
    method = Method("x", SquaresSteps(local_steps=2, lr=stable_lr(engine)), mean(), LeastSquares()).compressed(Int8())
    rows, targets = np.vstack([node.rows for node in nodes]), np.concatenate([node.targets for node in nodes])
    plain, coded = (train(engine, one, n_rounds=300).w for one in (method.compressed(None), method))
    away = np.linalg.norm(plain - np.linalg.pinv(rows) @ targets)
    assert np.linalg.norm(coded - plain) <= 0.1 * away


@pytest.mark.parametrize("make", [consensus, interior_point, newton, newton_cg, lbfgs, scaffold])
def test_exact_sums_are_not_compressed(make):
    with pytest.raises(ValueError, match=f"{make().name} needs sums that are exact.*leave compress out"):
        make().compressed(Int8())


def test_what_is_no_compressor_and_no_update_is_refused_in_words():
    with pytest.raises(TypeError, match="compressor must be a Compressor such as"):
        local_gd().compressed("int8")
    method = Method("x", Compressed(newton().task, Int8()), mean(), Regularised(C=1.0))
    with pytest.raises(ValueError, match="x: there is nothing to compress: Curvature sends no update"):
        train(InProcess(random_rows(1)), method)


def test_compressing_twice_is_compressing_once_and_late_goes_with_it():
    method = local_gd().compressed(Int8())
    assert method.compressed(Int4()) == local_gd().compressed(Int4())
    assert method.late() == local_gd().late().compressed(Int8())
    assert method.task.local_steps == local_gd().task.local_steps


def test_what_is_asked_of_it_is_a_setting_of_the_task_never_what_that_does():
    task = Compressed(GradientSteps(local_steps=7), Int8())
    assert (task.local_steps, task.weighted_by, task.loss) == (7, None, None)
    for name in ("run_all", "_penalised", "hard_margin_as"):
        assert not hasattr(task, name)


@codes
def test_the_contract_is_kept(code):
    assert check_method(local_gd(local_steps=5).compressed(code)).certified
    assert check_method(modified_local_gd().compressed(code)).certified


@dataclass(frozen=True)
class Halves(Compressor):
    """A compressor of one's own: two bytes an entry."""

    form: Any = "half"

    def n_bytes(self, size):
        return 2 * size

    def encode(self, vector):
        return np.clip(vector, -6e4, 6e4).astype("<f2").view(np.uint8)

    def decode(self, data, size):  # noqa: ARG002
        return data.view("<f2").astype(np.float64)


def test_a_compressor_of_ones_own_keeps_the_proof():
    check_method(local_gd(local_steps=5).compressed(Halves()))
    exact = answer("gauss-400")
    run = train(federation("gauss-400"), local_gd().compressed(Halves()), n_rounds=60, reference=exact.direction)
    assert run.history[-1].true_angle_deg <= run.certificate.angle_deg_max < 45


def test_an_estimator_takes_a_compressed_method():
    X = np.random.default_rng(0).standard_normal((90, 40))
    y = X[:, 0] > 0
    method = local_gd(local_steps=20).compressed(Int8())
    clf = LocalGDClassifier(method, n_rounds=300).fit(X, y, groups=np.arange(90) % 3)
    assert clf.score(X, y) > 0.95


@dataclass(frozen=True)
class Boastful:
    """A stranger's task: what it says of its model may be about anything."""

    task: GradientSteps
    loss: Any = None
    weighted_by: str = "uniform"

    def schema(self, message):
        return self.task.schema(message)

    def run(self, message, shard, state):
        report, state = self.task.run(message, shard, state)
        return replace(report, mins={**report.mins, "margin": 1e9}), state


def test_a_strangers_task_is_not_believed_for_being_compressed():
    shards = random_rows(4)
    task = Boastful(GradientSteps(local_steps=5, lr=0.3), GradientSteps().problem.loss_for(None, 1))
    run = train(InProcess(shards), Method("x", task, mean()).compressed(Int8()), n_rounds=10)
    assert run.certificate.margin_low <= max_margin(stacked(shards)).margin_low


def test_a_compressed_update_that_was_changed_is_refused():
    @dataclass(frozen=True)
    class Doubled(Boastful):
        def run(self, message, shard, state):
            report, state = self.task.run(message, shard, state)
            return replace(report, duals={"update": 2.0 * report.duals["update"]}), state

        def init(self, shard):
            return self.task.init(shard)

    inner = Compressed(GradientSteps(local_steps=5, lr=0.3), Int8())
    with pytest.raises(Exception, match="update was changed after it was coded"):
        InProcess(random_rows(4)).round(Doubled(inner), Message(0, np.zeros(5)))


def test_a_nodes_limits_are_held_against_the_task_that_is_compressed():
    many, small = GradientSteps(local_steps=10), GradientSteps(batch_size=2)
    for task, words in ((many, "max-local-steps=5"), (small, "min-batch=8")):
        limits = Limits(max_local_steps=5 if task is many else 1000)
        with pytest.raises(RefusedError, match=words):
            limits.admit(Compressed(task, Int8()), {}, 1, 100, task.local_steps)


def test_the_page_says_what_happens(capsys):
    page = Path(__file__).parents[2] / "docs" / "compression.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, page.name, "exec"), {})  # noqa: S102  our own page
    assert "within" in capsys.readouterr().out


def test_the_example_by_hand():
    """One column, z = 1, u = 0.6 in every round, whole numbers only: the error is the level of the moment."""

    @dataclass(frozen=True)
    class Constant:
        def schema(self, message):
            return update_fields(message)

        def run(self, message, shard, state):  # noqa: ARG002
            return update_report(shard, shard.combination(np.array([0.6]))), state

    @dataclass(frozen=True)
    class Whole(Halves):
        def encode(self, vector):
            return np.rint(vector).astype("<f2").view(np.uint8)

    engine, task, state = InProcess([Shard("a", [[1.0]])]), Compressed(Constant(), Whole()), mean().init(np.zeros(1))
    for round_, (sent, kept) in enumerate([(1, -0.4), (0, 0.2), (1, -0.2), (0, 0.4), (1, 0.0)]):
        report = engine.round(task, Message(round_, state.w))
        state = mean().step(state, report)
        assert report.duals["update"].vector.tolist() == [sent]
        assert memories(engine, task)[0].tolist() == pytest.approx([kept], abs=1e-12)
        assert state.model.error == pytest.approx(abs(kept), rel=1e-5, abs=1e-12)
        assert state.w[0] == pytest.approx(0.6 * (round_ + 1) - kept)


def test_few_shares_are_told_apart_and_the_others_count_in_full():
    kept, total = Kept(), 0.0
    for place in range(3 * MOST_SHARES):
        kept, lost = kept.plus(Kept((Share(float(place), 1.0, 1.0 + place),)))
        total += lost
    assert len(kept.shares) == MOST_SHARES
    assert kept.bound == pytest.approx(sum(1.0 + place for place in range(3 * MOST_SHARES)))
    assert total < 1e-6  # what is forgotten is no rounding: nobody may take it for a sum that cancels


def test_rows_cancel_only_if_they_do_so_beyond_what_is_kept_back():
    """Else a coarse code would have any rows pass for inseparable."""
    shard = Shard("a", [[1.0, 0.2], [1.0, -0.2]])
    task = Compressed(GradientSteps(local_steps=1, lr=0.1), TopK(0.5))
    dual = task.run(Message(0, np.zeros(2)), shard, task.init(shard))[0].duals["update"]
    coarse = Dual.proved(dual.vector, dual.mass, dual.own_error, 1, kept=Kept.between(0.0, 9.0, 1.0, 9.0))
    assert coarse.length < 8 * coarse.error
    assert not coarse.cancels


@pytest.mark.parametrize(
    ("method", "share", "n_rounds"),
    [
        (local_gd(local_steps=10, lr=0.05).compressed(Int4()), 0.5, 60),
        (local_gd(local_steps=10, lr=0.05).compressed(TopK(0.1)), 0.5, 100),
        (modified_local_gd().compressed(TopK(0.02)), 1.0, 150),
    ],
    ids=["int4, sampled", "topk, sampled", "topk, anchored"],
)
def test_what_is_no_longer_told_apart_is_no_proof_that_rows_cancel(method, share, n_rounds):
    x = np.random.default_rng(0).standard_normal((60, 40))
    x[:, 0] = 0.05  # this column separates them
    shards = [Shard(f"{m}", part) for m, part in enumerate(np.array_split(x, 6))]
    run = train(InProcess(shards), method, nodes=SampledNodes(share) if share < 1 else None, n_rounds=n_rounds)
    assert run.certificate.separable is not False
    assert str(run.certificate.verdict) == "undecided"


def test_a_node_that_weighs_nothing_keeps_nothing_back():
    shards = [Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])]
    method = local_gd(local_steps=10, weighted_by={"a": 1, "b": 0})
    coded, plain = (train(InProcess(shards), one, n_rounds=30) for one in (method.compressed(Int8()), method))
    assert coded.certificate.angle_deg_max == pytest.approx(plain.certificate.angle_deg_max, abs=0.5)
