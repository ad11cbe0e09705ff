"""What a program is told that asks for what means nothing: in words, before a rank waits for another."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from localgd.nets import LocalSGD
from localgd.nets.beside import check_asked, check_copied
from localgd.nets.checkpoint import check_plain
from localgd.nets.settings import check_optimizer
from localgd.nets.steps import examples_in
from localgd.nets.twin import mean_loss


def sgd():
    return torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)


def plain_loss(model, batch):
    return model(batch).square().mean()


def schedule():
    return torch.optim.lr_scheduler.StepLR(sgd(), 1)


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another one, as those of libraries are: it has no hooks."""

    def __init__(self, inner):
        self.inner = inner

    def step(self, closure=None):
        self.inner.step(closure)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "must be one torch.optim.Optimizer, got None"),
        (lambda: [sgd(), sgd()], "got a list: give one, of all parameters, in groups"),
        (schedule, "got a StepLR, which holds one: give its .optimizer"),
        (lambda: torch.optim.SGD, "got the class SGD: make one, of the model's parameters"),
        (lambda: 0.1, "got a float"),
    ],
)
def test_what_is_no_optimizer_is_refused(make, words):
    with pytest.raises(TypeError, match=words):
        LocalSGD(nn.Linear(2, 2), make())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": "5"}, "timeout must be a positive number, got '5'"),
        ({"timeout": 0}, "timeout must be a positive number, got 0"),
        ({"callback": 3}, "callback must be a function of a Sync, got 3"),
        ({"buffers": ["ema"]}, "buffers must be a mapping"),
        ({"compress": ["int8"]}, r"compress must be None, 'bf16', 'int8' or 'int4', got \['int8'\]"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, words):
    model = nn.Linear(2, 2)
    with pytest.raises((TypeError, ValueError), match=words):
        LocalSGD(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": functional.cross_entropy}, "got cross_entropy, which takes what a model says and targets"),
        ({"loss": nn.CrossEntropyLoss()}, "got CrossEntropyLoss, which takes what a model says and targets"),
        (
            {"loss": lambda model, x, y: model(x) - y},
            r"<lambda>\(model, x, y\) does not take two \(missing a required arg.* 'y'",
        ),
        ({"loss": lambda batch: batch}, r"does not take two \(too many positional arguments\)"),
        ({"other": []}, "other holds no batch; give a loader that has some"),
        ({"other": "batches"}, "other must be an iterable of batches, and a str is none"),
        ({"other": torch.ones(3)}, "and a Tensor is none"),
    ],
)
def test_what_a_meter_cannot_use_is_refused(options, words):
    asked = {"loss": plain_loss, "compare_every": None, "shadow": True, "probe": 1, "other": [1]}
    check_asked(**asked)
    with pytest.raises((TypeError, ValueError), match=words):
        check_asked(**(asked | options))


def test_a_loss_of_which_nothing_is_known_is_taken():
    check_asked(min, 1, shadow=False, probe=None, other=None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.optim.LBFGS([torch.zeros(2)]), "the step of LBFGS needs a closure"),
        (
            lambda: Wrapper(sgd()),
            "Wrapper, which has no hooks, does not tell of them; give the optimizer that it wraps",
        ),
    ],
)
def test_an_optimizer_that_a_copy_cannot_stand_for_is_refused_where_there_is_one(make, words):
    check_copied(sgd())
    check_optimizer(make())
    with pytest.raises(ValueError, match=words):
        check_copied(make())
    with pytest.raises(ValueError, match=words):
        LocalSGD(nn.Linear(2, 2), make(), compare_every=2, loss=plain_loss)


LOSSES = {
    "a number": (lambda model, batch: plain_loss(model, batch).item(), r"got \d"),
    "a vector": (lambda model, batch: model(batch).sum(1), r"got a tensor of shape \(3,\)"),
    "no gradient": (lambda model, batch: model(batch).sum().detach(), r"with a gradient; got tensor\("),
    "nothing": (lambda model, batch: plain_loss(model, batch).backward(), "got None"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_mean_loss_is_refused(name):
    loss, words = LOSSES[name]
    model, batch = nn.Linear(2, 2), torch.ones(3, 2)
    mean_loss(plain_loss, model, batch).backward()
    with pytest.raises(TypeError, match=rf"loss\(model, batch\) must return the mean loss, .*{words}"):
        mean_loss(loss, model, batch)


def test_a_loss_that_fails_is_known_as_the_loss():
    with pytest.raises(TypeError, match=r"this came of loss\(model, batch\), which compare_every and shadow call"):
        mean_loss(functional.cross_entropy, nn.Linear(2, 2), torch.ones(3, 2))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.tensor(0.5), r"got Tensor of one number, as a loss is: give it the batch, step\(\(x, y\)\)"),
        (0.5, r"got 0\.5"),
        (-3, "got -3"),
        (True, "got True"),
    ],
)
def test_what_is_no_batch_is_shown(batch, words):
    with pytest.raises(ValueError, match=words):
        examples_in(batch)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (schedule, r"give the state_dict\(\) of extra_state, a StepLR$"),
        (
            lambda: {"epoch": 3, "lr": [1, schedule()]},
            r"give the state_dict\(\) of extra_state\['lr'\]\[1\], a StepLR$",
        ),
        (lambda: {"f": len}, r"leave out extra_state\['f'\], a builtin_function_or_method$"),
        (lambda: {object(): 3}, "leave out a key of extra_state, a object$"),
        (lambda: (1, {2: 3, 4: LocalSGD}), r"leave out extra_state\[1\]\[4\], a type$"),
    ],
)
def test_what_could_not_be_read_again_is_named_by_its_place(state, words):
    with pytest.raises(TypeError, match=words) as caught:
        check_plain(state())
    assert str(caught.value).isprintable()
    assert "\\" not in str(caught.value)
