"""What a network is made of: every part has a rule, or is refused by name."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD, average, qsr, slowmo, until_drift
from localgd.nets.buffers import Buffers
from localgd.nets.codes import CodedSum, coded, read
from localgd.nets.optimizer_state import KEYS, OptimizerState
from localgd.nets.steps import examples_in
from localgd.nets.survey import parts_of
from nets.models import MODELS, made


class Odd(nn.Module):
    """A module with one parameter or buffer of its own."""

    def __init__(self, **tensors):
        super().__init__()
        self.head = nn.Linear(2, 2)
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))


REFUSED = {
    "no module": (lambda: 3, "model must be a torch.nn.Module, got int"),
    "sync": (lambda: nn.Sequential(nn.SyncBatchNorm(2)), "0 is a SyncBatchNorm, which waits for all ranks"),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(3, 2, sparse=True)),
        "0 makes sparse gradients; give it sparse=False",
    ),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "parameter 0.weight has no shape yet; run the model once"),
    "complex": (lambda: Odd(turn=torch.ones(2, dtype=torch.complex64)), "parameter turn is torch.complex64; only real"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), "on the meta device, without numbers"),
    "frozen": (lambda: nn.Linear(2, 2).requires_grad_(False), "no parameter that requires a gradient"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name):
    make, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=words):
        parts_of(make(), {})


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_a_state_has_one_rule(name):
    model = made(name)
    parts = parts_of(model, {})
    ruled = {id(tensor) for _, tensor, _, _ in parts.trained} | {id(tensor) for tensor in parts.others.values()}
    for layer in parts.layers.values():
        ruled |= {id(tensor) for tensor in layer.buffers(recurse=False)}
    assert ruled == {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}


def test_instance_statistics_take_a_rule_that_is_given():
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.InstanceNorm1d(2, track_running_stats=True))
    rules = {"1.running_*": "mean"}
    assert Buffers(parts_of(model, rules).others, rules).size == 4


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"no": "mean"}, "buffers names no, and the model has scale"),
        ({"scale": "sum"}, "must be 'mean', 'max' or 'equal'"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rules, words):
    with pytest.raises(ValueError, match=words):
        Buffers({"scale": torch.ones(2)}, rules)


def stepped(model, kind, **options):
    optimizer = kind(model.parameters(), **options)
    for _ in range(3):
        model(torch.ones(4, 2)).square().sum().backward()
        optimizer.step()
    return optimizer


OPTIONS = ({}, {"momentum": 0.9}, {"amsgrad": True}, {"centered": True})


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, each) for kind in KEYS for each in OPTIONS if each.keys() <= inspect.signature(kind).parameters.keys()],
)
def test_the_layout_of_an_optimizer_holds_all_that_it_keeps(kind, options):
    model = nn.Linear(2, 2)
    fresh = kind(model.parameters(), **options)
    before = OptimizerState(fresh, parts_of(model, {}).trained, "average")
    after = OptimizerState(stepped(model, kind, **options), parts_of(model, {}).trained, "average")
    assert before.size == after.size
    kept = {key for state in after.optimizer.state.values() for key, value in state.items() if value is not None}
    assert kept - {"step"} == {key for _, _, key in after._slots}


@pytest.mark.parametrize("kind", KEYS, ids=lambda kind: kind.__name__)
def test_a_mean_over_one_rank_changes_nothing_and_makes_what_another_lacks(kind):
    model = nn.Linear(2, 2)
    optimizer = stepped(model, kind)
    state = OptimizerState(optimizer, parts_of(model, {}).trained, "average")
    numbers = torch.zeros(state.size)
    state.pack(numbers, 1.0)
    other = kind(model.parameters())
    for one in (state, OptimizerState(other, parts_of(model, {}).trained, "average")):
        one.apply(numbers.clone(), 1.0)
        for parameter, held in optimizer.state.items():
            for key, value in held.items():
                if value is not None:
                    torch.testing.assert_close(one.optimizer.state[parameter][key], value)


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        ("average", torch.optim.Rprop, "not Rprop; use 'keep'"),
        ("mean", torch.optim.SGD, "must be 'average', 'keep' or"),
    ],
)
def test_optimizers_that_cannot_be_averaged_are_refused(rule, kind, words):
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=words):
        OptimizerState(kind(model.parameters(), lr=0.1), parts_of(model, {}).trained, rule)


def test_parameters_outside_the_model_are_refused():
    model, other = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
    with pytest.raises(ValueError, match="trains 2 parameters that are not of the model"):
        OptimizerState(optimizer, parts_of(model, {}).trained, "average")


@pytest.mark.parametrize("batch", [None, "text", {}, [3.5]])
def test_what_is_no_batch_is_refused(batch):
    with pytest.raises(ValueError, match=r"step\(\) takes a number of examples, or tensors"):
        examples_in(batch)


@pytest.mark.parametrize(
    "make",
    [
        lambda: slowmo(momentum=1.0),
        lambda: slowmo(lr=0.0),
        lambda: qsr(0, 0.1),
        lambda: until_drift(0.0),
        lambda: until_drift(1.0, least=4, most=2),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sync_every": 0}, "sync_every must be a whole number of at least 1"),
        ({"sync_every": "often"}, "sync_every must be a number of steps, or a rule"),
        ({"outer": "mean"}, "outer must be average"),
        ({"weights": "rows"}, "weights must be 'batch'"),
        ({"on_failure": "go"}, "on_failure must be"),
        ({"warmup": -1}, "warmup must be"),
        ({"overlap": "yes"}, "overlap must be True or False"),
        ({"overlap": True, "compare_every": 2}, "overlap=True goes without compare_every and shadow"),
        ({"overlap": True, "compress": "int8"}, "overlap=True goes with compress=None, got 'int8'"),
        ({"outer": average()}, "there is no process group"),
    ],
)
def test_a_program_that_is_set_up_wrong_is_told_what_to_mend(options, words):
    model = nn.Linear(2, 2)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=words):
        LocalSGD(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


@pytest.mark.parametrize(("code", "times"), [("bf16", 2.0), ("int8", 3.8), ("int4", 7.5)])
@pytest.mark.parametrize("world", [2, 4])
def test_codes_save_what_they_are_said_to(code, times, world):
    like = torch.empty(10**6)
    assert 2 * like.nbytes / CodedSum(code, SimpleNamespace(world=world), like).n_bytes >= times * 0.999


@pytest.mark.parametrize("code", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_codes_are_off_by_half_a_step_at_most(code, scale):
    numbers = scale * torch.randn(3 * 256, generator=torch.Generator().manual_seed(0))
    numbers[:256] = 0.0
    back = torch.zeros_like(numbers)
    read(code, coded(code, numbers), back)
    steps = {"bf16": 256, "int8": 127, "int4": 7}[code]
    largest = numbers.view(-1, 256).abs().amax(1, keepdim=True)
    assert ((back - numbers).view(-1, 256).abs() <= (0.5 / steps + 2**-8) * largest).all()
    assert not back[:256].any()
