"""Whatever is given for a public parameter is taken for what it is, or refused in words of our own."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

import localgd
from localgd import InProcess, Message, Method, Shard, from_arrays, local_gd, mean, train
from localgd.rounding import is_number

SOURCE = Path(localgd.__file__).parent
WRONG = {
    "text": "wrong",
    "none": None,
    "true": True,
    "list": [1.5],
    "complex": 1 + 2j,
    "half": 0.5,
    "one": 1.0,
    "below 0": -3,
    "not a number": np.nan,
    "bytes": b"x",
    "mapping": {"a": 1},
    "class": object,
}

NOT_MADE = {"Compressor", "End", "Engine", "Loss", "Merge", "Problem", "Status", "Task"}
"""Vocabulary: what others are derived from, and enumerations."""

RESULTS = {"Certificate", "NodeError", "Recipe", "RoundInfo", "Run"}
"""What the library makes, and nobody else."""

PROCESSES = {"TorchDistributed", "torch_processes"}
"""What needs a process group before it looks at anything; their settings are those of `InProcess`."""

MODEL = localgd.Model(np.array([1.0]), 0.5, ("no", "yes"))
DECIDED = InProcess([Shard("a", [[2.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [2.0, -1.0], [-1.0, -1.0]])])

DECIDED_TWICE = InProcess([*DECIDED.shards.values(), Shard("b", [[2.0, 1.0], [-1.0, -1.0]])])

X, Y, GROUPS = np.eye(4), [0, 1, 0, 1], list("aabb")
TABLES = from_arrays(X, Y, GROUPS)


def federation():
    return InProcess([Shard("a", [[1.0, 2.0], [2.0, 1.0]]), Shard("b", [[1.0, 1.0]])])


def prepared(part):
    return localgd.prepare(part)


def fitted(estimator):
    return lambda **settings: estimator(**settings).fit(X, Y, groups=GROUPS)


def trained(**fields):
    """A method, and what `train` says to it: task and merge are looked at there."""
    return train(federation(), Method(**fields), n_rounds=1)


USED = {
    "LocalGDClassifier": fitted(localgd.LocalGDClassifier),
    "LocalGDClassifierCV": fitted(localgd.LocalGDClassifierCV),
    "LocalGDRegressor": fitted(localgd.LocalGDRegressor),
    "Method": trained,
}

GIVEN = {
    "Angle": {"deg": 1.0},
    "Checkpoints": {"folder": "kept", "every_seconds": 1.0},
    "ClassRows": {"x": np.eye(2), "codes": [0, 2], "n_classes": 3},
    "Csr": {"x": csr_array(np.eye(2))},
    "Dense": {"x": np.eye(2)},
    "Dual": {"vector": np.ones(2)},
    "Fallback": {"method": local_gd()},
    "Field": {"kind": "sum"},
    "Gap": {"share": 0.1},
    "InProcess": {"shards": list(federation().shards.values())},
    "LocalGDClassifier": {"method": "local-sgd", "n_rounds": 3},
    "LocalGDClassifierCV": {"Cs": 2, "cv": 2},
    "MarginRatio": {"ratio": 0.5},
    "Message": {"w": np.zeros(2), "extra": {}},
    "Model": {"coef": np.ones(2)},
    "Method": {"name": "mine", "task": local_gd().task, "merge": mean(), "fallbacks": {}},
    "Prepared": {"x": np.eye(2), "signs": [1.0, -1.0], "center": np.zeros(2), "scale": np.ones(2)},
    "Report": {part: {} for part in ("sums", "maxs", "mins", "counts", "flags", "duals", "per_node")},
    "SampledNodes": {"fraction": 0.5},
    "Samples": {"node_id": "a", "data": np.eye(2), "targets": [1.0, 2.0]},
    "ServerState": {"model": localgd.Dual(np.ones(2)), "asks": {}},
    "Shard": {"node_id": "a", "data": np.eye(2)},
    "TopK": {"share": 0.5},
    "calibrate": {"model": MODEL, "engine": DECIDED},
    "certify": {"w": np.ones(2), "engine": federation(), "n_rounds": 1},
    "chain": {"first": mean()},
    "check_method": {"method": local_gd(local_steps=2)},
    "evaluate": {"model": MODEL, "engine": DECIDED, "n_rounds": 1},
    "from_arrays": {"X": X, "y": Y},
    "hold_out": {"engine": InProcess(TABLES), "share": 0.5},
    "leave_one_node_out": {"engine": DECIDED_TWICE, "fit": lambda _: MODEL},
    "load": {"source": "heart"},
    "modified_local_gd": {"form": "proximal"},
    "partition": {"table": TABLES[0], "how": "iid", "n_nodes": 1},
    "prepare": {"engine": InProcess(TABLES)},
    "tune": {"engine": InProcess(TABLES), "preparing": prepared, "Cs": 2, "cv": "leave-one-node-out"},
    "train": {"engine": federation(), "method": local_gd(local_steps=2), "n_rounds": 1},
    "update_fields": {"message": Message(w=np.zeros(2))},
    "update_report": {"shard": Shard("a", np.eye(2)), "update": np.ones(2)},
}
"""What to give for the parameters that have no default, or take long with it."""

MEANT = {
    "classes": {"none"},
    "cv": {"none"},
    "names": {"none"},
    "probabilities": {"none"},
    "recipe": {"none"},
    "C": {"half", "one"},
    "Cs": {"list"},
    "alpha": {"list"},
    "angle_tol_deg": {"half", "one"},
    "batch_size": {"none"},
    "category_map": {"none"},
    "class_weight": {"none"},
    "center": {"none"},
    "label_map": {"none", "mapping"},
    "local_steps": {"none", "mapping"},
    "lr": {"none", "half", "one", "mapping"},
    "late": {"true"},
    "loss": {"none"},
    "max_seconds": {"half", "one"},
    "prox": {"half", "one"},
    "random_state": {"true"},
    "scale": {"none"},
    "signs": {"none"},
    "thresholds": {"list"},
    "weighted_by": {"none", "mapping"},
}
"""What has a meaning although the default is of another type."""

ALIASES = {"duals": "vector"}
"""What a message names in place of a parameter: of a mapping, what it holds."""

NAMES = sorted(set(localgd.__all__) - NOT_MADE - RESULTS - PROCESSES)


def settings(name):
    """A public name, as something that can be called, and what it is given."""
    function = getattr(localgd, name)
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = [part for part in inspect.signature(function).parameters.values() if part.kind not in kinds]
    defaults = {part.name: part.default for part in parameters if type(part.default).__name__ != "_HAS_DEFAULT_FACTORY"}
    return USED.get(name, function), {**defaults, **GIVEN.get(name, {})}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_takes_what_it_is_given_here(name):
    function, given = settings(name)
    assert not [parameter for parameter, value in given.items() if value is inspect.Parameter.empty]
    function(**given)


def said_by_us(error):
    """Whether this library raised an error on purpose, and did not stumble."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).is_relative_to(SOURCE) and (frame.line or "").startswith("raise")


def meant(parameter, wrong, example):
    """Whether a wrong value is a right one for a parameter with such a default, or such an example."""
    value = WRONG[wrong]
    if wrong in MEANT.get(parameter, ()):
        return True
    if type(example) in (int, float):
        return is_number(value)
    return isinstance(value, list if isinstance(example, np.ndarray) else type(example))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("name", "parameter"), [(name, one) for name in NAMES for one in settings(name)[1]])
def test_a_value_of_the_wrong_type_is_refused_in_words(name, parameter, wrong):
    function, given = settings(name)
    value = WRONG[wrong]
    try:
        function(**{**given, parameter: value})
    except (TypeError, ValueError) as caught:
        error = caught
    else:
        assert meant(parameter, wrong, given[parameter]), "it is taken"
        return
    said = f"{error}".replace("-", "_")
    assert said_by_us(error), f"{type(error).__name__}: {error}"
    assert ALIASES.get(parameter, parameter) in said or f"{value!r}".replace("-", "_") in said
