"""What ranks are told that wait for one that does not come: who it is, where it was, and what to do."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD, RankError
from localgd.testing import in_ranks

TIMEOUT = 2.0
"""Seconds; as many again go by until a rank that fails knows which others do."""


def told(do):
    """Return what each of two ranks is told that does this after a sync; the first lasts until the other is told."""

    def program():
        rank = torch.distributed.get_rank()
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        local = LocalSGD(model, optimizer, sync_every=1, timeout=TIMEOUT)

        def step():
            model(torch.ones(3, 2)).sum().backward()
            optimizer.step()
            local.step(3)

        step()
        end, words = time.monotonic() + 5 * TIMEOUT, ""
        try:
            do(rank, local, step)
        except RankError as error:
            words = str(error)
        time.sleep(max(0.0, end - time.monotonic()))  # a store goes with its keeper
        return words

    return in_ranks(program)


@pytest.mark.processes
def test_a_rank_that_is_late_is_named_and_what_lets_the_others_wait():
    def late(rank, _, step):
        time.sleep(rank * 1.5 * TIMEOUT)
        step()

    for words in told(late):
        assert words.startswith("sync 1: rank 1 came only after rank 0 had waited as long as timeout=2 lets; where a ")
        assert "as to evaluate, give LocalSGD a larger timeout (after" in words


@pytest.mark.processes
def test_a_rank_that_does_not_come_was_last_known_somewhere():
    def absent(rank, local, step):
        if rank == 0:
            step()
            local.finish()
        else:
            step()

    def past(rank, local, step):
        local.finish()
        if rank == 0:
            step()

    stepping = "in local steps, or step(); finish() lasts until every rank calls it"
    for do, where in ((absent, stepping), (past, "past finish()")):
        words, nothing = told(do)
        assert nothing == ""
        assert "rank 1 ended, or hangs, or is at work elsewhere, as in an evaluation; " in words
        assert f"rank 1 was last known {where}; where a rank may need longer" in words


@pytest.mark.processes
def test_ranks_in_unlike_calls_are_told_which(tmp_path):
    def unlike(rank, local, _):
        if rank == 0:
            local.finish()
        else:
            local.resume(tmp_path)

    words, others = told(unlike)
    assert words.startswith(
        "sync 1: rank 1 is in resume(), and this rank is in finish(): call these alike in all ranks"
    )
    assert others.startswith("resume(): rank 0 is in finish(), and this rank is in resume(): call these alike in all")
