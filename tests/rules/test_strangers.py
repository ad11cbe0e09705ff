"""Tasks and merges of strangers, made at random: whatever they do to an update, no certificate says what is not so.

The exact answer is in closed form for two columns, so that many cases can be drawn: ten thousand in CI, a million by
``python tests/rules/test_strangers.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import at_scale
from common import examples
from localgd import InProcess, Int4, Int8, Method, NodeError, Report, Shard, SignSGD, Status, TopK, train
from localgd.duals.dual import Dual
from localgd.losses import Exponential, Logistic
from localgd.rounding import angle_deg
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps
from localgd.rules.normalised import Normalised
from localgd.rules.project import Project
from localgd.rules.server import Anchored, Extrapolation, Momentum, chain, mean

CASES = examples(10_000)


def exact(z):
    """The exact answer for two columns: γ* and its direction, the hull's nearest point; −inf if nothing separates."""
    angles = np.sort(np.arctan2(z[:, 1], z[:, 0]))
    if np.diff(np.append(angles, angles[0] + 2 * math.pi)).max() <= math.pi:
        return -math.inf, None
    i, j = np.triu_indices(len(z))
    edges = z[j] - z[i]
    squares = (edges * edges).sum(axis=1)
    shares = np.clip(-(z[i] * edges).sum(axis=1) / np.where(squares > 0, squares, 1.0), 0.0, 1.0)
    points = z[i] + shares[:, None] * edges
    lengths = np.hypot(*points.T)
    return float(lengths.min()), points[lengths.argmin()]


def negated(_, update):
    return -1.0 * update


def cut(_, update):
    return np.where(np.arange(update.vector.size) == np.abs(update.vector).argmax(), update.vector, 0.0)


def signs(_, update):
    return np.sign(update.vector) * np.abs(update.vector).mean()


def few_bits(_, update):
    scale = np.abs(update.vector).max() / 7 or 1.0
    return np.rint(update.vector / scale) * scale


def noise(rng, update):
    return update.vector + rng.normal(0, 10 ** rng.uniform(-3, 1), update.vector.size)


def turned(_, update):
    return update.vector[::-1].copy()


def doubled(_, update):
    return 2.0 * update


def with_itself(_, update):
    return update + 0.5 * update


def replaced(rng, update):
    return replace(update, vector=rng.normal(size=update.vector.size))


def honest(*given):
    return given[-1]


def vouched(rng, update):
    return Dual.proved(update.vector.copy(), rng.uniform(1, 4) * update.mass, update.error)


CHANGES = (negated, cut, signs, few_bits, noise, turned, doubled, with_itself, replaced, honest)


def blank(report):
    return Report(1, report.n_rows)


def excused(report):
    return Report(1, report.n_rows, flags={"unguessed": 1})


def no_margin(report):
    return replace(report, mins={})


def no_update(report):
    return replace(report, duals={})


def undeclared(report):
    return replace(report, sums={**report.sums, "more": 1.0})


def of_another_kind(report):
    return replace(report, mins={}, maxs={"margin": report.mins["margin"]})


def too_long(report):
    return replace(report, duals={"update": Dual(np.zeros(3))})


def boastful(report):
    return replace(report, mins={**report.mins, "margin": abs(report.mins["margin"]) + 1.0})


def modest(report):
    return replace(report, mins={**report.mins, "margin_upper": 1e-6})


def cancelling(report):
    return replace(report, flags={**report.flags, "cancels": 1})


LIES = (boastful, modest, cancelling)

CODES = (Int8(), Int4(), SignSGD(), TopK(0.5))

WRONG = (blank, excused, no_margin, no_update, undeclared, of_another_kind, too_long)


@dataclass(frozen=True)
class Strange:
    """A task of which the update, or the report, is changed at random; or the rows, or the model, that it works on."""

    task: Any
    seed: int
    change: Any = honest
    wrong: Any = None
    lie: Any = honest
    length: float = 1.0
    moved: float = 0.0
    loss: Any = field(default_factory=Logistic)
    weighted_by: str = "uniform"

    def schema(self, message):
        return self.task.schema(message)

    def init(self, shard: Shard) -> Any:
        return self.task.init(shard) if isinstance(self.task, Project) else None

    def run(self, message, shard, state):
        rng = np.random.default_rng([self.seed, message.round])
        if self.length != 1.0:  # rows of its own making: shorter or longer ones, of half of the node
            shard = Shard(shard.node_id, self.length * shard.rows[: -(-shard.n_rows // 2)])
            state = self.init(shard)
        w = message.w + self.moved * rng.normal(size=message.w.size)
        report, state = self.task.run(replace(message, w=w), shard, state)
        report = self.lie(report)
        if self.wrong is not None and shard.node_id == "b":
            return self.wrong(report), state
        return replace(report, duals={"update": self.change(rng, report.duals["update"])}), state


@dataclass(frozen=True)
class Meddling:
    """A merge that changes the model behind the back of what is proved of it, or sends another one than it has."""

    merge: Any
    change: Any
    seed: int
    sends: Any = honest
    whole_rounds: str = ""

    def init(self, w0):
        return self.merge.init(w0)

    def message(self, state):
        message = self.merge.message(state)
        sent = self.sends(np.random.default_rng([self.seed, state.round, 1]), Dual(message.w))
        return replace(message, w=sent.vector if isinstance(sent, Dual) else sent)

    def step(self, state, report):
        following = self.merge.step(state, report)
        changed = self.change(np.random.default_rng([self.seed, state.round]), following.model)
        return replace(following, model=changed if isinstance(changed, Dual) else Dual(changed))


def case(seed):
    """A federation of two columns and a stranger's method."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=2)
    z = rng.normal(size=(int(rng.integers(2, 9)), 2))
    if rng.random() < 0.8:
        z *= np.where(z @ u >= 0, 1.0, -1.0)[:, None]
        z += rng.uniform(0, 1) * u / np.linalg.norm(u)
    at = max(1, len(z) // 2)
    shards = [Shard("a", z[:at]), Shard("b", z[at:] if len(z) > at else z[:1])]
    loss = Exponential() if rng.random() < 0.3 else Logistic()
    steps, lr = int(rng.integers(1, 6)), 10 ** rng.uniform(-1.5, 1)
    prox = min(1 / lr, 10 ** rng.uniform(-1, 1)) if rng.random() < 0.3 else 0.0
    batch = 1 if rng.random() < 0.2 else None
    task = GradientSteps(steps, lr, loss, batch, prox=prox, seed=seed) if rng.random() < 0.8 else Project()
    merges = (mean(), Anchored(mean()), chain(mean(), Momentum(0.7)), chain(mean(), Extrapolation()), Late(mean()))
    merge = (*merges, Normalised())[int(rng.integers(6))]
    strange = Strange(task, seed, CHANGES[int(rng.integers(len(CHANGES)))], loss=loss)
    if rng.random() < 0.1:
        strange = replace(strange, wrong=WRONG[int(rng.integers(len(WRONG)))])
    if rng.random() < 0.3:
        lie = (*LIES, honest)[int(rng.integers(4))]
        length, moved = (float(rng.choice(some)) for some in ((0.5, 1.0, 2.0), (0.0, 1.0)))
        strange = replace(strange, lie=lie, length=length, moved=moved)
    if rng.random() < 0.2:
        change, sends = (CHANGES[int(k)] for k in rng.integers(len(CHANGES), size=2))
        merge = Meddling(merge, change if rng.random() < 0.7 else honest, seed, sends if rng.random() < 0.5 else honest)
    method = Method("strange", strange, merge)
    if rng.random() < 0.2:
        method = method.compressed(CODES[int(rng.integers(len(CODES)))])
    if rng.random() < 0.1:  # a merge that vouches for more than nodes reported
        method = replace(method, merge=Meddling(method.merge, vouched, seed, honest))
    return shards, method


def false_claims(seed):
    """What a stranger's run claims and is not so; nothing for a run that is refused."""
    shards, method = case(seed)
    z = np.vstack([shard.rows for shard in shards])
    margin, direction = exact(z)
    engine = InProcess(shards, on_failure="skip" if seed % 3 == 0 else "raise")
    try:
        run = train(engine, method, n_rounds=3)
    except (ValueError, ArithmeticError, NodeError, KeyError):
        return []
    found, slack = run.certificate, 1e-9
    claims = []
    if found.margin_low > max(margin, 0.0) * (1 + slack):
        claims.append(f"margin_low {found.margin_low} > {margin}")
    if found.margin_high < margin * (1 - slack):
        claims.append(f"margin_high {found.margin_high} < {margin}")
    if direction is not None and found.angle_deg_max + 1e-6 < angle_deg(run.w, direction):
        claims.append(f"angle {found.angle_deg_max} < {angle_deg(run.w, direction)}")
    if (found.separable is True and margin <= 0) or (found.separable is False and margin > 1e-9):
        claims.append(f"separable {found.separable} at {margin}")
    if found.verdict is Status.CERTIFIED and direction is None:
        claims.append("certified, and nothing separates them")
    return claims


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(10))
def test_no_stranger_is_certified_falsely(part):
    with np.errstate(all="ignore"):
        wrong = {seed: claims for seed in range(part, CASES, 10) if (claims := false_claims(seed))}
    assert wrong == {}


def test_the_exact_answer_of_two_columns_is_that_of_the_reference():
    from localgd.reference.max_margin import max_margin

    for seed in range(200):
        shards, _ = case(seed)
        z = np.vstack([shard.rows for shard in shards])
        margin, direction = exact(z)
        if direction is None or margin < 1e-3:
            continue
        reference = max_margin(z)
        assert reference.margin_low == pytest.approx(margin, rel=1e-7)
        assert angle_deg(reference.direction, direction) <= 1e-4


if __name__ == "__main__":
    at_scale.run(false_claims, 1_000_000)
