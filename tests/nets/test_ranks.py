"""Networks over several ranks: what holds in every one of them."""

from __future__ import annotations

import pytest

from engines.ranks import in_ranks


def pytest_in_ranks(world, *words):
    ended = in_ranks(world, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words], seconds=500)
    assert [rank.code for rank in ended] == [0] * world, "\n".join(rank.output for rank in ended if rank.code)


@pytest.mark.processes
@pytest.mark.parametrize("world", [2, 4])
def test_every_rank_trains_the_same_network(world):
    pytest_in_ranks(world, "tests/nets/each_rank.py")
