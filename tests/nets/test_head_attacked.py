"""What once led to a false certificate of a head: loaders, models and layers that are not what they seem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from localgd import Angle
from localgd.nets import certify_head, refit_head
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg

F = nn.functional


def sample(n=24, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = (x @ rng.standard_normal(d) > 0).astype(int)
    x += 0.3 * np.outer(2 * y - 1, np.ones(d))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def filled_again(x, y, size=6):
    """A loader that hands out the same two tensors in every batch."""
    bx, by = torch.empty(size, x.shape[1]), torch.empty(size, dtype=y.dtype)
    for a in range(0, len(x), size):
        bx.copy_(x[a : a + size])
        by.copy_(y[a : a + size])
        yield bx, by


@pytest.mark.parametrize("options", [{}, {"C": 1.0}, {"alpha": 1.0}])
def test_a_loader_may_fill_the_same_batch_again(options):
    x, y = sample()
    y = y.double() if "alpha" in options else y
    models = [nn.Sequential(nn.Linear(3, 1)) for _ in range(2)]
    for model, loader in zip(models, (filled_again(x, y), [(x, y)]), strict=True):
        refit_head(model, "0", {"a": loader}, **options)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


class Twice(nn.Module):
    """A network whose body uses numbers of its head."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.fc = how, nn.Linear(3, 2), nn.Linear(2, 2)
        if how == "bias":
            self.a.bias = self.fc.bias
        if how == "storage":
            self.fc.weight = nn.Parameter(self.a.weight.data[:, :2])
        if how == "buffer":
            self.register_buffer("kept", self.fc.weight.detach())

    def forward(self, x):
        x = torch.tanh(self.a(x))
        return self.fc(F.linear(x, self.fc.weight) if self.how == "body" else x)


@pytest.mark.parametrize("how", ["bias", "storage", "buffer", "body"])
def test_a_head_whose_numbers_are_in_its_features_stays_as_it_was(how):
    model, before = Twice(how), None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="untie them"):
        refit_head(model, "fc", [[sample()]], C=1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_layer_under_two_names_is_one_layer():
    model = Twice("")
    model.head = model.fc
    assert refit_head(model, "fc", [[sample()]], C=1.0).certificate.angle_deg_max < 0.1


class Draws(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.fc = how, nn.Linear(3, 2)

    def forward(self, x):
        if self.how == "always" or (self.how == "large batches" and len(x) > 1):
            x = F.dropout(x, 0.2)
        if self.how == "small":
            x = torch.cat([F.dropout(x[:, :2], 0.5), torch.full((len(x), 1), 400.0)], 1)
        if self.how == "numpy":
            x = x + 1e-3 * float(np.random.standard_normal())  # noqa: NPY002  what others draw from
        if self.how == "own":
            self.draws = getattr(self, "draws", torch.Generator())
            x = x + 2e-3 * torch.randn(x.shape, generator=self.draws)
        return self.fc(x)


@pytest.mark.parametrize("how", ["always", "large batches", "small", "numpy", "own"])
@pytest.mark.parametrize("first", [0, 1, 6])
def test_what_is_drawn_at_random_in_any_batch_is_refused(how, first):
    x, y = sample()
    with pytest.raises(ValueError, match="are others when they are computed again"):
        refit_head(Draws(how), "fc", [[(x[:first], y[:first]), (x[first:], y[first:])]], C=1.0)


def test_a_layer_is_read_as_it_is_in_evaluation_mode():
    torch.manual_seed(0)
    x, y = sample(d=12)
    layer = parametrizations.spectral_norm(nn.Linear(12, 2), n_power_iterations=1)
    model = nn.Sequential(layer).train()
    before, drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    found = certify_head(model, "0", [[(x, y)]], goal=Angle(0.5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    model.eval()
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    w = np.append(weight[1] - weight[0], bias[1] - bias[0])
    rows = np.column_stack([x.double().numpy(), np.ones(len(x))]) * (2.0 * y.numpy() - 1)[:, None]
    exact = angle_deg(w, max_margin(rows).direction)
    assert found.angle_deg_min - 1e-6 <= exact <= found.angle_deg_max + 1e-6


def test_a_bias_of_fewer_bits_is_certified_as_the_layer_holds_it():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].bias = nn.Parameter(model[0].bias.detach().to(torch.bfloat16))
    x, y = sample()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run = refit_head(model, "0", [[(x, y)]])
    weight, bias = (tensor.detach().double().numpy() for tensor in (model[0].weight, model[0].bias))
    assert np.array_equal(run.w, np.append(weight[1] - weight[0], bias[1] - bias[0]))


def changed(how):
    model = nn.Sequential(nn.Linear(3, 2))
    if how == "forward":
        model[0].forward = lambda z: F.linear(F.normalize(z), model[0].weight, model[0].bias)
    if how == "pre-hook":
        model[0].register_forward_pre_hook(lambda layer, _: [layer.bias.data.add_(1.0), None][1])
    return model


@pytest.mark.parametrize("how", ["forward", "pre-hook"])
def test_a_layer_that_does_more_is_refused(how):
    with pytest.raises(ValueError, match=r"'0' does not return x·Wᵀ \+ b"):
        certify_head(changed(how), "0", [[sample()]])


def test_complex_layers_are_refused():
    with pytest.raises(ValueError, match="the weight of '0' is complex"):
        certify_head(nn.Sequential(nn.Linear(3, 2, dtype=torch.complex64)), "0", [[sample()]])


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


def test_buffers_that_change_in_evaluation_mode_are_put_back_and_named():
    model = Counts()
    with pytest.raises(ValueError, match="calls changes in evaluation mode"):
        certify_head(model, "fc", [[sample()]])
    assert model.calls == 0
    x, y = sample()
    with pytest.raises(ValueError, match="batch 1: the features before 'fc' are not finite"):
        certify_head(model, "fc", [[(x, y), (x * torch.inf, y)]])
    assert model.calls == 0


def test_a_layer_that_cannot_be_written_is_as_it_was():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].bias = nn.Parameter(torch.zeros(1).expand(2))
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match="layer '0' stays as it was: its numbers cannot be written"):
        refit_head(model, "0", [[sample()]])
    assert torch.equal(model[0].weight, before)
