"""What runs beside a run: what it is asked for, what it copies, and how a history is drawn."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from torch import nn

from localgd.nets import Against, Apart, Distance, Sync, plot
from localgd.nets.beside import check_asked
from localgd.nets.compare import against
from localgd.nets.places import Places
from localgd.nets.plots import write
from localgd.nets.shadow import MOST_KEPT, Redrawn, _again, head_deg, inputs_of, predicted
from localgd.nets.twin import Twin, adopt, aside, settings_of

ASKED = {"loss": lambda model, batch: model(batch), "compare_every": 2, "shadow": True, "probe": 1, "other": [1]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": None}, r"compare_every trains a copy of the model, and needs loss=f\(model, batch\)"),
        ({"loss": None, "compare_every": None}, "shadow trains a copy of the model"),
        ({"compare_every": 0}, "compare_every must be a whole number of at least 1, got 0"),
        ({"shadow": "yes"}, "shadow must be True or False"),
        ({"shadow": False}, "probe is for shadow=True"),
        ({"shadow": False, "probe": None}, "other is for shadow=True"),
        (
            {"compare_every": None, "shadow": False, "probe": None, "other": None},
            "loss is for compare_every and shadow",
        ),
        ({"loss": 3}, "loss must be a function of a model and a batch"),
        ({"other": 3}, "other must be an iterable of batches"),
    ],
)
def test_what_cannot_be_done_or_means_nothing_is_refused(options, words):
    check_asked(**ASKED)
    with pytest.raises((TypeError, ValueError), match=words):
        check_asked(**(ASKED | options))


def test_a_twin_has_an_optimizer_of_its_own_though_a_schedule_holds_the_other():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = model.weight.detach().clone()
    twin = Twin(model, optimizer, lambda its, batch: its(batch).sum())
    twin.begin(model, optimizer)
    twin.loss(twin.model, torch.ones(1, 2)).backward()
    twin.optimizer.step()
    assert torch.equal(model.weight, before)
    assert not torch.equal(twin.model.weight, before)
    assert not optimizer.state


def test_what_an_optimizer_remembers_is_copied_each_time():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    twin = Twin(model, optimizer, lambda its, batch: its(batch).sum())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    twin.begin(model, optimizer)
    held = twin.optimizer.state[twin.model.weight]["momentum_buffer"]
    assert torch.equal(held, optimizer.state[model.weight]["momentum_buffer"])
    held += 1
    assert not torch.equal(held, optimizer.state[model.weight]["momentum_buffer"])


def test_a_model_that_cannot_be_copied_is_refused_in_words():
    model = nn.Linear(2, 1)
    model.seen = (x for x in "ab")
    with pytest.raises(TypeError, match=r"this one cannot be copied \(TypeError: .*generator.*\); leave them out"):
        Twin(model, torch.optim.SGD(model.parameters(), lr=0.1), len)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1), betas=(0.8, 0.9)),
    ],
)
def test_settings_go_from_one_optimizer_to_another(make):
    one, other = make([torch.zeros(2)]), make([torch.zeros(2)])
    settings = settings_of(one)
    for key, value in settings[0].items():
        settings[0][key] = [0.5, 0.6] if isinstance(value, tuple) else 0.25  # as JSON has them
    adopt(other, settings)
    expected = [{key: tuple(value) if isinstance(value, list) else value for key, value in settings[0].items()}]
    assert settings_of(other) == expected


def test_what_is_drawn_aside_is_not_drawn():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    with aside(torch.device("cpu")):
        torch.manual_seed(5)
        torch.rand(7)
    assert torch.equal(torch.rand(3), wanted)


def test_an_update_of_zero_has_no_direction():
    places = Places([("w", torch.ones(2))])
    still = against(places, torch.ones(2), torch.ones(2), 1.0)
    assert math.isnan(still.cosine)
    assert math.isnan(still.ratio)
    assert against(places, torch.zeros(2), torch.zeros(2), 1.0).ratio == 0


def test_batches_are_begun_again_and_none_at_all_is_an_error():
    endless = _again([1, 2])
    assert [next(endless) for _ in range(5)] == [1, 2, 1, 2, 1]
    used = _again(iter([1]))
    assert next(used) == 1
    with pytest.raises(ValueError, match="other holds no batch, or was an iterator that is at its end"):
        next(used)


def test_batches_are_redrawn_from_the_last_ones():
    drawn = Redrawn()
    drawn.held.extend(range(1000))
    taken = {next(each) for each in [iter(drawn)] for _ in range(5000)}
    assert taken == set(range(1000 - MOST_KEPT, 1000))


@pytest.mark.parametrize("probe", [3, {"x": torch.ones(2)}, ("a", torch.ones(2)), torch.tensor(1.0), [[1.0]]])
def test_what_is_no_probe_is_refused(probe):
    with pytest.raises(TypeError, match="probe must be a tensor of inputs, or a tuple that begins with one"):
        inputs_of(probe)


def test_predictions_leave_the_model_training_as_it_did():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2).eval(), nn.Linear(2, 3))
    assert predicted(model, torch.ones(4, 2)).tolist() == [int(model.eval()(torch.ones(1, 2)).argmax())] * 4
    model[0].train()
    predicted(model, torch.ones(4, 2))
    assert [module.training for module in model] == [True, False, False]


def test_a_model_without_a_linear_layer_has_no_head():
    assert math.isnan(head_deg(nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 1)))


APART = (Apart(0.01, 1.0, 2.0, 0.0), Apart(0.03, 2.0, 3.0, 0.0))


def history(*, beside):
    return [
        Sync(
            k,
            (8, 8 - k),
            0.1,
            1.0,
            0.9,
            bytes_up=4000,
            against_synchronous=Against(0.9, 1.1) if beside and k % 2 else None,
            distance=Distance(100, *APART) if beside else None,
            seconds={"pack": 0.1, "wire": 0.2, "beside": 1.0 if beside else 0.0, "apply": 0.1},
        )
        for k in range(4)
    ]


def test_what_there_is_of_a_history_is_drawn():
    titles = [axes.get_title(loc="left") for axes in plot(history(beside=False)).axes]
    assert titles == ["Ranks apart, over the mean update", "Agreement of updates", "Sent by a rank", "Time of a sync"]
    figure = plot(history(beside=True))
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == [
        "Predictions unlike synchronous ones",
        "Mean update over synchronous one",
    ]
    yardstick, run = figure.axes[0].lines[:2]
    assert list(run.get_ydata()) == [1.0] * 4
    assert list(yardstick.get_ydata()) == [3.0] * 4
    assert list(run.get_xdata()) == [8, 16, 24, 32]
    assert list(figure.axes[1].lines[0].get_xdata()) == [16, 32]
    with pytest.raises(ValueError, match="there was no sync yet"):
        plot([])


@pytest.mark.parametrize("beside", [False, True])
def test_a_history_is_written_as_a_table_too(beside, tmp_path):
    write(history(beside=beside), tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["steps"] for row in rows] == ["8 8", "8 7", "8 6", "8 5"]
    assert [row["cosine"] for row in rows] == (["", "0.9"] * 2 if beside else [""] * 4)
    assert [row["yardstick_disagreement"] for row in rows] == (["0.03"] * 4 if beside else [""] * 4)
