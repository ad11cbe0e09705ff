"""Certificates of methods, nodes and rows that somebody else has made: nothing may be claimed that is not so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pytest

from common import stacked
from localgd import InProcess, Method, Report, Shard, auto, from_arrays, prepare, train
from localgd.duals.dual import Dual
from localgd.reference.max_margin import max_margin
from localgd.rules.local import GradientSteps
from localgd.rules.normalised import Normalised
from localgd.rules.server import Extrapolation, Momentum, chain, mean


def cut_short(step):
    """The thirty largest entries."""
    kept = step.copy()
    kept[np.argsort(-np.abs(step))[30:]] = 0
    return kept


def first_half(step):
    """What a node sends that has only half of the columns."""
    return np.where(np.arange(step.size) < step.size // 2, step, 0)


def coarse(step):
    """One bit an entry, and a length."""
    return np.sign(step) * np.abs(step).mean()


CHANGES = {change.__name__: change for change in (cut_short, first_half, coarse)}


@dataclass(frozen=True)
class Changed(GradientSteps):
    """Gradient steps of which something else is sent."""

    change: str = "cut_short"

    def run(self, message, shard, state):
        report, state = super().run(message, shard, state)
        update = CHANGES[self.change](report.duals["update"].vector)
        return replace(report, duals={"update": Dual(update)}), state


@pytest.mark.parametrize("change", CHANGES)
def test_an_update_that_is_not_what_its_mass_says_certifies_no_false_angle(change):
    """Found by an attack: sparsified, partial or quantised updates are what users write first."""
    X = np.random.default_rng(0).standard_normal((120, 300))
    federation, _ = prepare(InProcess(from_arrays(X, X[:, 0] > 0, np.arange(120) % 4)))
    best = max_margin(stacked(federation.shards))
    method = Method("changed", Changed(local_steps=20, change=change), mean())
    run = train(federation, method, n_rounds=40, reference=best.direction)
    assert not run.certificate.angle_deg_max < run.history[-1].true_angle_deg


@pytest.mark.parametrize(("margin", "n_nodes"), [(2e-10, 1), (2e-10, 2), (3e-10, 1), (3e-10, 2), (1e-9, 1)])
def test_rows_with_an_exact_margin_are_never_called_not_separable(margin, n_nodes):
    """Found by an attack: what is not proved either way is None."""
    n = 100_000
    Z = np.column_stack([np.random.default_rng(0).choice([-1.0, 1.0], n), np.full(n, margin)])
    shards = [Shard(f"{name}", rows) for name, rows in enumerate(np.array_split(Z, n_nodes))]
    assert train(InProcess(shards), auto()).certificate.separable is not False


@dataclass(frozen=True)
class Blank(GradientSteps):
    """Gradient steps of which one node says nothing, with a reason that is on the list, or none."""

    reason: str = "unguessed"

    def run(self, message, shard, state):
        if shard.node_id == "c":
            return Report(1, shard.n_rows, flags={self.reason: 1} if self.reason else {}), state
        return super().run(message, shard, state)


@pytest.mark.parametrize("policy", [{}, {"on_failure": "skip"}], ids=["raise", "skip"])
@pytest.mark.parametrize("reason", ["unguessed", "forgotten", "inseparable", ""])
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_reports_no_number_leaves_no_certificate_about_its_rows(reason, policy):
    """Found by an attack: a report without a number, and a reason for that, passes for one that has nothing to add."""
    Z = np.abs(np.random.default_rng(3).standard_normal((20, 3)))
    shards = [Shard("a", Z[:10]), Shard("b", Z[10:]), Shard("c", -Z)]  # c contradicts both: nothing separates these
    engine, method = InProcess(shards, **policy), Method("blank", Blank(local_steps=5, reason=reason), mean())
    try:
        found = train(engine, method, n_rounds=40).certificate
    except Exception:  # noqa: BLE001  refused, in whatever words
        return
    assert found.separable is not True
    assert str(found.verdict) != "certified"


@pytest.mark.parametrize(
    "merge",
    [Normalised(), mean(), chain(mean(), Extrapolation()), chain(mean(), Momentum())],
    ids=lambda merge: type(merge).__name__,
)
@pytest.mark.parametrize("seed", [329, 449, 836])
def test_proximal_steps_under_any_merge_leave_a_bound_that_holds_or_are_refused(seed, merge):
    """Found by an attack, from public parts alone."""
    rng = np.random.default_rng(seed)
    d, k = int(rng.integers(2, 6)), int(rng.integers(2, 30))
    u = np.ones(d) / np.sqrt(d)
    Z = rng.standard_normal((2 * k, d))
    Z = Z * np.sign(Z @ u)[:, None] + rng.uniform(0.02, 1) * u
    prox = 10 ** rng.uniform(-2, 1.5)
    lr = min(1 / prox, 10 ** rng.uniform(-2, 1)) * rng.uniform(0.5, 1)
    engine = InProcess([Shard("a", Z[:k]), Shard("b", Z[k:])])
    with suppress(ValueError, ArithmeticError):
        steps = GradientSteps(local_steps=int(rng.integers(2, 12)), lr=lr, prox=prox)
        found = train(engine, Method("shrinking", steps, merge), n_rounds=10).certificate
        assert found.margin_high >= max_margin(Z).margin_low * (1 - 1e-6)
