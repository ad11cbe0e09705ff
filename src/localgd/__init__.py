"""Train classifiers over data that cannot be pooled, and prove which model came out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from localgd.core import End, Engine, Merge, Message, Problem, Report, Task
from localgd.data.arrays import from_arrays
from localgd.data.load import load
from localgd.data.partition import partition
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.engine.inprocess import InProcess
from localgd.errors import NodeError
from localgd.losses import Exponential, Logistic, Loss
from localgd.methods.auto import auto
from localgd.methods.averaging import (
    fedexp,
    fedprox,
    local_gd,
    local_sgd,
    modified_local_gd,
    normalised_local_gd,
    slowmo,
)
from localgd.methods.exact import consensus, interior_point, lbfgs, newton, scaffold
from localgd.methods.method import Fallback, Method
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin
from localgd.problems.regularised import Regularised
from localgd.rows import Dual, Samples, Shard
from localgd.run.certify import certify
from localgd.run.goals import Angle, Gap, MarginRatio
from localgd.run.history import RoundInfo, Run, SampledNodes
from localgd.run.least_squares import Regression, fit_squares
from localgd.run.loop import train

if TYPE_CHECKING:
    from localgd.engine.processes import torch_processes
    from localgd.engine.torchdist import TorchDistributed
    from localgd.estimators import LocalGDClassifier, LocalGDRegressor

LATE = {
    "LocalGDClassifier": "localgd.estimators",
    "LocalGDRegressor": "localgd.estimators",
    "TorchDistributed": "localgd.engine.torchdist",
    "torch_processes": "localgd.engine.processes",
}
"""What is imported on first use: scikit-learn and torch take a second or more that the command line need not pay."""

__all__ = [
    "Angle",
    "Certificate",
    "Dual",
    "End",
    "Engine",
    "Exponential",
    "Fallback",
    "Gap",
    "HardMargin",
    "InProcess",
    "LocalGDClassifier",
    "LocalGDRegressor",
    "Logistic",
    "Loss",
    "MarginRatio",
    "Merge",
    "Message",
    "Method",
    "NodeError",
    "Problem",
    "Recipe",
    "Regression",
    "Regularised",
    "Report",
    "RoundInfo",
    "Run",
    "SampledNodes",
    "Samples",
    "Shard",
    "Status",
    "Task",
    "TorchDistributed",
    "auto",
    "certify",
    "consensus",
    "fedexp",
    "fedprox",
    "fit_squares",
    "from_arrays",
    "interior_point",
    "lbfgs",
    "load",
    "local_gd",
    "local_sgd",
    "modified_local_gd",
    "newton",
    "normalised_local_gd",
    "partition",
    "prepare",
    "scaffold",
    "slowmo",
    "torch_processes",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use what needs a heavy library."""
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module 'localgd' has no attribute {name!r}")
