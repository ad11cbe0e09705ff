"""The node's app: rows from where the node's own operator says, answers to what is on the list."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp

from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.load import load
from localgd.data.partition import partition
from localgd.data.table import Table
from localgd.engine.flower import Limits, RefusedError, RoundHandler
from localgd.engine.flower.records import MAX_MB, QUERY
from localgd.flower.features import HeadRows
from localgd.methods import served
from localgd.methods.served import TASKS

ENCODERS = (*served.ENCODERS, HeadRows)
"""What a node puts its rows through for a server elsewhere."""

PUBLIC = Limits(min_rows=1, min_batch=1, min_group=1)
"""Limits on work only: for rows that need no guard, as those of a bundled set or of a test."""


def answer(
    app: ClientApp,
    load: Callable[[Context], Any] | None = None,
    *,
    tasks: Collection[type] = TASKS,
    encoders: Collection[type] = ENCODERS,
    max_mb: float = MAX_MB,
    limits: Limits | None = None,
) -> ClientApp:
    """Let a ClientApp answer localgd, beside whatever else it does.

    Parameters
    ----------
    app : ClientApp
        Gets the handler ``query.localgd``.
    load : callable, optional
        Returns the node's own `Table`, `Shard`, `Samples` or `Features` from its `Context`; `rows` by default.
    tasks, encoders : collection of type
        What the node agrees to run; any other is refused. Limits do not hold the code of a task of your own, which has
        the rows at hand: know what it sends.
    max_mb : float > 0
        Largest message that it takes.
    limits : Limits, optional
        What it refuses where its node-config does not say otherwise (``min-rows``, ``min-batch``, ``min-group``,
        ``max-local-steps``, ``max-duals``, ``max-mb``): by default `Limits()`, and on a bundled set, which anyone may
        read, `PUBLIC`.

    Returns
    -------
    ClientApp
        The app.

    Raises
    ------
    TypeError
        If it is no ClientApp, or one of Flower's older API, with a client_fn.

    Examples
    --------
    >>> from localgd import Shard
    >>> app = answer(ClientApp(), lambda context: Shard(f"site {context.node_id}", [[1.0, 2.0]]))
    """
    if not isinstance(app, ClientApp):
        raise TypeError(f"app must be a ClientApp of flwr.clientapp, got {app!r}")
    if app._call is not None:  # noqa: SLF001  Flower has no other way to ask
        raise TypeError(
            "app has a client_fn, as in Flower's older API, and can answer nothing else: make it ClientApp(), and put "
            "what fit and evaluate did into functions under @app.train() and @app.evaluate()"
        )

    def limits_of(context: Context) -> Limits:
        public = load is None and "data-path" not in context.node_config
        return (limits or (PUBLIC if public else Limits())).within(context.node_config)

    app.query(QUERY.partition(".")[2])(RoundHandler(load or rows, tasks, encoders, max_mb, limits_of))
    return app


def rows(context: Context) -> Table:
    """Return the rows that a node's own configuration names: nothing that the server says can lead to a file.

    ``data-path`` is a file of this node only, with ``label``, ``weight``, ``decimal``, ``encoding``, ``drop`` and
    ``categorical`` (names between commas) as in `localgd.load`. Or ``data`` names a bundled set, of which
    ``partition-id`` picks the node, as
    simulations number them; only there the app's own configuration may name it. If it names no rows of one node, it is
    a `RefusedError`.
    """
    config = context.node_config
    path, bundled = config.get("data-path"), config.get("data", context.run_config.get("data", ""))
    if path is not None:
        if not Path(str(path)).is_file():
            raise RefusedError("its data-path is no file; correct its node-config")
        label, weight = (None if config.get(key) is None else str(config[key]) for key in ("label", "weight"))
        drop, categorical = (_names(config, key) for key in ("drop", "categorical"))
        own: dict[str, Any] = {key: str(config[key]) for key in ("decimal", "encoding") if key in config}
        return load(str(path), label=label, drop=drop, categorical=categorical, weight=weight, **own)[0]
    place = config.get("partition-id")
    if bundled and bundled not in DATASETS:
        raise RefusedError(f"data={bundled!r:.60} is no bundled set; known are {', '.join(DATASETS)}")
    if not bundled or type(place) is not int:
        raise RefusedError("its node-config names no rows: give it data-path, or data (a bundled set) and partition-id")
    tables = load_dataset(str(bundled))
    if len(tables) == 1:
        tables = partition(tables[0], "iid", int(str(config.get("num-partitions", 1))))
    if not 0 <= place < len(tables):
        raise RefusedError(f"{bundled} has {len(tables)} nodes, so none of partition-id {place}; start as many")
    return tables[place]


def _names(config: Any, key: str) -> list[str]:
    return [name.strip() for name in str(config.get(key, "")).split(",") if name.strip()]


client = answer(ClientApp())
"""A ClientApp that answers localgd on the rows of its node's configuration, and nothing else."""
