"""What a merge of another package vouches for itself is believed only if nodes of this run have reported it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from localgd import Checkpoints, Dual, InProcess, Method, ServerState, Shard, chain, check_method, local_gd, mean, train
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.server import Server

TASK = local_gd(local_steps=5).task


def nodes(seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for n in (20, 30, 10):
        x = rng.standard_normal((n, 4))
        x[:, 0] = np.abs(x[:, 0]) + 0.3
        out.append(Shard(f"n{n}", x))
    return out


def more(update, factor=2.0):
    return Dual.proved(update.vector.copy(), factor * update.mass, update.error)


@dataclass(frozen=True)
class Averaging(Server):
    """The mean of the nodes, as somebody else would write it."""

    def init(self, w0):
        return ServerState(Dual.zeros(len(w0)))

    def update(self, report):
        return (1 / float(report.sums["weight"])) * report.duals["update"]

    def step(self, state, report):
        return replace(state, model=state.model + self.update(report), round=state.round + 1)


@dataclass(frozen=True)
class Vouching(Averaging):
    """It says of each update that it has twice the mass."""

    def update(self, report):
        return more(super().update(report))


@dataclass(frozen=True)
class FromRowsOfItsOwn(Averaging):
    """It adds a combination of rows that no node has."""

    def update(self, report):
        return super().update(report) + Shard("mine", np.eye(4)).combination(np.full(4, 1e-3))


@dataclass(frozen=True)
class BeginsWithAClaim(Averaging):
    """It begins with a mass from nowhere."""

    def init(self, w0):
        return ServerState(Dual.proved(np.full(len(w0), 1e-3), 100.0, 0.0))


@dataclass(frozen=True)
class Doubling:
    """A part of a chain that vouches."""

    def __call__(self, update, kept, report):  # noqa: ARG002
        return more(update), kept


FORGED = {
    "vouching": Vouching(),
    "rows of its own": FromRowsOfItsOwn(),
    "begins with a claim": BeginsWithAClaim(),
    "part of a chain": chain(mean(), Doubling()),
    "function in a chain": chain(mean(), lambda update, kept, report: (more(update), kept)),  # noqa: ARG005
}


def assert_true(run, shards):
    direction = max_margin(np.vstack([np.asarray(shard.rows) for shard in shards])).direction
    assert run.certificate.angle_deg_max >= angle_deg(run.w, direction)


@pytest.mark.parametrize("name", FORGED)
def test_what_a_merge_claims_is_not_believed(name):
    shards = nodes()
    run = train(InProcess(shards), Method("forged", TASK, FORGED[name]), n_rounds=200)
    assert not run.dual.known
    assert_true(run, shards)


@pytest.mark.parametrize("name", [name for name in FORGED if "function" not in name])
def test_nor_after_a_resume(name, tmp_path):
    shards, method = nodes(), Method("forged", TASK, FORGED[name])
    for n_rounds in (10, 20):
        kept = Checkpoints(tmp_path / "run", every_rounds=1)
        run = train(InProcess(shards), method, n_rounds=n_rounds, checkpoints=kept)
    assert not run.dual.known
    assert_true(run, shards)


@pytest.mark.parametrize("name", ["vouching", "begins with a claim", "part of a chain"])
def test_the_check_says_so(name):
    assert "vouches for itself is not believed" in check_method(Method("forged", TASK, FORGED[name])).reason


def test_an_honest_merge_keeps_its_proof_over_a_resume(tmp_path):
    shards, method = nodes(), Method("honest", TASK, Averaging())
    assert "believed" not in check_method(method).reason
    whole = train(InProcess(shards), method, n_rounds=20)
    for n_rounds in (10, 20):
        kept = Checkpoints(tmp_path / "run", every_rounds=1)
        run = train(InProcess(shards), method, n_rounds=n_rounds, checkpoints=kept)
    np.testing.assert_array_equal(run.w, whole.w)
    assert run.certificate == whole.certificate
    assert run.dual.known
    ours = train(InProcess(shards), Method("ours", TASK, mean()), n_rounds=20)
    assert run.certificate.angle_deg_max == pytest.approx(ours.certificate.angle_deg_max, rel=1e-9)


def test_what_another_run_reported_is_no_proof_in_this_one():
    other = train(InProcess(nodes(1)), Method("honest", TASK, Averaging()), n_rounds=20)
    held = other.dual

    @dataclass(frozen=True)
    class Borrowing(Averaging):
        def update(self, report):
            return super().update(report) + held

    shards = nodes()
    run = train(InProcess(shards), Method("borrowing", TASK, Borrowing()), n_rounds=50)
    assert held.known
    assert not run.dual.known
    assert_true(run, shards)


def test_a_start_that_somebody_vouches_for_goes_on_with_its_proof():
    shards = nodes()
    begun = train(InProcess(shards), Method("honest", TASK, Averaging()), n_rounds=20)

    @dataclass(frozen=True)
    class FromStart(Averaging):
        def init(self, w0):
            return ServerState(Dual(w0))

    run = train(InProcess(shards), Method("honest", TASK, FromStart()), n_rounds=20, w0=begun.dual)
    assert run.dual.known
    assert run.dual.mass > begun.dual.mass
    assert_true(run, shards)
