"""What runs beside a run, in every rank: comparisons with synchronous steps, and a synchronous run as its shadow."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from localgd.nets import LocalSGD, RankError, diloco
from nets.each_rank import (  # noqa: F401
    MODELS,
    OPTIMIZERS,
    _group,
    apart,
    assert_equal_over_ranks,
    batches,
    flat,
    made,
    trained,
)

DROPS = "group normalisation and dropout"
NORM = "cnn with batch normalisation"
PROBE = batches(99, 1, size=60)[0]


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def wrapped(model, optimizer, every=1, **options):
    torch.manual_seed(dist.get_rank())  # as `trained` begins: what is drawn is that which was drawn at the step before
    return LocalSGD(model, optimizer, sync_every=every, loss=loss, **options)


def by_hand(start, spans, lr, n_steps):
    """Take synchronous steps from a model, gradients summed over ranks and divided by all of them."""
    model = copy.deepcopy(start)
    for t in range(n_steps):
        model.zero_grad()
        for span in spans:
            if t < len(span):
                (loss(model, span[t]) / len(spans)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=lr)
    return model


@pytest.mark.parametrize("how", ["sgd", "nesterov"])
@pytest.mark.parametrize("name", MODELS)
def test_one_local_step_is_the_synchronous_one(name, how):
    model = made(name)
    optimizer = OPTIMIZERS[how](model.parameters())
    with wrapped(model, optimizer, compare_every=1) as local:
        trained(model, optimizer, batches(dist.get_rank(), 8), local.step)
    assert len(local.history) == 8
    for sync in local.history:
        assert abs(sync.against_synchronous.cosine - 1) <= 1e-12
        assert abs(sync.against_synchronous.ratio - 1) <= 1e-12


def test_one_local_step_of_adam_is_not():
    model = made("mlp")
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with wrapped(model, optimizer, compare_every=3) as local:
        trained(model, optimizer, batches(dist.get_rank(), 9), local.step)
    assert [sync.against_synchronous is not None for sync in local.history] == [False, False, True] * 3
    found = [sync.against_synchronous for sync in local.history[2::3]]
    assert all(abs(each.cosine - 1) + abs(each.ratio - 1) > 1e-3 for each in found), found


@pytest.mark.parametrize("lengths", [[5, 5, 5, 5], [5, 2, 0, 3]])
def test_it_is_what_synchronous_steps_by_hand_would_have_done(lengths):
    rank, world = dist.get_rank(), dist.get_world_size()
    start = made("mlp")
    model = copy.deepcopy(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    spans = [batches(m, lengths[m]) for m in range(world)]
    with wrapped(model, optimizer, every=5, compare_every=1, outer=diloco()) as local:
        trained(model, optimizer, spans[rank], local.step)
        local.finish()
        found = local.history[0]
    means = []
    for span in spans:
        alone = copy.deepcopy(start)
        trained(alone, torch.optim.SGD(alone.parameters(), lr=0.3), span)
        means.append(flat(alone.parameters()) - flat(start.parameters()))
    mean = sum(means) / world
    synchronous = flat(by_hand(start, spans, 0.3, 5).parameters()) - flat(start.parameters())
    cosine = float(mean @ synchronous / mean.norm() / synchronous.norm())
    assert found.against_synchronous.cosine == pytest.approx(cosine, abs=1e-12)
    assert found.against_synchronous.ratio == pytest.approx(float(mean.norm() / synchronous.norm()), rel=1e-11)
    assert cosine < 1 - 1e-6


@pytest.mark.parametrize(("name", "code"), [(DROPS, None), (NORM, "int4")])
def test_what_runs_beside_changes_no_bit_of_the_run(name, code):
    ends = []
    for options in ({}, {"loss": loss, "compare_every": 2, "shadow": True, "probe": PROBE}):
        model = made(name)
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        with LocalSGD(model, optimizer, sync_every=3, compress=code, **options) as local:
            trained(model, optimizer, batches(dist.get_rank(), 14 + dist.get_rank()), local.step)
            local.finish()
        ends.append((model.state_dict(), buffers(optimizer), torch.get_rng_state(), model.training))
        assert all(parameter.grad is not None for parameter in model.parameters())
    (state, momenta, draws, training), (again, others, as_drawn, as_training) = ends
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert all(torch.equal(*pair) for pair in zip(momenta, others, strict=True))
    assert torch.equal(draws, as_drawn)
    assert training == as_training


def buffers(optimizer):
    return [state["momentum_buffer"] for state in optimizer.state.values()]


@pytest.mark.parametrize(("how", "within"), [("nesterov", 1e-12), ("adam", 1e-9)])
@pytest.mark.parametrize("name", MODELS)
def test_the_shadow_is_ddp(name, how, within):
    """Whatever the run does, and with a step size of its own in each step.

    Adam divides by gradients some of which are rounding and nothing else: those of a bias before a normalisation.
    """
    rank = dist.get_rank()
    model, theirs = made(name), made(name)
    optimizer, other = OPTIMIZERS[how](model.parameters()), OPTIMIZERS[how](theirs.parameters())
    rates = [0.01 / (1 + k) for k in range(13)]
    ddp = DistributedDataParallel(theirs)
    with wrapped(model, optimizer, every=5, shadow=True, probe=PROBE) as local:
        for x, after in ((model, local.step), (ddp, lambda _: None)):
            torch.manual_seed(rank)  # dropout drawn alike
            for rate, batch in zip(rates, batches(rank, 13), strict=True):
                its = optimizer if x is model else other
                its.param_groups[0]["lr"] = rate
                its.zero_grad()
                loss(x, batch).backward()
                its.step()
                its.param_groups[0]["lr"] = 1e3  # of a schedule that steps before the step is counted
                after(batch)
        local.finish()
        shadow = local._beside.shadow.same.model
        assert_equal_over_ranks(shadow)
        assert apart(shadow.parameters(), theirs.parameters()) <= within


def test_statistics_of_the_shadow_are_those_of_the_run_at_one_local_step():
    model = made(NORM)
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with wrapped(model, optimizer, shadow=True, probe=PROBE) as local:
        trained(model, optimizer, batches(dist.get_rank(), 10), local.step)
        local.finish()
        shadow = local._beside.shadow.same.model
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, shadow.state_dict()[name], rtol=1e-12, atol=1e-12)
        assert [sync.distance.run.disagreement for sync in local.history] == [0.0] * 10
        assert local.history[-1].distance.yardstick.parameters > 1e-3
        assert len(shadow.norm._forward_pre_hooks) == 1


def test_the_yardstick_trains_on_the_batches_given_again_and_again():
    rank, world = dist.get_rank(), dist.get_world_size()
    model = made("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other = batches(50 + rank, 2)
    with wrapped(model, optimizer, every=4, shadow=True, probe=PROBE, other=other) as local:
        trained(model, optimizer, batches(rank, 8), local.step)
        wanted = by_hand(made("mlp"), [batches(50 + m, 2) * 4 for m in range(world)], 0.1, 8)
        yardstick = local._beside.shadow.others.model
        assert apart(yardstick.parameters(), wanted.parameters()) <= 1e-13


@pytest.mark.parametrize("own", [False, True])
def test_a_distance_is_what_one_would_compute_of_the_three_models(own):
    rank, world = dist.get_rank(), dist.get_world_size()
    x, y = PROBE
    probe = (x[rank::world], y[rank::world]) if own else PROBE
    model = made("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with wrapped(model, optimizer, every=5, shadow=True, probe=probe) as local:
        trained(model, optimizer, batches(rank, 20), local.step)
        found, last = local.distance(), local.history[-1].distance
    same, others = local._beside.shadow.same.model, local._beside.shadow.others.model
    assert found.n_probes == len(x)
    assert f"{found}" == f"{last}"
    for one, other, told in ((model, same, found.run), (others, same, found.yardstick)):
        a, b = (parameters_to_vector(each.parameters()).detach() for each in (one, other))
        assert told.parameters == pytest.approx(float((a - b).norm()))
        assert told.disagreement == pytest.approx(float((one(x).argmax(1) != other(x).argmax(1)).double().mean()))
        u, v = one[2].weight.detach().reshape(-1), other[2].weight.detach().reshape(-1)
        angle = math.degrees(math.acos(float(u @ v / u.norm() / v.norm())))
        assert told.head_deg == pytest.approx(angle, abs=1e-5)
        line = copy.deepcopy(one)
        losses = []
        for k in range(11):
            torch.nn.utils.vector_to_parameters(a + k / 10 * (b - a), line.parameters())
            losses.append(float(loss(line, PROBE).detach()))
        assert told.barrier == pytest.approx(max(losses) - max(losses[0], losses[-1]), abs=1e-12)
    for one, told in ((model, found.gradients[0]), (same, found.gradients[1])):
        one.zero_grad()
        loss(one, PROBE).backward()
        assert told == pytest.approx(float(parameters_to_vector(p.grad for p in one.parameters()).norm()))


def test_a_probe_without_labels_is_asked_for_predictions_only():
    model = made("mlp")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with wrapped(model, optimizer, every=2, shadow=True, probe=None if dist.get_rank() else PROBE[0]) as local:
        trained(model, optimizer, batches(dist.get_rank(), 2), local.step)
        found = local.distance()
        assert found.n_probes == 60
        assert math.isnan(found.run.barrier)
        assert math.isnan(found.gradients[0])
        trained(model, optimizer, batches(dist.get_rank(), 1), local.step)
        with pytest.raises(RuntimeError, match="1 local steps came since the last sync"):
            local.distance()


def test_a_checkpoint_goes_on_with_the_same_shadow(tmp_path):
    folder, data, found = tmp_path, batches(dist.get_rank(), 12), []
    for cut in (12, 6):
        model = made(NORM)
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        other = batches(50 + dist.get_rank(), 6)  # where it begins again the run was cut
        local = wrapped(model, optimizer, every=3, shadow=True, probe=PROBE, other=other)
        trained(model, optimizer, data[:cut], local.step)
        if cut < 12:
            local.save(folder)
            model = made(NORM, seed=5)
            optimizer = OPTIMIZERS["momentum"](model.parameters())
            local = wrapped(model, optimizer, every=3, shadow=True, probe=PROBE, other=other)
            assert local.resume(folder) == (2, None)
            trained(model, optimizer, data[cut:], local.step)
        found.append(local.distance())
    assert found[0] == found[1]


@pytest.mark.parametrize("batch", [None, 16])
def test_a_step_without_its_batch_is_refused_where_it_is_needed(batch):
    model = made("mlp")
    local = wrapped(model, OPTIMIZERS["sgd"](model.parameters()), compare_every=1)
    with pytest.raises(ValueError, match=r"train on the same batches: local.step\(\(x, y\)\), got"):
        local.step(batch)


def test_a_checkpoint_of_a_run_without_a_shadow_has_none(tmp_path):
    model = made("mlp")
    local = LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), sync_every=1)
    local.step()
    local.save(tmp_path)
    shadowed = wrapped(model, OPTIMIZERS["sgd"](model.parameters()), shadow=True, probe=PROBE)
    with pytest.raises(ValueError, match="the checkpoint is of a run without a shadow; go on without"):
        shadowed.resume(tmp_path)


def test_a_shadow_in_some_ranks_only_is_another_setting():
    model, rank = made("mlp"), dist.get_rank()
    options = {} if rank else {"loss": loss, "shadow": True, "probe": PROBE}
    with pytest.raises(RankError, match="had another group of settings than rank 0"):
        LocalSGD(model, OPTIMIZERS["sgd"](model.parameters()), **options)


def test_a_shadow_without_a_probe_in_any_rank_is_refused():
    model = made("mlp")
    with pytest.raises(ValueError, match="shadow needs inputs to ask the models about"):
        wrapped(model, OPTIMIZERS["sgd"](model.parameters()), shadow=True)


def test_rank_0_writes_the_report(tmp_path):
    model = made("mlp")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with wrapped(model, optimizer, every=2, shadow=True, probe=PROBE, compare_every=2) as local:
        trained(model, optimizer, batches(dist.get_rank(), 8), local.step)
    local.report(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").glob("*")}
    assert names == ({"history.csv", "history.png", "history.svg"} if dist.get_rank() == 0 else set())


def test_without_a_shadow_there_is_no_distance():
    model = made("mlp")
    with (
        LocalSGD(model, OPTIMIZERS["sgd"](model.parameters())) as local,
        pytest.raises(RuntimeError, match="shadow=True"),
    ):
        local.distance()
