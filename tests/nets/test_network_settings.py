"""Every setting of local steps on a network counts, or is refused by name; so is every method."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from localgd import InProcess, Method, local_sgd, mean, train
from localgd.methods.table import METHODS, method_named
from localgd.nets import NetSteps
from nets.federated import apart, network, nodes

ALONE = {"at_once": False}


def fedavg(**settings):
    return Method("fedavg", NetSteps(**{"local_steps": 5, "lr": 0.05, "batch_size": 16, **settings}), mean())


OTHERS = {
    "local_steps": 7,
    "epochs": 2,
    "lr": 0.02,
    "batch_size": 8,
    "replacement": True,
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 0.1,
    "prox": 1.0,
    "weighted_by": {"node-0": 1.0, "node-1": 0.0, "node-2": 5.0},
    "seed": 1,
    "lr_schedule": "inverse-sqrt",
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_counts(name):
    assert {*OTHERS, "at_once", "network"} == {field.name for field in fields(NetSteps)}
    plain = {**ALONE, "momentum": 0.9} if name == "nesterov" else ALONE
    other = {**plain, name: OTHERS[name], **({"local_steps": None} if name == "epochs" else {})}
    problem = network()
    runs = [train(InProcess(nodes((40, 24, 16))), fedavg(**one), problem=problem, n_rounds=2) for one in (plain, other)]
    assert apart(problem, runs[0].w, runs[1].w) > 1e-4


def test_a_node_that_weighs_nothing_changes_nothing():
    held, problem = nodes((40, 24, 16)), network("cnn with batch normalisation")
    weights = {"node-0": 1.0, "node-1": 3.0, "node-2": 0.0}
    run = train(InProcess(held), fedavg(weighted_by=weights, **ALONE), problem=problem, n_rounds=3)
    del weights["node-2"]
    others = train(InProcess(held[:2]), fedavg(weighted_by=weights, **ALONE), problem=problem, n_rounds=3)
    assert np.array_equal(run.w, others.w)


WORKS = {"local-gd", "local-sgd", "fedexp", "fedprox", "slowmo"}
REFUSED = {
    "auto": "it chooses between methods for rows",
    "scaffold": "control variates need",
    "modified-local-gd": "an anchor at 0",
    "normalised-local-gd": "nothing to divide by",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_a_network_or_refuses_in_words(name):
    engine, settings = InProcess(nodes()), {"problem": network(), "n_rounds": 3}
    if name in WORKS:
        run = train(engine, method_named(name, lr=0.05, local_steps=3), **settings)
        assert run.n_rounds == 3
        assert run.history[-1].loss < run.history[0].loss
        assert type(run.method.task) is NetSteps
        return
    with pytest.raises(ValueError, match=f": .*{REFUSED.get(name, 'works on rows')}"):
        train(engine, method_named(name), **settings)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (local_sgd(), "lr='auto' is found from the curvature of linear models; give a number"),
        (local_sgd(lr=0.1, loss="exponential"), r"loss='exponential' is a matter of the problem here: Network"),
        (local_sgd(lr=0.1).late(), "the late direction is no model"),
        (local_sgd(lr=0.1, local_steps={"node-0": 3}), "node-1"),
    ],
)
def test_settings_without_a_meaning_are_refused_in_words(method, words):
    with pytest.raises(ValueError, match=words):
        train(InProcess(nodes()), method, problem=network(), n_rounds=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"local_steps": 3, "epochs": 2}, "give one of them"),
        ({"local_steps": None, "epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"lr": -1.0}, "lr must be a positive number"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"nesterov": True}, "no meaning without momentum"),
        ({"at_once": "yes"}, "at_once must be True or False"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        fedavg(**settings)
