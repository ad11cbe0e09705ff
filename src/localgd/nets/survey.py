"""What a model is made of: every parameter and buffer with its rule, or a refusal by name."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from localgd.errors import extra, listing
from localgd.nets.places import Places

with extra("torch", "torch"):
    import torch
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm
    from torch.nn.parameter import is_lazy


class Parts(NamedTuple):
    """Trained parameters, normalisations with statistics by name, and all other tensors: frozen parameters, too."""

    trained: Places
    layers: dict[str, Any]
    others: dict[str, Any]


def parts_of(model: Any, rules: Mapping[str, str]) -> Parts:
    """Return what a model is made of.

    Raises
    ------
    TypeError
        If it is no module, or one that adds up its own gradients, or is spread over ranks.
    ValueError
        If a tensor has no rule: lazy, sparse or complex.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    _check_modules(model)
    named = dict(model.named_parameters())  # tied ones once, by their first name
    _check_tensors(named)
    trained = Places((name, tensor) for name, tensor in named.items() if tensor.requires_grad)
    if not len(trained):
        raise ValueError("model has no parameter that requires a gradient: there is nothing to average")
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm | _InstanceNorm) and module.running_mean is not None
        if isinstance(module, _BatchNorm) or not _ruled(f"{name}.running_mean", rules)
    }
    statistics = {
        id(tensor)
        for layer in layers.values()
        for tensor in (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    }
    others: dict[str, Any] = {name: tensor for name, tensor in named.items() if not tensor.requires_grad}
    others |= {name: tensor for name, tensor in model.named_buffers() if id(tensor) not in statistics}
    return Parts(trained, layers, others)


def _ruled(name: str, rules: Mapping[str, str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in rules)


def _check_modules(model: Any) -> None:
    for name, module in model.named_modules():
        kind, where = type(module).__name__, name or "model"
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise TypeError(
                f"{where} is a DistributedDataParallel, which adds up gradients at every step; give its .module"
            )
        if kind in {"FullyShardedDataParallel", "FSDPModule"} or "FSDP" in kind:
            raise TypeError(f"{where} is spread over ranks ({kind}); LocalSGD averages whole models: one in each rank")
        if isinstance(module, nn.SyncBatchNorm):
            raise TypeError(
                f"{where} is a SyncBatchNorm, which waits for all ranks at every step; use BatchNorm: a sync pools it"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise TypeError(f"{where} makes sparse gradients; give it sparse=False")


def _check_tensors(named: Mapping[str, Any]) -> None:
    for name, tensor in named.items():
        if is_lazy(tensor):
            raise ValueError(f"parameter {name} has no shape yet; run the model once first")
        if type(tensor.data).__name__ == "DTensor":
            raise TypeError(f"parameter {name} is spread over ranks (DTensor); LocalSGD averages whole models")
        if not tensor.is_floating_point():
            raise ValueError(f"parameter {name} is {tensor.dtype}; only real floating-point parameters can be averaged")
    if len(devices := {tensor.device for tensor in named.values()}) > 1:
        raise ValueError(f"model lies on {listing(sorted(map(str, devices)))}; LocalSGD takes models on one device")
    if devices == {torch.device("meta")}:
        raise ValueError("model lies on the meta device, without numbers; use to_empty and initialise it first")
