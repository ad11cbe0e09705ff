"""What a network makes of its inputs before a linear layer: rows that stay in the process that made them."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.data.heads import LastLayer
from localgd.errors import extra, listing, nearest
from localgd.rounding import FloatArray

with extra("torch", "torch"):
    import torch
    from torch import nn
    from torch.nn.parameter import is_lazy

ALIKE = 1024
"""Features that differ by more roundings than this, of the largest in their column, when they are computed again, are
not those of one network."""

Pick = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Body:
    """A network up to one of its linear layers.

    Parameters
    ----------
    model : torch.nn.Module
        The network; what wraps it to add up gradients, or to compile it, is looked through.
    name : str
        What the model calls the layer.
    inputs, targets : callable, optional
        What the model takes of a batch, and what the layer is to say of it: by default the first of two and the second.
    """

    model: Any
    name: str
    inputs: Pick | None = None
    targets: Pick | None = None
    _alone: Any = field(default_factory=threading.Lock, repr=False)
    _first: list[tuple[Any, Any]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, model: Any, name: str, inputs: Pick | None, targets: Pick | None) -> Body:
        """Return the body of a model, if it has such a layer."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        while hasattr(model, "_orig_mod") or isinstance(model, nn.parallel.DistributedDataParallel):
            model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # noqa: SLF001  torch.compile's
        held = dict(model.named_modules())
        linear = [place for place, module in held.items() if isinstance(module, nn.Linear)]
        if not isinstance(name, str) or not isinstance(held.get(name), nn.Linear):
            what = f"is a {type(held[name]).__name__}" if name in held else "is no part of the model"
            known = nearest(str(name), linear)
            raise ValueError(f"layer {name!r} {what}, and must be an nn.Linear of the model{known}")  # noqa: TRY004  a bad value
        if type(held[name]).forward is not nn.Linear.forward:
            raise ValueError(f"layer {name!r} is a {type(held[name]).__name__}, which does more than x·Wᵀ + b")
        with _at_rest(model):
            _check_whole(name, held[name])
        return cls(model, name, inputs, targets)

    @property
    def layer(self) -> Any:
        """The linear layer."""
        return self.model.get_submodule(self.name)

    @property
    def numbers(self) -> LastLayer:
        """The numbers of the layer, every one of them a float64 as it is."""
        with _at_rest(self.model):
            return numbers_of(self.layer.weight, self.layer.bias)

    def taken(self, node_id: str, batches: Iterable[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the features of a node's batches, (n, d), with ones behind them if the layer has a bias, and targets.

        They are float32, or float64 where the network is: each is the number that the layer meets. The model is as it
        was afterwards, and so is the default generator of torch.
        """
        rows, targets = Grown(self.layer.in_features, ones=self.layer.bias is not None), list[NDArray[Any]]()
        fresh = True
        with self._alone, _at_rest(self.model), _still(self.model):
            for place, batch in enumerate(_iterated(node_id, batches)):
                where = f"node {node_id!r}, batch {place}"
                x, y = self._split(where, batch)
                features = self._met(where, x)
                if fresh and features.numel():
                    fresh = False
                    if differ(features, self._met(where, x)):
                        raise ValueError(f"{where}: {self._others} when they are computed again, {DRAWN}")
                    self._first.append((copy.deepcopy(x), features))
                targets.append(_targets(where, y, features))
                if not torch.isfinite(features).all():
                    raise ValueError(f"{where}: the features before {self.name!r} are not finite")
                rows.add(features)
        if not targets:
            raise ValueError(f"node {node_id!r} has no batch; give it at least one, or leave it out")
        return rows.whole(), np.concatenate(targets)

    @property
    def _others(self) -> str:
        return f"the features before {self.name!r} are others"

    @property
    def first(self) -> Any:
        """What the model took of the first batch of a node, None if there was none yet."""
        return self._first[0][0] if self._first else None

    def asked(self, x: Any) -> Any:
        """Return the features of one input more, which nothing is counted of."""
        with self._alone, _at_rest(self.model), _still(self.model):
            return self._met("an input that is made up", x)

    def depends(self) -> bool:
        """Return whether features that were taken here are others now: the layer's own numbers may be in them."""
        with self._alone, _at_rest(self.model):
            return any(differ(features, self._met("the first batch", x)) for x, features in self._first)

    def _split(self, where: str, batch: Any) -> tuple[Any, Any]:
        """Return what the model takes of a batch, and what its layer is to say."""
        if self.inputs is not None and self.targets is not None:
            return self.inputs(batch), self.targets(batch)
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise ValueError(
                f"{where} is a {type(batch).__name__}, not (x, y): give inputs= and targets=, functions that pick out "
                "of a batch what the model takes and what the layer is to say (a list is of loaders, one a node)"
            )
        x, y = batch
        return x if self.inputs is None else self.inputs(batch), y if self.targets is None else self.targets(batch)

    def _met(self, where: str, x: Any) -> Any:
        """Run the model; return what the layer met."""
        met: list[Any] = []

        def take(_: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            met.append((args[0] if args else options["input"]).detach().clone())  # which later layers may write to

        def compare(_: Any, args: tuple[Any, ...], options: dict[str, Any], out: Any) -> None:  # noqa: ARG001
            if not _is_linear(met[-1], weight, bias, out):
                raise ValueError(f"{where}: {self.name!r} does not return x·Wᵀ + b of what it is given and holds")

        weight, bias = self.layer.weight, self.layer.bias
        bias = None if bias is None else bias.detach().clone()  # hooks of others may set it
        weight, states = weight.detach().clone(), _generators(weight.device)
        hooks = [
            self.layer.register_forward_pre_hook(take, with_kwargs=True),
            self.layer.register_forward_hook(compare, with_kwargs=True, prepend=True),
        ]
        try:
            _call(self.model, x)
        finally:
            for hook in hooks:
                hook.remove()
        if _generators(weight.device) != states:
            raise ValueError(f"{where}: {self._others} when they are computed again, {DRAWN}")
        if len(met) != 1:
            times = f"{len(met)} times" if met else "never"
            raise ValueError(
                f"{where}: the model calls {self.name!r} {times}, and must call it once a batch: as a module, and for "
                "all rows at once"
            )
        return met[0]


DRAWN = (
    "so nothing is proved of the layer: take out what is drawn at random (F.dropout needs training=self.training), or "
    "remembered from batch to batch"
)


@contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients; torch's generator goes on afterwards where it stood."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(model):
        yield


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """Put buffers that change meanwhile back, and refuse them."""
    before, moved = {name: buffer.clone() for name, buffer in model.named_buffers()}, list[str]()
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if not _same(buffer, before.get(name)):
                moved.append(name)
                if name in before:
                    buffer.copy_(before[name])
    if moved:
        raise ValueError(
            f"{listing(moved)} changes in evaluation mode, so features may be others each time: let buffers change in "
            "training only"
        )


def _same(buffer: Any, before: Any) -> bool:
    return before is not None and buffer.shape == before.shape and torch.equal(buffer, before)


def _generators(device: Any) -> list[bytes]:
    """Return where the generators stand that anybody draws from: those of torch, NumPy and Python."""
    states = [torch.get_rng_state().numpy().tobytes(), repr(random.getstate()).encode()]
    state: Any = np.random.get_state()  # noqa: NPY002  what others draw from
    states.append(state[1].tobytes() + bytes(f"{state[2:]}", "ascii"))
    return [*states, torch.cuda.get_rng_state(device).numpy().tobytes()] if device.type == "cuda" else states


def _is_linear(x: Any, weight: Any, bias: Any, out: Any) -> bool:
    """Return whether an output is x·Wᵀ + b, to within a few roundings of its dtype, which may be autocast's."""
    if not isinstance(out, torch.Tensor) or out.shape != (*x.shape[:-1], len(weight)):
        return False
    x, weight, offset = x.double(), weight.double(), torch.zeros(()) if bias is None else bias.double()
    eps = torch.finfo(out.dtype).eps if out.dtype == torch.float64 else max(torch.finfo(out.dtype).eps, 2**-10)
    away = (out.double() - (x @ weight.T + offset)).abs()
    size = x.abs() @ weight.abs().T + offset.abs()
    return bool((~(away > 4 * eps * (size + torch.finfo(out.dtype).tiny))).all())  # NaN is another's matter


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, all of it, and every part back into its own mode at the end.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> with evaluating(network):
    ...     network[1].training
    False
    >>> network[1].training
    True
    """
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        if kept := [name or "the model" for name, module in model.named_modules() if module.training]:
            raise ValueError(
                f"{listing(kept)} stays in training mode after model.eval(), so features are not those of the trained "
                "network: let train() of every module pass the mode on"
            )
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def numbers_of(weight: Any, bias: Any) -> LastLayer:
    """Return the numbers of a linear layer, whose bias may be None: every one of them is a float64 as it is.

    Examples
    --------
    >>> numbers_of(torch.ones(1, 2, dtype=torch.bfloat16), None).coef
    array([[1., 1.]])
    """
    return LastLayer(_exact(weight), None if bias is None else _exact(bias))


def differ(features: Any, again: Any) -> bool:
    """Return whether features are others when they are computed again, by more than sums in another order.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 400.0], [2.0, 400.0]])
    >>> differ(x, x * (1 + 1e-6)), differ(x, x + torch.tensor([[0.01, 0.0]]))
    (False, True)
    """
    if features.shape != again.shape:
        return True
    columns, apart = features.reshape(-1, features.shape[-1]), (features - again).reshape(-1, features.shape[-1]).abs()
    within = min(ALIKE * torch.finfo(features.dtype).eps, 0.02)
    return bool(apart.numel()) and bool((apart > within * columns.abs().amax(0)).any())


class Grown:
    """Rows, one batch after another, in one array that grows by a quarter: nothing is there twice.

    Float32 holds all that has fewer bits. With `ones` there is a last column of them.

    Examples
    --------
    >>> rows = Grown(2, ones=True)
    >>> for batch in (torch.zeros(1, 2), torch.ones(2, 2)):
    ...     rows.add(batch)
    >>> rows.whole().tolist()
    [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, width: int, *, ones: bool) -> None:
        self._width, self._ones, self._filled = width, ones, 0
        self._held: NDArray[Any] = np.empty((0, width + ones), np.float32)

    def add(self, features: Any) -> None:
        """Take the features of a batch, (…, width), wherever they lie."""
        rows = features.reshape(-1, self._width)
        if rows.dtype == torch.float64 and self._held.dtype != np.float64:
            self._held = self._held.astype(np.float64)
        end = self._filled + len(rows)
        if end > len(self._held):
            self._resize(max(end, len(self._held) * 5 // 4))
        torch.from_numpy(self._held)[self._filled : end, : self._width] = rows  # brought over and made wider here
        self._filled = end

    def whole(self) -> NDArray[Any]:
        """Return all of it, which is nobody else's."""
        self._resize(self._filled)
        if self._ones:
            self._held[:, self._width] = 1.0
        return self._held

    def _resize(self, n_rows: int) -> None:
        self._held.resize((n_rows, self._width + self._ones), refcheck=False)  # no view of it is left


def _check_whole(name: str, layer: Any) -> None:
    """Refuse a layer whose numbers are not here, all of them."""
    weight = layer.weight
    if weight.is_complex():
        raise ValueError(f"the weight of {name!r} is complex, and a head has real numbers: give a real layer")
    if is_lazy(weight) or weight.is_meta:
        raise ValueError(f"the weight of {name!r} has no numbers yet: initialise it, or run the model once")
    if type(weight.data).__name__ == "DTensor" or weight.shape != (layer.out_features, layer.in_features):
        raise ValueError(f"the weight of {name!r} is spread over ranks; give a model that is whole in each of them")


def _exact(tensor: Any) -> FloatArray:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def _iterated(node_id: str, batches: Any) -> Iterable[Any]:
    if isinstance(batches, torch.Tensor | np.ndarray | Mapping | str) or not isinstance(batches, Iterable):
        raise TypeError(
            f"node {node_id!r} holds a {type(batches).__name__}, no loader: give what yields its batches, as "
            "DataLoader(dataset, batch_size=256)"
        )
    return batches


def _call(model: Any, x: Any) -> None:
    """Run a model on a tensor, on the tensors of a tuple, or on those of a dict by their names."""
    first = next(iter(model.parameters()))

    def there(value: Any) -> Any:
        return value.to(first.device) if isinstance(value, torch.Tensor) else value

    if isinstance(x, Mapping):
        model(**{str(name): there(value) for name, value in x.items()})
    elif isinstance(x, tuple | list):
        model(*map(there, x))
    else:
        model(there(x))


def _targets(where: str, y: Any, features: Any) -> NDArray[Any]:
    """Return a class, or a number, for each row of features."""
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu()
        y = y.double() if y.is_floating_point() else y  # NumPy has no bfloat16
    found: Any = np.asarray(y).copy()  # loaders may fill the same buffer again
    shape = tuple(features.shape[:-1])
    if found.shape == (*shape, 1):  # as the binary and the squared loss want it
        found = found[..., 0]
    if found.shape != shape:
        raise ValueError(
            f"{where}: y has the shape {found.shape}, and the features {tuple(features.shape)}: give one class, or one "
            "number, for each row of features"
        )
    return np.asarray(found.reshape(-1))
