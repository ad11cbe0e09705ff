"""The head of a network over several ranks, each with its own loader; test_ranks.py starts the ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from localgd import Angle, InProcess, TorchDistributed
from localgd.nets import certify_head, refit_head
from nets.each_rank import _group, assert_equal_over_ranks  # noqa: F401
from nets.models import batches, made

NAME = "cnn with batch normalisation"


def own(rank=None):
    """Return the loader of a rank: one more batch in each than in the one before."""
    rank = dist.get_rank() if rank is None else rank
    return DataLoader(batches(rank, 2 + rank), batch_size=None)


class Held:
    def __init__(self, node_id, loader):
        self.node_id, self.loader = node_id, loader

    def __iter__(self):
        return iter(self.loader)


def pooled():
    """Return all nodes in this process, in an engine of its own."""
    return InProcess([Held(f"rank {rank}", own(rank)) for rank in range(dist.get_world_size())])


@pytest.mark.parametrize("C", [None, 1.0])
def test_ranks_certify_what_one_process_does_with_all_loaders(C):
    model = made(NAME)
    found, here = certify_head(model, "head", own(), C=C), certify_head(model, "head", pooled(), C=C)
    assert found.verdict is here.verdict
    for name in ("margin", "margin_low", "margin_high", "objective", "gap", "distance"):
        assert getattr(found, name) == pytest.approx(getattr(here, name), rel=1e-9, nan_ok=True)


def test_ranks_put_the_same_head_in_place():
    model = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            dist.broadcast(parameter, 0)
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(dist.get_rank()))
    data = {f"site {dist.get_rank()}": [(x, torch.arange(8) % 3)]}
    run = refit_head(DistributedDataParallel(model), "2", data)
    assert run.certificate.angle_deg_max <= 0.1
    assert_equal_over_ranks(model)
    assert certify_head(model, "2", data, goal=Angle(0.1)).angle_deg_max <= 0.1


def test_ranks_with_other_numbers_are_refused_by_name_in_all_of_them():
    model = made(NAME)
    if dist.get_rank() == 1:
        model.norm.running_mean += 1.0
    with pytest.raises(ValueError, match=r"ranks hold other numbers in norm.running_mean, so their features"):
        certify_head(model, "head", own())


class Scaled(nn.Module):
    """A network whose features depend on attributes that no state_dict has."""

    def __init__(self, temperature=1.0, bend=torch.tanh, **own):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(40, 8), nn.Linear(8, 3)
        self.temperature, self.bend = temperature, bend
        self.own = own

    def forward(self, x, mask=None):
        if self.own.get("picky") and len(x) < 16:
            raise ValueError("16 or none")
        features = self.bend(self.body(x) / self.temperature)
        return self.head(features if mask is None else features * mask[:, None])


UNLIKE = {
    "temperature": (lambda rank: Scaled(temperature=1.0 + rank), "look at temperature, unlike over the ranks; give"),
    "function": (lambda rank: Scaled(bend=torch.relu if rank else torch.tanh), "look at what else their modules hold"),
}


@pytest.mark.parametrize("name", UNLIKE)
@pytest.mark.parametrize("form", ["tensor", "dict"])
def test_ranks_whose_features_depend_on_unlike_attributes_are_refused_in_all_of_them(name, form):
    make, words = UNLIKE[name]
    data = [(x if form == "tensor" else {"x": x, "mask": torch.ones(len(x), dtype=torch.int64)}, y) for x, y in own()]
    with pytest.raises(ValueError, match=f"other features of the same inputs, though .* same numbers: {words}"):
        certify_head(make(dist.get_rank()).double(), "head", {f"site {dist.get_rank()}": data})


@pytest.mark.parametrize("unlike", [{"place": "north"}, {"picky": True}])
def test_attributes_without_a_part_in_features_may_differ_and_inputs_that_cannot_be_made_up_are_left(unlike):
    rank = dist.get_rank()
    own_attributes = {key: value if key == "picky" else f"{value} {rank}" for key, value in unlike.items()}
    model = Scaled(**own_attributes).double()
    assert certify_head(model, "head", own()) == certify_head(Scaled().double(), "head", own())


def test_what_is_wrong_in_one_rank_ends_all_of_them():
    data = [(x, y + 7 * dist.get_rank()) for x, y in own()]
    words = "node 'site 1': its labels are not all whole numbers from 0 to 2"
    with pytest.raises((ValueError, RuntimeError), match=words):
        certify_head(made(NAME), "head", {f"site {dist.get_rank()}": data})


def test_an_engine_of_the_ranks_with_a_time_limit_of_its_own():
    engine = TorchDistributed([Held(f"rank {dist.get_rank()}", own())], timeout=20.0)
    assert certify_head(made(NAME), "head", engine) == certify_head(made(NAME), "head", own())
