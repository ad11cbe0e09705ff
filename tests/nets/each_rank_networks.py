"""What holds in every rank of an engine over torch.distributed whose nodes train a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch.distributed as dist

from cut import CutError, cut_at
from engines.spread import RANK, assert_alike, one_folder, spread
from localgd import Checkpoints, InProcess, Method, NodeError, chain, mean, train
from localgd.nets import NetSteps
from localgd.rules.server import Momentum
from nets.federated import apart, network, nodes

PROBLEM = network("cnn with batch normalisation")


@pytest.fixture(scope="module", autouse=True)
def _group():
    dist.init_process_group("gloo")
    yield
    dist.barrier()
    dist.destroy_process_group()


def fedavg(merge=None, **settings):
    return Method("fedavg", NetSteps(**{"local_steps": 4, "lr": 0.05, "batch_size": 8, **settings}), merge or mean())


@pytest.mark.parametrize("at_once", [False, True, None])
def test_a_run_is_that_of_one_process_in_all_ranks(at_once):
    method = fedavg(chain(mean(), Momentum(0.5)), at_once=at_once)
    engine = spread(nodes())
    found = train(engine, method, problem=PROBLEM, n_rounds=4)
    assert_alike(engine, found.w)
    expected = train(
        InProcess(nodes()), fedavg(chain(mean(), Momentum(0.5)), at_once=False), problem=PROBLEM, n_rounds=4
    )
    assert apart(PROBLEM, found.w, expected.w) <= 1e-6
    assert [row.n_nodes for row in found.history] == [5] * 5
    np.testing.assert_allclose([row.loss for row in found.history], [row.loss for row in expected.history], rtol=1e-5)


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    engine = spread(nodes())
    kept = Checkpoints(one_folder(engine, tmp_path) / "run", every_rounds=1)
    settings = {"problem": PROBLEM, "n_rounds": 4}
    with pytest.raises(CutError):
        train(engine, fedavg(at_once=False), checkpoints=kept, on_round=cut_at(2), **settings)
    found = train(spread(nodes()), fedavg(at_once=False), checkpoints=kept, **settings)
    assert np.array_equal(found.w, train(spread(nodes()), fedavg(at_once=False), **settings).w)


def test_a_rank_whose_node_fails_is_named_in_all():
    held = nodes()
    held[RANK].data.tensors[1].fill_(99)  # no such class
    with pytest.raises(NodeError, match="round 0, node 'node-0'"):
        train(spread(held), fedavg(at_once=False), problem=PROBLEM, n_rounds=1)
