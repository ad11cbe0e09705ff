"""Flower: a run that was cut short goes on, if the nodes can be known again."""

from __future__ import annotations

import numpy as np
import pytest

from common import random_rows, stacked
from cut import CutError, cut_at
from engines.flower_grid import grid_of
from localgd import (
    InProcess,
    Int8,
    Message,
    NodeError,
    Shard,
    consensus,
    interior_point,
    local_gd,
    modified_local_gd,
    train,
)
from localgd.flower import FlowerEngine
from localgd.problems.metrics import Evaluate
from localgd.reference.max_margin import max_margin
from localgd.run.checkpoint import Checkpoints


@pytest.mark.parametrize(
    "method",
    [
        local_gd(local_steps=10),
        local_gd(local_steps=10).compressed(Int8()),
        modified_local_gd(),
        consensus(),
        interior_point(),
    ],
    ids=lambda method: f"{method.name}, {type(method.task).__name__}",
)
def test_a_new_run_goes_on_from_the_checkpoint(method, tmp_path):
    shards = random_rows(4)
    answer_ = max_margin(stacked(shards))
    grid = grid_of(shards)
    checkpoints = Checkpoints(tmp_path, every_rounds=1)
    with pytest.raises(CutError):
        train(FlowerEngine(grid), method, n_rounds=200, checkpoints=checkpoints, on_round=cut_at(9))
    grid.new_run()
    rounds = []
    run = train(
        FlowerEngine(grid),
        method,
        n_rounds=200,
        checkpoints=checkpoints,
        reference=answer_.direction,
        on_round=lambda info: rounds.append(info.row.round),
    )
    assert rounds[0] in (9, 10)
    assert run.history[-1].true_angle_deg <= run.history[-1].angle_deg_max
    assert answer_.margin_low <= run.certificate.margin_high
    if method == local_gd(local_steps=10):
        np.testing.assert_array_equal(run.w, train(InProcess(shards), method, n_rounds=200).w)
    if method.name in ("consensus", "interior-point"):
        assert run.certificate.angle_deg_max < 0.01


def test_rows_that_changed_since_the_checkpoint_are_noticed(tmp_path):
    shards = random_rows(4)
    checkpoints = Checkpoints(tmp_path, every_rounds=1)
    with pytest.raises(CutError):
        train(FlowerEngine(grid_of(shards)), local_gd(), n_rounds=60, checkpoints=checkpoints, on_round=cut_at(5))
    changed = [*shards[:2], Shard(shards[2].node_id, shards[2].rows * (1 + 1e-15)), shards[3]]
    with pytest.raises(NodeError, match=r"node-2.*rows are not those of the checkpoint"):
        train(FlowerEngine(grid_of(changed)), local_gd(), n_rounds=60, checkpoints=checkpoints)


def test_without_a_secret_a_node_cannot_go_on(tmp_path):
    shards = random_rows(4)
    checkpoints = Checkpoints(tmp_path, every_rounds=1)
    grid = grid_of(shards)
    del grid.configs[1]["secret"]
    grid.new_run()
    with pytest.raises(CutError):
        train(FlowerEngine(grid), local_gd(), n_rounds=60, checkpoints=checkpoints, on_round=cut_at(5))
    grid.new_run()
    with pytest.raises(NodeError, match=r"node-1.*give it a secret in its node-config"):
        train(FlowerEngine(grid), local_gd(), n_rounds=60, checkpoints=checkpoints)


def test_the_digest_is_nothing_without_the_secret(tmp_path):
    shards = random_rows(4)
    seen = []
    for secret in ("a secret of one node", "a secret of another"):
        grid = grid_of(shards)
        for config in grid.configs:
            config["secret"] = secret
        grid.new_run()
        engine = FlowerEngine(grid)
        engine.round(Evaluate(), Message(0, np.ones(5)))
        engine.keep(Evaluate(), tmp_path, 0)
        seen.append(engine._rows[""])
    assert not set(seen[0].values()) & set(seen[1].values())
    grid.configs[0]["secret"] = "short"  # noqa: S105
    grid.new_run()
    with pytest.raises(RuntimeError, match="secret must be a text of at least 16"):
        FlowerEngine(grid)
