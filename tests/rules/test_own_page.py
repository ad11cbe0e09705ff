"""The programs of docs/own-method.md: they keep the contract, prove what the page says, and run over Flower."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from common import random_rows, stacked
from cut import assert_same_run
from engines.flower_grid import LocalGrid, grid_of
from localgd import InProcess, Int8, NodeError, Status, chain, check_method, mean, train
from localgd.flower import FlowerEngine, answer
from localgd.methods.served import TASKS
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rules.server import Extrapolation, Momentum
from own_methods import BLOCKS, PROGRAMS

programs = pytest.mark.parametrize("name", PROGRAMS)
CONTEXT = Context(1, 1, {}, RecordDict(), {})

PROVED = {
    "heavy-ball": True,
    "clipped": True,
    "scheduled": True,
    "local-adam": False,
    "signs": False,
    "noisy": False,
    "averaged-velocity": True,
}


def test_the_page_has_these_programs_of_at_most_forty_lines():
    assert PROGRAMS.keys() == PROVED.keys()
    assert max(len(block.splitlines()) for block in BLOCKS) <= 40


@programs
def test_a_program_of_the_page_keeps_the_contract_and_knows_what_it_proves(name):
    found = check_method(PROGRAMS[name].method)
    assert found.certified is PROVED[name]
    assert str(found).startswith(f"{name}: the contract is kept; ")


MERGES = {
    "its own": None,
    "mean": mean(),
    "momentum": chain(mean(), Momentum(0.5)),
    "extrapolation": chain(mean(), Extrapolation()),
}
UNDER = [(name, merge) for name in PROGRAMS for merge in MERGES if PROGRAMS[name].method.merge != MERGES[merge]]


@pytest.mark.parametrize(("name", "merge"), UNDER)
def test_its_certificates_hold_under_every_merge(name, merge):
    method = PROGRAMS[name].method
    method = replace(method, merge=MERGES[merge] or method.merge)
    for seed in range(3):
        shards = random_rows(seed)
        exact = max_margin(stacked(shards))
        run = train(InProcess(shards), method, n_rounds=60)
        found = run.certificate
        assert found.margin_low <= exact.margin_high
        assert found.margin_high >= exact.margin_low
        assert np.isnan(found.angle_deg_max) or angle_deg(run.w, exact.direction) <= found.angle_deg_max
        if PROVED[name] and merge == "its own":
            assert found.verdict in (Status.CERTIFIED, Status.SEPARABLE)
            assert found.angle_deg_max < 70


def test_the_averaged_velocity_of_one_node_is_heavy_ball_that_knows_of_no_rounds():
    (shard, *_), method = random_rows(3), PROGRAMS["averaged-velocity"].method
    w = v = np.zeros(shard.n_features)
    for _ in range(6 * method.task.local_steps):
        slopes = method.task.loss.slope(shard.rows @ w)
        v = method.task.momentum * v + method.task.lr * shard.rows.T @ slopes / shard.n_rows
        w = w + v
    np.testing.assert_allclose(train(InProcess([shard]), method, n_rounds=6).w, w, rtol=1e-12)


@programs
def test_it_runs_over_flower_where_it_is_on_the_list_and_is_refused_by_name_where_it_is_not(name):
    shards, method = random_rows(2), PROGRAMS[name].method

    def engine(*tasks: type) -> FlowerEngine:
        held = {shard.node_id: shard for shard in shards}
        app = answer(ClientApp(), lambda context: held[context.node_config["node-name"]], tasks=(*TASKS, *tasks))
        configs = [{"node-name": name, "min-rows": 1, "min-batch": 1} for name in held]
        return FlowerEngine(LocalGrid(app, configs), n_nodes=len(held), timeout=5.0, poll=1e-4)

    here = train(InProcess(shards), method, n_rounds=8)
    assert_same_run(train(engine(type(method.task)), method, n_rounds=8), here)
    words = rf"{type(method.task).__name__}' is not on the list of this node .*answer\(app, tasks=…\)"
    with pytest.raises(NodeError, match=words):
        train(engine(), method, n_rounds=1)


def test_the_page_has_both_sides_of_a_flower_app(capsys):
    """Four hospitals, a bundled set, of which anyone may read every row."""
    (block,) = [block for block in BLOCKS if "ServerApp" in block]
    app = ModuleType("app")
    exec(compile(block, "own-method.md", "exec"), app.__dict__)  # noqa: S102  our own page
    app.server(LocalGrid(app.client, [{"data": "heart", "partition-id": i} for i in range(4)]), CONTEXT)
    assert "the pooled margin, if any, is at most" in capsys.readouterr().out


@programs
def test_in_a_code_it_is_refused_over_flower_in_words_before_anything_is_sent(name):
    method = PROGRAMS[name].method
    engine = FlowerEngine(grid_of(random_rows(2), tasks=(*TASKS, type(method.task))), timeout=5.0, poll=1e-4)
    words = rf"nodes read the fields of compressed.Compressed as they are declared, .*{type(method.task).__name__}\("
    with pytest.raises(TypeError, match=rf"{words}.*; a task of your own .* leave compressed\(…\) out"):
        train(engine, method.compressed(Int8()), n_rounds=1)
