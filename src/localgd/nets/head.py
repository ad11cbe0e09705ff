"""The linear head of a network: held against the best one on its features, and put in that one's place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from localgd.core import Engine, Problem
from localgd.data.heads import LastLayer, head_rows
from localgd.engine.inprocess import InProcess
from localgd.engine.torchdist import TorchDistributed
from localgd.errors import check_whole, extra, listing
from localgd.limits import RefusedError
from localgd.methods.auto import auto
from localgd.nets.features import Body, Pick, numbers_of
from localgd.nets.same_features import check_same_features
from localgd.problems.certificate import Certificate
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray, norm
from localgd.rows import Shard
from localgd.run.certify import certify, check_asked
from localgd.run.goals import Angle
from localgd.run.history import Run
from localgd.run.loop import train
from localgd.run.rounded import with_model

with extra("torch", "torch"):
    import torch
    import torch.distributed as dist
    from torch.nn.utils.parametrize import is_parametrized


def certify_head(
    model: Any,
    layer: str,
    data: Any,
    *,
    C: float | None = None,
    alpha: float | None = None,
    goal: Angle | None = None,
    n_rounds: int = 500,
    inputs: Pick | None = None,
    targets: Pick | None = None,
) -> Certificate:
    """Certify a linear layer of a network against the best one that pooled training could reach on its features.

    The rows are what the network, in evaluation mode, hands to the layer, with a 1 behind them for its bias; they stay
    in the process that made them, as float32 or float64. Of two logits the model is w_1 − w_0, of C > 2 it is all of W,
    less what the classes share (with `C` that counts as distance); the numbers are those of the layer in its own dtype,
    every one of them exact.

    Parameters
    ----------
    model : torch.nn.Module
        The network; the same in all ranks. It is as it was afterwards.
    layer : str
        What the model calls the layer, as "fc" or "classifier.2": an ``nn.Linear`` that is called once a batch.
    data : mapping or list of loaders, a loader, or an Engine
        A loader for each node, by name; in every rank of `localgd.torch_processes` those of the rank's own nodes, or
        its one loader. A loader yields batches ``(x, y)``; y are the places of the logits (of one logit 0 and 1), or
        with `alpha` real targets. Or an engine whose nodes are such loaders, each with a ``node_id``.
    C : float, optional
        Compare with the minimiser of ½|w|² + C Σ loss, biases free, as of scikit-learn's ``LogisticRegression``.
        Without it with the max-margin model, whose bias is a coefficient like others.
    alpha : float, at least 0, optional
        Compare a layer of one output, in squared loss, with ``Ridge(alpha)``, bias free; 0 is least squares.
    goal : Angle, optional
        The angle to the max-margin model that is to be proved, or refuted, in as many rounds as it takes. Without it
        three rounds say what they can.
    n_rounds : int, at least 0
        Most rounds of that.
    inputs, targets : callable, optional
        What the model takes of a batch (a tensor; a tuple or dict is its arguments), and what the layer is to say, for
        batches that are no pairs.

    Returns
    -------
    Certificate
        What is proved of the layer as it stands, in the space of the features.

    Raises
    ------
    ValueError
        If there is no such layer, or it does more than x·Wᵀ + b; features are not finite, or others when they are
        computed again; buffers change in evaluation mode; labels are no classes of the layer; or ranks hold other
        numbers.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    >>> for one, numbers in zip(network.parameters(), ([[1, 0], [0, 1]], [0, 0], [[-1, 0], [1, 0]]), strict=True):
    ...     one.data = torch.tensor(numbers, dtype=torch.float32)
    >>> x, y = torch.tensor([[1.0, 0.2], [-1.0, 0.2], [1.0, -0.2], [-1.0, -0.2]]), torch.tensor([1, 0, 1, 0])
    >>> found = certify_head(network, "1", {"north": [(x[:2], y[:2])], "south": [(x[2:], y[2:])]})
    >>> str(found.verdict), found.angle_deg_max < 0.001
    ('certified', True)
    """
    body = Body.of(model, layer, inputs, targets)
    problem = _problem(body, C, alpha)
    check_asked(problem, goal)
    check_whole("n_rounds", n_rounds, 0)
    engine = _rows(body, data, problem)
    return certify(_vector(body.numbers, problem), engine, problem=problem, goal=goal, n_rounds=n_rounds)


def refit_head(
    model: Any,
    layer: str,
    data: Any,
    *,
    C: float | None = None,
    alpha: float | None = None,
    goal: Angle | None = None,
    n_rounds: int = 500,
    inputs: Pick | None = None,
    targets: Pick | None = None,
) -> Run:
    """Put the best linear head on a network's features in a layer's place, and certify it as it stands there.

    `localgd.auto` finds it over the nodes, without pooling a row: linear probing with a proof. What the layer holds
    then is rounded to its dtype, and the certificate is of these numbers. A max-margin head has the length at which
    the smallest margin is 1, as an SVM's.

    Parameters
    ----------
    model : torch.nn.Module
        The network; only the numbers of the layer change, in all ranks alike.
    layer : str
        What the model calls the layer.
    data : mapping or list of loaders, a loader, or an Engine
        As of `localgd.nets.certify_head`.
    C, alpha : float, optional
        What is looked for: the minimiser of a penalised logistic loss or softmax, ridge (in closed form, from sums),
        or, without both, the max-margin model; where nothing separates the rows, the minimiser of the loss.
    goal : Angle, optional
        Stop as soon as this is proved.
    n_rounds : int, at least 0
        Most rounds.
    inputs, targets : callable, optional
        As of `localgd.nets.certify_head`.

    Returns
    -------
    Run
        ``w`` is the layer as a vector in the space of the features, ``certificate`` is of just that.

    Raises
    ------
    ValueError
        As of `localgd.nets.certify_head`; or if no head was found, or one that is beyond the dtype of the layer, or the
        layer's numbers are in its own features, too. The layer is then as it was.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(2, 2)
    >>> x, y = torch.tensor([[1.0, 0.2], [-1.0, 0.2], [1.0, -0.3], [-1.0, -0.2]]), torch.tensor([1, 0, 1, 0])
    >>> run = refit_head(network, "", [[(x, y)]])
    >>> run.certificate.angle_deg_max < 0.1, (network(x).argmax(1) == y).all().item()
    (True, True)
    """
    body = Body.of(model, layer, inputs, targets)
    problem = _problem(body, C, alpha)
    _check_own(body)
    engine = _rows(body, data, problem)
    run = train(engine, auto(), problem=problem, n_rounds=n_rounds, goal=() if goal is None else goal)
    if not (np.isfinite(run.w).all() and (run.w.any() or isinstance(problem, LeastSquares))):
        raise ValueError(f"no head was found, so {layer!r} stays as it was: {run.certificate.status}")
    weight, bias = _cast(body, _placed(run, body.numbers))
    certified = with_model(run, _vector(numbers_of(weight, bias), run.method.problem), engine)
    _put(body, weight, bias, engine)
    return certified


@torch.no_grad()
def _put(body: Body, weight: Any, bias: Any, engine: Engine) -> None:
    """Write the numbers of the layer; if that fails, or changes features, it is as it was, in all ranks."""
    layer, trouble = body.layer, ""
    held = [(layer.weight, weight)] if bias is None else [(layer.weight, weight), (layer.bias, bias)]
    before = [tensor.clone() for tensor, _ in held]
    try:
        for tensor, numbers in held:
            tensor.copy_(numbers)
        torch.clear_autocast_cache()  # it holds the old numbers in fewer bits
        if body.depends():
            trouble = "a new head changes the features it is for, as its numbers are used elsewhere, too: untie them"
    except RuntimeError as error:  # of views, and of what was made in inference mode
        trouble = f"its numbers cannot be written ({error})"
    elsewhere = isinstance(engine, TorchDistributed) and engine.agreed(bool(trouble))[0]
    if not (trouble or elsewhere):
        return
    for (tensor, _), numbers in zip(held, before, strict=True):
        with suppress(RuntimeError):
            tensor.copy_(numbers)
    raise ValueError(f"layer {body.name!r} stays as it was: {trouble or 'another rank could not change it'}")


def _problem(body: Body, C: float | None, alpha: float | None) -> Problem:
    """Return what a layer is held against."""
    bias, n_outputs = body.layer.bias is not None, body.layer.out_features
    if C is not None and alpha is not None:
        raise ValueError(f"C={C!r} is about classes and alpha={alpha!r} about real targets; give one of them")
    if alpha is None:
        return HardMargin() if C is None else Regularised(C=C, intercept=bias)
    if n_outputs > 1:
        raise ValueError(f"layer {body.name!r} has {n_outputs} outputs, and alpha fits one; give C, or another layer")
    return LeastSquares(alpha, intercept=bias)


def _vector(numbers: LastLayer, problem: Problem) -> FloatArray:
    """Return a head as a vector in the space of the rows of a problem."""
    return numbers.vector(shared=not isinstance(problem, HardMargin))


def _rows(body: Body, data: Any, problem: Problem) -> Engine:
    """Return an engine whose nodes hold what the layer meets; over all ranks, if the program has any."""
    n_classes = 0 if isinstance(problem, LeastSquares) else body.numbers.n_classes

    def made(node_id: str, batches: Any) -> Shard:
        x, y = body.taken(node_id, batches)
        try:
            return head_rows(node_id, x, y if n_classes else y.astype(np.float64), n_classes)
        except RefusedError as error:
            raise ValueError(f"node {node_id!r}: {error}") from error

    if isinstance(data, Engine):
        engine: Engine = data.map(lambda held: made(held.node_id, held))
    elif dist.is_available() and dist.is_initialized():
        engine = TorchDistributed(made(*one) for one in _named(data, f"rank {dist.get_rank()}"))
    else:
        engine = InProcess(made(*one) for one in _named(data, "node"))
    if isinstance(engine, TorchDistributed):
        _check_alike(body.model, engine)
        check_same_features(body, engine)
    return engine


def _named(data: Any, stem: str) -> Iterable[tuple[str, Any]]:
    """Return loaders with the names of their nodes: in the order of a list, if that is what they come in."""
    if isinstance(data, Mapping):
        return [(str(name), loader) for name, loader in data.items()]
    if isinstance(data, list | tuple):
        width = len(str(len(data) - 1))
        return [(f"{stem}.{place:0{width}d}", loader) for place, loader in enumerate(data)]
    return [(stem, data)]


def _check_alike(model: Any, engine: TorchDistributed) -> None:
    """Refuse ranks that hold other numbers: their rows would not be of one network."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    own = {name: _digest(tensor) for name, tensor in state.items()}
    first = json.loads(engine.shared(json.dumps(own).encode()))
    *others, missing = engine.agreed(*(own.get(name) != first[name] for name in first), own.keys() != first.keys())
    if unlike := [name for name, other in zip(first, others, strict=True) if other]:
        raise ValueError(
            f"ranks hold other numbers in {listing(unlike)}, so their features are not those of one network: sync "
            "first (LocalSGD's finish()), or load the same checkpoint in all ranks"
        )
    if missing:
        raise ValueError("ranks hold other networks: the names in their state_dict differ")


def _digest(tensor: Any) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().data, digest_size=16).hexdigest()


def _check_own(body: Body) -> None:
    """Refuse a layer whose numbers are made of others, or are another module's, too: the features would change."""
    layer, weight = body.layer, body.layer._parameters.get("weight")  # noqa: SLF001  weight_norm leaves a plain tensor
    if is_parametrized(layer) or weight is None:
        raise ValueError(f"the weight of {body.name!r} is made of other numbers; take its parametrization off first")
    mine = [tensor for tensor in (layer.weight, layer.bias) if tensor is not None]
    shared = [
        f"{name}.{key}" if name else key
        for name, module in body.model.named_modules()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())  # noqa: SLF001  with those it shares
        if module is not layer and tensor is not None and any(_overlap(tensor, own) for own in mine)
    ]
    if shared:
        raise ValueError(
            f"{listing(shared)} and the numbers of {body.name!r} are one tensor: a new head would change the features "
            "it is for; untie them"
        )


def _overlap(a: Any, b: Any) -> bool:
    """Return whether two tensors have memory in common."""
    if a.device != b.device or not (a.numel() and b.numel()):
        return False
    (a0, a1), (b0, b1) = _extent(a), _extent(b)
    return bool(a0 < b1 and b0 < a1)


def _extent(tensor: Any) -> tuple[int, int]:
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + tensor.element_size() * (1 + last)


def _placed(run: Run, before: LastLayer) -> tuple[FloatArray, FloatArray | None]:
    """Return the weight and the bias that a run's model is as a layer of so many outputs."""
    n_outputs, has_bias = len(before.coef), before.intercept is not None
    w = run.w
    if run.certificate.kind == HardMargin.kind and run.certificate.margin > 0:
        w = w / (norm(w) * run.certificate.margin)  # for a smallest margin of 1
    if n_outputs == 2:
        w = np.concatenate([-w / 2, w / 2])
    each = w.reshape(n_outputs, -1)
    return (each[:, :-1], each[:, -1]) if has_bias else (each, None)


def _cast(body: Body, numbers: tuple[FloatArray, FloatArray | None]) -> tuple[Any, Any]:
    """Return weight and bias in the dtype of the layer; a ValueError if that cannot hold them."""
    layer = body.layer
    weight, bias = (
        None if wanted is None else torch.tensor(wanted).to(at.device, at.dtype)
        for at, wanted in zip((layer.weight, layer.bias), numbers, strict=True)
    )
    for part, wanted in zip((weight, bias), numbers, strict=True):
        if part is not None and wanted is not None and not torch.isfinite(part).all():
            raise ValueError(
                f"coefficients of up to {np.abs(wanted).max():.0e} are outside the range of {part.dtype}, that of "
                f"layer {body.name!r}, which stays as it was; scale the features, or take a wider dtype"
            )
    return weight, bias
