"""What a task of one's own reports to be averaged: a weight, and an update with whatever is proved of it."""

from __future__ import annotations

from collections.abc import Mapping

from localgd.core import Field, Message, Report, Schema
from localgd.duals.dual import Dual
from localgd.errors import check_kind
from localgd.many.by_node import by_node
from localgd.problems.metrics import Weighting, check_weighting, node_weight
from localgd.rounding import FloatArray, real_array
from localgd.rows import Shard
from localgd.rules.local import updated, updates


def update_fields(message: Message) -> Schema:
    """Return the schema of `update_report`.

    Parameters
    ----------
    message : Message
        What the node was sent.

    Returns
    -------
    mapping from name to Field
        The sum ``weight`` and what tells of an update: enough for `mean`, and for every chain of parts that begins so.

    Examples
    --------
    >>> sorted(update_fields(Message()))
    ['overflow', 'update', 'update_sq_norm', 'weight']
    """
    check_kind("message", message, Message, "a Message")
    return {"weight": Field("sum"), **updates(message.w.size)}


def update_report(
    shard: Shard, update: Dual | FloatArray, weighted_by: Weighting | Mapping[str, float] = "uniform"
) -> Report:
    """Return the report of a node whose model has moved by an update: ``Δ_m = v_m − w``.

    Parameters
    ----------
    shard : Shard
        The node's rows.
    update : Dual or (d,) float64 array
        Δ_m. From ``shard.combination(a)``, a >= 0, it proves something of the model that it leads to; a bare vector (of
        Adam, of a sign, with noise) does not, and the model is then certified by a dual vector of its own.
    weighted_by : "uniform", "num-examples" or mapping from node to float
        Weight p_m of the node in the mean: 1, its number of samples, or its own.

    Returns
    -------
    Report
        Of one node; the flag ``overflow`` stands for an update beyond float64.

    Examples
    --------
    >>> import numpy as np
    >>> shard = Shard("a", [[3.0, 4.0], [4.0, 3.0]])
    >>> report = update_report(shard, shard.combination(np.array([1.0, 1.0])), "num-examples")
    >>> report.duals["update"].vector.tolist(), float(report.sums["weight"])
    ([14.0, 14.0], 2.0)
    """
    check_kind("shard", shard, Shard, "a Shard")
    weighting: Weighting = by_node(weighted_by, "weighted_by")
    check_weighting(weighting)
    weight = node_weight(shard, weighting)
    vector = update.vector if isinstance(update, Dual) else real_array("update", update)
    if vector.shape != (shard.n_features,):
        raise ValueError(f"update must have the shape ({shard.n_features},), got {vector.shape}")
    dual = update if isinstance(update, Dual) else Dual(vector)
    return updated(Report(1, shard.n_samples, {"weight": weight}), dual, weight)
