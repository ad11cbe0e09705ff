"""How a run over torch.distributed goes on from a checkpoint, in every rank; test_torch.py starts the ranks."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from common import METHODS, random_rows
from cut import CutError, cut_at
from engines.spread import RANK, WORLD, one_folder, spread
from localgd import NodeError, Shard, consensus, train
from localgd.run.checkpoint import Checkpoints


@pytest.mark.parametrize("name", ["consensus", "local-gd"])
def test_a_run_goes_on_from_its_checkpoint(name, tmp_path):
    shards = random_rows(5)
    checkpoints = Checkpoints(one_folder(spread(shards), tmp_path) / "held", every_rounds=3)
    expected = train(spread(shards), METHODS[name], n_rounds=20)
    with pytest.raises(CutError):
        train(spread(shards), METHODS[name], n_rounds=20, checkpoints=checkpoints, on_round=cut_at(7))
    spread(shards).agreed()
    assert len(list(checkpoints.folder.iterdir())) == 1 + min(WORLD, len(shards))
    run = train(spread(shards), METHODS[name], n_rounds=20, checkpoints=checkpoints)
    np.testing.assert_array_equal(run.w, expected.w)
    assert run.certificate.to_dict() == expected.certificate.to_dict()


def test_a_full_disk_in_one_rank_is_no_reason_to_end_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    shards = random_rows(5)
    engine = spread(shards)
    if RANK == WORLD - 1:
        monkeypatch.setattr(engine.nodes, "write", full)
    checkpoints = Checkpoints(one_folder(engine, tmp_path), every_rounds=2)
    with pytest.warns(RuntimeWarning, match=r"no checkpoint could be written \(.*No space left on device\)"):
        run = train(engine, METHODS["local-gd"], n_rounds=5, checkpoints=checkpoints)
    assert run.n_rounds == 5


def test_a_checkpoint_that_does_not_fit_ends_in_words_in_all_ranks(tmp_path):
    shards = random_rows(5)
    folder = one_folder(spread(shards), tmp_path)
    train(spread(shards), consensus(), n_rounds=5, checkpoints=Checkpoints(folder))
    with pytest.raises(ValueError, match="in another way"):
        train(spread(shards[::-1]), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
    shards[2] = Shard(shards[2].node_id, shards[2].rows * 2)
    with pytest.raises(NodeError, match=r"'node-2'.*rows are not those of the checkpoint"):
        train(spread(shards), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
    spread(shards).agreed()
    if RANK == 0:
        next(folder.glob("nodes-*-1-*")).unlink()
    with pytest.raises(ValueError, match="is not there"):
        train(spread(shards), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
