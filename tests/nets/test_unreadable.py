"""Nodes whose examples cannot be read: skipped in every round that asks for them, or refused with the reason why."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from localgd import InProcess, NodeError, local_gd, local_sgd, train
from localgd.nets import Examples, Network, certify_head


class Lost(Dataset):
    """Examples that are gone once so many questions were asked."""

    def __init__(self, lengths=10**9, items=10**9):
        self.lengths, self.items = lengths, items

    def __len__(self):
        self.lengths -= 1
        if self.lengths < 0:
            raise OSError("the folder is gone")
        return 8

    def __getitem__(self, place):
        self.items -= 1
        if self.items < 0:
            raise OSError("the file is gone")
        return torch.randn(4, generator=torch.Generator().manual_seed(place)), place % 3


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


LOST = {"at once": {"items": 0}, "later": {"items": 30}, "its length, later": {"lengths": 1, "items": 0}}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("method", [local_gd(local_steps=2, lr=0.1), local_sgd(local_steps=2, lr=0.1, batch_size=4)])
def test_a_node_whose_examples_are_lost_is_skipped_and_named(name, method):
    shards = [Examples("a", Lost()), Examples("b", Lost(**LOST[name])), Examples("c", Lost())]
    engine = InProcess(shards, on_failure="skip")
    run = train(engine, method, problem=Network(lambda: nn.Linear(4, 3), loss), n_rounds=4)
    assert {failure.node_id for failure in engine.failures} == {"b"}
    assert engine.failures[0].error == "OSError: the file is gone"
    assert "rounds were without some nodes, as they failed" in run.certificate.reason


def test_a_length_that_cannot_be_known_is_refused_by_node():
    with pytest.raises(ValueError, match="node 'b': its data has no length that can be known: OSError: the folder is"):
        Examples("b", Lost(lengths=0))


class Loader:
    def __init__(self, node_id, *, gone):
        self.node_id, self.gone = node_id, gone

    def __iter__(self):
        if self.gone:
            raise OSError("the file is gone")
        yield torch.eye(4), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("on_failure", ["skip", "raise"])
def test_what_comes_before_the_rounds_needs_every_node_and_says_so(on_failure):
    engine = InProcess([Loader("a", gone=False), Loader("b", gone=True)], on_failure=on_failure)
    with pytest.raises(NodeError, match="node 'b': OSError: the file is gone") as caught:
        certify_head(nn.Linear(4, 2), "", engine)
    notes = getattr(caught.value, "__notes__", [])
    assert len(notes) == (on_failure == "skip")
    assert all("on_failure='skip' is about rounds, and cannot go on without 'b'; leave that" in note for note in notes)
