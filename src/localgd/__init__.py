"""Train classifiers over data that cannot be pooled, and prove which model came out."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

HOMES = {
    "core": "Engine Field Merge Message Problem Report Task",
    "data.arrays": "from_arrays",
    "data.holdout": "hold_out",
    "data.load": "load",
    "data.model": "Model",
    "data.partition": "partition",
    "data.prepare": "prepare",
    "data.recipe": "Recipe",
    "duals.compressors": "Compressor Int4 Int8 SignSGD TopK",
    "duals.dual": "Dual",
    "engine.inprocess": "InProcess",
    "engine.processes": "torch_processes",
    "engine.torchdist": "TorchDistributed",
    "errors": "NodeError",
    "evaluation.calibrate": "calibrate",
    "evaluation.evaluate": "evaluate",
    "evaluation.left_out": "leave_one_node_out",
    "estimators": "LocalGDClassifier LocalGDClassifierCV LocalGDRegressor",
    "layouts": "ClassRows Csr Dense Prepared",
    "limits": "Limits",
    "losses": "Exponential Logistic Loss SquaredHinge",
    "methods.auto": "auto",
    "methods.averaging": "fedexp fedprox local_gd local_sgd modified_local_gd normalised_local_gd slowmo",
    "methods.exact": "consensus interior_point lbfgs newton newton_cg scaffold",
    "methods.method": "Fallback Method",
    "methods.squares": "conjugate_gradients normal_equations",
    "problems.certificate": "Certificate Status",
    "problems.hard_margin": "HardMargin",
    "problems.least_squares": "LeastSquares",
    "problems.regularised": "Regularised",
    "rows": "Samples Shard",
    "rules.own": "update_fields update_report",
    "rules.server": "End ServerState chain mean",
    "run.certify": "certify",
    "run.checkpoint": "Checkpoints",
    "run.goals": "Angle Gap MarginRatio",
    "run.history": "RoundInfo Run SampledNodes",
    "run.loop": "train",
    "run.tune": "tune",
    "testing.check": "check_method",
}
"""The public names by the module that they live in, which is imported on first use; `__init__.pyi` tells editors."""

MODULES = {name: f"localgd.{module}" for module, names in HOMES.items() for name in names.split()}

OPTIONAL = {"engine.processes": "torch", "engine.torchdist": "torch"}
"""Modules that need a library that may not be there: nobody is offered their names then."""


def _there(library: str) -> bool:
    """Return whether a library can be found; it is not imported."""
    try:
        return find_spec(library) is not None
    except ImportError:  # somebody keeps it from being imported
        return False


__all__ = sorted(  # noqa: PLE0605  what type checkers and editors see is in __init__.pyi
    name
    for module, names in HOMES.items()
    if module not in OPTIONAL or _there(OPTIONAL[module])
    for name in names.split()
)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, and only what it needs: nobody waits for a library that is not used."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  as slow as all the rest

        return version("localgd")
    if name not in MODULES:
        raise AttributeError(f"module 'localgd' has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    own = {name for name, value in globals().items() if name.startswith("__") or isinstance(value, ModuleType)}
    return sorted({*own, *__all__, "__version__"})
