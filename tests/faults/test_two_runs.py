"""Checkpoints whose parts are of two runs: each is whole, and together they prove nothing."""

from __future__ import annotations

import shutil

import pytest

from localgd import Checkpoints, InProcess, Shard, local_gd, train


def test_a_proof_beside_the_digests_of_other_rows_is_refused(tmp_path):
    wide, narrow = [[1.0, 0.1]], [[0.1, 0.2]]
    for name, rows in (("wide", wide), ("narrow", narrow)):
        checkpoints = Checkpoints(tmp_path / name, every_rounds=5)
        train(InProcess([Shard("a", rows)]), local_gd(local_steps=5), n_rounds=10, checkpoints=checkpoints)
    shutil.copy(tmp_path / "wide" / "server.npz", tmp_path / "narrow" / "server.npz")
    with pytest.raises(ValueError, match="are of two runs; start the run afresh"):
        train(
            InProcess([Shard("a", narrow)]),
            local_gd(local_steps=5),
            n_rounds=20,
            checkpoints=Checkpoints(tmp_path / "narrow"),
        )
