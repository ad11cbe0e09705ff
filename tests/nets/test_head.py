"""The linear head of a network: what is certified of it holds, and the one that takes its place is the pooled one."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common import examples
from localgd import Angle, Certificate, InProcess, Run
from localgd.nets import certify_head, refit_head
from localgd.problems.certificate import Status
from localgd.reference.max_margin import NotSeparableError, max_margin
from localgd.reference.minimiser import minimiser
from localgd.rounding import angle_deg

BODY = 3
"""Modules before the head."""


def network(n_outputs, *, bias=True, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, n_outputs, bias=bias)
    return nn.Sequential(*layers).to(dtype).train()


def features_of(model, loaders):
    """The features of all batches, one below the other, and labels: computed here, in float64 once they are there."""
    body = model[:BODY].eval()
    with torch.no_grad():
        parts = [(body(x).double().numpy(), y.double().numpy()) for loader in loaders for x, y in loader]
    model.train()
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def with_ones(model, x):
    return x if model[BODY].bias is None else np.column_stack([x, np.ones(len(x))])


def rows_of(x, y, n_outputs):
    """The rows of the pooled head, written out."""
    if n_outputs < 3:
        return np.where(y == 1, 1.0, -1.0)[:, None] * x
    rows = []
    for own, label in zip(x, y, strict=True):
        for other in set(range(n_outputs)) - {label}:
            row = np.zeros((n_outputs, len(own)))
            row[label], row[other] = own, -own
            rows.append(row.ravel())
    return np.array(rows)


def head_of(model):
    """The numbers of the head, and what of them predicts."""
    layer = model[BODY]
    each = layer.weight.detach().double().numpy()
    each = each if layer.bias is None else np.column_stack([each, layer.bias.detach().double().numpy()])
    return each[0] if len(each) == 1 else each[1] - each[0] if len(each) == 2 else (each - each.mean(axis=0)).ravel()


def place(model, each):
    """Put rows of coefficients, bias last, into the head."""
    layer = model[BODY]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(each[:, :4]))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(each[:, 4]))


@st.composite
def heads(draw, separable=True):
    """A network of some dtype, loaders of one to four nodes, and the rows that its head meets there."""
    n_outputs, bias = draw(st.sampled_from([1, 2, 3, 5])), draw(st.booleans())
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    seed = draw(st.integers(0, 10**6))
    model, rng = network(n_outputs, bias=bias, dtype=dtype, seed=seed), np.random.default_rng(seed)
    size, n_nodes, n_classes = int(rng.integers(1, 9)), int(rng.integers(1, 5)), max(2, n_outputs)
    inputs = [torch.tensor(2 * rng.standard_normal((size, 3))).to(dtype) for _ in range(n_nodes * 2)]
    x, _ = features_of(model, [[(one, torch.zeros(size)) for one in inputs]])
    planted = rng.standard_normal((n_classes, 5))
    y = (np.column_stack([x, np.ones(len(x))]) @ planted.T).argmax(axis=1)
    if not separable:
        y = np.where(rng.random(len(y)) < 0.3, rng.integers(n_classes, size=len(y)), y)
    targets = torch.tensor(y).reshape(-1, size)
    targets = targets.to(dtype)[..., None] if n_outputs == 1 else targets  # as the binary loss has it
    loaders = [list(zip(inputs[m::n_nodes], targets[m::n_nodes], strict=True)) for m in range(n_nodes)]
    x, y = features_of(model, loaders)
    each, noise = rng.standard_normal((n_outputs, 5)), draw(st.sampled_from([1e-9, 1e-3, 0.1, np.inf]))
    near = planted[1:] - planted[:1] if n_outputs == 1 else planted
    place(model, each if noise == np.inf else near + noise * each)
    return model, loaders, rows_of(with_ones(model, x), y.ravel().astype(int), n_outputs)


@given(heads(), st.booleans())
@settings(max_examples=examples(1000), deadline=None)
def test_a_certificate_of_a_head_holds_against_the_exact_pooled_head(case, named):
    model, loaders, rows = case
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = {f"site {m}": loader for m, loader in enumerate(loaders)} if named else loaders
    found = certify_head(model, "3", data)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    w = head_of(model)
    least = float((rows @ w).min()) / np.linalg.norm(w)
    assert found.margin <= least + 1e-12
    try:
        exact = max_margin(rows)
    except NotSeparableError:
        assert not found.separable
        return
    assert found.margin_low <= exact.margin_high * (1 + 1e-9)
    assert found.margin_high >= exact.margin_low * (1 - 1e-9)
    assert not angle_deg(w, exact.direction) > found.angle_deg_max + 1e-7


@given(heads(separable=False), st.sampled_from([0.1, 1.0, 100.0]))
@settings(max_examples=examples(200), deadline=None)
def test_a_certificate_of_a_penalised_head_holds_against_scikit_learns(case, C):
    model, loaders, _ = case
    x, y = features_of(model, loaders)
    y, n_outputs, bias = y.ravel().astype(int), model[BODY].out_features, model[BODY].bias is not None
    if len(set(y.tolist())) < max(2, n_outputs):
        return
    pooled = LogisticRegression(C=C, fit_intercept=bias, solver="newton-cholesky", tol=1e-13, max_iter=1000).fit(x, y)
    found = certify_head(model, "3", loaders, C=C)
    each = model[BODY].weight.detach().double().numpy()
    w = each[1] - each[0] if n_outputs == 2 else each.ravel()
    apart = np.linalg.norm(w - pooled.coef_.ravel())
    assert apart <= found.distance * (1 + 1e-6) + 1e-6
    assert not angle_deg(w, pooled.coef_.ravel()) > found.angle_deg_max + 1e-4


@given(heads(separable=False))
@settings(max_examples=examples(200), deadline=None)
def test_a_certificate_without_a_penalty_holds_against_the_exact_minimiser(case):
    model, loaders, rows = case
    versus = max(1, model[BODY].out_features - 1)
    try:
        exact = minimiser(rows, np.full(len(rows), 1 / len(rows)), versus)
    except ValueError:  # separable
        exact = None
    found = certify_head(model, "3", loaders, C=np.inf)
    if exact is None:
        return
    each = model[BODY].weight.detach().double().numpy()
    each = each if model[BODY].bias is None else np.column_stack([each, model[BODY].bias.detach().double().numpy()])
    value = np.logaddexp.reduce(
        np.column_stack([np.zeros(len(rows) // versus), -(rows @ exact).reshape(-1, versus)]), 1
    )
    w = head_of(model)
    own = np.logaddexp.reduce(np.column_stack([np.zeros(len(rows) // versus), -(rows @ w).reshape(-1, versus)]), 1)
    assert own.mean() - value.mean() <= found.gap * (1 + 1e-6) + 1e-9


@given(heads(), st.sampled_from([None, 1.0]))
@settings(max_examples=examples(100), deadline=None)
def test_a_refitted_head_is_certified_as_cast_and_what_is_proved_holds(case, C):
    model, loaders, rows = case
    body = [tensor.clone() for tensor in model[:BODY].parameters()]
    try:
        exact = max_margin(rows)
    except NotSeparableError:
        return
    if exact.margin_low < 1e-3 * np.linalg.norm(rows, axis=1).max():  # what auto may call inseparable is another test's
        return
    run = refit_head(model, "3", loaders, C=C)
    assert all(torch.equal(one, other) for one, other in zip(body, model[:BODY].parameters(), strict=True))
    within = {torch.float64: 0.1, torch.float32: 0.1, torch.bfloat16: 0.5}[model[BODY].weight.dtype]
    w = head_of(model)
    if C is None:
        assert angle_deg(run.w, w) <= 1e-6
        assert angle_deg(w, exact.direction) <= run.certificate.angle_deg_max + 1e-7
        assert run.certificate.angle_deg_max <= within
        least = float((rows @ w).min())
        assert least == pytest.approx(1.0, abs=1e-3 if within == 0.1 else 0.5)  # as an SVM's
    elif len({int(y) for loader in loaders for _, batch in loader for y in batch.ravel()}) == max(2, len(run.w) // 4):
        assert run.certificate.angle_deg_max <= within  # else the bias of a class that is not there has no best value


def digits(n_nodes=3, dtype=torch.float32, n=600):
    """Handwritten digits at nodes that have few classes each."""
    X, y = load_digits(return_X_y=True)
    order = np.argsort(y[:n], kind="stable")
    x, y = torch.tensor(X[:n][order] / 16, dtype=dtype), torch.tensor(y[:n][order])
    parts = np.array_split(np.arange(n), n_nodes)
    return {f"site {m}": DataLoader(TensorDataset(x[i], y[i]), batch_size=64) for m, i in enumerate(parts)}


class Small(nn.Module):
    def __init__(self, dtype=torch.float32, n_outputs=10):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(64, n_outputs)
        self.to(dtype)

    def forward(self, x):
        return self.fc(self.body(x))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 0.1), (torch.float64, 0.1)])
def test_a_refitted_head_of_ten_classes_is_certified_within_a_tenth_of_a_degree(dtype, within):
    model, data = Small(dtype), digits(dtype=dtype)
    plain = certify_head(model, "fc", data)
    run = refit_head(model, "fc", data)
    assert isinstance(plain, Certificate)
    assert isinstance(run, Run)
    assert run.certificate.verdict is Status.CERTIFIED
    assert run.certificate.angle_deg_max <= within
    model.eval()
    assert all((model(x).argmax(1) == y).all() for loader in data.values() for x, y in loader)
    again = certify_head(model, "fc", data, goal=Angle(within))
    assert again.angle_deg_max <= within


def test_a_ridge_head_is_scikit_learns():
    model, data = Small(torch.float64, n_outputs=1), digits(dtype=torch.float64)
    run = refit_head(model, "fc", data, alpha=1.0)
    model.eval()
    with torch.no_grad():
        features = np.concatenate([model.body(x).numpy() for loader in data.values() for x, _ in loader])
    y = np.concatenate([y.numpy() for loader in data.values() for _, y in loader])
    pooled = Ridge(alpha=1.0, solver="cholesky").fit(features, y)
    np.testing.assert_allclose(model.fc.weight.detach().numpy()[0], pooled.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.fc.bias.item(), pooled.intercept_, rtol=1e-9)
    assert run.certificate.kind == "ridge"
    assert run.certificate.relative <= 1e-9
    assert certify_head(model, "fc", data, alpha=1.0).relative <= 1e-9


@pytest.mark.parametrize("C", [None, 1.0])
def test_float32_features_are_kept_as_such_and_give_what_float64_gives(C, monkeypatch):
    seen = []
    monkeypatch.setattr("localgd.nets.head.InProcess", lambda shards: seen.append(InProcess(shards)) or seen[-1])
    found = certify_head(Small(), "fc", digits(), C=C)
    shards = list(seen[0].shards.values())
    assert all(shard.data.x.x.dtype == np.float32 for shard in shards)
    assert sum(shard.data.x.x.nbytes for shard in shards) == 600 * 65 * 4
    double = Small().double()
    other = certify_head(double, "fc", {name: exact(loader) for name, loader in digits().items()}, C=C)
    for name in ("margin_low", "margin_high", "gap", "distance"):
        assert getattr(found, name) == pytest.approx(getattr(other, name), rel=1e-3, nan_ok=True)


def exact(loader):
    return [(x.double(), y) for x, y in loader]


def test_batches_that_are_no_pairs_and_layers_over_positions():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.tag = nn.Embedding(30, 16), nn.Linear(16, 3)

        def forward(self, ids, scale):
            return self.tag(input=scale * self.embed(ids))

    ids = torch.arange(30).reshape(6, 5)
    batches = [{"ids": ids[:3], "tags": ids[:3] % 3}, {"ids": ids[3:], "tags": ids[3:] % 3}]
    model = Tokens()
    picks = {"inputs": lambda batch: {"ids": batch["ids"], "scale": 2.0}, "targets": lambda batch: batch["tags"]}
    run = refit_head(model, "tag", [batches], **picks)
    assert run.certificate.angle_deg_max <= 0.1
    assert (model(ids, 2.0).argmax(-1) == ids % 3).all()


class Held:
    """A loader that knows its node."""

    def __init__(self, node_id, batches):
        self.node_id, self.batches = node_id, batches

    def __iter__(self):
        return iter(self.batches)


def test_an_engine_may_hold_loaders_also_with_threads():
    data = digits()
    engine = InProcess([Held(name, loader) for name, loader in data.items()], n_jobs=3)
    model = Small()
    assert certify_head(model, "fc", engine) == certify_head(model, "fc", data)
    assert threading.active_count() < 50


def test_the_default_generator_is_where_it_was():
    model, data = Small(), [DataLoader(TensorDataset(torch.randn(8, 64), torch.arange(8)), shuffle=True)]
    before = torch.get_rng_state()
    certify_head(model, "fc", data)
    assert torch.equal(torch.get_rng_state(), before)


def test_where_nothing_separates_the_rows_the_head_is_the_minimiser_of_the_loss():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((60, 2)))
    y = torch.tensor((rng.random(60) < 0.5).astype(int))
    model = nn.Linear(2, 2).double()
    run = refit_head(model, "", [[(x[m::3], y[m::3])] for m in range(3)])
    assert run.certificate.kind == "minimiser"
    pooled = LogisticRegression(C=np.inf, tol=1e-12).fit(x.numpy(), y.numpy())
    w = (model.weight[1] - model.weight[0]).detach().numpy()
    np.testing.assert_allclose(w, pooled.coef_[0], rtol=1e-6)


def test_a_compiled_model_is_looked_through():
    model, data = Small(), digits()
    assert certify_head(torch.compile(model, backend="eager"), "fc", data) == certify_head(model, "fc", data)


def test_the_program_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "refit_head(" in block)
    north, south = digits(2).values()
    names = {"model": Small(), "north_loader": north, "south_loader": south, "loaders": [north, south]}
    exec(compile(block, "networks.md", "exec"), names)  # noqa: S102  our own page
    assert names["run"].certificate.angle_deg_max <= 0.1
