"""What a head has no certificate of, or is no place for another one, is refused in words, and left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from localgd import Angle
from localgd.nets import certify_head, refit_head


class Odd(nn.Module):
    """A network with something wrong about it."""

    def __init__(self, how="", n_outputs=2):
        super().__init__()
        self.how = how
        self.body, self.drop, self.fc, self.spare = (
            nn.Linear(2, 3),
            nn.Dropout(),
            nn.Linear(3, n_outputs),
            nn.Linear(2, 2),
        )

    def train(self, mode=True):
        super().train(mode)
        if self.how == "stays":
            self.drop.train()
        return self

    def forward(self, x):
        x = self.body(x)
        if self.how == "draws":
            x = nn.functional.dropout(x)
        out = self.fc(x)
        return self.fc(x) + out if self.how == "twice" else out


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), self.weight)


def weighed(number):
    model = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(model[0].weight, number)
    return model


X, Y = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), torch.tensor([0, 1, 1])

REFUSED = {
    "no module": (3, "fc", [[(X, Y)]], {}, "model must be a torch.nn.Module, got int"),
    "no layer": (
        Odd(),
        "head",
        [[(X, Y)]],
        {},
        "layer 'head' is no part of the model, and must be an nn.Linear of the model",
    ),
    "no linear": (Odd(), "drop", [[(X, Y)]], {}, "layer 'drop' is a Dropout, and must be an nn.Linear of the model"),
    "more than linear": (nn.Sequential(Cosine(2, 2)), "0", [[(X, Y)]], {}, "is a Cosine, which does more than"),
    "lazy": (nn.Sequential(nn.LazyLinear(2)), "0", [[(X, Y)]], {}, "the weight of '0' has no numbers yet"),
    "meta": (nn.Sequential(nn.Linear(2, 2, device="meta")), "0", [[(X, Y)]], {}, "has no numbers yet"),
    "diverged": (weighed(np.nan), "0", [[(X, Y)]], {}, "the model has NaN or infinite entries"),
    "never": (Odd(), "spare", [[(X, Y)]], {}, "node 'node.0', batch 0: the model calls 'spare' never, and must"),
    "twice": (Odd("twice"), "fc", [[(X, Y)]], {}, "the model calls 'fc' 2 times, and must call it once a batch"),
    "not finite": (Odd(), "fc", [[(X * np.nan, Y)]], {}, "the features before 'fc' are not finite"),
    "not finite later": (Odd(), "fc", {"a": [(X, Y), (X * np.inf, Y)]}, {}, "node 'a', batch 1: the features"),
    "labels": (Odd(), "fc", {"a": [(X, Y + 1)]}, {}, "node 'a': its labels are not all whole numbers from 0 to 1"),
    "signs": (Odd(), "fc", [[(X, 2 * Y - 1)]], {}, "its labels are not all whole numbers from 0 to 1"),
    "one-hot": (Odd(), "fc", [[(X, torch.eye(3)[:, :2])]], {}, r"y has the shape \(3, 2\), and the features \(3, 3\)"),
    "stays": (Odd("stays"), "fc", [[(X, Y)]], {}, r"drop stays in training mode after model.eval\(\)"),
    "draws": (Odd("draws"), "fc", [[(X, Y)]], {}, "are others when they are computed again"),
    "no pair": (Odd(), "fc", [[{"x": X}]], {}, "node 'node.0', batch 0 is a dict, not \\(x, y\\): give inputs="),
    "a tensor": (Odd(), "fc", [X], {}, "node 'node.0' holds a Tensor, no loader"),
    "batches": (Odd(), "fc", [(X, Y)], {}, r"batch 0 is a Tensor, not \(x, y\)"),
    "no batch": (Odd(), "fc", {"a": []}, {}, "node 'a' has no batch"),
    "no node": (Odd(), "fc", {}, {}, "shards is empty"),
    "both": (Odd(), "fc", [[(X, Y)]], {"C": 1.0, "alpha": 1.0}, "give one of them"),
    "a goal": (Odd(), "fc", [[(X, Y)]], {"C": 1.0, "goal": Angle(1.0)}, "has no meaning here"),
    "C": (Odd(), "fc", [[(X, Y)]], {"C": -1.0}, "C must be a positive number"),
    "outputs": (Odd(), "fc", [[(X, Y)]], {"alpha": 1.0}, "layer 'fc' has 2 outputs, and alpha fits one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_certificate_is_refused_in_words(name):
    model, layer, data, options, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=words):
        certify_head(model, layer, data, **options)
    if isinstance(model, nn.Module):
        assert model.training
        assert not any(module._forward_pre_hooks for module in model.modules() if not isinstance(module, nn.LazyLinear))


def tied():
    model = Odd()
    model.spare = nn.Linear(3, 2)
    model.spare.weight = model.fc.weight
    return model


UNFIT = {
    "tied": (tied(), [[(X, Y)]], "spare.weight and the numbers of 'fc' are one tensor"),
    "made": (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), [[(X, Y)]], "is made of other numbers"),
    "dtype": (nn.Linear(2, 2).half(), [[(X.half() * 1e-6, Y)]], "are outside the range of torch.float16"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_layer_that_cannot_be_replaced_stays_as_it_was(name):
    model, data, words = UNFIT[name]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        refit_head(model, "fc" if isinstance(model, Odd) else "", data)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
