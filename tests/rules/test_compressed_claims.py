"""Compressed rounds in which everything goes wrong, against the same rounds uncompressed: no dual claims too much.

A shadow of the server gets the updates as the nodes computed them, with the same factors, so that its model is the
exact combination of rows but for rounding. What the server says of its own (its error, for a model, a readout, a
velocity and the update of a round) must hold; for two columns, its certificate too. Nodes fail, are left out, asked
again or in vain, lose their states, are cut short and resume; rounds are repeated, with the same model or another. More
than ten thousand rounds in CI, a million by ``python tests/rules/test_compressed_claims.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import at_scale
from common import examples
from localgd import Int4, Int8, Shard, SignSGD, TopK
from localgd.engine import serialize
from localgd.engine.nodes import Nodes, NodeStore, state_type
from localgd.engine.packing import Layout, Rank
from localgd.engine.policy import in_order
from localgd.losses import Exponential, Logistic
from localgd.problems.certificate import Certificate
from localgd.problems.hard_margin import certificate
from localgd.rounding import angle_deg, norm
from localgd.rules.compressed import Compressed
from localgd.rules.late import Late
from localgd.rules.local import GradientSteps
from localgd.rules.normalised import Normalised
from localgd.rules.project import Project
from localgd.rules.server import Anchored, Extrapolation, Momentum, chain, mean
from rules.test_strangers import exact

CASES = examples(2_000)
"""Of seven rounds each, more or less."""

MERGES = (
    mean(),
    Late(mean()),
    Anchored(mean()),
    chain(mean(), Momentum(0.7)),
    chain(mean(), Momentum(0.9, 0.5, nesterov=True)),
    Late(chain(mean(), Momentum(0.5))),
    chain(mean(), Extrapolation()),
    Anchored(chain(mean(), Extrapolation(1.0))),
    Normalised(),
    Late(Normalised()),
)

UPDATES: dict[str, Any] = {}
"""What each node computed last, before it was coded."""


@dataclass(frozen=True)
class Witness:
    """A task that also tells the test what it computed."""

    task: Any

    def __getattr__(self, name):
        if name.startswith("__") or name in ("task", "init", "state_type"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def schema(self, message):
        return self.task.schema(message)

    def run(self, message, shard, state):
        init = getattr(self.task, "init", None)
        report, _ = self.task.run(message, shard, None if init is None else init(shard))
        UPDATES[shard.node_id] = report.duals.get("update")
        return report, state


class Case:
    """A federation, its server and the shadow, and chance."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        d, n_nodes = int(rng.integers(1, 6)), int(rng.integers(1, 5))
        u = rng.standard_normal(d)
        self.shards, rows = [], []
        for m in range(n_nodes):
            z = rng.standard_normal((int(rng.integers(1, 5)), d)) + rng.standard_normal(d)
            if rng.random() < 0.9:
                z = np.where(z @ u >= 0, 1.0, -1.0)[:, None] * z + rng.uniform(0, 0.5) * u
            self.shards.append(Shard(f"n{m}", z))
            rows.append(z)
        self.z = np.vstack(rows)
        weighting = "num-examples" if rng.random() < 0.5 else "uniform"
        steps, lr = int(rng.integers(1, 5)), 10 ** rng.uniform(-1.5, 0.7)
        loss = Exponential() if rng.random() < 0.3 else Logistic()
        batch = 1 if rng.random() < 0.2 else None
        task = GradientSteps(steps, lr, loss, batch, seed=seed, weighted_by=weighting)
        task = task if rng.random() < 0.8 else Project(weighted_by=weighting)
        codes = (Int8(), Int4(), SignSGD(), TopK(0.01), TopK(0.5), TopK(1.0))
        self.task = Compressed(Witness(task), codes[int(rng.integers(len(codes)))])
        self.merge = MERGES[int(rng.integers(len(MERGES)))]
        self.nodes = Nodes(self.shards)
        self.server = self.shadow = self.merge.init(np.zeros(d))
        self.calm, self.packed, self.session = rng.random() < 0.2, rng.random() < 0.3, "a"
        self.before = Certificate()

    def chance(self, share):
        return not self.calm and self.rng.random() < share

    def some(self, names):
        return [name for name in names if self.rng.random() < 0.7] or [next(iter(names))]

    def answers(self, message):
        """What nodes say, and what it is a code of: of those only that the server has heard."""
        names = [shard.node_id for shard in self.shards]
        asked = self.some(names) if self.chance(0.3) else names
        found = self.nodes.run(self.task, message, asked)
        for name in asked:
            if self.chance(0.1):  # asked again, from the state before
                found |= self.nodes.run(self.task, message, [name])
        if self.chance(0.15):  # some are lost on the way, and their nodes do not know
            found = {name: found[name] for name in self.some(asked)}
        if errors := [answer for answer in found.values() if isinstance(answer, Exception)]:
            raise errors[0]
        return found

    def mishap(self):
        """Nodes lose what they remember, or the run is cut and goes on in another session."""
        kept = self.nodes._kept.get((self.session, self.task), {})
        if self.chance(0.1):
            kept.pop(next(iter(kept)), None) if kept else None
        if self.chance(0.1):
            kind = state_type(self.task)
            back = {}
            for name, store in kept.items():
                state = serialize.unpack(serialize.pack(store.after, kind), kind)
                back[name] = NodeStore(store.round, state, state)
            self.session += "'"
            self.nodes._kept[self.session, self.task] = back
            inner = type(self.server)
            self.server = serialize.unpack(serialize.pack(self.server), inner)

    def another(self, message):
        """A question in the same round about another model, of which nothing comes."""
        if self.chance(0.05):
            other = replace(message, w=message.w + self.rng.standard_normal(message.w.size))
            self.nodes.run(self.task, other, self.some(self.nodes.shards))

    def round(self):
        """One round of both; what is claimed and is not so."""
        self.mishap()
        message = replace(self.merge.message(self.server), session=self.session)
        if self.chance(0.1):  # a round that comes to nothing: its message will be sent again
            self.nodes.run(self.task, message, self.some(self.nodes.shards))
        self.another(message)
        if self.chance(0.02):  # a server that counts its rounds anew
            message = replace(message, round=0)
        heard = self.answers(message)
        report = self.summed(message, heard)
        there = in_order({name: self.uncoded(name, answer) for name, answer in heard.items()})
        if "update" not in report.duals or "overflow" in report.flags:  # there the loop ends
            return None
        self.another(message)
        there.duals["update"].__dict__["length"] = report.duals["update"].length  # whatever a part makes of it
        wrong = [*self.false("update", report.duals["update"], there.duals["update"])]
        wrong += self.false("readout", self.server.readout, self.shadow.readout)
        wrong += self.certified(report)
        self.server, self.shadow = self.merge.step(self.server, report), self.merge.step(self.shadow, there)
        wrong += self.false("model", self.server.model, self.shadow.model)
        for one, other in zip(self.server.kept, self.shadow.kept, strict=True):
            wrong += self.false("velocity", one, other)
        return wrong

    def summed(self, message, heard):
        """The sum of the reports; or as processes add it up."""
        if not self.packed:
            return in_order(heard)
        layout = Layout(self.task.schema(message), tuple(heard))
        places = [Rank(rank, len(heard)) for rank in range(len(heard))]
        flats = [layout.packed([one], at, sent=0) for one, at in zip(heard.values(), places, strict=True)]
        return layout.report(np.sum(flats, axis=0), len(heard))[0]

    def uncoded(self, name, answer):
        update = UPDATES[name]
        return replace(answer, duals={} if update is None else {"update": update})

    def false(self, what, dual, true):
        away = norm(dual.vector - true.vector)
        if not away <= dual.error + true.error:
            yield f"{what}: {away} > {dual.error}"
        if not dual.mass <= true.mass + 1e-12 * abs(true.mass) + 1e-300:
            yield f"{what}: mass {dual.mass} > {true.mass}"

    def certified(self, report):
        """What the certificate of a round claims and is not so."""
        model = self.server.readout
        if self.z.shape[1] != 2 or not np.isfinite(model.vector).all() or not model.vector.any():
            return []
        margin, direction = exact(self.z)
        own = float((self.z @ model.vector).min()) - 1e-12 * norm(model.vector)
        self.before = found = certificate(model.vector, own, [model, report.duals["update"]], before=self.before)
        wrong = []
        if found.margin_high < margin * (1 - 1e-9):
            wrong.append(f"margin_high {found.margin_high} < {margin}")
        if direction is not None and found.angle_deg_max + 1e-6 < angle_deg(model.vector, direction):
            wrong.append(f"angle {found.angle_deg_max} < {angle_deg(model.vector, direction)}")
        return wrong


def false_claims(seed):
    """What the duals of a run claim and is not so."""
    case = Case(seed)
    for _ in range(int(case.rng.integers(2, 13))):
        wrong = case.round()
        if wrong is None or case.server.done:
            break
        if wrong:
            return wrong
        left = [share for share in case.server.model.kept.shares if share.length > 0]
        if case.calm and case.merge == mean() and len(left) > 1:
            return [f"a plain mean keeps {left}"]
    return []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(10))
def test_no_compressed_round_claims_what_is_not_so(part):
    with np.errstate(all="ignore"):
        wrong = {seed: claims for seed in range(part, CASES, 10) if (claims := false_claims(seed))}
    assert wrong == {}


if __name__ == "__main__":
    at_scale.run(false_claims, 150_000)
